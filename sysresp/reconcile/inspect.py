"""Looking for drift: the questions that `plan` and `status` do not ask, because each costs a call.

Owns the reading for `sysresp drift`: the disk, what systemd has loaded of each unit, which process it runs
since when, which files of that were replaced, and the records of generations to compare an edited file with.
What is drift is decided in `sysresp.reconcile.drift`. Changes nothing and makes systemd load nothing. Rule:
what the caller may not look at is no drift, and is told to have been left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple

from sysresp.errors import SysrespError
from sysresp.ports import FileStat, Host, Question, UnitState
from sysresp.reconcile import generations
from sysresp.reconcile.decide import RUNNING
from sysresp.reconcile.disk import Disk, Wanted, applies, digest_of, look
from sysresp.reconcile.drift import EDITED, GENERATION, TEXT, Drift, Process, of_disk, of_processes
from sysresp.reconcile.manifest import Manifest, ManifestUnit, patterns
from sysresp.units.text import owner

PROGRAMS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
"""Where systemd looks for a program without a directory (systemd.exec(5), ExecSearchPath=)."""

_SCRIPT = 1 << 20  # bytes: what is larger is no script, and its replacement shows in /proc
_DEPTH = 10  # of directories named in config_files; a link may point to a directory above it


class Inspection(NamedTuple):
    """What was found."""

    drift: tuple[Drift, ...]  # all that is not accepted
    accepted: tuple[Drift, ...]
    unread: tuple[str, ...]  # what the caller may not look at


def inspect(host: Host, manifest: Manifest) -> Inspection:
    """Look at everything that a project owns."""
    names = (
        frozenset(manifest.files) | {unit.name for unit in manifest.units} | {u.file for u in manifest.units}
    )
    written = frozenset(manifest.files) if manifest.unfinished else frozenset()
    wanted = Wanted(names, frozenset(manifest.links), manifest.target, f"{manifest.project}-", written)
    disk = look(host.files, host.paths, wanted, lenient=True)
    found = [*_of_disk(host, manifest, disk)]
    rows = {row.name: row for row in host.manager.units(patterns(manifest.project, names))}
    looks = _Looks(host, manifest, disk, found)
    found += of_processes(manifest, looks.processes(manifest, rows))
    order = {unit.name: number for number, unit in reversed([*enumerate(manifest.units)])}
    order |= {unit.file: order[unit.name] for unit in reversed(manifest.units)}
    found.sort(key=lambda drift: order.get(drift.unit, len(order)))
    accepted = tuple(d for d in found if d.key and d.key in manifest.accepted)
    return Inspection(
        drift=tuple(d for d in found if d not in accepted),
        accepted=accepted,
        unread=tuple(sorted(disk.unread)),
    )


def _of_disk(host: Host, manifest: Manifest, disk: Disk) -> Iterator[Drift]:
    """Yield the drift on disk, with both texts and the generation of an edited file where they are known."""
    ours = frozenset(manifest.files)
    texts = {name: content.decode(errors="surrogateescape") for name, content in disk.contents.items()}
    digests = {
        name: digest_of(content)
        for name, content in disk.contents.items()
        if name in ours or owner(texts[name]) == manifest.project
    }
    found = of_disk(manifest, digests, disk, host.paths.unit_dir)
    if not any(drift.kind in TEXT for drift in found):
        yield from found
        return
    earlier: dict[tuple[str, str], int] = {}
    now: Mapping[str, str] = {}
    edited = {drift.unit: digests[drift.unit] for drift in found if drift.kind == EDITED}
    for number, record in _records(host, manifest.project):
        if number == manifest.generation:
            now = record
        for name, digest in edited.items():
            if name in record and digest_of(record[name].encode(errors="surrogateescape")) == digest:
                earlier[name, digest] = number
    for drift in of_disk(manifest, digests, disk, host.paths.unit_dir, earlier=earlier):
        if drift.kind in TEXT:
            yield drift._replace(before=now.get(drift.unit), after=texts.get(drift.unit))
        else:
            yield drift


def _records(host: Host, project: str) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Yield the unit texts of each generation that may be read, the oldest first."""
    with suppress(SysrespError, OSError):  # without a history that can be used there is nothing to compare
        for entry in generations.history(host.files, host.paths, project):
            with suppress(SysrespError, OSError):
                record = generations.load(host.files, host.paths, project, entry.number)
                yield entry.number, {file.name: file.text for file in record.desired.files.values()}


class _Asked(NamedTuple):
    """What is asked about one unit, and what is known already."""

    unit: ManifestUnit
    questions: tuple[Question, ...]
    changed: tuple[tuple[str, float], ...]  # unit files and drop-ins of others, and when they were put there
    scripts: tuple[str, ...] | None  # that it runs; None: by what systemd says


