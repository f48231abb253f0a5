"""One try of a health probe over a socket: tcp, unix and http.

Owns where a probe of these kinds connects to, what it says, and what the answer means; the meaning is that
of `sysresp.ready`, which a service's start waits for. They share no code: that one is a program of its own
that blocks in poll(2), this one never blocks, and what is left of each is short. Never decides whether a
service is healthy, and keeps no time: `probes` ends a try that takes too long.

A try ends with one of three words: True, it answered; False, it did not; None, the try itself could not be
made (no descriptor left, no right to connect, no such name). None is no failure of the service, so that a
shortage of ours, or of the name server, restarts nothing.

What tcp and unix say is little: the kernel takes connections for a process that hangs, until its queue is
full. http asks for an answer, of which the status line is enough; it follows no redirect (200 to 399 is
well), skips 1xx, and reads at most 16 KiB. The rule: no call here may block, and a try that has ended has
no descriptor, no reader and no writer left.
"""

from __future__ import annotations

import _socket as socket  # without the enums and the Python layer of socket: half the time for each probe
import errno
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:  # asyncio is imported by `lean`, and here only its loop is used
    import asyncio

Done = Callable[[bool | None, str], None]

MOST_HEAD = 16384
SOCKET_PATH_MAX = 107  # sun_path of unix(7), without the final NUL
MOST_LOOKUPS = 16  # names looked up at once, each in a thread

# Of connect(2): it is we who cannot, whatever the service does. EADDRNOTAVAIL: no local port is free.
_OURS = frozenset(
    {errno.EACCES, errno.EPERM, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM, errno.EAFNOSUPPORT}
)
_PENDING = frozenset({errno.EINPROGRESS, errno.EALREADY})
_WORDS = {
    errno.EAGAIN: "the queue of its socket is full",  # unix(7)
    errno.EPIPE: "closed without an answer",
}
_SO_ERROR = (socket.SOL_SOCKET, socket.SO_ERROR)
_UNIX_KINDS = (socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM)
_TCP_KIND = socket.SOCK_STREAM


class Try(Protocol):
    """One try: `begin` calls `done` once, now or later, unless `abandon` or `late` comes first."""

    def begin(self) -> None: ...

    def abandon(self) -> None:
        """Leave nothing behind and say nothing."""

    def late(self, timeout: str) -> tuple[bool | None, str]:
        """Abandon it because the time is over, and return what `done` would have been told."""


class Address(NamedTuple):
    """What socket(2) and connect(2) want."""

    family: int
    kind: int
    at: Any


def error_words(number: int) -> str:
    """Return an errno as a person says it."""
    return os.strerror(number).lower()


class Place:
    """Where one probe connects to and what it asks; keeps the addresses of a name from try to try."""

    __slots__ = ("addresses", "host", "is_asked", "is_literal", "is_stale", "port", "request")

    def __init__(self, by: str, target: str) -> None:
        """ValueError if the target is none of this kind."""
        self.request = b""
        self.host, self.port = "", 0
        self.addresses: tuple[Address, ...] = ()
        self.is_literal = True  # no name is to be looked up
        self.is_stale = False  # the last try failed: perhaps the name has moved
        self.is_asked = False  # a thread looks it up
        if by == "unix":
            path = os.fsencode("\0" + target[1:] if target.startswith("@") else target)
            if len(path) > SOCKET_PATH_MAX + target.startswith("@"):
                raise ValueError(f"{target!r} is no path of a socket: it is too long")
            self.addresses = tuple(Address(socket.AF_UNIX, kind, path) for kind in _UNIX_KINDS)
            return
        if by == "http":
            authority, self.request = _request(target)
            has_port = ":" in authority.rpartition("]")[2]
            target = authority if has_port else f"{authority}:80"
        self.host, self.port = _host_port(target)
        if self.host == "localhost":  # RFC 6761: always this machine, and no question for a name server
            self.addresses = (*_look_up("127.0.0.1", self.port), *_look_up("::1", self.port))
            return
        try:
            self.addresses = _look_up(self.host, self.port, socket.AI_NUMERICHOST)
        except socket.gaierror:
            self.is_literal = False


def _host_port(address: str) -> tuple[str, int]:
    """Split "HOST:PORT" and "[::1]:80"; no host, or any host, is this one."""
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"{address!r} is no HOST:PORT")
    return ("127.0.0.1" if host in ("", "*") else host), int(port)


