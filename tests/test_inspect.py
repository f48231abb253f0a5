"""`sysresp drift` on a host in memory: what is looked at, by whom, and what is printed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from sysresp.cli import drift as command
from sysresp.cli import hosts, main
from sysresp.errors import Exit
from sysresp.model import Mode, Scope
from sysresp.ports import Host
from sysresp.reconcile import generations
from sysresp.reconcile.apply import apply
from sysresp.reconcile.generations import Entry, Generation
from sysresp.reconcile.inspect import Inspection, inspect
from sysresp.reconcile.manifest import Manifest, dumps, load, path
from sysresp.reconcile.observe import observe
from sysresp.reconcile.plan import plan
from sysresp.reconcile.resolve import DriftChoice
from sysresp.units.desired import Desired
from tests.fake_files import FakeProcesses
from tests.fakes import FakeFiles, FakeManager, fake_host
from tests.plan_scenes import PROBER, UNIT_DIR, desired_of
from tests.plan_scenes import Entry as Service

# typer 0.7 knows only `autocompletion`, and warns that Click has renamed it.
pytestmark = pytest.mark.filterwarnings("ignore:'autocompletion' is renamed:DeprecationWarning")

WEB = "shop-web.service"
PATH = f"{UNIT_DIR}/{WEB}"
PID = 1000  # of the fake manager's running units


class Scene:
    """A host on which a project was applied, and what `drift` finds on it."""

    def __init__(self) -> None:
        self.files = FakeFiles()
        self.manager = FakeManager(self.files)
        self.processes = FakeProcesses()
        self.host: Host = fake_host(manager=self.manager, processes=self.processes)
        self.number = 0

    def apply(self, desired: Desired, choice: DriftChoice = DriftChoice.REFUSE) -> None:
        """Apply it as the next generation."""
        self.number += 1
        seen = observe(self.host, desired.project, desired)
        made = plan(desired, seen, paths=self.host.paths, mode=Mode.PERSISTENT, prober=PROBER, drift=choice)
        assert not made.refused
        apply(made, self.host)
        manifest = self.manifest()._replace(generation=self.number)
        self.files.write(path(self.host.paths.state_dir, "shop"), dumps(manifest))
        record = Generation(number=self.number, desired=desired)
        where = generations.record_path(self.host.paths, "shop", self.number)
        self.files.write(where, generations.dumps(record), 0o600)
        entries = generations.history(self.files, self.host.paths, "shop")
        entry = Entry(self.number, float(self.number), outcome=generations.OK)
        where = generations.history_path(self.host.paths, "shop")
        self.files.write(where, generations.dumps_history((*entries, entry)))
        for unit in self.manager.loaded.values():
            unit.extra |= self.started()

    def started(self) -> dict[str, object]:
        """Return the properties of a process that started now."""
        now = round(self.host.clock.now() * 1e6)
        start = [("/bin/web", ["/bin/web", "1"], False, now, 0, 0, 0, PID, 0, 0)]
        return {"ExecMainStartTimestamp": now, "ActiveEnterTimestamp": now, "ExecStart": start}

    def manifest(self) -> Manifest:
        """Return the project's manifest."""
        found = load(self.files, path(self.host.paths.state_dir, "shop"))
        assert found is not None
        return found

    def look(self) -> Inspection:
        """Return what is found."""
        return inspect(self.host, self.manifest())

    def kinds(self) -> list[tuple[str, str]]:
        """Return kinds and units."""
        return [(drift.kind, drift.unit) for drift in self.look().drift]

    def later(self) -> None:
        """Let a second pass."""
        self.host.clock.sleep(1.0)


@pytest.fixture
def scene() -> Scene:
    one = Scene()
    one.apply(desired_of({"db": Service(), "web": Service()}))
    one.later()
    return one


