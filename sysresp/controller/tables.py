"""The tables of the ledger, and how the controller's nouns become their rows and come back.

Owns the schema, its history and both directions of the conversion; opens no file. Columns are named as the
fields of `events.Exit` and `events.Note`, so that the file can be read with sqlite3(1) alone. Rules: a
change of the schema is a new entry of `STEPS`, never an edit of one that was released; what comes back from
the file is judged value by value, because a disk may have changed it and its owner may be another user.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from enum import StrEnum
from math import isnan
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

from sysresp.controller import counters
from sysresp.controller.events import Exit, Fate, Member, Memory, Note, Roster, UnitMemory, Wait

FILE = "ledger.db"
"""Its name in the controller's StateDirectory (`reconcile.layout.controller_dirs`)."""

APPLICATION = 0x73797372
"""PRAGMA application_id, "sysr": file(1) and we know the file by it."""

STEPS = (
    """
    CREATE TABLE exit (
        id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used again, so that a reader can go on after one
        at REAL NOT NULL,                      -- "when", or the time of writing if that is unknown
        unit TEXT NOT NULL,
        invocation TEXT NOT NULL,
        "when" REAL NOT NULL,
        result TEXT NOT NULL,
        exec_code INTEGER NOT NULL,
        exec_status INTEGER NOT NULL,
        fate TEXT NOT NULL,
        retry_at REAL NOT NULL,
        because TEXT NOT NULL,
        attempt INTEGER NOT NULL,
        uptime_sec REAL NOT NULL,
        memory_peak INTEGER NOT NULL,
        generation INTEGER NOT NULL,
        source TEXT NOT NULL
    );
    CREATE UNIQUE INDEX exit_run ON exit (invocation, unit);
    CREATE INDEX exit_unit ON exit (unit, at);
    CREATE INDEX exit_at ON exit (at);
    CREATE TABLE note (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at REAL NOT NULL,
        kind TEXT NOT NULL,
        unit TEXT NOT NULL,
        text TEXT NOT NULL,
        key TEXT NOT NULL
    );
    CREATE UNIQUE INDEX note_key ON note (kind, unit, key) WHERE key != '';
    CREATE INDEX note_unit ON note (unit, at);
    CREATE INDEX note_at ON note (at);
    CREATE TABLE memory (unit TEXT PRIMARY KEY, fields TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE error (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at REAL NOT NULL,
        traceback TEXT NOT NULL,
        environment TEXT NOT NULL,             -- JSON object
        events TEXT NOT NULL                   -- JSON array of text, the last one last
    );
    """,
    """
    CREATE TABLE incident (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at REAL NOT NULL,                      -- when it was opened
        resolved REAL NOT NULL,                -- 0: it is not over
        root TEXT NOT NULL,                    -- the unit that the others depend on
        failures INTEGER NOT NULL,
        fields TEXT NOT NULL                   -- JSON object: all of it
    );
    CREATE INDEX incident_at ON incident (at);
    CREATE INDEX incident_open ON incident (id) WHERE resolved = 0;
    CREATE TABLE message (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at REAL NOT NULL,                      -- when it was made
        key TEXT NOT NULL,
        receiver TEXT NOT NULL,                -- PROJECT/NAME
        incident INTEGER NOT NULL,
        kind TEXT NOT NULL,
        root TEXT NOT NULL,
        due REAL NOT NULL,                     -- not before
        body TEXT NOT NULL,                    -- JSON object: what is sent
        state TEXT NOT NULL,                   -- queued | delivered | failed
        tries INTEGER NOT NULL,
        tried REAL NOT NULL,                   -- when it was last
        why TEXT NOT NULL                      -- what went wrong then
    );
    CREATE UNIQUE INDEX message_key ON message (receiver, key);
    CREATE INDEX message_queued ON message (id) WHERE state = 'queued';
    CREATE INDEX message_at ON message (at);
    """,
    counters.STEP,
)
"""What leads from each version of the schema (PRAGMA user_version) to the next."""

BAD = (ValueError, TypeError, OverflowError, RecursionError)
"""What comes out of fields that somebody, or a disk, has made up."""

WITH_INCIDENTS = 2
"""The first version that has incidents and messages."""

WITH_COUNTERS = 3
"""The first version that counts."""

CURSOR = ":cursor"
"""The name in `meta` under which the journal's cursor stands; no name of the loop's begins with a colon."""

