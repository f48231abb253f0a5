"""The policy by example: how often and how soon, what hangs on what, and what a probe leads to."""

from __future__ import annotations

from itertools import pairwise

import pytest

from sysresp.controller.events import (
    AskRequired,
    Fate,
    Health,
    Kill,
    Look,
    Note,
    Required,
    ResetFailed,
    Resync,
    Shorten,
    Start,
    Stop,
    Wait,
    Wake,
)
from sysresp.ports import JobRemoved, Record, Seen
from sysresp.units.supervision import Probe, Settings, Supervision
from tests.policy_scenes import (
    DB,
    EPOCH,
    WEB,
    Controller,
    ended,
    limit_hit,
    stopping,
    unhealthy,
    up,
)

# Backoff, cooldown, limits


def test_a_long_wait_is_shortened_below_254() -> None:
    told = Controller(web=Supervision(delay_sec=1, max_delay_sec=16, steps=4, is_native=False, rest_sec=16))
    for count, (run, wait) in enumerate(zip("ABCDEF", (1, 2, 4, 8, 16, 16), strict=True)):
        at = 100.0 * count
        told(at, up(at + 1, run), ended(at + 2, run, "auto-restart"))
        assert told.rows[run].retry_at == pytest.approx(EPOCH + at + 2.001 + wait)
        if wait < 16:
            assert told.memory.wake_at() == pytest.approx(at + 2.001 + wait)
            assert told(told.memory.wake_at(), Wake()) == [Shorten(WEB)]
            assert told(at + 20, Wake(), ended(at + 2, run, "auto-restart")) == []  # once
        else:
            assert told.memory.wake_at() == 0  # systemd does that


def test_a_restart_that_is_queued_is_left_alone() -> None:
    """It is counted before the wait is over: measured on 257, where the pause then grows by that."""
    told = Controller(web=Supervision(delay_sec=1, max_delay_sec=16, steps=4))
    told(2, up(1), ended(2, sub="auto-restart"))
    assert told(3.1, ended(2, sub="auto-restart", n=1, job=9), Wake()) == []
    assert told.memory.wake_at() == 0
    told = Controller(web=Supervision(delay_sec=1, max_delay_sec=16, steps=4, is_native=False, rest_sec=16))
    told(2, up(1), ended(2, sub="auto-restart"), ended(2, sub="auto-restart", n=1, job=9))
    assert told(4, Wake()) == []


def test_a_restart_that_was_merged_into_the_start_is_somebodys_wish() -> None:
    told = Controller(web=Supervision())
    starting = up(1)._replace(active="activating", sub="start", job=5)
    told(2, starting, *stopping(2, job=5)[:2])
    assert told.rows["A"].fate is Fate.STOPPED


def test_a_native_wait_is_left_alone() -> None:
    told = Controller(web=Supervision(delay_sec=1, max_delay_sec=16, steps=4))
    told(2, up(1, n=2), ended(2, sub="auto-restart", n=2))
    assert told.memory.wake_at() == 0
    assert told.rows["A"].retry_at == pytest.approx(EPOCH + 2.001 + 4)


@pytest.mark.parametrize("policy", [Supervision(attempts=5), Supervision(max_delay_sec=60)])
def test_a_stable_run_counts_anew(policy: Supervision) -> None:
    told = Controller(web=policy._replace(reset_after_sec=30))
    told(2, up(1), ended(2, sub="auto-restart"))
    told(3, up(3, "B", n=1))
    assert told.memory.wake_at() == 33
    assert told(33, Wake()) == [ResetFailed(WEB)]
    assert (told.of().failures, told.memory.wake_at()) == (0, 0)


def test_nothing_counted_nothing_reset() -> None:
    told = Controller(web=Supervision(reset_after_sec=30))
    told(2, up(1))
    assert told.memory.wake_at() == 0


