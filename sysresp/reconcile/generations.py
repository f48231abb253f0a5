"""What a project was, is and may be again: its generations, on disk.

Owns STATE/generations/PROJECT: `history.json`, the list of what was applied when, by whom and with what end
(0644, a line for each generation), and `N.json`, the content of generation N: the user's files, every unit's
text, links and policies (0600: the user's file may be private; written once, before the first change, and
never again). The history is the truth about outcomes, the record about content, the manifest about which
generation the host is at. Never decides and never acts: `converge` writes these through the plan's steps.
Rule: a generation is offered for a rollback only if its record can be read back to the same `Desired`.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple

from sysresp.errors import Exit, SysrespError
from sysresp.model import Mode, Origin, Rollout, Scope
from sysresp.ports import Files, Paths
from sysresp.reconcile.lock import stamp
from sysresp.units import alerting, supervision
from sysresp.units.desired import Desired, Policy, Unit, UnitFile
from sysresp.units.supervise import of_text

FORMAT: Final = 1
"""Raised when an older sysresp could not use the files."""

# Ends of a generation; part of `history --json`, never renamed.
APPLYING: Final = "applying"  # it is being applied, or that was cut (killed, power gone)
ROLLING_BACK: Final = "rolling back"  # it failed, and the one before it is being put back (or that was cut)
OK: Final = "ok"
FAILED: Final = "failed"  # units failed, and it was left as it is
ROLLED_BACK: Final = "rolled back"  # units failed, and the one before it is back
INTERRUPTED: Final = "interrupted"  # Ctrl-C, or a connection lost, when it had begun
CUT: Final = "cut"  # it was found half-done, and another one was applied over it
DOWN: Final = "down"  # not a generation: the project was taken away here

STANDS: Final = frozenset({OK, FAILED})
"""Ends after which the host is what the generation says."""
OPEN: Final = frozenset({APPLYING, ROLLING_BACK, INTERRUPTED})
"""Ends after which something may be left to do."""


class Entry(NamedTuple):
    """One line of the history."""

    number: int
    when: float  # seconds since the epoch: it began
    who: str = ""
    command: str = ""  # "apply", "rollback", ...
    outcome: str = APPLYING
    why: str = ""  # of an end that is not OK
    summary: str = ""  # "3 created, 1 restarted"
    restores: int = 0  # the generation of which this one is a copy
    services: int = 0
    mode: str = "persistent"
    ended: float = 0.0  # seconds since the epoch; 0: it has not


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """The content of a generation."""

    number: int
    desired: Desired
    mode: Mode = Mode.PERSISTENT
    scope: Scope = Scope.SYSTEM
    source: tuple[str, ...] = ()  # paths of the user's files
    texts: tuple[tuple[str, str], ...] = ()  # (path, content) of each of them
    stopped: tuple[str, ...] = ()  # units that the administrator had stopped when it began
    failed: tuple[str, ...] = ()  # units that had failed when it began


def directory(paths: Paths, project: str) -> str:
    """Return where the generations of this project are."""
    return f"{paths.state_dir}/generations/{project}"


def history_path(paths: Paths, project: str) -> str:
    """Return the path of the project's history."""
    return f"{directory(paths, project)}/history.json"


def record_path(paths: Paths, project: str, number: int) -> str:
    """Return the path of one generation's record."""
    return f"{directory(paths, project)}/{number}.json"


