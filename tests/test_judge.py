"""Which failures are reasons to go back to the generation before."""

from __future__ import annotations

from dataclasses import replace

from sysresp.model import Mode, Scope
from sysresp.ports import UnitState
from sysresp.reconcile.judge import BEFORE, DEPENDS, IGNORED, failed_units, is_same, judge, stopped_units
from sysresp.reconcile.observe import Observed
from sysresp.reconcile.outcome import Outcome, UnitOutcome
from sysresp.reconcile.plan import manifest_of
from sysresp.reconcile.steps import Verb
from sysresp.units.desired import Policy
from tests.plan_scenes import TWO, Entry, desired_of

DB, WEB = "shop-db.service", "shop-web.service"


def failure(unit: str, verb: Verb = Verb.RESTART, culprit: str = "") -> UnitOutcome:
    service = unit.removeprefix("shop-").removesuffix(".service")
    return UnitOutcome(unit=unit, verb=verb, why="exit status 1", service=service, culprit=culprit)


def row(name: str, active: str, sub: str = "") -> UnitState:
    return UnitState(name, "", "loaded", active, sub or active, 0, "")


def outcome(*failures: UnitOutcome) -> Outcome:
    return Outcome(project="shop", failures=failures)


def test_a_failure_is_a_reason() -> None:
    seen = outcome(failure(DB))
    assert judge(seen, desired_of(TWO), Observed(), ()) == (seen.failures, ())


def test_what_had_failed_before_is_none() -> None:
    seen = outcome(failure(DB), failure(WEB))
    reasons, tolerated = judge(seen, desired_of(TWO), Observed(), (DB,))
    assert reasons == seen.failures[1:]
    assert tolerated == ((seen.failures[0], BEFORE),)


def test_what_may_fail_is_none() -> None:
    desired = replace(desired_of(TWO), policies={"db": Policy(ignore_start_failure=True)})
    seen = outcome(failure(DB))
    assert judge(seen, desired, Observed(), ()) == ((), ((seen.failures[0], IGNORED),))


def test_what_waits_for_an_excused_one_is_none_unless_it_ran() -> None:
    seen = outcome(failure(DB), failure(WEB, culprit=DB))
    _, tolerated = judge(seen, desired_of(TWO), Observed(), (DB,))
    assert tolerated[1] == (seen.failures[1], DEPENDS)
    ran = Observed(units={WEB: row(WEB, "active")})
    reasons, _ = judge(seen, desired_of(TWO), ran, (DB,))
    assert reasons == seen.failures[1:]


def test_what_does_not_stop_is_none() -> None:
    assert judge(outcome(failure(DB, Verb.STOP)), desired_of(TWO), Observed(), ()) == ((), ())


def test_the_time_before() -> None:
    manifest = manifest_of(desired_of(TWO), Scope.SYSTEM, Mode.PERSISTENT, ())
    up = {unit.name: row(unit.name, "active") for unit in manifest.units}
    assert stopped_units(manifest, Observed(units=up)) == ()
    assert failed_units(Observed(units=up)) == ()
    waits = {**up, DB: row(DB, "activating", "auto-restart"), WEB: row(WEB, "failed")}
    assert stopped_units(manifest, Observed(units=waits)) == ()
    assert failed_units(Observed(units=waits)) == (DB, WEB)
    off = {**up, DB: row(DB, "inactive")}
    assert stopped_units(manifest, Observed(units=off)) == (DB,)
    assert stopped_units(manifest._replace(pending=(DB,)), Observed(units=off)) == ()
    del off[DB]
    assert stopped_units(manifest, Observed(units=off)) == (DB,)


def test_the_very_same_content() -> None:
    desired = desired_of(TWO)
    manifest = manifest_of(desired, Scope.SYSTEM, Mode.PERSISTENT, ())
    assert is_same(desired, manifest, Mode.PERSISTENT)
    for other in ({**TWO, "db": Entry(version=2)}, {"db": Entry()}, {**TWO, "db": Entry(enabled=False)}):
        assert not is_same(desired_of(other), manifest, Mode.PERSISTENT)
    assert not is_same(replace(desired, links={}), manifest, Mode.PERSISTENT)
    services = tuple(unit for unit in manifest.units if unit.name.endswith(".service"))
    assert is_same(desired, manifest._replace(units=services, links=()), Mode.TRANSIENT)
    assert not is_same(desired, manifest, Mode.TRANSIENT)