class TestInspect:
    def test_none(self, scene: Scene) -> None:
        assert scene.look() == Inspection((), (), ())

    def test_nothing_is_loaded_for_it(self, scene: Scene) -> None:
        scene.manager.wait([scene.manager.stop("shop-db.service")], 1, lambda _: None)
        del scene.manager.loaded["shop-web.service"]
        scene.manager.calls.clear()
        scene.look()
        asked = {call[1] for call in scene.manager.calls if call[0] == "properties"}
        assert "shop-web.service" not in asked

    def test_edited_with_the_difference(self, scene: Scene) -> None:
        scene.files.write(PATH, (scene.files.read(PATH) or b"") + b"# by hand\n")
        assert scene.kinds() == [("edited", WEB), ("not-loaded", WEB), ("outdated", WEB)]
        edited = scene.look().drift[0]
        assert edited.after == (edited.before or "") + "# by hand\n"
        scene.manager.reload()
        scene.later()
        scene.manager.loaded[WEB].extra |= scene.started()  # it was restarted by hand
        assert scene.kinds() == [("edited", WEB)]

    def test_an_accepted_edit_is_told_apart(self, scene: Scene) -> None:
        scene.files.write(PATH, (scene.files.read(PATH) or b"") + b"# by hand\n")
        scene.manager.reload()
        scene.apply(desired_of({"db": Service(), "web": Service()}), DriftChoice.ACCEPT)
        found = scene.look()
        assert found.drift == ()
        assert [drift.kind for drift in found.accepted] == ["edited"]

    def test_the_text_of_another_generation(self, scene: Scene) -> None:
        old = scene.files.read(PATH) or b""
        scene.apply(desired_of({"db": Service(), "web": Service(version=2)}))
        scene.files.write(PATH, old)
        scene.manager.reload()
        (drift,) = (drift for drift in scene.look().drift if drift.kind == "generation")
        assert drift.what == "has the text of generation 1"
        scene.files.remove(generations.record_path(scene.host.paths, "shop", 1))
        assert ("edited", WEB) in scene.kinds()
        scene.files.write(generations.history_path(scene.host.paths, "shop"), b"damaged")
        (drift,) = (drift for drift in scene.look().drift if drift.kind == "edited")
        assert drift.before is None

    def test_a_drop_in_that_the_process_has_not_read(self, scene: Scene) -> None:
        drop = "/run/systemd/system/shop-.service.d/x.conf"
        scene.files.write(drop, b"[Service]\nNice=1\n")
        assert sorted(scene.kinds()) == [
            ("drop-in", "shop-.service"),
            ("outdated", "shop-db.service"),
            ("outdated", WEB),
        ]

    def test_replaced_programs_libraries_and_scripts(self, scene: Scene) -> None:
        scene.processes.old[PID] = ["/usr/lib/libx.so"]
        assert scene.kinds() == [("replaced", "shop-db.service"), ("replaced", WEB)]
        scene.processes.old.clear()
        scene.files.write("/bin/web", b"#!/bin/sh\n")
        assert "/bin/web" in scene.look().drift[0].what
        scene.files.write("/bin/web", b"\x7fELF")  # what is no script shows in /proc
        assert scene.kinds() == []

    def test_a_program_without_a_directory(self, scene: Scene) -> None:
        wanted = desired_of({"web": Service()})
        text = wanted.files[WEB].text.replace("ExecStart=/bin/web 1", 'ExecStart="web" 1')
        files = {**wanted.files, WEB: replace(wanted.files[WEB], text=text)}
        scene.apply(replace(wanted, files=files))
        scene.later()
        scene.files.write("/usr/bin/web", b"#!/bin/sh\n")
        start = [("web", ["web"], False, 0, 0, 0, 0, PID, 0, 0)]
        scene.manager.loaded[WEB].extra["ExecStart"] = start
        assert scene.kinds() == [("replaced", WEB)]

    def test_a_changed_configuration(self, scene: Scene) -> None:
        wanted = desired_of({"db": Service(), "web": Service()})
        scene.files.write("/etc/web/conf.d/a", b"1")
        scene.later()
        scene.apply(replace(wanted, configs={WEB: ("/etc/web", "/etc/gone")}))
        assert scene.kinds() == []
        scene.later()
        scene.files.write("/etc/web/conf.d/a", b"2")
        (drift,) = scene.look().drift
        assert (drift.kind, drift.unit, drift.path) == ("config", WEB, "/etc/web/conf.d/a")
        # Another content is another ConfigDigest=: the unit file is written, and the service reloads.
        scene.apply(replace(desired_of({"db": Service(), "web": Service(config=2)}), configs=wanted.configs))
        assert scene.kinds() == []

    def test_what_the_caller_may_not_read_is_no_drift(self, scene: Scene) -> None:
        class Closed(FakeFiles):
            def read(self, path: str) -> bytes | None:
                if path in (PATH, f"{PATH}.d/x.conf") or "/generations/" in path:
                    raise PermissionError(13, "Permission denied", path)
                return super().read(path)

        closed = Closed()
        closed.__dict__.update(scene.files.__dict__)
        closed.write(f"{PATH}.d/x.conf", b"[Service]\n")
        scene.manager.files = closed
        scene.manager.reload()
        found = inspect(scene.host._replace(files=closed), scene.manifest())
        assert [drift.kind for drift in found.drift] == ["drop-in", "outdated"]
        assert found.unread == (WEB,)


