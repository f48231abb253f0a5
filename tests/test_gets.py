"""Many properties at once: the messages as the D-Bus specification has them, and every way to break off."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysresp.systemd import gets
from sysresp.systemd.gets import MISSING, Broken, ask, question
from sysresp.systemd.messages import read
from sysresp.systemd.wire import split
from tests.test_wire import TYPES

FIRST = 0x40000000
GET = ("/org/freedesktop/systemd1/unit/a_2eservice", "org.freedesktop.systemd1.Service", "MainPID")
SIZES = {"y": 1, "g": 1, "v": 1, "n": 2, "q": 2, "x": 8, "t": 8, "d": 8, "(": 8, "{": 8}
FORMATS = {"n": "h", "q": "H", "i": "i", "u": "I", "b": "I", "x": "q", "t": "Q", "d": "d", "y": "B"}


def marshal(kind: str, value: Any, out: bytearray) -> None:
    """Append a value as the specification says, section "Marshaling (Wire Format)"."""
    code = kind[0]
    out += bytes(-len(out) % SIZES.get(code, 4))
    if code in FORMATS:
        out += struct.pack("=" + FORMATS[code], value)
    elif code in "so":
        out += struct.pack("=I", len(value.encode())) + value.encode() + b"\0"
    elif code == "g":
        out += bytes((len(value),)) + value.encode() + b"\0"
    elif code == "v":
        marshal("g", value[0], out)
        marshal(value[0], value[1], out)
    elif code == "a":
        out += bytes(4)
        length_at = len(out) - 4
        out += bytes(-len(out) % SIZES.get(kind[1], 4))
        begin = len(out)
        for item in value.items() if isinstance(value, dict) else value:
            marshal(kind[1:], item, out)
        out[length_at : length_at + 4] = struct.pack("=I", len(out) - begin)
    else:
        for part, item in zip(split(kind[1:-1]), value, strict=True):
            marshal(part, item, out)


def values(kind: str) -> st.SearchStrategy[Any]:
    code = kind[0]
    if code == "a":
        if kind == "ay":
            return st.lists(st.integers(0, 255), max_size=5)
        return st.lists(values(kind[1:]), max_size=3)
    if code == "(":
        return st.tuples(*(values(part) for part in split(kind[1:-1])))
    integers = {"y": (0, 255), "n": (-9, 9), "q": (0, 9), "i": (-9, 9), "u": (0, 2**32 - 1)}
    if code in integers:
        return st.integers(*integers[code])
    return {
        "b": st.booleans(),
        "x": st.integers(-(2**63), 2**63 - 1),
        "t": st.integers(0, 2**64 - 1),
        "d": st.floats(allow_nan=False),
        "s": st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=9),
    }[code]


@given(st.data(), TYPES, st.integers(0, 9))
def test_what_is_written_is_read(data: st.DataObject, kind: str, before: int) -> None:
    value = data.draw(values(kind))
    raw = bytearray(before)
    marshal("v", (kind, value), raw)
    assert read("v", bytes(raw), before) == (value, len(raw))


def test_a_dictionary_and_a_path() -> None:
    raw = bytearray()
    marshal("v", ("a{so}", {"a": "/b", "c": "/d"}), raw)
    assert read("v", bytes(raw), 0) == ({"a": "/b", "c": "/d"}, len(raw))
    raw = bytearray()
    marshal("v", ("v", ("g", "as")), raw)
    assert read("v", bytes(raw), 0) == ("as", len(raw))


@given(st.binary(max_size=40))
def test_rubbish_is_told_from_values(raw: bytes) -> None:
    answer = reply(FIRST, raw)
    try:
        exchange([GET], answer)
    except Broken:
        pass
    else:
        read("v", raw, 0)


def test_a_question_is_a_method_call() -> None:
    raw = question(7, *GET)
    endian, kind, flags, version, body_size, serial, fields_size = struct.unpack_from("=cBBBIII", raw)
    assert (kind, flags, version, serial) == (1, 0, 1, 7)
    assert endian in (b"l", b"B")
    at, end, fields = 16, 16 + fields_size, {}
    while at < end:
        at += -at % 8
        code = raw[at]
        fields[code], at = read("v", raw, at + 1)
    assert at == end
    assert fields == {
        **{1: GET[0], 2: "org.freedesktop.DBus.Properties", 3: "Get"},
        **{6: "org.freedesktop.systemd1", 8: "ss"},
    }
    body = raw[end + -end % 8 :]
    assert len(body) == body_size
    first, at = read("s", body, 0)
    assert (first, read("s", body, at)) == (GET[1], (GET[2], len(body)))


def message(kind: int, fields: Sequence[tuple[int, str, Any]], body: bytes = b"") -> bytes:
    head = bytearray(16)
    for code, signature, value in fields:
        head += bytes(-len(head) % 8) + bytes((code,))
        marshal("v", (signature, value), head)
    size = len(head) - 16
    head += bytes(-len(head) % 8)
    endian = question(1, *GET)[:1]
    head[:16] = struct.pack("=cBBBIII", endian, kind, 0, 1, len(body), 99, size)
    return bytes(head) + body


def reply(serial: int, body: bytes) -> bytes:
    return message(2, [(5, "u", serial), (8, "g", "v"), (7, "s", ":1.2")], body)


def number(serial: int, value: int) -> bytes:
    raw = bytearray()
    marshal("v", ("u", value), raw)
    return reply(serial, bytes(raw))


def refused(serial: int, name: str) -> bytes:
    raw = bytearray()
    marshal("s", "no such thing", raw)
    return message(3, [(4, "s", name), (5, "u", serial), (8, "g", "s")], bytes(raw))


SIGNAL = message(4, [(1, "o", "/x"), (2, "s", "a.b"), (3, "s", "C")], b"12345678")


def exchange(asked: Sequence[tuple[str, str, str]], answers: bytes) -> list[object]:
    """Ask a peer that has answered already."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(answers)
        theirs.shutdown(socket.SHUT_WR)
        return ask(ours.fileno(), asked)


