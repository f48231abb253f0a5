"""Many properties at once: the questions are sent without waiting for each answer.

Owns the little of D-Bus's wire format that this takes (D-Bus specification, Message Protocol). pystemd can
only call and wait, and each such call wakes up two or three processes in turn: 6,000 properties of 1,000
units took 1.4 s over the bus and 0.5 s without a broker, and in this way 0.7 s and 0.25 s (systemd 252).
sd-bus opens the connection and has it authenticated, then its socket is used here, and after that it is
closed: sd-bus never sees an answer. Nothing of sd-bus's own is left unread at that point, since it reads
message by message (bus_socket_read_message in src/libsystemd/sd-bus/bus-socket.c).
Never decides anything, never retries. The rule: whatever is not exactly as expected raises `Broken`, and the
caller asks again in the slow way, which has the words for what is wrong.
"""

from __future__ import annotations

import socket
import struct
import sys

from sysresp.systemd.wire import split, text

TYPE_CHECKING = False  # typing itself costs 5 ms to import
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

WINDOW = 64
"""Questions without an answer at a time: at 128 dbus-daemon refuses more (max_replies_per_connection)."""

MISSING = object()
"""The answer for a property, or an interface, that this systemd does not know."""

_CALL, _RETURN, _ERROR = 1, 2, 3
_PATH, _INTERFACE, _MEMBER, _ERROR_NAME, _REPLY, _DESTINATION, _SIGNATURE = 1, 2, 3, 4, 5, 6, 8
_FIRST_SERIAL = 0x40000000  # far from those that sd-bus has used on this connection
_SILENCE_SEC = 25.0  # as sd-bus waits (BUS_DEFAULT_TIMEOUT)
_ENDIAN = b"l" if sys.byteorder == "little" else b"B"
_HEADER = struct.Struct("=cBBBIII")  # byte order, type, flags, version, body, serial, fields
_UNKNOWN = frozenset((b"UnknownProperty", b"UnknownInterface"))
_FIXED = {
    **{"y": "=B", "b": "=I", "n": "=h", "q": "=H", "i": "=i", "u": "=I", "h": "=I"},
    **{"x": "=q", "t": "=Q", "d": "=d"},
}
_FORMATS = {code: struct.Struct(form) for code, form in _FIXED.items()}
_LENGTH = _FORMATS["u"]


class Broken(Exception):
    """The answers are not what was expected, or there are none."""


def ask(descriptor: int, gets: Sequence[tuple[str, str, str]]) -> list[object]:
    """Return the values of these (object path, interface, property), in their order.

    The connection must not be used for anything else after that. OSError if it is lost.
    """
    answers: list[object] = []
    sent = 0
    unread = bytearray()
    # A duplicate, because closing is the business of whoever opened it.
    with socket.socket(fileno=socket.dup(descriptor)) as peer:
        peer.settimeout(_SILENCE_SEC)
        while len(answers) < len(gets):
            if sent - len(answers) <= WINDOW // 2:
                more = gets[sent : len(answers) + WINDOW]
                peer.sendall(
                    b"".join([question(_FIRST_SERIAL + sent + n, *get) for n, get in enumerate(more)])
                )
                sent += len(more)
            received = peer.recv(1 << 16)
            if not received:
                raise Broken("the connection was closed")
            unread += received
            answers += _answers(unread, _FIRST_SERIAL + len(answers))
            if len(answers) > sent:
                raise Broken("an answer without a question")
    return answers


def question(serial: int, path: str, interface: str, name: str) -> bytes:
    """Return the message that asks for a property (org.freedesktop.DBus.Properties.Get)."""
    body = _string(interface)
    body += bytes(-len(body) % 4) + _string(name)
    head = _field(_PATH, "o", path) + _TO_PROPERTIES
    message = _HEADER.pack(_ENDIAN, _CALL, 0, 1, len(body), serial, len(head)) + head
    return message + bytes(-len(message) % 8) + body


def _string(value: str) -> bytes:
    raw = text(value)
    return _LENGTH.pack(len(raw)) + raw + b"\0"