class TestCommand:
    @pytest.fixture(autouse=True)
    def _host(self, scene: Scene) -> Iterator[None]:
        token = hosts.open_host.set(lambda _scope, _mode: scene.host)
        yield
        hosts.open_host.reset(token)

    def run(self, *words: str, status: int = 0) -> str:
        result = CliRunner().invoke(main.app, ["drift", *words], prog_name="sysresp")
        assert result.exit_code == status, result.output
        return result.output

    def test_none(self) -> None:
        assert self.run() == "no drift: 4 units as the last apply left them\n"
        assert self.run("web") == "no drift: 1 unit as the last apply left it\n"
        assert "not applied" in self.run("--project", "mall", status=Exit.UNKNOWN)
        assert "no service" in self.run("gone", status=Exit.UNKNOWN)

    def test_what_is_printed(self, scene: Scene) -> None:
        scene.files.write(PATH, (scene.files.read(PATH) or b"") + b"# by hand\n")
        scene.manager.reload()
        scene.files.remove(f"{UNIT_DIR}/shop-db.service")
        text = self.run(status=Exit.NOT_WELL)
        assert f"  {WEB}  was edited: {PATH}  [services.toml:4]\n" in text
        assert "    +# by hand\n" in text
        assert "    fix: sysresp restart web\n" in text
        assert text.endswith("drift: 1 edited, 1 removed, 1 not-loaded, 1 outdated\n")
        assert "shop-db" not in self.run("web", status=Exit.NOT_WELL)
        (project,) = json.loads(self.run("--json", status=Exit.NOT_WELL))["projects"]
        assert (project["project"], project["generation"]) == ("shop", 1)
        assert {drift["kind"] for drift in project["drift"]} == {
            "edited",
            "removed",
            "not-loaded",
            "outdated",
        }

    def test_left_out(self, scene: Scene) -> None:
        found = [command.Found(scene.manifest(), 1, (), (), ("a", "b"))]
        assert list(command.left_out(found, Scope.SYSTEM, 0)) == ["a, b, which you may not read"]
        assert len(list(command.left_out(found, Scope.SYSTEM, 1000))) == 2
        assert len(list(command.left_out(found, Scope.USER, 1000))) == 1
        assert list(command.left_out([], Scope.SYSTEM, 1000)) == []

    def test_nothing_applied(self, scene: Scene) -> None:
        scene.files.remove(path(scene.host.paths.state_dir, "shop"))
        assert self.run() == "there is nothing applied here\n"


class TestClosed:
    """A caller without rights: what cannot be looked at is no drift, and nothing ends in an error."""

    @pytest.mark.parametrize(
        ("closed", "unread"),
        [
            (UNIT_DIR, ("shop-db.service", WEB, "shop.slice", "shop.target")),
            (f"{UNIT_DIR}/shop.target.wants", ()),
            (f"{PATH}.d", ()),
            ("/usr/lib/systemd/system", ()),
            (f"/usr/lib/systemd/system/{WEB}", ()),
            ("/run/systemd/system/x.target.wants", ()),
        ],
    )
    def test_it(self, scene: Scene, closed: str, unread: tuple[str, ...]) -> None:
        class Closed(FakeFiles):
            def listdir(self, path: str) -> list[str]:
                if path == closed:
                    raise PermissionError(13, "Permission denied", path)
                return super().listdir(path)

            def read(self, path: str) -> bytes | None:
                if path == closed:
                    raise PermissionError(13, "Permission denied", path)
                return super().read(path)

        for place in (f"{PATH}.d/README", "/usr/lib/systemd/system/x", f"/usr/lib/systemd/system/{WEB}"):
            scene.files.write(place, b"")
        scene.files.link(f"/run/systemd/system/x.target.wants/{WEB}", PATH)
        files = Closed()
        files.__dict__.update(scene.files.__dict__)
        found = inspect(scene.host._replace(files=files), scene.manifest())
        assert {drift.kind for drift in found.drift} <= {"enabled"}
        assert found.unread == unread
        with pytest.raises(PermissionError):
            observe(scene.host._replace(files=files), "shop")