def _request(url: str) -> tuple[str, bytes]:
    """Return the URL's authority, and the request to send."""
    scheme, _, rest = url.partition("://")
    cut = min((rest.find(mark) for mark in "/?#" if mark in rest), default=len(rest))
    authority, path = rest[:cut].rpartition("@")[2], rest[cut:].partition("#")[0]
    if scheme.lower() != "http" or not authority or not url.isprintable() or " " in url:
        raise ValueError(f"{url!r} is no http:// URL")
    lines = (
        f"GET {path if path.startswith('/') else '/' + path} HTTP/1.1",
        f"Host: {authority}",
        "User-Agent: sysresp-health",
        "Accept: */*",
        "Connection: close",
    )
    return authority, ("\r\n".join(lines) + "\r\n\r\n").encode()


def _look_up(host: str, port: int, flags: int = 0) -> tuple[Address, ...]:
    # As bytes, because a str would go through the idna codec, which costs more than the connection.
    name = host.encode() if host.isascii() else host
    found = socket.getaddrinfo(name, port, socket.AF_UNSPEC, _TCP_KIND, 0, flags)
    return tuple(Address(family, kind, at) for family, kind, _protocol, _canonical, at in found)


def verdict(answer: bytes, is_end: bool = False) -> tuple[bool, str] | None:
    """Judge what an HTTP server has sent so far; None: more is needed. `is_end`: no more will come."""
    size = len(answer)
    while True:
        line, newline, _ = answer.partition(b"\n")
        if not newline:
            break
        words = line.split(None, 2)
        status = words[1] if len(words) > 1 and words[0].startswith(b"HTTP/") else b""
        if len(status) != 3 or not status.isdigit():
            return False, "not an HTTP answer"
        if not (status.startswith(b"1") and status != b"101"):
            return (True, "") if status[:1] in (b"2", b"3") else (False, f"status {status.decode()}")
        # An interim answer: the real one follows its empty line.
        ends = [(at, len(mark)) for mark in (b"\n\r\n", b"\n\n") if (at := answer.find(mark)) >= 0]
        if not ends:
            break
        at, length = min(ends)
        answer = answer[at + length :]
    if size >= MOST_HEAD or answer[:5] != b"HTTP/"[: len(answer)]:
        return False, "not an HTTP answer"
    if is_end:
        return False, "closed in the middle of its answer" if answer else "closed without an answer"
    return None


