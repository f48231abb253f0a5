"""down, start, stop, restart and reload, and projects of transient units."""

from __future__ import annotations

import pytest
from hypothesis import given

from sysresp.errors import Exit, SysrespError
from sysresp.model import Mode
from sysresp.ports import Host, Paths
from sysresp.reconcile.act import act
from sysresp.reconcile.apply import apply
from sysresp.reconcile.manifest import Manifest, dumps, load
from sysresp.reconcile.observe import observe
from sysresp.reconcile.outcome import Outcome
from sysresp.reconcile.plan import plan_down
from sysresp.reconcile.steps import (
    DaemonReload,
    JobVerb,
    Plan,
    RemoveFile,
    StartTransient,
    Verb,
    WriteManifest,
)
from tests.fakes import FakeFiles, FakeManager, fake_host
from tests.plan_scenes import MANIFEST, UNIT_DIR, Entry, converge, desired_of, plan_for, projects

TWO = {"db": Entry(), "web": Entry(requires=("db",), instances=2)}
RUN = Paths(
    "/run/systemd/transient",
    "/run/sysresp",
    "/run/sysresp/ready.py",
    ("/run/systemd/transient", UNIT_DIR),
    "/run/sysresp",
)


def active(manager: FakeManager) -> set[str]:
    return {name for name, unit in manager.loaded.items() if unit.active == "active"}


def manifest_of(host: Host) -> Manifest:
    found = load(host.files, f"{host.paths.state_dir}/shop.json")
    assert found is not None
    return found


def down(host: Host, *names: str) -> tuple[Plan, Outcome]:
    manifest = manifest_of(host)
    made = plan_down(manifest, observe(host, "shop"), names, paths=host.paths)
    return made, apply(made, host)


class TestDown:
    @given(projects())
    def test_nothing_is_left(self, entries: dict[str, Entry]) -> None:
        files = FakeFiles()
        manager = FakeManager(files)
        host = fake_host(manager=manager)
        files.write("/etc/hosts", b"x")
        files.write(f"{UNIT_DIR}/shop-private.service", b"[Service]\nExecStart=/mine\n")
        before = set(files.files), set(files.dirs)
        converge(host, desired_of(entries))
        made, done = down(host)
        assert done.ok
        assert [type(s) for s in made.steps].count(DaemonReload) == 1
        assert (set(files.files), files.links) == (before[0], {})
        assert {name for name in active(manager) if name.startswith("shop")} == set()

    def test_some(self) -> None:
        files = FakeFiles()
        manager = FakeManager(files)
        host = fake_host(manager=manager)
        converge(host, desired_of(TWO))
        made, done = down(host, "web")
        assert done.counts == {Verb.STOP: 2}
        assert made.summary() == "2 to stop, 1 to remove"
        assert manifest_of(host).files == ("shop-db.service", "shop.slice", "shop.target")
        assert files.read(f"{UNIT_DIR}/shop-web@.service") is None
        assert active(manager) == {"shop-db.service", "shop.target"}
        assert converge(host, desired_of(TWO)).counts == {Verb.START: 2}

    def test_one_instance_leaves_the_file(self) -> None:
        files = FakeFiles()
        host = fake_host(files)
        converge(host, desired_of(TWO))
        made, _ = down(host, "web@1")
        assert made.summary() == "1 to stop"
        assert files.read(f"{UNIT_DIR}/shop-web@.service") is not None

    def test_unknown(self) -> None:
        host = fake_host()
        converge(host, desired_of(TWO))
        with pytest.raises(SysrespError) as caught:
            down(host, "wib")
        assert caught.value.exit is Exit.UNKNOWN

    def test_failed_units_are_forgotten(self) -> None:
        manager = FakeManager()
        host = fake_host(manager=manager)
        converge(host, desired_of(TWO))
        manager.set_state("shop-db.service", "failed")
        down(host)
        assert not any(name.startswith("shop-") for name in manager.loaded)

    def test_a_file_that_is_not_ours_stays(self) -> None:
        files = FakeFiles()
        manager = FakeManager(files)
        host = fake_host(manager=manager)
        converge(host, desired_of(TWO))
        files.write(f"{UNIT_DIR}/shop-db.service", b"[Service]\nExecStart=/mine\n")
        made, _ = down(host)
        assert [k.unit for k in made.keeps] == ["shop-db.service"]
        assert files.read(f"{UNIT_DIR}/shop-db.service") is not None

    @pytest.mark.parametrize("n", range(1, 14))
    def test_cut_it_can_be_taken_up_again_both_ways(self, n: int) -> None:
        for way in (down, None):
            files = FakeFiles()
            manager = FakeManager(files)
            host = fake_host(manager=manager)
            converge(host, desired_of(TWO))
            manifest = manifest_of(host)
            made = plan_down(manifest, observe(host, "shop"), paths=host.paths)
            files.fail_at(n)
            try:
                apply(made, host)
            except SysrespError:
                assert manifest_of(host) == manifest
                assert {"shop-db.service", "shop-web@1.service"} <= active(manager)
            else:
                continue
            if way is None:
                assert converge(host, desired_of(TWO)).ok
                assert plan_for(host, desired_of(TWO)).is_noop
                assert {"shop-db.service", "shop-web@1.service"} <= active(manager)
            else:
                down(host)
                assert files.read(MANIFEST) is None


