"""What goes: units and files of the project that its file no longer asks for.

Owns the rule that a unit is stopped before its file is removed, and that a file without our mark is left
alone even if the manifest names it. Pure; used both by `plan` and by `plan_down`, for which everything goes.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping
from dataclasses import dataclass

from sysresp.model import NOWHERE, Origin
from sysresp.reconcile.decide import TRIGGERS, file_of, is_running
from sysresp.reconcile.manifest import Manifest, ManifestUnit
from sysresp.reconcile.observe import Observed
from sysresp.reconcile.steps import Awaited, Change, Job, JobVerb, RemoveDirectory, RemoveFile, Step, Verb
from sysresp.units.desired import Desired
from sysresp.units.text import owner


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """Everything that goes."""

    units: tuple[ManifestUnit, ...] = ()  # of the manifest
    files: tuple[str, ...] = ()  # names of unit files that are removed
    links: tuple[str, ...] = ()
    directories: tuple[str, ...] = ()  # below the unit directory: removed if they are empty then
    stops: tuple[Job, ...] = ()  # in an order in which stopping works
    resets: tuple[str, ...] = ()  # failed units: they stay loaded until that is forgotten
    changes: tuple[Change, ...] = ()
    keeps: tuple[Change, ...] = ()
    awaited: tuple[Awaited, ...] = ()

    def owed(self, pending: Container[str]) -> tuple[str, ...]:
        """Return what is to be started if this is cut and the next file wants it again."""
        stops = (job.unit for job in self.stops)
        return tuple(dict.fromkeys((*stops, *self.resets, *self.among(pending))))

    def among(self, names: Container[str]) -> tuple[str, ...]:
        """Return the units that go and are among these."""
        return tuple(unit.name for unit in self.units if unit.name in names)

    def steps(self, unit_dir: str) -> list[Step]:
        """Return the file steps that come after the stop jobs."""
        return [
            *(RemoveFile(f"{unit_dir}/{name}") for name in self.files),
            *(RemoveDirectory(f"{unit_dir}/{name}") for name in self.directories),
        ]


def removal(desired: Desired, observed: Observed) -> Removal:
    """Return what of the project is on the host and not desired."""
    return remove(desired.project, observed, desired.units, desired.files, desired.links)


def remove(
    project: str,
    observed: Observed,
    keep_units: Container[str],
    keep_files: Container[str],
    keep_links: Collection[str],
) -> Removal:
    """Return what goes if these units, files and links stay."""
    manifest = observed.manifest or Manifest(project)
    foreign = set()
    files = []
    for name in sorted({*manifest.files, *observed.files, *observed.torn}):
        if name in keep_files:
            continue
        text = observed.files.get(name)
        if (text is not None and owner(text) == project) or name in observed.torn:
            files.append(name)
        elif text is not None or name in observed.strays:
            foreign.add(name)
    gone = [u for u in manifest.units if u.name not in keep_units and u.file not in foreign]
    known = {unit.name: unit for unit in gone}
    loose = sorted(
        name
        for name, row in observed.units.items()
        if name not in known
        and name not in keep_units
        and {name, file_of(name)} & set(files)
        and row.load_state != "not-found"
    )
    order = [*loose, *(unit.name for unit in reversed(gone))]
    links = _links(manifest, observed, keep_links, set(files))
    own_wants = f"{manifest.target}.wants"
    left = any(_parent(link) == own_wants for link in keep_links)
    running = sorted((n for n in order if is_running(observed.units.get(n))), key=_rank)
    return Removal(
        units=tuple(u for u in manifest.units if u.name not in keep_units),
        files=tuple(files),
        links=links,
        directories=() if left or own_wants not in map(_parent, links) else (own_wants,),
        stops=tuple(Job(JobVerb.STOP, name) for name in running),
        resets=tuple(n for n in order if n in observed.units and observed.units[n].active_state == "failed"),
        changes=_changes(known, order, running, files, observed.files),
        keeps=tuple(
            Change(n, (Verb.KEEP,), "its unit file is no longer ours")
            for n in sorted(foreign & {*manifest.files})
        ),
        awaited=tuple(Awaited(name, Verb.STOP, *_whose(known.get(name))) for name in running),
    )


def _rank(name: str) -> int:
    """Order stops: the target takes all with it in one transaction, triggers go before what they start."""
    if name.endswith(".target"):
        return 0
    if name.endswith(TRIGGERS):
        return 1
    return 3 if name.endswith(".slice") else 2


def _links(
    manifest: Manifest,
    observed: Observed,
    keep: Container[str],
    files: set[str],
) -> tuple[str, ...]:
    """Return links of ours that go: those we made, and those that would dangle."""
    ours = set(manifest.links)
    return tuple(
        link
        for link, where in sorted(observed.links.items())
        if link not in keep and (link in ours or where.rpartition("/")[2] in files)
    )


def _parent(link: str) -> str:
    return link.rpartition("/")[0]


def _whose(unit: ManifestUnit | None) -> tuple[str, Origin]:
    return ("", NOWHERE) if unit is None else (unit.service, Origin(unit.origin_path, unit.origin_line))


def _changes(
    known: Mapping[str, ManifestUnit],
    order: list[str],
    running: list[str],
    files: list[str],
    texts: Mapping[str, str],
) -> tuple[Change, ...]:
    found = []
    for name in (*order, *(file for file in files if file not in order)):
        verbs = [Verb.STOP] if name in running else []
        verbs += [Verb.REMOVE] if name in files else []
        if verbs:
            service, origin = _whose(known.get(name))
            found.append(
                Change(name, tuple(verbs), "no longer in the file", origin, service, before=texts.get(name))
                if name in files
                else Change(name, tuple(verbs), "no longer in the file", origin, service)
            )
    return tuple(found)
