"""What may happen to the bus, the journal and the ledger: services go on, and the controller recovers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.live.conftest import Box
from tests.live.storms import LEDGER, UNIT, enable, is_up, query
from tests.live.until import until

pytestmark = pytest.mark.live

SERVICE = """
[services.web]
command = ["/bin/sleep", "infinity"]
restart = { when = "always", delay = "100ms" }
"""
STATE = LEDGER.rpartition("/")[0]
OTHER = "/run/state-again"  # the same file system, mounted once more


class Scene:
    """One service and the controller."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.unit = f"{box.project}-web.service"
        path = box.write(f"/etc/sysresp/{box.project}.toml", f'project = "{box.project}"\n{SERVICE}')
        box.sysresp("apply", path, check=True)

    def crash(self) -> str:
        """Kill the service, wait until it is back, and return the run that ended."""
        run = self.box.show(self.unit, "InvocationID")
        self.box.systemctl("kill", "-s", "KILL", self.unit)
        self.wait_for_another(run)
        return run

    def wait_for_another(self, run: str) -> None:
        def is_back() -> bool:
            found = self.box.systemctl("show", "-p", "SubState,InvocationID", "--value", self.unit).stdout
            return "running" in found and run not in found

        until(is_back, "the service is back")

    def rows(self) -> list[str]:
        """Return the runs of the service that are in the ledger."""
        rows = query(self.box, "SELECT invocation FROM exit WHERE unit = ? ORDER BY id", self.unit)
        return [run for (run,) in rows]

    def expect(self, *runs: str) -> None:
        until(lambda: set(runs) <= set(self.rows()), f"the ledger has {runs}")

    def says(self, text: str) -> None:
        """Wait until the controller has said this."""
        words = ["journalctl", "--quiet", "-o", "cat", "-u", UNIT, "--grep", text]
        until(lambda: self.box.run(words).stdout, f"the controller says {text!r}")


@pytest.fixture
def scene(box: Box) -> Scene:
    enable(box)
    return Scene(box)


@pytest.mark.parametrize("how", ["restart", "kill"])
def test_the_bus_goes_and_comes_back(scene: Scene, how: str) -> None:
    box = scene.box
    before = box.show(UNIT, "MainPID")
    first = scene.crash()
    if how == "restart":
        box.systemctl("restart", "dbus.service")
    else:
        box.systemctl("kill", "-s", "KILL", "dbus.service")
    second = scene.crash()
    scene.expect(first, second)
    third = scene.crash()
    scene.expect(first, second, third)
    assert len(scene.rows()) == 3
    assert box.show(UNIT, "MainPID") == before


def test_the_journal_is_vacuumed_while_nobody_listens(scene: Scene) -> None:
    """Then only the count is known, but for the run that was seen before, and the rows say so."""
    box = scene.box
    first = scene.crash()
    scene.expect(first)
    box.systemctl("stop", UNIT)
    second = scene.crash()
    scene.crash()
    # In one command, `--rotate` before `--vacuum-size` left everything where it was (252 and 257).
    for words in (["--sync"], ["--rotate"], ["--vacuum-size=1"]):
        box.run(["journalctl", *words], check=True)
    left = box.run(["journalctl", "--quiet", "-o", "cat", "-u", scene.unit]).stdout
    assert "Main process exited" not in left
    box.systemctl("start", UNIT)
    until(lambda: len(scene.rows()) >= 3, "three rows")
    assert scene.rows() == [first, second, "lost-1"]
    shown = box.sysresp("incidents", "--exits", "web", "--project", box.project).stdout
    assert shown.count("details") >= 2


def test_the_ledger_is_damaged(scene: Scene) -> None:
    """What was in it is moved aside, and what happens from then on is in a new one."""
    box = scene.box
    scene.expect(scene.crash())
    box.systemctl("kill", "-s", "KILL", UNIT)
    file = box.path(LEDGER)
    until(lambda: is_up(box), "the controller is back")
    box.systemctl("stop", UNIT)
    for part in (file, file.with_name(f"{file.name}-wal")):  # the log, if it is there, holds newer pages
        if part.exists():
            part.write_bytes(b"\xff" * part.stat().st_size)
    while_it_was_away = scene.crash()
    box.systemctl("start", UNIT)
    after = scene.crash()
    scene.expect(after)
    assert list(file.parent.glob("ledger.db.corrupt-*"))
    assert set(scene.rows()) <= {while_it_was_away, after}
    assert query(box, "SELECT text FROM note WHERE kind = 'ledger'")


@pytest.fixture
def small(box: Box) -> Iterator[Scene]:
    """A state directory on a small file system of its own."""
    box.run(["mkdir", "-p", STATE], check=True)
    box.run(["mount", "-t", "tmpfs", "-o", "size=2M,mode=0755", "tmpfs", STATE], check=True)
    box.run(["mkdir", "-p", OTHER], check=True)
    box.run(["mount", "--bind", STATE, OTHER], check=True)
    enable(box)
    yield Scene(box)
    box.systemctl("stop", UNIT)
    box.run(["umount", STATE, OTHER], check=True)


def test_the_disk_is_full(small: Scene) -> None:
    box = small.box
    small.expect(small.crash())
    box.run(["dd", "if=/dev/zero", f"of={STATE}/fill", "bs=4k"])
    # What the ledger has room for already is used up first.
    runs = [small.crash()]
    words = ["journalctl", "--quiet", "-o", "cat", "-u", UNIT, "--grep", "cannot write the ledger"]
    while not box.run(words).stdout and len(runs) < 500:
        runs.append(small.crash())
    small.says("cannot write the ledger")
    runs.append(small.crash())
    box.run(["rm", f"{STATE}/fill"], check=True)
    small.expect(*runs)
    small.says("can be written again")


def test_the_disk_is_read_only(small: Scene) -> None:
    """As after an error of the file system: nothing can be written there when the controller starts.

    The file system is made read-only, by its other mount, and not the mount: that the controller's own
    namespace would keep.
    """
    box = small.box
    small.expect(small.crash())
    box.systemctl("stop", UNIT)
    box.run(["mount", "-o", "remount,ro", OTHER], check=True)
    box.systemctl("start", UNIT)
    runs = [small.crash(), small.crash()]
    small.says("cannot write the ledger")
    assert is_up(box)
    box.run(["mount", "-o", "remount,rw", OTHER], check=True)
    small.expect(*runs)
    assert len(small.rows()) == 3