class TestActions:
    def act(self, host: Host, verb: JobVerb, *names: str) -> Outcome:
        return act(verb, manifest_of(host), names, host)

    def test_stop_and_start(self) -> None:
        manager = FakeManager()
        host = fake_host(manager=manager)
        converge(host, desired_of({**TWO, "sock": Entry(socket=1)}))
        assert self.act(host, JobVerb.STOP, "web", "sock").counts == {Verb.STOP: 4}
        stops = [call[1] for call in manager.calls if call[0] == "stop"]
        assert stops[0] == "shop-sock.socket"
        assert active(manager) == {"shop-db.service", "shop.target"}
        made = plan_for(host, desired_of({**TWO, "sock": Entry(socket=1)}))
        assert made.is_noop
        assert len(made.keeps) == 4
        assert self.act(host, JobVerb.START, "web", "sock").counts == {Verb.START: 4}

    def test_one_instance_and_a_whole_unit(self) -> None:
        manager = FakeManager()
        host = fake_host(manager=manager)
        converge(host, desired_of(TWO))
        self.act(host, JobVerb.RESTART, "web@2", "shop-db.service")
        restarts = [call[1] for call in manager.calls if call[0] == "restart"]
        assert restarts == ["shop-db.service", "shop-web@2.service"]
        assert self.act(host, JobVerb.RELOAD, "db").counts == {Verb.RELOAD: 1}

    def test_all(self) -> None:
        manager = FakeManager()
        host = fake_host(manager=manager)
        converge(host, desired_of(TWO))
        assert self.act(host, JobVerb.STOP).counts == {Verb.STOP: 3}
        assert self.act(host, JobVerb.RELOAD).counts == {}

    def test_a_failed_unit_is_reset_first(self) -> None:
        manager = FakeManager()
        host = fake_host(manager=manager)
        converge(host, desired_of(TWO))
        manager.set_state("shop-db.service", "failed")
        assert self.act(host, JobVerb.START, "db").ok
        assert ("reset_failed", "shop-db.service") in manager.calls

    def test_what_a_socket_starts_is_started_by_it(self) -> None:
        manager = FakeManager()
        host = fake_host(manager=manager)
        converge(host, desired_of({"web": Entry(socket=1, on_demand=True), "off": Entry(enabled=False)}))
        self.act(host, JobVerb.STOP, "web")
        assert self.act(host, JobVerb.START, "web").counts == {Verb.START: 1}
        assert "shop-web.socket" in active(manager)
        assert self.act(host, JobVerb.RESTART, "web").counts == {}
        assert self.act(host, JobVerb.START, "off").counts == {Verb.START: 1}

    def test_what_is_stopped_is_owed_no_start(self) -> None:
        manager = FakeManager()
        host = fake_host(manager=manager)
        manager.fail["shop-db.service"] = "failed"
        converge(host, desired_of({"db": Entry()}))
        assert manifest_of(host).pending == ("shop-db.service",)
        manager.fail.clear()
        manager.set_state("shop-db.service", "active")
        self.act(host, JobVerb.STOP, "db")
        assert manifest_of(host).pending == ()
        assert plan_for(host, desired_of({"db": Entry()})).is_noop

    def test_a_failed_stop(self) -> None:
        manager = FakeManager()
        host = fake_host(manager=manager)
        converge(host, desired_of(TWO))
        manager.refuse["shop-db.service"] = "TransactionIsDestructive"
        (failure,) = self.act(host, JobVerb.STOP, "db").failures
        assert failure.why.startswith("another job for the unit is in the way")

    def test_a_stop_that_does_not_stop(self) -> None:
        class Stubborn(FakeManager):
            def _run(self, number: int) -> None:
                name, kind = self.jobs.get(number, ("", ""))
                super()._run(number)
                if kind == "stop":
                    self.loaded[name].active = "deactivating"

        manager = Stubborn()
        host = fake_host(manager=manager)
        converge(host, desired_of(TWO))
        (failure,) = self.act(host, JobVerb.STOP, "db").failures
        assert failure.why == "it is still deactivating"


