"""What belongs together: the correlator of incidents, run in the loop's step.

What it knew, and what a batch of events changed -> what it knows, and the incidents that are to be stored
with the batch's rows, in one transaction. Pure: no clock, no file, no bus.

An incident has a root, the unit that others depend on, and consequences: units that are blocked by it. How
the root is found: a blocked unit waits for units (`UnitMemory.on`); of those that are down, the one that is
blocked itself leads on, to the one that is not. A dependent may be told of before what it depends on: then
its own incident is merged into the other's, and any order of events ends in the same incidents.

Rule: as in the policy, what is told twice, late or out of order must change nothing. Only failures are
counted, each by its invocation; all else is looked up in the memory of the units, as it is now.
"""

from __future__ import annotations

from sysresp.controller.events import Exit, UnitMemory, Wait
from sysresp.controller.incidents import (
    Batch,
    Failure,
    Incident,
    Open,
    Outcome,
    Part,
    exit_words,
    is_well,
    settle_sec,
    trouble,
)
from sysresp.units.alerting import REASONS

KEPT_RUNS = 32  # so late a failure may be told again and is known
MOST_PARTS = 1000


def correlate(known: Open, batch: Batch) -> Outcome:
    """Take in a batch: whose incidents open, grow, merge and end."""
    desk = _Desk(known, batch)
    for one in batch.failures:
        desk.failed(one)
    for unit in sorted(batch.changed, key=lambda name: (desk.is_blocked(name), name)):
        desk.changed(unit)
    affected = {*batch.changed, *(one.unit for one in batch.failures)}
    for number in sorted({desk.of[unit] for unit in affected if unit in desk.of} | set(desk.touched)):
        desk.judge(number)
    over = [one for one in desk.incidents.values() if 0 < one.ends <= batch.when and not one.resolved]
    for incident in over:
        desk.touched[incident.id] = incident._replace(resolved=incident.well_since)
    return desk.outcome()


