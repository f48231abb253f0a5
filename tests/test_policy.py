"""The policy by example: which runs end, what becomes of them, and what closes a gap."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from sysresp.controller.events import (
    Action,
    AskRequired,
    Exit,
    Fate,
    Kill,
    Look,
    Member,
    Memory,
    NewRoster,
    Note,
    Refused,
    Required,
    Resync,
    Roster,
    Row,
    Start,
    UnitMemory,
    Wait,
    Wake,
)
from sysresp.controller.policy import decide
from sysresp.ports import Gone, Record, Seen
from sysresp.units.supervision import Probe, Supervision
from tests.policy_scenes import DB, EPOCH, FINAL, WEB, Controller, ended, limit_hit, stopping, unhealthy, up


def test_an_exit_is_one_row_however_often_it_is_told() -> None:
    told = Controller(web=Supervision())
    told(1, up(1), *[ended(2)] * 3, *[ended(2, sub="auto-restart", changed=2.002)] * 3)
    rows = [action for action in told.actions if isinstance(action, Row)]
    assert len(rows) == 1
    assert told.rows["A"]._asdict() | {"retry_at": 0} == Exit(
        WEB, "A", EPOCH + 2, "exit-code", 1, 3, Fate.RETRY, 0, "", 1, 1.0
    )._asdict() | {"retry_at": 0}
    assert told(3, ended(2), up(1)) == []  # told late
    assert told.actions == ()


@pytest.mark.parametrize("sub", ["failed-before-auto-restart", "auto-restart", "auto-restart-queued"])
def test_a_restart_by_systemd_is_its_own_affair(sub: str) -> None:
    told = Controller(web=Supervision(delay_sec=4))
    assert told(2, up(1), ended(2, sub=sub)) == []
    assert (told.rows["A"].fate, told.rows["A"].retry_at) == (Fate.RETRY, pytest.approx(EPOCH + 6.001))
    assert told.memory.wake_at() == 0


def test_failed_is_looked_at_again_before_it_is_believed() -> None:
    told = Controller(web=Supervision(attempts=2))
    assert told(2, up(1, n=1), ended(2, n=1)) == []
    assert told.of().wait is Wait.SETTLE
    assert told(2.2, Wake()) == [Look(WEB)]
    told(2.2, ended(2, n=2))  # one restart was counted, and there was no run: refused
    assert told.rows["A"].fate is Fate.GAVE_UP
    assert told.notes() == ["gave-up"]


def test_failed_without_a_refused_restart_is_somebodys_wish() -> None:
    told = Controller(web=Supervision(attempts=2, cooldown_sec=9))
    told(2, up(1, n=1), ended(2, n=1))
    told(2.2, Wake())
    told(2.2, ended(2, n=1))
    assert (told.rows["A"].fate, told.of().is_stopped) == (Fate.STOPPED, True)
    assert told.memory.wake_at() == 0


@pytest.mark.parametrize(
    ("policy", "seen", "fate"),
    [
        (Supervision(when="no"), ended(2), Fate.GAVE_UP),
        (Supervision(prevent_exit=("3",)), ended(2), Fate.GAVE_UP),
        (Supervision(), FINAL[0], Fate.FINISHED),
        (Supervision(), Seen(WEB, "active", "exited", "A", changed=3.0), Fate.FINISHED),
    ],
)
def test_what_restart_does_not_follow_is_final_at_once(policy: Supervision, seen: Seen, fate: Fate) -> None:
    told = Controller(web=policy)
    assert told(2, up(1), seen) == []
    assert (told.rows["A"].fate, told.of().wait) == (fate, Wait.NOTHING)
    told(2, seen._replace(active="inactive", sub="dead", changed=20.0))
    assert told.actions == ()  # RemainAfterExit=: finished once


@pytest.mark.parametrize("sub", ["auto-restart-queued", "dead"])
def test_a_run_does_not_end_by_how_the_one_before_did(sub: str) -> None:
    """A first look may come when the unit has crashed and begins anew: nothing is known of the first run."""
    told = Controller(web=Supervision())
    told(2, ended(2, "B", sub, job=5, result="success", exec_code=2, exec_status=9))
    assert told.rows == {}
    told(3, up(3, "B"), ended(4, "B", "auto-restart"))
    row = told.rows["B"]
    assert (row.result, row.exec_code, row.exec_status, row.attempt) == ("exit-code", 1, 3, 1)


def test_a_skipped_start_is_no_run() -> None:
    told = Controller(web=Supervision())
    told(2, Seen(WEB, "activating", "condition", "A", main_pid=7, changed=2.0))
    told(2, Seen(WEB, "inactive", "dead", "A", "exec-condition", changed=2.1))
    assert told.rows == {}


def test_a_stop_by_hand_stays() -> None:
    told = Controller(web=Supervision(when="always"))
    assert told(2, up(1), *stopping(2)) == [AskRequired(WEB)]
    assert told(2, Required(WEB, (DB,)), Gone(WEB)) == []
    assert (told.rows["A"].fate, told.of().is_stopped) == (Fate.STOPPED, True)
    told(9, up(9, "B"))
    assert not told.of().is_stopped


def test_a_restart_by_hand_is_a_stop_and_no_more() -> None:
    told = Controller(web=Supervision())
    assert told(2, up(1), *stopping(2)[:2], up(2.1, "B")) == []
    assert (told.rows["A"].fate, told.of().is_stopped) == (Fate.STOPPED, False)


def test_a_start_job_is_no_stop() -> None:
    told = Controller(web=Supervision(when="no"))
    told(
        2,
        Seen(WEB, "activating", "start", "A", job=5, main_pid=7, started=1.0, changed=1.0),
        ended(2, job=5),
    )
    assert told.rows["A"].fate is Fate.GAVE_UP


def test_a_run_that_nobody_saw_end() -> None:
    told = Controller(web=Supervision())
    told(2, up(1), up(3, "B", n=1))
    assert told.rows["A"] == Exit(WEB, "A", fate=Fate.RETRY)


# Refusals, the roster, the gap


@pytest.mark.parametrize("code", ["UnitMasked", "NoSuchUnit"])
def test_what_cannot_be_started_is_given_up(code: str) -> None:
    told = Controller(web=Supervision(attempts=2, cooldown_sec=900))
    limit_hit(told, 2, "A")
    told(903, Wake())
    assert told(903, Refused(WEB, "Start", code)) == []
    assert (told.rows["A"].fate, told.memory.wake_at()) == (Fate.GAVE_UP, 0)


def test_other_refusals_are_tried_again_ever_later() -> None:
    told = Controller(web=Supervision(attempts=2, cooldown_sec=900))
    limit_hit(told, 2, "A")
    told(903, Wake())
    now, pauses = 903.0, []
    for _ in range(12):
        assert told(now, Refused(WEB, "Start", "NoReply")) == [Look(WEB)]
        pauses.append(told.memory.wake_at() - now)
        now = told.memory.wake_at()
        assert Start in {type(action) for action in told(now, Wake())}
    assert pauses == sorted(pauses)
    assert pauses[0] < 1
    assert pauses[-1] == 300


def test_a_new_roster_keeps_what_is_known() -> None:
    told = Controller(web=Supervision(), db=Supervision())
    told(1, up(1), up(1, "D", unit=DB))
    kept = told.of()
    members = {WEB: Member(WEB, supervision=Supervision(when="no")), "new.service": Member("new.service")}
    assert told(2, NewRoster(Roster(members))) == [Look("new.service")]
    assert told.memory.units == {WEB: kept}


def record(kind: str, at: float, run: str = "A", **fields: Any) -> Record:
    return Record(kind, WEB, run, EPOCH + at, at, "b")._replace(**fields)


def resync(told: Controller, seen: Seen, records: Iterable[Record] = (), at: float = 50.0) -> list[Action]:
    return told(at, Resync((seen,), tuple(records), True, 5.0, "start", "b", EPOCH))


def test_the_gap_is_closed_by_the_journal() -> None:
    told = Controller(web=Supervision())
    told(1, up(1))
    records = [
        record("exited", 10, exec_code=1, exec_status=3),
        record("failed", 10, result="exit-code"),
        record("restart", 10),
        record("started", 11, "B"),
        record("exited", 12, "B", exec_code=2, exec_status=9),
        record("failed", 12, "B", result="signal"),
    ]
    resync(told, up(13, "C", n=2), records)
    assert [(row.exec_code, row.exec_status, row.source) for row in told.rows.values()] == [
        (1, 3, "journal"),
        (2, 9, "journal"),
    ]
    assert told.rows["B"].uptime_sec == 1
    assert told.of().failures == 2
    assert told.notes() == ["gap"]


def test_what_the_journal_lost_is_counted() -> None:
    told = Controller(web=Supervision())
    told(1, up(1, n=4))
    resync(told, up(13, "D", n=7))
    assert list(told.rows) == ["A", "lost-1", "lost-2"]
    assert told.rows["lost-2"] == Exit(WEB, "lost-2", source="count")
    resync(told, up(13, "D", n=7))
    assert len(told.rows) == 3


def test_a_count_that_was_set_back_says_nothing() -> None:
    told = Controller(web=Supervision())
    told(1, up(1, n=4))
    resync(told, up(13, "D", n=1))
    assert list(told.rows) == ["A"]
    assert "the count was set back" in next(a.text for a in told.actions if isinstance(a, Note))


def test_the_restart_that_was_refused_made_no_run() -> None:
    told = Controller(web=Supervision(attempts=2))
    told(1, up(1, "A"))
    resync(told, ended(12, "B", n=2))
    assert list(told.rows) == ["A", "B"]
    assert told.rows["B"].fate is Fate.GAVE_UP


def test_a_run_that_was_known_and_of_which_the_journal_knows_nothing_more() -> None:
    told = Controller(web=Supervision())
    told(1, up(1))
    resync(told, up(13, "C", n=2))
    assert list(told.rows) == ["A", "lost-1"]
    assert {row.source for row in told.rows.values()} == {"count"}  # what says that the details are gone


@pytest.mark.parametrize(
    ("seen", "rows"),
    [
        (ended(2, sub="dead", result="success", active="inactive"), []),
        (ended(2, sub="exited", result="success", active="active"), []),
        (ended(2), ["A"]),
        (ended(2, sub="auto-restart"), ["A"]),
    ],
    ids=["dead", "exited", "failed", "waits"],
)
def test_what_ended_before_there_was_a_ledger(seen: Seen, rows: list[str]) -> None:
    told = Controller(web=Supervision())
    resync(told, seen)
    assert list(told.rows) == rows
    told(60, up(60, "B"), *stopping(61, run="B"))
    assert list(told.rows) == [*rows, "B"]


def test_what_began_and_ended_in_the_gap_is_a_row() -> None:
    told = Controller(web=Supervision())
    seen = ended(2, sub="dead", result="success", active="inactive")
    resync(told, seen, [record("finished", 2, result="success")])
    assert list(told.rows) == ["A"]


def test_another_boot_ends_every_run() -> None:
    told = Controller(web=Supervision(), db=Supervision())
    told(5000, Resync((Seen(WEB), Seen(DB)), boot="a"), up(5001), up(5001, "D", unit=DB))
    records = [record("finished", 6000, result="success"), record("stopped", 6000, job_type="stop")]
    of_old = [r._replace(boot="a") for r in records]
    blocked = record("start-failed", 5999, "", result="dependency")._replace(boot="a")
    now = (up(3, "Z"), Seen(DB))
    told(5, Resync(now, (*of_old, blocked), True, 9, "start", "b", EPOCH))
    assert (told.rows["A"].fate, told.rows["A"].when) == (Fate.STOPPED, EPOCH + 6000)
    assert (told.rows["D"].fate, told.rows["D"].because) == (Fate.UNKNOWN, "the machine was restarted")
    assert (told.of().invocation, told.of().is_ended) == ("Z", False)
    assert told.of(DB).wait is Wait.NOTHING
    told(7, ended(7, "Z", "auto-restart"))  # the old clock was ahead of the new one
    assert (told.rows["Z"].exec_status, told.rows["Z"].uptime_sec) == (3, 1)


def test_a_blocked_start_is_found_in_the_gap() -> None:
    told = Controller(web=Supervision(), db=Supervision())
    failed = record("start-failed", 20, "", result="dependency", job_type="start")
    told(50, Resync((Seen(WEB), Seen(DB)), (failed,), blind_sec=5))
    assert AskRequired(WEB) in told.actions
    assert told.of().wait is Wait.BLOCKED


def test_what_was_asked_for_before_a_kill_is_asked_for_again() -> None:
    told = Controller(web=Supervision(probe=Probe()))
    told(1, up(1))
    assert unhealthy(told, 2) == [Kill(WEB, "unhealthy: status 500")]
    assert [type(action) for action in resync(told, up(1))] == [Kill]


def test_a_queued_restart_of_a_unit_that_is_dead_is_no_run_yet() -> None:
    """Up to 253 the restart's job stops the unit once more: counted already, and not begun."""
    known = UnitMemory(invocation="a" * 32, is_ended=False, active="active", sub="running", n_restarts=5)
    memory = Memory(boot="b", roster=Roster({WEB: Member(WEB)}), units={WEB: known})
    seen = Seen(
        WEB, job=9, invocation="b" * 32, result="exit-code", n_restarts=7, exec_code=1, exec_status=3
    )
    seen = seen._replace(started=99.0, ended=100.0, changed=104.0)
    rows = [a.exit for a in decide(memory, Resync((seen,), boot="b"), 104.5).actions if isinstance(a, Row)]
    assert [row.invocation for row in rows] == ["a" * 32, "b" * 32]


