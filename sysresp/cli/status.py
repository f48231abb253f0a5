"""`sysresp status`: from manifests and one bulk question to systemd to a table, in 30 ms.

Owns the gathering: which projects there are, what their units are, what systemd says of them. Works for any
user, because manifests and unit properties are readable by all (systemd's D-Bus policy). It has a fast path:
`__main__` calls `fast` before anything else is imported, and only what it does not understand goes to typer.
Rule: nothing imported here, directly or not, may import typer, click, jinja2, rich, tomllib, dataclasses,
inspect, logging, pathlib, subprocess or asyncio; a test counts.
"""

from __future__ import annotations

import os
import sys
import time

from sysresp.cli import remembered, rows, status_table, table, terminal

TYPE_CHECKING = False  # typing itself costs 5 ms to import
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sysresp.ports import Files, Manager
    from sysresp.reconcile.drift import Drift
    from sysresp.reconcile.manifest import Manifest, ManifestUnit

NOT_WELL = 3  # errors.Exit, whose import costs 10 ms


class Asked:
    """What the command line asks for."""

    __slots__ = ("all", "colour", "json", "names", "project", "user")

    def __init__(
        self,
        names: Sequence[str] = (),
        *,
        all: bool = False,
        json: bool = False,
        user: bool = False,
        project: str = "",
    ) -> None:
        self.names = tuple(names)
        self.all = all
        self.json = json
        self.user = user
        self.project = project
        self.colour = True


def parse(arguments: Sequence[str]) -> Asked | None:
    """Return what these arguments of `status` ask for, None for anything that typer must look at."""
    asked = Asked()
    names = []
    rest = iter(arguments)
    for word in rest:
        if word in {"--all", "-a"}:
            asked.all = True
        elif word == "--json":
            asked.json = True
        elif word == "--user":
            asked.user = True
        elif word == "--no-color":
            asked.colour = False
        elif word == "--project":
            asked.project = next(rest, "")
            if not asked.project:
                return None
        elif word.startswith("-") or not word:
            return None
        else:
            names.append(word)
    asked.names = tuple(names)
    return asked


def fast(argv: Sequence[str]) -> int | None:
    """Serve `sysresp status` with simple options; None if this is something else."""
    if len(argv) < 2 or argv[1] != "status" or "_SYSRESP_COMPLETE" in os.environ:
        return None
    asked = parse(argv[2:])
    if asked is None:
        return None
    try:
        status = run(asked)
        sys.stdout.flush()
    except BaseException:  # boundary imports what a good run must not pay for
        from sysresp.cli import boundary  # noqa: PLC0415

        return boundary.guarded(_raise_again(sys.exc_info()[1]))
    return status


def _raise_again(error: BaseException | None) -> Callable[[], int]:
    def call() -> int:
        assert error is not None
        raise error

    return call


def run(asked: Asked) -> int:
    """Print the status, and return the exit status."""
    from sysresp.systemd.files import RealFiles  # noqa: PLC0415 - as late as possible
    from sysresp.systemd.manager import SystemManager  # noqa: PLC0415

    return show(asked, RealFiles(), SystemManager(user=asked.user))


def show(asked: Asked, files: Files, manager: Manager) -> int:
    """Print the status of what these ports see, and return the exit status."""
    from sysresp.reconcile.names import select  # noqa: PLC0415

    now = remembered.Now(time.time(), time.clock_gettime(time.CLOCK_MONOTONIC))
    owned = manifests(files, asked, os.environ)
    if asked.project and not owned:
        raise _not_applied(asked.project)
    chosen = [
        row
        for manifest, units in select(owned, asked.names)
        for row in look(manifest, units, manager, now.epoch(0.0))
    ]
    known = remembered.memories("user" if asked.user else "system", os.environ)
    remembered.remember(chosen, known, now)
    others = [line for manifest in owned for line in mark(chosen, manifest, files, os.environ)]
    if lost := remembered.gave_up("user" if asked.user else "system", os.environ):
        others.append(f"{lost} (see: sysresp controller status{' --user' if asked.user else ''})")
    out = sys.stdout
    if asked.json:
        import json  # noqa: PLC0415

        out.write(json.dumps(status_table.as_objects(chosen), indent=2) + "\n")
    elif chosen:
        shown = chosen if asked.all else rows.fold(chosen, frozenset(asked.names))
        out.write(
            status_table.render(
                shown,
                time.time(),
                terminal.width(out),
                colour=terminal.has_colour(out, wanted=asked.colour),
                mark=terminal.cut_mark(out),
            )
        )
        for line in () if asked.names else others:
            out.write(f"{table.clean(line)}\n")
    else:
        whose = "you have no services here" if asked.user else "there are no services here"
        sys.stderr.write(f"{whose}: apply a file first, such as: sysresp apply services.toml\n")
    return 0 if all(row.well for row in chosen) else NOT_WELL


