"""`sysresp drift`: where the host is no longer as the last apply left it.

Owns the order: which projects, what is looked at, then print. Changes nothing, and works for any user; what
only root may see is told to be left out. Exit status 3 if there is drift, as `status` has it for services
that are not well.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sysresp.cli import drift_text, hosts, terminal
from sysresp.cli.words import plural
from sysresp.errors import Exit, SysrespError
from sysresp.model import Mode, Scope
from sysresp.reconcile.drift import Drift, marks
from sysresp.reconcile.inspect import inspect
from sysresp.reconcile.manifest import Manifest, ManifestUnit
from sysresp.reconcile.names import select


class Found(NamedTuple):
    """What was found in one project."""

    manifest: Manifest
    units: int
    drift: tuple[Drift, ...]
    accepted: tuple[Drift, ...]
    unread: tuple[str, ...]


def run(names: Sequence[str], *, project: str, scope: Scope, as_json: bool, colour: bool) -> int:
    """Print the drift of services, or of all that is applied."""
    owned = hosts.manifests(scope, project)
    if project and not owned:
        raise SysrespError(
            f'the project "{project}" is not applied here',
            hint="apply a file first, such as: sysresp apply services.toml",
            exit=Exit.UNKNOWN,
        )
    found = [_look(one, units, scope, whole=not names) for one, units in select(owned, names)]
    if as_json:
        print(json.dumps({"version": 1, "projects": [_object(one) for one in found]}, indent=2))
    else:
        _show(found, scope, colour)
    return Exit.NOT_WELL if any(one.drift for one in found) else Exit.OK


def _look(manifest: Manifest, units: Sequence[ManifestUnit], scope: Scope, *, whole: bool) -> Found:
    seen = inspect(hosts.host(scope, Mode(manifest.mode)), manifest)
    names = {unit.name for unit in units}

    def chosen(found: Sequence[Drift]) -> tuple[Drift, ...]:
        return tuple(d for d in found if whole or not names.isdisjoint(marks(manifest, [d])))

    return Found(manifest, len(units), chosen(seen.drift), chosen(seen.accepted), seen.unread)


def _show(found: Sequence[Found], scope: Scope, colour: bool) -> None:
    on = terminal.has_colour(sys.stdout, wanted=colour)
    for one in found:
        if len(found) > 1:
            print(terminal.paint(f"{one.manifest.project}:", terminal.BOLD, on=on))
        for line in drift_text.lines(one.drift, colour=on):
            print(line)
        kept = f", {len(one.accepted)} accepted" if one.accepted else ""
        if one.drift:
            print(f"drift: {drift_text.summary(one.drift)}{kept}")
        else:
            whose = (
                f"{plural(one.units, 'unit')} as the last apply left {'it' if one.units == 1 else 'them'}"
            )
            print(f"no drift: {whose}{kept}")
    if not found:
        print("there is nothing applied here", file=sys.stderr)
    for line in left_out(found, scope, os.geteuid()):
        print(f"left out: {line}", file=sys.stderr)


def left_out(found: Sequence[Found], scope: Scope, uid: int) -> Iterator[str]:
    """Yield what this caller may not look at."""
    unread = [name for one in found for name in one.unread]
    if unread:
        yield f"{', '.join(unread)}, which you may not read"
    if found and scope is Scope.SYSTEM and uid:
        yield "replaced programs, diffs and earlier generations, which only root may see"


def _object(one: Found) -> dict[str, object]:
    return {
        "project": one.manifest.project,
        "mode": one.manifest.mode,
        "generation": one.manifest.generation or None,
        "drift": drift_text.as_objects(one.drift),
        "accepted": drift_text.as_objects(one.accepted),
        "unread": list(one.unread),
    }