def test_a_restart_that_is_counted_twice_is_one_run() -> None:
    """A reload of systemd while the restart's job is queued: it is scheduled, and counted, once more."""
    waits = UnitMemory(
        invocation="a" * 32, active="activating", sub="auto-restart", n_restarts=5, changed=90.0
    )
    memory = Memory(boot="b", roster=Roster({WEB: Member(WEB)}), units={WEB: waits})
    again = Seen(WEB, "activating", "auto-restart", "a" * 32, "exit-code", job=9, n_restarts=6, changed=90.0)
    once = decide(memory, again, 91.0).memory
    twice = decide(once, again._replace(n_restarts=7), 91.1).memory
    assert twice.units[WEB].credit == 1
    runs = Seen(WEB, "active", "running", "b" * 32, n_restarts=7, main_pid=3, started=92.0, changed=92.0)
    after = decide(twice, runs, 92.1)
    assert not after.memory.units[WEB].missing
    assert not after.actions

    # The same while nobody listens: the journal has the restart twice.
    told = tuple(Record("restart", WEB, "a" * 32, EPOCH + at, at, "b") for at in (90.5, 90.6))
    resync = Resync((runs,), told, boot="b")
    assert not _lost(decide(memory, resync, 93.0).actions)
    # The first of the two was heard live.
    resync = Resync((runs,), told[1:], boot="b")
    assert not _lost(decide(once, resync, 93.0).actions)


def _lost(actions: Iterable[Action]) -> list[Exit]:
    return [a.exit for a in actions if isinstance(a, Row) and a.exit.invocation.startswith("lost-")]
