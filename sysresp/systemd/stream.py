"""A connection whose messages are read here, not by sd-bus.

Owns the socket and the cutting of what comes into messages. sd-bus opens the connection and has it
authenticated, then its socket is used here: sd-bus keeps a queue of its own, while which the descriptor is
not readable, cannot say whether it did something, closes the descriptor without a word when the peer leaves,
and decodes a message in 31 us of which 2 are needed. Here the descriptor tells the truth. Nothing is left
unread in sd-bus at that point, since it reads message by message (see `sysresp.systemd.gets`).
Never decides what a message means. The rule: any local user may send anything to us, as far as the broker
lets it pass. So a message larger than any of systemd's is not kept in memory, and none is believed before
its sender was looked at.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import NamedTuple

from sysresp.systemd.bus import Bus, Disconnected
from sysresp.systemd.messages import ENDIAN, HEADER

_CHUNK = 1 << 16
_MOST_CHUNKS = 32  # for one call: 2 MiB, which take about 10 ms
_LONGEST_HEADER = 1 << 12  # those of systemd take 250 bytes and the length of the unit's name, twice
_LONGEST = 1 << 20  # a change of a service takes 1.5 KiB; the broker lets 32 MiB pass


class Message(NamedTuple):
    """One message; the body is there to be cut out, since most are told by their header alone."""

    kind: int
    fields: bytes  # of its header, without padding
    data: bytes
    body: int  # where in `data` the body begins
    end: int
    is_cut: bool = False  # too large: there is no body


class Stream:
    """The messages of one connection, from now on."""

    def __init__(self, bus: Bus) -> None:
        """Take an open connection over: `bus` is closed."""
        self._socket = socket.socket(fileno=socket.dup(bus.fd()))
        self._socket.setblocking(False)
        bus.close()
        self._unread = b""
        self._skip = 0  # so many bytes of a message that is too large are still to come
        self.foreign = 0  # messages that were not even looked at

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def send(self, message: bytes) -> None:
        """Send a small message; `Disconnected` if it cannot be sent at once."""
        try:
            self._socket.sendall(message)
        except OSError as error:
            raise Disconnected(str(error)) from error

    def receive(self) -> Iterator[Message]:
        """Yield what has come, never wait; raise `Disconnected` at the end if the peer is gone.

        After some 10 ms of work it leaves the rest: then the descriptor is still readable.
        """
        for _ in range(_MOST_CHUNKS):
            try:
                chunk = self._socket.recv(_CHUNK)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                raise Disconnected(str(error)) from error
            if not chunk:
                raise Disconnected("the connection was closed")
            if self._skip:
                skipped = min(self._skip, len(chunk))
                self._skip -= skipped
                chunk = chunk[skipped:]
            yield from self._messages(self._unread + chunk)
            if len(chunk) < _CHUNK // 2:  # most likely that was all; if not, the descriptor is readable
                return

    def _messages(self, data: bytes) -> Iterator[Message]:
        at, size = 0, len(data)
        unpack, smallest = HEADER.unpack_from, HEADER.size
        while size - at >= smallest:
            endian, kind, _flags, _version, body_size, _serial, fields_size = unpack(data, at)
            begin = at + smallest
            if endian != ENDIAN:  # not of this machine's systemd, but the broker lets it pass
                body_size, fields_size = _swapped(body_size), _swapped(fields_size)
            body = begin + fields_size + -fields_size % 8
            end = body + body_size
            if end <= size:
                at = end
                if endian == ENDIAN and fields_size <= _LONGEST_HEADER:
                    yield Message(kind, data[begin : begin + fields_size], data, body, end)
                else:
                    self.foreign += 1
            elif endian != ENDIAN or fields_size > _LONGEST_HEADER:
                self.foreign += 1
                self._skip, at = end - size, size
            elif body_size > _LONGEST and body <= size:
                self._skip, at = end - size, size
                yield Message(kind, data[begin : begin + fields_size], b"", 0, 0, is_cut=True)
            else:
                break
        self._unread = data[at:]


def _swapped(number: int) -> int:
    return int.from_bytes(number.to_bytes(4, "little"), "big")