def history(files: Files, paths: Paths, project: str) -> tuple[Entry, ...]:
    """Return the project's history, oldest first; () if it has none; SysrespError if it is damaged."""
    where = history_path(paths, project)
    content = files.read(where)
    if not content:  # an empty file is what a power cut leaves of a new one
        return ()
    try:
        raw = json.loads(content)
        _check_format(raw)
        known = Entry._fields
        return tuple(Entry(**{k: v for k, v in one.items() if k in known}) for one in raw["generations"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unusable(where, error, "move it away; the history begins anew") from error


def dumps_history(entries: Iterable[Entry]) -> bytes:
    """Return the content of history.json, a line for each generation."""
    lines = ",\n".join(json.dumps(entry._asdict()) for entry in entries)
    return f'{{"format": {FORMAT},\n"generations": [\n{lines}\n]}}\n'.encode()


def write_history(files: Files, paths: Paths, project: str, entries: Sequence[Entry]) -> None:
    """Write the history when all else was done; SysrespError if that cannot be."""
    where = history_path(paths, project)
    try:
        files.write(where, dumps_history(entries), durable=True)
    except OSError as error:
        raise SysrespError(
            f"cannot write {where}: {error.strerror}",
            hint="all else was done; run the same command again when that is mended",
        ) from error


def with_entry(entries: Sequence[Entry], entry: Entry) -> tuple[Entry, ...]:
    """Return the history with this entry in the place of the one of its number, or at the end."""
    others = [one for one in entries if one.number != entry.number]
    return tuple(sorted([*others, entry], key=lambda one: one.number))


def load(files: Files, paths: Paths, project: str, number: int) -> Generation:
    """Return one generation; SysrespError (Exit.UNKNOWN) if there is none of this number."""
    where = record_path(paths, project, number)
    content = files.read(where)
    if content is None:
        raise SysrespError(
            f'the project "{project}" has no generation {number}',
            hint="see which there are: sysresp history",
            exit=Exit.UNKNOWN,
        )
    try:
        return loads(json.loads(content))
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise _unusable(where, error, "choose another generation: sysresp history") from error


def dumps(generation: Generation) -> bytes:
    """Return the content of a generation's record."""
    desired = generation.desired
    fields: dict[str, Any] = {
        "format": FORMAT,
        "number": generation.number,
        "project": desired.project,
        "mode": generation.mode.value,
        "scope": generation.scope.value,
        "source": generation.source,
        "texts": generation.texts,
        "stopped": generation.stopped,
        "failed": generation.failed,
        "target": desired.target,
        "needs_prober": desired.needs_prober,
        "keep_generations": desired.keep_generations,
        "configs": dict(desired.configs),
        "links": dict(desired.links),
        "supervision": {name: supervision.dumps(one) for name, one in desired.supervision.items()},
        "controller": supervision.dumps_settings(desired.settings),
        "alerts": {name: alerting.dumps(one) for name, one in desired.alerts.items()},
        "policies": {name: asdict(policy) for name, policy in desired.policies.items()},
        "files": [(f.name, f.text, f.origin.path, f.origin.line, f.service) for f in desired.files.values()],
        "units": [
            (u.name, u.file, u.service, u.instance, u.start, u.enabled, u.main, u.origin.path, u.origin.line)
            for u in desired.units.values()
        ],
    }
    return (json.dumps(fields) + "\n").encode()


def loads(raw: Any) -> Generation:
    """Return the generation in this value of JSON.

    ValueError, KeyError, TypeError or IndexError if it is none.
    """
    _check_format(raw)
    files = [UnitFile(name, text, Origin(p, n), service) for name, text, p, n, service in raw["files"]]
    units = [
        Unit(name, file, service, instance, start, enabled, main, Origin(p, n))
        for name, file, service, instance, start, enabled, main, p, n in raw["units"]
    ]
    desired = Desired(
        project=raw["project"],
        target=raw["target"],
        files={file.name: file for file in files},
        units={unit.name: unit for unit in units},
        links=raw["links"],
        needs_prober=raw["needs_prober"],
        policies={name: _policy(one) for name, one in raw["policies"].items()},
        keep_generations=raw["keep_generations"],
        configs={unit: tuple(paths) for unit, paths in raw.get("configs", {}).items()},
        supervision=_supervision(raw, units),
        settings=supervision.loads_settings(raw.get("controller", {})),
        alerts={name: alerting.loads(one) for name, one in raw.get("alerts", {}).items()},
    )
    return Generation(
        number=raw["number"],
        desired=desired,
        mode=Mode(raw["mode"]),
        scope=Scope(raw["scope"]),
        source=tuple(raw["source"]),
        texts=tuple((path, text) for path, text in raw["texts"]),
        stopped=tuple(raw["stopped"]),
        failed=tuple(raw["failed"]),
    )


def _supervision(raw: Any, units: Iterable[Unit]) -> dict[str, supervision.Supervision]:
    """Return what the record says; one of an older version says it in the texts of its units alone."""
    if "supervision" in raw:
        return {unit: supervision.loads(one) for unit, one in raw["supervision"].items()}
    texts = {name: text for name, text, *_ in raw["files"]}
    services = (unit for unit in units if unit.main and unit.name.endswith(".service"))
    found = {unit.name: of_text(texts[unit.file]) for unit in services}
    return {unit: one for unit, one in found.items() if one != supervision.DEFAULT}


def _policy(raw: dict[str, Any]) -> Policy:
    return Policy(**{**raw, "rollout": Rollout(**raw["rollout"])})


def standing(entries: Sequence[Entry], at: int) -> int:
    """Return what to go back to while the host is at `at`: that if it stands, else the last that did.

    0 if there is none: nothing was applied, or the project was taken away since.
    """
    for entry in reversed(entries):
        if entry.outcome == DOWN:
            return 0
        if entry.number <= at and entry.outcome in STANDS:
            return entry.number
    return 0


def before(entries: Sequence[Entry], at: int) -> int:
    """Return the generation that `rollback` without a number means, 0 if there is none.

    The last good one before the host's; where that is itself a copy, the one before its original, so that
    each rollback goes one step further back. After one that was cut before it changed anything, or while it
    was put back, that is the host's own.
    """
    if at and entries and entries[-1].outcome in OPEN and entries[-1].number > at:
        return standing(entries, at)
    current = next((entry for entry in entries if entry.number == at), None)
    edge = (current.restores or at) if current is not None else at
    older = [entry for entry in entries if entry.number < edge]
    if current is None:  # taken away: the last one that stood
        older = list(entries)
    for ends in ({OK}, {FAILED}):
        for entry in reversed(older):
            if entry.outcome in ends:
                return entry.number
    return 0


def outdated(entries: Sequence[Entry], keep: int, needed: Container[int]) -> tuple[Entry, ...]:
    """Return the generations that the keep policy lets go: all but the newest `keep` and the needed ones."""
    return tuple(entry for entry in entries[:-keep] if entry.number not in needed)


def strays(files: Files, paths: Paths, project: str, entries: Sequence[Entry]) -> tuple[str, ...]:
    """Return the paths of the records that no line of the history has, or has any more."""
    known = {f"{entry.number}.json" for entry in entries} | {"history.json"}
    where = directory(paths, project)
    return tuple(f"{where}/{name}" for name in files.listdir(where) if name not in known)


def marked(entry: Entry, outcome: str, now: float, *, why: str = "", summary: str = "") -> Entry:
    """Return the entry with its end."""
    return entry._replace(outcome=outcome, ended=now, why=why, summary=summary or entry.summary)


def closed(entries: Iterable[Entry], at: int, now: float) -> tuple[Entry, ...]:
    """Return the history with an end for each that was cut, when all is as generation `at` says."""

    def close(entry: Entry) -> Entry:
        if entry.outcome not in OPEN or entry.number == at:
            return entry
        is_back = entry.outcome == ROLLING_BACK and at < entry.number
        return marked(entry, ROLLED_BACK if is_back else CUT, now, why=entry.why)

    return tuple(close(entry) for entry in entries)


def left_behind(entries: Sequence[Entry], at: int) -> tuple[str, ...]:
    """Return what there is to say of an earlier run that did not end; `at` is the host's generation."""
    last = entries[-1] if entries else None
    if last is None or last.outcome not in OPEN:
        return ()
    whose = f"the {last.command} of generation {last.number} by {last.who}, begun {stamp(last.when)},"
    if last.outcome == INTERRUPTED:
        return (f"{whose} was interrupted; going on from there",)
    if last.outcome == ROLLING_BACK:
        return (f"{whose} failed, and its rollback was cut; going on from there",)
    if at != last.number:
        return (f"{whose} was cut before it changed anything",)
    return (f"{whose} was cut; going on from there",)


def _check_format(raw: Any) -> None:
    if raw["format"] > FORMAT:
        raise ValueError(f"it was written by a newer sysresp, format {raw['format']}")


def _unusable(where: str, error: Exception, hint: str) -> SysrespError:
    return SysrespError(f"{where}: cannot use this file: {error} ({type(error).__name__})", hint=hint)
