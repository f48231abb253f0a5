"""Everything that sysresp can do to a host, in one short list.

Protocols: `Manager` (a systemd service manager), `Signals` (what it announces), `Records` (what it said
while nobody listened), `Notify`, `Watch`, `Files` (the file system), `Journal`, `Processes` and `Clock`. The
real ones live in `sysresp.systemd`, the fakes in tests/; tests/test_contract*.py run one suite on both.
Nothing else in sysresp touches systemd, writes a file of the host or waits.

Errors: every method may raise `sysresp.errors.SysrespError` (with Exit.DENIED or Exit.UNREACHABLE where
that is the cause); OSError of the file system is passed on as it is: callers want errno and file name.
This module must stay cheap to import: `sysresp status` pays for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol


class UnitState(NamedTuple):
    """One row of ListUnitsByPatterns or ListUnitsByNames (org.freedesktop.systemd1(5))."""

    name: str
    description: str
    load_state: str  # loaded | not-found | masked | bad-setting | error
    active_state: str  # active | inactive | failed | activating | deactivating | reloading | maintenance
    sub_state: str  # running, dead, auto-restart, start-post, listening, waiting, ...
    job_id: int  # 0: no job is queued
    job_type: str


class Question(NamedTuple):
    """Some properties of one unit."""

    unit: str
    interface: str  # as in `Manager.properties`
    names: tuple[str, ...]


class JobRemoved(NamedTuple):
    """The end of a job, as PID 1 tells it. `done` does not mean that the unit runs: read its state."""

    job_id: int
    unit: str
    result: str  # done | canceled | timeout | failed | dependency | skipped | invalid | assert | ...


class Manager(Protocol):
    """One service manager over D-Bus: PID 1, or the user's own.

    Job methods return the job's number at once and never wait; the caller waits with `wait`. They raise
    `UnitProblem` when systemd refuses the job (unit not found, masked, bad setting).
    """

    def version(self) -> int:
        """Return systemd's major version, such as 252."""

    def rest(self) -> None:
        """Let go what others have sent us; for who lives long, and waits for no job."""

    def units(self, patterns: Sequence[str]) -> list[UnitState]:
        """Return the loaded units that match any of these globs (ListUnitsByPatterns); loads nothing."""

    def units_by_name(self, names: Sequence[str]) -> list[UnitState]:
        """Return one row for each name, loading what is not loaded (ListUnitsByNames)."""

    def properties(self, unit: str, interface: str, names: Sequence[str]) -> dict[str, object]:
        """Return these properties of the unit; interface is "Unit", "Service", "Socket", "Timer", "Path".

        Values are str, int, bool, or lists and tuples of them, exactly as D-Bus has them, but InvocationID,
        which is written as in the journal (32 hexadecimal digits, "" if the unit never ran); a property that
        this systemd does not know is left out.
        """

    def many_properties(self, questions: Sequence[Question]) -> list[dict[str, object]]:
        """Return what `properties` returns for each of these, in their order, and much sooner."""

    def reload(self) -> None:
        """Do a daemon-reload and return when it is finished."""

    def watch_jobs(self) -> None:
        """Ask for the ends of the jobs that this connection queues; call before the first such job."""

    def start(self, unit: str) -> int: ...

    def stop(self, unit: str) -> int: ...

    def restart(self, unit: str) -> int: ...

    def reload_unit(self, unit: str) -> int: ...

    def start_transient(self, unit: str, properties: Sequence[tuple[str, str, object]]) -> int:
        """Start a transient unit; properties are (name, D-Bus signature, value)."""

    def try_restart(self, unit: str) -> int:
        """Restart it if it is up or (since systemd 252) waits for its restart, else do nothing."""

    def kill(self, unit: str, signal: int) -> None:
        """Send the signal to every process of the unit (KillUnit, who=all)."""

    def reset_failed(self, unit: str) -> None:
        """Forget the failed state and the start counters; a unit that is not loaded is no error."""

    def pending_jobs(self) -> dict[int, str]:
        """Return the queue: job number -> unit."""

    def wait(
        self, jobs: Iterable[int], timeout_sec: float, on_removed: Callable[[JobRemoved], None]
    ) -> set[int]:
        """Wait until these jobs are gone, and return those that are not after timeout_sec.

        `on_removed` is called for the end of each job that this connection queued, and of no other. The
        queue itself is looked at again from time to time: a job that ended unheard is gone without a call,
        since nobody knows its result. Read the state of its unit.
        """


class UnitProblem(Exception):
    """systemd refuses a job: `code` is the last part of the D-Bus error name (NoSuchUnit, UnitMasked)."""

    def __init__(self, unit: str, code: str, message: str) -> None:
        super().__init__(f"{unit}: {message}")
        self.unit = unit
        self.code = code
        self.message = message


