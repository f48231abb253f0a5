"""`history` and `diff`: what was applied, and what differs between two generations.

Owns the two views of the records; changes nothing. The history itself may be read by all, the content of a
generation by its owner only.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from difflib import unified_diff
from typing import NamedTuple

from sysresp.cli import hosts, plan_text, table, terminal
from sysresp.cli.status_table import stamp as instant
from sysresp.cli.words import plural, span
from sysresp.errors import Exit, SysrespError
from sysresp.model import Scope
from sysresp.ports import Host
from sysresp.reconcile import generations
from sysresp.reconcile.generations import Entry, Generation
from sysresp.reconcile.lock import stamp

_COLOURS = {
    generations.OK: terminal.GREEN,
    generations.FAILED: terminal.RED,
    generations.ROLLED_BACK: terminal.RED,
    generations.CUT: terminal.YELLOW,
    generations.APPLYING: terminal.YELLOW,
    generations.ROLLING_BACK: terminal.YELLOW,
    generations.INTERRUPTED: terminal.YELLOW,
}


class Chosen(NamedTuple):
    """One project with its history."""

    project: str
    host: Host
    entries: tuple[Entry, ...]
    at: int  # the host's generation, 0 if the project is not applied


def chosen(project: str, scope: Scope) -> list[Chosen]:
    """Return the projects that have a history; SysrespError (Exit.UNKNOWN) if the one meant has none."""
    found = []
    current = {(one.project, one.mode): one.generation for one in hosts.manifests(scope)}
    for name, mode in hosts.projects(scope):
        if project in {"", name}:
            host = hosts.host(scope, mode)
            entries = generations.history(host.files, host.paths, name)
            found.append(Chosen(name, host, entries, current.get((name, mode.value), 0)))
    if project and not found:
        raise SysrespError(f'there is no history of the project "{project}" here', exit=Exit.UNKNOWN)
    return found


def history(*, project: str, scope: Scope, as_json: bool, colour: bool) -> int:
    """Print the generations of all projects, or of one."""
    found = chosen(project, scope)
    if as_json:
        objects = [as_object(one) for one in found]
        print(json.dumps({"version": 1, "projects": objects}, indent=2))
        return Exit.OK
    on = terminal.has_colour(sys.stdout, wanted=colour)
    if not found:
        print(
            "there is no history here: apply a file first, such as: sysresp apply services.toml",
            file=sys.stderr,
        )
    for one in found:
        if len(found) > 1:
            print(terminal.paint(f"{one.project}:", terminal.BOLD, on=on))
        for line in lines(one, colour=on):
            print(line)
    return Exit.OK


def lines(one: Chosen, *, colour: bool) -> Iterator[str]:
    """Yield a line for each generation, the newest first; the host's own is marked with a star."""
    for entry in reversed(one.entries):
        mark = "*" if entry.number == one.at else " "
        what = entry.command + (f" {entry.restores}" if entry.restores else "")
        taken = f" in {span(entry.ended - entry.when)}" if entry.ended > entry.when else ""
        end = terminal.paint(f"{entry.outcome:<12}", _COLOURS.get(entry.outcome, ""), on=colour)
        head = f"{mark}{entry.number:>4}  {stamp(entry.when)}  {table.clean(entry.who):<10} {what:<12} {end}"
        parts = [plural(entry.services, "service")] if entry.services else []
        parts += [part for part in (entry.summary, entry.why) if part]
        yield f"{head} {table.clean('; '.join(parts))}{taken}".rstrip()


def as_object(one: Chosen) -> dict[str, object]:
    """Return what `history --json` prints of a project."""
    return {
        "project": one.project,
        "generation": one.at or None,
        "generations": [
            {
                **entry._asdict(),
                "when": instant(entry.when),
                "ended": instant(entry.ended or None),
                "why": entry.why or None,
                "restores": entry.restores or None,
            }
            for entry in one.entries
        ],
    }


def diff(numbers: tuple[int, ...], *, project: str, scope: Scope, colour: bool) -> int:
    """Print what differs between two generations: the user's files first, then the units.

    Without a number: what the host's generation changed. With one: from that to the host's.
    """
    found = [one for one in chosen(project, scope) if hosts.can_mean(one.project, project)]
    if len(found) != 1:
        names = ", ".join(one.project for one in found)
        raise SysrespError(
            f"say which project: {names}" if names else "there is no history here",
            hint="--project NAME" if names else "",
            exit=Exit.USAGE if names else Exit.UNKNOWN,
        )
    one = found[0]
    old, new = _pair(one, numbers)
    on = terminal.has_colour(sys.stdout, wanted=colour)
    changed = False
    for line in plan_text.diff(difference(old, new), colour=on):
        print(line)
        changed = True
    if not changed:
        names = f"{old.number if old is not None else 'nothing'} and {new.number}"
        print(f"{one.project}: no difference between {names}", file=sys.stderr)
    return Exit.OK


def _pair(one: Chosen, numbers: tuple[int, ...]) -> tuple[Generation | None, Generation]:
    def load(number: int) -> Generation:
        return generations.load(one.host.files, one.host.paths, one.project, number)

    if len(numbers) == 2:
        return load(numbers[0]), load(numbers[1])
    at = one.at or max((entry.number for entry in one.entries), default=0)
    if numbers:
        return load(numbers[0]), load(at)
    earlier = generations.standing(one.entries, at - 1)
    return (load(earlier) if earlier else None), load(at)


def difference(old: Generation | None, new: Generation) -> Iterator[str]:
    """Yield a unified diff of the user's files and the unit files."""
    empty: Mapping[str, str] = {}
    before = ("nothing" if old is None else f"generation {old.number}", f"generation {new.number}")
    pairs = (
        (empty if old is None else dict(old.texts), dict(new.texts)),
        (
            empty if old is None else {f.name: f.text for f in old.desired.files.values()},
            {f.name: f.text for f in new.desired.files.values()},
        ),
    )
    for was, now in pairs:
        for name in sorted(was.keys() | now.keys()):
            a, b = was.get(name), now.get(name)
            if a != b:
                yield from unified_diff(
                    (a or "").splitlines(),
                    (b or "").splitlines(),
                    "/dev/null" if a is None else f"{name} ({before[0]})",
                    "/dev/null" if b is None else f"{name} ({before[1]})",
                    lineterm="",
                )