class TestTransient:
    def host(self, manager: FakeManager) -> Host:
        return fake_host(manager=manager)._replace(paths=RUN)

    def test_first_again_and_changed(self) -> None:
        files = FakeFiles()
        manager = FakeManager(files)
        host = self.host(manager)
        done = converge(host, desired_of(TWO), Mode.TRANSIENT)
        assert done.counts == {Verb.START: 3}
        assert [call[1] for call in manager.calls if call[0] == "start_transient"] == [
            "shop-db.service",
            "shop-web@1.service",
            "shop-web@2.service",
        ]
        assert [path for path in files.files if not path.startswith("/run/sysresp/")] == []
        assert plan_for(host, desired_of(TWO), Mode.TRANSIENT).steps == ()
        changed = desired_of({**TWO, "db": Entry(version=2)})
        made = plan_for(host, changed, Mode.TRANSIENT)
        assert made.summary() == "3 to restart"
        assert made.changes[1].reason == "stops with shop-db.service, which it required"
        # A unit that another one names stays loaded when it has stopped; only so is its name free again.
        kinds = [type(step) for step in made.steps]
        begin = kinds.index(StartTransient)
        assert kinds[begin - 4 : begin + 1] == [*[RemoveFile] * 3, DaemonReload, StartTransient]
        assert RemoveFile("/run/systemd/transient/shop-db.service") in made.steps
        assert apply(made, host).counts == {Verb.RESTART: 3}
        assert plan_for(host, changed, Mode.TRANSIENT).is_noop

    def test_stopped_removed_failed(self) -> None:
        manager = FakeManager()
        host = self.host(manager)
        converge(host, desired_of({"a": Entry(), "b": Entry(), "c": Entry()}), Mode.TRANSIENT)
        manager.wait([manager.stop("shop-a.service")], 1, lambda _: None)
        manager.set_state("shop-b.service", "failed")
        wanted = desired_of({"a": Entry(), "b": Entry()})
        made = plan_for(host, wanted, Mode.TRANSIENT)
        assert {c.unit: c.verbs for c in made.changes} == {
            "shop-b.service": (Verb.START,),
            "shop-c.service": (Verb.STOP,),
        }
        assert [k.unit for k in made.keeps] == ["shop-a.service"]
        assert apply(made, host).ok
        assert active(manager) == {"shop-b.service"}

    def test_what_it_cannot_do_is_refused(self) -> None:
        host = self.host(FakeManager())
        made = plan_for(host, desired_of({"web": Entry(socket=1, on_demand=True)}), Mode.TRANSIENT)
        assert made.steps == ()
        assert any(p.what.startswith(".socket: ") for p in made.errors)

    def test_a_unit_that_is_not_ours(self) -> None:
        manager = FakeManager()
        host = self.host(manager)
        manager.start_transient("shop-db.service", [])
        (problem,) = plan_for(host, desired_of({"db": Entry()}), Mode.TRANSIENT).errors
        assert problem.what == "shop-db.service is loaded by systemd, and sysresp did not start it"

    def test_the_prober_and_a_masked_unit(self) -> None:
        files = FakeFiles()
        manager = FakeManager(files)
        host = self.host(manager)
        files.link("/run/systemd/transient/shop-db.service", "/dev/null")
        made = plan_for(host, desired_of({"db": Entry()}, prober=True), Mode.TRANSIENT)
        assert [k.reason for k in made.keeps] == ["masked"]
        apply(made, host)
        assert files.read(RUN.prober) is not None

    def test_the_name_of_a_unit_that_systemd_has_not_forgotten_yet(self) -> None:
        class Slow(FakeManager):
            left = 3

            def start_transient(self, unit: str, properties) -> int:  # type: ignore[no-untyped-def]
                self.left -= 1
                self.refuse = {unit: "UnitExists"} if self.left > 0 else {}
                return super().start_transient(unit, properties)

        manager = Slow()
        assert converge(self.host(manager), desired_of({"db": Entry()}), Mode.TRANSIENT).ok
        manager = Slow()
        manager.left = 99
        done = converge(self.host(manager), desired_of({"db": Entry()}), Mode.TRANSIENT)
        assert done.failures[0].why.startswith("a unit of this name is there already")

    def test_refused_otherwise(self) -> None:
        manager = FakeManager()
        manager.refuse["shop-db.service"] = "InvalidArgs"
        done = converge(self.host(manager), desired_of({"db": Entry()}), Mode.TRANSIENT)
        assert not done.ok
        manager.refuse.clear()
        assert converge(self.host(manager), desired_of({"db": Entry()}), Mode.TRANSIENT).ok

    def test_down(self) -> None:
        files = FakeFiles()
        manager = FakeManager(files)
        host = self.host(manager)
        converge(host, desired_of(TWO), Mode.TRANSIENT)
        manager.set_state("shop.slice", "active")  # as systemd makes it for the first service in it
        made = plan_down(manifest_of(host), observe(host, "shop"), paths=RUN)
        assert DaemonReload() not in made.steps
        assert apply(made, host).ok
        assert active(manager) == set()
        assert files.files == {}

    @given(projects(plain=True), projects(plain=True))
    def test_drawn(self, first: dict[str, Entry], second: dict[str, Entry]) -> None:
        manager = FakeManager()
        host = self.host(manager)
        for entries in (first, second):
            wanted = desired_of(entries)
            assert converge(host, wanted, Mode.TRANSIENT).failures == ()
            assert plan_for(host, wanted, Mode.TRANSIENT).is_noop
            assert active(manager) == {n for n in wanted.units if n.endswith(".service")}

    @given(projects(plain=True))
    def test_a_moved_line_is_noted(self, entries: dict[str, Entry]) -> None:
        host = self.host(FakeManager())
        converge(host, desired_of(entries), Mode.TRANSIENT)
        manifest = manifest_of(host)
        units = tuple(unit._replace(origin_line=99) for unit in manifest.units)
        host.files.write("/run/sysresp/shop.json", dumps(manifest._replace(units=units)))
        made = plan_for(host, desired_of(entries), Mode.TRANSIENT)
        assert [type(step) for step in made.steps] == ([WriteManifest] if entries else [])