_LATEST = 1e11  # the year 5138
_FIELDS = Exit._fields
_QUOTED = ", ".join(f'"{name}"' for name in _FIELDS)
_IS_NEWS = f"excluded.fate != '{Fate.UNKNOWN.value}'"
# What becomes of a field of a row that is there already; of the others, what is known stays.
_UPDATES = {
    "fate": f"CASE WHEN {_IS_NEWS} THEN excluded.fate ELSE fate END",
    "retry_at": f"CASE WHEN {_IS_NEWS} THEN excluded.retry_at ELSE retry_at END",
    "because": f"CASE WHEN {_IS_NEWS} THEN excluded.because ELSE because END",
    "at": 'CASE WHEN "when" = 0 AND excluded."when" != 0 THEN excluded."when" ELSE at END',
    "exec_status": "CASE WHEN exec_code = 0 THEN excluded.exec_status ELSE exec_status END",
    "source": "CASE WHEN source = 'count' THEN excluded.source ELSE source END",
    **{name: f"CASE WHEN {name} = '' THEN excluded.{name} ELSE {name} END" for name in ("result",)},
    **{
        name: f'CASE WHEN "{name}" = 0 THEN excluded."{name}" ELSE "{name}" END'
        for name in ("when", "exec_code", "attempt", "uptime_sec", "memory_peak", "generation")
    },
}
_LATE_UPDATES = {  # told long after: what was said of it meanwhile stands
    name: f"CASE WHEN fate = '{Fate.UNKNOWN.value}' THEN excluded.{name} ELSE {name} END"
    for name in ("fate", "retry_at", "because")
}


def _put(updates: Mapping[str, str]) -> str:
    return (
        f"INSERT INTO exit (at, {_QUOTED}) VALUES (?{', ?' * len(_FIELDS)}) "
        "ON CONFLICT (invocation, unit) DO UPDATE SET "
        + ", ".join(f'"{name}" = {value}' for name, value in updates.items())
    )


PUT_EXIT, PUT_LATE = _put(_UPDATES), _put(_UPDATES | _LATE_UPDATES)
PUT_NOTE = "INSERT OR IGNORE INTO note (at, kind, unit, text, key, amount) VALUES (?, ?, ?, ?, ?, ?)"
PUT_MEMORY = "INSERT OR REPLACE INTO memory (unit, fields) VALUES (?, ?)"
DROP_MEMORY = "DELETE FROM memory WHERE unit = ?"
PUT_META = "INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)"
PUT_ERROR = "INSERT INTO error (at, traceback, environment, events) VALUES (?, ?, ?, ?)"
EXITS = f"SELECT id, at, {_QUOTED} FROM exit"
NOTES = "SELECT id, at, kind, unit, text, key FROM note"


Rows = tuple[str, list[tuple[Any, ...]]]
"""A statement, and the values of each row that it is for."""


class Stored(NamedTuple):
    """What the controller wrote when it last did."""

    units: dict[str, UnitMemory]
    meta: dict[str, str]
    cursor: str  # of the journal; "" if there is none yet

    def memory(self, boot: str) -> Memory:
        """Return the memory, of whatever boot that was; its roster is what it knows units of."""
        return Memory(
            boot=self.meta.get("boot", boot),
            units=self.units,
            roster=Roster({unit: Member(unit) for unit in self.units}),
            # Else what blocked units wait for is forgotten with the roster that does not have it.
            blocked=frozenset(name for name, unit in self.units.items() if unit.wait is Wait.BLOCKED),
        )


