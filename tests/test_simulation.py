"""Whatever happens in any order: the promises 2, 3 and 4 of sysresp, in virtual time.

2. Only what the project owns is touched. 3. A change ends with everything up, or with the previous
generation back, however it was cut before. 4. What the administrator stopped or masked stays so.

Hypothesis draws the story: changes of the file, kills and Ctrl-C at any call, full disks, refusals of
systemd, crashes, and what an administrator does by hand. What an apply does about an edit by hand is in
`World.applies`, and nowhere else.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule, run_state_machine_as_test

from sysresp.cli import change
from sysresp.errors import SysrespError
from sysresp.model import Scope
from sysresp.ports import UnitProblem
from sysresp.reconcile import generations
from sysresp.reconcile.converge import Report
from sysresp.reconcile.resolve import DriftChoice
from tests.fakes import UNIT_DIR, fake_host
from tests.mortal import Before, Killed, Run, error_at, full_from, killed_at, raised_at
from tests.plan_scenes import Entry
from tests.story import SERVICES, STATE, Story, desired

STEPS = 10_000
STORY = 50  # steps of one story
VENDOR = "/usr/lib/systemd/system"
files_of_the_user = st.fixed_dictionaries(
    {}, optional={name: st.sampled_from(variants) for name, variants in SERVICES.items()}
)
points = st.integers(1, 90)
picks = st.integers(0, 30)


class Mishap(NamedTuple):
    """What goes wrong with a run, at which of its calls."""

    kind: str  # "" | killed | ctrl-c | full | read-only | error | systemd | reload
    point: int

    def before(self) -> Before:
        match self.kind:
            case "killed":
                return killed_at(self.point)
            case "ctrl-c":
                return raised_at(self.point, KeyboardInterrupt())
            case "full":
                return full_from(self.point)
            case "error":
                return error_at(self.point, errno.EIO)
            case "systemd":
                return raised_at(self.point, SysrespError("systemd went away"), of_systemd=True)
            case _:
                return lambda _number, _call: None


NONE = Mishap("", 0)
KINDS = ("", "", "killed", "killed", "ctrl-c", "full", "read-only", "error", "systemd", "reload")
choices = st.sampled_from(("refuse", "overwrite", "overwrite"))
mishaps = st.builds(Mishap, st.sampled_from(KINDS), points)


OPTIONS = change.Options(settle="500ms")
SHOP: Any = {"project": "shop", "scope": Scope.SYSTEM}


class World(Story):
    """One host, its administrator, and sysresp."""

    # What sysresp does

    def applies(self, run: Run, drift: str = "overwrite") -> Report:
        """Converge to what is wanted; what was edited or removed by hand is written over, if so asked."""
        return run.converge(self.wanted, settle_sec=0.5, drift=DriftChoice(drift))

    @rule(entries=files_of_the_user, mishap=mishaps, drift=choices)
    def apply(self, entries: Mapping[str, Entry], mishap: Mishap, drift: str) -> None:
        """The file has changed."""
        self.wanted = desired(entries)
        self.apply_again(mishap, drift)

    @rule(mishap=mishaps, drift=choices)
    def apply_again(self, mishap: Mishap, drift: str) -> None:
        self.keeping_edits(lambda run: self.applies(run, drift), mishap, drift)

    @rule(mishap=mishaps, drift=choices)
    def rollback(self, mishap: Mishap, drift: str) -> None:
        how = replace(OPTIONS, drift=drift)
        self.keeping_edits(
            lambda run: run.command(lambda: change.rollback(0, **SHOP, options=how)), mishap, drift
        )

    @rule(mishap=mishaps, drift=choices)
    def resume(self, mishap: Mishap, drift: str) -> None:
        how = replace(OPTIONS, drift=drift)
        self.keeping_edits(
            lambda run: run.command(lambda: change.resume(**SHOP, options=how)), mishap, drift
        )

    def keeping_edits(self, do: Callable[[Run], Report | int], mishap: Mishap, drift: str) -> None:
        """Do it; what was edited by hand is overwritten only if that was asked for."""
        if drift == "overwrite":  # whoever goes on with it if it is cut does what was asked for
            self.asked |= set(self.edits().values())
        edits = {path: text for path, text in self.edits().items() if text not in self.asked}
        self.change(do, mishap)
        assert edits.items() <= self.manager.files.files.items(), "an edit was overwritten unasked"

    @rule(mishap=mishaps, pick=picks)
    def down(self, mishap: Mishap, pick: int) -> None:
        """Take the project away, or one service of it."""
        names = sorted({unit.service for unit in self.manifest().units if unit.service})
        chosen = [names[pick % len(names)]] if names and pick % 3 else []
        units = self.manifest().units
        gone = frozenset(unit.name for unit in units if not chosen or unit.service in chosen)
        self.change(
            lambda run: run.command(lambda: change.down(chosen, **SHOP, modes=(), options=OPTIONS)),
            mishap,
            gone,
        )

    def change(
        self, do: Callable[[Run], Report | int], mishap: Mishap, gone: frozenset[str] = frozenset()
    ) -> None:
        """Do it, with a mishap; check that nothing happens that it has no reason for, and where it ends."""
        self.step()
        manager = self.manager
        before, seeds, disk = self.running(), self.seeds(), self.on_disk()
        stopped = {n for n in self.stopped if not self.is_up(n)}
        run = Run(manager, mishap.before())
        if mishap.kind == "read-only":
            run.read_only_from(mishap.point)
        if mishap.kind == "reload":
            manager.raises["reload"] = SysrespError("systemd refused to reload")
        done: Report | int | None = None
        problem: BaseException | None = None
        try:
            done = do(run)
        except (Killed, KeyboardInterrupt, SysrespError) as error:
            problem = error
        finally:
            manager.raises.clear()
        self.check_restarts(before, self.closure(seeds | self.seeds() | gone))
        self.check_stopped(stopped, before)
        if gone:  # what had required it has stopped with it, and stays so
            self.note_stopped(before)
        if isinstance(done, Report) and mishap.kind not in ("full", "read-only", "error"):
            self.check_report(done)
        if isinstance(problem, SysrespError) and problem.message.endswith("nothing was changed"):
            assert self.on_disk() == disk

    @rule()
    def undisturbed(self) -> None:
        """Whatever happened: one more apply, and it is the new generation or the one before."""
        self.step()
        before, seeds = self.running(), self.seeds()
        stopped = {n for n in self.stopped if not self.is_up(n)}
        earlier = {entry.number: entry for entry in self.history()}
        self.asked |= set(self.edits().values())
        report = self.applies_or_meets_a_stranger()
        if report is None:
            return
        self.check_restarts(before, seeds | self.seeds())
        self.check_stopped(stopped, before)
        self.check_report(report)
        self.check_history(report, earlier)
        if report.end == generations.ROLLED_BACK:
            old = generations.load(self.manager.files, fake_host().paths, "shop", report.previous).desired
            self.check_whole(old, report)
            assert report.reasons
        else:
            assert report.end in (generations.OK, generations.FAILED)
            assert (report.end == generations.OK) <= report.outcome.ok
            self.check_whole(self.wanted, report)
        if report.outcome.ok and report.back is None:
            again = Run(self.manager)
            assert self.applies(again).plan.is_noop
            assert again.found == []

    def applies_or_meets_a_stranger(self) -> Report | None:
        """Apply; None if a unit file that is not ours is in the way."""
        try:
            return self.applies(Run(self.manager))
        except SysrespError as error:
            if re.search("sysresp did not write it|did not start it", error.message):
                return None
            raise

    # What others do

    @rule(pick=picks, again=st.booleans())
    def crash(self, pick: int, again: bool) -> None:
        """A service ends; systemd starts it again, or gives up."""
        self.step()
        up = [u for n, u in sorted(self.manager.loaded.items()) if u.active == "active" and ".service" in n]
        if up:
            unit = up[pick % len(up)]
            if again and unit.load == "loaded":  # without its file it has no Restart=
                unit.invocation, unit.runs = self.manager.new_invocation(), unit.text
            else:
                self.manager.set_state(unit.name, "failed", result="exit-code")

    @rule(pick=picks)
    def fails_from_now_on(self, pick: int) -> None:
        self.step()
        if name := self.picked(pick, ".service"):
            self.manager.fail[name] = "failed"

    @rule()
    def all_is_mended(self) -> None:
        self.step()
        self.manager.fail.clear()

    @rule(pick=picks, verb=st.sampled_from(("stop", "start", "restart")))
    def systemctl(self, pick: int, verb: str) -> None:
        self.step()
        name = self.picked(pick, ".service")
        if not name:
            return
        before = self.running()
        try:
            job = getattr(self.manager, verb)(name)
            self.manager.wait([job], 10, lambda _: None)
        except UnitProblem:
            return
        self.note_stopped(before)

    @rule(pick=picks)
    def mask(self, pick: int) -> None:
        self.step()
        if name := self.picked(pick, ".service"):
            path = f"{UNIT_DIR}/{name}"
            if path not in self.foreign:  # mask --now
                before = self.running()
                self.manager.wait([self.manager.stop(name)] if self.is_up(name) else [], 10, lambda _: None)
                self.note_stopped(before)
                self.manager.files.files.pop(path, None)  # systemctl(1): mask refuses as long as it is there
                self.put(path, "/dev/null")
                self.manager.reload()  # so does systemctl mask

    @rule()
    def unmask(self) -> None:
        self.step()
        for path in [path for path, target in self.foreign.items() if target == "/dev/null"]:
            self.take(path)
            self.once.add(path.rpartition("/")[2])  # whether it is started then is a matter of taste

    @rule(pick=picks)
    def disable(self, pick: int) -> None:
        self.step()
        links = sorted(set(self.manager.files.links) - self.foreign.keys())
        if links:
            link = links[pick % len(links)]
            del self.manager.files.links[link]
            self.unlinked.add(link.removeprefix(f"{UNIT_DIR}/"))

    @rule(pick=picks, how=st.sampled_from(("edit", "remove")))
    def by_hand(self, pick: int, how: str) -> None:
        """A unit file of ours is edited or removed."""
        self.step()
        files = self.manager.files.files
        ours = sorted(p for p in files if p.startswith(f"{UNIT_DIR}/shop") and p not in self.foreign)
        if not ours:
            return
        path = ours[pick % len(ours)]
        if how == "edit":
            files[path] += b"Nice=5\n"
        else:
            del files[path]

    def edits(self) -> dict[str, bytes]:
        """Return the unit files of ours that carry an edit."""
        files = self.manager.files.files
        return {
            p: text for p, text in files.items() if p.startswith(UNIT_DIR) and text.endswith(b"Nice=5\n")
        }

    @rule(pick=picks, vendor=st.booleans())
    def foreign_file(self, pick: int, vendor: bool) -> None:
        """Somebody else has a unit of a name that we have, or may want."""
        self.step()
        names = [f"shop-{name}{s}" for name in SERVICES for s in (".service", ".socket", "@.service")]
        name = names[pick % len(names)]
        path = f"{VENDOR if vendor else UNIT_DIR}/{name}"
        taken = {*self.manager.files.files, *self.manager.files.links}
        # At a name that the manifest has it would be an edit, and --overwrite-drift asks to undo those.
        if path not in taken and name not in self.manifest().files and f"{UNIT_DIR}/{name}" not in taken:
            self.put(path, b"[Service]\nExecStart=/bin/foreign\n")

    @rule()
    def foreign_files_go(self) -> None:
        self.step()
        for path in [path for path, content in self.foreign.items() if content != "/dev/null"]:
            self.take(path)

    @rule()
    def daemon_reload(self) -> None:
        self.step()
        self.manager.reload()

    # What must be so

    @invariant()
    def what_is_foreign_is_untouched(self) -> None:
        files = self.manager.files
        for path, content in self.foreign.items():
            assert (files.links if isinstance(content, str) else files.files).get(path) == content, path

    @invariant()
    def what_is_written_is_whole(self) -> None:
        """Everything that carries our mark is a text of ours, and every state file can be read."""
        files = self.manager.files.files
        for path, content in files.items():
            if path.startswith(f"{STATE}/"):
                assert content.endswith(b"}\n"), path
        numbers = [entry.number for entry in self.history()]
        assert numbers == sorted(set(numbers))
        records = {
            int(path.rpartition("/")[2].removesuffix(".json"))
            for path in files
            if re.search(r"/shop/\d+\.json$", path)
        }
        for entry in self.history():
            assert entry.number in records or entry.outcome == generations.DOWN, entry


@pytest.mark.slow
def test_the_promises_hold() -> None:
    World.taken = 0
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        World,
        settings=settings(
            max_examples=STEPS // STORY + 60,
            stateful_step_count=STORY,
            derandomize=True,
            phases=(Phase.generate,),
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    print(f"{World.taken} steps")
    assert World.taken >= STEPS
