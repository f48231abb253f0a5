"""What apply does to a host: undo, Ctrl-C, and the truth after the jobs."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysresp.errors import Exit, SysrespError
from sysresp.ports import JobRemoved, UnitProblem
from sysresp.reconcile.apply import WINDOW, Event, apply
from sysresp.reconcile.manifest import load
from sysresp.reconcile.outcome import UnitOutcome
from sysresp.reconcile.steps import Awaited, Job, JobVerb, Plan, RunJobs, Verb
from tests.fakes import FakeFiles, FakeJournal, FakeManager, fake_host
from tests.plan_scenes import MANIFEST, UNIT_DIR, Entry, clock, converge, desired_of, plan_for, projects

TWO = {"db": Entry(), "web": Entry(requires=("db",))}
NEXT = {"db": Entry(version=2), "new": Entry(instances=2), "sock": Entry(socket=1)}


class Cut(FakeManager):
    """Ctrl-C strikes at the n-th call that changes something, or at the n-th wait."""

    countdown = -1
    after = False  # strikes when the call is done

    def _strike(self) -> None:
        self.countdown -= 1
        if self.countdown == 0:
            raise KeyboardInterrupt

    def _job(self, method: str, name: str) -> int:
        if not self.after:
            self._strike()
        job = super()._job(method, name)
        if self.after:
            self._strike()
        return job

    def reload(self) -> None:
        self._strike()
        super().reload()

    def wait(
        self, jobs: Iterable[int], timeout_sec: float, on_removed: Callable[[JobRemoved], None]
    ) -> set[int]:
        self._strike()
        return super().wait(jobs, timeout_sec, on_removed)


class CutFiles(FakeFiles):
    """Ctrl-C strikes at the n-th change."""

    countdown = -1

    def _change(self, *operation: str) -> None:
        super()._change(*operation)
        self.countdown -= 1
        if self.countdown == 0:
            raise KeyboardInterrupt


def snapshot(files: FakeFiles) -> tuple[dict[str, bytes], dict[str, str]]:
    return dict(files.files), dict(files.links)


def active(manager: FakeManager) -> set[str]:
    return {name for name, unit in manager.loaded.items() if unit.active == "active"}


class TestFileErrors:
    @pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS, errno.EACCES])
    @pytest.mark.parametrize("first", [{}, TWO])
    def test_at_each_operation_nothing_has_changed(self, first: dict[str, Entry], error: int) -> None:
        for n in range(1, 100):
            files = FakeFiles()
            manager = FakeManager(files)
            host = fake_host(manager=manager)
            if first:
                converge(host, desired_of(first))
            before, up = snapshot(files), active(manager)
            made = plan_for(host, desired_of(NEXT))
            files.fail_at(n, error)
            failed: SysrespError | None = None
            try:
                done = apply(made, host, now=clock())
            except SysrespError as why:
                failed = why
            if failed is not None:
                assert "cannot " in failed.message
                if failed.message.endswith("nothing was changed"):
                    assert snapshot(files) == before
                    assert active(manager) == up
                else:  # the last word of the manifest: all else was done
                    assert MANIFEST in failed.message
                    assert "run the same command again" in failed.hint
                    assert converge(host, desired_of(NEXT)).ok
                    assert plan_for(host, desired_of(NEXT)).is_noop
            else:
                assert done.ok
                assert n > 10
                return
        pytest.fail("the plan never came to its end")

    def test_the_message_names_file_and_reason(self) -> None:
        files = FakeFiles()
        host = fake_host(files)
        files.fail_on(UNIT_DIR, errno.EROFS)
        with pytest.raises(SysrespError) as caught:
            apply(plan_for(host, desired_of(TWO)), host, now=clock())
        assert caught.value.message == (
            "cannot write /etc/systemd/system/shop-db.service: Read-only file system; nothing was changed"
        )
        assert "--runtime" in caught.value.hint
        assert snapshot(files) == ({}, {})

    def test_what_cannot_be_put_back_is_named(self) -> None:
        files = FakeFiles()
        host = fake_host(files)
        made = plan_for(host, desired_of(TWO))
        files.fail_at(3)
        files.fail_at(4)  # the undo of shop-db.service
        with pytest.raises(SysrespError) as caught:
            apply(made, host, now=clock())
        assert "nothing was changed" not in caught.value.message
        assert "shop-db.service" in caught.value.hint

    def test_a_refused_reload_is_undone(self) -> None:
        files = FakeFiles()
        manager = FakeManager(files)
        host = fake_host(manager=manager)
        converge(host, desired_of(TWO))
        before = snapshot(files)
        manager.raises["reload"] = SysrespError("no", exit=Exit.DENIED)
        made = plan_for(host, desired_of(NEXT))
        with pytest.raises(SysrespError) as caught:
            apply(made, host, now=clock())
        assert caught.value.exit is Exit.DENIED
        assert snapshot(files) == before
        assert {"shop-db.service", "shop-web.service"} <= active(manager)

    def test_a_refused_reload_that_cannot_be_undone(self) -> None:
        files = FakeFiles()
        manager = FakeManager(files)
        host = fake_host(manager=manager)
        converge(host, desired_of({"db": Entry()}))
        manager.raises["reload"] = SysrespError("no", exit=Exit.DENIED)
        made = plan_for(host, desired_of({"db": Entry(version=2)}))
        files.fail_at(3)
        with pytest.raises(SysrespError, match="no") as caught:
            apply(made, host, now=clock())
        assert "could not be put back" in caught.value.hint

    def test_a_stop_that_is_refused_keeps_the_file(self) -> None:
        files = FakeFiles()
        manager = FakeManager(files)
        host = fake_host(manager=manager)
        converge(host, desired_of(TWO))
        before = snapshot(files)
        manager.refuse["shop-web.service"] = "TransactionIsDestructive"
        with pytest.raises(SysrespError, match=r"cannot stop shop-web\.service"):
            apply(plan_for(host, desired_of({"db": Entry()})), host, now=clock())
        assert snapshot(files) == before

    def test_systemd_going_away_later_leaves_what_is_owed(self) -> None:
        files = FakeFiles()
        manager = FakeManager(files)
        host = fake_host(manager=manager)
        manager.raises["start"] = SysrespError("gone", exit=Exit.UNREACHABLE)
        with pytest.raises(SysrespError, match="gone"):
            apply(plan_for(host, desired_of(TWO)), host, now=clock())
        manifest = load(files, MANIFEST)
        assert manifest is not None
        assert set(manifest.pending) == {"shop.target", "shop-db.service", "shop-web.service"}
        manager.raises.clear()
        assert converge(host, desired_of(TWO)).counts == {Verb.START: 3}


class TestInterrupt:
    @pytest.mark.parametrize("after", [False, True])
    @pytest.mark.parametrize("first", [{}, TWO])
    def test_at_any_job_the_next_run_converges(self, first: dict[str, Entry], after: bool) -> None:
        for n in range(1, 100):
            files = FakeFiles()
            manager = Cut(files)
            host = fake_host(manager=manager)
            if first:
                converge(host, desired_of(first))
            manager.countdown, manager.after = n, after
            done = apply(plan_for(host, desired_of(NEXT)), host, now=clock())
            manager.countdown = -1
            if not done.interrupted:
                assert done.ok
                assert n > 2
                return
            assert not done.ok
            assert not done.undone or not (done.unbegun or done.unfinished)
            if n % 2:
                manager.wait([], 0, lambda _: None)  # the jobs that are queued end without us
            again = converge(host, desired_of(NEXT))
            assert again.failures == ()
            assert plan_for(host, desired_of(NEXT)).is_noop
            wanted = {unit.name for unit in desired_of(NEXT).units.values() if unit.start}
            assert wanted - active(manager) == {"shop.slice"}
            assert "shop-web.service" not in manager.loaded
            for name in wanted & manager.loaded.keys():
                assert manager.properties(name, "Unit", ["NeedDaemonReload"]) == {"NeedDaemonReload": False}
        pytest.fail("the plan never came to its end")

    def test_at_any_file_all_is_as_it_was(self) -> None:
        for n in range(1, 100):
            files = CutFiles()
            manager = FakeManager(files)
            host = fake_host(manager=manager)
            converge(host, desired_of(TWO))
            before = snapshot(files)
            made = plan_for(host, desired_of(NEXT))
            files.countdown = n
            try:
                done = apply(made, host, now=clock())
            except KeyboardInterrupt:
                assert len(files.changes()) > 10  # the confirmation itself was cut
                return
            if done.undone:
                assert snapshot(files) == before
            if not done.interrupted:
                return
            assert converge(host, desired_of(NEXT)).failures == ()
            assert plan_for(host, desired_of(NEXT)).is_noop
        pytest.fail("the plan never came to its end")

    @pytest.mark.parametrize(
        ("entry", "job"),
        [(Entry(config=2), "reload_unit"), (Entry(version=2), "restart")],
    )
    def test_what_was_not_asked_for_is_owed(self, entry: Entry, job: str) -> None:
        manager = Cut()
        host = fake_host(manager=manager)
        converge(host, desired_of({"db": Entry()}))
        manager.countdown = 2
        assert apply(plan_for(host, desired_of({"db": entry})), host, now=clock()).unbegun == (
            "shop-db.service",
        )
        manager.countdown = -1
        made = plan_for(host, desired_of({"db": entry}))
        assert made.changes[0].reason.startswith("the last apply was cut before its re")
        assert apply(made, host, now=clock()).ok
        assert (job, "shop-db.service") in manager.calls
        assert plan_for(host, desired_of({"db": entry})).is_noop

    def test_it_says_where_things_stand(self) -> None:
        files = FakeFiles()
        manager = Cut(files)
        host = fake_host(manager=manager)
        converge(host, desired_of({}))
        manager.countdown = 3  # the reload, the first job, the second
        done = apply(plan_for(host, desired_of(TWO)), host, now=clock())
        assert done.interrupted
        assert done.unfinished == ("shop-db.service",)
        assert done.unbegun == ("shop-web.service",)
        manifest = load(files, MANIFEST)
        assert manifest is not None
        assert manifest.pending == ("shop-db.service", "shop-web.service")
        assert not manifest.unfinished

    @given(projects(), projects(), st.integers(1, 12))
    def test_drawn(self, first: dict[str, Entry], second: dict[str, Entry], n: int) -> None:
        manager = Cut()
        host = fake_host(manager=manager)
        converge(host, desired_of(first))
        manager.countdown = n
        apply(plan_for(host, desired_of(second)), host, now=clock())
        manager.countdown = -1
        assert converge(host, desired_of(second)).failures == ()
        assert plan_for(host, desired_of(second)).is_noop
        wanted = {unit.name for unit in desired_of(second).units.values() if unit.start}
        assert wanted - active(manager) <= {"shop.slice"}

    def test_time_is_up(self) -> None:
        manager = FakeManager()
        host = fake_host(manager=manager)
        manager.stuck.add("shop-web.service")
        done = apply(plan_for(host, desired_of(TWO)), host, timeout_sec=5, now=clock())
        assert done.timed_out
        assert not done.ok
        assert "shop-web.service" in done.unfinished

    def test_time_is_up_while_stopping(self) -> None:
        files = FakeFiles()
        manager = FakeManager(files)
        host = fake_host(manager=manager)
        converge(host, desired_of(TWO))
        manager.stuck.add("shop-web.service")
        done = apply(plan_for(host, desired_of({"db": Entry()})), host, timeout_sec=5, now=clock())
        assert done.unfinished == ("shop-web.service",)
        assert files.read(f"{UNIT_DIR}/shop-web.service") is not None  # its file stays until it is stopped
        manager.stuck.clear()
        assert converge(host, desired_of({"db": Entry()})).ok
        assert files.read(f"{UNIT_DIR}/shop-web.service") is None


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
        assert failure.job_result == "done"
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
        assert [f.why for f in done.failures][1] == "it was not started, and nothing tells why"

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
        assert apply(made, fake_host(manager=manager), now=clock()).counts == {Verb.STOP: 600}
        assert 200 < manager.most_jobs <= WINDOW

    def test_events_count_what_systemd_starts_itself(self) -> None:
        seen: list[Event] = []
        host = fake_host()
        apply(plan_for(host, desired_of(TWO)), host, on_event=seen.append, now=clock())
        ends = [event for event in seen if event.removed is not None]
        assert [(e.finished, e.total) for e in ends] == [(1, 3), (2, 3), (3, 3)]
        assert all(event.step is not None for event in seen if event.removed is None)

    def test_one_look_at_the_end(self) -> None:
        manager = FakeManager()
        host = fake_host(manager=manager)
        made = plan_for(host, desired_of({f"s{n}": Entry() for n in range(50)}))
        manager.calls.clear()
        apply(made, host, now=clock())
        calls = [call[0] for call in manager.calls]
        assert sorted(set(calls)) == ["pending_jobs", "start", "subscribe", "units", "wait"]
        assert calls.count("start") == calls.count("units") == 1

    def test_what_went_away_meanwhile_needs_no_stop(self) -> None:
        manager = FakeManager()
        host = fake_host(manager=manager)
        converge(host, desired_of(TWO))
        made = plan_for(host, desired_of({"db": Entry()}))
        manager.refuse["shop-web.service"] = "NoSuchUnit"
        manager.loaded["shop-web.service"].active = "inactive"
        assert apply(made, host, now=clock()).ok

    def test_a_failed_state_that_cannot_be_reset_is_no_error(self) -> None:
        manager = FakeManager()
        host = fake_host(manager=manager)
        converge(host, desired_of({"db": Entry()}))
        manager.set_state("shop-db.service", "failed")
        manager.raises["reset_failed"] = UnitProblem("shop-db.service", "NoSuchUnit", "not loaded")
        assert converge(host, desired_of({"db": Entry()})).ok
