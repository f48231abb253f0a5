"""What PID 1 announces: `ports.Signals`, for the system's manager and for the user's own.

Owns the subscription and the making of a `Seen` out of two signals. Decides nothing about units and asks
systemd for nothing: calls go over another connection. The rules, each of which a real systemd taught:
- A message is believed if its sender owns systemd's name, as D-Bus itself told us in this very stream; any
  local user can send us a signal that looks like systemd's.
- A change is told twice, as org.freedesktop.systemd1.Service and then .Unit, each with all its properties
  (bus_unit_send_change_signal in src/core/dbus-unit.c). Only the pair is whole; it is decoded when its
  second half is there, and told only if it says something new.
- A daemon-reload unloads every unit and loads it again, and so does a daemon-reexec. A unit is gone if it
  was down before, and is not there again at the end of the reload.
- A new owner of the name means that changes were missed, and that we must subscribe again before anybody
  reads the state: `Lost` is told when systemd has confirmed that.
"""

from __future__ import annotations

import select
import struct
import time
from collections.abc import Iterable
from enum import IntEnum
from typing import Any

from sysresp.ports import Gone, JobRemoved, Lost, Seen, Signal
from sysresp.systemd.bus import (
    DBUS,
    DBUS_PATH,
    MANAGER,
    PROPERTIES,
    SYSTEMD,
    SYSTEMD_PATH,
    Bus,
    Disconnected,
    unreachable,
)
from sysresp.systemd.changes import seen
from sysresp.systemd.messages import (
    ERROR,
    ERROR_NAME,
    INTERFACE,
    LENGTH,
    MEMBER,
    PATH,
    REPLY,
    RETURN,
    SENDER,
    SIGNAL,
    SIGNATURE,
    call,
    header,
    read,
    string,
)
from sysresp.systemd.stream import Message, Stream
from sysresp.systemd.wire import unit_path

_BUS, _SYSTEMD = DBUS.decode(), SYSTEMD.decode()
_UNITS = f"{SYSTEMD_PATH}/unit"
_ANSWER_SEC = 5.0  # for the calls of `open`: more means a hung PID 1
_MOST_ROUTES = 4096  # headers that are known by heart: 0.3 KiB each
_FIRST_SERIAL = 0x40000000  # far from those that sd-bus has used on this connection
_BROKEN = (struct.error, IndexError, ValueError)

_OWNER_CHANGES = (
    f"type='signal',sender='{_BUS}',interface='{_BUS}',member='NameOwnerChanged',arg0='{_SYSTEMD}'"
)
_MATCHES = (
    *(
        f"type='signal',sender='{_SYSTEMD}',path='{SYSTEMD_PATH}',interface='{MANAGER}',member='{member}'"
        for member in ("JobRemoved", "UnitRemoved", "UnitNew", "Reloading")
    ),
    *(
        f"type='signal',sender='{_SYSTEMD}',path_namespace='{_UNITS}',interface='{PROPERTIES}',"
        f"member='PropertiesChanged',arg0='{_SYSTEMD}.{kind}'"
        for kind in ("Service", "Unit")
    ),
)
_OF_SERVICE = string(f"{_SYSTEMD}.Service")
_OF_UNIT = string(f"{_SYSTEMD}.Unit")


class _Kind(IntEnum):
    """What a message is, by its header."""

    FORGED = 0
    NOTHING = 1  # of systemd, and not wanted
    CHANGED = 2  # PropertiesChanged of a unit that is watched
    JOB_REMOVED = 3
    UNIT_REMOVED = 4
    UNIT_NEW = 5
    RELOADING = 6
    OWNER = 7
    REPLY = 8


_MEMBERS: dict[tuple[Any, Any, Any], _Kind] = {
    (MANAGER, "JobRemoved", "uoss"): _Kind.JOB_REMOVED,
    (MANAGER, "UnitRemoved", "so"): _Kind.UNIT_REMOVED,
    (MANAGER, "UnitNew", "so"): _Kind.UNIT_NEW,
    (MANAGER, "Reloading", "b"): _Kind.RELOADING,
}
_NOTHING = (_Kind.NOTHING, "")
_FORGED = (_Kind.FORGED, "")
_REPLY = (_Kind.REPLY, "")


