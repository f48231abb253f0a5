"""The way from what is there to what is wanted, as a list of steps. Pure.

Owns the order of an apply, which is what makes it safe to cut anywhere: the manifest says what is going to
be ours, then all files and links are written, then what left the file is stopped, then its files go, then
one daemon-reload if systemd has loaded anything that changed, then jobs. systemd never sees a unit file
missing between two versions of it: such a unit would lose Restart= and die at its next crash.
Rules: nothing is planned for a unit or file that the project does not own; one problem and there are no
steps at all; the same input in another order gives the same plan.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import replace

from sysresp.errors import Severity
from sysresp.model import Mode, Scope
from sysresp.ports import Paths
from sysresp.reconcile import transient
from sysresp.reconcile.conflicts import conflicts
from sysresp.reconcile.decide import (
    MASKED,
    NOTHING,
    STOPPED,
    Needs,
    Owed,
    Verdict,
    digest,
    file_of,
    is_loaded,
    is_running,
    needs,
    spread,
    still_run,
    verdict,
)
from sysresp.reconcile.down import plan_down
from sysresp.reconcile.drift import away
from sysresp.reconcile.final import manifest_of, noted
from sysresp.reconcile.manifest import Manifest, path
from sysresp.reconcile.observe import Observed
from sysresp.reconcile.removal import removal
from sysresp.reconcile.resolve import DriftChoice, resolve, was
from sysresp.reconcile.rollout import Acting
from sysresp.reconcile.sockets import cycled, opens_anew
from sysresp.reconcile.steps import (
    Awaited,
    Change,
    DaemonReload,
    InstallProber,
    Job,
    JobVerb,
    Link,
    Plan,
    ResetFailed,
    RunJobs,
    Step,
    Sync,
    Unlink,
    Verb,
    WriteFile,
    WriteManifest,
)
from sysresp.units.desired import Desired, Unit

__all__ = ["manifest_of", "plan", "plan_down"]

_JOBS = {Verb.START: JobVerb.START, Verb.RESTART: JobVerb.RESTART, Verb.RELOAD: JobVerb.RELOAD}


def plan(
    desired: Desired,
    observed: Observed,
    *,
    paths: Paths,
    mode: Mode,
    scope: Scope = Scope.SYSTEM,
    source: Sequence[str] = (),
    prober: bytes = b"",
    stopped: Container[str] = (),
    settle_sec: float | None = None,
    drift: DriftChoice = DriftChoice.REFUSE,
) -> Plan:
    """Return what apply does; `prober` is the readiness prober's program, `source` the spec's files.

    Units in `stopped` are not started: the administrator had stopped them when the generation that is to
    come back was left.
    `settle_sec` is how long every unit has to stay up, whatever the file says of it.
    """
    final = manifest_of(desired, scope, mode, source)
    if observed.manifest is not None:
        final = final._replace(generation=observed.manifest.generation)
    found = resolve(desired, observed, final, drift, paths)
    desired, seen, final = found.desired, found.observed, final._replace(accepted=found.accepted)
    problems = conflicts(desired, found.unquestioned, paths=paths, mode=mode)
    if mode is Mode.TRANSIENT:
        made = transient.plan(
            desired, seen, final, paths=paths, prober=prober, stopped=stopped, settle_sec=settle_sec
        )
    else:
        made = _Files(
            desired,
            seen,
            final,
            paths=paths,
            mode=mode,
            prober=prober,
            stopped=stopped,
            settle_sec=settle_sec,
        ).plan()
    problems += made.problems
    if any(p.severity is Severity.ERROR for p in problems):
        return Plan(project=desired.project, problems=problems, drift=found.drift)
    changes = noted(made.changes, desired, observed.manifest)
    return found.told(replace(made, changes=changes, problems=problems, previous=observed.manifest))


class _Files:
    """One planning of a project whose units are files (persistent and runtime)."""

    def __init__(
        self,
        desired: Desired,
        observed: Observed,
        final: Manifest,
        *,
        paths: Paths,
        mode: Mode,
        prober: bytes,
        stopped: Container[str],
        settle_sec: float | None,
    ) -> None:
        self.stopped = stopped
        self.settle_sec = settle_sec
        self.desired = desired
        self.observed = observed
        self.final = final
        self.paths = paths
        self.mode = mode
        self.prober = prober
        self.before = observed.manifest or Manifest(desired.project)
        self.written = [
            name
            for name, file in sorted(desired.files.items())
            if name not in observed.masked and observed.files.get(name) != file.text
        ]
        self.gone = removal(desired, observed)
        self.linked, self.disabled = self._links()
        self.cycled: tuple[str, ...] = ()  # stopped first, for a socket to open
        self.depends: Mapping[str, Needs] = {}  # filled where units act on each other
        self.verdicts = self._verdicts()

    def plan(self) -> Plan:
        """Put the plan together."""
        acts = {name: v for name, v in self.verdicts.items() if v.verb in _JOBS}
        pending = self.final._replace(
            pending=tuple(n for n, v in acts.items() if v.verb in (Verb.START, Verb.RESTART)),
            restarts=tuple(n for n, v in acts.items() if v.verb is Verb.RESTART),
            reloads=tuple(n for n, v in acts.items() if v.verb is Verb.RELOAD),
            runs=tuple(f"{n} {self._runs(n)}" for n, v in acts.items() if v.verb is Verb.RESTART),
        )
        file_steps = self._file_steps()
        stops = (*self.gone.stops, *(Job(JobVerb.STOP, name) for name in self.cycled))
        reload = self._needs_reload()
        resets = [
            *self.gone.resets,
            *(n for n, v in acts.items() if v.verb is not Verb.RELOAD and self._is_counted(n)),
        ]
        acting = Acting(self.desired, self.verdicts, self.observed.units, self.depends, self.settle_sec)
        jobs, rollouts = acting.jobs(self._pulled(), self.cycled), acting.rollouts()
        steps: list[Step] = [*file_steps]
        if file_steps and self.mode is Mode.PERSISTENT:
            steps += [Sync(d) for d in dict.fromkeys((self.paths.unit_dir, self.paths.state_dir))]
        steps += [RunJobs(stops)] if stops else []
        steps += self.gone.steps(self.paths.unit_dir)
        steps += [DaemonReload()] if reload else []
        steps += [ResetFailed(name) for name in resets]
        steps += acting.steps(jobs, rollouts)
        where = path(self.paths.state_dir, self.desired.project)
        if steps:
            first = pending._replace(
                units=(*pending.units, *self.gone.units),
                files=tuple(sorted({*pending.files, *self.gone.files})),
                links=tuple(sorted({*pending.links, *self.gone.links})),
                pending=(*pending.pending, *self.gone.owed(self.before.pending)),
                restarts=(*pending.restarts, *self.gone.among(self.before.restarts)),
                reloads=(*pending.reloads, *self.gone.among(self.before.reloads)),
                unfinished=bool(file_steps or self.gone.files or reload),
                runs=(*pending.runs, *still_run(self.observed.runs, self.verdicts)),
                was=was(self.observed, (*self.written, *self.gone.files), self.disabled),
            )
            steps = [WriteManifest(where, first), *steps, WriteManifest(where, pending, confirm=True)]
        elif self.final != self.observed.manifest:
            steps = [WriteManifest(where, self.final, confirm=True)]
        return Plan(
            project=self.desired.project,
            steps=tuple(steps),
            changes=(*self._changes(), *self.gone.changes),
            keeps=(*self._keeps(), *self.gone.keeps),
            awaited=(
                *(self._awaited(self.desired.units[n], v) for n, v in acts.items()),
                *self.gone.awaited,
            ),
            rollouts=rollouts,
            prober=self.paths.prober,
            previous=self.observed.manifest,
        )

    # deciding

    def _verdicts(self) -> dict[str, Verdict]:
        known = {unit.name: unit for unit in self.before.units}
        owed = Owed(
            frozenset(self.before.pending),
            frozenset(self.before.restarts),
            frozenset(self.before.reloads),
            self.observed.runs,
        )
        found = {}
        for unit in self.desired.units.values():
            if self._is_masked(unit):
                found[unit.name] = Verdict(Verb.KEEP, MASKED)
                continue
            row = self.observed.units.get(unit.name)
            found[unit.name] = verdict(unit, row, known.get(unit.name), owed, self._texts(unit))
            is_stale = unit.name in self.observed.stale and unit.file not in self.written
            if is_stale and found[unit.name] == NOTHING:
                found[unit.name] = Verdict(Verb.RESTART, "runs what its unit file said before it was edited")
            if unit.name in self.stopped and found[unit.name].verb is Verb.START:
                found[unit.name] = Verdict(Verb.KEEP, STOPPED)
            is_open = unit.name.endswith(".socket") and is_running(row)
            if is_open and opens_anew(unit, self.desired, self.observed):
                found[unit.name] = Verdict(Verb.RESTART, "the unit that it starts changed")
        self.cycled = cycled(self.desired, self.observed, found)
        if found[self.desired.target].verb is Verb.START:
            held = [n for n in self._pulled() if n in found and found[n].reason == STOPPED]
            if held:  # it pulls in all of them
                found[self.desired.target] = Verdict(
                    Verb.KEEP, f"would start {min(held)}, which was stopped"
                )
        for name in self.cycled:
            reason = found[name].reason or "restarts with its socket"
            found[name] = Verdict(Verb.RESTART, reason, halted=True)
        stopping = {job.unit for job in self.gone.stops} | set(self.cycled)
        verbs = {v.verb for v in found.values()}
        if stopping or Verb.RESTART in verbs or {Verb.START, Verb.KEEP} <= verbs:
            running = [name for name in found if is_running(self.observed.units.get(name))]
            self.depends = self._depends(found)
            return spread(found, running, stopping, self.depends)
        return found

    def _depends(self, names: Iterable[str]) -> Mapping[str, Needs]:
        units = self.desired.units
        return {name: needs(name, *self._texts(units[name])) for name in names}

    def _links(self) -> tuple[dict[str, str], frozenset[str]]:
        """Return the links to make, and those that the administrator took away: they stay away."""
        make = {}
        disabled = set()
        for link, file in sorted(self.desired.links.items()):
            where = f"{self.paths.unit_dir}/{file}"
            if self.observed.links.get(link) == where:
                continue
            was_away = not self.before.unfinished or away(link) in self.before.was
            if link not in self.observed.links and link in self.before.links and was_away:
                disabled.add(link)
            else:
                make[link] = where
        return make, frozenset(disabled)

    def _needs_reload(self) -> bool:
        loaded = {row.name for row in self.observed.units.values() if is_loaded(row)}
        files = {file_of(name) for name in loaded} | loaded
        touched = {*self.written, *self.gone.files, *self.observed.stale}
        wants = f"{self.desired.target}.wants/"
        return (
            not touched.isdisjoint(files)
            or (
                self.desired.target in loaded
                and any(link.startswith(wants) for link in (*self.linked, *self.gone.links))
            )
            or (self.before.unfinished and not loaded.isdisjoint(self.desired.units))
            or any(
                v.verb is Verb.START and name in loaded and self.observed.units[name].load_state != "loaded"
                for name, v in self.verdicts.items()
            )
        )

    # putting together

    def _file_steps(self) -> list[Step]:
        steps: list[Step] = []
        if self.desired.needs_prober and self.observed.prober != self.prober:
            steps.append(InstallProber(self.paths.prober, self.prober))
        for name in self.written:
            content = self.desired.files[name].text.encode(errors="surrogateescape")
            steps.append(WriteFile(f"{self.paths.unit_dir}/{name}", content))
        steps += [Link(f"{self.paths.unit_dir}/{link}", where) for link, where in self.linked.items()]
        steps += [Unlink(f"{self.paths.unit_dir}/{link}") for link in self.gone.links]
        return steps

    def _pulled(self) -> frozenset[str]:
        """Return the units that the target pulls in, by the links as they will be."""
        wants = f"{self.desired.target}.wants/"
        links = {*self.observed.links, *self.linked}.difference(self.gone.links)
        return frozenset(link.removeprefix(wants) for link in links if link.startswith(wants))

    def _changes(self) -> list[Change]:
        written, shown = set(self.written), set()
        relinked = {link.rpartition("/")[2]: "is enabled" for link in self.linked}
        relinked |= {
            link.rpartition("/")[2]: "is disabled; if it runs, it runs on" for link in self.gone.links
        }
        changes = []
        alone = {unit.file for unit in self.desired.units.values() if unit.file == unit.name}
        for unit in self.desired.units.values():
            verbs: list[Verb] = []
            texts: tuple[str | None, str | None] = (None, None)
            if unit.file in written and unit.file not in shown:
                shown.add(unit.file)
                if unit.file in alone:
                    texts = self._texts(unit)
                    verbs.append(Verb.CREATE if texts[0] is None else Verb.CHANGE)
                else:
                    changes.append(self._file_change(unit.file))
            v = self.verdicts[unit.name]
            reason = v.reason
            if unit.name in relinked and not verbs and v.verb is not Verb.START:
                verbs.append(Verb.CHANGE)
                reason = reason or relinked[unit.name]
            if v.verb in _JOBS:
                verbs.append(v.verb)
            if verbs:
                changes.append(Change(unit.name, tuple(verbs), reason, unit.origin, unit.service, *texts))
        return [*changes, *(self._file_change(name) for name in self.written if name not in shown)]

    def _file_change(self, name: str) -> Change:
        file = self.desired.files[name]
        old = self.observed.files.get(name)
        verb = Verb.CREATE if old is None else Verb.CHANGE
        return Change(name, (verb,), "", file.origin, file.service, old, file.text)

    def _keeps(self) -> list[Change]:
        keeps = []
        disabled = {link.rpartition("/")[2] for link in self.disabled}
        for unit in self.desired.units.values():
            v = self.verdicts.get(unit.name, NOTHING)
            if v.verb is Verb.KEEP:
                keeps.append(Change(unit.name, (Verb.KEEP,), v.reason, unit.origin, unit.service))
            elif unit.name in disabled:
                keeps.append(Change(unit.name, (Verb.KEEP,), "disabled", unit.origin, unit.service))
        return keeps

    def _awaited(self, unit: Unit, v: Verdict) -> Awaited:
        assert v.verb is not None
        return Awaited(unit.name, v.verb, unit.service, unit.origin)

    # looking up

    def _texts(self, unit: Unit) -> tuple[str | None, str]:
        return self.observed.files.get(unit.file), self.desired.files[unit.file].text

    def _runs(self, name: str) -> str:
        """Return the digest of the text with which a running unit was started, as far as anyone knows."""
        old = self._texts(self.desired.units[name])[0]
        return self.observed.runs.get(name) or ("-" if old is None else digest(old))

    def _is_counted(self, name: str) -> bool:
        """Say whether systemd's start counter of a unit must not count what we do to it.

        It counts every start (unit_start_limit_test in src/core/unit.c): the restarts of two applies within
        `within` could be its last attempts, and take it down.
        """
        row = self.observed.units.get(name)
        has_limit = "\nStartLimitBurst=" in self._texts(self.desired.units[name])[1]
        return row is not None and (row.active_state == "failed" or has_limit)

    def _is_masked(self, unit: Unit) -> bool:
        return unit.name in self.observed.masked or unit.file in self.observed.masked