def _not_applied(project: str) -> Exception:
    from sysresp.errors import Exit, SysrespError  # noqa: PLC0415 - only a failure pays for it

    return SysrespError(
        f'the project "{project}" is not applied here',
        hint="apply a file first, such as: sysresp apply services.toml",
        exit=Exit.UNKNOWN,
    )


def manifests(files: Files, asked: Asked, env: Mapping[str, str]) -> list[Manifest]:
    """Return the manifests of all projects that were asked for, persistent ones first."""
    from sysresp.reconcile import layout, manifest  # noqa: PLC0415

    scope = "user" if asked.user else "system"
    found = [one for where in layout.state_dirs(scope, env) for one in manifest.all_manifests(files, where)]
    return [one for one in found if asked.project in {"", one.project}]


def mark(chosen: Iterable[rows.Row], manifest: Manifest, files: Files, env: Mapping[str, str]) -> list[str]:
    """Mark the rows of a project that have drifted, and return a line for each unit that has no row."""
    from sysresp.reconcile import drift  # noqa: PLC0415 - as late as possible

    marks = drift.marks(manifest, drift_of(manifest, files, env))
    by_row: dict[tuple[str, str], list[str]] = {}
    others = []
    for unit in manifest.units if marks else ():
        if unit.name in marks and unit.service:
            by_row.setdefault((unit.service, unit.instance), []).extend(marks[unit.name])
        elif unit.name in marks:
            others.append(f"{unit.name}: {', '.join(marks[unit.name])} (see: sysresp drift)")
    for row in chosen:
        if row.project == manifest.project and row.mode == manifest.mode:
            service, instance = row.observed.service, row.observed.instance
            kinds = (*by_row.get((service, instance), ()), *by_row.get((service, ""), ()))
            row.generation, row.drift = manifest.generation, tuple(dict.fromkeys(kinds))
    return others


def drift_of(manifest: Manifest, files: Files, env: Mapping[str, str]) -> list[Drift]:
    """Return the drift of a project on the disk, and what the last apply owes: 25 ms for 1,000 services.

    What needs a call for each unit is left to `sysresp drift`.
    """
    from sysresp.reconcile import disk, drift, layout  # noqa: PLC0415 - as late as possible

    places = layout.paths(manifest.scope, manifest.mode, env)
    ours = frozenset(manifest.files)
    names = ours | {unit.name for unit in manifest.units}
    written = ours if manifest.unfinished else frozenset()
    wanted = disk.Wanted(names, frozenset(manifest.links), manifest.target, "", written)
    seen = disk.look(files, places, wanted, lenient=True)
    digests = {name: disk.digest_of(content) for name, content in seen.contents.items() if name in ours}
    found = (*drift.of_disk(manifest, digests, seen, places.unit_dir), *drift.of_processes(manifest, ()))
    return [one for one in found if not drift.is_accepted(manifest, one)]


def look(
    manifest: Manifest, units: Iterable[ManifestUnit], manager: Manager, boot_time: float
) -> list[rows.Row]:
    """Return the rows of one project: one question for all units, then few properties where they matter."""
    from sysresp.ports import Question  # noqa: PLC0415 - as late as possible

    owned = [unit for unit in units if unit.service]
    states = {state.name: state for state in manager.units_by_name([unit.name for unit in owned])}
    seen = []
    questions = []
    for unit in owned:
        one = rows.Observed(unit.name, unit.service, unit.instance, unit.start, unit.main)
        state = states.get(unit.name)
        if state is not None:
            one.load, one.active, one.sub = state.load_state, state.active_state, state.sub_state
            one.job = state.job_type if state.job_id else ""
        seen.append(one)
        questions += [(one, Question(unit.name, *wanted)) for wanted in rows.wanted_facts(one)]
    answers = manager.many_properties([question for _, question in questions])
    for (one, _), facts in zip(questions, answers, strict=True):
        one.facts = {**one.facts, **facts}
    found = rows.rows(manifest.project, seen, boot_time)
    for row in found:
        row.scope, row.mode = manifest.scope, manifest.mode
    return found