def _field(code: int, kind: str, value: str) -> bytes:
    """Return a header field; the next one begins at a multiple of 8 after the last."""
    raw = bytes((code, 1, ord(kind), 0)) + (_string(value) if kind != "g" else _signature(value))
    return raw + bytes(-len(raw) % 8)


def _signature(value: str) -> bytes:
    return bytes((len(value),)) + value.encode() + b"\0"


# The padding after the last field is no part of the fields' length, so the signature comes without it.
_TO_PROPERTIES = (
    _field(_DESTINATION, "s", "org.freedesktop.systemd1")
    + _field(_INTERFACE, "s", "org.freedesktop.DBus.Properties")
    + _field(_MEMBER, "s", "Get")
    + bytes((_SIGNATURE, 1, ord("g"), 0))
    + _signature("ss")
)


def _answers(unread: bytearray, serial: int) -> Iterator[object]:
    """Take the answers, of which the first has this serial, out of what was received; skip signals."""
    at = 0
    while len(unread) - at >= _HEADER.size:
        endian, kind, _flags, version, body_size, _serial, fields_size = _HEADER.unpack_from(unread, at)
        if endian != _ENDIAN or version != 1:
            raise Broken(f"no D-Bus message: {bytes(unread[at : at + _HEADER.size])!r}")
        begin = at + _HEADER.size
        body = begin + fields_size + -fields_size % 8
        end = body + body_size
        if end > len(unread):
            break
        if kind in (_RETURN, _ERROR):
            fields = bytes(unread[begin : begin + fields_size])
            # Answers come in the order of the questions; the serial proves it.
            if bytes((_REPLY, 1, ord("u"), 0)) + _LENGTH.pack(serial) not in fields:
                raise Broken(f"an answer to something else: {fields!r}")
            yield _value(bytes(unread[body:end])) if kind == _RETURN else _refusal(fields)
            serial += 1
        at = end
    del unread[:at]


def _refusal(fields: bytes) -> object:
    """Return MISSING if the error is of that kind."""
    at = fields.find(bytes((_ERROR_NAME, 1, ord("s"), 0)))
    (size,) = _LENGTH.unpack_from(fields, at + 4)
    name = fields[at + 8 : at + 8 + size]
    if at < 0 or name.rpartition(b".")[2] not in _UNKNOWN:
        raise Broken(f"refused: {name!r}")
    return MISSING


def _value(body: bytes) -> object:
    """Return what the variant in this body holds."""
    try:
        value, end = read("v", body, 0)
    except (struct.error, IndexError, ValueError) as error:
        raise Broken(f"a value that cannot be read: {error}: {body!r}") from error
    if end > len(body):
        raise Broken(f"a value that is cut: {body!r}")
    return value


def read(kind: str, data: bytes, at: int) -> tuple[object, int]:
    """Return the value of this complete type at this offset, and where it ends."""
    code = kind[0]
    form = _FORMATS.get(code)
    if form is not None:
        at += -at % form.size
        (value,) = form.unpack_from(data, at)
        return bool(value) if code == "b" else value, at + form.size
    if code in "gv":
        end = at + 1 + data[at]
        inner = data[at + 1 : end].decode()
        return (inner, end + 1) if code == "g" else read(inner, data, end + 1)
    if code in "({" and len(kind) > 2:
        at += -at % 8
        values = []
        for part in split(kind[1:-1]):
            value, at = read(part, data, at)
            values.append(value)
        return tuple(values), at
    at += -at % 4
    (size,) = _LENGTH.unpack_from(data, at)
    at += 4
    if code == "a":
        return _array(kind[1:], data, at, size)
    if code not in "so":
        raise ValueError(f"unknown type {kind!r}")
    return data[at : at + size].decode(errors="replace"), at + size + 1


def _array(item: str, data: bytes, at: int, size: int) -> tuple[object, int]:
    at += -at % (8 if item[0] in "({" else _FORMATS[item[0]].size if item[0] in _FORMATS else 1)
    end = at + size
    if end > len(data):
        raise ValueError("an array that is cut")
    if item == "y":
        return list(data[at:end]), end
    values: list[Any] = []
    while at < end:
        value, at = read(item, data, at)
        values.append(value)
    return dict(values) if item[0] == "{" else values, end
