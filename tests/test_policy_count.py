"""Exits whose details are lost are counted: signals gone, the journal throttled, and still no row too many.

NRestarts tells how many runs there were while nobody listened, as long as nobody sets it back; the stories
here crash and restart, and hit the start limit, and no more.
"""

from __future__ import annotations

from collections import Counter
from itertools import cycle

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sysresp.controller.events import Fate
from sysresp.units.supervision import Settings, Supervision
from tests.toy_controller import ToyController, advance
from tests.toy_systemd import ToySystemd, Unit

POLICIES = (
    Supervision(delay_sec=0.2),
    Supervision(when="always", delay_sec=0.1),
    Supervision(delay_sec=0.1, attempts=4, within_sec=60),
    Supervision(when="always", delay_sec=0.1, max_delay_sec=2, steps=3),
)

_told = Counter[str]()


@pytest.mark.slow
@settings(
    max_examples=3000, phases=(Phase.generate, Phase.shrink), suppress_health_check=list(HealthCheck),
    database=None,
)  # fmt: skip
@given(st.binary(min_size=2, max_size=30), st.binary(min_size=1), st.binary(min_size=1))
def test_what_the_journal_lost_is_counted(story: bytes, noise: bytes, throttle: bytes) -> None:
    unit = Unit("a.service", POLICIES[story[0] // 2 % len(POLICIES)])
    systemd = ToySystemd([unit], is_new=bool(story[0] % 2))
    controller = ToyController(systemd, Settings(), acts=False)
    systemd.announce = controller.wire_in
    ears, journald = cycle(noise), cycle(throttle)
    systemd.throttles = lambda: next(journald) % 8 != 0
    systemd.start(unit.name)
    controller.hear(cycle([15]))
    for byte in story[1:]:
        match byte % 8:
            case 0 | 1:
                systemd.crash(unit.name, 1, 0 if unit.supervision.when == "always" else 2)
            case 2 | 3 | 4:
                systemd.crash(unit.name, 2, 9)
            case 5:
                unit.broken = 2
            case 6:
                controller.is_dead = True  # and nobody listens, until
            case _:
                controller.killed()
                controller.resync("start")
        advance(systemd, [(controller, ears)], (0.0, 0.3, 0.6, 3.0)[byte // 64])
    controller.killed()
    controller.resync("settle")
    advance(systemd, [(controller, cycle([15]))], 0.15)
    controller.resync("end")
    rows = {invocation: row for (_, invocation), row in controller.ledger.items()}
    runs = {invocation for _, invocation in systemd.ended}
    assert len(rows) == len(runs)
    _told.update(row.source for row in rows.values())
    for invocation in rows.keys() - runs:
        assert invocation.startswith("lost-")
        assert (rows[invocation].fate, rows[invocation].source) == (Fate.UNKNOWN, "count")


@pytest.mark.slow
def test_each_source_had_its_share() -> None:
    """Else the test above would prove nothing."""
    assert min(_told[source] for source in ("live", "journal", "count")) > 300, _told
