"""Drift: where a host is no longer as the last apply left it, by whoever's hand.

Owns the kinds of drift and how each is told from what is well: by the digests in the manifest, never by the
times of files, which a restored backup or a copy brings back. Only what a process runs is told by time: no
other thing says it. Pure, and cheap to import: `sysresp status` marks its rows with this. Never says what
apply does about it: that is `sysresp.reconcile.resolve`. Rule: what an unfinished apply left, and what was
accepted as it is, is no drift.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sysresp.reconcile.disk import applies

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sysresp.reconcile.disk import Disk
    from sysresp.reconcile.manifest import Manifest, ManifestUnit

EDITED = "edited"  # the unit file has another text
GENERATION = "generation"  # ... and it is that of another generation
REMOVED = "removed"  # the unit file is gone
MASKED = "masked"  # the unit was masked
DROP_IN = "drop-in"  # somebody else's drop-in changes the unit
DISABLED = "disabled"  # a link that pulls the unit in was taken away
ENABLED = "enabled"  # a link that is not ours pulls the unit in
NOT_LOADED = "not-loaded"  # systemd has loaded something older than what is on the disk
OUTDATED = "outdated"  # the process runs what its unit said before
REPLACED = "replaced"  # the process runs a program or library that was replaced on the disk
CONFIG = "config"  # one of its config_files was changed since it read them
KINDS = (
    *(EDITED, GENERATION, REMOVED, MASKED, DROP_IN, DISABLED, ENABLED),
    *(NOT_LOADED, OUTDATED, REPLACED, CONFIG),
)

TEXT = frozenset({EDITED, GENERATION, REMOVED})
"""Kinds that an apply would overwrite: it asks first."""

_SHOWN = 3  # paths in one sentence


class Drift(NamedTuple):
    """One thing that is not as the last apply left it."""

    kind: str
    unit: str  # a unit or unit file of ours; of a drop-in for many units, the name of its directory
    what: str  # "was edited"
    path: str  # the file or link that it is about, "" if it is about the process
    fix: str
    service: str = ""
    origin_path: str = ""
    origin_line: int = 0
    key: str = ""  # what the manifest's `accepted` holds once it was accepted; "": cannot be
    before: str | None = None  # the text as sysresp wrote or would write it, where it is known
    after: str | None = None  # the text on disk


class Process(NamedTuple):
    """What a unit runs, as far as it matters here; times are seconds since the epoch."""

    unit: str
    needs_reload: bool = False  # NeedDaemonReload
    pid: int = 0  # 0: it has no main process
    started: float = (
        0.0  # when the process started, or the unit became active; 0: it did not, or nothing asks
    )
    replaced: tuple[str, ...] = ()  # files that it runs and that were replaced
    edited: tuple[tuple[str, float], ...] = ()  # unit files and drop-ins written by others: path and when
    scripts: tuple[tuple[str, float], ...] = ()  # what ExecStart= names, if it is a script
    configs: tuple[tuple[str, float], ...] = ()  # config_files
    written: float = 0.0  # when its unit file was: each apply that sees another content of one writes it


def is_accepted(manifest: Manifest, drift: Drift) -> bool:
    """Say whether it was accepted as it is; another edit, or another wish of the file, is new drift."""
    return bool(drift.key) and drift.key in manifest.accepted


def away(link: str) -> str:
    """Return the word of `Manifest.was` for a link that was away before an apply that is not finished."""
    return f"{link} -"


def of_disk(  # noqa: PLR0917
    manifest: Manifest,
    digests: Mapping[str, str],
    disk: Disk,
    unit_dir: str,
    wanted: Mapping[str, str] | None = None,
    earlier: Mapping[tuple[str, str], int] | None = None,
) -> tuple[Drift, ...]:
    """Return what on the disk differs from the manifest, accepted or not, in the order of its units.

    `digests` are those of the unit files on disk that are ours, by the manifest or by their mark; `wanted`
    those that the next apply asks for, if there is one; `earlier` says which other generation had this text
    of a file.
    """
    by_file: dict[str, ManifestUnit] = {}
    by_name: dict[str, ManifestUnit] = {}
    for unit in manifest.units:
        by_file.setdefault(unit.file, unit)
        by_name[unit.name] = unit
    goal = {file: unit.digest for file, unit in by_file.items()} if wanted is None else wanted
    ours = frozenset(manifest.files)
    found = []
    for file, unit in by_file.items():
        if file not in ours:
            continue  # a transient unit
        if file in disk.masked:
            found.append(_masked(unit, file, f"{unit_dir}/{file}", manifest))
        elif file in digests:
            digest = digests[file]
            if digest not in {unit.digest, goal.get(file)} and digest not in manifest.was:
                number = (earlier or {}).get((file, digest), 0)
                found.append(
                    _edited(unit, file, f"{unit_dir}/{file}", f"{digest} {goal.get(file, '-')}", number)
                )
        elif file not in disk.unread and file not in disk.torn:
            removed = _removed(unit, file, f"{unit_dir}/{file}", f"- {goal.get(file, '-')}")
            found += [removed] if not manifest.unfinished or is_accepted(manifest, removed) else []
    for file in sorted(digests.keys() - ours - goal.keys()):
        what = "has the project's mark, and no apply wrote it"
        found.append(
            Drift(EDITED, file, what, f"{unit_dir}/{file}", _EITHER, key=f"{file} {digests[file]} -")
        )
    for unit in manifest.units:
        if unit.name in disk.masked and not (unit.name == unit.file and unit.file in ours):
            found.append(_masked(unit, unit.name, f"{unit_dir}/{unit.name}", manifest))
    found += _links(manifest, disk, unit_dir, by_name)
    for path, digest in disk.drop_ins.items():
        base = path.rpartition("/")[0].rpartition("/")[2].removesuffix(".d")
        unit_of = by_name.get(base) or by_file.get(base)
        found.append(_drop_in(unit_of, base, path, digest))
    return tuple(found)


def of_processes(manifest: Manifest, processes: Iterable[Process]) -> tuple[Drift, ...]:
    """Return what runs and is older than what it should run."""
    owed = {**dict.fromkeys(manifest.reloads, "reload"), **dict.fromkeys(manifest.restarts, "restart")}
    seen = {process.unit: process for process in processes}
    scope = " --user" if manifest.scope == "user" else ""
    found = []
    for unit in manifest.units:
        again = f"sysresp restart{scope} {unit.service}" + (f"@{unit.instance}" if unit.instance else "")
        again = again if unit.service else f"systemctl{scope} restart {unit.name}"
        if unit.name in owed:
            verb = owed[unit.name]
            found.append(
                _drift(
                    unit, OUTDATED, f"the {verb} that the last apply owes it", "", f"sysresp apply{scope}"
                )
            )
        process = seen.get(unit.name)
        if process is not None:
            found += _of_process(unit, process, again, f"systemctl{scope} daemon-reload")
    return tuple(found)


def _of_process(unit: ManifestUnit, process: Process, again: str, reload: str) -> Iterable[Drift]:
    if process.needs_reload:
        yield _drift(unit, NOT_LOADED, "systemd has loaded an older text than the one on disk", "", reload)
    if edited := _newer(process.edited, process.started):
        what = f"it has run since before {_list(edited)} changed"
        yield _drift(unit, OUTDATED, what, edited[0], again)
    if replaced := tuple(dict.fromkeys((*process.replaced, *_newer(process.scripts, process.started)))):
        what = f"it runs what was replaced on disk: {_list(replaced)}"
        yield _drift(unit, REPLACED, what, replaced[0], again)
    since = max(process.started, process.written) if process.started else 0.0
    if configs := _newer(process.configs, since):
        what = f"its configuration changed since it started: {_list(configs)}"
        yield _drift(unit, CONFIG, what, configs[0], again)


def _newer(times: Iterable[tuple[str, float]], than: float) -> tuple[str, ...]:
    """Return what is newer than a start; nothing is if there was none."""
    return tuple(path for path, when in times if than and when > than)


def _list(paths: tuple[str, ...]) -> str:
    more = len(paths) - _SHOWN
    return ", ".join(paths[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def marks(manifest: Manifest, drifts: Iterable[Drift]) -> dict[str, tuple[str, ...]]:
    """Return the kinds of drift of each unit, by its name; a unit file's are those of all its instances."""
    of_name: dict[str, list[str]] = {}
    for unit in manifest.units:
        for name in dict.fromkeys((unit.name, unit.file)):
            of_name.setdefault(name, []).append(unit.name)
    found: dict[str, dict[str, None]] = {}
    for drift in drifts:
        units = of_name.get(drift.unit)
        if units is None:  # the directory of drop-ins for many units
            units = [unit.name for unit in manifest.units if applies(drift.unit, unit.name)]
        for name in units:
            found.setdefault(name, {})[drift.kind] = None
    return {name: tuple(kinds) for name, kinds in found.items()}