def test_after_the_start_limit_it_cools_down() -> None:
    told = Controller(web=Supervision(attempts=2, cooldown_sec=900, cooldowns=1))
    limit_hit(told, 2, "A")
    assert told.rows["A"].fate is Fate.RETRY
    assert told.rows["A"].retry_at == pytest.approx(EPOCH + 902, abs=0.1)
    assert told(903, Wake())[0] == ResetFailed(WEB)
    assert [type(action) for action in told.actions] == [ResetFailed, Start, Note]
    limit_hit(told, 1000, "B")
    assert told.rows["B"].fate is Fate.GAVE_UP  # one in a row


def test_a_stop_ends_the_cooldown() -> None:
    told = Controller(web=Supervision(attempts=2, cooldown_sec=900))
    limit_hit(told, 2, "A")
    assert told(5, JobRemoved(9, WEB, "done")) == [Look(WEB)]
    assert (told.rows["A"].fate, told.of().is_stopped) == (Fate.STOPPED, True)
    assert told(903, Wake(), ended(2, n=2, changed=2.2)) == []


def test_more_failures_than_the_ledger_may_have() -> None:
    told = Controller(web=Supervision(failures=2, per_sec=60, cooldown_sec=300))
    for at, run in ((2, "A"), (12, "B")):
        assert told(at, up(at - 1, run), ended(at, run, "auto-restart")) == []
    (stop,) = told(22, up(21, "C"), ended(22, "C", "auto-restart"))
    assert stop == Stop(WEB, "more than 2 failures in 60 s")
    assert told.notes() == ["limit", "cooldown"]
    told(22, Seen(WEB, "inactive", "dead", "C", "exit-code", changed=22.1))
    assert (told.of().is_stopped, told.of().wait) == (False, Wait.COOLDOWN)
    assert [type(action) for action in told(323, Wake())] == [Start]


def test_what_a_limit_stopped_is_nobodys_wish_for_the_next_controller() -> None:
    told = Controller(web=Supervision(failures=1, per_sec=60))
    told(2, up(1, "A"), ended(2, "A", "auto-restart"))
    told(12, up(11, "B"), ended(12, "B", "auto-restart"))
    dead = Seen(WEB, "inactive", "dead", "B", "exit-code", changed=12.1)
    told(12.1, dead)
    assert told.rows["B"].fate is Fate.GAVE_UP
    stopped = Record("stopped", WEB, "B", 0.0, 12.1, "b", job_type="stop")
    told(20, Resync((dead,), (stopped,), True, 1.0, "start", "b"))
    assert (told.rows["B"].fate, told.of().is_stopped) == (Fate.GAVE_UP, False)


def test_failures_that_are_old_do_not_count() -> None:
    told = Controller(web=Supervision(failures=2, per_sec=60))
    for at, run in ((2, "A"), (12, "B"), (80, "C"), (130, "D")):
        assert told(at, up(at - 1, run), ended(at, run, "auto-restart")) == []


def test_starts_wait_for_their_turn() -> None:
    units = {f"u{n}": Supervision(attempts=2, cooldown_sec=10) for n in range(6)}
    told = Controller(Settings(starts_per_second=2), **units)
    told(1, Resync((), boot="b"))
    for n, unit in enumerate(told.memory.roster.members):
        told(
            2,
            up(1, f"R{n}", unit=unit),
            ended(2 + n / 100, f"R{n}", n=1, unit=unit, result="start-limit-hit"),
        )
    begun: dict[str, float] = {}
    now = 12.0
    while now < 20:
        for action in told(now, Wake()):
            if isinstance(action, Start):
                begun[action.unit] = now
        now = round(now + 0.05, 2)
    assert list(begun) == list(told.memory.roster.members)  # fair
    assert list(begun.values()) == pytest.approx([12.0, 12.05, 12.5, 13.0, 13.5, 14.0], abs=0.06)


# Healing


def chain(*names: str) -> Controller:
    return Controller(**dict.fromkeys(names, Supervision()))


def blocked(told: Controller, now: float, unit: str, *on: str) -> None:
    assert told(now, JobRemoved(3, unit, "dependency")) == [AskRequired(unit)]
    assert told.notes() == ["blocked"]
    told(now, Required(unit, on))


