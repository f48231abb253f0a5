"""An asyncio loop in virtual time, and servers on it that answer in every way that a server should not.

Sockets and children are real; only the clock is not. The loop's time goes on to its next timer when nothing
is ready, and `is_settled` says that nothing is about to be: until then it waits for the real world, and
fails after `PATIENCE_SEC`. So a test of minutes is as long as its work, and a slow machine changes nothing.
"""

from __future__ import annotations

import asyncio
import os
import selectors
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

PATIENCE_SEC = 30.0
START = 5000.0


class _Selector(selectors.EpollSelector):
    def __init__(self) -> None:
        super().__init__()
        self.loop: VirtualLoop | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert self.loop is not None
        self.loop.turns += 1
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is not None and self.loop.is_settled():
            self.loop.now += timeout
            return ready
        ready = super().select(PATIENCE_SEC)
        assert ready, "nothing happened in the real world"
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        selector = _Selector()
        self.now = START
        self.turns = 0  # of the loop
        self.is_settled: Callable[[], bool] = lambda: True
        self._servers: list[asyncio.AbstractServer] = []
        self._talks: list[Talk] = []
        super().__init__(selector)
        selector.loop = self

    def time(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let that much virtual time pass."""
        end = self.now + seconds
        passed = self.create_future()
        self.call_at(end, passed.set_result, None)
        self.run_until_complete(passed)

    def until(self, is_true: Callable[[], bool], within: float) -> float:
        """Go on until this is so, at most `within` seconds; return how long it took."""
        begin = self.now
        while not is_true():
            assert self.now - begin <= within, f"not within {within} s"
            self.advance(1 / 64)
        return self.now - begin

    def serve(self, manner: Manner, host: str = "127.0.0.1") -> Server:
        """Listen on a port of the loopback, in the manner that `Server.manner` says."""
        server = Server(manner)
        made = self.run_until_complete(self.create_server(lambda: self._talk(server), host, 0, backlog=2048))
        self._servers.append(made)
        server.port = made.sockets[0].getsockname()[1]
        return server

    def serve_unix(self, manner: Manner, path: Path | str) -> Server:
        server = Server(manner)
        made = self.run_until_complete(self.create_unix_server(lambda: self._talk(server), path))
        self._servers.append(made)
        return server

    def _turn(self, times: int) -> None:
        for _ in range(times):
            self.run_until_complete(asyncio.sleep(0))

    def _talk(self, server: Server) -> Talk:
        talk = Talk(self, server)
        self._talks.append(talk)
        return talk

    def end(self) -> None:
        """Close the servers, what is still connected, and the loop."""
        self._turn(10)  # what is in a queue of the kernel becomes a connection
        for server in self._servers:
            server.close()
        for talk in self._talks:
            talk.transport.abort()
        self._turn(10)
        for server in self._servers:
            self.run_until_complete(server.wait_closed())
        self.run_until_complete(self.shutdown_asyncgens())
        self.close()


class Server:
    """How a server behaves, which a test may change while it runs, and what it was asked."""

    def __init__(self, manner: Manner) -> None:
        self.manner = manner
        self.port = 0
        self.connections = 0
        self.requests: list[bytes] = []


class Talk(asyncio.Protocol):
    """One connection to a server."""

    transport: Any

    def __init__(self, loop: VirtualLoop, server: Server) -> None:
        self.loop = loop
        self.server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.server.connections += 1
        if self.server.manner is at_once:
            at_once(self)

    def data_received(self, data: bytes) -> None:
        self.server.requests.append(data)
        self.server.manner(self)


Manner = Callable[[Talk], None]


def says(answer: bytes) -> Manner:
    """Answer this and close."""

    def manner(talk: Talk) -> None:
        talk.transport.write(answer)
        talk.transport.close()

    return manner


def hangs(talk: Talk) -> None:
    """Accept, read, and never answer."""


def at_once(talk: Talk) -> None:
    """Close before anything is asked."""
    talk.transport.close()


def resets(talk: Talk) -> None:
    """Reset the connection instead of an answer."""
    raw = talk.transport.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    talk.transport.abort()


def drips(answer: bytes, every: float) -> Manner:
    """Answer one byte at a time, so many seconds apart, and never close."""

    def manner(talk: Talk) -> None:
        def drop(at: int) -> None:
            if at < len(answer) and not talk.transport.is_closing():
                talk.transport.write(answer[at : at + 1])
                talk.loop.call_later(every, drop, at + 1)

        drop(0)

    return manner


OK = says(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
BROKEN = says(b"HTTP/1.1 500 Internal Server Error\r\n\r\n")


class Pipe:
    """A descriptor that is readable once something was written."""

    def __init__(self) -> None:
        self.read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def raise_it(self) -> None:
        os.write(self._write, b"x")

    def lower_it(self) -> None:
        with suppress(BlockingIOError):
            os.read(self.read, 4096)

    def close(self) -> None:
        os.close(self.read)
        os.close(self._write)
