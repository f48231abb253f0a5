"""How the instances of a service are changed: so many at a time, each batch watched before the next."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysresp.cli import plan_text
from sysresp.model import Rollout
from sysresp.reconcile.decide import Needs, Verdict
from sysresp.reconcile.observe import observe
from sysresp.reconcile.rollout import Acting
from sysresp.reconcile.steps import (
    Job,
    JobVerb,
    Pause,
    RunJobs,
    Settle,
    Verb,
)
from sysresp.units.desired import Policy
from tests.plan_scenes import Entry, converge, desired_of, jobs, plan_for
from tests.rollout_scenes import applied, changed, rolling, units_of, web


class TestBatches:
    @pytest.mark.parametrize(
        ("instances", "parallel", "sizes"),
        [
            (8, 1, [1] * 8),
            (8, 3, [3, 3, 2]),
            (8, None, [2, 2, 2, 2]),
            (3, None, [1, 1, 1]),
            (15, None, [3, 3, 3, 3, 3]),
            (2, 1, [1, 1]),
            (8, 8, [8]),
            (8, 1000, [8]),
            (1, 1, [1]),
        ],
    )
    def test_so_many_at_a_time(self, instances: int, parallel: int | None, sizes: list[int]) -> None:
        policy = Policy(rollout=Rollout(parallel))
        for made, verb in zip(
            changed(Entry(instances=instances, policy=policy)),
            (JobVerb.RESTART, JobVerb.RELOAD),
            strict=True,
        ):
            batches = [step.jobs for step in made.steps if isinstance(step, RunJobs)]
            assert [len(batch) for batch in batches] == sizes
            expected = [Job(verb, web(n)) for n in range(1, instances + 1)]
            assert [job for batch in batches for job in batch] == expected
            assert bool(made.rollouts) == (len(sizes) > 1)

    def test_each_batch_settles_before_a_pause_and_the_next(self) -> None:
        policy = Policy(settle_sec=10.0, rollout=Rollout(2, 5.0))
        made, _ = changed(Entry(instances=5), policy=policy)
        assert rolling(made) == [
            RunJobs((Job(JobVerb.RESTART, web(1)), Job(JobVerb.RESTART, web(2)))),
            Settle(((web(1), 10.0), (web(2), 10.0))),
            Pause(5.0),
            RunJobs((Job(JobVerb.RESTART, web(3)), Job(JobVerb.RESTART, web(4)))),
            Settle(((web(3), 10.0), (web(4), 10.0))),
            Pause(5.0),
            RunJobs((Job(JobVerb.RESTART, web(5)),)),
            Settle(((web(5), 10.0),)),
        ]

    def test_without_a_time_to_settle_a_batch_must_be_up_all_the_same(self) -> None:
        policy = Policy(settle_sec=0.0, rollout=Rollout(1))
        made, _ = changed(Entry(instances=2), policy=policy)
        assert rolling(made) == [
            RunJobs((Job(JobVerb.RESTART, web(1)),)),
            Settle(((web(1), 0.0),)),
            RunJobs((Job(JobVerb.RESTART, web(2)),)),
        ]

    @pytest.mark.parametrize(
        "policy",
        [
            Policy(rollout=Rollout(1, stop_on_failure=False)),
            Policy(rollout=Rollout(1), ignore_start_failure=True),
        ],
    )
    def test_a_failure_that_stops_nothing(self, policy: Policy) -> None:
        made, _ = changed(Entry(instances=2), policy=policy)
        assert Settle(((web(1), 3.0),), frozenset({web(1)})) in made.steps
        assert [one.stop_on_failure for one in made.rollouts] == [False]

    def test_the_command_line_wins(self) -> None:
        host, _ = applied({"web": Entry(instances=2), "db": Entry()})
        two = {"web": Entry(2, instances=2, policy=Policy(settle_sec=0.0)), "db": Entry(2)}
        made = plan_for(host, desired_of(two), settle_sec=7.0)
        settles = [step.units for step in made.steps if isinstance(step, Settle)]
        assert {sec for units in settles for _, sec in units} == {7.0}
        none = plan_for(host, desired_of(two), settle_sec=0.0)
        assert [sec for step in none.steps if isinstance(step, Settle) for _, sec in step.units] == [
            0.0,
            0.0,
        ]

    def test_two_services_roll_side_by_side_with_the_rest_in_the_first_batch(self) -> None:
        before = {
            "cron": Entry(),
            "mail": Entry(instances=2),
            "web": Entry(instances=3),
        }
        after = {
            "cron": Entry(2, policy=Policy(settle_sec=9.0)),
            "extra": Entry(policy=Policy(ignore_start_failure=True)),
            "mail": Entry(2, instances=2, policy=Policy(rollout=Rollout(1, 7.0, stop_on_failure=False))),
            "web": Entry(2, instances=3, policy=Policy(settle_sec=1.0, rollout=Rollout(1, 4.0))),
        }
        host, _ = applied(before)
        made = plan_for(host, desired_of(after))
        mails = [Job(JobVerb.RESTART, f"shop-mail@{n}.service") for n in (1, 2)]
        webs = [Job(JobVerb.RESTART, web(n)) for n in (1, 2, 3)]
        cron, extra = Job(JobVerb.RESTART, "shop-cron.service"), Job(JobVerb.START, "shop-extra.service")
        assert rolling(made) == [
            RunJobs((cron, extra, mails[0], webs[0])),
            Settle(
                (
                    ("shop-cron.service", 9.0),
                    ("shop-extra.service", 3.0),
                    ("shop-mail@1.service", 3.0),
                    (web(1), 1.0),
                ),
                frozenset({"shop-extra.service", "shop-mail@1.service"}),
            ),
            Pause(7.0),
            RunJobs((mails[1], webs[1])),
            Settle(
                (("shop-mail@2.service", 3.0), (web(2), 1.0)),
                frozenset({"shop-mail@2.service"}),
            ),
            Pause(4.0),
            RunJobs((webs[2],)),
            Settle(((web(3), 1.0),)),
        ]

    def test_what_is_down_goes_first_and_holds_up_nobody(self) -> None:
        host, manager = applied({"web": Entry(instances=4)})
        for number in (2, 3):
            manager.set_state(web(number), "activating", "auto-restart")
        manager.set_state(web(4), "failed")
        policy = Policy(rollout=Rollout(1))
        made = plan_for(host, desired_of({"web": Entry(2, instances=4, policy=policy)}))
        assert rolling(made) == [
            RunJobs((Job(JobVerb.RESTART, web(2)), Job(JobVerb.START, web(4)))),
            Settle(((web(2), 3.0), (web(4), 3.0)), frozenset({web(2), web(4)})),
            RunJobs((Job(JobVerb.RESTART, web(3)),)),
            Settle(((web(3), 3.0),), frozenset({web(3)})),
            RunJobs((Job(JobVerb.RESTART, web(1)),)),
            Settle(((web(1), 3.0),)),
        ]

    def test_a_service_that_had_failed_holds_up_nobody(self) -> None:
        host, manager = applied({"cron": Entry(), "db": Entry(), "web": Entry(instances=2)})
        manager.set_state("shop-cron.service", "failed")
        manager.set_state("shop-db.service", "activating", "auto-restart")
        made = plan_for(host, desired_of({"cron": Entry(), "db": Entry(), "web": Entry(2, instances=2)}))
        tried = ("shop-cron.service", "shop-db.service")
        assert [step for step in made.steps if isinstance(step, Settle)] == [
            Settle((*((name, 3.0) for name in tried), (web(1), 3.0)), frozenset(tried)),
            Settle(((web(2), 3.0),)),
        ]

    def test_the_usual_batch_is_a_quarter_of_what_runs(self) -> None:
        host, manager = applied({"web": Entry(instances=8)})
        for number in (1, 2):
            manager.wait([manager.stop(web(number))], 1, lambda _: None)
        manager.set_state(web(3), "activating", "auto-restart")
        made = plan_for(host, desired_of({"web": Entry(2, instances=8)}))
        assert [one.batches for one in made.rollouts] == [tuple((web(n),) for n in range(3, 9))]

    def test_sockets_of_instances_are_no_instances(self) -> None:
        host, _ = applied({"web": Entry(instances=4)})
        wanted = desired_of({"web": Entry(2, instances=4)})
        sockets = {
            name: replace(unit, name=name, main=False)
            for n in range(1, 5)
            for name, unit in [(f"shop-web@{n}.socket", wanted.units[web(n)])]
        }
        rows = dict(observe(host, "shop", wanted).units)
        rows |= {name: rows[web(1)]._replace(name=name, sub_state="listening") for name in sockets}
        both = replace(wanted, units={**wanted.units, **sockets})
        reloads = {web(n): Verdict(Verb.RELOAD) for n in range(1, 5)}
        assert [len(one.batches) for one in Acting(both, reloads, rows, {}, None).rollouts()] == [4]

    def test_a_changed_socket_takes_all_down_at_once(self) -> None:
        host, _ = applied({"web": Entry(instances=4, socket=1)})
        made = plan_for(host, desired_of({"web": Entry(2, instances=4, socket=2)}))
        assert len(rolling(made)) == 2
        assert made.rollouts == ()


class TestScaling:
    @given(st.integers(1, 9), st.integers(1, 9))
    def test_touches_no_other_instance(self, first: int, second: int) -> None:
        host, manager = applied({"web": Entry(instances=first)})
        runs = {name: unit.invocation for name, unit in manager.loaded.items()}
        wanted = desired_of({"web": Entry(instances=second)})
        made = plan_for(host, wanted)
        assert made.rollouts == ()
        assert not any(isinstance(step, Pause) for step in made.steps)
        added = {web(n) for n in range(first + 1, second + 1)}
        removed = {web(n) for n in range(second + 1, first + 1)}
        named = {name for step in made.steps if isinstance(step, RunJobs) for name in units_of(step)}
        assert named - {"shop.target"} == added | removed
        assert converge(host, wanted).ok
        stayed = {name for name, unit in manager.loaded.items() if unit.invocation == runs.get(name)}
        assert {web(n) for n in range(1, min(first, second) + 1)} <= stayed

    def test_together_with_a_change_the_new_ones_start_at_once(self) -> None:
        host, _ = applied({"web": Entry(instances=2)})
        policy = Policy(rollout=Rollout(1))
        made = plan_for(host, desired_of({"web": Entry(2, instances=4, policy=policy)}))
        started = [Job(JobVerb.START, web(n)) for n in (3, 4)]
        assert rolling(made)[:2] == [
            RunJobs((Job(JobVerb.RESTART, web(1)), *started)),
            Settle(((web(1), 3.0), (web(3), 3.0), (web(4), 3.0))),
        ]


class TestDependents:
    def test_instances_that_require_what_restarts_go_along_with_it(self) -> None:
        host, _ = applied({"db": Entry(), "web": Entry(instances=4, requires=("db",))})
        policy = Policy(rollout=Rollout(1))
        after = {"db": Entry(2), "web": Entry(2, instances=4, requires=("db",), policy=policy)}
        made = plan_for(host, desired_of(after))
        assert [len(step.jobs) for step in made.steps if isinstance(step, RunJobs)] == [5]
        (one,) = made.rollouts
        assert one.reason == "they restart along with shop-db.service"
        assert one.batches == (tuple(web(n) for n in range(1, 5)),)

    def test_those_that_only_go_along_are_in_no_batch(self) -> None:
        host, _ = applied({"db": Entry(), "web": Entry(instances=4, requires=("db",))})
        made = plan_for(host, desired_of({"db": Entry(2), "web": Entry(instances=4, requires=("db",))}))
        assert jobs(made) == [("restart", "shop-db.service")]
        assert made.rollouts == ()
        assert [step for step in made.steps if isinstance(step, Settle)] == [
            Settle((("shop-db.service", 3.0), *((web(n), 3.0) for n in range(1, 5))))
        ]

    def test_what_requires_the_instances_goes_down_once(self) -> None:
        host, _ = applied({"web": Entry(instances=4), "zoo": Entry(requires=("web",))})
        made = plan_for(host, desired_of({"web": Entry(2, instances=4), "zoo": Entry(requires=("web",))}))
        assert [len(step.jobs) for step in made.steps if isinstance(step, RunJobs)] == [4]
        (one,) = made.rollouts
        assert one.reason == "shop-zoo.service restarts along with them, and would with every batch"

    def test_the_file_may_ask_for_batches_all_the_same(self) -> None:
        host, _ = applied({"web": Entry(instances=4), "zoo": Entry(requires=("web",))})
        policy = Policy(rollout=Rollout(2))
        after = {"web": Entry(2, instances=4, policy=policy), "zoo": Entry(requires=("web",))}
        made = plan_for(host, desired_of(after))
        assert [len(step.jobs) for step in made.steps if isinstance(step, RunJobs)] == [2, 2]
        (one,) = made.rollouts
        assert one.reason == ""
        # The one that requires them restarts with every batch, and so settles after the last.
        assert [step for step in made.steps if isinstance(step, Settle)] == [
            Settle(((web(1), 3.0), (web(2), 3.0))),
            Settle(((web(3), 3.0), (web(4), 3.0), ("shop-zoo.service", 3.0))),
        ]

    def test_whatis_stopped_along_with_what_left_is_started_at_once(self) -> None:
        host, _ = applied({"db": Entry(), "web": Entry(instances=4, requires=("db",))})
        made = plan_for(host, desired_of({"web": Entry(2, instances=4)}))
        assert [len(step.jobs) for step in made.steps if isinstance(step, RunJobs)] == [1, 4]
        assert made.rollouts == ()

    def test_instances_that_require_each_other_are_one_service(self) -> None:
        host, _ = applied({"web": Entry(instances=4)})
        wanted = desired_of({"web": Entry(2, instances=4)})
        verdicts = {web(n): Verdict(Verb.RESTART) for n in range(1, 5)}
        alone: frozenset[str] = frozenset()
        depends = {name: Needs(alone, frozenset({web(1)}) - {name}, alone) for name in verdicts}
        acting = Acting(wanted, verdicts, observe(host, "shop", wanted).units, depends, None)
        assert [len(one.batches) for one in acting.rollouts()] == [4]


class TestShown:
    def test_as_text_and_as_an_object(self) -> None:
        policy = Policy(rollout=Rollout(2, 5.0))
        made, _ = changed(Entry(instances=3), policy=policy)
        text = plan_text.text(made, colour=False, unchanged=0)
        assert (
            "rollout:\n  web  3 instances, 2 at a time; each batch settles for 3s; "
            "a pause of 5s between them; a failure stops it\n\nplan: " in text
        )
        assert plan_text.as_object(made, 0)["rollouts"] == [
            {
                "service": "web",
                "batches": [[web(1), web(2)], [web(3)]],
                "settle": 3.0,
                "pause": 5.0,
                "stop_on_failure": True,
                "reason": None,
            }
        ]

    def test_what_is_not_said_does_not_happen(self) -> None:
        policy = Policy(settle_sec=0.0, rollout=Rollout(2, stop_on_failure=False))
        made, _ = changed(Entry(instances=3), policy=policy)
        text = plan_text.text(made, colour=False, unchanged=0)
        assert "  web  3 instances, 2 at a time; a failure does not stop it\n" in text

    def test_all_at_once_says_why(self) -> None:
        host, _ = applied({"web": Entry(instances=4), "zoo": Entry(requires=("web",))})
        made = plan_for(host, desired_of({"web": Entry(2, instances=4), "zoo": Entry(requires=("web",))}))
        assert (
            "  web  4 instances, all at once: shop-zoo.service restarts along with them, "
            "and would with every batch\n" in plan_text.text(made, colour=False, unchanged=0)
        )
