"""What the controller remembers of a unit, beside what systemd says: `status` and `why` show both as one.

Owns where the ledger is looked for, and the meeting of the two. systemd's state always wins: a memory that
it contradicts is older, and is left aside. Pure but for `ledger` and `memories`.

On the path of `sysresp status`: where there is no ledger that costs one stat(2) for each place, and SQLite
is imported only where a controller has one open (its log lies beside it: `controller.ledger`).
"""

from __future__ import annotations

import os
from contextvars import ContextVar

from sysresp.cli import rows

TYPE_CHECKING = False  # typing itself costs 5 ms to import
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sysresp.controller.events import UnitMemory

_FILE = "ledger.db"  # controller.tables.FILE, whose import costs 10 ms

directories: ContextVar[tuple[str, ...] | None] = ContextVar("directories", default=None)
"""Where tests have their ledgers; None: where the controller has it."""

_DOWN = frozenset({"inactive", "failed"})


class Now:
    """The present, on both clocks: what the controller remembers is monotonic, what people read is not."""

    __slots__ = ("monotonic", "when")

    def __init__(self, when: float, monotonic: float) -> None:
        self.when = when
        self.monotonic = monotonic

    def epoch(self, monotonic: float) -> float:
        """Return the instant in seconds since the epoch."""
        return self.when + monotonic - self.monotonic


def ledger(scope: str, env: Mapping[str, str]) -> str:
    """Return the path of the ledger, "" if there is none."""
    places = directories.get()
    if places is None:
        from sysresp.reconcile import layout  # noqa: PLC0415 - as late as possible

        places = layout.controller_dirs(scope, env)
    for place in places:
        if os.path.lexists(path := f"{place}/{_FILE}"):
            return path
    return ""


def memories(scope: str, env: Mapping[str, str]) -> dict[str, UnitMemory]:
    """Return the memory of the units of which there is something to say; {} if no controller is at work."""
    path = ledger(scope, env)
    if not path or not os.path.lexists(f"{path}-wal"):
        return {}
    from sysresp.controller.reader import Reader  # noqa: PLC0415 - only who has a controller pays for it
    from sysresp.controller.tables import LedgerTrouble  # noqa: PLC0415

    try:
        with Reader(path) as reader:
            return reader.remarkable()
    except LedgerTrouble:
        return {}  # `why` and `incidents` tell it; systemd's own word is still true


def gave_up(scope: str, env: Mapping[str, str]) -> str:
    """Return what there is to say of a controller on which systemd gave up, "" if it did not."""
    places = directories.get()
    if places is None:
        from sysresp.reconcile import layout  # noqa: PLC0415 - as above

        places = layout.controller_dirs(scope, env)
    for place in places:
        if os.path.lexists(f"{place}/fallback.json"):
            from sysresp.controller.fallback import read_fallback  # noqa: PLC0415 - hardly ever

            if found := read_fallback(place):
                return found.summary()
    return ""


def remember(shown: Iterable[rows.Row], known: Mapping[str, UnitMemory], now: Now) -> None:
    """Add to the rows what the controller remembers of their units."""
    shown = tuple(shown) if known else ()
    down = {row.observed.name for row in shown if row.observed.active in _DOWN}
    for row in shown:
        memory = known.get(row.observed.name)
        if memory is not None:
            _add(row, memory, now, down)


def _add(row: rows.Row, memory: UnitMemory, now: Now, down: set[str]) -> None:
    seen = row.observed
    wait = str(memory.wait.value)
    if seen.active in {"active", "reloading"}:
        row.healthy = memory.is_healthy
        if memory.is_healthy is False:
            row.set(row.state, rows.BAD, f"unhealthy: {memory.why}" if memory.why else "unhealthy")
    elif seen.active == "activating" and "auto-restart" in seen.sub:
        if wait == "backoff":
            row.wait, row.next_start = wait, _due(memory, now)
    elif seen.active not in _DOWN or seen.load != "loaded" or seen.job:
        return
    elif wait in {"cooldown", "slot"}:
        row.wait, row.next_start = wait, _due(memory, now)
        reason = row.reason or memory.why
        row.set("cooling down" if wait == "cooldown" else "waiting to start", rows.BAD, reason)
    elif wait == "blocked":
        row.wait, row.waits_for = wait, _blockers(memory, down)
        row.set("blocked", rows.BAD, "needs " + ", ".join(row.waits_for) if row.waits_for else memory.why)
    elif memory.is_stopped and row.state == "stopped":
        row.set("stopped", rows.OFF, row.reason or "by hand", well=row.well)


def _blockers(memory: UnitMemory, down: set[str]) -> tuple[str, ...]:
    """Return what it waits for, of all that it requires: what is seen to be down, else what may well be."""
    seen = tuple(unit for unit in memory.on if unit in down)
    return seen or tuple(unit for unit in memory.on if not unit.endswith((".slice", ".target"))) or memory.on


def _due(memory: UnitMemory, now: Now) -> float | None:
    return now.epoch(memory.wake_at) if memory.wake_at > 0 else None
