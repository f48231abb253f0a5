"""Incidents and messages as rows of the ledger, and back.

Owns the conversion, as `tables` does for exits and notes; the schema is there. Opens no file. Rule: what
comes back from the file is judged value by value; a row that cannot be read is left aside, since a
controller that does not start is worse than an incident that is forgotten.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from sysresp.controller import tables
from sysresp.controller.events import Exit
from sysresp.controller.incidents import Failure, Incident, Open, Part, Told, exit_words
from sysresp.controller.tables import EXITS, Rows, text, to_exit
from sysresp.controller.telling import HOUR_SEC, Message, Sent, sent_key

PUT_INCIDENT = (
    "INSERT OR REPLACE INTO incident (id, at, resolved, root, failures, fields) VALUES (?, ?, ?, ?, ?, ?)"
)
PUT_REASON = "INSERT OR IGNORE INTO incident_reason (incident, reason, root, at) VALUES (?, ?, ?, ?)"
PUT_MESSAGE = (
    "INSERT OR IGNORE INTO message (key, receiver, incident, kind, root, at, due, body, state, tries, tried,"
    " why) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'queued', 0, 0, '')"
)
PUT_VERDICT = "UPDATE message SET state = ?, tries = ?, tried = ?, why = ? WHERE receiver = ? AND key = ?"
MESSAGES = "SELECT key, receiver, incident, kind, root, at, due, body, state, tries, tried, why FROM message"
INCIDENTS = "SELECT fields FROM incident"
BAD = (*tables.BAD, KeyError, AttributeError)
MOST_RECENT = 2000  # failures that are looked at for flapping, at the start


class Verdict(NamedTuple):
    """What became of a try to deliver a message."""

    state: str  # queued | delivered | failed
    tries: int
    tried: float  # seconds since the epoch
    why: str
    receiver: str
    key: str


class Queued(NamedTuple):
    """A message, and what has become of it so far."""

    message: Message
    state: str = "queued"
    tries: int = 0
    tried: float = 0.0
    why: str = ""


class StoredAlarm(NamedTuple):
    """What the controller wrote of incidents."""

    known: Open
    sent: Sent
    queued: tuple[Queued, ...]  # in order


def statements(
    incidents: Mapping[int, Incident], messages: Iterable[Message], verdicts: Iterable[Verdict]
) -> Sequence[Rows]:
    """Return what stores these."""
    whys = [
        (one.id, text(why), text(one.root), one.opened)
        for one in incidents.values()
        for why in one.reasons()
    ]
    return (
        (PUT_INCIDENT, [_of_incident(one) for one in incidents.values()]),
        (PUT_REASON, whys),
        (PUT_MESSAGE, [tuple(map(_plain, one)) for one in messages]),
        (PUT_VERDICT, [tuple(map(_plain, one)) for one in verdicts]),
    )


def _plain(value: Any) -> Any:
    return text(value) if isinstance(value, str) else value


def _of_incident(one: Incident) -> tuple[Any, ...]:
    fields = one._asdict() | {
        "parts": [part._asdict() for part in one.parts],
        "told": {name: told._asdict() for name, told in one.told.items()},
    }
    values = json.dumps(fields, separators=(",", ":"))
    return (one.id, one.opened, one.resolved, text(one.root), one.failures(), values)


def to_incident(fields: str) -> Incident:
    """Return the incident of these fields; one of `BAD` if it is none."""
    raw = json.loads(fields)
    parts = tuple(_made(part, Part(unit="")) for part in raw["parts"])
    told = {str(name): _made(one, Told()) for name, one in raw.get("told", {}).items()}
    incident: Incident = _made(raw, Incident(0, "", 0.0))
    return incident._replace(parts=parts, told=told)


def _made(raw: Any, usual: Any) -> Any:
    """Return a tuple of the kind of `usual`, with each field of its own type."""
    values: dict[str, Any] = {}
    for name, have in usual._asdict().items():
        value = raw.get(name, have)
        if isinstance(have, tuple):
            values[name] = tuple(str(item) for item in value if isinstance(item, str))
        elif isinstance(have, float) and isinstance(value, (int, float)):
            values[name] = float(value)
        elif isinstance(value, type(have)):
            values[name] = value
        else:
            raise TypeError(f"{name} cannot be {value!r:.40}")
    return type(usual)(**values)


def incidents(db: sqlite3.Connection, more: str = "", values: Sequence[Any] = ()) -> list[Incident]:
    """Return the incidents that the rest of the statement chooses."""
    found = []
    for (fields,) in db.execute(f"{INCIDENTS} {more}", values):
        with suppress(*BAD):
            found.append(to_incident(fields))
    return found


def messages(db: sqlite3.Connection, more: str = "", values: Sequence[Any] = ()) -> list[Queued]:
    """Return the messages that the rest of the statement chooses."""
    found = []
    for row in db.execute(f"{MESSAGES} {more}", values):
        key, receiver, incident, kind, root, at, due, body, state, tries, tried, why = row
        with suppress(*BAD):
            message = Message(
                *(str(key), str(receiver), int(incident), str(kind), str(root)),
                *(float(at), float(due), str(body)),
            )
            found.append(Queued(message, str(state), int(tries), float(tried), str(why)))
    return found


def stored_alarm(db: sqlite3.Connection) -> StoredAlarm | None:
    """Return everything that the controller remembers of incidents, None if there is nothing."""
    still = {one.id: one for one in incidents(db, "WHERE resolved = 0 ORDER BY id")}
    of = {unit: number for number, one in still.items() for unit in one.units()}
    highest = db.execute("SELECT max(seq) FROM sqlite_sequence WHERE name = 'incident'").fetchone()[0]
    newest = float(db.execute("SELECT max(at) FROM message").fetchone()[0] or 0.0)
    sent: dict[str, tuple[float, ...]] = {}
    for one in messages(db, "WHERE at > ? ORDER BY at", (newest - HOUR_SEC,)):
        key = sent_key(one.message.receiver, one.message.root)
        sent[key] = (*sent.get(key, ()), one.message.at)
    queued = tuple(messages(db, "WHERE state = 'queued' ORDER BY id"))
    known = Open(still, of, _recent(db), int(highest or 0) + 1)
    return None if known == Open() else StoredAlarm(known, sent, queued)


def _recent(db: sqlite3.Connection) -> dict[str, tuple[Failure, ...]]:
    """Return the last failures of each unit, since the end of its last incident."""
    over: dict[str, float] = {}
    for incident in incidents(db, "WHERE resolved != 0 ORDER BY id DESC LIMIT 200"):
        for unit in incident.units():
            over[unit] = max(over.get(unit, 0.0), incident.resolved)
    found: dict[str, tuple[Failure, ...]] = {}
    rows = db.execute(f"{EXITS} WHERE attempt > 0 ORDER BY id DESC LIMIT ?", (MOST_RECENT,)).fetchall()
    for row in reversed(rows):
        told = to_exit(row)
        if isinstance(one := told.what, Exit) and told.at > over.get(one.unit, 0.0):
            failure = Failure(told.at, one.invocation, exit_words(one))
            found[one.unit] = (*found.get(one.unit, ()), failure)[-1000:]
    return found
