"""D-Bus messages as bytes: what is sent and read without sd-bus.

Owns the little of the wire format that `sysresp.systemd.gets` and `.stream` need (D-Bus specification,
Message Format and Marshaling). Never reads or writes a socket. Pure; the rule: bytes that are not what they
should be raise struct.error, IndexError or ValueError, and nothing else.
"""

from __future__ import annotations

import struct
import sys

from sysresp.systemd.wire import split, text

TYPE_CHECKING = False  # typing itself costs 5 ms to import
if TYPE_CHECKING:
    from typing import Any

CALL, RETURN, ERROR, SIGNAL = 1, 2, 3, 4  # types of messages
PATH, INTERFACE, MEMBER, ERROR_NAME, REPLY, DESTINATION, SENDER, SIGNATURE = 1, 2, 3, 4, 5, 6, 7, 8
ENDIAN = b"l" if sys.byteorder == "little" else b"B"
HEADER = struct.Struct("=cBBBIII")  # byte order, type, flags, version, body, serial, fields
_FIXED = {
    **{"y": "=B", "b": "=I", "n": "=h", "q": "=H", "i": "=i", "u": "=I", "h": "=I"},
    **{"x": "=q", "t": "=Q", "d": "=d"},
}
_FORMATS = {code: struct.Struct(form) for code, form in _FIXED.items()}
LENGTH = _FORMATS["u"]


def string(value: str) -> bytes:
    raw = text(value)
    return LENGTH.pack(len(raw)) + raw + b"\0"


def signature(value: str) -> bytes:
    return bytes((len(value),)) + value.encode() + b"\0"


def field(code: int, kind: str, value: str) -> bytes:
    """Return a header field; the next one begins at a multiple of 8 after the last."""
    raw = bytes((code, 1, ord(kind), 0)) + (string(value) if kind != "g" else signature(value))
    return raw + bytes(-len(raw) % 8)


def call(serial: int, destination: str, path: str, interface: str, member: str, *strings: str) -> bytes:
    """Return the message that calls a method of which all arguments are strings."""
    body = b""
    for value in strings:
        body += bytes(-len(body) % 4) + string(value)
    head = field(PATH, "o", path) + field(INTERFACE, "s", interface) + field(MEMBER, "s", member)
    if strings:
        head += field(SIGNATURE, "g", "s" * len(strings))
    # The padding after the last field is no part of the fields' length.
    head += bytes((DESTINATION, 1, ord("s"), 0)) + string(destination)
    message = HEADER.pack(ENDIAN, CALL, 0, 1, len(body), serial, len(head)) + head
    return message + bytes(-len(message) % 8) + body


def header(fields: bytes) -> dict[int, Any]:
    """Return the fields of a message's header, by their code."""
    found: dict[int, Any] = {}
    at = 0
    while at < len(fields):
        at += -at % 8
        code = fields[at]
        found[code], at = read("v", fields, at + 1)
    return found


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
    (size,) = LENGTH.unpack_from(data, at)
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
