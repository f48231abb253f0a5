"""A month in the life of many services, simulated: their rows in a ledger, and what each really was.

`month` writes the rows and gives the truth as one byte for each second and service, painted while the
simulation goes: it knows nothing of how availability is read from rows. `host` is where they run now.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import NamedTuple

from sysresp.controller.availability import AFTER, State
from sysresp.controller.events import Exit, Fate, Note, UnitMemory
from sysresp.controller.ledger import Ledger

DAY = 86400
LETTERS = {State.UP: b"u", State.DOWN: b"d", State.OFF: b"o", State.UNKNOWN: b"?"}
ENDS = (
    ("exit-code", 1, 3, Fate.RETRY),
    ("exit-code", 1, 1, Fate.RETRY),
    ("signal", 2, 9, Fate.RETRY),
    ("core-dump", 3, 11, Fate.RETRY),
    ("oom-kill", 2, 9, Fate.RETRY),
    ("watchdog", 2, 6, Fate.GAVE_UP),
    ("success", 1, 0, Fate.STOPPED),
    ("success", 1, 0, Fate.FINISHED),
    ("exit-code", 1, 7, Fate.BLOCKED),
    ("success", 2, 15, Fate.STOPPED_BY_US),
)


class Life(NamedTuple):
    """What became of one unit."""

    truth: bytearray  # a letter for each second of the window
    rows: int
    failures: int
    running: tuple[str, int] | None  # invocation, and when its run began


def unit(number: int) -> str:
    return f"shop-svc{number:03}.service"


def month(
    path: Path, services: int, rows_each: int, begin: int, *, days: int = 30, seed: int = 1
) -> list[Life]:
    """Write a ledger of so many services, from two days before `begin` on; return what each was."""
    dice = random.Random(seed)
    ledger = Ledger(str(path))
    ledger.open()
    lives = []
    for number in range(services):
        life, rows = _life(unit(number), rows_each, begin, begin + days * DAY, dice)
        memory = UnitMemory(is_ended=life.running is None)
        if life.running:
            memory = memory._replace(invocation=life.running[0])
        for at, row in rows:
            if not row.when:
                ledger.commit([row], when=at)
        note = Note("reset", unit(number), when=begin + 5.0)
        ledger.commit([row for _, row in rows if row.when], [note], {unit(number): memory})
        lives.append(life)
    ledger.close()
    return lives


def _life(
    name: str, count: int, begin: int, end: int, dice: random.Random
) -> tuple[Life, list[tuple[float, Exit]]]:
    """Simulate one unit: its ups and downs as they come, a painter who sees each second, and its rows."""
    truth = bytearray(LETTERS[State.UNKNOWN] * (end - begin))

    def paint(from_: int, to: int, state: State) -> None:
        first, last = max(from_, begin) - begin, min(to, end) - begin
        if last > first:
            truth[first:last] = LETTERS[state] * (last - first)

    now, after = begin - 2 * DAY, State.UNKNOWN
    pace = (end - now) / (count + 1)
    rows: list[tuple[float, Exit]] = []
    failures = lost = 0
    while True:
        down = dice.choice((1, 2, 5, 30, int(pace * dice.random() / 2) + 1)) if rows else 0
        up = max(1, int(pace * dice.random() * 1.6))
        if now + down + up >= end:
            break
        if rows and dice.random() < 0.01 and now + down + 400 < end:
            # A run that nobody saw: the count of restarts tells of it while the next one goes on.
            unseen, up = dice.randint(1, 200), dice.randint(100, 190)
            paint(now, now + down + unseen, State.UNKNOWN)
            now += down + unseen
            lost += 1
            rows.append((now + 50.0, Exit(name, f"lost-{lost}", source="count")))
            down = 0
        paint(now, now + down, after)
        paint(now + down, now + down + up, State.UP)
        now += down + up
        result, code, status, fate = dice.choice(ENDS)
        because = "status 500" if fate is Fate.STOPPED_BY_US else ""
        run = f"{len(rows):08x}{dice.getrandbits(96):024x}"
        peak = dice.randint(10 << 20, 60 << 20)
        how = (result, code, status, fate, 0.0, because, 1, float(up), peak, 1)
        rows.append((float(now), Exit(name, run, float(now), *how)))
        is_failure = because or (result != "success" and fate not in {Fate.STOPPED, Fate.FINISHED})
        failures += bool(is_failure) and now >= begin
        after = AFTER[fate]
    running = None
    if dice.random() < 0.9 and now + down < end:
        running = (f"{dice.getrandbits(128):032x}", now + down)
        paint(now, now + down, after)
        paint(now + down, end, State.UP)
    else:
        paint(now, end, after)
    return Life(truth, len(rows), failures, running), rows