class SystemSignals:
    """The signals of one service manager; `forged` counts what was sent to us by others."""

    def __init__(self, *, user: bool = False) -> None:
        self._user = user
        self._stream: Stream | None = None
        self._units: frozenset[str] = frozenset()
        self._paths: dict[str, str] = {}  # of the units that are watched: object path -> name
        self._routes: dict[bytes, tuple[_Kind, str]] = {}  # header -> what it is, and of which unit
        self._private = False  # no broker: nobody but systemd is at the other end
        self._owner = ""  # the unique name of systemd
        self._asked: dict[int, str] = {}  # calls without an answer yet: serial -> method
        self._serial = _FIRST_SERIAL
        self._is_reloading = False
        self._removed: dict[str, None] = {}  # units that a daemon-reload took down, and not yet up again
        self._halves: dict[str, bytes] = {}  # unit -> its last .Service signal, until .Unit follows
        self._told: dict[str, Seen] = {}  # the last word on each unit
        self._signals: list[Signal] = []  # to be drained
        self._is_renewing = False  # systemd came back, and has not yet granted us its signals
        self._is_lost = False  # "disconnected" was told
        self.forged = 0

    def open(self) -> int:
        self.close()
        # Without a bus a user's manager can be reached only by its own socket. For the system's that would
        # make PID 1 keep what we do not read at once, without a limit (see `bus`).
        bus = Bus(user=self._user, timeout_sec=int(_ANSWER_SEC))
        bus.fall_back = self._user
        bus.open()
        self._stream, self._private = Stream(bus), bus.private
        try:
            self._subscribe()
            self._signals.clear()  # whoever called reads the state after this; then the descriptor tells
            self._told.clear()
            return self._stream.fileno()
        except Disconnected as error:
            self.close()
            raise unreachable(f"cannot listen to systemd: {error}") from error
        except BaseException:
            self.close()
            raise

    def watch(self, units: Iterable[str]) -> None:
        self._units = frozenset(units)
        self._paths = {unit_path(unit): unit for unit in self._units}
        self._routes.clear()
        memories: tuple[dict[str, Any], ...] = (self._halves, self._told, self._removed)
        for memory in memories:
            for unit in memory.keys() - self._units:
                del memory[unit]

    def drain(self) -> list[Signal]:
        if self._stream is not None and not self._is_lost:
            try:
                self._receive(self._stream)
            except Disconnected:
                self._lose("disconnected")
                self._is_lost = True
        signals, self._signals = self._signals, []
        return signals

    def close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()
        self._owner, self._is_renewing, self._is_lost = "", False, False
        self._asked.clear()
        self._routes.clear()
        self._signals.clear()
        self._forget()

    # The subscription

    def _subscribe(self) -> None:
        """Ask for everything, and return when it was granted."""
        if not self._private:
            # In this order: a change of the owner after his name was asked for is in the stream behind it.
            self._call("AddMatch", _OWNER_CHANGES)
            self._call("GetNameOwner", _SYSTEMD)
            for match in _MATCHES:
                self._call("AddMatch", match)
        self._call("Subscribe")
        deadline = time.monotonic() + _ANSWER_SEC
        assert self._stream is not None
        while self._asked:
            poll = select.poll()
            poll.register(self._stream, select.POLLIN)
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise Disconnected(f"no answer to {', '.join(self._asked.values())}")
            self._receive(self._stream)

    def _call(self, method: str, *strings: str) -> None:
        assert self._stream is not None
        self._serial += 1
        self._asked[self._serial] = method
        whom = (_SYSTEMD, SYSTEMD_PATH, MANAGER) if method == "Subscribe" else (_BUS, DBUS_PATH, _BUS)
        self._stream.send(call(self._serial, *whom, method, *strings))

    def _answered(self, message: Message) -> None:
        fields = header(message.fields)
        method = self._asked.pop(fields[REPLY])
        error = str(fields.get(ERROR_NAME, ""))
        if error and not error.endswith(".AlreadySubscribed"):
            raise Disconnected(f"{method}: {error}")
        if method == "GetNameOwner":
            self._owner = str(read("s", message.data[message.body : message.end], 0)[0])
        elif method == "Subscribe" and self._is_renewing:
            self._is_renewing = False
            self._lose("systemd re-executed itself")

    # What comes

    def _receive(self, stream: Stream) -> None:
        routes = self._routes
        for message in stream.receive():
            kind, unit = routes.get(message.fields) or self._route(message)
            if kind is _Kind.NOTHING:
                continue
            if kind is _Kind.FORGED:
                self.forged += 1
            elif message.is_cut:
                self._lose("overflow")
            else:
                try:
                    self._take(kind, unit, message)
                except _BROKEN:
                    self._lose("unreadable")
        self.forged += stream.foreign
        stream.foreign = 0

    def _take(self, kind: _Kind, unit: str, message: Message) -> None:
        if kind is _Kind.CHANGED:
            self._changed(unit, message.data[message.body : message.end])
        elif kind is _Kind.UNIT_NEW:
            if self._removed:
                self._removed.pop(_strings(message)[0], None)
        elif kind is _Kind.UNIT_REMOVED:
            self._unit_removed(_strings(message)[0])
        elif kind is _Kind.JOB_REMOVED:
            number = LENGTH.unpack_from(message.data, message.body)[0]
            _path, unit, result = _strings(message, LENGTH.size)
            if unit in self._units:
                self._signals.append(JobRemoved(number, unit, result))
        elif kind is _Kind.RELOADING:
            self._is_reloading = bool(LENGTH.unpack_from(message.data, message.body)[0])
            if not self._is_reloading:
                removed, self._removed = self._removed, {}
                for unit in removed:
                    self._gone(unit)
        elif kind is _Kind.OWNER:
            self._owner = _strings(message)[2]
            self._routes.clear()
            self._forget()
            if self._owner:  # it has gone, and come again: what it told meanwhile was told to nobody
                self._is_renewing = True
                self._call("Subscribe")
        else:
            self._answered(message)

    def _changed(self, unit: str, body: bytes) -> None:
        if body.startswith(_OF_SERVICE):
            self._halves[unit] = body
        elif body.startswith(_OF_UNIT):
            service = self._halves.pop(unit, b"")
            if not service and unit.endswith(".service"):
                return  # we began to listen between the two, and the state is read after that
            new = seen(unit, service, body)
            if self._told.get(unit) != new:  # most of what systemd tells it has told before
                self._told[unit] = new
                self._signals.append(new)

    def _unit_removed(self, unit: str) -> None:
        # What is up is not unloaded: then systemd 252 is about to re-execute itself, and says nothing else.
        told = self._told.get(unit)
        if told is None or told.active != "inactive":
            return
        if self._is_reloading:
            self._removed[unit] = None
        else:
            self._gone(unit)

    def _gone(self, unit: str) -> None:
        self._halves.pop(unit, None)
        self._told.pop(unit, None)
        self._signals.append(Gone(unit))

    def _lose(self, why: str) -> None:
        self._forget()
        self._signals.append(Lost(why))

    def _forget(self) -> None:
        self._is_reloading = False
        self._removed.clear()
        self._halves.clear()
        self._told.clear()

    def _route(self, message: Message) -> tuple[_Kind, str]:
        """Read a header: what the message is and, of a change, of which unit.

        PID 1 sends the same header again and again, byte for byte: it is read once.
        """
        try:
            fields = header(message.fields)
        except _BROKEN:
            return _FORGED
        sender = fields.get(SENDER, "")
        if message.kind in (RETURN, ERROR):
            ours = self._private or sender in (_BUS, self._owner)
            return _REPLY if ours and fields.get(REPLY) in self._asked else _FORGED
        if message.kind != SIGNAL:
            return _FORGED
        where = (fields.get(INTERFACE), fields.get(MEMBER), fields.get(SIGNATURE))
        route = _NOTHING
        if sender == _BUS and not self._private:
            if where == (_BUS, "NameOwnerChanged", "sss"):
                route = (_Kind.OWNER, "")
        elif not self._private and (not self._owner or sender != self._owner):
            return _FORGED
        elif where == (PROPERTIES, "PropertiesChanged", "sa{sv}as"):
            unit = self._paths.get(fields.get(PATH, ""))
            if unit is not None:
                route = (_Kind.CHANGED, unit)
        elif where in _MEMBERS:
            route = (_MEMBERS[where], "")
        if len(self._routes) >= _MOST_ROUTES:
            self._routes.clear()
        self._routes[message.fields] = route
        return route


def _strings(message: Message, skip: int = 0) -> list[str]:
    """Return the strings that a body consists of."""
    data, at, found = message.data[message.body : message.end], skip, []
    while at < len(data):
        at += -at % 4
        value, at = read("s", data, at)
        found.append(str(value))
    return found
