"""`metrics serve`: a real socket, well and badly behaved clients, and the end when nobody asks."""

from __future__ import annotations

import asyncio
import gzip
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysresp.cli import exporter
from sysresp.cli.exporter import MOST_CLIENTS, MOST_HEAD, Exporter, parse
from sysresp.errors import SysrespError

BODY = b"sysresp_controller_up 1\n" * 100
ASK = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"


class Served:
    """An exporter in a thread, and how often it looked."""

    def __init__(self) -> None:
        self.accepted: list[str] = []
        self.error: Exception | None = None
        self.held = threading.Event()
        self.held.set()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()
        self.thread = threading.Thread(target=lambda: None)

    def render(self, accept: str) -> tuple[bytes, str]:
        self.accepted.append(accept)
        assert self.held.wait(10)
        if self.error:
            raise self.error
        return BODY, "text/plain; version=0.0.4"

    def begin(self, idle_sec: float) -> None:
        given = self.listener.dup()  # systemd keeps its own
        one = Exporter(given, self.render, idle_sec)
        self.thread = threading.Thread(target=lambda: asyncio.run(one.serve()))
        self.thread.start()

    def connect(self, request: bytes = b"") -> socket.socket:
        client = socket.create_connection(self.address, timeout=10)
        client.sendall(request)
        return client

    def ask(self, request: bytes = ASK) -> tuple[int, dict[str, str], bytes]:
        with self.connect(request) as client:
            return answer(client)


def answer(client: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of what comes until the end."""
    data = b"".join(iter(lambda: client.recv(65536), b""))
    head, _, body = data.partition(b"\r\n\r\n")
    first, *fields = head.decode().split("\r\n")
    return int(first.split()[1]), dict(field.split(": ", 1) for field in fields), body


@contextmanager
def serving(idle_sec: float = 0.3) -> Iterator[Served]:
    one = Served()
    one.begin(idle_sec)
    try:
        yield one
    finally:
        one.held.set()
        one.thread.join(20)
        one.listener.close()
        assert not one.thread.is_alive()


def test_a_scrape() -> None:
    with serving() as one:
        status, headers, body = one.ask()
        assert (status, body) == (200, BODY)
        assert headers["Content-Type"] == "text/plain; version=0.0.4"
        assert int(headers["Content-Length"]) == len(BODY)
        status, headers, body = one.ask(b"HEAD /metrics?x=1 HTTP/1.0\r\naccept: a/b\r\n\r\n")
        assert (status, body, int(headers["Content-Length"])) == (200, b"", len(BODY))
        assert one.accepted == ["", "a/b"]


def test_compressed_for_who_takes_it() -> None:
    with serving() as one:
        ask = b"GET /metrics HTTP/1.1\r\nAccept-Encoding: br, GZIP;q=0.5\r\n\r\n"
        _, headers, body = one.ask(ask)
        assert headers["Content-Encoding"] == "gzip"
        assert gzip.decompress(body) == BODY
        _, headers, body = one.ask(ask.replace(b"0.5", b"0"))
        assert ("Content-Encoding" in headers, body) == (False, BODY)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 404),
        (b"GET /metrics/../etc/passwd HTTP/1.1\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 9\r\n\r\n", 405),
        (b"DELETE /x HTTP/1.1\r\n\r\n", 404),
        (b"nonsense\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET /metrics HTTP/2\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nx: " + b"y" * (2 * MOST_HEAD) + b"\r\n\r\n", 431),
    ],
)
def test_what_is_not_served(request_: bytes, status: int) -> None:
    with serving() as one:
        found, headers, _ = one.ask(request_)
        assert found == status
        assert headers.get("Allow") == ("GET, HEAD" if status == 405 else None)
        assert one.accepted == []


def test_a_host_that_cannot_be_looked_at_is_no_empty_answer() -> None:
    with serving() as one:
        one.error = SysrespError("no systemd is running here")
        status, _, body = one.ask()
        assert (status, body) == (503, b"no systemd is running here\n")
        one.error = None
        assert one.ask()[0] == 200


def test_silent_and_slow_clients_delay_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "HEAD_SEC", 60)  # longer than anything here waits
    with serving(idle_sec=2) as one, ExitStack() as open_ones:
        silent = [open_ones.enter_context(one.connect(ASK[:n])) for n in range(MOST_CLIENTS)]
        assert one.ask()[0] == 200  # the one that was silent longest went for it
        assert silent[0].recv(1) == b""
        one.thread.join(20)  # none of them keeps it alive
        assert not one.thread.is_alive()


def test_one_that_says_too_little_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "HEAD_SEC", 0.05)
    with serving(idle_sec=1) as one, one.connect(ASK[:-2]) as client:
        assert answer(client)[0] == 408


def test_a_client_that_takes_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "BODY_SEC", 0.2)
    monkeypatch.setattr(Served, "render", lambda _self, _accept: (b"x" * (64 << 20), "text/plain"))
    with serving() as one, one.connect(ASK):
        one.thread.join(10)
        assert not one.thread.is_alive()


def test_while_one_is_answered_it_does_not_end() -> None:
    with serving(idle_sec=0.5) as one:
        one.held.clear()
        with one.connect(ASK) as client:
            one.thread.join(0.8)
            assert one.thread.is_alive()
            one.held.set()
            assert answer(client)[0] == 200


def test_who_comes_at_the_end_is_answered_by_the_next() -> None:
    with serving(idle_sec=0.1) as one:
        one.thread.join(10)
        assert not one.thread.is_alive()
        with one.connect(ASK) as client:  # systemd holds the port
            one.begin(0.1)
            assert answer(client)[0] == 200


def test_who_has_connected_when_it_ends_may_still_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "LAST_SEC", 5)
    with serving(idle_sec=0.05) as one, one.connect() as client:
        one.thread.join(0.5)  # its time is over
        client.sendall(ASK)
        assert answer(client)[0] == 200
        one.thread.join(1)
        assert not one.thread.is_alive()


def test_it_is_started_by_its_socket_only() -> None:
    top = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-m", "sysresp", "metrics", "serve"],
        cwd=top,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "sysresp metrics enable" in done.stderr


def test_it_starts_without_what_the_others_need() -> None:
    program = (
        "import sys, sysresp.__main__ as main, sysresp.cli.exporter as exporter\n"
        "exporter.run = lambda scope, *_: print(scope.value, *sys.modules, flush=True) or 7\n"
        "main.main()"
    )
    top = Path(__file__).parent.parent
    for words, scope in (([], "system"), (["--user"], "user")):
        argv = [sys.executable, "-c", program, "metrics", "serve", *words]
        done = subprocess.run(argv, cwd=top, capture_output=True, text=True, check=False)
        assert done.returncode == 7, done.stderr
        found = done.stdout.split()
        assert found[0] == scope
        assert {"typer", "click", "jinja2", "tomllib", "pytest"}.isdisjoint(found)


@given(st.binary(max_size=200) | st.text(max_size=99).map(lambda t: f"GET {t} HTTP/1.1\r\n\r\n".encode()))
def test_any_head_is_a_request_or_none(head: bytes) -> None:
    found = parse(head)
    assert found is None or (found.method.isalpha() and " " not in found.path)