def test_answers_come_in_the_order_of_the_questions() -> None:
    asked = [(f"{GET[0]}{n:04}", *GET[1:]) for n in range(1000)]
    size = len(question(FIRST, *asked[0]))
    ours, theirs = socket.socketpair()
    heard = bytearray()

    def answer() -> None:
        answered = 0
        while answered < len(asked) and (more := theirs.recv(1 << 16)):
            heard.extend(more)
            assert len(heard) <= (answered + gets.WINDOW) * size
            for n in range(answered, len(heard) // size):
                theirs.sendall(SIGNAL * (n % 3 == 0) + number(FIRST + n, n * n))
                answered = n + 1

    with ours, theirs, ThreadPoolExecutor() as pool:
        done = pool.submit(answer)
        try:
            assert ask(ours.fileno(), asked) == [n * n for n in range(len(asked))]
        finally:
            ours.shutdown(socket.SHUT_RDWR)
        done.result()
    assert heard == b"".join(question(FIRST + n, *get) for n, get in enumerate(asked))


def test_no_more_questions_than_a_broker_allows() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(Broken, match="closed"):
            ask(ours.fileno(), [GET] * 1000)
        theirs.setblocking(False)
        assert len(theirs.recv(1 << 20)) == len(question(FIRST, *GET)) * gets.WINDOW


@pytest.mark.parametrize("name", ["UnknownProperty", "UnknownInterface"])
def test_a_property_that_nobody_has(name: str) -> None:
    error = refused(FIRST, f"org.freedesktop.DBus.Error.{name}")
    assert exchange([GET, GET], error + number(FIRST + 1, 5)) == [MISSING, 5]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (refused(FIRST, "org.freedesktop.DBus.Error.AccessDenied"), "refused"),
        (message(3, [(5, "u", FIRST)]), "refused"),
        (number(FIRST + 1, 5), "something else"),
        (number(FIRST, 5) + number(FIRST + 1, 5), "without a question"),
        (b"HTTP/1.1 400 Bad Request", "no D-Bus message"),
        (number(FIRST, 5)[:-1], "closed"),
        (reply(FIRST, b"\1u\0"), "cannot be read"),
        (reply(FIRST, b"\2as\0\x40\0\0\0"), "cannot be read"),
        (reply(FIRST, b"\1s\0\0\x40\0\0\0ab"), "cut"),
        (reply(FIRST, b"\1z\0\0\0\0\0\0"), "unknown type"),
        (reply(FIRST, b"\2()\0\0\0\0\0\0"), "unknown type"),
        (reply(FIRST, b""), "cannot be read"),
    ],
)
def test_whatever_is_not_as_expected(answer: bytes, why: str) -> None:
    with pytest.raises(Broken, match=why):
        exchange([GET], answer)


def test_a_peer_that_is_gone() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours, pytest.raises(OSError, match="Broken pipe"):
        ask(ours.fileno(), [GET])
