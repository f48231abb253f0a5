"""What forbids an apply: unit files that are not ours, and projects that are applied in another mode.

Owns the refusals of `plan`. Pure. Rule: a unit file without our mark, or with another project's, is never
overwritten, shadowed or removed; the user is told where it is and what to do.
"""

from __future__ import annotations

from sysresp.errors import Problem
from sysresp.model import NOWHERE, Mode
from sysresp.ports import Paths
from sysresp.reconcile.observe import Observed
from sysresp.units.desired import Desired
from sysresp.units.text import owner


def conflicts(desired: Desired, observed: Observed, *, paths: Paths, mode: Mode) -> tuple[Problem, ...]:
    """Return everything for which nothing at all is done, in the order of the user's file."""
    found = _other_mode(desired.project, observed, mode)
    names = {name: (file.origin, file.service, file.text) for name, file in desired.files.items()}
    for unit in desired.units.values():
        names.setdefault(unit.name, (unit.origin, unit.service, ""))
    for name, (origin, service, text) in names.items():
        key = f"services.{service}" if service else "project"
        where = observed.strays.get(name)
        if where is None and mode is not Mode.TRANSIENT:
            old = observed.files.get(name)
            if old is None or old == text:
                continue
            who = owner(old)
            if who == desired.project:
                continue
            where = f"{paths.unit_dir}/{name}"
            if who:
                found.append(Problem(origin, key, f"{where} belongs to the project {who!r}", _RENAME))
                continue
        if where is not None:
            found.append(Problem(origin, key, f"{where} exists, and sysresp did not write it", _FIX))
        elif not _is_known(name, desired, observed):
            what = f"{name} is loaded by systemd, and sysresp did not start it"
            found.append(Problem(origin, key, what, f"stop it (`systemctl stop {name}`) or {_RENAME}"))
    return tuple(sorted(found))


_RENAME = 'rename the service, or give it a unit of its own: unit = "NAME.service"'
_FIX = f"move that file away, or {_RENAME}"


def _is_known(name: str, desired: Desired, observed: Observed) -> bool:
    """Say whether a transient unit of this name, if there is one, is ours: only the manifest can tell."""
    row = observed.units.get(name)
    if (
        row is None
        or row.load_state != "loaded"
        or name not in desired.units
        or not name.endswith(".service")
    ):
        return True
    return observed.manifest is not None and any(unit.name == name for unit in observed.manifest.units)


def _other_mode(project: str, observed: Observed, mode: Mode) -> list[Problem]:
    modes = list(observed.elsewhere)
    if observed.manifest is not None and observed.manifest.mode != mode:
        modes.append(observed.manifest.mode)
    option = {"runtime": " --runtime", "transient": " --transient"}
    return [
        Problem(
            NOWHERE,
            "project",
            f'the project "{project}" is already applied in {other} mode',
            f"apply it in that mode, or take it away first (sysresp down{option.get(other, '')})",
        )
        for other in modes
    ]
