"""The plan that takes a project away, or some of its services.

Owns `plan_down`. Pure, and it needs nothing but the manifest and what is observed: services.toml may be long
gone. Rule: what goes is what the manifest names and our mark confirms (`removal`), nothing else.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence

from sysresp.ports import Paths
from sysresp.reconcile.manifest import Manifest, path
from sysresp.reconcile.names import select
from sysresp.reconcile.observe import Observed
from sysresp.reconcile.removal import remove
from sysresp.reconcile.steps import (
    DaemonReload,
    Plan,
    RemoveDirectory,
    RemoveFile,
    ResetFailed,
    RunJobs,
    Step,
    Unlink,
    WriteManifest,
)


def plan_down(
    manifest: Manifest, observed: Observed, names: Sequence[str] | None = None, *, paths: Paths
) -> Plan:
    """Return what stops and removes the project, or the services of these names (or raise SysrespError)."""
    gone = {unit.name for _, units in select([manifest], names or ()) for unit in units}
    stay = tuple(unit for unit in manifest.units if unit.name not in gone)
    files = {unit.file for unit in stay} | (
        set(manifest.files) - {u.file for u in manifest.units} if names else set()
    )
    links = {link for link in manifest.links if names and link.rpartition("/")[2] not in gone}
    if manifest.mode == "transient":
        files |= observed.files.keys()
    going = remove(
        manifest.project,
        observed,
        {unit.name for unit in stay},
        files | (observed.files.keys() - set(manifest.files) if names else set()),
        links,
    )
    loaded = {row.name for row in observed.units.values() if row.load_state != "not-found"}
    reload = bool(going.files and loaded) or bool(going.links and manifest.target in loaded)
    where = path(paths.state_dir, manifest.project)
    left = manifest._replace(
        units=stay,
        files=tuple(sorted(set(manifest.files) - set(going.files))),
        links=tuple(sorted(links)),
        pending=_without(manifest.pending, gone),
        restarts=_without(manifest.restarts, gone),
        reloads=_without(manifest.reloads, gone),
    )
    unlinks: list[Step] = [Unlink(f"{paths.unit_dir}/{link}") for link in going.links]
    steps: list[Step] = [*unlinks]
    steps += [RunJobs(going.stops)] if going.stops else []
    steps += going.steps(paths.unit_dir)
    steps += [ResetFailed(name) for name in going.resets]
    steps += [DaemonReload()] if reload else []
    if names:
        steps = [*steps, WriteManifest(where, left, confirm=True)]
    else:
        steps = [*steps, RemoveFile(where), RemoveDirectory(paths.state_dir)]
    return Plan(
        project=manifest.project,
        steps=tuple(steps),
        changes=going.changes,
        keeps=going.keeps,
        awaited=going.awaited,
        prober=paths.prober,
        previous=manifest,
    )


def _without(names: Iterable[str], gone: Container[str]) -> tuple[str, ...]:
    return tuple(name for name in names if name not in gone)
