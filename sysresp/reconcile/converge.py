"""A change as a whole: under the lock, from what is wished to what came of it, and back if that failed.

Owns the order of it: lock, look, plan, record of the new generation, apply, judgement, rollback, end in the
history. The parts are elsewhere: `plan` decides what is done, `apply` does it, `judge` decides whether to go
back. A rollback is no undo but an ordinary plan to the generation before, so it starts, stops and restarts
exactly what differs. Rules: nothing is asked of the host before the lock is had; a generation's record is
durable before anything of it is done; every way out leaves the history telling the truth, or saying that it
was cut, which the next command under the lock finds and says.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from sysresp.errors import Exit, SysrespError
from sysresp.model import Mode, Scope
from sysresp.ports import Host
from sysresp.reconcile import generations
from sysresp.reconcile.apply import Event, apply
from sysresp.reconcile.down import plan_down
from sysresp.reconcile.generations import Entry, Generation
from sysresp.reconcile.judge import IGNORED, failed_units, is_same, judge, stopped_units
from sysresp.reconcile.lock import NOBODY, Holder, locked
from sysresp.reconcile.manifest import Manifest
from sysresp.reconcile.manifest import load as load_manifest
from sysresp.reconcile.manifest import path as manifest_path
from sysresp.reconcile.observe import Observed, invocations, observe
from sysresp.reconcile.outcome import Outcome, UnitOutcome
from sysresp.reconcile.plan import plan as make_plan
from sysresp.reconcile.resolve import DriftChoice, RefusedError
from sysresp.reconcile.steps import Plan, Settle, Step, WriteManifest, WriteState
from sysresp.units.desired import Desired


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the caller wants the project to be, and how."""

    desired: Desired
    mode: Mode = Mode.PERSISTENT
    scope: Scope = Scope.SYSTEM
    source: tuple[str, ...] = ()
    texts: tuple[tuple[str, str], ...] = ()  # (path, content) of the user's files
    state_dirs: tuple[str, ...] = ()  # of all modes (layout.state_dirs)
    prober: Callable[[], bytes] = bytes
    holder: Holder = NOBODY
    wait_sec: float = 0.0  # for the lock
    settle_sec: float | None = None  # for all services; None: each one's own
    rollback: bool = True
    restores: int = 0  # the generation of which this is a copy
    stopped: Container[str] = ()  # units that are not started (see `plan`)
    drift: DriftChoice = DriftChoice.REFUSE  # what is done about unit files that somebody else changed


