"""Wait until a service is ready; ends 0 when it is, 1 with one line on stderr when it will not be.

`ready = {...}` in services.toml becomes an ExecStartPost= that runs this file, so that the unit's start job
ends when the service answers and After= really waits. It is copied out of the package by apply and run by
`python3 -I -S` inside the unit's own sandbox: the standard library only, no file written. It owns the
meaning of each probe. The rule: start in 30 ms, so import only what a probe needs.

    ready.py [--timeout SEC] [--interval SEC] [--user] PROBE
    PROBE: tcp HOST:PORT | unix PATH | http URL | file PATH | log REGEX | exec -- ARGV...

From the environment (systemd.exec(5)): MAINPID, whose death ends the waiting at once, and INVOCATION_ID, the
run whose journal `log` reads.
"""

# pathlib, contextlib and subprocess would double the time to start. So would socket, which is _socket with
# enums around it; _socket has had the same names since Python 2.
# ruff: noqa: PTH116, SIM105, TRY301

from __future__ import annotations

import os
import select
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket as socket
    from collections.abc import Callable
    from typing import Any

USAGE = "usage: ready.py [--timeout SEC] [--interval SEC] tcp|unix|http|file|log|exec ARGUMENT..."
LONGEST_TRY_SEC = 10.0  # for a server that accepts and does not answer
CHILD_SEC = 0.02  # between looks at a child where pidfd_open(2) is not to be had


class NotReady(Exception):
    """One try failed; says what was seen."""


class GiveUp(Exception):
    """There is no point in another try."""


class Waiter:
    """The deadline and the main process: whatever is waited for, these two end it."""

    def __init__(self, timeout: float, main_pid: int) -> None:
        self.timeout = timeout
        self.deadline = time.monotonic() + timeout
        self.main_pid = main_pid
        self._main = -1
        self._by_proc = False
        if main_pid > 0 and os.getppid() != 0:  # without a parent we are in a PID namespace of our own
            try:
                self._main = os.pidfd_open(main_pid)
            except ProcessLookupError:
                self.main_ended()
            except (OSError, AttributeError):  # refused by a system call filter, or an old kernel
                self._by_proc = _exists(f"/proc/{main_pid}")

    def main_ended(self) -> None:
        """Give up, because nobody is left to become ready."""
        raise GiveUp(f"the main process (PID {self.main_pid}) ended before the service was ready")

    def left(self) -> float:
        """Return the seconds that are left."""
        return max(0.0, self.deadline - time.monotonic())

    def wait(self, seconds: float, descriptor: int = -1, events: int = select.POLLIN) -> bool:
        """Wait for the descriptor, at most so long; true if it is ready."""
        end = min(self.deadline, time.monotonic() + seconds)
        poll = select.poll()
        if descriptor >= 0:
            poll.register(descriptor, events)
        if self._main >= 0:
            poll.register(self._main, select.POLLIN)
        while True:
            pause = max(0.0, end - time.monotonic())
            if self._by_proc:
                pause = min(pause, 0.1)
            ready = {number for number, _events in poll.poll(pause * 1000)}
            if descriptor in ready:
                return True
            if self._main in ready or (self._by_proc and not _exists(f"/proc/{self.main_pid}")):
                self.main_ended()
            if time.monotonic() >= end:
                return False


def _exists(path: str) -> bool:
    try:
        os.stat(path)
    except OSError:
        return False
    return True


def _why(error: Exception) -> str:
    return str(getattr(error, "strerror", "") or error).lower()


def _host_port(address: str) -> tuple[str, str]:
    """Split "HOST:PORT", "[::1]:80" and "80"; no host, or any host, is this one."""
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise GiveUp(f"{address!r} is no HOST:PORT")
    return ("127.0.0.1" if host in ("", "*") else host), port