class FileStat(NamedTuple):
    """What stat(2) says of a file, links followed; times are seconds since the epoch."""

    device: int
    inode: int
    size: int
    mtime: float  # its content was written
    ctime: float  # it was put there: a rename sets this and leaves mtime alone


class Files(Protocol):
    """The file operations that apply needs; each is one point at which a power cut leaves a whole state."""

    def read(self, path: str) -> bytes | None:
        """Return the content, or None if there is no such file."""

    def write(self, path: str, content: bytes, mode: int = 0o644, *, durable: bool = False) -> None:
        """Put the whole content there at once (temporary file, rename); makes parents 0755.

        With `durable` it survives a power cut from then on (fsync of the file and of its directory).
        """

    def remove(self, path: str) -> None:
        """Remove a file or link; no error if it is gone."""

    def link(self, path: str, target: str) -> None:
        """Make or replace a symbolic link at once; makes parents 0755."""

    def readlink(self, path: str) -> str | None:
        """Return where the link points, None if it is no link or not there."""

    def listdir(self, path: str) -> list[str]:
        """Return the names in a directory, sorted; empty if there is none."""

    def rmdir(self, path: str) -> None:
        """Remove a directory if it is there and empty; after `begin` it goes at `forget`, not at once."""

    def sweep(self, path: str) -> None:
        """Remove what killed processes of ours left in this directory under hidden names."""

    def sync(self, path: str) -> None:
        """Make everything written to the file system of this path durable."""

    def stat(self, path: str) -> FileStat | None:
        """Return what is known about the file, None if there is none."""

    def begin(self) -> None:
        """Remember from here on what each change replaces, until `forget` or `undo`; not nested."""

    def undo(self) -> list[str]:
        """Put everything back as it was at `begin`, without needing room on the disk; ends what it began.

        Returns the paths that could not be put back, [] after a success or if nothing was begun.
        """

    def forget(self) -> None:
        """Let the changes since `begin` stand; no error if nothing was begun."""

    def lock(self, path: str, holder: bytes) -> bytes | None:
        """Take the exclusive lock of this path until `unlock` or the end of the process, and say who has it.

        None: it is ours now, and `holder` is the content of the file (0644; parents are made 0755). Else the
        content, by which whoever has it told who they are. Never waits. A file that a killed process left
        behind is no lock (flock(2)). Not remembered by `begin`.
        """

    def unlock(self, path: str) -> None:
        """Let the lock go; the file stays, empty, since removing it would be a race."""


class Line(NamedTuple):
    """One message of a unit, or of the service manager about it."""

    unit: str
    invocation: str  # "" if the journal does not know the run
    at: float  # seconds since the epoch
    text: str
    kind: str = ""  # by the manager: starting | started | said; "" by the unit itself


class Journal(Protocol):
    """Reading what a unit printed."""

    def tail(self, unit: str, lines: int, invocation_id: str = "") -> list[str]:
        """Return the last messages of the unit (of that run), oldest first; [] if it cannot be read."""

    def core_dumps(self, unit: str, since: float, until: float = 0.0) -> list[int]:
        """Return the processes of the unit of which systemd-coredump has a record; times since the epoch."""

    def scan(self, units: Sequence[str], since: float, most: int) -> tuple[list[Line], bool]:
        """Return the last messages of these units since then, oldest first, and whether that is all.

        Not all: there are more than `most`, or reading them took too long. [] if they cannot be read.
        """


class Processes(Protocol):
    """Looking at running processes (proc(5))."""

    def replaced(self, pid: int) -> list[str]:
        """Return the program and the libraries that the process runs and that are no longer on the disk.

        An upgrade puts another file at the path. [] if the process is gone, or may not be looked at.
        """


class Clock(Protocol):
    """Time, and waiting for it to pass."""

    def now(self) -> float:
        """Return the wall clock, in seconds since the epoch."""

    def monotonic(self) -> float:
        """Return seconds that only ever grow (CLOCK_MONOTONIC)."""

    def uptime(self) -> float:
        """Return such seconds that go on while the machine is asleep (CLOCK_BOOTTIME)."""

    def sleep(self, seconds: float) -> None:
        """Let that much time pass."""


class Seen(NamedTuple):
    """What systemd said of one unit, as a rule a .service, at one moment.

    PID 1 sends each change as two signals, org.freedesktop.systemd1.Service first and .Unit after it; only
    the pair is whole. Times are as in the properties, in seconds; 0: never.
    """

    unit: str
    active: str = "inactive"  # ActiveState
    sub: str = "dead"  # SubState
    invocation: str = ""  # InvocationID, 32 hexadecimal digits; that of the last run while it is down
    result: str = "success"  # Result
    job: int = 0  # number of its job in the queue, 0: none
    n_restarts: int = 0  # NRestarts
    main_pid: int = 0
    exec_code: int = 0  # ExecMainCode: 1 exited, 2 killed, 3 dumped core; 0: it has not ended
    exec_status: int = 0  # exit status, or number of the signal
    started: float = 0.0  # ExecMainStartTimestampMonotonic
    ended: float = 0.0  # ExecMainExitTimestampMonotonic
    ended_at: float = 0.0  # ExecMainExitTimestamp, since the epoch
    changed: float = 0.0  # StateChangeTimestampMonotonic: ActiveState or SubState became what they are
    load: str = "loaded"  # LoadState; only in a read, a signal leaves it at "loaded"


