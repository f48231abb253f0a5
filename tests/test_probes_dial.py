"""Health probes over sockets: what each kind of server's answer means, on real loopback servers."""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysresp.controller.dial import MOST_HEAD, Place, verdict
from sysresp.controller.probes import ProbeState
from sysresp.units.supervision import Probe
from tests.test_probes import UNIT, Watched
from tests.virtual_loop import OK, Manner, at_once, drips, hangs, resets, says

Result = tuple[bool | None, str]


@pytest.fixture
def watched() -> Iterator[Watched]:
    made = Watched()
    yield made
    made.probes.close()
    made.loop.end()


def result(watched: Watched, by: str, target: str, is_hung: bool = False) -> Result:
    """Return what one try found."""
    if is_hung:
        watched.hanging.add(UNIT)
    watched.watch(Probe(by, target, interval_sec=1.0, timeout_sec=2.0))
    watched.loop.until(lambda: bool(watched.state().at), 4.0)
    state: ProbeState = watched.state()
    watched.probes.forget(UNIT)
    assert state.tries == (state.is_ok is not None)
    return state.is_ok, state.why


@contextmanager
def closed_port() -> Iterator[int]:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


# The meaning of an answer


ANSWERS: dict[str, tuple[bytes, Result]] = {
    "ok": (b"HTTP/1.1 200 OK\r\n\r\n", (True, "")),
    "no reason": (b"HTTP/1.0 204\r\n\r\n", (True, "")),
    "redirect": (b"HTTP/1.1 302 Found\r\nLocation: http://example.org/\r\n\r\n", (True, "")),
    "not found": (b"HTTP/1.1 404 Not Found\r\n\r\n", (False, "status 404")),
    "error": (b"HTTP/1.1 500 Internal Server Error\r\n\r\n", (False, "status 500")),
    "interim": (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 Busy\r\n\r\n", (False, "status 503")),
    "hints": (b"HTTP/1.1 103 Early Hints\nLink: <a>\n\nHTTP/1.1 200 OK\n\n", (True, "")),
    "upgrade": (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", (False, "status 101")),
    "only interim": (b"HTTP/1.1 100 Continue\r\n\r\n", (False, "closed without an answer")),
    "garbage": (b"\0\xff\xfe" * 100, (False, "not an HTTP answer")),
    "another": (b"SSH-2.0-OpenSSH_9.2\r\n", (False, "not an HTTP answer")),
    "status": (b"HTTP/1.1 2000 OK\r\n\r\n", (False, "not an HTTP answer")),
    "word": (b"HTTP/1.1 OK\r\n\r\n", (False, "not an HTTP answer")),
    "short": (b"HTTP/1.1 20", (False, "closed in the middle of its answer")),
    "nothing": (b"", (False, "closed without an answer")),
    "huge header": (b"HTTP/1.1 200 OK\r\nX: " + b"x" * (1 << 20) + b"\r\n\r\n", (True, "")),
    "huge line": (b"HTTP/1.1 " + b"2" * (1 << 20), (False, "not an HTTP answer")),
    "huge interim": (b"HTTP/1.1 100 A\r\nX: " + b"x" * (1 << 20), (False, "not an HTTP answer")),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_http(watched: Watched, name: str) -> None:
    answer, wanted = ANSWERS[name]
    server = watched.loop.serve(says(answer))
    assert result(watched, "http", f"http://127.0.0.1:{server.port}/health?deep=1#top") == wanted
    assert server.requests == [
        b"GET /health?deep=1 HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n"
        b"User-Agent: sysresp-health\r\nAccept: */*\r\nConnection: close\r\n\r\n" % server.port
    ]


@given(st.sampled_from(sorted(ANSWERS)), st.binary(max_size=30), st.data())
def test_http_however_it_is_cut(name: str, garbage: bytes, data: st.DataObject) -> None:
    """What is said of a part is never taken back, and nothing that a server sends raises."""
    answer = ANSWERS[name][0][: MOST_HEAD + 100] + garbage
    cut = data.draw(st.integers(0, min(len(answer), 100)))
    whole, part = verdict(answer, is_end=True), verdict(answer[:cut])
    assert whole is not None
    assert part in (None, whole)


@given(st.binary(max_size=200))
def test_http_garbage_is_judged(answer: bytes) -> None:
    found = verdict(answer, is_end=True)
    assert found is not None
    assert bool(found[1]) != found[0]


SERVERS: dict[str, tuple[Manner, Result, bool]] = {
    "hung": (hangs, (False, "no answer within 2s"), True),
    "closes at once": (at_once, (False, "closed without an answer"), False),
    "resets": (resets, (False, "connection reset by peer"), False),
    "drips its line": (drips(b"HTTP/1.1 200 OK\r\n", 0.5), (False, "no answer within 2s"), True),
    "drips its headers": (drips(b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 1000, 0.01), (True, ""), True),
}


@pytest.mark.parametrize("name", SERVERS)
def test_http_servers(watched: Watched, name: str) -> None:
    manner, wanted, is_hung = SERVERS[name]
    server = watched.loop.serve(manner)
    found = result(watched, "http", f"http://127.0.0.1:{server.port}", is_hung)
    # A server that closes before it has read what was asked makes the kernel reset the connection.
    assert found == wanted or (name == "closes at once" and found == SERVERS["resets"][1])


# Connecting


@pytest.mark.parametrize("manner", [OK, hangs, at_once])
def test_tcp(watched: Watched, manner: Manner) -> None:
    server = watched.loop.serve(manner)
    for host in ("127.0.0.1", "localhost", "", "*"):
        assert result(watched, "tcp", f"{host}:{server.port}") == (True, "")


@pytest.mark.parametrize("by", ["tcp", "http"])
def test_refused(watched: Watched, by: str) -> None:
    with closed_port() as port:
        for host in ("127.0.0.1", "localhost"):
            target = f"http://{host}:{port}" if by == "http" else f"{host}:{port}"
            assert result(watched, by, target) == (False, "connection refused")


def test_ipv6(watched: Watched) -> None:
    server = watched.loop.serve(OK, "::1")
    assert result(watched, "tcp", f"[::1]:{server.port}") == (True, "")
    assert result(watched, "tcp", f"localhost:{server.port}") == (True, "")
    assert result(watched, "http", f"http://[::1]:{server.port}/") == (True, "")
    assert b"Host: [::1]:" in server.requests[0]


def test_a_name_is_looked_up_once_and_again_after_a_failure(watched: Watched) -> None:
    server = watched.loop.serve(OK)
    name = socket.gethostname()
    watched.watch(Probe("http", f"http://{name}:{server.port}/", interval_sec=1.0, timeout_sec=2.0))
    place = watched.probes._watches[UNIT].place
    assert place is not None
    assert not place.addresses
    watched.loop.until(lambda: bool(watched.state().at), 4.0)
    known = place.addresses
    assert socket.gethostbyname(name) in [address.at[0] for address in known]
    watched.loop.advance(5.0)
    assert place.addresses is known
    assert place.is_stale == (not watched.state().is_ok)
    place.is_stale = True
    watched.loop.is_settled = lambda: not place.is_asked and not watched.running()
    watched.loop.advance(2.0)
    assert place.addresses is not known


def test_a_name_that_nobody_knows_is_no_failure(watched: Watched) -> None:
    is_ok, why = result(watched, "tcp", "no-such-host.invalid:80")
    assert is_ok is None
    assert why.startswith("cannot look up no-such-host.invalid: ")


def test_tcp_whose_queue_is_full_gives_no_answer(watched: Watched) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        clients = []
        for _ in range(4):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
            clients.append(client)
        assert result(watched, "tcp", f"127.0.0.1:{port}", True) == (False, "no answer within 2s")
        for client in clients:
            client.close()


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM])
def test_unix(watched: Watched, tmp_path: Path, kind: socket.SocketKind) -> None:
    path = tmp_path / "s"
    assert result(watched, "unix", str(path)) == (False, "no such file or directory")
    with socket.socket(socket.AF_UNIX, kind) as listener:
        listener.bind(str(path))
        if kind != socket.SOCK_DGRAM:
            assert result(watched, "unix", str(path)) == (False, "connection refused")
            listener.listen(0)
        assert result(watched, "unix", str(path)) == (True, "")
    assert result(watched, "unix", str(path)) == (False, "connection refused")


def test_unix_abstract_and_full(watched: Watched) -> None:
    name = f"sysresp-{id(watched)}"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(f"\0{name}")
        listener.listen(0)
        assert result(watched, "unix", f"@{name}") == (True, "")
        listener.accept()[0].close()
        client.connect(f"\0{name}")
        assert result(watched, "unix", f"@{name}") == (False, "the queue of its socket is full")


def test_a_shortage_of_ours_is_no_failure(watched: Watched) -> None:
    server = watched.loop.serve(OK)
    watched.watch(Probe("tcp", f"127.0.0.1:{server.port}", interval_sec=1.0, grace_sec=0.0, failures=1))
    old = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, old[1]))
    try:
        watched.loop.advance(5.0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, old)
    assert watched.turns == []
    assert watched.state().why == "cannot make a socket: too many open files"
    watched.loop.advance(1.5)
    assert [turn.is_healthy for turn in watched.turns] == [True]


@pytest.mark.parametrize(
    ("by", "target"),
    [
        ("tcp", "nohost"),
        ("tcp", "127.0.0.1:99999"),
        ("tcp", "127.0.0.1:²"),
        ("http", "https://127.0.0.1/"),
        ("http", "http:///x"),
        ("http", "http://127.0.0.1:80/a b"),
        ("http", "http://127.0.0.1/\r\nX: y"),
        ("unix", "/" + "a" * 107),
        ("unix", "@" + "a" * 108),
    ],
)
def test_a_target_that_is_none(by: str, target: str) -> None:
    with pytest.raises(ValueError, match=r"is no (HOST:PORT|http:// URL|path of a socket)"):
        Place(by, target)
