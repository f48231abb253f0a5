"""A `Seen` of the two signals by which PID 1 tells a change of a unit.

Owns the table of which property is which field, and the finding of it in the message. A change carries some
40 properties, of which 13 are wanted: reading all takes ten times as long. Pure, and never raises for what
systemd may leave out. The rule: a property is found by its name and its type as they stand in the message.
No value that a service can set (its status text) may look like this, since D-Bus has no string with a NUL in
it, and no type stands behind a value.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

from sysresp.ports import Seen
from sysresp.systemd.messages import signature, string

_UINT, _INT, _TIME = struct.Struct("=I"), struct.Struct("=i"), struct.Struct("=Q")
_words: dict[bytes, str] = {}  # the few states and results, once in memory


def _word(body: bytes, at: int) -> str:
    raw = body[at + 4 : at + 4 + _UINT.unpack_from(body, at)[0]]
    word = _words.get(raw)
    if word is None:
        word = raw.decode(errors="replace")
        if len(_words) < 256:
            _words[raw] = word
    return word


def _uint(body: bytes, at: int) -> int:
    return _UINT.unpack_from(body, at)[0]  # type: ignore[no-any-return]


def _int(body: bytes, at: int) -> int:
    return _INT.unpack_from(body, at)[0]  # type: ignore[no-any-return]


def _time(body: bytes, at: int) -> float:
    return _TIME.unpack_from(body, at)[0] / 1e6  # type: ignore[no-any-return]


def _hex(body: bytes, at: int) -> str:
    return body[at + 4 : at + 4 + _UINT.unpack_from(body, at)[0]].hex()


_TYPES: dict[str, tuple[int, Callable[[bytes, int], Any]]] = {  # type -> its alignment, how it is read
    "s": (4, _word),
    "u": (4, _uint),
    "i": (4, _int),
    "t": (8, _time),
    "ay": (4, _hex),
    "(uo)": (8, _uint),
}
_PROPERTIES = {  # field of `Seen` -> interface, property, type
    "active": ("Unit", "ActiveState", "s"),
    "sub": ("Unit", "SubState", "s"),
    "invocation": ("Unit", "InvocationID", "ay"),
    "result": ("Service", "Result", "s"),
    "job": ("Unit", "Job", "(uo)"),
    "n_restarts": ("Service", "NRestarts", "u"),
    "main_pid": ("Service", "MainPID", "u"),
    "exec_code": ("Service", "ExecMainCode", "i"),
    "exec_status": ("Service", "ExecMainStatus", "i"),
    "started": ("Service", "ExecMainStartTimestampMonotonic", "t"),
    "ended": ("Service", "ExecMainExitTimestampMonotonic", "t"),
    "ended_at": ("Service", "ExecMainExitTimestamp", "t"),
    "changed": ("Unit", "StateChangeTimestampMonotonic", "t"),
}


class _Field(NamedTuple):
    """A field of `Seen`."""

    half: int  # in which of the two signals it is
    mark: bytes
    align: int
    value: Callable[[bytes, int], Any]
    default: Any


_FIELDS = [
    _Field(interface == "Unit", string(name) + signature(kind), *_TYPES[kind], Seen._field_defaults[field])
    for field, (interface, name, kind) in _PROPERTIES.items()
]
assert tuple(_PROPERTIES) == Seen._fields[1:-1]


def seen(unit: str, service: bytes, general: bytes) -> Seen:
    """Make a `Seen` of the bodies of the two signals; of a property that is not there, the default."""
    values = [unit]
    halves = (service, general)
    for half, mark, align, value, default in _FIELDS:
        body = halves[half]
        at = body.find(mark)
        if at < 0:
            values.append(default)
        else:
            at += len(mark)
            values.append(value(body, at + -at % align))
    return Seen._make((*values, "loaded"))
