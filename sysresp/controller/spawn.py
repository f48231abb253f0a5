"""One try of a health probe by a program: exec.

Owns the child: how it is started, what it sees, what of its output is kept, and that it is killed with all
that it started and reaped. The program is run by the controller: as the controller's own user, inside the
controller's own sandbox and directory, with no shell and on its standard input what is given. It sees UNIT,
INSTANCE ("" unless the unit has one) and INVOCATION_ID of the run that it is to judge, a PATH, and of the
controller's own environment only `PASSED`: neither NOTIFY_SOCKET nor credentials. It does not see MAINPID,
which may be another process's by the time that the child looks: `systemctl show` tells.

The end is heard through a pidfd, so there is no SIGCHLD, no thread and no child watcher of asyncio, whose
kinds differ from one Python to the next. posix_spawn(3) waits until the program is loaded: one on a file
system that hangs holds the controller up. A descendant that leaves the process group escapes the kill, and
ends with the controller's cgroup.

The rule: `gone` is called once for each child, when it is reaped, which after a kill may be later than its
try has ended; who counts children counts those.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from sysresp.controller.dial import Done, error_words

if TYPE_CHECKING:
    import asyncio

MOST_TAIL = 1024  # bytes of output that are kept
MOST_OUTPUT = 1 << 20  # after so much nothing is read any more: the child waits until its time is over
MOST_LINE = 200  # characters of the last line that are shown
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PASSED = ("HOME", "LANG", "LOGNAME", "SHELL", "TMPDIR", "TZ", "USER", "XDG_RUNTIME_DIR")
REAP_SEC = 1.0  # for which `Child.reap` waits at most

# Python ignores some signals, and a child would inherit that.
_DEFAULT = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


def environment(unit: str, invocation: str, own: Mapping[str, str]) -> dict[str, str]:
    """Return what a child sees; `own` is the controller's environment."""
    seen = {name: own[name] for name in PASSED if name in own}
    _, at, rest = unit.partition("@")
    instance = rest.rpartition(".")[0] if at else ""
    return seen | {"PATH": PATH, "UNIT": unit, "INSTANCE": instance, "INVOCATION_ID": invocation}


def last_line(output: bytes) -> str:
    """Return the last line that says something, as text that can be shown anywhere."""
    for line in reversed(output.decode(errors="replace").splitlines()):
        shown = "".join(c if c.isprintable() else " " for c in line).strip()
        if shown:
            return shown if len(shown) <= MOST_LINE else shown[: MOST_LINE - 3] + "..."
    return ""


def ending(status: int) -> str:
    """Return how a process ended, from its wait status, in words; "" if all is well."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exit status {code}" if code else ""
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal
        return f"killed by signal {-code}"


def _file_of(content: bytes) -> int:
    """Return a descriptor that reads this; the child may be slow, so no pipe, which holds 64 KB."""
    if not content:
        return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    descriptor = os.memfd_create("given", os.MFD_CLOEXEC)
    try:
        while content:
            content = content[os.write(descriptor, content) :]
        os.lseek(descriptor, 0, os.SEEK_SET)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


class Child:
    """A `Try` by a child process in a session of its own."""

    __slots__ = (
        "_argv",
        "_done",
        "_environment",
        "_given",
        "_gone",
        "_loop",
        "_output",
        "_pid",
        "_pidfd",
        "_read",
        "_tail",
    )

    def __init__(  # noqa: PLR0917
        self,
        loop: asyncio.AbstractEventLoop,
        argv: tuple[str, ...],
        environment: Mapping[str, str],
        done: Done,
        gone: Callable[[Child], None],
        given: bytes = b"",  # its standard input
    ) -> None:
        self._loop = loop
        self._given = given
        self._argv = argv
        self._environment = environment
        self._done: Done | None = done  # None: the try has ended
        self._gone = gone
        self._pid = 0
        self._pidfd = -1
        self._output = -1
        self._read = 0  # bytes of output
        self._tail = b""

    def begin(self) -> None:
        try:
            self._spawn()
        except (OSError, ValueError, IndexError) as error:
            words = error_words(error.errno or 0) if isinstance(error, OSError) else str(error)
            self._gone(self)
            self._end(None, f"cannot run {self._argv[0] if self._argv else 'nothing'}: {words}")
            return
        self._loop.add_reader(self._output, self._readable)
        self._loop.add_reader(self._pidfd, self._ended)

    def _spawn(self) -> None:
        self._output, write = os.pipe()
        stdin = -1
        try:
            stdin = _file_of(self._given)
            os.set_blocking(self._output, False)
            self._pid = os.posix_spawnp(
                self._argv[0],
                self._argv,
                self._environment,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, stdin, 0),
                    (os.POSIX_SPAWN_DUP2, write, 1),
                    (os.POSIX_SPAWN_DUP2, write, 2),
                ],
                setsid=True,
                setsigmask=(),
                setsigdef=_DEFAULT,
            )
            self._pidfd = os.pidfd_open(self._pid)
        except BaseException:
            self._close_output()
            if self._pid:
                self._kill()
                os.waitpid(self._pid, 0)
                self._pid = 0  # soon somebody else's
            raise
        finally:
            os.close(write)
            if stdin >= 0:
                os.close(stdin)

    def abandon(self) -> None:
        self._done = None
        self._kill()

    def late(self, timeout: str) -> tuple[bool | None, str]:
        self._drain()
        self.abandon()
        return False, _with(f"timed out after {timeout}", self._tail)

    def reap(self, deadline: float) -> None:
        """Kill it, and wait for its end until then (time.monotonic()), so that the loop may be closed."""
        self.abandon()
        if self._pidfd >= 0:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
            self._reaped()

    def _kill(self) -> None:
        """Kill its process group; as it is not reaped yet, nobody else has that number."""
        self._close_output()
        if self._pid:
            try:
                os.killpg(self._pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):  # a set-user-ID program may be beyond us
                return

    def _readable(self) -> None:
        if not self._drain(1):
            self._close_output()

    def _drain(self, times: int = 16) -> bool:
        """Read what is there; false if nothing more is to be read."""
        for _ in range(times if self._output >= 0 else 0):
            try:
                part = os.read(self._output, 65536)
            except BlockingIOError:
                return True
            self._tail = (self._tail + part)[-MOST_TAIL:]
            self._read += len(part)
            if not part:
                return False
            if self._read > MOST_OUTPUT:
                self._loop.remove_reader(self._output)
        return True

    def _ended(self) -> None:
        self._drain()
        status = self._reaped()
        why = "" if status is None else ending(status)
        if status is None:
            self._end(None, f"cannot know how {self._argv[0]} ended")
        elif why:
            self._end(False, _with(why, self._tail))
        else:
            self._end(True, "")

    def _reaped(self) -> int | None:
        """End what it left in its group, take its status and let its number go; None: nobody knows it."""
        self._kill()
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        try:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
        except ChildProcessError:  # somebody else took it
            pid, status = 0, 0
        self._pid = 0
        self._gone(self)
        return status if pid else None

    def _end(self, is_ok: bool | None, why: str) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(is_ok, why)

    def _close_output(self) -> None:
        if self._output >= 0:
            self._loop.remove_reader(self._output)
            os.close(self._output)
            self._output = -1


def _with(why: str, output: bytes) -> str:
    line = last_line(output)
    return f"{why}: {line}" if line else why
