"""What is there: unit files on disk, links, loaded units, the manifest.

Owns `Observed`, the other half of what `plan` compares. It reads and never changes anything, and it makes
systemd load nothing: one ListUnitsByPatterns, one listing for each directory of the load path, one read for
each unit file of ours that exists. Rule: whatever the plan has to know about the host is looked at here; the
cost of an apply that finds nothing to do is the cost of this module.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from sysresp.ports import Files, Host, Question, UnitState
from sysresp.reconcile.manifest import Manifest, load, path, patterns
from sysresp.units.desired import Desired

UNIT_TYPES: Final = (".service", ".socket", ".timer", ".path", ".target", ".slice")
"""Types of unit that sysresp writes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """The host as far as one project is concerned."""

    manifest: Manifest | None = None
    elsewhere: tuple[str, ...] = ()  # other modes in which a manifest says that this project is applied
    files: Mapping[str, str] = field(default_factory=dict)  # unit files in the unit directory: text by name
    masked: frozenset[str] = frozenset()  # names of unit files that are masked (systemd.unit(5))
    strays: Mapping[str, str] = field(default_factory=dict)  # our names in other directories: path by name
    links: Mapping[str, str] = field(default_factory=dict)  # "shop.target.wants/shop-web.service" -> target
    units: Mapping[str, UnitState] = field(default_factory=dict)  # loaded units by name
    prober: bytes | None = None  # the installed readiness prober
    runs: Mapping[str, str] = field(default_factory=dict)  # of manifest.runs, what is run yet


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
    texts, masked = _unit_files(files, paths.unit_dir, project, names)
    strays, masked_ahead = _strays(files, paths.search, paths.unit_dir, names)
    rows = host.manager.units(patterns(project, names | texts.keys()))
    return Observed(
        manifest=manifest,
        elsewhere=tuple(m.mode for m in others if m is not None),
        files=texts,
        masked=masked | masked_ahead,
        strays=strays,
        links=_links(files, paths.unit_dir, target, links),
        units={row.name: row for row in rows},
        prober=files.read(paths.prober) if desired is not None and desired.needs_prober else None,
        runs=_runs(host, manifest),
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


def _of_manifest(manifest: Manifest | None) -> tuple[frozenset[str], frozenset[str], str]:
    if manifest is None:
        return frozenset(), frozenset(), ""
    names = frozenset(manifest.files) | {unit.name for unit in manifest.units}
    return names, frozenset(manifest.links), manifest.target


def _unit_files(
    files: Files, directory: str, project: str, names: Iterable[str]
) -> tuple[dict[str, str], frozenset[str]]:
    """Return the texts of our names, and of what else looks like ours, and the names that are masked."""
    wanted = set(names)
    texts: dict[str, str] = {}
    masked = set()
    for name in files.listdir(directory):
        if name not in wanted and not (name.startswith(f"{project}-") and name.endswith(UNIT_TYPES)):
            continue
        content = files.read(f"{directory}/{name}")
        if content:
            texts[name] = content.decode(errors="surrogateescape")
        elif content is None and files.readlink(f"{directory}/{name}") is None:
            continue  # gone since the listing
        else:  # a link to /dev/null, an empty file, or a dangling link: systemd takes all as "do not load"
            masked.add(name)
    return texts, frozenset(masked)


def _strays(
    files: Files, search: Sequence[str], unit_dir: str, names: Iterable[str]
) -> tuple[dict[str, str], frozenset[str]]:
    """Return unit files of our names in other directories, and the names that are masked ahead of ours."""
    wanted = set(names)
    found: dict[str, str] = {}
    masked = set()
    ahead = unit_dir in search
    for directory in search:
        if directory == unit_dir:
            ahead = False
            continue
        for name in wanted.intersection(files.listdir(directory)):
            where = f"{directory}/{name}"
            if files.read(where):
                found.setdefault(name, where)
            elif ahead:
                masked.add(name)
    return found, frozenset(masked)


def _links(files: Files, directory: str, target: str, known: Iterable[str]) -> dict[str, str]:
    """Return the links that are known, and all that make the project's target pull something in."""
    wanted: dict[str, set[str] | None] = {}
    for link in known:
        parent, _, name = link.rpartition("/")
        names = wanted.setdefault(parent, set())
        assert names is not None
        names.add(name)
    if target:
        wanted[f"{target}.wants"] = None
    found = {}
    for parent, names in wanted.items():
        for name in files.listdir(f"{directory}/{parent}"):
            if names is None or name in names:
                where = files.readlink(f"{directory}/{parent}/{name}")
                if where is not None:
                    found[f"{parent}/{name}"] = where
    return found