class Prepared(NamedTuple):
    """What there is, and what would be done."""

    observed: Observed
    plan: Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What became of a wish."""

    plan: Plan
    outcome: Outcome
    generation: int  # the one that was applied; 0: nothing was recorded
    previous: int = 0  # the one to go back to, 0 if there is none
    end: str = generations.OK  # as in the history
    reasons: tuple[UnitOutcome, ...] = ()  # failures for which it is rolled back
    tolerated: tuple[tuple[UnitOutcome, str], ...] = ()  # failures that are none, and why
    back_plan: Plan | None = field(default=None, repr=False)
    back: Outcome | None = None  # of the rollback
    stays: str = ""  # why it was not rolled back, although there are reasons


def prepare(wish: Wish, host: Host) -> Prepared:
    """Look at the host and make the plan; changes nothing."""
    desired = wish.desired
    observed = observe(host, desired.project, desired, state_dirs=wish.state_dirs)
    made = make_plan(
        desired,
        observed,
        paths=host.paths,
        mode=wish.mode,
        scope=wish.scope,
        source=wish.source,
        prober=wish.prober() if desired.needs_prober else b"",
        stopped=wish.stopped,
        drift=wish.drift,
        settle_sec=wish.settle_sec,
    )
    return Prepared(observed, made)


def converge(
    wish: Wish,
    host: Host,
    *,
    check: Callable[[Prepared], None],
    on_found: Callable[[str], None] = lambda _: None,
    on_event: Callable[[Event], None] = lambda _: None,
) -> Report:
    """Make the host as wished, or put it back; `check` raises if the plan must not be done.

    `on_found` is told what an earlier run left behind. SysrespError: nothing was changed, or its hint says
    how things stand.
    """
    with locked(host, wish.desired.project, wish.holder, wait_sec=wish.wait_sec, on_wait=on_found):
        return _Change(wish, host, on_event).run(check, on_found)


class _Change:
    """One change, with the lock held."""

    def __init__(self, wish: Wish, host: Host, on_event: Callable[[Event], None]) -> None:
        self.wish = wish
        self.host = host
        self.on_event = on_event
        self.project = wish.desired.project
        self.entries = generations.history(host.files, host.paths, self.project)

    def run(self, check: Callable[[Prepared], None], on_found: Callable[[str], None]) -> Report:
        """Do it."""
        made = prepare(self.wish, self.host)
        manifest = made.observed.manifest or Manifest(self.project)
        for line in generations.left_behind(self.entries, manifest.generation):
            on_found(line)
        check(made)
        if made.plan.refused:
            raise RefusedError(made.plan.refused)
        self._sweep(manifest)
        at = manifest.generation
        now = next((entry for entry in self.entries if entry.number == at), None)
        is_open = now is not None and now.outcome in generations.OPEN
        same = now is not None and is_same(self.wish.desired, manifest, self.wish.mode)
        if made.plan.is_noop and (same or at == 0 or now is None):
            # Nothing to do: what was begun has been finished, by systemd or by hand.
            outcome = apply(made.plan, self.host, on_event=self.on_event)
            if now is not None and is_open:
                self._end(now, generations.OK)
            else:
                self._close(at)
            return Report(plan=made.plan, outcome=outcome, generation=at)
        previous = generations.standing(self.entries, at)
        return self._change(made, manifest, now if same else None, previous)

    def _sweep(self, manifest: Manifest) -> None:
        """Clear the directories of what a killed run left in them; no other run is at work on them now."""
        is_cut = any(entry.outcome in generations.OPEN for entry in self.entries)
        if is_cut or manifest.unfinished:
            paths = self.host.paths
            links = {*manifest.links, *self.wish.desired.links}
            below = sorted({f"/{link.rpartition('/')[0]}" for link in links})
            for where in ("", *below):
                self.host.files.sweep(f"{paths.unit_dir}{where}")
            self.host.files.sweep(paths.state_dir)
            self.host.files.sweep(generations.directory(paths, self.project))

    def _change(self, made: Prepared, manifest: Manifest, again: Entry | None, previous: int) -> Report:
        """Apply; `again` is the generation that is gone on with, None for a new one."""
        wish = self.wish
        record = self._record(made.observed, manifest, again)
        first: list[Step] = []
        if again is None:
            entry = self._entry(record.number, made.plan)
            first = [self._record_step(record), self._history_step(entry)]
        else:
            entry = again
            if again.outcome in generations.OPEN:
                entry = again._replace(outcome=generations.APPLYING)
        outcome = self._apply(made.plan, record.number, first)
        if outcome.undone:
            return Report(plan=made.plan, outcome=outcome, generation=0, end=generations.INTERRUPTED)
        reasons, tolerated = judge(outcome, wish.desired, made.observed, record.failed)
        report = Report(
            plan=made.plan,
            outcome=outcome,
            generation=record.number,
            previous=previous if previous != record.number else 0,
            reasons=reasons,
            tolerated=tolerated,
        )
        is_new = again is None or again.outcome in generations.OPEN
        if outcome.interrupted or outcome.timed_out:
            if is_new:  # one that stood before still does: what it was about to do is in the manifest
                self._end(entry, generations.INTERRUPTED)
            return replace(report, end=generations.INTERRUPTED)
        why = "; ".join(f"{found.unit}: {found.why}" for found in (reasons or outcome.failures)[:3])
        stays = self._stays(report)
        if reasons and not stays:
            return self._roll_back(report, entry, record, why)
        end = generations.FAILED if reasons or _is_unwell(outcome, tolerated) else generations.OK
        if is_new:
            self._end(entry, end, why)
        else:
            self._close(entry.number)
        return replace(report, end=end, stays=stays if reasons else "")

    def _stays(self, report: Report) -> str:
        if not self.wish.rollback:
            return "--no-rollback"
        return "" if report.previous else "there is no earlier generation to go back to"

    def _roll_back(self, report: Report, entry: Entry, record: Generation, why: str) -> Report:
        """Put the previous generation back, as far as that can be done."""
        wish, host = self.wish, self.host
        entry = generations.marked(entry, generations.ROLLING_BACK, 0.0, why=why)
        try:
            old = generations.load(host.files, host.paths, self.project, report.previous)
            back = replace(
                wish,
                desired=old.desired,
                source=old.source,
                texts=old.texts,
                stopped=frozenset(record.stopped),
                drift=DriftChoice.KEEP,
            )
            made = prepare(back, host)
            _refuse_errors(made.plan)
            plan = replace(made.plan, steps=tuple(map(_unhalted, made.plan.steps)))
            outcome = self._apply(plan, report.previous, [self._history_step(entry)])
        except SysrespError as error:
            # What is half back stands for nothing: the next command is to find it.
            end = generations.ROLLING_BACK if self._is_at(report.previous) else generations.FAILED
            with suppress(SysrespError):
                self._end(entry, end, why)
            return replace(report, end=end, stays=f"that could not be done: {error.message}")
        if outcome.ok:
            end = generations.ROLLED_BACK
        else:
            end = generations.ROLLING_BACK if outcome.interrupted else generations.ROLLED_BACK
        self._end(entry, end, why)
        return replace(report, end=end, back_plan=made.plan, back=outcome)

    def _is_at(self, number: int) -> bool:
        """Say whether the manifest is that of this generation."""
        manifest = load_manifest(self.host.files, manifest_path(self.host.paths.state_dir, self.project))
        return manifest is not None and manifest.generation == number

    def _apply(self, plan: Plan, number: int, first: list[Step]) -> Outcome:
        steps = (*first, *self._numbered(plan, number))
        return apply(replace(plan, steps=steps), self.host, on_event=self.on_event)

    def _numbered(self, plan: Plan, number: int) -> list[Step]:
        """Return the steps with the generation's number, and the runs that are to end."""
        runs: dict[str, str] = {}
        steps: list[Step] = []
        for step in plan.steps:
            if isinstance(step, WriteManifest):
                owed = dict(line.split(" ")[:2] for line in step.manifest.runs)
                runs = runs or invocations(self.host, owed)
                lines = tuple(f"{name} {text} {runs.get(name, '')}" for name, text in owed.items())
                manifest = step.manifest._replace(generation=number, runs=lines)
                steps.append(replace(step, manifest=manifest))
            else:
                steps.append(step)
        return steps

    # the history

    def _record(self, observed: Observed, manifest: Manifest, again: Entry | None) -> Generation:
        """Return the generation that is applied, with what an apply that was cut knew of the time before."""
        wish = self.wish
        last = self.entries[-1] if self.entries else None
        stopped = set(stopped_units(manifest, observed))
        failed = set(failed_units(observed))
        number = again.number if again is not None else self._next(manifest)
        if last is not None and last.outcome in generations.OPEN:
            with suppress(SysrespError):  # it was cut before its record was there
                cut = generations.load(self.host.files, self.host.paths, self.project, last.number)
                stopped |= set(cut.stopped)
                failed = set(cut.failed)  # what fails since then may fail because of it
        return Generation(
            number=number,
            desired=wish.desired,
            mode=wish.mode,
            scope=wish.scope,
            source=wish.source,
            texts=wish.texts,
            stopped=tuple(sorted(stopped)),
            failed=tuple(sorted(failed)),
        )

    def _next(self, manifest: Manifest) -> int:
        return max((manifest.generation, *(entry.number for entry in self.entries))) + 1

    def _entry(self, number: int, plan: Plan) -> Entry:
        wish = self.wish
        services = {unit.service for unit in wish.desired.units.values() if unit.service}
        return Entry(
            number=number,
            when=self.host.clock.now(),
            who=wish.holder.who,
            command=wish.holder.command,
            summary=plan.summary(),
            restores=wish.restores,
            services=len(services),
            mode=wish.mode.value,
        )

    def _record_step(self, record: Generation) -> WriteState:
        where = generations.record_path(self.host.paths, self.project, record.number)
        return WriteState(where, generations.dumps(record), 0o600)

    def _history_step(self, entry: Entry) -> WriteState:
        """Return the step that says that this generation is at work; what was cut before it is marked."""
        entries = [
            one._replace(outcome=generations.CUT) if one.outcome in generations.OPEN else one
            for one in self.entries
        ]
        self.entries = generations.with_entry(entries, entry)
        where = generations.history_path(self.host.paths, self.project)
        return WriteState(where, generations.dumps_history(self.entries))

    def _end(self, entry: Entry, outcome: str, why: str = "") -> None:
        """Write the end of a generation, and let go what the keep policy does not keep."""
        files, paths = self.host.files, self.host.paths
        entry = generations.marked(entry, outcome, self.host.clock.now(), why=why)
        self.entries = generations.with_entry(self.entries, entry)
        if outcome in generations.STANDS:
            self.entries = generations.closed(self.entries, entry.number, entry.ended)
        keep = self.wish.desired.keep_generations
        needed = {entry.number, generations.standing(self.entries, entry.number)}
        gone = {one.number for one in generations.outdated(self.entries, keep, needed)}
        self.entries = tuple(one for one in self.entries if one.number not in gone)
        generations.write_history(files, paths, self.project, self.entries)
        for where in generations.strays(files, paths, self.project, self.entries):
            with suppress(OSError):  # it is in nobody's way, and the next one tries again
                files.remove(where)

    def _close(self, at: int) -> None:
        """Write the end of what was cut, if there is such: the host is all that generation `at` says."""
        entries = generations.closed(self.entries, at, self.host.clock.now())
        if entries != self.entries:
            self.entries = entries
            generations.write_history(self.host.files, self.host.paths, self.project, entries)


