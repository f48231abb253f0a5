"""Drift of every kind, made for real: it is told, a plan shows it, and no apply overwrites it unasked."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from sysresp.errors import Exit
from tests.live.conftest import USER, Box
from tests.live.installed import snapshot, write_file

pytestmark = pytest.mark.live

UNIT_DIR = "/etc/systemd/system"
SCRIPT = "#!/bin/sh\nwhile :; do sleep 1000; done\n"
TEXT = """
[services.web]
command = ["/srv/@/web"]

[services.program]
command = ["/srv/@/program", "infinity"]
environment = { LD_PRELOAD = "/srv/@/library.so" }

[services.conf]
command = ["/bin/sleep", "infinity"]
config_files = ["/srv/@/conf.d"]

[services.many]
command = ["/bin/sleep", "infinity"]
instances = 2

[services.socket]
command = ["/bin/sleep", "infinity"]
listen = ["/run/@.socket"]

[services.off]
command = ["/bin/sleep", "infinity"]
enabled = false
"""


class Scene:
    """A project that was applied."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.project = box.project
        self.directory = f"/srv/{box.project}"
        box.write(f"{self.directory}/web", SCRIPT, 0o755)
        box.write(f"{self.directory}/conf.d/a", "1")
        for source, name in (("/bin/sleep", "program"), ("/usr/lib/*-linux-gnu/libm.so.6", "library.so")):
            self.shell(f"cp --dereference {source} {self.directory}/{name}")
        self.file = self.write()
        self.apply(status=Exit.OK)

    def write(self, more: str = "") -> str:
        """Write the file, with more in it."""
        return write_file(self.box, TEXT.replace("@", self.project) + more)

    def shell(self, script: str) -> None:
        """Run this in the box."""
        self.box.run(["/bin/sh", "-ec", script], check=True)

    def apply(self, *options: str, status: int) -> str:
        """Apply, and return what it said."""
        done = self.box.sysresp("apply", "--settle", "0", *options, self.file)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    def unit(self, name: str) -> str:
        """Return the whole name of a unit file or unit."""
        return f"{self.project}-{name}.service"

    def path(self, name: str) -> str:
        """Return where a unit file is."""
        return f"{UNIT_DIR}/{self.unit(name)}"

    def drift(self, *names: str) -> dict[str, set[str]]:
        """Return the kinds of drift by unit."""
        done = self.box.sysresp("drift", "--json", "--project", self.project, *names)
        (project,) = json.loads(done.stdout)["projects"]
        found: dict[str, set[str]] = {}
        for one in project["drift"]:
            found.setdefault(one["unit"], set()).add(one["kind"])
        assert done.returncode == (Exit.NOT_WELL if found else Exit.OK), done.stderr
        return found

    def marked(self) -> dict[str, list[str]]:
        """Return what `status` says, by unit."""
        done = self.box.sysresp("status", "--json", "--project", self.project)
        return {row["unit"]: row["drift"] for row in json.loads(done.stdout) if row["drift"]}

    def planned(self) -> set[str]:
        """Return the kinds that a plan shows."""
        done = self.box.sysresp("plan", "--json", self.file)
        assert done.returncode == Exit.OK, done.stderr
        return {one["kind"] for one in json.loads(done.stdout)["drift"]}

    def kept(self) -> dict[str, str]:
        """Return everything in the directories of units."""
        return {name: text for name, text in snapshot(self.box).items() if "/systemd/system" in name}

    def runs(self) -> dict[str, str]:
        """Return the process of each unit."""
        units = [self.unit(n) for n in ("web", "program", "conf", "many@1", "many@2", "socket")]
        lines = self.box.systemctl("show", "--value", "-p", "MainPID", *units).stdout.split()
        return dict(zip(units, lines, strict=True))


@pytest.fixture
def scene(box: Box) -> Scene:
    return Scene(box)


def edit(scene: Scene) -> dict[str, set[str]]:
    scene.shell(f"echo '# by hand' >> {scene.path('web')}")
    return {scene.unit("web"): {"edited", "not-loaded", "outdated"}}


def edit_and_reload(scene: Scene) -> dict[str, set[str]]:
    scene.shell(f"printf '[Service]\\nNice=3\\n' >> {scene.path('many@')}; systemctl daemon-reload")
    old = {scene.unit(f"many@{n}"): {"outdated"} for n in (1, 2)}
    return {scene.unit("many@"): {"edited"}, **old}


def edit_and_restart(scene: Scene) -> dict[str, set[str]]:
    edit(scene)
    scene.shell(f"systemctl daemon-reload; systemctl restart {scene.unit('web')}")
    return {scene.unit("web"): {"edited"}}


def another_generation(scene: Scene) -> dict[str, set[str]]:
    scene.shell(f"cp {scene.path('web')} /tmp/old")
    scene.write("[services.web.systemd.Service]\nNice = 3\n")
    scene.apply(status=Exit.OK)
    scene.shell(f"cat /tmp/old > {scene.path('web')}; systemctl daemon-reload")
    return {scene.unit("web"): {"generation", "outdated"}}