def _connect(waiter: Waiter, host: str, port: str) -> socket.socket:
    """Return a connected, non-blocking socket to the first address that takes it."""
    import _socket as socket  # noqa: PLC0415

    shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        # As bytes, because a str would go through the idna codec, which costs more than the connection.
        name = host.encode() if host.isascii() else host
        addresses = socket.getaddrinfo(name, int(port), 0, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise NotReady(f"look up {host}: {_why(error)}") from None
    seen = "no address"
    for family, kind, protocol, _canonical, address in addresses:
        try:
            return _connected(waiter, socket.socket(family, kind, protocol), address)
        except OSError as error:
            seen = _why(error)
    raise NotReady(f"connect to {shown}: {seen}")


def _connected(waiter: Waiter, connection: socket.socket, address: Any) -> socket.socket:
    import errno  # noqa: PLC0415

    try:
        connection.setblocking(False)
        number = connection.connect_ex(address)
        if number == errno.EINPROGRESS:
            if not waiter.wait(LONGEST_TRY_SEC, connection.fileno(), select.POLLOUT):
                raise TimeoutError(errno.ETIMEDOUT, "timed out")
            number = connection.getsockopt(1, 4)  # SOL_SOCKET, SO_ERROR
        if number:
            raise OSError(number, os.strerror(number))
        # On the loopback a socket can connect to itself while nobody listens (simultaneous open).
        if connection.family != 1 and connection.getsockname() == connection.getpeername():
            raise ConnectionRefusedError(errno.ECONNREFUSED, "connection refused")
    except BaseException:
        connection.close()
        raise
    return connection


def tcp(waiter: Waiter, address: str) -> None:
    """Ready when the address accepts a connection."""
    _connect(waiter, *_host_port(address)).close()


def unix(waiter: Waiter, path: str) -> None:
    """Ready when the socket accepts a connection, of whatever type it is; "@name" is an abstract one."""
    import _socket as socket  # noqa: PLC0415
    import errno  # noqa: PLC0415

    name = "\0" + path[1:] if path.startswith("@") else path
    for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM):
        try:
            _connected(waiter, socket.socket(socket.AF_UNIX, kind), os.fsencode(name)).close()
        except OSError as error:
            if error.errno == errno.EPROTOTYPE:
                continue
            raise NotReady(f"connect to {path}: {_why(error)}") from None
        return


def http(waiter: Waiter, url: str) -> None:
    """Ready when a GET is answered with 200 to 399."""
    scheme, _, rest = url.partition("://")
    cut = min((rest.find(mark) for mark in "/?#" if mark in rest), default=len(rest))
    authority, target = rest[:cut].rpartition("@")[2], rest[cut:].partition("#")[0]
    if scheme.lower() != "http" or not authority:
        raise GiveUp(f"{url!r} is no http:// URL")
    has_port = ":" in authority.rpartition("]")[2]
    host, port = _host_port(authority if has_port else f"{authority}:80")
    if not target.startswith("/"):
        target = "/" + target
    request = (
        f"GET {target} HTTP/1.0\r\nHost: {authority}\r\nUser-Agent: sysresp-ready\r\nAccept: */*\r\n\r\n"
    )
    connection = _connect(waiter, host, port)
    try:
        connection.send(request.encode())
        end = time.monotonic() + LONGEST_TRY_SEC
        answer = b""
        while b"\n" not in answer and len(answer) < 4096:
            if not waiter.wait(end - time.monotonic(), connection.fileno()):
                raise NotReady(f"GET {url}: no answer")
            part = connection.recv(4096)
            if not part:
                raise NotReady(f"GET {url}: the connection was closed without an answer")
            answer += part
    except OSError as error:
        raise NotReady(f"GET {url}: {_why(error)}") from None
    finally:
        connection.close()
    line = answer.partition(b"\n")[0].split()
    status = line[1].decode("ascii", "replace") if len(line) > 1 and line[0].startswith(b"HTTP/") else ""
    if not status.isdigit():
        raise NotReady(f"GET {url}: not an HTTP answer")
    if not 200 <= int(status) < 400:
        raise NotReady(f"GET {url}: status {status}")


def file(waiter: Waiter, path: str) -> None:  # noqa: ARG001 - probes are called alike
    """Ready when the path exists."""
    try:
        os.stat(path)
    except OSError as error:
        raise NotReady(f"{path}: {_why(error)}") from None


def log(waiter: Waiter, pattern: str) -> None:
    """Ready when a line that this run has printed, or prints, matches."""
    import re  # noqa: PLC0415

    wanted = re.compile(pattern)
    run = os.environ.get("INVOCATION_ID", "")
    if not run:
        raise GiveUp("INVOCATION_ID is not set, so the journal of this run cannot be found")
    # --no-tail: what was printed before the probe began counts. PID 1's own lines have other fields.
    command = [
        "journalctl",
        "--quiet",
        "--follow",
        "--no-tail",
        "--output=cat",
        f"_SYSTEMD_INVOCATION_ID={run}",
    ]
    reading, writing = os.pipe()
    child = _spawn(command, writing)
    os.close(writing)
    rest, lines = b"", 0
    try:
        while waiter.wait(waiter.left(), reading):
            part = os.read(reading, 65536)
            if not part:
                raise GiveUp(f"journalctl ended with {_status(child.end())}")
            *complete, rest = (rest + part).split(b"\n")
            for line in complete:
                lines += 1
                if wanted.search(line.decode(errors="replace")):
                    return
    finally:
        os.close(reading)
        child.kill()
    raise NotReady(f"no line of {lines} matches {pattern!r}")


