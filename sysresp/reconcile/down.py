"""The plan that takes a project away, or some of its services.

Owns `plan_down`. Pure, and it needs nothing but the manifest and what is observed: services.toml may be long
gone. Rule: what goes is what the manifest names and our mark confirms (`removal`), nothing else.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from typing import Any

from sysresp.ports import Paths
from sysresp.reconcile.decide import is_running
from sysresp.reconcile.manifest import Manifest, path
from sysresp.reconcile.names import select
from sysresp.reconcile.observe import Observed
from sysresp.reconcile.removal import remove
from sysresp.reconcile.steps import (
    DaemonReload,
    Job,
    JobVerb,
    Plan,
    RemoveDirectory,
    RemoveFile,
    ResetFailed,
    RunJobs,
    Step,
    Unlink,
    WriteManifest,
)
from sysresp.spec.names import slice_unit


def plan_down(
    manifest: Manifest, observed: Observed, names: Sequence[str] | None = None, *, paths: Paths
) -> Plan:
    """Return what stops and removes the project, or the services of these names (or raise SysrespError)."""
    gone = {unit.name for _, units in select([manifest], names or ()) for unit in units}
    stay = tuple(unit for unit in manifest.units if unit.name not in gone)
    keep_files, keep_links = _kept(manifest, observed, gone, whole=not names)
    going = remove(manifest.project, observed, {unit.name for unit in stay}, keep_files, keep_links)
    where = path(paths.state_dir, manifest.project)
    # If this is cut, a later apply must not take the stopped for stopped by the administrator.
    cut = manifest._replace(
        pending=tuple(dict.fromkeys((*manifest.pending, *going.owed(manifest.pending)))),
        unfinished=True,
    )
    steps: list[Step] = [WriteManifest(where, cut)]
    steps += [Unlink(f"{paths.unit_dir}/{link}") for link in going.links]
    steps += [RunJobs(going.stops)] if going.stops else []
    own_slice = slice_unit(manifest.project)
    if manifest.mode == "transient" and not names and is_running(observed.units.get(own_slice)):
        # systemd made it for the services in it, and keeps it when they have gone.
        steps.append(RunJobs((Job(JobVerb.STOP, own_slice),)))
    steps += going.steps(paths.unit_dir)
    if not names:
        steps += [RemoveFile(where), RemoveDirectory(paths.state_dir)]
    loaded = {row.name for row in observed.units.values() if row.load_state != "not-found"}
    if (going.files and loaded) or (going.links and manifest.target in loaded):
        steps.append(DaemonReload())
    # Last, since it is not undone: a unit that had failed would pass for stopped by the administrator.
    steps += [ResetFailed(name) for name in going.resets]
    if names:
        left = manifest._replace(
            units=stay,
            files=_without(manifest.files, going.files),
            links=_without(manifest.links, going.links),
            pending=_without(manifest.pending, gone),
            restarts=_without(manifest.restarts, gone),
            reloads=_without(manifest.reloads, gone),
            supervision=_told(manifest, gone),
        )
        steps.append(WriteManifest(where, left, confirm=True))
    return Plan(
        project=manifest.project,
        steps=tuple(steps),
        changes=going.changes,
        keeps=going.keeps,
        awaited=going.awaited,
        prober=paths.prober,
        previous=manifest,
    )


def _kept(
    manifest: Manifest, observed: Observed, gone: Collection[str], *, whole: bool
) -> tuple[frozenset[str], frozenset[str]]:
    """Return the unit files and the links that stay."""
    seen = frozenset(manifest.files) | observed.files.keys()
    if manifest.mode == "transient":
        return seen, frozenset()
    if whole:
        return frozenset(), frozenset()
    used = {unit.file for unit in manifest.units if unit.name not in gone}
    files = {unit.file for unit in manifest.units if unit.name in gone} - used
    links = frozenset(link for link in manifest.links if link.rpartition("/")[2] not in gone)
    return seen - files, links


def _told(manifest: Manifest, gone: Container[str]) -> Mapping[str, Mapping[str, Any]] | None:
    if manifest.supervision is None:
        return None
    return {unit: one for unit, one in manifest.supervision.items() if unit not in gone}


def _without(names: Iterable[str], gone: Container[str]) -> tuple[str, ...]:
    return tuple(name for name in names if name not in gone)
