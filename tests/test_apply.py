"""What apply does to a host: undo, Ctrl-C, and the truth after the jobs."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysresp.errors import Exit, SysrespError
from sysresp.ports import JobRemoved
from sysresp.reconcile.apply import apply
from sysresp.reconcile.manifest import load
from sysresp.reconcile.steps import Verb
from tests.fakes import FakeFiles, FakeManager, fake_host
from tests.plan_scenes import MANIFEST, UNIT_DIR, Entry, converge, desired_of, plan_for, projects

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


class Stuck(FakeFiles):
    """The file system has become read-only when it is time to put things back."""

    def undo(self) -> list[str]:
        self.fail_on(f"{UNIT_DIR}/shop-db.service", errno.EROFS)
        return super().undo()


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
                done = apply(made, host)
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
            apply(plan_for(host, desired_of(TWO)), host)
        assert caught.value.message == (
            "cannot write /etc/systemd/system/shop-db.service: Read-only file system; nothing was changed"
        )
        assert "--runtime" in caught.value.hint
        assert snapshot(files) == ({}, {})

    def test_what_cannot_be_put_back_is_named(self) -> None:
        files = Stuck()
        host = fake_host(files)
        made = plan_for(host, desired_of(TWO))
        files.fail_at(3)
        with pytest.raises(SysrespError) as caught:
            apply(made, host)
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
            apply(made, host)
        assert caught.value.exit is Exit.DENIED
        assert snapshot(files) == before
        assert {"shop-db.service", "shop-web.service"} <= active(manager)

    def test_a_refused_reload_that_cannot_be_undone(self) -> None:
        files = Stuck()
        manager = FakeManager(files)
        host = fake_host(manager=manager)
        converge(host, desired_of({"db": Entry()}))
        manager.raises["reload"] = SysrespError("no", exit=Exit.DENIED)
        made = plan_for(host, desired_of({"db": Entry(version=2)}))
        with pytest.raises(SysrespError, match="no") as caught:
            apply(made, host)
        assert "could not be put back" in caught.value.hint

    def test_a_stop_that_is_refused_keeps_the_file(self) -> None:
        files = FakeFiles()
        manager = FakeManager(files)
        host = fake_host(manager=manager)
        converge(host, desired_of(TWO))
        before = snapshot(files)
        manager.refuse["shop-web.service"] = "TransactionIsDestructive"
        with pytest.raises(SysrespError, match=r"cannot stop shop-web\.service"):
            apply(plan_for(host, desired_of({"db": Entry()})), host)
        assert snapshot(files) == before

    def test_systemd_going_away_later_leaves_what_is_owed(self) -> None:
        files = FakeFiles()
        manager = FakeManager(files)
        host = fake_host(manager=manager)
        manager.raises["start"] = SysrespError("gone", exit=Exit.UNREACHABLE)
        with pytest.raises(SysrespError, match="gone"):
            apply(plan_for(host, desired_of(TWO)), host)
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
            done = apply(plan_for(host, desired_of(NEXT)), host)
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
                done = apply(made, host)
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
        assert apply(plan_for(host, desired_of({"db": entry})), host).unbegun == ("shop-db.service",)
        manager.countdown = -1
        made = plan_for(host, desired_of({"db": entry}))
        assert made.changes[0].reason.startswith("the last apply was cut before its re")
        assert apply(made, host).ok
        assert (job, "shop-db.service") in manager.calls
        assert plan_for(host, desired_of({"db": entry})).is_noop

    def test_it_says_where_things_stand(self) -> None:
        files = FakeFiles()
        manager = Cut(files)
        host = fake_host(manager=manager)
        converge(host, desired_of({}))
        manager.countdown = 3  # the reload, the first job, the second
        done = apply(plan_for(host, desired_of(TWO)), host)
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
        apply(plan_for(host, desired_of(second)), host)
        manager.countdown = -1
        assert converge(host, desired_of(second)).failures == ()
        assert plan_for(host, desired_of(second)).is_noop
        wanted = {unit.name for unit in desired_of(second).units.values() if unit.start}
        assert wanted - active(manager) <= {"shop.slice"}

    def test_time_is_up(self) -> None:
        manager = FakeManager()
        host = fake_host(manager=manager)
        manager.stuck.add("shop-web.service")
        done = apply(plan_for(host, desired_of(TWO)), host, timeout_sec=5)
        assert done.timed_out
        assert not done.ok
        assert "shop-web.service" in done.unfinished

    def test_time_is_up_while_stopping(self) -> None:
        files = FakeFiles()
        manager = FakeManager(files)
        host = fake_host(manager=manager)
        converge(host, desired_of(TWO))
        manager.stuck.add("shop-web.service")
        done = apply(plan_for(host, desired_of({"db": Entry()})), host, timeout_sec=5)
        assert done.unfinished == ("shop-web.service",)
        assert files.read(f"{UNIT_DIR}/shop-web.service") is not None  # its file stays until it is stopped
        manager.stuck.clear()
        assert converge(host, desired_of({"db": Entry()})).ok
        assert files.read(f"{UNIT_DIR}/shop-web.service") is None
