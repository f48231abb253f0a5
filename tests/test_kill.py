"""A change that is killed, or meets a full or read-only disk, at each of its points: then it is made whole.

A point is every change of a file, every call of systemd and every sleep. Systemd lives on when sysresp is
killed, and the jobs that it had queued end.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping
from typing import NamedTuple

import pytest

from sysresp.cli import change
from sysresp.errors import Exit, SysrespError
from sysresp.model import Scope
from sysresp.reconcile import generations
from sysresp.reconcile.generations import CUT, OK, OPEN, ROLLED_BACK
from sysresp.reconcile.generations import Entry as End
from sysresp.reconcile.manifest import load
from sysresp.units.change import Effect, effect
from sysresp.units.desired import Desired
from tests.fakes import UNIT_DIR, FakeManager, fake_host
from tests.mortal import Killed, Run, error_at, full_from, killed_at
from tests.plan_scenes import MANIFEST, Entry, desired_of

OLD = {
    "a": Entry(),
    "b": Entry(),
    "c": Entry(),
    "d": Entry(),
    "f": Entry(socket=1),
    "g": Entry(instances=3),
    "h": Entry(requires=("a",)),
    "i": Entry(),
    "k": Entry(),
}
NEW = {
    "a": Entry(),
    "b": Entry(version=2),  # restarts
    "c": Entry(config=2),  # reloads
    "e": Entry(requires=("b",)),  # comes; d goes
    "f": Entry(socket=2),  # stops and starts with its socket
    "g": Entry(version=2, instances=3),  # one instance after the other
    "h": Entry(requires=("a",)),
    "i": Entry(),
    "k": Entry(description=2),  # is read anew
}
SETTLE = 0.5  # one look at its beginning, one within, one at its end
USUAL = change.Options(settle="500ms")
OUTSIDE = ("a", "h", "i", "k")  # these go on running as if nothing happened
BAD = NEW | {"b": Entry(version=13), "e": Entry()}  # version 13 ends at once


def old_host() -> FakeManager:
    """Return a host on which the old project is applied, at generation 1."""
    manager = FakeManager()
    manager.crash_text["/bin/b 13"] = "exit-code"
    assert Run(manager).converge(desired_of(OLD), settle_sec=SETTLE).end == OK
    return manager


def outside(manager: FakeManager) -> dict[str, str]:
    return {name: manager.loaded[f"shop-{name}.service"].invocation for name in OUTSIDE}


def ends(manager: FakeManager) -> tuple[End, ...]:
    return generations.history(manager.files, fake_host(manager=manager).paths, "shop")


def on_disk(manager: FakeManager) -> Mapping[str, object]:
    """Return all files and links with their content, but for what systemd and the lock have."""
    found: dict[str, object] = {**manager.files.files, **manager.files.links}
    return {path: content for path, content in found.items() if not path.startswith("/run/")}


def check_whole(manager: FakeManager, desired: Desired) -> None:
    """Check that the host is what is desired, everything runs what its file says, and nothing is owed."""
    units = {path: content for path, content in manager.files.files.items() if path.startswith(UNIT_DIR)}
    assert units == {f"{UNIT_DIR}/{f.name}": f.text.encode() for f in desired.files.values()}
    assert manager.files.links == {
        f"{UNIT_DIR}/{link}": f"{UNIT_DIR}/{file}" for link, file in desired.links.items()
    }
    for unit in desired.units.values():
        if unit.start and not unit.name.endswith(".slice"):
            loaded = manager.loaded[unit.name]
            text = desired.files[unit.file].text
            assert (loaded.active, loaded.text) == ("active", text), unit.name
            assert effect(loaded.runs, text) in (Effect.NONE, Effect.REFRESH), unit.name
    for name in manager.loaded:
        assert not name.startswith("shop") or name in desired.units, name
    manifest = load(manager.files, MANIFEST)
    assert manifest is not None
    owed = manifest.pending, manifest.restarts, manifest.reloads, manifest.runs, manifest.unfinished
    assert owed == ((), (), (), (), False)
    by_number = {one.number: one.outcome for one in ends(manager)}
    assert by_number[manifest.generation] == OK
    assert {end for number, end in by_number.items() if number > manifest.generation} <= {CUT, ROLLED_BACK}


def rollback(run: Run) -> int:
    return run.command(lambda: change.rollback(0, project="", scope=Scope.SYSTEM, options=USUAL))


def resume(run: Run) -> int:
    return run.command(lambda: change.resume(project="", scope=Scope.SYSTEM, options=USUAL))


def kill(manager: FakeManager, desired: Desired, point: int) -> bool:
    """Apply and be killed at that point; return whether there is one."""
    try:
        Run(manager, killed_at(point)).converge(desired, settle_sec=SETTLE)
    except Killed:
        return True
    return False


POINTS = 400


class TestKilled:
    def test_one_more_apply_is_enough(self) -> None:
        for point in range(1, POINTS):
            manager = old_host()
            before = outside(manager)
            killed = kill(manager, desired_of(NEW), point)
            cut = ends(manager)[-1]
            again = Run(manager)
            done = again.converge(desired_of(NEW), settle_sec=SETTLE)
            assert done.outcome.ok, point
            check_whole(manager, desired_of(NEW))
            assert outside(manager) == before, point
            if cut.outcome in OPEN:
                assert len(again.found) == 1, point
                assert "of generation 2 by root" in again.found[0]
                assert "was cut" in again.found[0]
                assert ("sweep", UNIT_DIR) in again.files.operations
            else:
                assert again.found == [], point
            last = ends(manager)[-1]
            assert last.outcome == OK
            assert {one.outcome for one in ends(manager)[:-1]} <= {OK, CUT}
            third = Run(manager)
            assert third.converge(desired_of(NEW), settle_sec=SETTLE).plan.is_noop
            assert third.found == [], point
            if not killed:
                print(f"killed at {point - 1} points")
                assert point > 60
                return
        pytest.fail("it never came to its end")

    def test_or_a_rollback(self) -> None:
        for point in range(1, POINTS):
            manager = old_host()
            before = outside(manager)
            killed = kill(manager, desired_of(NEW), point)
            began = ends(manager)[-1].number == 2
            again = Run(manager)
            if began:
                assert rollback(again) == Exit.OK
                assert again.output.count("going back to generation 1") == 1, again.output
            else:
                again.converge(desired_of(OLD), settle_sec=SETTLE)
            check_whole(manager, desired_of(OLD))
            assert outside(manager) == before, point
            assert all(one.outcome not in OPEN for one in ends(manager)), point
            third = Run(manager)
            assert third.converge(desired_of(OLD), settle_sec=SETTLE).plan.is_noop
            assert third.found == [], point
            if not killed:
                return
        pytest.fail("it never came to its end")

    def test_or_resume(self) -> None:
        for point in range(1, POINTS):
            manager = old_host()
            before = outside(manager)
            killed = kill(manager, desired_of(NEW), point)
            manifest = load(manager.files, MANIFEST)
            assert manifest is not None
            again = Run(manager)
            assert resume(again) == Exit.OK, again.output
            check_whole(manager, desired_of(NEW if manifest.generation == 2 else OLD))
            assert outside(manager) == before, point
            if not killed:
                return
        pytest.fail("it never came to its end")

    @pytest.mark.parametrize("how", ["apply", "mended", "rollback", "resume"])
    def test_while_it_rolls_back(self, how: str) -> None:
        for point in range(1, POINTS):
            manager = old_host()
            before = outside(manager)
            killed = kill(manager, desired_of(BAD), point)
            cut = ends(manager)[-1].outcome in OPEN
            again = Run(manager)
            wanted = OLD
            if how == "apply":
                done = again.converge(desired_of(BAD), settle_sec=SETTLE)
                assert done.end == ROLLED_BACK, point
                assert [found.unit for found in done.reasons] == ["shop-b.service"]
                assert done.back is not None
                assert done.back.ok
            elif how == "mended":
                assert again.converge(desired_of(NEW), settle_sec=SETTLE).end == OK, point
                wanted = NEW
            elif how == "rollback" and cut:
                assert rollback(again) == Exit.OK, again.output
            else:
                assert resume(again) in (Exit.OK, Exit.ROLLED_BACK), again.output
            check_whole(manager, desired_of(wanted))
            assert outside(manager) == before, point
            third = Run(manager)
            assert third.converge(desired_of(wanted), settle_sec=SETTLE).plan.is_noop
            assert third.found == [], point
            if not killed:
                assert point > 80
                return
        pytest.fail("it never came to its end")


class TestDisk:
    """Errors of the file system instead of kills."""

    @pytest.mark.parametrize("wanted", [NEW, BAD], ids=["good", "bad"])
    def test_full_at_each_point(self, wanted: Mapping[str, Entry]) -> None:
        refused = 0
        for point in range(1, POINTS):
            manager = old_host()
            before, scene = outside(manager), seen(manager)
            run = Run(manager, full_from(point))
            error = run.attempt(desired_of(wanted), settle_sec=SETTLE)
            if error is not None:
                refused += 1
                assert re.match("cannot (write|link) /.*: No space left on device", error.message)
                check_undone(manager, scene, error)
            Run(manager).converge(desired_of(NEW), settle_sec=SETTLE)
            check_whole(manager, desired_of(NEW))
            assert outside(manager) == before, point
            if len(run.points) < point:
                assert refused > 15
                return
        pytest.fail("it never came to its end")

    def test_read_only_from_each_point(self) -> None:
        told = 0
        for point in range(1, POINTS):
            manager = old_host()
            before, scene = outside(manager), seen(manager)
            run = Run(manager)
            run.read_only_from(point)
            error = run.attempt(desired_of(NEW), settle_sec=SETTLE)
            if error is not None:
                assert "Read-only file system" in error.message
                check_undone(manager, scene, error)
                told += "could not be put back" in error.hint
            Run(manager).converge(desired_of(NEW), settle_sec=SETTLE)
            check_whole(manager, desired_of(NEW))
            assert outside(manager) == before, point
            if len(run.points) < point:
                assert told > 10
                return
        pytest.fail("it never came to its end")

    @pytest.mark.parametrize("code", [errno.EIO, errno.EDQUOT])
    def test_one_error(self, code: int) -> None:
        refused = 0
        for point in range(1, POINTS):
            manager = old_host()
            scene = seen(manager)
            run = Run(manager, error_at(point, code))
            error = run.attempt(desired_of(NEW), settle_sec=SETTLE)
            if error is not None:
                refused += 1
                assert run.points[point - 1][1] in error.message
                check_undone(manager, scene, error)
            Run(manager).converge(desired_of(NEW), settle_sec=SETTLE)
            check_whole(manager, desired_of(NEW))
            if len(run.points) < point:
                assert refused > 15
                return
        pytest.fail("it never came to its end")


class Seen(NamedTuple):
    """A host before a change."""

    disk: Mapping[str, object]
    runs: Mapping[str, str]


def seen(manager: FakeManager) -> Seen:
    return Seen(on_disk(manager), runs(manager))


def runs(manager: FakeManager) -> dict[str, str]:
    """Return what each unit runs."""
    return {name: unit.invocation for name, unit in manager.loaded.items() if unit.active == "active"}


def check_undone(manager: FakeManager, scene: Seen, error: SysrespError) -> None:
    """Check that the message is true: what runs, what is back, and what could not be put back."""
    if error.hint.startswith("all else was done"):
        return
    now = on_disk(manager)
    changed = {path for path in {*scene.disk, *now} if scene.disk.get(path) != now.get(path)}
    assert all(path in error.hint for path in changed)
    assert bool(changed) is not error.message.endswith("nothing was changed")
    again = {name for name, run in runs(manager).items() if scene.runs[name] != run}
    assert runs(manager).keys() == scene.runs.keys()
    assert again <= {"shop-d.service", "shop-f.socket", "shop-f.service"}  # they had to be stopped
    assert changed or all(name in error.message for name in again)
