"""What is planned: the rules a person relies on, on examples and on drawn projects."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from sysresp.model import Mode
from sysresp.reconcile.apply import apply
from sysresp.reconcile.decide import file_of
from sysresp.reconcile.observe import Observed, observe
from sysresp.reconcile.plan import plan
from sysresp.reconcile.steps import (
    Change,
    DaemonReload,
    InstallProber,
    Job,
    JobVerb,
    Link,
    Plan,
    RemoveDirectory,
    RemoveFile,
    ResetFailed,
    RunJobs,
    StartTransient,
    Sync,
    Unlink,
    Verb,
    WriteFile,
    WriteManifest,
)
from tests.fakes import fake_host
from tests.plan_scenes import (
    MANIFEST,
    PROBER,
    TWO,
    UNIT_DIR,
    Entry,
    converge,
    desired_of,
    jobs,
    plan_for,
    projects,
    scene,
    verbs,
)


def kinds(made: Plan) -> list[type]:
    return [type(step) for step in made.steps]


class TestFirst:
    def test_one_job_and_no_reload(self) -> None:
        _, manager = scene()
        made = plan_for(fake_host(manager=manager), desired_of(TWO))
        assert jobs(made) == [("start", "shop.target")]
        assert DaemonReload not in kinds(made)
        assert made.summary() == "4 to create, 3 to start"
        assert verbs(made)["shop-web.service"] == ("create", "start")
        assert kinds(made)[0] is WriteManifest
        assert kinds(made)[-1] is WriteManifest
        assert [step.path for step in made.steps if isinstance(step, Sync)] == [UNIT_DIR, "/var/lib/sysresp"]

    def test_the_prober_is_installed_once(self) -> None:
        _, manager = scene()
        host = fake_host(manager=manager)
        wanted = desired_of(TWO, prober=True)
        assert InstallProber(host.paths.prober, PROBER) in plan_for(host, wanted).steps
        converge(host, wanted)
        assert plan_for(host, wanted).is_noop

    def test_a_runtime_project_needs_no_sync(self) -> None:
        _, manager = scene()
        assert Sync not in kinds(plan_for(fake_host(manager=manager), desired_of(TWO), Mode.RUNTIME))

    def test_one_service_alone(self) -> None:
        _, manager = scene()
        host = fake_host(manager=manager)
        converge(host, desired_of({}))
        made = plan_for(host, desired_of({"db": Entry()}))
        assert jobs(made) == [("start", "shop-db.service")]

    def test_many_new_services_are_started_by_the_target_again(self) -> None:
        _, manager = scene()
        host = fake_host(manager=manager)
        converge(host, desired_of(TWO))
        more = {**TWO, **{f"s{n}": Entry() for n in range(64)}}
        made = plan_for(host, desired_of(more))
        assert jobs(made) == [("start", "shop.target")]
        assert kinds(made).count(DaemonReload) == 1

    def test_not_by_the_target_if_the_administrator_stopped_something(self) -> None:
        _, manager = scene()
        host = fake_host(manager=manager)
        converge(host, desired_of(TWO))
        manager.wait([manager.stop("shop-web.service")], 1, lambda _: None)
        more = {**TWO, **{f"s{n}": Entry() for n in range(64)}}
        made = plan_for(host, desired_of(more))
        assert ("start", "shop.target") not in jobs(made)
        assert len(jobs(made)) == 64


class TestAgain:
    def test_nothing_changed(self) -> None:
        files, manager = scene()
        host = fake_host(manager=manager)
        converge(host, desired_of(TWO))
        before = len(files.changes()), len(manager.changes())
        made = plan_for(host, desired_of(TWO))
        assert made.is_noop
        assert made.steps == ()
        assert made.summary() == "nothing to do"
        assert apply(made, host).ok
        assert (len(files.changes()), len(manager.changes())) == before

    def test_a_line_that_moved_is_noted_and_no_more(self) -> None:
        _, manager = scene()
        host = fake_host(manager=manager)
        converge(host, desired_of({"db": Entry(), "web": Entry()}))
        made = plan_for(host, desired_of({"web": Entry(), "db": Entry()}))
        assert made.is_noop
        assert kinds(made) == [WriteManifest]

    def test_only_what_changed_is_restarted(self) -> None:
        _, manager = scene()
        host = fake_host(manager=manager)
        converge(host, desired_of({"db": Entry(), "web": Entry()}))
        made = plan_for(host, desired_of({"db": Entry(), "web": Entry(version=2)}))
        assert verbs(made) == {"shop-web.service": ("change", "restart")}
        assert jobs(made) == [("restart", "shop-web.service")]
        assert kinds(made).count(DaemonReload) == 1
        (change,) = made.changes
        assert "-ExecStart=/bin/web 1" in change.diff
        assert "+ExecStart=/bin/web 2" in change.diff
        assert change.origin.line == 4

    def test_a_reload_or_nothing_where_that_is_enough(self) -> None:
        _, manager = scene()
        host = fake_host(manager=manager)
        converge(host, desired_of({"db": Entry(), "web": Entry()}))
        made = plan_for(host, desired_of({"db": Entry(description=2), "web": Entry(config=2)}))
        assert verbs(made) == {"shop-db.service": ("change",), "shop-web.service": ("change", "reload")}
        assert jobs(made) == [("reload", "shop-web.service")]

    def test_what_systemd_restarts_along_is_named(self) -> None:
        _, manager = scene()
        host = fake_host(manager=manager)
        converge(host, desired_of(TWO))
        made = plan_for(host, desired_of({**TWO, "db": Entry(version=2)}))
        assert jobs(made) == [("restart", "shop-db.service")]
        (along,) = (change for change in made.changes if change.unit == "shop-web.service")
        assert along.reason == "restarts with shop-db.service, which it requires"
        assert {a.unit for a in made.awaited} == {"shop-db.service", "shop-web.service"}

    def test_all_instances_restart_and_the_file_is_shown_once(self) -> None:
        _, manager = scene()
        host = fake_host(manager=manager)
        converge(host, desired_of({"web": Entry(instances=2)}))
        made = plan_for(host, desired_of({"web": Entry(instances=2, version=2)}))
        assert verbs(made) == {
            "shop-web@.service": ("change",),
            "shop-web@1.service": ("restart",),
            "shop-web@2.service": ("restart",),
        }

    def test_scaling_touches_only_what_comes_and_goes(self) -> None:
        _, manager = scene()
        host = fake_host(manager=manager)
        converge(host, desired_of({"web": Entry(instances=2)}))
        up = plan_for(host, desired_of({"web": Entry(instances=3)}))
        assert jobs(up) == [("start", "shop-web@3.service")]
        down = plan_for(host, desired_of({"web": Entry(instances=1)}))
        assert verbs(down) == {"shop-web@2.service": ("stop",)}
        assert jobs(down) == [("stop", "shop-web@2.service")]

    def test_what_left_the_file_is_stopped_then_removed_then_forgotten(self) -> None:
        _, manager = scene()
        host = fake_host(manager=manager)
        converge(host, desired_of(TWO))
        made = plan_for(host, desired_of({"db": Entry()}))
        order = [k for k in kinds(made) if k in (RunJobs, RemoveFile, DaemonReload)]
        assert order == [RunJobs, RemoveFile, DaemonReload]
        assert verbs(made) == {"shop-web.service": ("stop", "remove")}

    def test_what_requires_a_removed_unit_is_started_again(self) -> None:
        _, manager = scene()
        host = fake_host(manager=manager)
        converge(host, desired_of(TWO))
        made = plan_for(host, desired_of({"web": Entry()}))
        assert jobs(made) == [("stop", "shop-db.service"), ("restart", "shop-web.service")]
        assert apply(made, host).ok
        assert manager.loaded["shop-web.service"].active == "active"

    def test_a_changed_socket_is_restarted_without_its_service(self) -> None:
        _, manager = scene()
        host = fake_host(manager=manager)
        converge(host, desired_of({"web": Entry(socket=1)}))
        made = plan_for(host, desired_of({"web": Entry(socket=2)}))
        assert jobs(made) == [
            ("stop", "shop-web.socket"),
            ("stop", "shop-web.service"),
            ("start", "shop-web.socket"),
            ("start", "shop-web.service"),
        ]

    def test_an_on_demand_service_is_not_started(self) -> None:
        _, manager = scene()
        host = fake_host(manager=manager)
        made = plan_for(host, desired_of({"web": Entry(socket=1, on_demand=True)}))
        assert verbs(made)["shop-web.service"] == ("create",)
        assert verbs(made)["shop-web.socket"] == ("create", "start")

    def test_enabled_again(self) -> None:
        _, manager = scene()
        host = fake_host(manager=manager)
        converge(host, desired_of({"web": Entry(enabled=False)}))
        made = plan_for(host, desired_of({"web": Entry()}))
        assert verbs(made) == {"shop-web.service": ("start",)}
        assert [type(s) for s in made.steps if isinstance(s, Link)] == [Link]

    def test_disabled_in_the_file(self) -> None:
        _, manager = scene()
        host = fake_host(manager=manager)
        converge(host, desired_of({"web": Entry()}))
        made = plan_for(host, desired_of({"web": Entry(enabled=False)}))
        assert Unlink(f"{UNIT_DIR}/shop.target.wants/shop-web.service") in made.steps
        assert jobs(made) == []
        assert verbs(made) == {"shop-web.service": ("change",)}


class TestDrawn:
    @given(projects(), projects())
    def test_applied_twice_it_converges(self, first: dict[str, Entry], second: dict[str, Entry]) -> None:
        _, manager = scene()
        host = fake_host(manager=manager)
        for entries in (first, second):
            wanted = desired_of(entries)
            made = plan_for(host, wanted)
            assert kinds(made).count(DaemonReload) <= 1
            assert apply(made, host).failures == ()
            assert plan_for(host, wanted).is_noop
            assert plan_for(host, wanted).steps == ()
            stale = [
                n
                for n in manager.loaded
                if manager.properties(n, "Unit", ["NeedDaemonReload"]).get("NeedDaemonReload")
                and n.startswith("shop-")
            ]
            assert stale == []
            up = {name for name, unit in manager.loaded.items() if unit.active == "active"}
            assert {unit.name for unit in wanted.units.values() if unit.start} - up <= {"shop.slice"}

    @given(projects(), projects())
    def test_only_what_is_ours_is_named(self, first: dict[str, Entry], second: dict[str, Entry]) -> None:
        files, manager = scene()
        host = fake_host(manager=manager)
        other = converge(host, desired_of({"web": Entry()}, "shop-eu"))
        assert other.ok
        files.write(f"{UNIT_DIR}/shop-private.service", b"[Service]\nExecStart=/mine\n")
        converge(host, desired_of(first))
        made = plan_for(host, desired_of(second))
        ours = {
            *desired_of(first).files,
            *desired_of(second).files,
            *desired_of(first).links,
            *desired_of(second).links,
            "shop.target.wants",
        }
        for step in made.steps:
            match step:
                case WriteFile(path) | RemoveFile(path) | Link(path) | Unlink(path) | RemoveDirectory(path):
                    assert path.removeprefix(f"{UNIT_DIR}/") in ours
                case WriteManifest(path):
                    assert path == MANIFEST
                case RunJobs(queued):
                    assert {file_of(job.unit) for job in queued} <= ours
                case ResetFailed(unit) | StartTransient(unit):
                    assert file_of(unit) in ours
                case InstallProber() | Sync() | DaemonReload():
                    pass

    @given(projects(plain=True), projects(plain=True), st.sets(st.integers(0, 9)))
    def test_stopped_stays_stopped(
        self, first: dict[str, Entry], second: dict[str, Entry], chosen: set[int]
    ) -> None:
        _, manager = scene()
        host = fake_host(manager=manager)
        converge(host, desired_of(first))
        services = [name for name in sorted(manager.loaded) if name.endswith(".service")]
        stopped = {name for n, name in enumerate(services) if n in chosen}
        manager.wait([manager.stop(name) for name in stopped], 1, lambda _: None)
        converge(host, desired_of(second))
        up = {name for name, unit in manager.loaded.items() if unit.active == "active"}
        kept = {n for n in stopped if n in desired_of(second).units}
        assert up.isdisjoint(kept)

    @given(projects(), projects(), st.randoms())
    def test_shuffled_it_is_the_same_plan(
        self, first: dict[str, Entry], second: dict[str, Entry], random
    ) -> None:  # type: ignore[no-untyped-def]
        _, manager = scene()
        host = fake_host(manager=manager)
        converge(host, desired_of(first))
        wanted = desired_of(second)
        observed = observe(host, "shop", wanted)

        def shuffled(mapping):  # type: ignore[no-untyped-def]
            items = list(mapping.items())
            random.shuffle(items)
            return dict(items)

        mixed = replace(wanted, files=shuffled(wanted.files), links=shuffled(wanted.links))
        seen = replace(
            observed,
            files=shuffled(observed.files),
            links=shuffled(observed.links),
            units=shuffled(observed.units),
        )
        plans = [
            plan(d, o, paths=host.paths, mode=Mode.PERSISTENT)
            for d, o in ((wanted, observed), (mixed, seen))
        ]
        assert plans[0] == plans[1]


class TestPlan:
    def test_grouped(self) -> None:
        keep = Change("b", (Verb.KEEP,), "masked")
        made = Plan(project="shop", changes=(Change("a", (Verb.START,)),), keeps=(keep,))
        assert list(made.grouped()) == [(Verb.START, [made.changes[0]]), (Verb.KEEP, [keep])]
        assert made.counts() == {Verb.START: 1}
        assert not made.is_noop

    def test_diff_of_a_removed_and_of_a_kept_text(self) -> None:
        assert Change("a", (Verb.REMOVE,), before="x\n").diff == (
            "--- a",
            "+++ /dev/null",
            "@@ -1 +0,0 @@",
            "-x",
        )
        assert Change("a", (Verb.START,)).diff == ()

    def test_jobs_are_values(self) -> None:
        assert Job(JobVerb.START, "a") == Job(JobVerb.START, "a")

    def test_nothing_observed(self) -> None:
        host = fake_host()
        made = plan(desired_of(TWO), Observed(), paths=host.paths, mode=Mode.PERSISTENT)
        assert made.previous is None
        assert made.summary() == "4 to create, 3 to start"