def take_down(
    project: str,
    names: Sequence[str],
    host: Host,
    *,
    holder: Holder,
    wait_sec: float = 0.0,
    on_event: Callable[[Event], None] = lambda _: None,
) -> Report:
    """Stop and remove the project, or services of it; its generations stay, so `rollback` brings it back."""
    with locked(host, project, holder, wait_sec=wait_sec):
        files, paths = host.files, host.paths
        manifest = load_manifest(files, manifest_path(paths.state_dir, project))
        if manifest is None:
            raise SysrespError(f'the project "{project}" is not applied here', exit=Exit.UNKNOWN)
        made = plan_down(manifest, observe(host, project), names, paths=paths)
        outcome = apply(made, host, on_event=on_event)
        entries = generations.history(files, paths, project)
        if not names and outcome.ok and entries:
            now = host.clock.now()
            number = max(manifest.generation, entries[-1].number) + 1
            last = Entry(number, now, holder.who, holder.command, generations.DOWN, ended=now)
            generations.write_history(files, paths, project, (*entries, last))
        return Report(plan=made, outcome=outcome, generation=0)


def _unhalted(step: Step) -> Step:
    """Return a step of a way back: whatever fails in it, the rest goes back, too."""
    if isinstance(step, Settle):
        return replace(step, excused=step.excused.union(name for name, _ in step.units))
    return step


def _is_unwell(outcome: Outcome, tolerated: tuple[tuple[UnitOutcome, str], ...]) -> bool:
    excused = {found.unit for found, why in tolerated if why == IGNORED}
    return any(found.unit not in excused for found in outcome.failures)


def _refuse_errors(plan: Plan) -> None:
    if plan.errors:
        raise SysrespError("; ".join(problem.what for problem in plan.errors))
