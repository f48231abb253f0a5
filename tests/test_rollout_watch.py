"""Watching what was changed: who is watched when, for how long, and what a failure ends."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from sysresp.model import Mode, Rollout
from sysresp.reconcile.apply import apply
from sysresp.reconcile.steps import (
    Plan,
    RunJobs,
    Settle,
    StartTransient,
    Verb,
)
from sysresp.units.desired import Desired, Policy
from tests.fakes import fake_host
from tests.plan_scenes import Entry, desired_of, jobs, plan_for, projects, scene
from tests.rollout_scenes import applied, is_stop, rolling, units_of, web

ACTING = (Verb.START, Verb.RESTART, Verb.RELOAD)


class TestLastWatch:
    def test_a_first_apply_settles(self) -> None:
        _, manager = scene()
        made = plan_for(fake_host(manager=manager), desired_of({"db": Entry(), "web": Entry(socket=1)}))
        assert rolling(made)[1:] == [Settle((("shop-db.service", 3.0), ("shop-web.service", 3.0)))]

    def test_not_what_has_no_time_to_settle(self) -> None:
        _, manager = scene()
        none = Policy(settle_sec=0.0)
        made = plan_for(fake_host(manager=manager), desired_of({"db": Entry(policy=none), "web": Entry()}))
        assert rolling(made)[1:] == [Settle((("shop-web.service", 3.0),))]
        made = plan_for(fake_host(manager=manager), desired_of({"db": Entry(policy=none)}))
        assert not any(isinstance(step, Settle) for step in made.steps)

    def test_not_what_is_only_stopped(self) -> None:
        host, _ = applied({"db": Entry(), "web": Entry()})
        made = plan_for(host, desired_of({"db": Entry()}))
        assert not any(isinstance(step, Settle) for step in made.steps)

    def test_transient_units_settle_too(self) -> None:
        _, manager = scene()
        host = fake_host(manager=manager)
        wanted = desired_of({"db": Entry(policy=Policy(settle_sec=0.0)), "web": Entry(instances=2)})
        made = plan_for(host, wanted, Mode.TRANSIENT)
        kinds = [type(step) for step in made.steps if isinstance(step, StartTransient | Settle)]
        assert kinds == [StartTransient] * 3 + [Settle]
        assert Settle(((web(1), 3.0), (web(2), 3.0))) in made.steps
        assert Settle((("shop-db.service", 1.0), (web(1), 1.0), (web(2), 1.0))) in (
            plan_for(host, wanted, Mode.TRANSIENT, settle_sec=1.0).steps
        )


def _at_once(wanted: Desired) -> Desired:
    """Return the same with nothing in batches."""
    everything = Rollout(parallel=1000)
    return replace(
        wanted, policies={name: replace(p, rollout=everything) for name, p in wanted.policies.items()}
    )


class TestDrawn:
    @given(projects(), projects(), st.sets(st.integers(0, 30)), st.none() | st.just(2.0))
    def test_batches_are_right(
        self, first: dict[str, Entry], second: dict[str, Entry], down: set[int], settle_sec: float | None
    ) -> None:
        host, manager = applied(first)
        for number, name in enumerate(sorted(manager.loaded)):
            if number in down and name.endswith(".service"):
                manager.set_state(name, "activating", "auto-restart")
        wanted = desired_of(second)
        made = plan_for(host, wanted, settle_sec=settle_sec)
        plain = plan_for(host, _at_once(wanted), settle_sec=settle_sec)
        assert sorted(jobs(made)) == sorted(jobs(plain))
        assert made.awaited == plain.awaited
        where: dict[str, int] = {}
        order = [step for step in made.steps if isinstance(step, RunJobs) and not is_stop(step)]
        for number, step in enumerate(order):
            for job in step.jobs:
                assert where.setdefault(job.unit, number) == number
        # Within a batch the order is the one of the plan without batches.
        for step in order:
            positions = [jobs(plain).index((job.verb.value, job.unit)) for job in step.jobs]
            assert positions == sorted(positions)
        for one in made.rollouts:
            policy = wanted.policies[one.service]
            assert one.settle_sec == (policy.settle_sec if settle_sec is None else settle_sec)
            ours = {unit.name for unit in wanted.units.values() if unit.service == one.service and unit.main}
            up = sum(manager.loaded[name].active == "active" for name in ours & manager.loaded.keys())
            for number, batch in enumerate(one.batches):
                assert one.reason or len(batch) <= (policy.rollout.parallel or max(1, up // 4))
                assert {where[name] for name in batch} == {number}
        self.each_is_watched_once_after_its_jobs(made, wanted, settle_sec)

    def each_is_watched_once_after_its_jobs(
        self, made: Plan, wanted: Desired, settle_sec: float | None
    ) -> None:
        watched: dict[str, float] = {}
        done: set[str] = set()
        pulled = {
            name for step in made.steps if isinstance(step, RunJobs) for j in step.jobs for name in j.pulls
        }
        for step in made.steps:
            if isinstance(step, RunJobs):
                done |= set(units_of(step))
            elif isinstance(step, Settle):
                assert step.units
                for name, sec in step.units:
                    assert name not in watched
                    watched[name] = sec
        acted = {a.unit: a.service for a in made.awaited if a.verb in ACTING and a.unit.endswith(".service")}
        policies = wanted.policies
        due = {n: policies[s].settle_sec if settle_sec is None else settle_sec for n, s in acted.items()}
        assert {n: sec for n, sec in watched.items() if sec} == {n: sec for n, sec in due.items() if sec}
        along = acted.keys() - done - pulled
        last = made.steps[-2] if watched and any(watched.values()) else None
        assert not along or isinstance(last, Settle) or not any(due[name] for name in along)


class TestDone:
    """With the real executor, in virtual time."""

    def test_a_bad_releaseis_stopped_after_the_first_batch(self) -> None:
        host, manager = applied({"web": Entry(instances=8)})
        runs = {name: unit.invocation for name, unit in manager.loaded.items()}
        manager.crash[web(2)] = "exit-code"
        made = plan_for(host, desired_of({"web": Entry(2, instances=8)}))
        done = apply(made, host)
        assert [found.unit for found in done.failures] == [web(2)]
        assert done.unbegun == tuple(web(n) for n in range(3, 9))
        touched = {name for name, unit in manager.loaded.items() if unit.invocation != runs[name]}
        assert touched == {web(1), web(2)}

    def test_so_is_one_that_falls_while_it_settles(self) -> None:
        host, manager = applied({"web": Entry(instances=2)})
        manager.clock.at(manager.clock.monotonic() + 2.0, lambda: manager.set_state(web(1), "failed"))
        done = apply(plan_for(host, desired_of({"web": Entry(2, instances=2)})), host)
        assert [found.unit for found in done.failures] == [web(1)]
        assert done.unbegun == (web(2),)

    def test_one_that_may_fail_is_told_and_holds_up_nobody(self) -> None:
        policy = Policy(rollout=Rollout(1, 5.0, stop_on_failure=False))
        host, manager = applied({"web": Entry(instances=3)})
        manager.crash[web(1)] = "exit-code"
        began = host.clock.monotonic()
        done = apply(plan_for(host, desired_of({"web": Entry(2, instances=3, policy=policy)})), host)
        assert [found.unit for found in done.failures] == [web(1)]
        assert done.unbegun == ()
        assert done.counts == {Verb.RESTART: 2}
        # Nobody waits for the one that fell; two settle, and there are two pauses.
        assert host.clock.monotonic() - began == 2 * 3.0 + 2 * 5.0

    def test_the_others_settle_to_the_end_beside_one_that_may_fail(self) -> None:
        _, manager = scene()
        host = fake_host(manager=manager)
        wanted = {"extra": Entry(policy=Policy(ignore_start_failure=True)), "web": Entry()}
        manager.crash["shop-extra.service"] = "exit-code"
        manager.clock.at(
            manager.clock.monotonic() + 2.0, lambda: manager.set_state("shop-web.service", "failed")
        )
        done = apply(plan_for(host, desired_of(wanted)), host)
        assert {found.unit for found in done.failures} == {"shop-extra.service", "shop-web.service"}
