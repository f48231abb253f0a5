"""What services printed and what the service manager said of them, as one stream, from the journal.

Owns the choice of the entries, in batches as they come, and their decoding; `cli.logs` makes lines of them.
One journalctl(1) does the reading, so that rotation, corrupt files and access rights are its business, and
its speed is ours. The rules:
- Who said an entry is told by the fields that journald adds (systemd.journal-fields(7)): a service may write
  all others, and is never believed to be PID 1.
- Nothing is left out and nothing piles up: what is not read yet waits in the journal's files, since
  journalctl stops at a full pipe.
- `--unit` of journalctl is four matches a unit, each of which costs at each entry. Ours are as few as can
  be: the values of one field side by side.
"""

from __future__ import annotations

import os
import select
from collections.abc import Generator, Sequence
from contextlib import suppress
from typing import NamedTuple

from sysresp.errors import Exit, SysrespError
from sysresp.systemd.export import CODES, KINDS, Entry, journalctl, parse
from sysresp.systemd.records import is_readable

LINE = "line"
SAID = "said"  # by systemd about the unit, in its own words: of a kind that is none of ours
CORE = "core"  # systemd-coredump has the core

_CORE_ID = b"fc2e22bc6ee647b6b90729ab34a250b1"
# MESSAGE_ID (sd-messages.h) -> kind; "" is what the others say better
_KINDS = {
    **KINDS,
    b"7d4958e842da4a758f6c1cdc7b36dcc5": "",  # starting
    b"de5b426a63be47a7b6ac3eaac82e2f6f": "",  # stopping
    b"ae8f7b866b0347b9af31fe1c80b127c0": "",  # consumed so much CPU time
}
_RESULTS = {"failed": b"UNIT_RESULT", "started": b"JOB_RESULT", "start-failed": b"JOB_RESULT"}
_FIELDS = (
    "MESSAGE,PRIORITY,_PID,{0}_UNIT,{0}_INVOCATION_ID,MESSAGE_ID,{1}UNIT,{1}INVOCATION_ID,COREDUMP_{1}UNIT,"
    "_SYSTEMD_INVOCATION_ID,EXIT_CODE,EXIT_STATUS,COMMAND,N_RESTARTS,UNIT_RESULT,JOB_RESULT,JOB_TYPE"
)
_CHUNK = 1 << 18  # of a pipe of 64 KiB, so it is as much as there is
_PIPE = 1 << 20
_SETPIPE = 1031  # F_SETPIPE_SZ of fcntl(2); the module has it since Python 3.10, but not everywhere


class LogEntry(NamedTuple):
    """One entry of the journal."""

    unit: str
    kind: str  # LINE, SAID, CORE, or what systemd says in `_KINDS`
    text: str  # as it was written: it may hold anything
    at: int  # microseconds since the epoch
    invocation: str = ""
    priority: int = 6  # as in syslog(3)
    pid: int = 0  # of the process that said it
    exec_code: int = 0  # exited: 1 exited, 2 killed, 3 dumped core
    exec_status: int = 0
    command: str = ""  # exited: "ExecStart", "ExecStartPre", ...
    result: str = ""  # failed: UNIT_RESULT; started, start-failed: JOB_RESULT
    job_type: str = ""  # stopped, started
    n_restarts: int = 0  # restart
    cursor: str = ""


class Wanted(NamedTuple):
    """What is asked of the journal."""

    units: Sequence[str]
    lines: int = -1  # the last ones; -1: all
    since: float = 0.0  # seconds since the epoch; 0: from the beginning
    follow: bool = False
    newest_first: bool = False  # not with `follow`
    after: str = ""  # a cursor


