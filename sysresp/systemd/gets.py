"""Many properties at once: the questions are sent without waiting for each answer.

Owns the questions and the taking of their answers; the bytes are those of `.messages`. pystemd can only
call and wait, and each such call wakes up two or three processes in turn: 6,000 properties of 1,000
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

from sysresp.systemd.messages import (
    CALL,
    DESTINATION,
    ENDIAN,
    ERROR,
    ERROR_NAME,
    HEADER,
    INTERFACE,
    LENGTH,
    MEMBER,
    PATH,
    REPLY,
    RETURN,
    SIGNATURE,
    field,
    read,
    signature,
    string,
)

TYPE_CHECKING = False  # typing itself costs 5 ms to import
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

WINDOW = 64
"""Questions without an answer at a time: at 128 dbus-daemon refuses more (max_replies_per_connection)."""

MISSING = object()
"""The answer for a property, or an interface, that this systemd does not know."""

_FIRST_SERIAL = 0x40000000  # far from those that sd-bus has used on this connection
_SILENCE_SEC = 5.0  # then the slow way is asked, which waits as long as it should
_UNKNOWN = frozenset((b"UnknownProperty", b"UnknownInterface"))


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
    body = string(interface)
    body += bytes(-len(body) % 4) + string(name)
    head = field(PATH, "o", path) + _TO_PROPERTIES
    message = HEADER.pack(ENDIAN, CALL, 0, 1, len(body), serial, len(head)) + head
    return message + bytes(-len(message) % 8) + body


# The padding after the last field is no part of the fields' length, so the signature comes without it.
_TO_PROPERTIES = (
    field(DESTINATION, "s", "org.freedesktop.systemd1")
    + field(INTERFACE, "s", "org.freedesktop.DBus.Properties")
    + field(MEMBER, "s", "Get")
    + bytes((SIGNATURE, 1, ord("g"), 0))
    + signature("ss")
)


def _answers(unread: bytearray, serial: int) -> Iterator[object]:
    """Take the answers, of which the first has this serial, out of what was received; skip signals."""
    at = 0
    while len(unread) - at >= HEADER.size:
        endian, kind, _flags, version, body_size, _serial, fields_size = HEADER.unpack_from(unread, at)
        if endian != ENDIAN or version != 1:
            raise Broken(f"no D-Bus message: {bytes(unread[at : at + HEADER.size])!r}")
        begin = at + HEADER.size
        body = begin + fields_size + -fields_size % 8
        end = body + body_size
        if end > len(unread):
            break
        if kind in (RETURN, ERROR):
            fields = bytes(unread[begin : begin + fields_size])
            # Answers come in the order of the questions; the serial proves it.
            if bytes((REPLY, 1, ord("u"), 0)) + LENGTH.pack(serial) not in fields:
                raise Broken(f"an answer to something else: {fields!r}")
            yield _value(bytes(unread[body:end])) if kind == RETURN else _refusal(fields)
            serial += 1
        at = end
    del unread[:at]


def _refusal(fields: bytes) -> object:
    """Return MISSING if the error is of that kind."""
    at = fields.find(bytes((ERROR_NAME, 1, ord("s"), 0)))
    (size,) = LENGTH.unpack_from(fields, at + 4)
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
