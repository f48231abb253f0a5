"""What the policy is told late: a look at a unit overtakes the signals that were on their way."""

from __future__ import annotations

from sysresp.controller.events import Member, Memory, Roster, Wait
from sysresp.controller.policy import decide
from sysresp.ports import Seen

UNIT, RUN = "shop-web.service", "a" * 32
UP = Seen(UNIT, "active", "running", RUN, main_pid=42, started=4.0, changed=5.0)
# As PID 1 tells the first run of a unit: the invocation is there, no state has changed yet (252, 257).
BEFORE_THE_FIRST_CHANGE = Seen(UNIT, "inactive", "dead", RUN, job=96, main_pid=42, started=4.0)
UNLOADED = Seen(UNIT)


def test_a_signal_of_before_the_first_change_ends_no_run() -> None:
    up = decide(Memory(roster=Roster({UNIT: Member(UNIT)})), UP, 6.0).memory
    assert not up.units[UNIT].is_ended
    late = decide(up, BEFORE_THE_FIRST_CHANGE, 6.1)
    assert (late.memory.units, late.actions) == (up.units, ())
    assert decide(up, UNLOADED, 6.2).memory.units[UNIT].wait is Wait.SETTLE  # it has no time: look again