def remove(scene: Scene) -> dict[str, set[str]]:
    scene.shell(f"rm {scene.path('web')}; systemctl daemon-reload")
    return {scene.unit("web"): {"removed"}}


def mask(scene: Scene) -> dict[str, set[str]]:
    scene.shell(f"ln -sf /dev/null {scene.path('web')}; systemctl daemon-reload")
    return {scene.unit("web"): {"masked"}}


def drop_in(scene: Scene) -> dict[str, set[str]]:
    scene.box.write(f"{UNIT_DIR}/{scene.project}-many@.service.d/x.conf", "[Service]\nNice=3\n")
    scene.shell(f"systemctl daemon-reload; systemctl restart {scene.unit('many@1')}")
    return {scene.unit("many@"): {"drop-in"}, scene.unit("many@2"): {"outdated"}}


def drop_in_for_all(scene: Scene) -> dict[str, set[str]]:
    scene.box.write(f"/run/systemd/system/{scene.project}-.timer.d/x.conf", "[Timer]\n")  # it has none
    scene.box.write(f"/run/systemd/system/{scene.project}-.service.d/x.conf", "[Service]\nNice=3\n")
    scene.box.write(f"{UNIT_DIR}/service.d/x.conf", "[Service]\n")  # the host's own policy
    scene.shell("systemctl daemon-reload")
    old = {unit: {"outdated"} for unit in scene.runs()}
    return {f"{scene.project}-.service": {"drop-in"}, **old}


def set_property(scene: Scene) -> dict[str, set[str]]:
    scene.shell(f"systemctl set-property --runtime {scene.unit('web')} CPUWeight=50")
    return {scene.unit("web"): {"drop-in", "outdated"}}


def disable(scene: Scene) -> dict[str, set[str]]:
    scene.shell(f"systemctl disable {scene.unit('web')}")
    return {scene.unit("web"): {"disabled"}}


def enable(scene: Scene) -> dict[str, set[str]]:
    scene.shell(f"systemctl add-wants {scene.project}.target {scene.unit('off')}")
    return {scene.unit("off"): {"enabled"}}


def enable_elsewhere(scene: Scene) -> dict[str, set[str]]:
    scene.shell(f"systemctl --runtime add-wants multi-user.target {scene.unit('web')}")
    return {scene.unit("web"): {"enabled"}}


def touch(scene: Scene) -> dict[str, set[str]]:
    scene.shell(f"touch {scene.path('web')}")
    return {scene.unit("web"): {"not-loaded"}}


def replace(scene: Scene, name: str) -> None:
    file = f"{scene.directory}/{name}"
    scene.shell(f"cp -p {file} {file}.new; mv {file}.new {file}")


def replace_script(scene: Scene) -> dict[str, set[str]]:
    replace(scene, "web")
    return {scene.unit("web"): {"replaced"}}


def replace_program(scene: Scene) -> dict[str, set[str]]:
    replace(scene, "program")
    return {scene.unit("program"): {"replaced"}}


def replace_library(scene: Scene) -> dict[str, set[str]]:
    replace(scene, "library.so")
    return {scene.unit("program"): {"replaced"}}


ON_DISK = {"edited", "generation", "removed", "masked", "drop-in", "disabled", "enabled"}
AT_STAKE = {"edited", "generation", "removed"}
HANDS = (
    *(edit, edit_and_reload, edit_and_restart, another_generation, remove, mask),
    *(drop_in, drop_in_for_all, set_property, disable, enable, enable_elsewhere),
    *(touch, replace_script, replace_program, replace_library),
)


@pytest.mark.parametrize("hand", HANDS, ids=lambda hand: hand.__name__)
def test_it_is_told_and_never_overwritten_unasked(
    scene: Scene, hand: Callable[[Scene], dict[str, set[str]]]
) -> None:
    assert scene.drift() == {}
    assert scene.marked() == {}
    expected = hand(scene)
    assert scene.drift() == expected
    kinds = {kind for found in expected.values() for kind in found}
    # Which generation a text is of, status and plan do not look up.
    on_disk = {"edited" if kind == "generation" else kind for kind in kinds & ON_DISK}
    assert scene.planned() == on_disk
    marked = {kind for found in scene.marked().values() for kind in found}
    assert marked == on_disk
    left, runs = scene.kept(), scene.runs()
    scene.apply(status=Exit.REFUSED if kinds & AT_STAKE else Exit.OK)
    assert scene.kept() == left
    assert scene.runs() == runs
    if kinds & ON_DISK:
        assert "no drift" not in scene.box.sysresp("drift").stdout


def test_a_changed_configuration(scene: Scene) -> None:
    scene.box.write(f"{scene.directory}/conf.d/a", "2")
    assert scene.drift() == {scene.unit("conf"): {"config"}}
    scene.apply(status=Exit.OK)
    assert scene.drift() == {}