def exec_(waiter: Waiter, *command: str) -> None:
    """Ready when the command ends with 0."""
    child = _spawn(list(command))
    try:
        status = child.wait(waiter)
    finally:
        child.kill()
    if status is None:
        raise NotReady(f"{command[0]} still ran")
    if status:
        raise NotReady(f"{command[0]} ended with {_status(status)}")


class Child:
    """A process in a group of its own, which is killed with all it started."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._status: int | None = None

    def wait(self, waiter: Waiter) -> int | None:
        """Return the wait status, None if the time is over."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except OSError:
            while self._look(os.WNOHANG) is None and waiter.left():
                waiter.wait(CHILD_SEC)
            return self._status
        try:
            return self._look(0) if waiter.wait(waiter.left(), descriptor) else None
        finally:
            os.close(descriptor)

    def end(self) -> int:
        """Wait for its end, however long that takes."""
        return self._look(0) or 0

    def kill(self) -> None:
        """End it and its children; no error if they are gone."""
        try:
            os.killpg(self.pid, 9)
        except OSError:
            pass
        self._look(0)

    def _look(self, options: int) -> int | None:
        if self._status is None:
            pid, status = os.waitpid(self.pid, options)
            if pid:
                self._status = status
        return self._status


def _spawn(command: list[str], output: int = -1) -> Child:
    actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)
    ]
    if output >= 0:
        actions.append((os.POSIX_SPAWN_DUP2, output, 1))
    import signal  # noqa: PLC0415 - 6 ms that only a probe with children pays

    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    default = (signal.SIGTERM, signal.SIGINT, signal.SIGPIPE)
    try:
        return Child(
            os.posix_spawnp(
                command[0], command, os.environ, file_actions=actions, setpgroup=0, setsigdef=default
            )
        )
    except OSError as error:
        raise GiveUp(f"cannot run {command[0]}: {_why(error)}") from None


def _status(status: int) -> str:
    number = os.waitstatus_to_exitcode(status)
    return f"signal {-number}" if number < 0 else f"status {number}"


PROBES: dict[str, Callable[..., None]] = {
    "tcp": tcp,
    "unix": unix,
    "http": http,
    "file": file,
    "log": log,
    "exec": exec_,
}


def wait_until_ready(waiter: Waiter, interval: float, probe: str, arguments: list[str]) -> None:
    """Try until it works; GiveUp, with what was seen last, when it will not."""
    seen = ""
    try:
        while True:
            try:
                PROBES[probe](waiter, *arguments)
            except NotReady as error:
                if (
                    waiter.left() or not seen
                ):  # a try cut short by the deadline says less than the one before
                    seen = str(error)
            else:
                return
            if not waiter.left():
                raise GiveUp(f"not ready after {waiter.timeout:g} s")
            waiter.wait(interval)
    except GiveUp as error:
        raise GiveUp(f"{error}: {seen}" if seen else str(error)) from None


def main(arguments: list[str]) -> int:
    """Run the probe of this command line and return the exit status."""
    numbers = {"--timeout": 30.0, "--interval": 0.1}
    while arguments and arguments[0].startswith("--"):
        option = arguments.pop(0)
        if option == "--user":  # the journal's fields are the same for units of a user
            continue
        try:
            numbers[option] = float(arguments.pop(0)) if option in numbers else float("nan")
        except (IndexError, ValueError):
            numbers[option] = float("nan")
        if not numbers[option] > 0:
            return _say(USAGE, 2)
    probe, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if probe == "exec" and rest[:1] == ["--"]:
        del rest[0]
    if probe not in PROBES or not rest or (probe != "exec" and len(rest) != 1):
        return _say(USAGE, 2)
    main_pid = os.environ.get("MAINPID", "")
    try:
        waiter = Waiter(numbers["--timeout"], int(main_pid) if main_pid.isdigit() else 0)
        wait_until_ready(waiter, numbers["--interval"], probe, rest)
    except GiveUp as error:
        return _say(f"{error}", 1)
    return 0


def _say(line: str, status: int) -> int:
    sys.stderr.write(line.replace("\n", " ") + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