def _links(
    manifest: Manifest, disk: Disk, unit_dir: str, by_name: Mapping[str, ManifestUnit]
) -> Iterable[Drift]:
    scope = " --user" if manifest.scope == "user" else ""
    known = frozenset(manifest.links)
    for link in manifest.links:
        unit = by_name.get(link.rpartition("/")[2])
        is_away = not manifest.unfinished or away(link) in manifest.was
        if link not in disk.links and unit is not None and is_away:
            what = "was disabled: it is not started at boot"
            fix = f"systemctl{scope} enable {unit.name}, or set enabled = false in the file"
            yield _drift(unit, DISABLED, what, f"{unit_dir}/{link}", fix, f"{link} - link")
    foreign = {f"{unit_dir}/{link}": link.rpartition("/")[2] for link in disk.links if link not in known}
    for path, name in {**foreign, **disk.enabled}.items():
        if (unit := by_name.get(name)) is not None:
            by = path.rpartition("/")[0].rpartition("/")[2].rpartition(".")[0]
            what = f"{by} pulls it in, which the file does not ask for"
            yield _drift(unit, ENABLED, what, path, f"remove {path}", f"{path} link -")


def _drift(  # noqa: PLR0917
    unit: ManifestUnit, kind: str, what: str, path: str, fix: str, key: str = "", name: str = ""
) -> Drift:
    return Drift(
        kind, name or unit.name, what, path, fix, unit.service, unit.origin_path, unit.origin_line, key
    )