class Names:
    """Looks names up in threads, because getaddrinfo(3) blocks, and never many at once.

    The threads are daemons, not those of the loop's executor, for which the end of the process would wait.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._asking = 0

    def ask(self, place: Place, then: Callable[[str], None]) -> None:
        """Look it up and keep the addresses there; `then` is told "", or why there are none."""
        if place.is_asked or self._asking >= MOST_LOOKUPS:
            then(f"cannot look up {place.host}: the name server is slow")
            return
        place.is_asked = True
        self._asking += 1
        try:
            threading.Thread(target=self._ask, args=(place, then), name="lookup", daemon=True).start()
        except RuntimeError as error:  # TasksMax=, or no memory
            self._found(place, (), f"cannot look up {place.host}: {error}", then)

    def _ask(self, place: Place, then: Callable[[str], None]) -> None:
        found: tuple[Address, ...] = ()
        why = ""
        try:
            found = _look_up(place.host, place.port)
        except (OSError, UnicodeError) as error:
            why = f"cannot look up {place.host}: {str(getattr(error, 'strerror', '') or error).lower()}"
        try:
            self._loop.call_soon_threadsafe(self._found, place, found, why, then)
        except RuntimeError:  # the loop was closed meanwhile
            return

    def _found(
        self, place: Place, found: tuple[Address, ...], why: str, then: Callable[[str], None]
    ) -> None:
        self._asking -= 1
        place.is_asked = False
        if found:
            place.addresses, place.is_stale = found, False
        then(why)


class Dial:
    """A `Try` that connects to one address after the other, and asks where there is something to ask."""

    __slots__ = ("_answer", "_done", "_fd", "_left", "_loop", "_names", "_place", "_seen", "_socket")

    def __init__(self, loop: asyncio.AbstractEventLoop, place: Place, names: Names, done: Done) -> None:
        self._loop = loop
        self._place = place
        self._names = names
        self._done: Done | None = done  # None: it has ended
        self._socket: socket.socket | None = None
        self._fd = -1  # that the loop watches, -1: none
        self._left: list[Address] = []
        self._answer = b""
        self._seen: tuple[bool | None, str] | None = None  # of the address that says most

    def begin(self) -> None:
        place = self._place
        if not place.addresses:
            self._names.ask(place, self._start)
            return
        if place.is_stale and not place.is_literal:  # for the next try: this one waits for no name server
            self._names.ask(place, lambda _why: None)
        self._start("")

    def abandon(self) -> None:
        self._done = None
        self._hang_up()

    def late(self, timeout: str) -> tuple[bool | None, str]:
        is_asking = self._socket is None
        self.abandon()
        if is_asking:
            return None, f"no address of {self._place.host} within {timeout}"
        self._place.is_stale = True
        return False, f"no answer within {timeout}"

    def _start(self, why: str) -> None:
        if self._done is None:  # abandoned while a thread looked the name up
            return
        if why:
            self._end(None, why)
            return
        self._left = list(reversed(self._place.addresses))
        self._next()

    def _next(self) -> None:
        """Connect to the next address, or end if there is none."""
        while self._left:
            family, kind, at = self._left.pop()
            try:
                self._socket = connection = socket.socket(family, kind | socket.SOCK_NONBLOCK)
            except OSError as error:
                self._end(None, f"cannot make a socket: {error_words(error.errno or 0)}")
                return
            number = connection.connect_ex(at)
            if number == errno.EINPROGRESS:
                # On the loopback the answer came while the call held the socket, and is known to the next
                # call: no need to ask the loop, which costs more.
                number = connection.connect_ex(at)
            if number in _PENDING:
                self._fd = connection.fileno()
                self._loop.add_writer(self._fd, self._writable)
                return
            if self._is_connected(number):
                return
        assert self._seen is not None  # there is an address, and each that fails is noted
        self._end(*self._seen)

    def _writable(self) -> None:
        assert self._socket is not None
        self._loop.remove_writer(self._fd)
        self._fd = -1
        if not self._is_connected(self._socket.getsockopt(*_SO_ERROR)):
            self._next()

    def _is_connected(self, number: int) -> bool:
        """Go on with a connection of which connect(2) said this; false if it is none."""
        connection = self._socket
        assert connection is not None
        # On the loopback a socket can connect to itself while nobody listens (simultaneous open).
        if not number and connection.family != socket.AF_UNIX:
            try:
                if connection.getsockname() == connection.getpeername():
                    number = errno.ECONNREFUSED
            except OSError as error:  # it has been reset already
                number = error.errno or errno.ECONNRESET
        if number:
            self._failed(number)
            return False
        if not self._place.request:
            self._end(True, "")
            return True
        try:
            sent = connection.send(self._place.request)
        except OSError as error:
            self._failed(error.errno or errno.ECONNRESET)
            return False
        if sent < len(self._place.request):
            self._end(False, "took only a part of the request")
            return True
        self._fd = connection.fileno()
        self._loop.add_reader(self._fd, self._readable)
        return True

    def _failed(self, number: int) -> None:
        """Note why this address failed, unless another one has said more."""
        self._hang_up()
        if number in _OURS:
            seen: tuple[bool | None, str] = None, f"cannot connect: {error_words(number)}"
        else:
            seen = False, _WORDS.get(number) or error_words(number)
        is_first = self._seen is None or (self._seen[0] is None and seen[0] is not None)
        if is_first and (number != errno.EPROTOTYPE or not self._left):  # a unix socket of another type
            self._seen = seen

    def _readable(self) -> None:
        assert self._socket is not None
        try:
            part = self._socket.recv(MOST_HEAD)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(False, error_words(error.errno or errno.ECONNRESET))
            return
        self._answer += part
        found = verdict(self._answer, is_end=not part)
        if found is not None:
            self._end(*found)

    def _end(self, is_ok: bool | None, why: str) -> None:
        self._hang_up()
        self._place.is_stale = is_ok is not True
        done, self._done = self._done, None
        if done is not None:
            done(is_ok, why)

    def _hang_up(self) -> None:
        if self._fd >= 0:
            # A descriptor has one of both; the loop is asked for the one that it has.
            if not self._loop.remove_reader(self._fd):
                self._loop.remove_writer(self._fd)
            self._fd = -1
        if self._socket is not None:
            self._socket.close()
            self._socket = None
