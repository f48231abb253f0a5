"""What the ledger has counted: numbers that only grow, whatever becomes of the rows they are of.

Owns the third step of the schema, and the reading of it. The counting is done by triggers, so that a number
moves in the transaction of its row, once, whoever writes it; the controller itself knows nothing of it. Rows
grow old and are pruned, and their numbers stay; those of a unit that nobody knows any more go with its last
row. Opens no file, never decides.

What a row says may become known later (an exit of which only the count was known gets its result): it is
counted when that is known first, and never twice, since what is known of a row stays.

Rule: nothing is ever subtracted. A counter that falls is a restart to whoever watches it.
"""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

LAG_SEC = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the buckets of the event lag; part of the schema, so never changed."""

BEYOND = "+Inf"
MOST = 50_000
"""Numbers that are read: the ledger is another user's, who may have put in any."""


class Count(NamedTuple):
    """One number."""

    name: (
        str  # exits | failures | gave-up | sources | lag | lag-sum | notes | amounts | incidents | messages
    )
    of: str  # a unit; a receiver, for messages; "": of the controller
    label: str  # result, source, bucket, kind, reason, state
    value: float


_FAILED = (
    "{0}.attempt > 0 OR ({0}.result NOT IN ('', 'success', 'exec-condition')"
    " AND {0}.fate NOT IN ('stopped by operator', 'stopped by sysresp'))"
)
_LAG = "max(0.0, (julianday('now') - 2440587.5) * 86400.0 - NEW.\"when\")"
_UP_TO = " ".join(f"WHEN {_LAG} <= {bound} THEN '{bound}'" for bound in LAG_SEC)
_BUCKET = f"CASE {_UP_TO} ELSE '{BEYOND}' END"


def _add(values: str, more: str = "WHERE true") -> str:
    """Return the statement that adds these (name, of, label, value, at)."""
    return (
        f"INSERT INTO counter SELECT {values} {more} ON CONFLICT (name, of, label)"
        " DO UPDATE SET value = value + excluded.value, at = max(at, excluded.at);"
    )


_FAILURE = _add("'failures', NEW.unit, iif(NEW.result = '', 'unknown', NEW.result), 1, NEW.at")
_GAVE_UP = _add("'gave-up', NEW.unit, '', 1, NEW.at")

STEP = f"""
    ALTER TABLE note ADD COLUMN amount REAL NOT NULL DEFAULT 0;  -- of a gap: its seconds
    CREATE TABLE counter (
        name TEXT NOT NULL,
        of TEXT NOT NULL,
        label TEXT NOT NULL,
        value REAL NOT NULL,
        at REAL NOT NULL,                      -- of the last row that it counted
        PRIMARY KEY (name, of, label)
    ) WITHOUT ROWID;
    CREATE TABLE incident_reason (             -- each reason of an incident is counted once
        incident INTEGER NOT NULL,
        reason TEXT NOT NULL,
        root TEXT NOT NULL,                    -- as it was then
        at REAL NOT NULL,
        PRIMARY KEY (incident, reason)
    ) WITHOUT ROWID;
    {_add("'exits', unit, '', count(*), max(at)", "FROM exit GROUP BY unit")}
    {_add("'sources', '', source, count(*), max(at)", "FROM exit GROUP BY source")}
    {_add("'notes', '', kind, count(*), max(at)", "FROM note GROUP BY kind")}
    {_add("'messages', receiver, state, count(*), max(at)", "FROM message GROUP BY receiver, state")}
    {
    _add(
        "'messages', receiver, 'queued', count(*), max(at)",
        "FROM message WHERE state != 'queued' GROUP BY receiver",
    )
}
    {
    _add(
        "'failures', unit, iif(result = '', 'unknown', result), count(*), max(at)",
        f"FROM exit WHERE {_FAILED.format('exit')} GROUP BY unit, iif(result = '', 'unknown', result)",
    )
}
    {_add("'gave-up', unit, '', count(*), max(at)", "FROM exit WHERE fate = 'gave up' GROUP BY unit")}
    CREATE TRIGGER exit_counted AFTER INSERT ON exit BEGIN
        {_add("'exits', NEW.unit, '', 1, NEW.at")}
        {_add("'sources', '', NEW.source, 1, NEW.at")}
    END;
    CREATE TRIGGER exit_failed AFTER INSERT ON exit WHEN {_FAILED.format("NEW")} BEGIN {_FAILURE} END;
    CREATE TRIGGER exit_gave_up AFTER INSERT ON exit WHEN NEW.fate = 'gave up' BEGIN {_GAVE_UP} END;
    CREATE TRIGGER exit_lagged AFTER INSERT ON exit WHEN NEW.source = 'live' AND NEW."when" > 0 BEGIN
        {_add(f"'lag', '', {_BUCKET}, 1, NEW.at")}
        {_add(f"'lag-sum', '', '', {_LAG}, NEW.at")}
    END;
    CREATE TRIGGER exit_failed_late AFTER UPDATE ON exit
        WHEN ({_FAILED.format("NEW")}) AND NOT ({_FAILED.format("OLD")}) BEGIN {_FAILURE} END;
    CREATE TRIGGER exit_gave_up_late AFTER UPDATE ON exit
        WHEN NEW.fate = 'gave up' AND OLD.fate != 'gave up' BEGIN {_GAVE_UP} END;
    CREATE TRIGGER note_counted AFTER INSERT ON note BEGIN
        {_add("'notes', '', NEW.kind, 1, NEW.at")}
        {_add("'amounts', '', NEW.kind, NEW.amount, NEW.at", "WHERE NEW.amount > 0")}
    END;
    CREATE TRIGGER reason_counted AFTER INSERT ON incident_reason BEGIN
        {_add("'incidents', NEW.root, NEW.reason, 1, NEW.at")}
    END;
    CREATE TRIGGER message_queued AFTER INSERT ON message BEGIN
        {_add("'messages', NEW.receiver, 'queued', 1, NEW.at")}
    END;
    CREATE TRIGGER message_over AFTER UPDATE ON message
        WHEN NEW.state != OLD.state AND NEW.state != 'queued' BEGIN
        {_add("'messages', NEW.receiver, NEW.state, 1, NEW.tried")}
    END;
    """
"""What leads to the version of the schema that counts; what was in the ledger before is counted, too."""

PRUNE = (
    "DELETE FROM counter WHERE of != '' AND at <= ? AND of NOT IN (SELECT unit FROM memory)",
    "DELETE FROM incident_reason WHERE at <= ? AND incident NOT IN (SELECT id FROM incident)",
)
"""What lets go what is older than a time, and of what nobody knows any more."""


def read(db: sqlite3.Connection) -> list[Count]:
    """Return all numbers that are some."""
    rows = db.execute("SELECT name, of, label, value FROM counter ORDER BY name, of, label LIMIT ?", (MOST,))
    return [
        Count(str(name), str(of), str(label), float(value))
        for name, of, label, value in rows
        if isinstance(value, (int, float)) and 0 <= value < 1e300
    ]
