"""The plan of a project whose units are transient: no files, no links, no target.

Owns what is different there: a unit exists only while it runs, so a change is a stop and a new start, and
what it was started with is known from the manifest's digests alone. Pure. Rule: what a transient unit cannot
do faithfully is refused before anything is done (`sysresp.units.transient.encode` knows what that is).
"""

from __future__ import annotations

from collections.abc import Container

from sysresp.errors import Problem
from sysresp.ports import Paths
from sysresp.reconcile.decide import (
    MASKED,
    NOTHING,
    STOPPED,
    TRIGGERS,
    Needs,
    Verdict,
    is_running,
    needs,
    spread,
)
from sysresp.reconcile.manifest import Manifest, ManifestUnit, path
from sysresp.reconcile.observe import Observed
from sysresp.reconcile.removal import remove
from sysresp.reconcile.rollout import Acting
from sysresp.reconcile.steps import (
    Awaited,
    Change,
    DaemonReload,
    InstallProber,
    Job,
    JobVerb,
    Plan,
    RemoveFile,
    ResetFailed,
    RunJobs,
    StartTransient,
    Step,
    Verb,
    WriteManifest,
)
from sysresp.units.desired import Desired, Unit
from sysresp.units.transient import encode


def plan(
    desired: Desired,
    observed: Observed,
    final: Manifest,
    *,
    paths: Paths,
    prober: bytes,
    stopped: Container[str] = (),
    settle_sec: float | None = None,
) -> Plan:
    """Return the plan; its problems name what these units cannot do."""
    units = {
        unit.name: unit for unit in desired.units.values() if unit.name.endswith(".service") and unit.start
    }
    final = of_services(final, units)
    encoded, problems = _encode(desired, units)
    gone = remove(desired.project, observed, units, observed.files, frozenset())
    verdicts = _verdicts(desired, observed, units, final, {job.unit for job in gone.stops})
    for name, v in verdicts.items():
        if name in stopped and v.verb is Verb.START:
            verdicts[name] = Verdict(Verb.KEEP, STOPPED)
    acts = {name: v for name, v in verdicts.items() if v.verb in (Verb.START, Verb.RESTART)}
    again = [name for name in reversed(acts) if is_running(observed.units.get(name))]
    steps: list[Step] = []
    if desired.needs_prober and observed.prober != prober:
        steps.append(InstallProber(paths.prober, prober))
    stops = (*gone.stops, *(Job(JobVerb.STOP, name) for name in again))
    steps += [RunJobs(stops)] if stops else []
    # A failed unit stays loaded, and systemd refuses a transient unit of the name of a loaded one.
    steps += [ResetFailed(name) for name in (*gone.resets, *(n for n in acts if n in observed.units))]
    # So does a stopped one that another unit names: without its file, and after a reload, its name is free
    # (unit_is_pristine in src/core/unit.c).
    loaded = [
        name for name in acts if name in observed.units and observed.units[name].load_state == "loaded"
    ]
    steps += [RemoveFile(f"{paths.unit_dir}/{name}") for name in loaded]
    steps += [DaemonReload()] if loaded else []
    steps += [StartTransient(name, encoded[name]) for name in acts if name in encoded]
    steps += Acting(desired, verdicts, observed.units, {}, settle_sec).steps((), ())
    where = path(paths.state_dir, desired.project)
    pending = final._replace(pending=tuple(acts))
    if steps:
        first = pending._replace(units=(*pending.units, *gone.units))
        steps = [WriteManifest(where, first), *steps, WriteManifest(where, pending, confirm=True)]
    elif final != observed.manifest:
        steps = [WriteManifest(where, final, confirm=True)]
    return Plan(
        project=desired.project,
        steps=tuple(steps),
        changes=(
            *(
                Change(name, (v.verb,), v.reason, units[name].origin, units[name].service)
                for name, v in acts.items()
                if v.verb is not None
            ),
            *gone.changes,
        ),
        keeps=tuple(
            Change(name, (Verb.KEEP,), v.reason, units[name].origin, units[name].service)
            for name, v in verdicts.items()
            if v.verb is Verb.KEEP
        ),
        problems=problems,
        awaited=(
            *(
                Awaited(name, v.verb, units[name].service, units[name].origin)
                for name, v in acts.items()
                if v.verb
            ),
            *gone.awaited,
        ),
        prober=paths.prober,
        previous=observed.manifest,
    )


def of_services(final: Manifest, units: Container[str]) -> Manifest:
    """Return the manifest without what there is no unit of: the slice, the target, what is not enabled."""
    told = {name: one for name, one in (final.supervision or {}).items() if name in units}
    return final._replace(
        units=tuple(unit for unit in final.units if unit.name in units), target="", supervision=told
    )


def _encode(
    desired: Desired, units: dict[str, Unit]
) -> tuple[dict[str, tuple[tuple[str, str, object], ...]], tuple[Problem, ...]]:
    encoded = {}
    problems = {}
    for unit in desired.units.values():
        if unit.name not in units and not unit.name.endswith(TRIGGERS):
            continue  # the slice and the target, and services that are not enabled
        properties, reasons = encode(unit, desired.files[unit.file])
        encoded[unit.name] = tuple(properties)
        for reason in reasons:
            problems[unit.service, reason] = Problem(unit.origin, f"services.{unit.service}", reason)
    return encoded, tuple(sorted(problems.values()))


def _verdicts(
    desired: Desired, observed: Observed, units: dict[str, Unit], final: Manifest, stopping: set[str]
) -> dict[str, Verdict]:
    before = observed.manifest or Manifest(desired.project)
    known = {unit.name: unit for unit in before.units}
    found = {}
    for wanted in final.units:
        state = observed.units[wanted.name].active_state if wanted.name in observed.units else "inactive"
        if wanted.name in observed.masked:
            found[wanted.name] = Verdict(Verb.KEEP, MASKED)
        else:
            running = is_running(observed.units.get(wanted.name))
            found[wanted.name] = _verdict(wanted, state, running, known.get(wanted.name), before.pending)
    texts = {name: desired.files[unit.file].text for name, unit in units.items()}
    depends: dict[str, Needs] = {name: needs(name, text, text) for name, text in texts.items()}
    running_names = [name for name in found if is_running(observed.units.get(name))]
    halted = stopping | {name for name, v in found.items() if v.verb is Verb.RESTART}
    return spread(found, running_names, halted, depends)


def _verdict(
    wanted: ManifestUnit, state: str, running: bool, known: ManifestUnit | None, pending: tuple[str, ...]
) -> Verdict:
    if running and known is not None and known.digest != wanted.digest:
        return Verdict(Verb.RESTART, "what it is started with changed")
    if running:
        return NOTHING
    if state == "failed":
        return Verdict(Verb.START, "failed")
    if known is None:
        return Verdict(Verb.START)
    if wanted.name in pending:
        return Verdict(Verb.START, "its last start was not confirmed")
    return Verdict(Verb.KEEP, STOPPED)
