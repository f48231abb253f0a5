"""What a project owns on the host, as one small JSON file for each project.

Owns the format of STATE/PROJECT.json. It is written before the first change of an apply, with everything
that is to be done and with everything that is to go, and again at its end: whatever happens in between, the
next run knows what is ours and what is still owed. No secrets in it: anybody may read it (0644).
Rule: this module stays cheap to import, because `sysresp status` waits for it: no dataclasses, no enums,
and the error class only when there is an error. Unknown fields are left aside, so that an older sysresp can
read what a newer one wrote; `format` is raised only when that would be wrong.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sysresp.ports import Files

FORMAT = 1
"""Raised when an older sysresp could not use the file."""


class ManifestUnit(NamedTuple):
    """One unit that the project owns."""

    name: str  # "shop-web@1.service"
    file: str  # "shop-web@.service"
    service: str  # entry of services.toml; "" for the slice and the target
    instance: str
    main: bool  # the .service that a person means by the service's name
    start: bool  # apply starts it
    enabled: bool  # the project's target pulls it in
    origin_path: str
    origin_line: int
    digest: str  # sha256 of the unit file's text


class Manifest(NamedTuple):
    """Everything that one project owns, and what the last apply still owes it."""

    project: str
    scope: str = "system"  # system | user
    mode: str = "persistent"  # persistent | runtime | transient
    target: str = ""
    source: tuple[str, ...] = ()  # the files that were applied
    units: tuple[ManifestUnit, ...] = ()  # in an order in which starting works
    files: tuple[str, ...] = ()  # names in the unit directory
    links: tuple[str, ...] = ()  # below the unit directory: "shop.target.wants/shop-web.service"
    pending: tuple[str, ...] = ()  # units whose start was intended and not yet confirmed
    restarts: tuple[str, ...] = ()  # running units that must yet be restarted to run what their file says
    reloads: tuple[str, ...] = ()  # ... reloaded
    unfinished: bool = False  # an apply was cut while it wrote files: links may be missing, reload is owed
    generation: int = 0  # the number of the generation that this is; 0: applied before there were any
    runs: tuple[str, ...] = ()  # "UNIT DIGEST INVOCATION" of each in `restarts`: what it runs until then
    # How things were before an apply that is not finished, which is no drift: digests of unit files, and
    # "LINK -" for a link that was away.
    was: tuple[str, ...] = ()
    accepted: tuple[str, ...] = ()  # drift that may stay, as `Drift.key` has it
    configs: tuple[str, ...] = ()  # "UNIT PATH" of each of its config_files
    # What the controller is told, as sysresp.units.supervision reads it. By unit, where it is not the usual;
    # None: by a version that told it nothing.
    supervision: Mapping[str, Mapping[str, Any]] | None = None
    controller: Mapping[str, Any] = {}  # its settings, where they are not the usual
    alerts: Mapping[str, Mapping[str, Any]] = {}  # as sysresp.units.alerting reads it, by name


def path(state_dir: str, project: str) -> str:
    """Return where the project's manifest is kept."""
    return f"{state_dir}/{project}.json"


def dumps(manifest: Manifest) -> bytes:
    """Return the file's content, a line for each field and unit; the same manifest gives the same bytes."""
    fields = {"format": FORMAT, **manifest._asdict()}
    # Line by line, because json.dumps with an indent is the pure Python encoder: 10 ms more for 200 units.
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in fields.items() if name != "units"]
    units = ",\n".join(json.dumps(unit._asdict()) for unit in manifest.units)
    return ("{" + ",\n".join([*lines, f'"units": [\n{units}\n]']) + "}\n").encode()


def loads(content: bytes, where: str) -> Manifest:
    """Return the manifest in this content; `where` is the file's path, for the message if it is unusable."""
    try:
        raw = json.loads(content)
        if raw["format"] > FORMAT:
            raise _unusable(where, f"it was written by a newer sysresp (format {raw['format']})")
        known = ((name, kind, raw[name]) for name, kind in _KINDS.items() if raw.get(name) is not None)
        values = {name: _value(value, kind) for name, kind, value in known}
        units = tuple(
            ManifestUnit(*(_value(unit[n], kind) for n, kind in _UNIT_KINDS.items()))
            for unit in raw["units"]
        )
        return Manifest(**{**values, "units": units})
    except (ValueError, KeyError, TypeError) as error:
        raise _unusable(where, f"its content is damaged ({type(error).__name__}: {error})") from error


def load(files: Files, where: str) -> Manifest | None:
    """Return the manifest kept at this path, None if there is none."""
    content = files.read(where)
    return None if content is None else loads(content, where)


def all_manifests(files: Files, state_dir: str) -> list[Manifest]:
    """Return the manifests of all projects in this state directory, by name of the project."""
    names = [name for name in files.listdir(state_dir) if name.endswith(".json")]
    found = (load(files, f"{state_dir}/{name}") for name in names)
    return sorted((m for m in found if m is not None), key=lambda m: m.project)


def pattern(name: str) -> str:
    r"""Return a glob that matches the unit of this name; fnmatch(3) takes the `\` of `\x2d` for its own."""
    return name.replace("\\", "?")


def patterns(project: str, names: Iterable[str]) -> list[str]:
    """Return globs that match all units of the project and these names, for `Manager.units`."""
    own = (f"{project}-", f"{project}.")
    rest = {pattern(_any_instance(name)) for name in names if not name.startswith(own)}
    return [f"{project}-*", f"{project}.*", *sorted(rest)]


def _any_instance(name: str) -> str:
    stem, at, rest = name.partition("@")
    return f"{stem}@*.{rest.rpartition('.')[2]}" if at else name


_UNIT_KINDS: dict[str, type] = {
    "name": str,
    "file": str,
    "service": str,
    "instance": str,
    "main": bool,
    "start": bool,
    "enabled": bool,
    "origin_path": str,
    "origin_line": int,
    "digest": str,
}
_KINDS: dict[str, type] = {
    "project": str,
    "scope": str,
    "mode": str,
    "target": str,
    "source": tuple,
    "files": tuple,
    "links": tuple,
    "pending": tuple,
    "restarts": tuple,
    "reloads": tuple,
    "unfinished": bool,
    "generation": int,
    "runs": tuple,
    "was": tuple,
    "accepted": tuple,
    "configs": tuple,
    "supervision": dict,
    "controller": dict,
    "alerts": dict,
}


def _value(raw: Any, kind: type) -> Any:
    if kind is tuple:
        return tuple(_value(item, str) for item in _value(raw, list))
    if not isinstance(raw, kind):
        raise TypeError(f"{raw!r:.40} is no {kind.__name__}")
    return raw


def _unusable(where: str, why: str) -> Exception:
    from sysresp.errors import SysrespError  # noqa: PLC0415 (keeps `status` from importing model)

    return SysrespError(
        f"{where}: cannot use this manifest: {why}",
        hint="move it away and run `sysresp apply` again: units that carry the project's mark are adopted",
    )