def test_a_chain_heals_link_by_link() -> None:
    names = [f"{letter}.service" for letter in "abcde"]
    told = chain(*"abcde")
    told(1, Resync(tuple(Seen(name) for name in names)))
    for below, unit in pairwise(names):
        blocked(told, 1, unit, below)
    now = 5.0
    told(now, up(now, "A", unit="a.service"))
    for unit in names[1:]:
        now += 0.2
        starts = [action for action in told(now, Wake()) if isinstance(action, Start)]
        assert [start.unit for start in starts] == [unit]
        told(now, up(now, unit[0].upper(), unit=unit))
    assert told(now + 60, Wake()) == []


def test_who_is_up_by_then_is_left_alone() -> None:
    told = chain("web", "db")
    told(1, Resync((Seen(WEB), Seen(DB))))
    blocked(told, 1, WEB, DB)
    assert told(5, up(5, "D", unit=DB)) == [Look(WEB)]
    assert told(5.2, up(5.1, "W"), Wake()) == []


def test_a_unit_of_nobody_may_be_waited_for() -> None:
    told = chain("web")
    told(1, Resync((Seen(WEB),)))
    blocked(told, 1, WEB, "data.mount")
    told(1, Seen("data.mount", "inactive"), Seen("other.mount", "active"))
    assert "other.mount" not in told.memory.units
    told(3, Seen("data.mount", "active", changed=3.0))
    assert [type(action) for action in told(3.2, Wake())] == [Start]


def test_what_is_bound_to_the_dead_comes_back_with_it() -> None:
    told = chain("web", "db")
    told(1, up(1, "W"), up(1, "D", unit=DB))
    told(2, ended(2, "D", "auto-restart", unit=DB), *stopping(2.002, run="W"))
    told(2, Required(WEB, (DB,), (DB,)))
    assert (told.rows["W"].fate, told.rows["W"].because, told.of().is_stopped) == (Fate.BLOCKED, DB, False)
    told(3, up(3, "D2", unit=DB))
    assert [type(action) for action in told(3.2, Wake())] == [Start]


def test_what_was_stopped_with_what_it_requires_stays_so() -> None:
    told = chain("web", "db")
    told(1, up(1, "W"), up(1, "D", unit=DB))
    told(2, *stopping(2, run="W"), Required(WEB, (DB,), (DB,)), *stopping(2.1, run="D", unit=DB))
    told(2, Required(DB, ()))
    assert told.of().is_stopped
    assert told.of(DB).is_stopped
    told(3, up(3, "D2", unit=DB))
    assert told(9, Wake()) == []


# Probes


def test_the_unhealthy_is_killed_and_the_exit_says_why() -> None:
    told = Controller(web=Supervision(probe=Probe(restarts=2, within_sec=100)))
    for n, run in enumerate("ABC"):
        at = 10.0 * n
        told(at, up(at + 1, run))
        assert unhealthy(told, at, "old") == []
        actions = unhealthy(told, at + 2, run)
        assert unhealthy(told, at + 2, run) == []  # once for each turn
        if n < 2:
            assert actions == [Kill(WEB, "unhealthy: status 500")]
            told(at + 3, ended(at + 3, run, "auto-restart"))
            assert (told.rows[run].because, told.rows[run].fate) == ("status 500", Fate.RETRY)
        else:
            assert actions == []  # left as it is
            assert told.of().is_healthy is False
    assert told(99, Health(WEB, "C", True)) == []
    assert told.notes() == ["healthy"]


def test_the_unhealthy_is_stopped_if_that_is_asked_for() -> None:
    told = Controller(web=Supervision(probe=Probe(action="stop")))
    told(1, up(1))
    assert unhealthy(told, 2) == [Stop(WEB, "unhealthy: status 500")]
    told(3, *stopping(3))
    assert (told.rows["A"].fate, told.rows["A"].because) == (Fate.STOPPED_BY_US, "status 500")
    assert not told.of().is_stopped
