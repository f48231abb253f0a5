"""start, stop, restart and reload of services by their names in the file.

Owns what each action means for a service that has more than one unit: its instances, its socket, its timer.
Makes a plan, which `apply` executes. Rule: it works from the manifest alone, and touches only units in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sysresp.model import Origin
from sysresp.ports import Host
from sysresp.reconcile.apply import Event, apply
from sysresp.reconcile.decide import RUNNING, TRIGGERS
from sysresp.reconcile.manifest import Manifest, ManifestUnit, path, patterns
from sysresp.reconcile.names import select
from sysresp.reconcile.outcome import Outcome
from sysresp.reconcile.steps import (
    Awaited,
    Job,
    JobVerb,
    Plan,
    ResetFailed,
    RunJobs,
    Step,
    Verb,
    WriteManifest,
)


def act(
    verb: JobVerb,
    manifest: Manifest,
    names: Sequence[str],
    host: Host,
    *,
    on_event: Callable[[Event], None] = lambda _: None,
    timeout_sec: float | None = None,
) -> Outcome:
    """Do this to the services of these names; SysrespError (Exit.UNKNOWN) if one is not there."""
    units = [unit for _, found in select([manifest], names) for unit in found]
    rows = host.manager.units(patterns(manifest.project, [unit.name for unit in units]))
    states = {row.name: row.active_state for row in rows}
    made = plan_action(verb, manifest, units, names, states, state_dir=host.paths.state_dir)
    return apply(made, host, on_event=on_event, timeout_sec=timeout_sec)


def plan_action(
    verb: JobVerb,
    manifest: Manifest,
    units: Sequence[ManifestUnit],
    names: Sequence[str],
    states: Mapping[str, str],
    *,
    state_dir: str,
) -> Plan:
    """Return the plan of an action; units are those that the names mean."""
    running = frozenset(name for name, state in states.items() if state in RUNNING)
    chosen = [u for u in units if _is_meant(verb, u, units, names, running)]
    if verb is JobVerb.STOP:
        # What triggers a unit goes before it, else it would be started again at once.
        chosen.reverse()
        chosen.sort(key=lambda u: not u.name.endswith(TRIGGERS))
    steps: list[Step] = []
    if verb in (JobVerb.START, JobVerb.RESTART):
        steps += [ResetFailed(u.name) for u in chosen if states.get(u.name) == "failed"]
    if chosen:
        steps.append(RunJobs(tuple(Job(verb, u.name) for u in chosen)))
    stopped = {u.name for u in chosen} if verb is JobVerb.STOP else set()
    if not stopped.isdisjoint(manifest.pending):
        left = manifest._replace(pending=tuple(n for n in manifest.pending if n not in stopped))
        steps.insert(0, WriteManifest(path(state_dir, manifest.project), left))
    return Plan(
        project=manifest.project,
        steps=tuple(steps),
        awaited=tuple(
            Awaited(u.name, Verb(verb.value), u.service, Origin(u.origin_path, u.origin_line))
            for u in chosen
        ),
        previous=manifest,
    )


def _is_meant(
    verb: JobVerb,
    unit: ManifestUnit,
    units: Sequence[ManifestUnit],
    names: Sequence[str],
    running: frozenset[str],
) -> bool:
    if unit.name in names:
        return True  # named as a whole: exactly that
    if unit.name.endswith((".slice", ".target")):
        return False
    up = unit.name in running
    starts = any(other.start for other in units if other.service == unit.service)
    match verb:
        case JobVerb.START:
            # A service that its socket or timer starts is started by starting that.
            return unit.start or (unit.main and not starts)
        case JobVerb.STOP:
            return up
        case JobVerb.RESTART:
            return unit.main and (up or unit.start or not starts)
        case JobVerb.RELOAD:
            return unit.main and up
