"""The manifest of a project of which everything is as desired, and what changes by it alone.

Owns how `Desired` becomes a `Manifest`, and the words for a change that no unit file shows: what the
controller is told of a unit, and of itself. Pure. Rule: what a manifest says and nothing else does is shown
by the plan like any other change, so that it makes a generation that can be gone back from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from sysresp.model import Mode, Scope
from sysresp.reconcile.decide import digest
from sysresp.reconcile.manifest import Manifest, ManifestUnit
from sysresp.reconcile.steps import Change, Verb
from sysresp.units import alerting
from sysresp.units.desired import Desired
from sysresp.units.supervision import (
    DEFAULT,
    Settings,
    Supervision,
    dumps,
    dumps_settings,
    loads,
    loads_settings,
)

_KEYS = {
    "cooldown_sec": "restart.then",
    "is_native": "restart.max_delay",
    "rest_sec": "restart.delay",
    "probe": "health",
    "keep_bytes": "controller.keep_size",
    "alerts": "alerts",
    "flaps": "controller.flapping",
    "flaps_sec": "controller.flapping_within",
}
"""Fields that are called otherwise in services.toml."""


def manifest_of(desired: Desired, scope: Scope, mode: Mode, source: Sequence[str]) -> Manifest:
    """Return the manifest of a project of which everything is as desired."""
    digests = {name: digest(file.text) for name, file in desired.files.items()}
    files = () if mode is Mode.TRANSIENT else tuple(sorted(desired.files))
    return Manifest(
        project=desired.project,
        scope=scope.value,
        mode=mode.value,
        target=desired.target,
        source=tuple(source),
        units=tuple(
            ManifestUnit(
                *(u.name, u.file, u.service, u.instance, u.main, u.start, u.enabled),
                *(u.origin.path, u.origin.line, digests[u.file]),
            )
            for u in desired.units.values()
        ),
        files=files,
        links=() if mode is Mode.TRANSIENT else tuple(sorted(desired.links)),
        configs=tuple(f"{unit} {path}" for unit, paths in desired.configs.items() for path in paths),
        supervision={unit: dumps(one) for unit, one in desired.supervision.items()},
        controller=dumps_settings(desired.settings),
        alerts=_alerts(desired),
    )


def is_told(manifest: Manifest, desired: Desired) -> bool:
    """Say whether the controller was told the same; an older version told it nothing, which is no change."""
    if manifest.supervision is None:
        return True
    known = {unit.name for unit in manifest.units}
    told = {unit: dumps(one) for unit, one in desired.supervision.items() if unit in known}
    settings, alerts = dumps_settings(desired.settings), _alerts(desired)
    return (manifest.supervision, manifest.controller, manifest.alerts) == (told, settings, alerts)


def _alerts(desired: Desired) -> dict[str, dict[str, Any]]:
    return {name: alerting.dumps(one) for name, one in desired.alerts.items()}


def noted(changes: Sequence[Change], desired: Desired, before: Manifest | None) -> tuple[Change, ...]:
    """Return the changes of a plan, with what the controller is told otherwise than before."""
    if before is None or before.supervision is None or is_told(before, desired):
        return tuple(changes)
    notes: dict[str, list[str]] = {}
    units = {unit.file: unit for unit in desired.units.values()}
    for name in (unit.name for unit in before.units if unit.name in desired.units):
        was = _read(before.supervision.get(name, {}), loads, DEFAULT)
        keys = _keys(was, desired.supervision.get(name, DEFAULT), "restart")
        of_file = notes.setdefault(desired.units[name].file, [])  # once for all instances
        of_file += [key for key in keys if key not in of_file]
    was_set = _read(before.controller, loads_settings, Settings())
    notes.setdefault(desired.target, []).extend(_keys(was_set, desired.settings, "controller"))
    alerts = _alerts(desired)
    names = sorted({*alerts, *before.alerts})
    notes[desired.target] += [f"alerts.{n}" for n in names if alerts.get(n) != before.alerts.get(n)]
    notes = {name: keys for name, keys in notes.items() if keys}
    out = []
    for change in changes:
        keys = notes.pop(change.unit, [])
        out.append(replace(change, reason="; ".join(filter(None, (change.reason, _note(keys))))))
    for file, keys in notes.items():
        unit = units[file]
        out.append(Change(file, (Verb.CHANGE,), _note(keys), unit.origin, unit.service))
    return tuple(out)


def _note(keys: Sequence[str]) -> str:
    return f"the controller is told otherwise: {', '.join(keys)}" if keys else ""


T = TypeVar("T", Supervision, Settings)


def _read(table: Mapping[str, Any], reader: Callable[[dict[str, Any]], T], usual: T) -> T:
    """Return what a manifest says; what an odd one says is as good as nothing."""
    try:
        return reader({**table})
    except (TypeError, ValueError):
        return usual


def _keys(was: Supervision | Settings, will: Supervision | Settings, table: str) -> list[str]:
    """Return the keys of the file whose values differ."""
    pairs = zip(was._fields, was, will, strict=True)
    fields = [name for name, one, other in pairs if one != other]
    plain = (_KEYS.get(name, f"{table}.{name.removesuffix('_sec')}") for name in fields)
    return list(dict.fromkeys(plain))
