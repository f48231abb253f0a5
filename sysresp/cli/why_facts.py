"""What `why` knows: the facts of the units that were asked about, and of all that they wait for.

Owns the gathering, from the service manager, the manifests, the ledger and the journal; reads, and changes
nothing. Needs no rights: without the journal's there are no last words, without a ledger no past. Rule: one
unit is looked at once, however many wait for it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sysresp.cli import hosts, remembered, rows, status, terminal, why_text
from sysresp.cli.outcome_text import line_text
from sysresp.cli.why import Answer, Facts, Present, explain, waits_for
from sysresp.controller.events import Exit as Ended
from sysresp.controller.events import UnitMemory, Wait
from sysresp.controller.fallback import UNIT as CONTROLLER
from sysresp.controller.reader import Reader
from sysresp.controller.tables import LedgerTrouble
from sysresp.errors import Exit
from sysresp.model import NOWHERE, Mode, Origin, Scope
from sysresp.ports import Host
from sysresp.reconcile.manifest import Manifest, ManifestUnit
from sysresp.reconcile.names import select

LAST_WORDS = 10
MOST_UNITS = 200  # that are looked at: of one chain
_UP = frozenset({"active", "reloading"})
_UNIT = (
    *("InvocationID", "Requires", "Requisite", "BindsTo", "Conditions", "LoadError", "StateChangeTimestamp"),
    *("After", "ConditionResult"),
)
_SERVICE = ("Result", "Restart", "RestartUSec", "RestartUSecNext", "NRestarts")


class _Past(NamedTuple):
    """What the ledger says of one unit."""

    memory: UnitMemory | None = None
    last: Ended | None = None
    recent: int = 0


def run(names: Sequence[str], *, project: str, scope: Scope, as_json: bool, colour: bool) -> int:
    """Print why these services are as they are."""
    answers, present = answer(names, project=project, scope=scope)
    if as_json:
        print(json.dumps(why_text.as_object(answers, present), indent=2))
        return Exit.OK
    for line in why_text.text(answers, present, colour=terminal.has_colour(sys.stdout, wanted=colour)):
        print(line)
    return Exit.OK


def answer(names: Sequence[str], *, project: str, scope: Scope) -> tuple[list[Answer], Present]:
    """Return the answers; SysrespError (Exit.UNKNOWN) for a name that no project has."""
    owned = hosts.manifests(scope, project)
    chosen = [unit for manifest, units in select(owned, names) for unit in _mains(manifest, units)]
    look = _Look(hosts.host(scope, Mode.PERSISTENT), owned, scope)
    known = look.all(chosen)
    answers = [explain(known, unit, look.present) for unit in chosen]
    for one in answers:
        for root in one.roots():
            known[root.unit] = look.with_log(known[root.unit])
    return [explain(known, unit, look.present) for unit in chosen], look.present


def _mains(manifest: Manifest, meant: Iterable[ManifestUnit]) -> list[str]:
    """Return the .services of these units: for a socket or a timer, those that it starts."""
    pairs = {(unit.service, unit.instance) for unit in meant if unit.service}
    mains = (unit for unit in manifest.units if unit.main)
    return [u.name for u in mains if {(u.service, u.instance), (u.service, "")} & pairs]


class _Look:
    """One look at the host."""

    def __init__(self, host: Host, owned: Sequence[Manifest], scope: Scope) -> None:
        self._host = host
        self._members = {unit.name: (one, unit) for one in owned for unit in one.units if unit.main}
        self._now = remembered.Now(host.clock.now(), host.clock.monotonic())
        path = remembered.ledger(scope.value, os.environ)
        self._reader = Reader(path) if path else None
        found = host.manager.units((CONTROLLER,))
        runs = any(state.name == CONTROLLER and state.active_state in _UP for state in found)
        gave_up = "" if runs else remembered.gave_up(scope.value, os.environ)
        has_ledger = self._reader is not None
        self.present = Present(self._now.when, runs, has_ledger, scope is Scope.USER, gave_up)

    def all(self, units: Iterable[str]) -> dict[str, Facts]:
        """Return the facts of these units, and of those that they wait for."""
        known: dict[str, Facts] = {}
        ahead = list(units)
        most = len(ahead) + MOST_UNITS
        while ahead and len(known) < most:
            unit = ahead.pop(0)
            if unit not in known:
                known[unit] = self._facts(unit)
                ahead += waits_for(known[unit])
        if self._reader is not None:
            self._reader.close()
        return known

    def with_log(self, facts: Facts) -> Facts:
        """Add the last words of the run that failed."""
        if facts.is_well or facts.log or facts.state in {"stopped", "masked", "missing", "queued"}:
            return facts
        run = facts.last.invocation if facts.last is not None else ""
        if not run:
            asked = self._host.manager.properties(facts.unit, "Unit", ("InvocationID",))
            run = str(asked.get("InvocationID", ""))
        run = "" if run.startswith("lost-") else run
        return facts._replace(log=tuple(self._host.journal.tail(facts.unit, LAST_WORDS, run)))

    def _facts(self, unit: str) -> Facts:
        member = self._members.get(unit)
        past = self._past(unit)
        row = self._row(unit, member)
        if past.memory is not None and self.present.has_controller:
            remembered.remember([row], {unit: past.memory}, self._now)
        seen = row.observed
        facts = Facts(
            unit,
            row.name if member is not None else "",
            row.project,
            row.state,
            row.reason,
            row.well,
            row.since or 0.0,
            seen.load,
            seen.active,
            next_run=row.next_run or 0.0,
            next_start=row.next_start or 0.0,
            restarts=row.restarts or 0,
            memory=past.memory,
            last=past.last,
            recent=past.recent,
        )
        if member is not None:
            manifest, own = member
            origin = Origin(own.origin_path, own.origin_line) if own.origin_path else NOWHERE
            facts = facts._replace(origin=origin, source=line_text(origin), generation=manifest.generation)
        has_more = not facts.is_well or facts.state in {"queued", "skipped"}
        return self._more(facts, seen) if has_more else facts

    def _more(self, facts: Facts, seen: rows.Observed) -> Facts:
        """Ask for what only a unit that is not well needs."""
        manager = self._host.manager
        said = manager.properties(facts.unit, "Unit", _UNIT) if seen.load != "not-found" else {}
        if facts.unit.endswith(".service") and seen.load != "not-found":
            said = {**said, **manager.properties(facts.unit, "Service", _SERVICE)}
        restart_at = 0.0
        if facts.state == "waiting to restart":
            delay = _number(said.get("RestartUSecNext")) or _number(said.get("RestartUSec"))
            changed = _number(said.get("StateChangeTimestamp"))
            restart_at = (changed + delay) / 1e6 if changed else 0.0
        requires = self._down(_names(said, "Requires", "Requisite", "BindsTo", more=_waits(facts)))
        if facts.state == "blocked" and requires:
            facts = facts._replace(reason=f"needs {', '.join(requires)}")
        return facts._replace(
            result=str(said.get("Result", "")),
            restart=str(said.get("Restart", "")),
            restart_at=restart_at,
            requires=requires,
            queued_after=self._in_job(_names(said, "After")) if facts.state == "queued" else (),
            conditions=_unmet(said.get("Conditions")) if facts.state == "skipped" else (),
            error=_error(said.get("LoadError")),
        )

    def _row(self, unit: str, member: tuple[Manifest, ManifestUnit] | None) -> rows.Row:
        boot = self._now.epoch(0.0)
        if member is not None:
            manifest, own = member
            mine = [
                u for u in manifest.units if u.service == own.service and u.instance in {"", own.instance}
            ]
            mine = [u for u in mine if not u.main or u.name == unit]
            found = status.look(manifest, mine, self._host.manager, boot)
            return found[0]
        stranger = ManifestUnit(unit, unit, unit, "", True, True, True, "", 0, "")
        return status.look(Manifest(""), [stranger], self._host.manager, boot)[0]

    def _past(self, unit: str) -> _Past:
        if self._reader is None:
            return _Past()
        try:
            memory, last = self._reader.unit(unit), self._reader.last(unit)
            return _Past(memory, last, self._reader.count(unit, self._now.when - 3600))
        except LedgerTrouble:
            self._reader = None
            self.present = self.present._replace(has_ledger=False)
            return _Past()

    def _down(self, units: Sequence[str]) -> tuple[str, ...]:
        states = self._host.manager.units_by_name(units) if units else []
        return tuple(state.name for state in states if state.active_state not in _UP)

    def _in_job(self, units: Sequence[str]) -> tuple[str, ...]:
        busy = set(self._host.manager.pending_jobs().values())
        return tuple(unit for unit in units if unit in busy)


def _number(value: object) -> int:
    return value if isinstance(value, int) and value < 1 << 63 else 0


def _waits(facts: Facts) -> tuple[str, ...]:
    memory = facts.memory
    return memory.on if memory is not None and memory.wait is Wait.BLOCKED else ()


def _names(said: dict[str, object], *properties: str, more: Sequence[str] = ()) -> list[str]:
    found = dict.fromkeys(more)
    for name in properties:
        value = said.get(name)
        found.update(dict.fromkeys(str(one) for one in value) if isinstance(value, (list, tuple)) else {})
    return list(found)


def _unmet(value: object) -> tuple[str, ...]:
    """Return the conditions that were not met, as a unit file has them (Conditions= is a(sbbsi))."""
    found = []
    for one in value if isinstance(value, (list, tuple)) else ():
        if isinstance(one, (list, tuple)) and len(one) == 5 and isinstance(one[4], int) and one[4] < 0:
            name, trigger, negate, parameter, _ = one
            found.append(f"{name}={'|' if trigger else ''}{'!' if negate else ''}{parameter}")
    return tuple(found)


def _error(value: object) -> str:
    """Return the message of LoadError, a pair of a D-Bus error's name and its text."""
    return str(value[1]) if isinstance(value, (list, tuple)) and len(value) == 2 else ""