def test_a_refusal_shows_the_difference_and_the_way_out(scene: Scene) -> None:
    edit(scene)
    said = scene.apply(status=Exit.REFUSED)
    assert f"{scene.unit('web')}  was edited: {scene.path('web')}  [{scene.file}:2]" in said
    assert "    +# by hand" in said
    assert "this would overwrite 1 unit file edited by hand; nothing was changed" in said
    assert "--accept-drift" in said
    assert "--overwrite-drift" in said


def test_accepted(scene: Scene) -> None:
    edit_and_restart(scene)
    scene.shell(f"rm {scene.path('program')}; systemctl daemon-reload")
    left, runs = scene.kept(), scene.runs()
    scene.apply("--accept-drift", status=Exit.OK)
    assert scene.drift() == {}
    assert scene.marked() == {}
    assert "nothing to do" in scene.apply(status=Exit.OK)
    assert (scene.kept(), scene.runs()) == (left, runs)
    scene.write('[services.new]\ncommand = ["/bin/sleep", "infinity"]\n')
    scene.apply(status=Exit.OK)
    assert {name: text for name, text in scene.kept().items() if "-new." not in name} == left
    assert scene.runs() == runs
    edit(scene)  # once more
    scene.apply(status=Exit.REFUSED)


def test_overwritten(scene: Scene) -> None:
    before = scene.kept()
    edit_and_restart(scene)
    scene.shell(
        f"rm {scene.path('program')}; systemctl daemon-reload; systemctl disable {scene.unit('conf')}"
    )
    runs = scene.runs()
    said = scene.apply("--overwrite-drift", status=Exit.OK)
    assert "1 created" in said
    assert scene.kept() == before
    assert scene.drift() == {}
    again = scene.runs()
    assert {unit for unit in runs if runs[unit] != again[unit]} <= {scene.unit("web")}


def test_a_plan_in_a_file_keeps_the_choice(scene: Scene) -> None:
    edit_and_restart(scene)
    scene.box.sysresp("plan", "--accept-drift", "--out", "/tmp/plan", scene.file, check=True)
    left = scene.kept()
    done = scene.box.sysresp("apply", "--plan", "/tmp/plan")
    assert done.returncode == Exit.OK, done.stderr
    assert scene.kept() == left
    assert scene.drift() == {}


@pytest.mark.parametrize(
    ("options", "user"),
    [
        (("--runtime",), None),
        (("--transient",), None),
        (("--user",), USER),
        (("--user", "--runtime"), USER),
        (("--user", "--transient"), USER),
    ],
    ids=["runtime", "transient", "user", "user-runtime", "user-transient"],
)
def test_in_every_way_there_is_none_at_first(box: Box, options: tuple[str, ...], user: str | None) -> None:
    script = box.write(f"/srv/{box.project}/web", SCRIPT, 0o755)
    conf = box.write(f"/srv/{box.project}/conf", "1")
    file = write_file(
        box,
        f"""
        [services.web]
        command = ["{script}"]
        config_files = ["{conf}"]

        [services.db]
        command = ["/bin/sleep", "infinity"]
        instances = 2
        """,
    )
    box.sysresp("apply", "--settle", "0", *options, file, user=user, check=True)
    scope = ["--user"] * ("--user" in options)
    done = box.sysresp("drift", *scope, "--project", box.project, user=user)
    assert done.returncode == Exit.OK, done.stdout + done.stderr
    status = box.sysresp("status", "--json", *scope, "--project", box.project, user=user)
    assert [row["drift"] for row in json.loads(status.stdout)] == [[], [], []]
    box.run(["/bin/sh", "-c", f"echo '#' >> {script}"], check=True)
    done = box.sysresp("drift", *scope, "--project", box.project, user=user)
    assert done.returncode == Exit.NOT_WELL
    assert done.stdout.endswith("drift: 1 replaced\n"), done.stdout


def test_a_user_without_rights_sees_what_there_is(scene: Scene) -> None:
    edit(scene)
    done = scene.box.sysresp("drift", "--project", scene.project, user="tester")
    assert done.returncode == Exit.NOT_WELL, done.stderr
    assert "1 edited" in done.stdout
    assert "only root may see" in done.stderr


def test_an_edit_that_the_file_says_by_now_is_run(scene: Scene) -> None:
    path = scene.path("web")
    scene.write("[services.web.systemd.Service]\nNice = 3\n")
    scene.box.sysresp("render", scene.file, "--output", scene.directory, check=True)
    scene.shell(f"cp {scene.directory}/{scene.unit('web')} {path}")
    runs = scene.runs()
    scene.apply(status=Exit.OK)
    assert {unit for unit, pid in scene.runs().items() if pid != runs[unit]} == {scene.unit("web")}
    assert scene.box.show(scene.unit("web"), "Nice") == "3"
    assert scene.drift() == {}
    assert "nothing to do" in scene.apply(status=Exit.OK)