class LedgerTrouble(Exception):
    """The ledger cannot be read or written now; nothing of what was to be written is in it."""

    def __init__(self, why: str, *, is_new: bool = False, stored: Stored | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.is_new = is_new  # what was in it is gone: commit all that you remember next, not the changes
        self.stored = stored or Stored({}, {}, "")  # from `open`: what could be read nevertheless


class LedgerNewer(LedgerTrouble):
    """A newer sysresp made the file, and this one must not touch it."""


class Told(NamedTuple):
    """One line of the ledger."""

    id: int  # grows; each kind counts for itself
    at: float  # when it was; for an exit at an unknown time, when it was written
    what: Exit | Note


def text(value: str) -> str:
    """Return the text in a form that the file takes: a lone surrogate is no UTF-8."""
    return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()


def decoded(value: bytes) -> str:
    """Return text of the file: a disk may have made something else of it (`Connection.text_factory`)."""
    return value.decode("utf-8", "replace")


def _value(value: Any) -> Any:
    if isinstance(value, str):
        return text(value)
    if isinstance(value, float):
        return 0.0 if isnan(value) else value  # SQLite stores NaN as NULL
    return max(-(2**63), min(value, 2**63 - 1))


def of_exit(one: Exit, now: float) -> tuple[Any, ...]:
    """Return the values of `PUT_EXIT`."""
    return (one.when or now, *map(_value, one))


def of_note(one: Note, now: float) -> tuple[Any, ...]:
    """Return the values of `PUT_NOTE`."""
    words = map(text, (one.kind, one.unit, one.text, one.key))
    return (one.when or now, *words, _value(one.amount))


def of_memory(memory: UnitMemory) -> str:
    """Return the fields that differ from the default, as JSON."""
    fields = zip(UnitMemory._fields, memory, _FRESH, strict=True)
    return json.dumps({name: have for name, have, usual in fields if have != usual}, separators=(",", ":"))


def to_exit(row: tuple[Any, ...]) -> Told:
    """Return what a row of `EXITS` says."""
    if tuple(map(type, row)) == _KINDS:  # as good as always, and in a third of the time
        number, at, *values = row
        fate = _FATES.get(values[_FATE])
        if (
            fate is not None
            and 0 <= at <= _LATEST
            and 0 <= values[_WHEN] <= _LATEST
            and 0 <= values[_RETRY_AT] <= _LATEST
            and 0 <= values[_UPTIME] <= _LATEST
        ):
            values[_FATE] = fate
            return Told(number, at, Exit._make(values))
    number, at, *values = row
    fields = dict(zip(_FIELDS, values, strict=True))
    fields["fate"] = _FATES.get(fields["fate"], Fate.UNKNOWN)
    return Told(int(number), _seconds(at), Exit(**{n: _typed(v, _EXIT[n]) for n, v in fields.items()}))


def to_note(row: tuple[Any, ...]) -> Told:
    """Return what a row of `NOTES` says."""
    number, at, kind, unit, words, key = row
    return Told(int(number), _seconds(at), Note(str(kind), str(unit), str(words), _seconds(at), str(key)))


def to_memory(fields: str) -> UnitMemory:
    """Return the memory of which `of_memory` made this; ValueError if it is none.

    Fields of a newer version are left aside, a field that this version has and the file has not is fresh.
    """
    raw = json.loads(fields)
    if not isinstance(raw, dict):
        raise ValueError("no object")  # noqa: TRY004 - callers ask for one kind of error
    return UnitMemory(**{n: _remembered(n, raw[n]) for n in UnitMemory._fields if n in raw})


def _remembered(name: str, value: Any) -> Any:
    """Return the value of a field of the memory, by the type that the field is declared with."""
    kind = _MEMORY[name]
    if kind is float and isinstance(value, (int, float)):
        return _seconds(value)
    if get_origin(kind) is tuple and isinstance(value, list):
        return tuple(_seconds(float(item)) if get_args(kind)[0] is float else str(item) for item in value)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return kind(value)
    if type(value) not in (get_args(kind) or (kind,)):
        raise ValueError(f"{name} cannot be {value!r:.40}")
    return value


def _typed(value: Any, usual: Any) -> Any:
    """Return a value in its field's own type; the default where the file has something else."""
    if isinstance(usual, float):
        return _seconds(value)
    return value if type(value) is type(usual) or isinstance(value, Fate) else usual


def _seconds(value: Any) -> float:
    """Return a time or a length of time; 0 for what no clock says, and nobody could show."""
    return float(value) if isinstance(value, (int, float)) and 0 <= value <= _LATEST else 0.0


_FRESH = UnitMemory()
_MEMORY = get_type_hints(UnitMemory)
_EXIT: Mapping[str, Any] = Exit(unit="", invocation="")._asdict()
_FATES = {fate.value: fate for fate in Fate}
_KINDS = (int, float, *(str if isinstance(usual, str) else type(usual) for usual in _EXIT.values()))
_FATE, _WHEN, _RETRY_AT, _UPTIME = map(_FIELDS.index, ("fate", "when", "retry_at", "uptime_sec"))


def stored(db: sqlite3.Connection) -> tuple[Stored, list[str]]:
    """Return everything that the controller remembers, and the units of which the memory cannot be read."""
    units = {}
    bad = []
    for unit, fields in db.execute("SELECT unit, fields FROM memory"):
        try:
            units[str(unit)] = to_memory(fields)
        except BAD:
            bad.append(str(unit))
    meta = {str(name): str(value) for name, value in db.execute("SELECT name, value FROM meta")}
    cursor = meta.pop(CURSOR, "")
    return Stored(units, meta, cursor), bad
