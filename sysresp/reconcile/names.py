"""From the names a person types to the units a project owns.

Owns how `web`, `web@2` and `shop-web@2.service` are understood. Pure. Rule: an unknown name is an error that
offers the nearest ones, never an empty selection.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sysresp.reconcile.manifest import Manifest, ManifestUnit


def matches(unit: ManifestUnit, name: str) -> bool:
    """Say whether this name (service, service@instance, or a unit's whole name) means the unit."""
    if unit.name == name:
        return True
    service, at, instance = name.partition("@")
    return bool(unit.service) and unit.service == service and (not at or unit.instance == instance)


def select(
    manifests: Iterable[Manifest], names: Sequence[str]
) -> list[tuple[Manifest, tuple[ManifestUnit, ...]]]:
    """Return the units that the names mean, by project; all units if there are no names."""
    manifests = list(manifests)
    if not names:
        return [(manifest, manifest.units) for manifest in manifests]
    unknown = [n for n in names if not any(matches(u, n) for m in manifests for u in m.units)]
    if unknown:
        raise _unknown(unknown, manifests)
    found = []
    for manifest in manifests:
        units = tuple(unit for unit in manifest.units if any(matches(unit, name) for name in names))
        if units:
            found.append((manifest, units))
    return found


def _unknown(names: Sequence[str], manifests: Sequence[Manifest]) -> Exception:
    from difflib import get_close_matches  # noqa: PLC0415 (not needed when all goes well)

    from sysresp.errors import Exit, SysrespError  # noqa: PLC0415 (keeps `status` from importing model)

    known = sorted({unit.service for manifest in manifests for unit in manifest.units} - {""})
    near = get_close_matches(names[0].partition("@")[0], known, n=3)
    if near:
        hint = f"did you mean {', '.join(near)}?"
    else:
        hint = f"known: {', '.join(known[:20])}" if known else "nothing is applied here"
    listed = ", ".join(f'"{name}"' for name in names)
    return SysrespError(f"no service or unit of the name {listed}", hint=hint, exit=Exit.UNKNOWN)
