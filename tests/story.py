"""A host in memory, and what must be so of it whatever happens: the judge of tests/test_simulation.py.

Owns the looking and the judging; what happens is drawn there. The rule: nothing here asks the plan why.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterable, Mapping
from functools import cache
from typing import Any, NamedTuple

from hypothesis.stateful import RuleBasedStateMachine

from sysresp.reconcile import generations
from sysresp.reconcile.converge import Report
from sysresp.reconcile.manifest import Manifest, load
from sysresp.units.change import Effect, effect
from sysresp.units.desired import Desired, UnitFile
from tests.fakes import UNIT_DIR, FakeManager, FakeUnit, fake_host
from tests.plan_scenes import MANIFEST, Entry, desired_of

STATE = "/var/lib/sysresp"
SERVICES: Mapping[str, tuple[Entry, ...]] = {
    "db": (Entry(), Entry(version=2), Entry(config=2), Entry(description=2), Entry(oneshot=True)),
    "many": (Entry(instances=2), Entry(instances=3, version=2), Entry(instances=2, config=2)),
    "sock": (Entry(socket=1), Entry(socket=2, version=2), Entry(socket=1, on_demand=True)),
    "web": (Entry(requires=("db",)), Entry(version=13), Entry(version=2, requires=("db", "sock"))),
    "cron": (Entry(), Entry(enabled=False)),
}
BAD = {"/bin/web 13": "exit-code"}


class Was(NamedTuple):
    """A unit before a run."""

    active: bool
    invocation: str
    runs: str


@cache
def recorded(content: bytes) -> Desired:
    """Return what a generation's record asks for."""
    return generations.loads(json.loads(content)).desired


@cache
def required(file: UnitFile) -> tuple[str, ...]:
    """Return what the unit file requires."""
    return tuple(re.findall(r"^Requires=(.*)$", file.text, re.MULTILINE))


@cache
def is_run_by(text: str, runs: str) -> bool:
    """Say whether a unit that was started with `runs` does what the text says."""
    return effect(runs, text) in (Effect.NONE, Effect.REFRESH)


NOTHING = Was(False, "", "")


def desired(entries: Mapping[str, Entry]) -> Desired:
    """Return what these services ask for; what a service requires must be there and before it."""
    names = [name for name in SERVICES if name in entries]
    whole = {
        name: entries[name]._replace(
            requires=tuple(n for n in entries[name].requires if n in names and not entries[n].on_demand)
        )
        for name in names
    }
    made = desired_of(whole)
    return made.__class__(
        **{name: getattr(made, name) for name in made.__slots__ if name != "keep_generations"},
        keep_generations=3,
    )


