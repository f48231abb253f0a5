"""What is left alone: what the administrator decided, and what is not ours."""

from __future__ import annotations

from dataclasses import replace

from sysresp.model import Mode
from sysresp.reconcile.apply import apply
from sysresp.reconcile.decide import MASKED, STOPPED
from sysresp.reconcile.manifest import dumps, load
from sysresp.reconcile.observe import observe
from sysresp.reconcile.plan import plan
from sysresp.reconcile.steps import (
    DaemonReload,
    RemoveFile,
    ResetFailed,
    RunJobs,
    Verb,
)
from tests.fakes import fake_host
from tests.plan_scenes import (
    MANIFEST,
    TWO,
    UNIT_DIR,
    Entry,
    converge,
    desired_of,
    jobs,
    plan_for,
    scene,
    verbs,
)


class TestAdministrator:
    def test_what_is_stopped_stays_so_and_its_file_is_updated(self) -> None:
        _, manager = scene()
        host = fake_host(manager=manager)
        converge(host, desired_of({"web": Entry()}))
        manager.wait([manager.stop("shop-web.service")], 1, lambda _: None)
        made = plan_for(host, desired_of({"web": Entry(version=2)}))
        assert verbs(made) == {"shop-web.service": ("change",)}
        assert [(k.unit, k.reason) for k in made.keeps] == [("shop-web.service", STOPPED)]
        assert jobs(made) == []

    def test_the_target_starts_nothing_that_is_stopped(self) -> None:
        _, manager = scene()
        host = fake_host(manager=manager)
        converge(host, desired_of(TWO))
        manager.wait([manager.stop("shop.target")], 1, lambda _: None)
        manager.wait([manager.start("shop-db.service")], 1, lambda _: None)
        cut = load(host.files, MANIFEST)
        assert cut is not None
        host.files.write(MANIFEST, dumps(cut._replace(pending=("shop.target",))))
        made = plan_for(host, desired_of(TWO))
        assert [(k.unit, k.reason) for k in made.keeps] == [
            ("shop-web.service", STOPPED),
            ("shop.target", "would start shop-web.service, which was stopped"),
        ]
        assert jobs(made) == []

    def test_a_finished_oneshot_is_not_run_again(self) -> None:
        _, manager = scene()
        host = fake_host(manager=manager)
        converge(host, desired_of({"web": Entry(oneshot=True)}))
        manager.wait([manager.stop("shop-web.service")], 1, lambda _: None)
        (keep,) = plan_for(host, desired_of({"web": Entry(oneshot=True)})).keeps
        assert keep.reason == "finished"

    def test_masked_stays_so_and_nothing_is_written_through_the_link(self) -> None:
        files, manager = scene()
        host = fake_host(manager=manager)
        converge(host, desired_of({"web": Entry()}))
        manager.wait([manager.stop("shop-web.service")], 1, lambda _: None)
        files.link(f"{UNIT_DIR}/shop-web.service", "/dev/null")
        made = plan_for(host, desired_of({"web": Entry(version=2)}))
        assert [(k.unit, k.reason) for k in made.keeps] == [("shop-web.service", MASKED)]
        assert made.is_noop

    def test_disabled_stays_so(self) -> None:
        files, manager = scene()
        host = fake_host(manager=manager)
        converge(host, desired_of({"web": Entry()}))
        files.remove(f"{UNIT_DIR}/shop.target.wants/shop-web.service")
        made = plan_for(host, desired_of({"web": Entry()}))
        assert [(k.unit, k.reason) for k in made.keeps] == [("shop-web.service", "disabled")]
        assert made.steps == ()

    def test_a_stopped_unit_that_is_required_starts_and_the_plan_says_so(self) -> None:
        _, manager = scene()
        host = fake_host(manager=manager)
        converge(host, desired_of({"db": Entry()}))
        manager.wait([manager.stop("shop-db.service")], 1, lambda _: None)
        made = plan_for(host, desired_of(TWO))
        (change,) = (c for c in made.changes if c.unit == "shop-db.service")
        assert change.verbs == (Verb.START,)
        assert change.reason == "starts with shop-web.service, which requires it"
        assert jobs(made) == [("start", "shop-web.service")]

    def test_a_failed_unit_is_tried_again(self) -> None:
        _, manager = scene()
        host = fake_host(manager=manager)
        converge(host, desired_of({"web": Entry()}))
        manager.set_state("shop-web.service", "failed")
        made = plan_for(host, desired_of({"web": Entry()}))
        assert ResetFailed("shop-web.service") in made.steps
        assert jobs(made) == [("start", "shop-web.service")]

    def test_a_failed_run_of_what_apply_does_not_start_is_left(self) -> None:
        _, manager = scene()
        host = fake_host(manager=manager)
        wanted = desired_of({"web": Entry(socket=1, on_demand=True)})
        converge(host, wanted)
        manager.set_state("shop-web.service", "failed")
        assert plan_for(host, wanted).is_noop

    def test_our_own_starts_are_not_counted_where_they_are_limited(self) -> None:
        _, manager = scene()
        host = fake_host(manager=manager)
        converge(host, desired_of(TWO))
        wanted = desired_of({"db": Entry(2), "mail": Entry(2), "web": Entry(config=2, requires=("db",))})
        limited = {
            name: replace(file, text=file.text.replace("[Unit]\n", "[Unit]\nStartLimitBurst=3\n"))
            for name, file in wanted.files.items()
            if name.endswith(".service")
        }
        made = plan_for(host, replace(wanted, files={**wanted.files, **limited}))
        resets = [step.unit for step in made.steps if isinstance(step, ResetFailed)]
        assert resets == ["shop-db.service", "shop-web.service"]
        order = [type(step) for step in made.steps if isinstance(step, ResetFailed | RunJobs | DaemonReload)]
        assert order == [DaemonReload, ResetFailed, ResetFailed, RunJobs]

    def test_a_crash_loop_is_tried_at_once(self) -> None:
        _, manager = scene()
        host = fake_host(manager=manager)
        converge(host, desired_of({"web": Entry()}))
        manager.set_state("shop-web.service", "activating", "auto-restart")
        for entry in (Entry(), Entry(config=2)):
            assert jobs(plan_for(host, desired_of({"web": entry}))) == [("restart", "shop-web.service")]

    def test_a_run_in_progress_is_not_cut(self) -> None:
        _, manager = scene()
        host = fake_host(manager=manager)
        converge(host, desired_of({"web": Entry(socket=1, on_demand=True, oneshot=True)}))
        manager.set_state("shop-web.service", "activating", "start")
        made = plan_for(host, desired_of({"web": Entry(version=2, socket=1, on_demand=True, oneshot=True)}))
        assert jobs(made) == []
        (keep,) = made.keeps
        assert keep.reason == "its run in progress ends as it began"

    def test_a_lost_file_is_written_again(self) -> None:
        files, manager = scene()
        host = fake_host(manager=manager)
        converge(host, desired_of({"web": Entry()}))
        files.remove(f"{UNIT_DIR}/shop-web.service")
        made = plan_for(host, desired_of({"web": Entry()}))
        assert verbs(made) == {"shop-web.service": ("create",)}
        assert jobs(made) == []
        changed = plan_for(host, desired_of({"web": Entry(version=2)}))
        assert verbs(changed) == {"shop-web.service": ("create", "restart")}

    def test_a_lost_manifest_loses_nothing(self) -> None:
        files, manager = scene()
        host = fake_host(manager=manager)
        converge(host, desired_of(TWO))
        files.remove(MANIFEST)
        made = plan_for(host, desired_of({"web": Entry()}))
        assert verbs(made)["shop-db.service"] == ("stop", "remove")
        assert apply(made, host).ok
        assert plan_for(host, desired_of({"web": Entry()})).is_noop

    def test_an_instance_started_by_hand_goes_with_its_file(self) -> None:
        _, manager = scene()
        host = fake_host(manager=manager)
        converge(host, desired_of({"web": Entry(instances=1)}))
        manager.wait([manager.start("shop-web@9.service")], 1, lambda _: None)
        assert plan_for(host, desired_of({"web": Entry(instances=1)})).is_noop
        made = plan_for(host, desired_of({}))
        assert verbs(made)["shop-web@9.service"] == ("stop",)

    def test_unmasked_in_memory_needs_a_reload(self) -> None:
        _, manager = scene()
        host = fake_host(manager=manager)
        converge(host, desired_of({"db": Entry()}))
        wanted = desired_of(TWO)
        observed = observe(host, "shop", wanted)
        row = observed.units["shop-db.service"]._replace(
            name="shop-web.service", load_state="masked", active_state="inactive"
        )
        text = wanted.files["shop-web.service"].text
        changed = replace(
            observed,
            units={**observed.units, row.name: row},
            files={**observed.files, row.name: text},
        )
        made = plan(wanted, changed, paths=host.paths, mode=Mode.PERSISTENT)
        assert DaemonReload() in made.steps


