"""`sysresp metrics serve`: the exporter that systemd starts for a scrape, and that ends when nobody asks.

Owns the little of HTTP that a scrape needs: GET and HEAD of /metrics, one answer for each connection. The
port is systemd's (sd_listen_fds(3)), before we are there and after; a connection that comes while we end
starts the next of us. The look at the host is made in a thread, one at a time: a slow client delays nobody.

What a client may do to us is bounded: so long a head, so much time for it and for taking the answer, so many
at once, of whom the one that has been silent longest goes; and only who was answered keeps us here. Rule: a
request never writes anything, and never makes us import, open or start what its own bytes name.
"""

from __future__ import annotations

import asyncio
import gc
import gzip
import os
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple

from sysresp.cli import boundary, metrics
from sysresp.errors import SysrespError
from sysresp.model import Scope

PATH = "/metrics"
IDLE_SEC = 30.0
HEAD_SEC = 5.0  # from the connection to the end of the request's head
BODY_SEC = 20.0  # for the client to take the answer
LAST_SEC = 0.5  # at our end, for those who have connected and not asked
MOST_HEAD = 16 << 10
MOST_CLIENTS = 64
_ACCEPTED_SEC = 0.02  # until a connection that was accepted is one of our clients
_WORTH_BYTES = 512  # less is not compressed
_FIRST = 3  # SD_LISTEN_FDS_START
_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


class Answer(NamedTuple):
    """What is sent."""

    status: int
    body: bytes = b""
    kind: str = "text/plain; charset=utf-8"
    is_head: bool = False  # only the head is sent
    more: tuple[str, ...] = ()  # lines of the head


class Request(NamedTuple):
    """What of a request matters."""

    method: str
    path: str
    headers: dict[str, str]  # by name in lower case; the last one of a name


Render = Callable[[str], tuple[bytes, str]]
"""What makes the body for an Accept header, and says its content type; SysrespError or OSError."""


def main(scope: str) -> int:
    """Be the exporter, without what the other commands need; return the exit status."""
    return boundary.guarded(lambda: run(Scope(scope)))


def run(scope: Scope, idle_sec: float = IDLE_SEC) -> int:
    """Serve on the socket that systemd gave us until nobody has asked for so long."""
    metrics.encoder()  # before the first answer: where the library is missing, the unit's log says so
    gc.freeze()  # what is here is here for good; where scrapes are frequent we live for months
    gc.enable()

    def render(accept: str) -> tuple[bytes, str]:
        encode, kind = metrics.encoder(accept=accept)
        return encode(metrics.look(scope)), kind

    with _given() as listener:
        asyncio.run(Exporter(listener, render, idle_sec).serve())
    return 0


def _given() -> socket.socket:
    """Return the listening socket; SysrespError if there is not exactly one."""
    is_ours = os.environ.get("LISTEN_PID") == str(os.getpid())
    if not is_ours or os.environ.get("LISTEN_FDS") != "1":
        raise boundary.usage(
            "this is started by its socket, which systemd holds", "set that up: sysresp metrics enable"
        )
    return socket.socket(fileno=_FIRST)


class Exporter:
    """The server, from its first connection to its end."""

    def __init__(self, listener: socket.socket, render: Render, idle_sec: float) -> None:
        self._listener = listener
        self._render = render
        self._idle_sec = idle_sec
        self._pool = ThreadPoolExecutor(1)
        self._clients: set[asyncio.Task[None]] = set()
        self._unheard: dict[asyncio.Task[None], None] = {}  # those whose request has not come, in order
        self._busy = 0  # clients whose request is being answered
        self._last = 0.0  # when the last one was

    async def serve(self) -> None:
        """Answer until nobody has been answered for `idle_sec`."""
        self._last = time.monotonic()
        server = await asyncio.start_server(self._connected, sock=self._listener, limit=MOST_HEAD)
        while self._busy or (left := self._last + self._idle_sec - time.monotonic()) > 0:
            await asyncio.sleep(1.0 if self._busy else left)
        server.close()  # who connects from here on waits for our successor
        await asyncio.sleep(_ACCEPTED_SEC)
        if self._clients:  # who came at the last moment has a moment to ask
            await asyncio.wait(self._clients, timeout=LAST_SEC)
        for client in self._unheard:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        self._pool.shutdown(wait=False)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        self._unheard[task] = None
        if len(self._clients) > MOST_CLIENTS:
            next(iter(self._unheard)).cancel()
        # One that has gone, was too slow, or had to go.
        with suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await self._serve_one(task, reader, writer)
        self._clients.discard(task)
        self._unheard.pop(task, None)
        writer.transport.abort()

    async def _serve_one(
        self, task: asyncio.Task[None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), HEAD_SEC)
        except asyncio.LimitOverrunError:
            await self._send(writer, Answer(431))
            return
        except TimeoutError:
            await self._send(writer, Answer(408))
            return
        self._unheard.pop(task)
        self._busy += 1
        try:
            await self._send(writer, await self._answer(parse(head)))
        finally:
            self._busy -= 1
            self._last = time.monotonic()

    async def _answer(self, request: Request | None) -> Answer:
        if request is None:
            return Answer(400)
        is_head = request.method == "HEAD"
        if request.path != PATH:
            return Answer(404, f"there is only {PATH}\n".encode(), is_head=is_head)
        if request.method not in {"GET", "HEAD"}:
            return Answer(405, more=("Allow: GET, HEAD",))
        io = asyncio.get_running_loop()
        try:
            work = io.run_in_executor(self._pool, self._render, request.headers.get("accept", ""))
            body, kind = await work
        except (SysrespError, OSError) as error:
            return Answer(503, f"{error}\n".encode(errors="replace"), is_head=is_head)
        more: tuple[str, ...] = ("Vary: Accept, Accept-Encoding",)
        if len(body) >= _WORTH_BYTES and "gzip" in _codings(request):
            body = await io.run_in_executor(None, lambda: gzip.compress(body, 1))
            more = (*more, "Content-Encoding: gzip")
        return Answer(200, body, kind, is_head, more)

    async def _send(self, writer: asyncio.StreamWriter, answer: Answer) -> None:
        head = [
            f"HTTP/1.1 {answer.status} {_REASONS[answer.status]}",
            f"Content-Type: {answer.kind}",
            f"Content-Length: {len(answer.body)}",
            "Connection: close",
            *answer.more,
        ]
        writer.write("\r\n".join([*head, "", ""]).encode() + (b"" if answer.is_head else answer.body))
        with suppress(NotImplementedError):
            writer.write_eof()
        await asyncio.wait_for(self._taken(writer), BODY_SEC)

    @staticmethod
    async def _taken(writer: asyncio.StreamWriter) -> None:
        """Wait until the kernel has it all."""
        writer.transport.set_write_buffer_limits(0)
        await writer.drain()


def parse(head: bytes) -> Request | None:
    """Return what of the head of a request matters; None if it is none."""
    line, *fields = head.decode("latin-1").split("\r\n")
    words = line.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1.") or not words[0].isalpha():
        return None
    headers = {}
    for field in filter(None, fields):
        name, colon, value = field.partition(":")
        if not colon or name != name.strip():
            return None
        headers[name.lower()] = value.strip()
    return Request(words[0], words[1].partition("?")[0], headers)


def _codings(request: Request) -> set[str]:
    """Return the codings that the client takes; one with q=0 it does not."""
    found = set()
    for word in request.headers.get("accept-encoding", "").split(","):
        name, _, weight = word.replace(" ", "").partition(";")
        if weight.lower() not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}:
            found.add(name.lower())
    return found
