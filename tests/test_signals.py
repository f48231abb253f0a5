"""`SystemSignals` on a socket of our own: what systemd, D-Bus and others may send, byte by byte."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysresp.ports import Gone, JobRemoved, Lost, Seen
from sysresp.systemd.bus import DBUS, MANAGER, PROPERTIES, SYSTEMD_PATH
from sysresp.systemd.messages import ENDIAN, HEADER, call, field, header, string
from sysresp.systemd.signals import SystemSignals
from sysresp.systemd.stream import Stream
from sysresp.systemd.wire import unit_path
from tests.test_gets import marshal

OWNER, BUS, BUS_PATH = ":1.2", "org.freedesktop.DBus", "/org/freedesktop/DBus"
NAMES = ("org.freedesktop.systemd1", OWNER, ":1.3")
A, B, TARGET = "a.service", "b.service", "c.target"
SERVICE = {
    "MainPID": ("u", 7),
    "StatusText": ("s", "Result"),
    "Result": ("s", "signal"),
    "NRestarts": ("u", 3),
    "ExecMainStartTimestampMonotonic": ("t", 1_500_000),
    "ExecMainExitTimestamp": ("t", 9_000_000),
    "ExecMainExitTimestampMonotonic": ("t", 2_500_000),
    "ExecMainCode": ("i", 2),
    "ExecMainStatus": ("i", 9),
}
UNIT = {
    "ActiveState": ("s", "failed"),
    "SubState": ("s", "failed"),
    "Job": ("(uo)", (5, "/org/freedesktop/systemd1/job/5")),
    "InvocationID": ("ay", list(range(16))),
    "StateChangeTimestampMonotonic": ("t", 2_600_000),
}
SEEN = Seen(
    A, "failed", "failed", bytes(range(16)).hex(), "signal", 5, 3, 7, 2, 9, 1.5, 2.5, 9.0, 2.6, "loaded"
)


class FakeBus:
    """Enough of `Bus` for a stream: an open descriptor."""

    def __init__(self, descriptor: int) -> None:
        self.fd = lambda: descriptor
        self.close = lambda: None


class Line:
    """The other end of the connection, and the signals that come out of this one."""

    def __init__(self) -> None:
        self.peer, near = socket.socketpair()
        self.peer.settimeout(10)
        self.signals = SystemSignals()
        with near:
            self.signals._stream = Stream(FakeBus(near.fileno()))  # type: ignore[arg-type]
        self.signals._owner = OWNER
        self.signals.watch([A, B, TARGET])

    def send(self, *messages: bytes) -> list[Any]:
        self.peer.sendall(b"".join(messages))
        return self.signals.drain()

    def close(self) -> None:
        self.signals.close()
        self.peer.close()


@pytest.fixture
def line() -> Iterator[Line]:
    made = Line()
    yield made
    made.close()


def message(
    member: str,
    signature: str,
    *values: Any,
    path: str = SYSTEMD_PATH,
    interface: str = MANAGER,
    sender: str = OWNER,
    kind: int = 4,
    more: bytes = b"",
) -> bytes:
    body = bytearray()
    marshal(f"({signature})", values, body)
    head = field(1, "o", path) + field(2, "s", interface) + field(3, "s", member) + more
    head += field(8, "g", signature) + bytes((7, 1, ord("s"), 0)) + string(sender)
    raw = HEADER.pack(ENDIAN, kind, 0, 1, len(body), 1, len(head)) + head
    return raw + bytes(-len(raw) % 8) + bytes(body)


def changed(unit: str, kind: str, properties: dict[str, Any], sender: str = OWNER) -> bytes:
    values = (f"org.freedesktop.systemd1.{kind}", properties, ["ExecStart"])
    where = {"path": unit_path(unit), "interface": PROPERTIES}
    return message("PropertiesChanged", "sa{sv}as", *values, sender=sender, **where)


def pair(unit: str = A, **general: Any) -> bytes:
    return changed(unit, "Service", SERVICE) + changed(unit, "Unit", UNIT | general)


def inactive(unit: str = A) -> bytes:
    return pair(unit, ActiveState=("s", "inactive"))


def removed(unit: str) -> bytes:
    return message("UnitRemoved", "so", unit, unit_path(unit))


def owner(new: str, old: str = OWNER) -> bytes:
    values = ("org.freedesktop.systemd1", old, new)
    where = {"path": "/org/freedesktop/DBus", "interface": BUS, "sender": BUS}
    return message("NameOwnerChanged", "sss", *values, **where)


def answer(line: Line, error: str = "", sender: str = OWNER) -> bytes:
    """Answer the last call that came."""
    serial = HEADER.unpack_from(line.peer.recv(1 << 16))[5]
    more = bytes((5, 1, ord("u"), 0)) + struct.pack("=I", serial)
    more += field(4, "s", f"org.freedesktop.systemd1.{error}") if error else b""
    return message("x", "s", "words", sender=sender, kind=3 if error else 2, more=more)


def test_a_pair_is_one_and_told_once(line: Line) -> None:
    assert line.send(changed(A, "Service", SERVICE)) == []
    assert line.send(changed(A, "Unit", UNIT)) == [SEEN]
    assert line.send(pair()) == []
    (again,) = line.send(pair(SubState=("s", "dead")))
    assert again == SEEN._replace(sub="dead")


def test_halves(line: Line) -> None:
    assert line.send(changed(A, "Unit", UNIT)) == []  # its first half was before us
    (seen,) = line.send(changed(TARGET, "Unit", UNIT))
    assert seen == Seen(TARGET, "failed", "failed", SEEN.invocation, job=5, changed=2.6)
    assert line.send(changed(A, "Timer", {}), pair("other.service")) == []


@given(st.integers(1, 4000))
def test_messages_in_pieces(size: int) -> None:
    line = Line()
    raw, told = pair() + pair(B), []
    for at in range(0, len(raw), size):
        told += line.send(raw[at : at + size])
    line.close()
    assert told == [SEEN, SEEN._replace(unit=B)]


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_no_status_text_passes_for_a_property(text: str) -> None:
    line = Line()
    hostile = {"StatusText": ("s", text + "Result\tNRestarts\x01u"), **SERVICE}
    assert line.send(changed(A, "Service", hostile), changed(A, "Unit", UNIT)) == [SEEN]
    line.close()


def test_a_property_that_systemd_leaves_out(line: Line) -> None:
    less = {name: value for name, value in SERVICE.items() if name != "NRestarts"}
    assert line.send(changed(A, "Service", less), changed(A, "Unit", UNIT)) == [SEEN._replace(n_restarts=0)]


def test_the_end_of_a_job(line: Line) -> None:
    job = "/org/freedesktop/systemd1/job/4"
    told = line.send(*(message("JobRemoved", "uoss", 4, job, unit, "done") for unit in (A, "other.service")))
    assert told == [JobRemoved(4, A, "done")]


def test_gone(line: Line) -> None:
    line.send(pair())
    assert line.send(removed(A)) == []  # it is not down: systemd is about to re-execute itself
    line.send(inactive())
    assert line.send(removed(A)) == [Gone(A)]
    assert line.send(removed(A), removed("other.service")) == []
    assert line.send(pair()) == [SEEN]


def test_a_daemon_reload(line: Line) -> None:
    line.send(inactive(A), inactive(B))
    reloading = [message("Reloading", "b", flag) for flag in (True, False)]
    new = message("UnitNew", "so", A, unit_path(A))
    assert line.send(reloading[0], removed(A), removed(B), new) == []
    assert line.send(reloading[1]) == [Gone(B)]


@pytest.mark.parametrize("error", ["", "AlreadySubscribed"])
def test_systemd_comes_back_under_another_name(line: Line, error: str) -> None:
    line.send(pair())
    assert line.send(owner(""), owner(":1.9", "")) == []
    assert line.send(pair()) == []  # of the old one
    assert line.signals.forged == 2
    assert line.send(answer(line, error, ":1.9")) == [Lost("systemd re-executed itself")]
    new = [changed(A, kind, x, ":1.9") for kind, x in (("Service", SERVICE), ("Unit", UNIT))]
    assert line.send(*new) == [SEEN]


def test_systemd_refuses_to_tell(line: Line) -> None:
    line.send(owner(":1.9"))
    assert line.send(answer(line, "AccessDenied", ":1.9")) == [Lost("disconnected")]
    assert line.send(pair()) == []


def test_the_end_of_the_connection_is_told_once(line: Line) -> None:
    line.peer.sendall(pair()[:-1])
    line.peer.close()
    assert [line.signals.drain() for _ in range(3)] == [[], [Lost("disconnected")], []]


def test_forgeries(line: Line) -> None:
    line.send(pair())
    forged = [
        pair().replace(OWNER.encode(), b":1.3"),
        owner(":1.3").replace(
            b"\x14\x00\x00\x00org.freedesktop.DBus\0", b"\x14\x00\x00\x00org.freedesktop.DBUS\0"
        ),
        message("Ping", "", kind=1, interface=BUS),
        message("x", "", kind=2, more=bytes((5, 1, ord("u"), 0, 9, 0, 0, 0))),
        HEADER.pack(ENDIAN, 4, 0, 1, 0, 1, 5) + b"\x01\x01z\0\0\0\0\0",
    ]
    assert line.send(*forged) == []
    assert line.signals.forged == 6
    assert line.signals._owner == OWNER


def test_what_is_too_large_is_not_kept(line: Line) -> None:
    large = 3 << 20
    for kind in ("forged", "swapped", "header"):
        line.signals.forged = 0
        raw = bytearray(changed(A, "Unit", {}, ":1.3"))
        size, fields = struct.unpack_from("=I", raw, 4)[0], struct.unpack_from("=I", raw, 12)[0]
        raw += bytes(large)
        if kind == "header":
            struct.pack_into("=I", raw, 12, fields + large)
        else:
            struct.pack_into("=I", raw, 4, size + large)
        if kind == "swapped":
            raw[0] = ord("B") if ENDIAN == b"l" else ord("l")
            for at in (4, 12):
                raw[at : at + 4] = raw[at : at + 4][::-1]
        told = []
        for at in range(0, len(raw), 1 << 16):
            told += line.send(bytes(raw[at : at + (1 << 16)]))
            assert line.signals._stream is not None
            assert len(line.signals._stream._unread) <= 1 << 17
        assert told == []
        assert line.signals.forged == 1, kind
    assert line.send(pair()) == [SEEN]


def test_too_large_of_systemd_is_a_loss(line: Line) -> None:
    raw = bytearray(changed(A, "Unit", {}))
    struct.pack_into("=I", raw, 4, struct.unpack_from("=I", raw, 4)[0] + (2 << 20))
    told = line.send(bytes(raw))
    for _ in range(32):
        told += line.send(bytes(1 << 16))
    assert told == [Lost("overflow")]


@given(st.lists(st.binary(max_size=60), max_size=5), st.integers(0, 200))
def test_garbage_does_no_harm(parts: list[bytes], cut: int) -> None:
    """The broker lets only whole messages pass; what one of them holds may be anything."""
    line = Line()
    for part in parts:
        raw = HEADER.pack(ENDIAN, 4, 0, 1, 0, 1, len(part)) + part + bytes(-len(part) % 8)
        assert line.send(raw) == []
    told = line.send(message("UnitRemoved", "so", A, unit_path(A))[:-cut] + bytes(cut))
    assert all(isinstance(signal, Lost | Gone) for signal in told)
    line.close()


def test_what_is_not_watched_is_forgotten(line: Line) -> None:
    line.send(pair(A), pair(B))
    line.signals.watch([B])
    assert line.send(pair(A), pair(B)) == []
    line.signals.watch([A, B])
    assert line.send(pair(A), pair(B)) == [SEEN]


def test_a_call_is_what_the_specification_says() -> None:
    raw = call(7, BUS, "/org/freedesktop/DBus", BUS, "AddMatch", "type='signal'")
    _endian, kind, _flags, _version, body, serial, size = HEADER.unpack_from(raw)
    fields = header(raw[HEADER.size : HEADER.size + size])
    assert (kind, serial) == (1, 7)
    assert fields == {6: BUS, 1: "/org/freedesktop/DBus", 2: BUS, 3: "AddMatch", 8: "s"}
    assert raw[-body:] == struct.pack("=I", 13) + b"type='signal'\0"
    assert len(raw) == HEADER.size + size + -size % 8 + body
    assert DBUS.decode() == BUS
