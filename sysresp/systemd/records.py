"""What the service manager said while nobody listened, from the journal: `ports.Records`.

Owns one call of journalctl(1), which knows rotation, corrupt files and access rights (see `export`). Never
parses a MESSAGE: its text differs by version. The rules:
- Each look first writes a line of its own into the journal, by the socket that the manager writes to, and
  reads up to that: then nothing of before is still on its way (`journalctl --sync` is for root only), and
  the line is a cursor that moves on when the manager has nothing to say.
- The reading begins *at* the cursor, whose entry the matches let pass, and which must be the first. It is
  gone if the journal was vacuumed. `--after-cursor` cannot tell, and skips an entry too many if the matches
  do not let the cursor's own pass.
- What tells who sent an entry are the fields that journald adds (systemd.journal-fields(7)): any process may
  write all others, and a newline into their values.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Iterable, Iterator

from sysresp.ports import Record
from sysresp.systemd.export import CHUNK, CODES, KINDS, Entry, journalctl, parse

TYPE_CHECKING = False  # subprocess is imported when one is started
if TYPE_CHECKING:
    import subprocess

_LIMIT_SEC = 20.0  # 100,000 records take 2 s
_MARK_SEC = 1.0  # until our own line is there; as a rule it is at once
_PAUSE_MS = 20
_LONGEST_USEC = 60_000_000
_SOCKET = "/run/systemd/journal/socket"
_MARK = "5e2fbcd9e7f24a3c9d0c4b8f7a1d6e30"  # MESSAGE_ID of our own line
_DROPPED = "a596d6fe7bfa4994828e72309e95d61e"  # journald's rate limit left out what somebody said

_RESULTS = {"failed": b"UNIT_RESULT", "started": b"JOB_RESULT", "start-failed": b"JOB_RESULT"}
_FIELDS = (
    "MESSAGE_ID,UNIT,USER_UNIT,INVOCATION_ID,USER_INVOCATION_ID,JOB_RESULT,JOB_TYPE,UNIT_RESULT,EXIT_CODE,"
    "EXIT_STATUS,COMMAND,N_RESTARTS,OBJECT_PID,SYSRESP_MARK,_SOURCE_REALTIME_TIMESTAMP"
)


class SystemRecords:
    """The journal of the system's manager, or of the caller's own."""

    def __init__(self, *, user: bool = False) -> None:
        self._user = user
        self._unit, self._run = (b"UNIT", b"INVOCATION_ID")
        if user:
            self._unit, self._run = (b"USER_UNIT", b"USER_INVOCATION_ID")

    def since(self, cursor: str, units: Iterable[str]) -> tuple[list[Record], str, bool]:
        if not self._user and not is_readable():
            return [], cursor, False
        mark = os.urandom(16).hex().encode()
        is_whole = _write_mark(mark)
        if not cursor:
            return self._end(mark)
        wanted = {unit.encode(): unit for unit in units}
        records: list[Record] = []
        failed: set[tuple[str, str]] = set()
        words: dict[bytes, str] = {}  # each run is named by some five records, each boot by all
        deadline, mark_deadline = time.monotonic() + _LIMIT_SEC, time.monotonic() + _MARK_SEC
        is_marked = not is_whole  # if it could not be written, nothing is waited for
        while True:
            is_first, reader = True, _start(self._matches(), cursor)
            if reader is None:  # what it would tell stays where it is, for the next time
                return records, cursor, False
            for entry in _entries(reader, deadline):
                here = entry[b"__CURSOR"].decode()
                if is_first and here == cursor:
                    is_first = False
                    continue
                is_whole &= not is_first and not self._tells_of_a_gap(entry)
                is_first, cursor = False, here
                is_marked |= entry.get(b"SYSRESP_MARK") == mark
                unit = wanted.get(entry.get(self._unit, b""))
                record = self._record(entry, unit, words) if unit is not None else None
                if record is None:
                    continue
                if record.kind == "failed":  # said again when systemd gives up
                    if (record.unit, record.invocation) in failed:
                        continue
                    failed.add((record.unit, record.invocation))
                records.append(record)
            if is_first and time.monotonic() > deadline:  # as if it could not be started
                return records, cursor, False
            if is_first:  # not even the entry that the cursor names, nor any behind it
                return records, self._end(mark)[1] or cursor, False
            if is_marked or time.monotonic() > mark_deadline:
                return records, cursor, is_whole and is_marked
            select.poll().poll(_PAUSE_MS)

    def _end(self, mark: bytes) -> tuple[list[Record], str, bool]:
        """Return the cursor of our own line."""
        deadline = time.monotonic() + _MARK_SEC
        while True:
            reader = _start([f"SYSRESP_MARK={mark.decode()}"], "")
            for entry in _entries(reader, deadline) if reader else ():
                return [], entry[b"__CURSOR"].decode(), True
            if time.monotonic() > deadline:
                return [], "", False
            select.poll().poll(_PAUSE_MS)

    def _matches(self) -> list[str]:
        uid = os.geteuid()
        said = [f"_UID={uid}", "_SYSTEMD_USER_UNIT=init.scope"] if self._user else ["_PID=1"]
        said += [f"MESSAGE_ID={kind.decode()}" for kind in KINDS]
        own = [f"_UID={uid}", f"MESSAGE_ID={_MARK}"]
        return [*said, "+", *own, "+", "_TRANSPORT=driver", f"MESSAGE_ID={_DROPPED}"]

    def _tells_of_a_gap(self, entry: Entry) -> bool:
        is_dropped = entry.get(b"MESSAGE_ID") == _DROPPED.encode()
        return is_dropped and (self._user or entry.get(b"OBJECT_PID") == b"1")

    def _record(self, entry: Entry, unit: str, words: dict[bytes, str]) -> Record | None:
        kind = KINDS.get(entry.get(b"MESSAGE_ID", b""))
        if kind is None:
            return None
        code = 0
        if kind == "exited":
            if entry.get(b"COMMAND", b"ExecStart") != b"ExecStart":
                return None  # of ExecStartPre=, ExecStop= and the like: not the main process
            code = CODES.get(entry.get(b"EXIT_CODE", b""), 0)
        return Record(
            kind,
            unit,
            _word(words, entry.get(self._run, b"")),
            _number(entry, b"__REALTIME_TIMESTAMP") / 1e6,
            (_number(entry, b"__MONOTONIC_TIMESTAMP") - _delay(entry)) / 1e6,
            _word(words, entry.get(b"_BOOT_ID", b"")),
            entry.get(_RESULTS.get(kind, b""), b"").decode(errors="replace"),
            entry.get(b"JOB_TYPE", b"").decode(errors="replace")
            if kind in ("start-failed", "stopped")
            else "",
            code,
            _number(entry, b"EXIT_STATUS") if code else 0,
            _number(entry, b"N_RESTARTS") if kind == "restart" else 0,
        )


def _word(words: dict[bytes, str], raw: bytes) -> str:
    return words.get(raw) or words.setdefault(raw, raw.decode(errors="replace"))


def _delay(entry: Entry) -> int:
    """Return how long the entry was on its way to journald, in microseconds: in a storm that is seconds."""
    sent = _number(entry, b"_SOURCE_REALTIME_TIMESTAMP")
    delay = _number(entry, b"__REALTIME_TIMESTAMP") - sent
    return delay if sent and 0 <= delay < _LONGEST_USEC else 0  # else the clock was set meanwhile


def _number(entry: Entry, name: bytes) -> int:
    value = entry.get(name, b"")
    return int(value) if value.isdigit() else 0


def is_readable(file: str = "system.journal") -> bool:
    """Say whether this journal may be read, the system's own; journalctl shows what may be, and succeeds."""
    for top in ("/var/log/journal", "/run/log/journal"):
        try:
            found = [f"{top}/{name}/{file}" for name in os.listdir(top)]  # noqa: PTH208 - pathlib costs 4 ms
        except OSError:
            continue
        if any(os.access(path, os.R_OK) for path in found):
            return True
    return False