class Story(RuleBasedStateMachine):
    """One host, and all that was done to it by hand."""

    taken = 0  # steps of all stories

    def __init__(self) -> None:
        super().__init__()
        self.manager = FakeManager()
        self.manager.crash_text.update(BAD)
        self.wanted = desired({})
        self.foreign: dict[str, bytes | str] = {}  # files and links that are not ours
        self.stopped: set[str] = set()  # by the administrator, and not started since
        self.asked: set[bytes] = set()  # edits that were to be overwritten
        self.once: set[str] = set()  # what was masked or stopped in an earlier life
        self.unlinked: set[str] = set()  # links that the administrator took away

    def check_restarts(self, before: Mapping[str, Was], seeds: Container[str]) -> None:
        """Check that what runs as it should, and depends on nothing that does not, still does."""
        for name, was in before.items():
            if was.active and name not in seeds:
                now = self.manager.loaded.get(name, FakeUnit(name))
                assert now.invocation == was.invocation, f"{name} was restarted without a reason"
                assert now.active == "active", f"{name} was stopped without a reason"

    def check_stopped(self, stopped: set[str], before: Mapping[str, Was]) -> None:
        """Check that what the administrator stopped or masked was not started but for one that needs it."""
        masked = {path.rpartition("/")[2] for path, c in self.foreign.items() if c == "/dev/null"}
        for name in stopped | masked:
            was = before.get(name, NOTHING)
            if self.is_up(name) and not was.active:
                assert name not in masked, f"{name} is masked and was started"
                needing = [
                    file.name
                    for wanted in self.possible()
                    for file in wanted.files.values()
                    if name in required(file)
                ]
                assert needing, f"{name} was stopped and was started"
        self.stopped -= {name for name in self.stopped if self.is_up(name)}
        owned = {unit.name for unit in self.manifest().units if unit.start}  # else: "from now on" is new
        self.once |= self.stopped - owned  # a rollback that brings it back may remember that
        self.stopped &= owned

    def check_report(self, report: Report) -> None:
        """Check that the history says what the report says."""
        ends = {entry.number: entry.outcome for entry in self.history()}
        cut = generations.INTERRUPTED, generations.ROLLING_BACK
        if report.generation and report.end not in cut and not report.outcome.undone:
            if report.end == generations.ROLLED_BACK:
                assert ends[report.generation] == generations.ROLLED_BACK
                assert self.manifest().generation == report.previous
            else:
                assert ends[report.generation] in (generations.OK, generations.FAILED)
                assert self.manifest().generation == report.generation

    def check_history(self, report: Report, earlier: Mapping[int, generations.Entry]) -> None:
        entries = self.history()
        assert all(entry.outcome not in generations.OPEN for entry in entries)
        assert len(entries) <= 3 + 2
        for entry in entries:
            was = earlier.get(entry.number)
            if was is not None and was.outcome not in generations.OPEN:
                assert entry == was, "an end was written anew"
        names = self.manager.files.entries(f"{STATE}/generations/shop")
        known = {f"{entry.number}.json" for entry in entries} | {"history.json"}
        if report.generation not in earlier and report.end == generations.OK:
            assert set(names) <= known, "a record that nobody will ever remove"

    def check_whole(self, wanted: Desired, report: Report) -> None:
        """Check that the host is what is wanted, but for what was told, stopped or masked."""
        files, links = self.manager.files.files, self.manager.files.links
        masked = {path.rpartition("/")[2] for path, c in self.foreign.items() if c == "/dev/null"}
        for file in wanted.files.values():
            if file.name not in masked:
                assert files.get(f"{UNIT_DIR}/{file.name}") == file.text.encode(), file.name
        ours = {p for p in files if p.startswith(f"{UNIT_DIR}/shop") and p not in self.foreign}
        assert {p.rpartition("/")[2] for p in ours} <= wanted.files.keys(), "a file is left"
        there = {p.removeprefix(f"{UNIT_DIR}/"): t for p, t in links.items() if p not in self.foreign}
        assert there.keys() <= wanted.links.keys(), "a link is left"
        assert wanted.links.keys() - there.keys() <= self.unlinked, "a link is missing"
        manifest = self.manifest()
        assert not manifest.unfinished
        last = report.back or report.outcome
        told = {found.unit for found in (*last.failures, *last.skipped)}
        assert set(manifest.pending) <= told
        assert manifest.restarts == ()
        assert manifest.reloads == ()
        for unit in wanted.units.values():
            if not unit.start or unit.name.endswith(".slice"):
                continue
            if unit.name == wanted.target and (self.stopped or self.once):
                continue  # it would start them
            excused = {unit.name, unit.file} & (masked | self.once | self.stopped | told)
            if not excused:
                loaded = self.manager.loaded.get(unit.name, FakeUnit(unit.name))
                text = wanted.files[unit.file].text
                assert loaded.active == "active", unit.name
                assert is_run_by(text, loaded.runs), unit.name
                assert loaded.text == text, unit.name

    def note_stopped(self, before: Mapping[str, Was]) -> None:
        """Note what was stopped for good: not what an apply still owes a start."""
        manifest = self.manifest()
        owed = {*manifest.pending, *manifest.restarts}
        for unit in manifest.units:
            was = before.get(unit.name, NOTHING)
            if was.active and self.state(unit.name) == "inactive" and unit.start and unit.name not in owed:
                self.stopped.add(unit.name)
        self.stopped -= {name for name in self.stopped if self.state(name) != "inactive"}

    # Looking

    def step(self) -> None:
        type(self).taken += 1

    def history(self) -> tuple[generations.Entry, ...]:
        return generations.history(self.manager.files, fake_host().paths, "shop")

    def manifest(self) -> Manifest:
        return load(self.manager.files, MANIFEST) or Manifest("shop")

    def on_disk(self) -> dict[str, bytes | str]:
        """Return all files and links, but for the lock."""
        found = {**self.manager.files.files, **self.manager.files.links}
        return {path: content for path, content in found.items() if not path.startswith("/run/")}

    def state(self, name: str) -> str:
        unit = self.manager.loaded.get(name)
        return unit.active if unit is not None else "inactive"

    def is_up(self, name: str) -> bool:
        return self.state(name) == "active"

    def picked(self, pick: int, kind: str) -> str:
        names = [unit.name for unit in self.manifest().units if unit.name.endswith(kind)]
        return names[pick % len(names)] if names else ""

    def running(self) -> dict[str, Was]:
        return {
            name: Was(unit.active == "active", unit.invocation, unit.runs)
            for name, unit in self.manager.loaded.items()
            if name.startswith("shop")
        }

    def seeds(self) -> frozenset[str]:
        """Return the units that a change may restart or stop: those that do not run what they should.

        And all that depends on such a unit, and what has a socket in common with it.
        """
        possible = self.possible()
        manifest = self.manifest()
        owed = {*manifest.pending, *manifest.restarts, *manifest.reloads}
        found = {name for wanted in possible for name in wanted.units} - self.manager.loaded.keys()
        for name, unit in self.manager.loaded.items():
            file = name if "@" not in name else re.sub("@[0-9]+", "@", name)
            there = self.manager.files.files.get(f"{UNIT_DIR}/{file}", b"").decode()
            known = [wanted.files[file].text for wanted in possible if name in wanted.units]
            same = len(known) == len(possible) and all(
                is_run_by(text, unit.runs) for text in (*known, there)
            )
            if not (same and unit.active == "active") or name in owed:
                found.add(name)
        return self.closure(found)

    def closure(self, names: Iterable[str]) -> frozenset[str]:
        """Return these and all that goes with them, by the texts that are loaded or wanted."""
        found = set(names)
        needs: dict[str, set[str]] = {name: set() for name in self.manager.loaded}
        for wanted in self.possible():
            for unit in wanted.units.values():
                needs.setdefault(unit.name, set()).update(required(wanted.files[unit.file]))
        for name, loaded in self.manager.loaded.items():
            needs[name].update(loaded.values("Requires", "BindsTo"))
        together = {"shop-sock.service", "shop-sock.socket"}
        grown = True
        while grown:
            grown = False
            more = {name for name, words in needs.items() if name not in found and words & found}
            if together & found:
                more |= together - found
            if more:
                found |= more
                grown = True
        return frozenset(found)

    def possible(self) -> list[Desired]:
        """Return what a change may go to: what is wanted, and all generations that are kept."""
        paths = fake_host().paths
        kept = [entry.number for entry in self.history() if entry.outcome != generations.DOWN]
        found = [self.wanted]
        for number in kept:
            found.append(self.record(number, paths))
        return found

    def record(self, number: int, paths: Any) -> Desired:
        return recorded(self.manager.files.files[generations.record_path(paths, "shop", number)])

    def put(self, path: str, content: bytes | str) -> None:
        self.foreign[path] = content
        self.manager.files.mkdir(path.rpartition("/")[0])
        if isinstance(content, str):
            self.manager.files.links[path] = content
        else:
            self.manager.files.files[path] = content

    def take(self, path: str) -> None:
        content = self.foreign.pop(path)
        del (self.manager.files.links if isinstance(content, str) else self.manager.files.files)[path]
