"""Every way to run units, end to end: persistent, runtime, transient, for the system and for a user.

One story for all six: apply, look, change one service, apply again, stop one by hand, apply, take everything
down. What must hold in each: only what changed is restarted, a second apply does nothing, and what the
administrator stopped stays so. The persistent mode must also be an ordinary citizen of systemctl.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest

from sysresp.errors import Exit
from tests.live.conftest import USER, Box
from tests.live.installed import install_program, snapshot, write_file
from tests.live.until import until

pytestmark = pytest.mark.live


class Way(NamedTuple):
    """One scope and mode: what is added to each command line."""

    user: str | None
    options: tuple[str, ...]


WAYS = {
    "persistent": Way(None, ()),
    "runtime": Way(None, ("--runtime",)),
    "transient": Way(None, ("--transient",)),
    "user": Way(USER, ("--user",)),
    "user-runtime": Way(USER, ("--user", "--runtime")),
    "user-transient": Way(USER, ("--user", "--transient")),
}

TEXT = """
[services.db]
command = ["/usr/local/bin/late", "file", "/tmp/@PROJECT@.ready", "0.1"]
ready = { file = "/tmp/@PROJECT@.ready" }
runtime_directory = true
environment = { COLOUR = "@COLOUR@" }

[services.web]
command = ["/bin/sleep", "infinity"]
wants = ["db"]

[services.worker]
command = ["/bin/sleep", "1{instance}00"]
instances = 2
"""
UNITS = ("db", "web", "worker@1", "worker@2")


class Story:
    """One project in one way, and what is asked of it again and again."""

    def __init__(self, box: Box, way: Way) -> None:
        self.box, self.way = box, way
        self.transient = "--transient" in way.options
        self.user = way.user

    def write(self, colour: str) -> str:
        """Write services.toml."""
        return write_file(self.box, TEXT.replace("@PROJECT@", self.box.project).replace("@COLOUR@", colour))

    def apply(self, file: str) -> str:
        """Apply, and return what was printed."""
        done = self.box.sysresp("apply", *self.way.options, file, user=self.user)
        assert done.returncode == Exit.OK, done.stdout + done.stderr
        return done.stdout

    def status(self) -> int:
        """Return the exit status of `status`."""
        scope = ["--user"] if self.user else []
        return self.box.sysresp("status", *scope, "--project", self.box.project, user=self.user).returncode

    def unit(self, name: str) -> str:
        """Return the whole name of a unit."""
        return f"{self.box.project}-{name}.service"

    def systemctl(self, *args: str) -> str:
        """Run systemctl of this scope."""
        return self.box.systemctl(*args, user=self.user).stdout

    def look(self, name: str) -> dict[str, str]:
        """Return one property of each unit."""
        units = {self.unit(one): one for one in UNITS}
        blocks = self.systemctl("show", "-p", "Id", "-p", name, *units).strip().split("\n\n")
        rows = [dict(line.split("=", 1) for line in block.splitlines()) for block in blocks]
        return {units[row["Id"]]: row[name] for row in rows}

    def states(self) -> list[str]:
        """Return each ActiveState."""
        found = self.look("ActiveState")
        return [found[name] for name in UNITS]

    def runs(self) -> dict[str, str]:
        """Return the InvocationID of each unit: another one is a restart."""
        return self.look("InvocationID")


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_from_apply_to_down(box: Box, way: Way) -> None:
    install_program(box, "late")
    story = Story(box, way)
    if way.user:
        box.need_user_manager()
    before = snapshot(box, way.user or "")

    file = story.write("red")
    story.apply(file)
    assert story.states() == ["active"] * 4
    assert story.status() == Exit.OK
    first = story.runs()

    story.apply(file)
    assert story.runs() == first
    plan = box.sysresp("plan", "--detailed-exitcode", *way.options, file, user=way.user)
    assert plan.returncode == 0, plan.stdout

    story.apply(story.write("blue"))
    second = story.runs()
    assert {name for name in UNITS if second[name] != first[name]} == {"db"}
    assert "COLOUR=blue" in box.show(story.unit("db"), "Environment", user=way.user)

    story.systemctl("stop", story.unit("worker@1"))
    story.apply(story.write("green"))
    assert story.look("ActiveState")["worker@1"] == "inactive"
    third = story.runs()
    assert third["db"] not in ("", second["db"])
    assert (third["web"], third["worker@2"]) == (second["web"], second["worker@2"])

    scope = ["--user"] if way.user else []
    done = box.sysresp("down", *scope, "--project", box.project, user=way.user)
    assert done.returncode == Exit.OK, done.stdout + done.stderr
    left = story.systemctl("list-units", "--all", "--plain", "--no-legend", f"{box.project}*")
    assert left == ""
    files = box.systemctl("list-unit-files", "--no-legend", f"{box.project}*", check=False, user=way.user)
    assert files.stdout == ""
    # The prober stays: units of other projects run it.
    left_files = snapshot(box, way.user or "").keys() ^ before.keys()
    assert {path for path in left_files if not path.endswith("/ready.py")} == set()
    assert story.status() == Exit.UNKNOWN


@pytest.mark.parametrize("way", [WAYS["persistent"], WAYS["user"]], ids=["system", "user"])
def test_systemctl_alone_can_do_everything(box: Box, way: Way) -> None:
    install_program(box, "late")
    story = Story(box, way)
    target = f"{box.project}.target"
    boot = "default.target" if way.user else "multi-user.target"
    story.apply(story.write("red"))
    first = story.runs()

    story.systemctl("daemon-reload")
    assert story.runs() == first
    assert story.status() == Exit.OK

    story.systemctl("stop", target)
    assert story.states() == ["inactive"] * 4
    assert story.status() == Exit.NOT_WELL
    story.systemctl("start", target)
    assert story.states() == ["active"] * 4
    assert story.status() == Exit.OK

    linked = snapshot(box, way.user or "")
    units = (target, *map(story.unit, UNITS))
    assert set(story.systemctl("is-enabled", *units).split()) == {"enabled"}
    story.systemctl("disable", *units)
    disabled = box.systemctl("is-enabled", *units, check=False, user=way.user)
    assert set(disabled.stdout.split()) == {"disabled"}
    assert not [path for path in snapshot(box, way.user or "") if f"{boot}.wants/{target}" in path]
    story.systemctl("enable", *units)
    assert snapshot(box, way.user or "") == linked


def test_a_service_gets_its_credentials(box: Box) -> None:
    """From a file that only root may read, to a user that is not root."""
    box.write("/etc/secrets/key", "s3cret\n", 0o600)
    out = f"/tmp/{box.project}"
    text = "[services.web]\n"
    text += f'command = ["/bin/sh", "-c", \'cat $CREDENTIALS_DIRECTORY/key > {out}; exec sleep infinity\']\n'
    text += f'user = "{USER}"\ncredentials = {{ key = "/etc/secrets/key" }}\n'
    box.sysresp("apply", write_file(box, text), check=True)
    until(lambda: box.path(out).exists() and box.read(out) == "s3cret\n", "it has read its secret")
