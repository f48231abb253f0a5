"""The ledger as anybody may read it, while the controller writes and when it does not run.

Owns the opening of a file that belongs to somebody else, and the questions that the command line asks of it.
Never writes a row. Two things make the opening long:

- A database in WAL mode wants a log and a shared index beside it, and a reader would make them, or fail
  because it may not. Where no log is, the controller is stopped, and the file is read as immutable: it is
  left as it was. If there is one and its index cannot be used, what was moved from the log is all there is.
- The directory belongs to the controller's unprivileged user, who may plant links in it. Root therefore
  reads with that user's rights (`_as_owner`): a link leads nowhere that its maker could not go himself, and
  no file of root's appears there.

Rule: every touch of the file is inside of `_as_owner`, since SQLite opens the log when it pleases.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from sysresp.controller import counters, tables
from sysresp.controller.counters import Count
from sysresp.controller.events import Exit, UnitMemory
from sysresp.controller.tables import LedgerNewer, LedgerTrouble, Stored, Told

if TYPE_CHECKING:
    from sysresp.controller.incident_rows import Queued, StoredAlarm
    from sysresp.controller.incidents import Incident

T = TypeVar("T")
_BUSY_SEC = 2.0


class Place(NamedTuple):
    """How far somebody has read."""

    exits: int = 0
    notes: int = 0


BEGIN = Place()


class Error(NamedTuple):
    """An error that ended the controller."""

    at: float
    traceback: str
    environment: str  # JSON object
    events: str  # JSON array


class Reader:
    """A ledger, opened for reading; LedgerTrouble from any method, LedgerNewer from the first."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._directory = os.path.dirname(path) or "."  # noqa: PTH120 - on the path of `status`
        self._db: sqlite3.Connection | None = None
        self._is_frozen = False  # opened as immutable: it is looked at anew each time
        self._version = -1

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            with _as_owner(self._directory), suppress(sqlite3.Error):
                db.close()

    def exits(
        self, units: Sequence[str] = (), *, since: float = 0.0, until: float = 0.0, limit: int = 0
    ) -> list[Exit]:
        """Return the newest exits of these units, or of all, oldest first."""
        found = self.told(units, since=since, until=until, limit=limit)
        return [told.what for told in found if isinstance(told.what, Exit)]

    def told(
        self, units: Sequence[str] = (), *, since: float = 0.0, until: float = 0.0, limit: int = 0
    ) -> list[Told]:
        """Return the same with when each was, or was written where that is unknown."""
        return self._told("exit", units, since=since, until=until, limit=limit)

    def events(
        self,
        units: Sequence[str] = (),
        *,
        kinds: Sequence[str] = (),
        since: float = 0.0,
        after: Place = BEGIN,
        limit: int = 0,
    ) -> tuple[list[Told], Place]:
        """Return the newest exits and notes after that place, oldest first, and the place to go on from.

        `kinds` are the kinds of notes that are meant, () is all.
        """
        found = [
            *self._told("exit", units, since=since, after=after.exits, limit=limit),
            *self._told("note", units, kinds, since=since, after=after.notes, limit=limit),
        ]
        exits = max((one.id for one in found if isinstance(one.what, Exit)), default=after.exits)
        notes = max((one.id for one in found if not isinstance(one.what, Exit)), default=after.notes)
        found.sort(key=lambda one: one.at)
        return (found[-limit:] if limit else found), Place(exits, notes)

    def notes(self, kind: str) -> list[Told]:
        """Return all notes of this kind, oldest first."""
        return self._told("note", (), (kind,))

    def count(self, unit: str, since: float) -> int:
        """Return how many exits of the unit there were since then."""
        found = self._rows("SELECT count(*) FROM exit WHERE unit = ? AND at >= ?", (unit, since))
        return int(found[0][0])

    def unit(self, name: str) -> UnitMemory | None:
        """Return what the controller remembers of the unit."""
        rows = self._rows("SELECT fields FROM memory WHERE unit = ?", (name,))
        with suppress(*tables.BAD):
            return tables.to_memory(rows[0][0]) if rows else None
        return None

    def remarkable(self) -> dict[str, UnitMemory]:
        """Return the memory of the units that wait, were stopped by somebody, or have a verdict of a probe.

        Of a thousand units that simply run, nothing is decoded: `status` asks this.
        """
        found = {}
        marks = " OR ".join(
            f"""fields LIKE '%"{name}":%'""" for name in ("wait", "is_stopped", "is_healthy")
        )
        for unit, fields in self._rows(f"SELECT unit, fields FROM memory WHERE {marks}"):
            with suppress(*tables.BAD):
                found[str(unit)] = tables.to_memory(fields)
        return found

    def last(self, unit: str) -> Exit | None:
        """Return the exit of the unit's last run that has ended, or else the newest."""
        known = self.unit(unit)
        run = "" if known is None else known.invocation if known.is_ended else known.previous
        rows = self._rows(f"{tables.EXITS} WHERE unit = ? AND invocation = ?", (unit, run)) if run else []
        told = [tables.to_exit(row) for row in rows] or self.told((unit,), limit=1)
        return told[0].what if told and isinstance(told[0].what, Exit) else None

    def stored(self) -> Stored:
        """Return everything that the controller remembers."""
        with _as_owner(self._directory), _translated(self._path):
            db = self._connected()
            db.execute("BEGIN")  # both tables as they were at one moment
            try:
                return tables.stored(db)[0]
            finally:
                db.execute("ROLLBACK")

    def errors(self, limit: int = 1) -> list[Error]:
        """Return the errors that ended the controller, the newest first."""
        sql = "SELECT at, traceback, environment, events FROM error ORDER BY id DESC LIMIT ?"
        return [Error(float(at), str(t), str(n), str(e)) for at, t, n, e in self._rows(sql, (limit,))]

    def incidents(self, more: str = "", values: Sequence[Any] = ()) -> list[Incident]:
        """Return the incidents that the rest of the statement chooses."""
        from sysresp.controller import incident_rows  # noqa: PLC0415 - not on the path of `status`

        return self._of_alarm(lambda db: incident_rows.incidents(db, more, values))

    def messages(self, more: str = "", values: Sequence[Any] = ()) -> list[Queued]:
        """Return the messages that the rest of the statement chooses."""
        from sysresp.controller import incident_rows  # noqa: PLC0415 - not on the path of `status`

        return self._of_alarm(lambda db: incident_rows.messages(db, more, values))

    def alarm(self) -> StoredAlarm | None:
        """Return everything that the controller remembers of incidents, None if there is nothing."""
        from sysresp.controller import incident_rows  # noqa: PLC0415 - not on the path of `status`

        found = self._of_alarm(lambda db: [incident_rows.stored_alarm(db)])
        return found[0] if found else None

    def counts(self) -> list[Count]:
        """Return everything that was counted; [] where nothing counts yet."""
        return self._of_version(tables.WITH_COUNTERS, counters.read)

    def meta(self, name: str) -> str:
        """Return one of the facts that the controller left, "" if it is not there."""
        found = self._rows("SELECT value FROM meta WHERE name = ?", (name,))
        return str(found[0][0]) if found else ""

    def _of_alarm(self, ask: Callable[[sqlite3.Connection], list[T]]) -> list[T]:
        return self._of_version(tables.WITH_INCIDENTS, ask)

    def _of_version(self, since: int, ask: Callable[[sqlite3.Connection], list[T]]) -> list[T]:
        with _as_owner(self._directory), _translated(self._path):
            db = self._connected()
            version = int(db.execute("PRAGMA user_version").fetchone()[0])
            return ask(db) if version >= since else []

    def has_changed(self) -> bool:
        """Return whether anything was written since the last call; True the first time."""
        if self._is_frozen:
            self.close()  # the controller may be back
        version = int(self._rows("PRAGMA data_version")[0][0])
        known, self._version = self._version, version
        return self._is_frozen or version != known

    def _told(
        self,
        table: str,
        units: Sequence[str],
        kinds: Sequence[str] = (),
        *,
        since: float = 0.0,
        until: float = 0.0,
        after: int = 0,
        limit: int = 0,
    ) -> list[Told]:
        conditions: list[tuple[str, list[Any]]] = []
        for column, wanted in (("unit", units), ("kind", kinds)):
            if wanted:
                conditions.append((f"{column} IN (?{', ?' * (len(wanted) - 1)})", list(wanted)))
        if since:
            conditions.append(("at >= ?", [since]))
        if until:
            conditions.append(("at < ?", [until]))
        if after:
            conditions.append(("id > ?", [after]))
        sql = tables.EXITS if table == "exit" else tables.NOTES
        if conditions:
            sql += " WHERE " + " AND ".join(words for words, _ in conditions)
        sql += " ORDER BY at DESC, id DESC" + (f" LIMIT {int(limit)}" if limit else "")
        values = [value for _, some in conditions for value in some]
        make = tables.to_exit if table == "exit" else tables.to_note
        return [make(row) for row in reversed(self._rows(sql, values))]

    def _rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with _as_owner(self._directory), _translated(self._path):
            db = self._connected()
            db.text_factory = str  # in C: a third of the time for 100,000 rows
            try:
                return db.execute(sql, values).fetchall()
            except sqlite3.OperationalError as error:
                if "decode" not in str(error):
                    raise
            finally:
                db.text_factory = tables.decoded
            return db.execute(sql, values).fetchall()

    def _connected(self) -> sqlite3.Connection:
        if self._db is None:
            self._db = self._connect()
        return self._db

    def _connect(self) -> sqlite3.Connection:
        """Open the file, with its log if there is one and that is possible, else as it is.

        Its owner may have put something else there: SQLite would follow a link, and wait at a pipe for ever.
        """
        for part in ("", "-wal", "-shm", "-journal"):
            with suppress(FileNotFoundError):
                if not stat.S_ISREG(os.lstat(self._path + part).st_mode):
                    raise LedgerTrouble(f"cannot read {self._path}: {self._path}{part} is no plain file")
        ways = ("mode=ro", "mode=ro&immutable=1")
        for how in ways if os.path.lexists(f"{self._path}-wal") else ways[1:]:
            self._is_frozen = how is ways[-1]
            uri = f"file:{_escaped(self._path)}?{how}"
            db = sqlite3.connect(uri, uri=True, timeout=_BUSY_SEC, isolation_level=None)
            try:
                db.text_factory = tables.decoded
                db.execute("PRAGMA trusted_schema = OFF")
                version = int(db.execute("PRAGMA user_version").fetchone()[0])
            except sqlite3.OperationalError:
                db.close()
                if self._is_frozen:
                    raise
                continue
            if version > len(tables.STEPS):
                db.close()
                raise LedgerNewer(
                    f"{self._path} was made by a newer sysresp (version {version} of the ledger)"
                )
            return db
        raise AssertionError("the loop returns or raises")