class Gone(NamedTuple):
    """PID 1 unloaded the unit: it is down, and what it knew of it is forgotten (UnitRemoved).

    Not told for the units that a daemon-reload takes down and up again.
    """

    unit: str


class Lost(NamedTuple):
    """Signals may be missing from here on: look at everything again."""

    why: str  # "disconnected", "systemd re-executed itself", "overflow"


Signal = Seen | JobRemoved | Gone | Lost


class Signals(Protocol):
    """What PID 1 announces about some units, on a connection of its own."""

    forged: int  # messages that others sent us, so far

    def open(self) -> int:
        """Connect, ask for the signals, and return the descriptor to poll; SysrespError if nobody answers.

        From then on nothing is missed: read the state of all units after this, not before.
        """

    def watch(self, units: Iterable[str]) -> None:
        """Report these units, and no others; for one that is no .service, only what all units have."""

    def drain(self) -> list[Signal]:
        """Return what has come, in order; never waits.

        Call it when the descriptor is readable: after some 10 ms of work it leaves the rest for the next
        call, and the descriptor is readable still. A `Seen` that says nothing new is left out, and so are
        forged messages (of another sender than systemd), which are counted in `forged`. After a `Lost` of
        "disconnected" the descriptor is dead: `close`, then `open` again.
        """

    def close(self) -> None:
        """Close the connection; no error if there is none."""


class Record(NamedTuple):
    """One message of the service manager about one unit, from the journal (systemd's sd-messages.h)."""

    kind: str  # started | start-failed | exited | failed | finished | stopped | restart | oom
    unit: str
    invocation: str  # start-failed: of the run before; "" if there was none, or it was unloaded
    at: float  # seconds since the epoch
    monotonic: float  # CLOCK_MONOTONIC, of the boot that it is from
    boot: str  # 32 hexadecimal digits
    result: str = ""  # failed: UNIT_RESULT; started, start-failed: JOB_RESULT
    job_type: str = ""  # start-failed, stopped: JOB_TYPE
    exec_code: int = 0  # exited: as in `Seen`
    exec_status: int = 0
    n_restarts: int = 0  # restart: N_RESTARTS


class Records(Protocol):
    """The journal by cursor: what the service manager said while nobody listened."""

    def since(self, cursor: str, units: Iterable[str]) -> tuple[list[Record], str, bool]:
        """Return the records of these units after the cursor, the new cursor, and whether that is all.

        With "": none, and the cursor of the end. Not all: the journal was vacuumed or rotated past the
        cursor, or cannot be read at all (the cursor is then the one that was given).
        """


class Notify(Protocol):
    """Telling the service manager that started this process how it is (sd_notify(3)); never fails."""

    watchdog_sec: float  # it kills us if `alive` is not called for so long; 0: it does not

    def ready(self, status: str = "") -> None:
        """Say that the start, or the reload, is finished."""

    def status(self, status: str) -> None:
        """Show one line in `systemctl status`."""

    def alive(self) -> None:
        """Call this three times in `watchdog_sec`."""

    def extend(self, sec: float) -> None:
        """Ask for so much time from now on until `ready`."""

    def stopping(self, status: str = "") -> None:
        """Say that the end has begun."""


class Watch(Protocol):
    """Which files in some directories have changed (inotify(7))."""

    def fileno(self) -> int:
        """Return the descriptor to poll."""

    def add(self, path: str) -> None:
        """Watch this directory from now on, there or not."""

    def changed(self) -> set[str]:
        """Return the paths of the files that have changed since; never waits.

        A directory's own path stands for everything in it.
        """


class Paths(NamedTuple):
    """Where one scope and mode keep their things; `sysresp.reconcile.layout` says which."""

    unit_dir: str  # "/etc/systemd/system": where our unit files and links go
    state_dir: str  # "/var/lib/sysresp": manifests and generations
    prober: str  # "/var/lib/sysresp/ready.py": the installed readiness prober
    search: tuple[str, ...]  # the manager's unit path, first wins; a foreign unit of our name may be in any
    lock_dir: str  # "/run/sysresp": one lock for each project, whatever its mode


class Host(NamedTuple):
    """The ports, bound to one scope and mode."""

    manager: Manager
    files: Files
    journal: Journal
    paths: Paths
    processes: Processes
    clock: Clock