class _Desk:
    """Where one batch is worked on; what was given is never changed."""

    def __init__(self, known: Open, batch: Batch) -> None:
        self.known = known
        self.batch = batch
        self.incidents: dict[int, Incident] = dict(known.incidents)
        self.of: dict[str, int] = dict(known.of)
        self.recent = known.recent
        self.next_id = known.next_id
        self.touched: dict[int, Incident] = {}

    def put(self, incident: Incident) -> None:
        if self.incidents.get(incident.id) != incident:
            self.incidents[incident.id] = self.touched[incident.id] = incident

    def outcome(self) -> Outcome:
        over = [number for number, incident in self.touched.items() if incident.resolved]
        for number in over:
            self.incidents.pop(number, None)
        gone = {number for number in over if not self.touched[number].into}
        ended = {unit for number in gone for unit in self.touched[number].units()}
        if ended & self.recent.keys():  # what comes after it is counted anew
            self.recent = {unit: recent for unit, recent in self.recent.items() if unit not in ended}
        of = {unit: number for unit, number in self.of.items() if number not in gone} if gone else self.of
        if not self.touched and self.recent is self.known.recent:
            return Outcome(self.known)
        return Outcome(Open(self.incidents, of, self.recent, self.next_id), self.touched)

    def is_member(self, unit: str) -> bool:
        return unit in self.batch.roster.members

    def is_blocked(self, unit: str) -> bool:
        known = self.batch.units.get(unit)
        return known is not None and known.wait is Wait.BLOCKED

    # Failures

    def failed(self, one: Exit) -> None:
        """Count a failure: in the unit's incident, or among the recent ones, which may be too many."""
        if not self.is_member(one.unit):
            return
        number, recent = self.of.get(one.unit), self.recent.get(one.unit, ())
        told = self.incidents[number].runs if number is not None else (failure.run for failure in recent)
        if one.invocation in told:
            return
        settings, at = self.batch.roster.settings, one.when or self.batch.when
        failures = (*recent, Failure(at, one.invocation, exit_words(one)))
        # None is yet to come: one that seems so is from before the clock was set back.
        recent = tuple(sorted(failure._replace(at=min(failure.at, self.batch.when)) for failure in failures))
        first = recent[-1].at - settings.flaps_sec
        recent = tuple(failure for failure in recent if failure.at > first)[-settings.flaps :]
        self.recent = {**self.recent, one.unit: recent}
        if number is not None:
            self._count(self.incidents[number], one)
        is_flapping, within = len(recent) >= settings.flaps, f"{settings.flaps_sec:g} s"
        if is_flapping:
            self._open_or_join(one.unit, "flapping", f"{len(recent)} failures within {within}")
        if self._wants_every_exit(one.unit):
            self._open_or_join(one.unit, "every-exit", "it failed")

    def _open_or_join(self, unit: str, reason: str, why: str) -> None:
        number = self.of.get(unit)
        if number is None:
            self._add(unit, Part(unit, (reason,), why, self.batch.when))
            return
        incident = self.incidents[number]
        if not any(part.unit == unit and reason in part.reasons for part in incident.parts):
            self._update(incident, Part(unit, (reason,), why, self.batch.when))

    def _wants_every_exit(self, unit: str) -> bool:
        roster = self.batch.roster
        member = roster.members[unit]
        receivers = (roster.alerts.get(f"{member.project}/{name}") for name in member.supervision.alerts)
        return any(receiver is not None and "every-exit" in receiver.on for receiver in receivers)

    def _count(self, incident: Incident, one: Exit) -> None:
        parts = [
            part._replace(failures=part.failures + 1, exit=exit_words(one), run=one.invocation)
            if part.unit == one.unit
            else part
            for part in incident.parts
        ]
        runs = (*incident.runs, one.invocation)[-KEPT_RUNS:]
        self.put(incident._replace(parts=tuple(parts), runs=runs, well_since=0.0, ends=0.0))

    # Units

    def changed(self, unit: str) -> None:
        """Look at a unit of which the memory has changed."""
        known = self.batch.units.get(unit)
        if known is None or not self.is_member(unit):
            return
        reason, why = trouble(known)
        if not reason or (reason == "blocked" and not known.on):
            return  # what blocks it is asked for: it will change again
        down = self._down(known) if reason == "blocked" else ()
        if reason == "blocked" and not down:
            return  # about to be started
        root = self._root(unit)
        self._join(Part(unit, (reason,), why, self.batch.when, down), root)

    def _down(self, known: UnitMemory) -> tuple[str, ...]:
        """Return the units that a blocked one waits for, and that are not well."""
        units = self.batch.units
        return tuple(u for u in sorted(known.on) if not is_well(units.get(u), is_member=self.is_member(u)))

    def _root(self, unit: str) -> str:
        """Follow what is blocked to what is not; of a circle, the first by name stands for it.

        The next step depends on the unit alone, not on where it began: so all below a root find the same.
        """
        seen = [unit]
        while self.is_blocked(seen[-1]):
            down = self._down(self.batch.units[seen[-1]])
            if not down:
                break
            following = next((other for other in down if self.is_blocked(other)), down[0])
            if following in seen:
                return min(seen[seen.index(following) :])
            seen.append(following)
        return seen[-1]

    def _join(self, part: Part, root: str) -> None:
        """Put a unit in trouble where it belongs: into the incident of its root."""
        unit = part.unit
        mine, other = self.of.get(unit), self.of.get(root)
        if mine is None and other is None and root != unit:
            self._add(root, Part(root, (), "down", self.batch.when))
            other = self.of.get(root)
        if mine is None:
            if other is None:
                self._add(unit, part)
            elif len(self.incidents[other].parts) < MOST_PARTS:
                incident = self.incidents[other]
                self.of[unit] = other
                parts = (*incident.parts, self._with_recent(part))
                runs = (*incident.runs, *self._runs(unit))[-KEPT_RUNS:]
                self.put(incident._replace(parts=parts, runs=runs, well_since=0.0, ends=0.0))
            return
        self._update(self.incidents[mine], part)
        if root == unit:
            return
        if other is None:
            self._re_root(self.incidents[mine], root)
        elif other != mine and self.incidents[mine].root == unit:
            self._merge(self.incidents[mine], self.incidents[other])

    def _update(self, incident: Incident, part: Part) -> None:
        parts = []
        for old in incident.parts:
            if old.unit != part.unit:
                parts.append(old)
                continue
            reasons = tuple(r for r in REASONS if r in {*old.reasons, *part.reasons})
            waits_for = part.waits_for or old.waits_for
            is_same = part.reasons[0] in old.reasons and not part.waits_for
            why = old.why if is_same and old.why else part.why
            parts.append(old._replace(reasons=reasons, why=why, waits_for=waits_for))
        self.put(incident._replace(parts=tuple(parts)))

    def _re_root(self, incident: Incident, root: str) -> None:
        """Give an incident the root that nobody knew before."""
        if incident.root not in self._all_below(root, incident):
            return
        self.of[root] = incident.id
        parts = (self._with_recent(Part(root, (), "down", self.batch.when)), *incident.parts)
        runs = (*incident.runs, *self._runs(root))[-KEPT_RUNS:]
        self.put(incident._replace(root=root, parts=parts, runs=runs, well_since=0.0, ends=0.0))

    def _all_below(self, root: str, incident: Incident) -> set[str]:
        return {unit for unit in incident.units() if self._root(unit) == root}

    def _merge(self, mine: Incident, other: Incident) -> None:
        """Make one of two incidents, of which one is a consequence of the other."""
        for unit in mine.units():
            self.of[unit] = other.id
        opened = min(mine.opened, other.opened)
        parts = (*other.parts, *mine.parts)
        runs = (*mine.runs, *other.runs)[-KEPT_RUNS:]
        self.put(other._replace(parts=parts, opened=opened, runs=runs, well_since=0.0, ends=0.0))
        over = mine._replace(into=other.id, resolved=self.batch.when)
        self.incidents[mine.id] = self.touched[mine.id] = over

    def _runs(self, unit: str) -> tuple[str, ...]:
        return tuple(failure.run for failure in self.recent.get(unit, ()))

    def _with_recent(self, part: Part) -> Part:
        """Return the part with the failures that came before it."""
        recent = self.recent.get(part.unit, ())
        if not recent:
            return part
        last = recent[-1]
        return part._replace(failures=len(recent), exit=last.exit, run=last.run)

    def _add(self, root: str, part: Part) -> None:
        """Open an incident."""
        self.of[root] = self.next_id
        parts, runs = (self._with_recent(part),), self._runs(root)[-KEPT_RUNS:]
        self.put(Incident(self.next_id, root, self.batch.when, parts, runs))
        self.next_id += 1

    # The end

    def judge(self, number: int) -> None:
        """Say since when all is well with an incident."""
        incident = self.incidents.get(number)
        if incident is None or incident.resolved:
            return
        units, when = self.batch.units, self.batch.when
        all_well = all(is_well(units.get(u), is_member=self.is_member(u)) for u in incident.units())
        since = 0.0 if not all_well else min(incident.well_since or when, when)
        ends = since and since + settle_sec(incident, self.batch.roster)
        self.put(incident._replace(well_since=since, ends=ends))


def due(known: Open) -> float:
    """Return when the next incident may be over, in seconds since the epoch; 0: none."""
    return min((one.ends for one in known.incidents.values() if one.ends), default=0.0)