class TestProblems:
    def problems(self, path: str, text: str) -> list[str]:
        files, manager = scene()
        host = fake_host(manager=manager)
        files.write(path, text.encode())
        made = plan_for(host, desired_of(TWO))
        assert made.steps == ()
        assert made.changes == ()
        return [problem.what for problem in made.errors]

    def test_a_file_that_is_not_ours(self) -> None:
        where = f"{UNIT_DIR}/shop-web.service"
        assert self.problems(where, "[Service]\nExecStart=/x\n") == [
            f"{where} exists, and sysresp did not write it"
        ]

    def test_in_another_directory(self) -> None:
        where = "/usr/lib/systemd/system/shop-web.service"
        assert self.problems(where, "[Service]\nExecStart=/x\n") == [
            f"{where} exists, and sysresp did not write it"
        ]

    def test_of_another_project(self) -> None:
        where = f"{UNIT_DIR}/shop-web.service"
        text = "[Service]\nExecStart=/x\n\n[X-Sysresp]\nProject=other\n"
        assert self.problems(where, text) == [f"{where} belongs to the project 'other'"]

    def test_an_instance_with_a_file_of_its_own(self) -> None:
        files, manager = scene()
        files.write(f"{UNIT_DIR}/shop-web@1.service", b"[Service]\n")
        made = plan_for(fake_host(manager=manager), desired_of({"web": Entry(instances=1)}))
        assert [p.key for p in made.errors] == ["services.web"]

    def test_another_mode(self) -> None:
        files, manager = scene()
        host = fake_host(manager=manager)
        converge(host, desired_of(TWO))
        assert [p.what for p in plan_for(host, desired_of(TWO), Mode.RUNTIME).errors] == [
            'the project "shop" is already applied in persistent mode'
        ]
        content = files.read(MANIFEST)
        assert content is not None
        files.remove(MANIFEST)
        files.write("/run/sysresp/shop.json", content.replace(b'"persistent"', b'"runtime"'))
        (problem,) = plan_for(host, desired_of(TWO)).errors
        assert "--runtime" in problem.fix

    def test_a_file_that_is_no_longer_ours_is_left(self) -> None:
        files, manager = scene()
        host = fake_host(manager=manager)
        converge(host, desired_of(TWO))
        files.write(f"{UNIT_DIR}/shop-web.service", b"[Service]\nExecStart=/mine\n")
        made = plan_for(host, desired_of({"db": Entry()}))
        assert [k.reason for k in made.keeps] == ["its unit file is no longer ours"]
        assert jobs(made) == []
        assert not any(isinstance(s, RemoveFile) for s in made.steps)
