"""What is there: unit files on disk, links, loaded units, the manifest.

Owns `Observed`, the other half of what `plan` compares. It reads and never changes anything, and it makes
systemd load nothing: one ListUnitsByPatterns, and what `sysresp.reconcile.disk` reads. Rule: whatever the
plan has to know about the host is looked at here; the cost of an apply that finds nothing to do is the cost
of this module.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sysresp.ports import Host, Question, UnitState
from sysresp.reconcile.disk import Disk, Wanted, digest_of, look
from sysresp.reconcile.manifest import Manifest, load, path, patterns
from sysresp.units.desired import Desired


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """The host as far as one project is concerned."""

    manifest: Manifest | None = None
    elsewhere: tuple[str, ...] = ()  # other modes in which a manifest says that this project is applied
    files: Mapping[str, str] = field(default_factory=dict)  # unit files in the unit directory: text by name
    masked: frozenset[str] = frozenset()  # names of unit files that are masked (systemd.unit(5))
    torn: frozenset[str] = frozenset()  # empty unit files that a cut apply left: to be written again
    strays: Mapping[str, str] = field(default_factory=dict)  # our names in other directories: path by name
    links: Mapping[str, str] = field(default_factory=dict)  # "shop.target.wants/shop-web.service" -> target
    enabled: Mapping[str, str] = field(default_factory=dict)  # foreign links: whole path -> unit of ours
    drop_ins: Mapping[str, str] = field(default_factory=dict)  # of others, for our units: path -> digest
    units: Mapping[str, UnitState] = field(default_factory=dict)  # loaded units by name
    prober: bytes | None = None  # the installed readiness prober
    runs: Mapping[str, str] = field(default_factory=dict)  # of manifest.runs, what is run yet
    stale: frozenset[str] = frozenset()  # services that run what their unit file said before it was edited


def observe(
    host: Host,
    project: str,
    desired: Desired | None = None,
    *,
    state_dirs: Sequence[str] = (),
) -> Observed:
    """Look at all that concerns the project; state_dirs are those of all modes (layout.state_dirs)."""
    files, paths = host.files, host.paths
    manifest = load(files, path(paths.state_dir, project))
    others = (load(files, path(d, project)) for d in state_dirs if d != paths.state_dir)
    names, links, target = _of_manifest(manifest)
    if desired is not None:
        names = names | desired.files.keys() | desired.units.keys()
        links = links | desired.links.keys()
        target = desired.target
    written = frozenset(manifest.files) if manifest is not None and manifest.unfinished else frozenset()
    disk = look(files, paths, Wanted(names, links, target, f"{project}-", written))
    texts = {name: content.decode(errors="surrogateescape") for name, content in disk.contents.items()}
    rows = host.manager.units(patterns(project, names | texts.keys()))
    return Observed(
        manifest=manifest,
        elsewhere=tuple(m.mode for m in others if m is not None),
        files=texts,
        masked=disk.masked,
        torn=disk.torn,
        strays=disk.strays,
        links=disk.links,
        enabled=disk.enabled,
        drop_ins=disk.drop_ins,
        units={row.name: row for row in rows},
        prober=files.read(paths.prober) if desired is not None and desired.needs_prober else None,
        runs=_runs(host, manifest),
        stale=_stale(host, manifest, disk, rows) if manifest is not None else frozenset(),
    )


def invocations(host: Host, names: Iterable[str]) -> dict[str, str]:
    """Return the InvocationID of each of these services; "" for one that never ran."""
    asked = [Question(name, "Unit", ("InvocationID",)) for name in names]
    found = host.manager.many_properties(asked)
    return {q.unit: str(one.get("InvocationID", "")) for q, one in zip(asked, found, strict=True)}


def _runs(host: Host, manifest: Manifest | None) -> dict[str, str]:
    """Return what is run by the units of `manifest.runs` that are in the same run as when it was written."""
    rows = [tuple(line.split(" ")) for line in (manifest.runs if manifest is not None else ())]
    rows = [row for row in rows if len(row) == 3]
    now = invocations(host, (row[0] for row in rows))
    return {name: text for name, text, run in rows if run and now[name] == run}


def _stale(host: Host, manifest: Manifest, disk: Disk, rows: Iterable[UnitState]) -> frozenset[str]:
    """Return the services that do not run what was put into their unit files by hand."""
    digests = {unit.file: unit.digest for unit in manifest.units}
    edited = {
        file
        for file in manifest.files
        if file in disk.contents and digest_of(disk.contents[file]) not in {digests.get(file), *manifest.was}
    }
    active = {row.name for row in rows if row.active_state == "active"}
    units = [u for u in manifest.units if u.file in edited and u.name in active and u.main]
    asked = [Question(u.name, "Unit", ("NeedDaemonReload",)) for u in units]
    asked += [Question(u.name, "Service", ("ExecMainStartTimestamp",)) for u in units]
    answers = host.manager.many_properties(asked)
    found = set()
    for unit, loaded, ran in zip(units, answers, answers[len(units) :], strict=False):
        stat = host.files.stat(f"{host.paths.unit_dir}/{unit.file}")
        started = ran.get("ExecMainStartTimestamp")
        is_older = isinstance(started, int) and stat is not None and 0 < started < stat.ctime * 1e6
        if is_older or loaded.get("NeedDaemonReload") is True:
            found.add(unit.name)
    return frozenset(found)


def _of_manifest(manifest: Manifest | None) -> tuple[frozenset[str], frozenset[str], str]:
    if manifest is None:
        return frozenset(), frozenset(), ""
    names = frozenset(manifest.files) | {unit.name for unit in manifest.units}
    return names, frozenset(manifest.links), manifest.target