def _write_mark(mark: bytes) -> bool:
    lines = (
        b"MESSAGE=the journal was read up to here",
        b"MESSAGE_ID=" + _MARK.encode(),
        b"PRIORITY=6",
        b"SYSLOG_IDENTIFIER=sysresp",
        b"SYSRESP_MARK=" + mark,
    )
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as journal:
            journal.sendto(b"\n".join(lines) + b"\n", _SOCKET)
    except OSError:
        return False
    return True


def _start(matches: list[str], cursor: str) -> subprocess.Popen[bytes] | None:
    """Start to read from this cursor on; None if that cannot be done now."""
    try:
        return journalctl([*([f"--cursor={cursor}"] if cursor else []), *matches], _FIELDS)
    except OSError:
        return None
    except ValueError:  # such a cursor nobody gave us: it is as good as gone
        return journalctl(["--lines=0"], _FIELDS)


def _entries(reader: subprocess.Popen[bytes], deadline: float) -> Iterator[Entry]:
    """Yield the entries; stop at the deadline."""
    with reader:
        assert reader.stdout is not None
        poll = select.poll()
        poll.register(reader.stdout, select.POLLIN)
        rest = b""
        try:
            while poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                chunk = os.read(reader.stdout.fileno(), CHUNK)
                if not chunk:
                    return
                entries, rest = parse(rest + chunk)
                yield from entries
        finally:
            reader.kill()