class _Looks:
    """Looks at processes, and when the files were written that they have read."""

    def __init__(self, host: Host, manifest: Manifest, disk: Disk, found: list[Drift]) -> None:
        self.host = host
        self.disk = disk
        self.edited = {drift.unit: drift.path for drift in found if drift.kind in {EDITED, GENERATION}}
        self.configs: dict[str, list[str]] = {}
        for line in manifest.configs:
            unit, _, path = line.partition(" ")
            self.configs.setdefault(unit, []).append(path)
        self._stats: dict[str, FileStat | None] = {}
        self._scripts: dict[str, bool] = {}

    def processes(self, manifest: Manifest, rows: Mapping[str, UnitState]) -> list[Process]:
        """Return what is known of each loaded unit: all is asked at once, and no more than is compared."""
        asked = [
            self._ask(unit, rows[unit.name].active_state in RUNNING)
            for unit in manifest.units
            if unit.name in rows and rows[unit.name].load_state != "not-found"
        ]
        answers = iter(self.host.manager.many_properties([q for one in asked for q in one.questions]))
        return [
            self._process(one, dict(p for _ in one.questions for p in next(answers).items()))
            for one in asked
        ]

    def _ask(self, unit: ManifestUnit, is_up: bool) -> _Asked:
        """Return what has to be asked of a unit."""
        is_service = unit.name.endswith(".service")
        changed = self._changed(unit)
        programs = self._programs(unit) if not changed else None
        scripts = [path for path in programs or () if self._is_script(path)]
        names, own_names = ["NeedDaemonReload"], []
        if is_up and is_service:
            own_names = ["MainPID", *(["ExecStart"] if programs is None else [])]
            if changed or scripts or programs is None or unit.name in self.configs:
                own_names.append("ExecMainStartTimestamp")
        elif is_up and changed:
            names.append("ActiveEnterTimestamp")
        questions = [Question(unit.name, "Unit", tuple(names))]
        questions += [Question(unit.name, "Service", tuple(own_names))] if own_names else []
        return _Asked(unit, tuple(questions), changed, None if programs is None else tuple(scripts))

    def _process(self, asked: _Asked, facts: Mapping[str, object]) -> Process:
        unit, scripts = asked.unit, asked.scripts
        if scripts is None:
            scripts = tuple(path for path in _started(facts.get("ExecStart")) if self._is_script(path))
        is_service = unit.name.endswith(".service")
        pid = _number(facts, "MainPID")
        stamp = "ExecMainStartTimestamp" if is_service else "ActiveEnterTimestamp"
        configs = self.configs.get(unit.name, ())
        own = self._stat(f"{self.host.paths.unit_dir}/{unit.file}") if configs else None
        return Process(
            unit=unit.name,
            needs_reload=facts.get("NeedDaemonReload") is True,
            pid=pid,
            started=_number(facts, stamp) / 1e6 if pid or not is_service else 0.0,
            replaced=tuple(self.host.processes.replaced(pid)) if pid else (),
            edited=asked.changed,
            scripts=tuple((path, stat.ctime) for path in scripts if (stat := self._stat(path)) is not None),
            configs=tuple((path, when) for top in configs for path, when in self._below(top)),
            written=own.mtime if own is not None else 0.0,
        )

    def _programs(self, unit: ManifestUnit) -> list[str] | None:
        """Return what ExecStart= names by its unit file; None if only systemd can tell."""
        found = []
        for line in self.disk.contents.get(unit.file, b"ExecStart=?").splitlines():
            if line.startswith(b"ExecStart="):
                word = line.removeprefix(b"ExecStart=").lstrip(b"@-:+!|").partition(b" ")[0]
                if not word.startswith(b"/") or any(mark in word for mark in b"\"'\\%$"):
                    return None
                found.append(word.decode(errors="surrogateescape"))
        return found

    def _changed(self, unit: ManifestUnit) -> tuple[tuple[str, float], ...]:
        """Return what others wrote that concerns the unit, and when it was put there."""
        paths = [self.edited[unit.file]] if unit.file in self.edited else []
        for path in self.disk.drop_ins:
            base = path.rpartition("/")[0].rpartition("/")[2].removesuffix(".d")
            if applies(base, unit.name) or applies(base, unit.file):
                paths.append(path)
        return tuple((path, stat.ctime) for path in paths if (stat := self._stat(path)) is not None)

    def _is_script(self, path: str) -> bool:
        """Say whether it is one: that a script was replaced does not show in what its process maps."""
        if path not in self._scripts:
            stat = self._stat(path)
            self._scripts[path] = False
            if stat is not None and stat.size < _SCRIPT:
                with suppress(OSError):
                    self._scripts[path] = (self.host.files.read(path) or b"").startswith(b"#!")
        return self._scripts[path]

    def _below(self, path: str, depth: int = 0) -> Iterator[tuple[str, float]]:
        stat = self._stat(path)
        if stat is None:
            return
        yield path, stat.ctime
        if depth < _DEPTH:
            with suppress(OSError):
                for name in self.host.files.listdir(path):
                    yield from self._below(f"{path}/{name}", depth + 1)

    def _stat(self, path: str) -> FileStat | None:
        if path not in self._stats:
            self._stats[path] = None
            with suppress(OSError):
                self._stats[path] = self.host.files.stat(path)
        return self._stats[path]


def _started(commands: object) -> Iterator[str]:
    """Yield where each program of ExecStart= (a property) is or may be."""
    for command in commands if isinstance(commands, list) else ():
        program = str(command[0]) if isinstance(command, list | tuple) and command else ""
        if "/" in program:
            yield program
        elif program:
            yield from (f"{directory}/{program}" for directory in PROGRAMS)


def _number(facts: Mapping[str, object], name: str) -> int:
    value = facts.get(name)
    return value if isinstance(value, int) else 0