def _escaped(path: str) -> str:
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")


@contextmanager
def _translated(path: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise LedgerTrouble(f"cannot read {path}: {error}") from error
    except OSError as error:
        raise LedgerTrouble(f"cannot read {path}: {error.strerror}") from error


@contextmanager
def _as_owner(directory: str) -> Iterator[None]:
    """Have the rights of the directory's owner, if we are root and the directory is another user's.

    A process that changes its effective user cannot be traced or signalled by that user, and the saved one
    lets it come back.
    """
    owner = None
    if os.geteuid() == 0:
        with suppress(OSError):
            owner = os.stat(directory)  # noqa: PTH116 - its parents are root's own
    if owner is None or owner.st_uid == 0:
        yield
        return
    groups, group = os.getgroups(), os.getegid()
    try:
        os.setgroups([owner.st_gid])
        os.setegid(owner.st_gid)
        os.seteuid(owner.st_uid)
    except OSError as error:  # root without CAP_SETUID
        _restore(groups, group)
        raise LedgerTrouble(
            f"cannot take on the rights of the owner of {directory}: {error.strerror}"
        ) from error
    try:
        yield
    finally:
        _restore(groups, group)


def _restore(groups: list[int], group: int) -> None:
    os.seteuid(0)
    os.setegid(group)
    with suppress(PermissionError):
        os.setgroups(groups)
