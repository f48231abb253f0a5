"""The ledger: every exit of a managed unit exactly once, and the controller's memory, in one SQLite file.

Owns the writing. Rows, memory and the journal's cursor move in one transaction, everything or nothing, so a
controller that is killed at any instant finds them in step; `commit` may be repeated without harm. The file
is in WAL mode with synchronous=NORMAL, which is exact here: a process that dies loses nothing, and a power
cut takes at most the last transactions as a whole. Their cursor goes with their rows, and what they held is
read again from the journal (but for what journald itself had not yet written).

A full disk, a read-only one, another writer, an I/O error: `commit` raises `LedgerTrouble` and leaves the
file as it was; the caller keeps what it has and calls again, and the connection is made anew. A damaged file
is moved aside: a controller without a past is better than none. Never reads the journal, never decides.
Rule: nothing is written outside of `_transaction`.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress

from sysresp.controller import counters, tables
from sysresp.controller.events import Exit, Note, UnitMemory
from sysresp.controller.incident_rows import StoredAlarm, stored_alarm
from sysresp.controller.tables import FILE, LedgerNewer, LedgerTrouble, Rows, Stored

__all__ = ["FILE", "Ledger", "LedgerNewer", "LedgerTrouble", "Stored"]

KEPT_ASIDE = 2  # damaged files
KEPT_ERRORS = 20
PRUNABLE = (
    ("exit", "true"),
    ("note", "true"),
    ("incident", "resolved != 0"),
    ("message", "state != 'queued'"),
)
PRUNED = 500  # rows that one call of `prune` takes away: 5 ms
FREED = 256  # pages that it gives back to the file system
VARIABLES = ("LANG", "LC_ALL", "PATH", "PYTHONPATH", "XDG_RUNTIME_DIR", "STATE_DIRECTORY", "INVOCATION_ID")
"""What of the environment is recorded with an error: nothing that could hold a secret."""

_BUSY_SEC = 0.25  # another writer: the loop must not stand still for longer
_CHECK_SEC = 0.3  # looking for damage at the start ends after this: most of it is near the beginning
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_SETTINGS = (
    "PRAGMA synchronous = NORMAL",
    "PRAGMA wal_autocheckpoint = 256",  # 1 MB: the log stays small, and its room is kept for the next one
    "PRAGMA journal_size_limit = 4194304",  # ... unless somebody has read for long meanwhile
    "PRAGMA cache_size = -512",  # KB
    "PRAGMA temp_store = MEMORY",  # a full /tmp is none of our business
    "PRAGMA trusted_schema = OFF",
    "PRAGMA cell_size_check = ON",
)
_OLDEST = (  # the time up to which the oldest few lines are, of both kinds
    "SELECT max(at) FROM (SELECT at FROM (SELECT at FROM exit ORDER BY at LIMIT ?) UNION ALL "
    "SELECT at FROM (SELECT at FROM note ORDER BY at LIMIT ?) ORDER BY at LIMIT ?)"
)


class Ledger:
    """The one writer of a ledger. `open` it, then `commit`; after a trouble just `commit` again."""

    def __init__(self, path: str, *, steps: Sequence[str] = tables.STEPS) -> None:
        self._path = path
        self._steps = steps
        self.alarm: StoredAlarm | None = None  # what `open` found of incidents; None: nothing
        self._db: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None  # device and inode of what the caller's memory comes from
        self._is_made = False  # by the last `_connect`: an inode's number is used again at once
        self._aside = ""  # where a damaged file went, until that is told in the new one

    def open(self) -> Stored:
        """Open or make the file, and return what is in it; a damaged one is moved aside.

        LedgerTrouble if it cannot be written, with what could be read of it; LedgerNewer.
        """
        self.close()
        try:
            return self._open()
        except _Damaged:
            return self._open()  # it has been moved aside
        except LedgerNewer:
            raise
        except LedgerTrouble as trouble:
            trouble.stored = self._read_only()
            raise

    def _open(self) -> Stored:
        with _Guard(self):
            db = self._connect()
            found, unreadable = tables.stored(db)
            self.alarm = stored_alarm(db)
        if unreadable:
            names = ", ".join(unreadable)
            self.commit(notes=[Note("ledger", text=f"the memory of {names} was damaged, and is begun anew")])
        return found

    def commit(  # noqa: PLR0917 - the order in which the loop has them
        self,
        rows: Sequence[Exit] = (),
        notes: Sequence[Note] = (),
        units: Mapping[str, UnitMemory | None] = {},
        meta: Mapping[str, str] = {},
        cursor: str | None = None,
        when: float = 0.0,
        late: Sequence[Exit] = (),
        statements: Sequence[Rows] = (),
    ) -> None:
        """Write all of this, or raise LedgerTrouble and write nothing; to repeat it changes nothing.

        A row that is there keeps the details that it has, and takes those that it lacked and the newer fate
        (with `retry_at` and `because`), if that is known; one of `late` never changes a fate that is known.
        A note with a key is written once. None forgets the memory of a unit. `when` is now, in seconds since
        the epoch; 0: the clock is asked. `statements` are of `incident_rows`.
        """
        now = when or time.time()
        gone = [(tables.text(name),) for name, memory in units.items() if memory is None]
        kept = [(tables.text(n), tables.of_memory(m)) for n, m in units.items() if m is not None]
        pairs = [(tables.text(name), tables.text(value)) for name, value in meta.items()]
        if cursor is not None:
            pairs.append((tables.CURSOR, tables.text(cursor)))

        def write(db: sqlite3.Connection) -> None:
            for statement, values in (
                (tables.PUT_LATE, [tables.of_exit(row, now) for row in late]),
                (tables.PUT_EXIT, [tables.of_exit(row, now) for row in rows]),
                (tables.PUT_NOTE, [tables.of_note(note, now) for note in notes]),
                (tables.PUT_MEMORY, kept),
                (tables.DROP_MEMORY, gone),
                (tables.PUT_META, pairs),
                *statements,
            ):
                if values:
                    db.executemany(statement, values)

        self._transaction(write)

    def record_error(
        self, traceback: str, events: Iterable[str], environment: Mapping[str, str], when: float = 0.0
    ) -> None:
        """Write an error that ends the controller, with the last events and its harmless environment."""
        kept = {name: environment[name] for name in VARIABLES if name in environment}
        values = (
            when or time.time(),
            tables.text(traceback),
            json.dumps(kept),
            json.dumps(list(events)),
        )

        def write(db: sqlite3.Connection) -> None:
            db.execute(tables.PUT_ERROR, values)
            db.execute("DELETE FROM error WHERE id <= (SELECT max(id) FROM error) - ?", (KEPT_ERRORS,))

        self._transaction(write)

    def prune(self, keep_sec: float, keep_bytes: int, when: float) -> bool:
        """Take away some of the rows that are too old, or the oldest if the file is too large.

        Returns whether there is more to do: call again soon then. What systemd and the units do now is in
        the memory, which is never pruned.
        """
        more = False

        def write(db: sqlite3.Connection) -> None:
            nonlocal more
            taken = 0
            excess = _used(db) > keep_bytes
            oldest = db.execute(_OLDEST, (PRUNED,) * 3).fetchone()[0] if excess else None
            limit = when - keep_sec if oldest is None else max(when - keep_sec, oldest)
            for table, may_go in PRUNABLE:
                cut = db.execute(
                    f"DELETE FROM {table} WHERE id IN"
                    f" (SELECT id FROM {table} WHERE at <= ? AND {may_go} ORDER BY at LIMIT ?)",
                    (limit, PRUNED),
                )
                taken = max(taken, cut.rowcount)
            for statement in counters.PRUNE:
                db.execute(statement, (when - keep_sec,))
            more = taken == PRUNED or (excess and taken > 0 and _used(db) > keep_bytes)

        self._transaction(write)
        with _Guard(self):
            db = self._connected()
            free = int(db.execute("PRAGMA freelist_count").fetchone()[0])
            if free > FREED:  # some are worth keeping for the next rows
                db.execute(f"PRAGMA incremental_vacuum({FREED})").fetchall()
                more = more or free > 2 * FREED
        return more

    def close(self) -> None:
        """Close the file; whoever comes next finds no log beside it, unless somebody is reading."""
        db, self._db = self._db, None
        if db is not None:
            with suppress(sqlite3.Error):
                db.close()

    def _transaction(self, write: Callable[[sqlite3.Connection], None]) -> None:
        with _Guard(self):
            db = self._connected()
            db.execute("BEGIN IMMEDIATE")
            write(db)
            db.execute("COMMIT")

    def _connected(self) -> sqlite3.Connection:
        """Return the connection to the file that the caller knows; LedgerTrouble if another is there now."""
        if self._db is not None and _identity(self._path) != self._file:
            self.close()  # moved away under us: SQLite would go on writing to what nobody sees
        if self._db is not None:
            return self._db
        known = self._file
        db = self._connect()
        if known is not None and (self._is_made or known != self._file):
            raise _Another(f"{self._path} is not the file that it was")
        return db

    def _connect(self) -> sqlite3.Connection:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self._path, flags, 0o644)
        try:
            if os.fstat(descriptor).st_size == 0:
                os.fchmod(
                    descriptor, 0o644
                )  # whatever the umask: SQLite gives the same to the log beside it
        finally:
            os.close(descriptor)
        db = sqlite3.connect(self._path, timeout=_BUSY_SEC, isolation_level=None, check_same_thread=False)
        db.text_factory = tables.decoded
        self._db = db
        for setting in _SETTINGS:
            db.execute(setting).fetchall()
        self._check(db)
        self._is_made = self._migrate(db) == 0
        self._file = _identity(self._path)
        if self._aside:
            note = Note(
                "ledger", text=f"the ledger was damaged and begun anew; the old one is {self._aside}"
            )
            db.execute(tables.PUT_NOTE, tables.of_note(note, time.time()))
            self._aside = ""
        return db

    @staticmethod
    def _check(db: sqlite3.Connection) -> None:
        """Look for damage, for a moment; sqlite3.DatabaseError if there is some."""
        until = time.monotonic() + _CHECK_SEC
        db.set_progress_handler(lambda: time.monotonic() > until, 10_000)
        try:
            found = db.execute("PRAGMA quick_check(1)").fetchall()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
                raise
            found = [("ok",)]
        finally:
            db.set_progress_handler(None, 0)
        if found != [("ok",)]:
            raise _Damaged(str(found[0][0]) if found else "")

    def _migrate(self, db: sqlite3.Connection) -> int:
        """Bring the schema to what this version knows, and return which version it was; 0: an empty file."""
        version = int(db.execute("PRAGMA user_version").fetchone()[0])
        if version > len(self._steps):
            raise LedgerNewer(
                f"{self._path} was made by a newer sysresp (version {version} of the ledger, this one knows "
                f"{len(self._steps)}): install that one again, or move the file away"
            )
        if version == 0:
            if db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
                raise _Damaged("it is the database of another program")
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")
            db.execute(f"PRAGMA application_id = {tables.APPLICATION}")
        if db.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
            raise sqlite3.OperationalError("its file system takes no write-ahead log")
        for number, step in enumerate(self._steps[version:], start=version + 1):
            db.executescript(f"BEGIN IMMEDIATE; {step}; PRAGMA user_version = {number}; COMMIT")
        return version

    def _read_only(self) -> Stored:
        """Return what can be read where nothing can be written."""
        from sysresp.controller.reader import Reader  # noqa: PLC0415 - only then

        try:
            with Reader(self._path) as reader:
                found, self._file = reader.stored(), _identity(self._path)
                self.alarm = reader.alarm()  # else new incidents would take the place of old ones
                return found
        except (LedgerTrouble, OSError):
            return Stored({}, {}, "")

    def move_aside(self) -> None:
        """Take a damaged file out of the way, with its log, and keep few of those; OSError."""
        from pathlib import Path  # noqa: PLC0415 - as good as never

        self.close()
        self._file = None
        path = Path(self._path)
        begin = f"{path.name}.corrupt-"
        ends = (p.name.removeprefix(begin) for p in path.parent.iterdir() if p.name.startswith(begin))
        numbers = sorted(int(end) for end in ends if end.isdecimal())
        free = numbers[-1] + 1 if numbers else 1
        aside = f"{path}.corrupt-{free}"
        # The log first: with an old log beside it, SQLite would replay that into the new file.
        with suppress(FileNotFoundError):
            Path(f"{path}-wal").replace(f"{aside}-wal")
        Path(f"{path}-shm").unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            path.replace(aside)
        for number in [*numbers, free][:-KEPT_ASIDE]:
            for end in ("", "-wal"):
                Path(f"{path}.corrupt-{number}{end}").unlink(missing_ok=True)
        self._aside = aside


class _Damaged(LedgerTrouble):
    """The file is damaged, and was moved aside."""

    def __init__(self, why: str) -> None:
        super().__init__(why, is_new=True)


class _Another(LedgerTrouble):
    """The file is not the one that the caller's memory comes from."""

    def __init__(self, why: str) -> None:
        super().__init__(why, is_new=True)


class _Guard:
    """Around whatever touches the file: nothing but LedgerTrouble leaves, and no transaction stays open."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is None:
            return
        if isinstance(error, _Damaged):
            self._replace(str(error))
        if isinstance(error, _Another):
            return
        self._ledger.close()  # rolls back; the next call begins with a new connection
        if isinstance(error, sqlite3.Error):
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in _DAMAGE:
                self._replace(str(error))
            raise LedgerTrouble(f"cannot write the ledger: {error}") from error
        if isinstance(error, OSError):
            raise LedgerTrouble(f"cannot write the ledger: {error.strerror}: {error.filename}") from error

    def _replace(self, why: str) -> None:
        try:
            self._ledger.move_aside()
        except OSError as error:
            raise LedgerTrouble(f"the ledger is damaged ({why}), and cannot be moved: {error}") from error
        raise _Damaged(f"the ledger was damaged ({why}), and was moved aside") from None


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path, follow_symlinks=False)  # noqa: PTH116 - called with each commit
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _used(db: sqlite3.Connection) -> int:
    """Return the bytes that the rows take, without the room that is free for new ones."""
    pages, free, size = (
        int(db.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size