_EITHER = "apply it with --overwrite-drift to get the file's text back, or with --accept-drift to keep it"


def _edited(unit: ManifestUnit, file: str, path: str, digests: str, generation: int) -> Drift:
    if generation:
        what, kind = f"has the text of generation {generation}", GENERATION
    else:
        what, kind = "was edited", EDITED
    return _drift(unit, kind, what, path, _EITHER, f"{file} {digests}", file)


def _removed(unit: ManifestUnit, file: str, path: str, digests: str) -> Drift:
    return _drift(unit, REMOVED, "was removed", path, _EITHER, f"{file} {digests}", file)


def _masked(unit: ManifestUnit, name: str, path: str, manifest: Manifest) -> Drift:
    scope = " --user" if manifest.scope == "user" else ""
    fix = f"systemctl{scope} unmask {name}, then apply again"
    return _drift(unit, MASKED, "is masked: it cannot be started", path, fix, f"{name} masked -", name)


def _drop_in(unit: ManifestUnit | None, base: str, path: str, digest: str) -> Drift:
    fix = "put what it sets into the file ([services.NAME.systemd.SECTION]) and remove it"
    what = "is changed by a drop-in" if unit is not None else "units are changed by a drop-in"
    key = f"{path} {digest} -"
    if unit is not None:
        return _drift(unit, DROP_IN, what, path, fix, key, base)
    return Drift(DROP_IN, base, what, path, fix, key=key)
