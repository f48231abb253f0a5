"""Every exit once, whatever happens to the controller, to PID 1 and to the journal meanwhile."""

from __future__ import annotations

import os
import random

import pytest

from tests.live.conftest import Box
from tests.live.storms import UNIT, Storm, enable, is_up
from tests.live.until import until

pytestmark = [pytest.mark.live, pytest.mark.slow]

# A full storm takes PID 1 several minutes; continuous integration has one of a third.
FULL = bool(os.environ.get("SYSRESP_FULL"))
SERVICES, RUNS, KILLS = (300, 5000, 50) if FULL else (100, 1500, 15)
DISTURBANCES = {"kill": 20, "stop": 2, "restart": 2, "daemon-reload": 3, "daemon-reexec": 2}
THROTTLED = "[Journal]\nRateLimitIntervalSec=30s\nRateLimitBurst=20\n"


def disturb(storm: Storm) -> str:
    """Do something to the controller or to PID 1; mostly kill the controller."""
    box = storm.box
    (what,) = storm.random.choices(list(DISTURBANCES), list(DISTURBANCES.values()))
    if what == "kill":
        storm.kill()
    elif what == "stop":
        box.systemctl("stop", UNIT, check=False)
        storm.wait_for(20)
        box.systemctl("start", UNIT, check=False)
    elif what == "restart":
        box.systemctl("restart", UNIT, check=False)
    else:
        box.systemctl(what, check=False)
    return what


def test_storm(arena: Box) -> None:
    """The controller killed all the time, and not one exit more or less than there were."""
    storm = Storm(arena, SERVICES, (SERVICES / 75, SERVICES / 37), random.randrange(2**32))
    storm.apply()
    enable(arena)
    storm.begin()
    done: dict[str, int] = {}
    while storm.runs() < RUNS + SERVICES or storm.kills < KILLS:
        storm.wait_for(storm.random.randrange(20, 120 if FULL else 80), 120)
        what = disturb(storm)
        done[what] = done.get(what, 0) + 1
    truth = storm.settle()
    until(lambda: is_up(arena), "the controller is up")
    found = storm.compared(truth)
    print(
        f"\nsystemd {arena.version}, seed {storm.seed}: {found.runs} exits, {found.by_count} counted; {done}"
    )
    assert not found.missing, storm.dump(found)
    assert not found.extra, storm.dump(found)
    assert found.runs >= RUNS


def test_storm_that_the_journal_throttles(arena: Box) -> None:
    """With most of PID 1's messages suppressed, live and across blind gaps, the count is exact."""
    arena.write("/etc/systemd/journald.conf.d/throttle.conf", THROTTLED)
    arena.systemctl("restart", "systemd-journald")
    storm = Storm(arena, 100, (1.0, 2.0), random.randrange(2**32))
    storm.apply()
    enable(arena)
    storm.begin()
    for _ in range(5 if FULL else 3):
        storm.wait_for(150, 60)
        arena.systemctl("stop", UNIT)
        storm.wait_for(150, 60)
        arena.systemctl("start", UNIT)
    truth = storm.settle()
    found = storm.compared(truth)
    print(f"\nsystemd {arena.version}, seed {storm.seed}: {found.runs} exits, {found.by_count} by count")
    assert not found.missing, storm.dump(found)
    assert not found.extra, storm.dump(found)
    assert found.by_count, "the journal was not throttled, so this shows nothing"
