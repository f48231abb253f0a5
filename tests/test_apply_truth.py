"""What is told after the jobs: the state of the units, not the word of the job; and how jobs are queued."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from sysresp.ports import JobRemoved, UnitProblem
from sysresp.reconcile.apply import Event, apply
from sysresp.reconcile.jobs import WINDOW
from sysresp.reconcile.outcome import UnitOutcome
from sysresp.reconcile.steps import Awaited, Job, JobVerb, Plan, RunJobs, Verb
from tests.fakes import FakeJournal, FakeManager, fake_host
from tests.plan_scenes import Entry, converge, desired_of, plan_for

TWO = {"db": Entry(), "web": Entry(requires=("db",))}


def active(manager: FakeManager) -> set[str]:
    return {name for name, unit in manager.loaded.items() if unit.active == "active"}


class TestTruth:
    def one(self, manager: FakeManager, entries: dict[str, Entry] | None = None) -> UnitOutcome:
        journal = FakeJournal()
        journal.lines["shop-web.service"] = ["cannot bind"]
        host = fake_host(manager=manager, journal=journal)
        done = converge(host, desired_of(entries or {"web": Entry()}))
        assert not done.ok
        (failure,) = [f for f in done.failures if f.unit == "shop-web.service"]
        return failure

    def test_done_is_not_believed(self) -> None:
        manager = FakeManager()
        manager.crash["shop-web.service"] = "exit-code"
        failure = self.one(manager)
        assert failure.job_result == ""  # systemd made the job of the target's, and announces only that
        assert failure.why == "exit status 1"
        assert failure.cause == "command"
        assert failure.journal_tail == ("cannot bind",)
        assert failure.origin.line == 3
        assert failure.invocation_id

    def test_a_failed_job(self) -> None:
        manager = FakeManager()
        manager.fail["shop-web.service"] = "failed"
        manager.set_state("shop-web.service", "inactive").extra = {"ExecMainCode": 1, "ExecMainStatus": 203}
        failure = self.one(manager)
        assert failure.why == "the program could not be executed (203/EXEC)"
        assert (failure.exit_code, failure.status) == (1, 203)

    def test_a_crash_loop(self) -> None:
        manager = FakeManager()

        def crash(unit: str) -> None:
            if unit == "shop-web.service":
                manager.set_state(unit, "activating", "auto-restart", "exit-code")

        manager.on_start = crash
        assert self.one(manager).why == "exit status 1; systemd is trying again"

    def test_a_dependency_names_the_culprit(self) -> None:
        manager = FakeManager()
        manager.fail["shop-db.service"] = "failed"
        host = fake_host(manager=manager)
        manager.set_state("shop-web.service", "active").extra = {"Requires": ["shop-db.service"]}
        manager.loaded["shop-web.service"].active = "inactive"
        done = converge(host, desired_of(TWO))
        culprit = next(f for f in done.failures if f.unit == "shop-web.service")
        assert culprit.job_result == "dependency"
        assert culprit.culprit == "shop-db.service"
        assert culprit.why == "shop-db.service, which it requires, could not be started"
        assert culprit.cause == "requires"

    def test_a_dependency_outside_of_the_project(self) -> None:
        manager = FakeManager()
        manager.fail["shop-web.service"] = "dependency"
        manager.set_state("shop-web.service", "active").extra = {"Requires": ["nfs.service"]}
        manager.loaded["shop-web.service"].active = "inactive"
        assert self.one(manager).culprit == "nfs.service"

    def test_after_a_dependency_failure_the_next_apply_tries_again(self) -> None:
        manager = FakeManager()
        manager.fail["shop-db.service"] = "failed"
        host = fake_host(manager=manager)
        converge(host, desired_of(TWO))
        manager.fail.clear()
        assert converge(host, desired_of(TWO)).ok
        assert {"shop-db.service", "shop-web.service"} <= active(manager)

    def test_after_a_failed_restart_those_that_came_along_start_again(self) -> None:
        manager = FakeManager()
        host = fake_host(manager=manager)
        converge(host, desired_of(TWO))
        manager.fail["shop-db.service"] = "failed"
        assert not converge(host, desired_of({**TWO, "db": Entry(version=2)})).ok
        manager.fail.clear()
        assert converge(host, desired_of({**TWO, "db": Entry(version=3)})).ok
        assert {"shop-db.service", "shop-web.service"} <= active(manager)

    def test_skipped_is_no_failure(self) -> None:
        manager = FakeManager()
        manager.skip.add("shop-web.service")
        manager.set_state("shop-web.service", "inactive").extra = {"ConditionTimestamp": 1}
        done = converge(fake_host(manager=manager), desired_of({"web": Entry()}))
        assert done.ok
        assert [s.why for s in done.skipped] == ["a condition is not met"]

    def test_finished_is_no_failure(self) -> None:
        manager = FakeManager()
        manager.on_start = lambda unit: setattr(
            manager.loaded[unit], "active", "inactive" if unit == "shop-web.service" else "active"
        )
        done = converge(fake_host(manager=manager), desired_of({"web": Entry(oneshot=True)}))
        assert done.ok
        assert [s.why for s in done.skipped] == ["it has finished"]

    def test_a_refused_job(self) -> None:
        manager = FakeManager()
        host = fake_host(manager=manager)
        converge(host, desired_of({}))
        manager.refuse["shop-web.service"] = "UnitMasked"
        failure = self.one(manager)
        assert failure.why.startswith("the unit is masked")
        assert failure.job_result == ""

    def test_a_failed_reload(self) -> None:
        manager = FakeManager()
        host = fake_host(manager=manager)
        converge(host, desired_of({"web": Entry()}))
        manager.fail["shop-web.service"] = "failed"
        row = ("/bin/kill", ["/bin/kill"], False, 0, 0, 0, 0, 1, 1, 3)
        manager.loaded["shop-web.service"].extra = {"ExecReload": [row]}
        failure = self.one(manager, {"web": Entry(config=2)})
        assert failure.verb is Verb.RELOAD
        assert failure.why == "the job failed"
        assert failure.cause == "reload"

    def test_not_ready_in_time(self) -> None:
        manager = FakeManager()
        host = fake_host(manager=manager)
        manager.fail["shop-web.service"] = "failed"
        argv = ["/usr/bin/python3", "-I", host.paths.prober, "tcp"]
        fine = ("/bin/true", ["/bin/true"], False, 0, 0, 0, 0, 1, 1, 0)
        row = (argv[0], argv, False, 0, 0, 0, 0, 1, 1, 1)
        manager.set_state("shop-web.service", "active").extra = {
            "ExecStartPre": [fine],
            "ExecStartPost": [row],
        }
        manager.loaded["shop-web.service"].active = "inactive"
        failure = self.one(manager)
        assert failure.cause == "ready"
        assert failure.why == "it was not ready in time"

    @pytest.mark.parametrize(
        ("ended", "cause"), [(5, "command"), (7, "command"), (8, "ready"), (0, "ready")]
    )
    def test_the_main_process_ended_before_it_was_ready(self, ended: int, cause: str) -> None:
        manager = FakeManager()
        host = fake_host(manager=manager)
        manager.fail["shop-web.service"] = "failed"
        argv = ["/usr/bin/python3", "-I", host.paths.prober, "tcp"]
        manager.set_state("shop-web.service", "active").extra = {
            "ExecStartPost": [(argv[0], argv, False, 0, 1, 0, 7, 1, 1, 1)],
            "ExecMainExitTimestampMonotonic": ended,
            "ExecMainCode": 1,
            "ExecMainStatus": 3,
            "Result": "exit-code",
        }
        manager.loaded["shop-web.service"].active = "inactive"
        failure = self.one(manager)
        assert failure.cause == cause
        assert failure.why == ("it was not ready in time" if cause == "ready" else "exit status 3")

    def test_lost_signals_are_no_excuse(self) -> None:
        class Deaf(FakeManager):
            def wait(
                self, jobs: Iterable[int], timeout_sec: float, on_removed: Callable[[JobRemoved], None]
            ) -> set[int]:
                del on_removed
                return super().wait(jobs, timeout_sec, lambda _: None)

        manager = Deaf()
        manager.fail["shop-db.service"] = "failed"
        done = converge(fake_host(manager=manager), desired_of(TWO))
        assert {f.unit for f in done.failures} == {"shop-db.service", "shop-web.service"}
        assert done.failures[1].why == "shop-db.service, which it requires, could not be started"

    def test_a_socket_that_cannot_listen(self) -> None:
        manager = FakeManager()
        manager.crash["shop-web.socket"] = "resources"
        done = converge(fake_host(manager=manager), desired_of({"web": Entry(socket=1, on_demand=True)}))
        assert [(f.unit, f.result) for f in done.failures] == [("shop-web.socket", "resources")]


class TestJobs:
    def test_never_more_than_the_window(self) -> None:
        class Slow(FakeManager):
            """Only the jobs that are waited for end."""

            def wait(
                self, jobs: Iterable[int], timeout_sec: float, on_removed: Callable[[JobRemoved], None]
            ) -> set[int]:
                waiting, self.jobs = self.jobs, {job: self.jobs[job] for job in jobs}
                left = super().wait(jobs, timeout_sec, on_removed)
                self.jobs = {job: row for job, row in waiting.items() if job not in set(jobs) - left}
                return left

        manager = Slow()
        names = [f"shop-s{n}.service" for n in range(600)]
        for name in names:
            manager.set_state(name, "active").load = "loaded"
        made = Plan(
            project="shop",
            steps=(RunJobs(tuple(Job(JobVerb.STOP, name) for name in names)),),
            awaited=tuple(Awaited(name, Verb.STOP) for name in names),
        )
        assert apply(made, fake_host(manager=manager)).counts == {Verb.STOP: 600}
        assert 200 < manager.most_jobs <= WINDOW

    def test_events_count_what_systemd_starts_itself(self) -> None:
        seen: list[Event] = []
        host = fake_host()
        apply(plan_for(host, desired_of(TWO), settle_sec=0.0), host, on_event=seen.append)
        ends = [event for event in seen if event.removed is not None]
        assert [(e.finished, e.total) for e in ends] == [(1, 3)]
        assert all(event.step is not None for event in seen if event.removed is None)

    def test_progress_is_counted_in_the_queue(self) -> None:
        seen: list[Event] = []
        manager = FakeManager()
        manager.stuck.add("shop-web.service")
        host = fake_host(manager=manager)
        made = plan_for(host, desired_of(TWO))
        done = apply(made, host, on_event=seen.append, timeout_sec=30)
        assert done.timed_out
        assert "shop-web.service" in done.unfinished
        counted = [e.finished for e in seen if e.step is None and e.removed is None]
        assert counted == sorted(set(counted))
        assert counted

    def test_one_look_at_the_end(self) -> None:
        manager = FakeManager()
        host = fake_host(manager=manager)
        made = plan_for(host, desired_of({f"s{n}": Entry() for n in range(50)}), settle_sec=0.0)
        manager.calls.clear()
        apply(made, host)
        calls = [call[0] for call in manager.calls]
        assert sorted(set(calls)) == ["pending_jobs", "start", "units", "wait", "watch_jobs"]
        assert calls.count("start") == calls.count("units") == 1

    def test_what_went_away_meanwhile_needs_no_stop(self) -> None:
        manager = FakeManager()
        host = fake_host(manager=manager)
        converge(host, desired_of(TWO))
        made = plan_for(host, desired_of({"db": Entry()}))
        manager.refuse["shop-web.service"] = "NoSuchUnit"
        manager.loaded["shop-web.service"].active = "inactive"
        assert apply(made, host).ok

    def test_a_failed_state_that_cannot_be_reset_is_no_error(self) -> None:
        manager = FakeManager()
        host = fake_host(manager=manager)
        converge(host, desired_of({"db": Entry()}))
        manager.set_state("shop-db.service", "failed")
        manager.raises["reset_failed"] = UnitProblem("shop-db.service", "NoSuchUnit", "not loaded")
        assert converge(host, desired_of({"db": Entry()})).ok