class JournalLogs:
    """The journal of the system, or of the caller's own units."""

    def __init__(self, *, user: bool = False) -> None:
        self._user = user
        self._own = b"_SYSTEMD_USER" if user else b"_SYSTEMD"
        self._about = b"USER_" if user else b""

    def is_readable(self) -> bool:
        """Say whether all of it can be seen; journalctl shows others what is theirs, and succeeds."""
        return is_readable() or (self._user and is_readable(f"user-{os.geteuid()}.journal"))

    def read(self, wanted: Wanted, reader_of: int = -1) -> Generator[list[LogEntry], None, None]:
        """Yield the entries in batches; ends when there are no more, or nobody reads `reader_of` any more.

        Close it to end the child. A batch may be empty.
        """
        if os.geteuid() == 0 and not wanted.follow:
            self._sync()
        fields = _FIELDS.format(self._own.decode(), self._about.decode())
        units = {unit.encode(): unit for unit in wanted.units}
        try:
            child = journalctl([*_options(wanted), *self._matches(wanted.units)], fields)
        except (OSError, ValueError) as error:
            raise SysrespError(f"cannot run journalctl: {error}", exit=Exit.UNREACHABLE) from error
        assert child.stdout is not None
        out = child.stdout.fileno()
        poll = select.poll()
        poll.register(out, select.POLLIN)
        if reader_of >= 0:
            poll.register(reader_of, 0)  # POLLERR, POLLHUP and POLLNVAL are always told
        rest = b""
        with child:
            _widen(out)
            try:
                while True:
                    if any(found != out for found, _ in poll.poll()):
                        return
                    chunk = os.read(out, _CHUNK)
                    if not chunk:
                        break
                    entries, rest = parse(rest + chunk)
                    yield self._decoded(entries, units)
            finally:
                child.kill()
        if wanted.follow:
            raise SysrespError("journalctl ended by itself", hint="see why: journalctl --follow")

    def _sync(self) -> None:
        import subprocess  # noqa: PLC0415 - as late as possible

        with suppress(OSError, subprocess.SubprocessError):
            subprocess.run(
                ["journalctl", "--sync"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=5,
                check=False,
            )

    def _matches(self, units: Sequence[str]) -> list[str]:
        own, about = self._own.decode(), self._about.decode()
        manager = [f"_UID={os.geteuid()}", "_SYSTEMD_USER_UNIT=init.scope"] if self._user else ["_PID=1"]
        core = ["_UID=0", f"MESSAGE_ID={_CORE_ID.decode()}"]
        return [
            *(f"{own}_UNIT={unit}" for unit in units),
            *("+", *manager, *(f"{about}UNIT={unit}" for unit in units)),
            *("+", *core, *(f"COREDUMP_{about}UNIT={unit}" for unit in units)),
        ]

    def _decoded(self, entries: list[Entry], units: dict[bytes, str]) -> list[LogEntry]:
        found: list[LogEntry] = []
        own, core = self._own + b"_UNIT", b"COREDUMP_" + self._about + b"UNIT"
        run = self._own + b"_INVOCATION_ID"
        for entry in entries:
            get = entry.get
            unit = units.get(get(own, b""))
            if unit is not None:
                found.append(
                    LogEntry(
                        unit,
                        LINE,
                        get(b"MESSAGE", b"").decode(errors="backslashreplace"),
                        int(entry[b"__REALTIME_TIMESTAMP"]),
                        (get(run) or get(b"_SYSTEMD_INVOCATION_ID", b"")).decode(errors="replace"),
                        int(get(b"PRIORITY", b"6")) if get(b"PRIORITY", b"6").isdigit() else 6,
                        _number(entry, b"_PID"),
                        cursor=entry[b"__CURSOR"].decode(),
                    )
                )
            elif (unit := units.get(get(core, b""))) is not None and get(b"MESSAGE_ID") == _CORE_ID:
                found.append(self._told(entry, unit, CORE))
            elif (unit := units.get(get(self._about + b"UNIT", b""))) is not None:
                kind = _KINDS.get(get(b"MESSAGE_ID", b""), SAID)
                if kind:
                    found.append(self._told(entry, unit, kind))
        return found

    def _told(self, entry: Entry, unit: str, kind: str) -> LogEntry:
        """Return what systemd, or systemd-coredump, said about the unit."""

        def text(name: bytes) -> str:
            return entry.get(name, b"").decode(errors="backslashreplace")

        code = CODES.get(entry.get(b"EXIT_CODE", b""), 0) if kind == "exited" else 0
        return LogEntry(
            unit,
            kind,
            text(b"MESSAGE"),
            int(entry[b"__REALTIME_TIMESTAMP"]),
            text(self._about + b"INVOCATION_ID"),
            _number(entry, b"PRIORITY"),
            _number(entry, b"_PID"),
            code,
            _number(entry, b"EXIT_STATUS") if code else 0,
            text(b"COMMAND") if kind == "exited" else "",
            text(_RESULTS.get(kind, b"")),
            text(b"JOB_TYPE"),
            _number(entry, b"N_RESTARTS"),
            text(b"__CURSOR"),
        )


def _options(wanted: Wanted) -> list[str]:
    words = [f"--lines={'all' if wanted.lines < 0 else wanted.lines}"]
    words += ["--follow"] if wanted.follow else []
    words += ["--reverse"] if wanted.newest_first else []
    words += [f"--since=@{wanted.since:.6f}"] if wanted.since else []
    return words + ([f"--after-cursor={wanted.after}"] if wanted.after else [])


def _widen(pipe: int) -> None:
    """Let the pipe hold more, so that both sides work in longer turns; the kernel may refuse."""
    import fcntl  # noqa: PLC0415 - as late as possible

    with suppress(OSError):
        fcntl.fcntl(pipe, _SETPIPE, _PIPE)


def _number(entry: Entry, name: bytes) -> int:
    value = entry.get(name, b"")
    return int(value) if value.isdigit() else 0
