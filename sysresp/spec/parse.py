"""services.toml -> Spec: the front door of the room.

Owns the order of things: read the layers, merge them, check the top level, build each service, check the
services against each other. Never raises on bad input of any kind, asks the host nothing, and reads no file:
the caller passes bytes. Rule: all problems of all layers come out of one run, each at the line that set it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sysresp.errors import Problem, Severity, SpecError
from sysresp.model import KEEP, Alert, Controller, Origin, Scope, Service, Spec
from sysresp.spec import relations
from sysresp.spec.build import build
from sysresp.spec.keys import PROJECT_NAME, SERVICE_TABLE, SHORT, TOP
from sysresp.spec.layers import Document
from sysresp.spec.lines import Source, read
from sysresp.spec.names import has_unit_suffix
from sysresp.spec.report import BAD, At, Path, Report, dotted, near, quote, show
from sysresp.spec.types import unknown

# Slices and targets of systemd.special(7): a project of this name would write over them.
RESERVED = frozenset(
    (
        *("system", "user", "machine", "init", "app", "background", "session", "capsule"),
        *(
            "basic",
            "bluetooth",
            "cryptsetup",
            "ctrl-alt-del",
            "default",
            "emergency",
            "exit",
            "factory-reset",
            "final",
        ),
        *(
            "first-boot-complete",
            "getty",
            "getty-pre",
            "graphical",
            "graphical-session",
            "halt",
            "hibernate",
        ),
        *("hybrid-sleep", "initrd", "integritysetup", "kbrequest", "kexec", "local-fs", "local-fs-pre"),
        *(
            "machines",
            "multi-user",
            "network",
            "network-online",
            "network-pre",
            "nss-lookup",
            "nss-user-lookup",
        ),
        *(
            "paths",
            "poweroff",
            "printer",
            "reboot",
            "remote-cryptsetup",
            "remote-fs",
            "remote-fs-pre",
            "rescue",
        ),
        *(
            "rpcbind",
            "shutdown",
            "sigpwr",
            "sleep",
            "slices",
            "smartcard",
            "sockets",
            "soft-reboot",
            "sound",
        ),
        *("suspend", "suspend-then-hibernate", "swap", "sysinit", "system-update", "time-set", "time-sync"),
        *("timers", "umount", "usb-gadget", "veritysetup", "xdg-desktop-autostart"),
    )
)


class Layer(NamedTuple):
    """One file, as it was read."""

    path: str
    text: bytes


class Parsed(NamedTuple):
    """What came out; `spec` is None if and only if one of the problems is an error."""

    spec: Spec | None
    problems: tuple[Problem, ...]  # by file and line, warnings included


def parse(layers: Sequence[Layer], *, scope: Scope = Scope.SYSTEM) -> Parsed:
    """Check the layers, of which later ones win, and return the spec or what is wrong."""
    sources, broken = _read(layers)
    document = Document(sources, _short)
    report = Report(document)
    spec = None
    if not broken:
        spec = _spec(document, layers[0].path if layers else "", scope, At(report))
    problems = tuple(sorted((*broken, *report.problems())))
    refused = any(problem.severity is Severity.ERROR for problem in problems)
    return Parsed(None if refused else spec, problems)


def merged(layers: Sequence[Layer]) -> dict[str, Any]:
    """Return the merged document as it was written, unchecked; raise SpecError if a layer is no TOML."""
    sources, broken = _read(layers)
    if broken:
        raise SpecError(broken)
    return Document(sources, _short).data


def quoted(problems: Sequence[Problem], layers: Sequence[Layer]) -> list[Problem]:
    """Return the problems with the text of their lines, for those who found them without the file."""
    if all(problem.source for problem in problems):
        return list(problems)  # the usual case: no problem at all, and the file is not read twice
    sources = {source.path: source for source in _read(layers)[0]}
    out = []
    for problem in problems:
        source = sources.get(problem.origin.path)
        text = problem.source or (source.source(problem.origin.line) if source else "")
        out.append(Problem(problem.origin, problem.key, problem.what, problem.fix, problem.severity, text))
    return out


def _read(layers: Sequence[Layer]) -> tuple[list[Source], list[Problem]]:
    found = [read(layer.path, layer.text) for layer in layers]
    return [source for source, _ in found], [problem for _, problem in found if problem]


def _short(path: Path) -> str:
    """Return the key that a short form at this path stands for."""
    if path[0] == "services" and len(path) == 3:
        return SHORT.get(str(path[2]), "")
    if path[0] == "defaults" and len(path) == 2:
        return SHORT.get(str(path[1]), "")
    return ""


def _spec(document: Document, first: str, scope: Scope, top: At) -> Spec:
    data = document.data
    for name in data:
        if name not in TOP:
            _unknown_top(name, data[name], top / name)
    project = _project(data, first, top)
    description = None
    if "description" in data:
        description = TOP["description"].type.parse(data["description"], _at(top, "description"))
    keep = KEEP
    if "keep_generations" in data:
        parsed = TOP["keep_generations"].type.parse(data["keep_generations"], _at(top, "keep_generations"))
        keep = KEEP if parsed is BAD else parsed
    controller = Controller()
    if "controller" in data:
        controller = TOP["controller"].type.parse(data["controller"], _at(top, "controller")) or controller
    alerts: dict[str, Alert] = {}
    if "alerts" in data:
        alerts = TOP["alerts"].type.parse(data["alerts"], _at(top, "alerts")) or alerts
    if "defaults" in data:
        SERVICE_TABLE.parse(data["defaults"], _at(top, "defaults"))
    here = top / "services"
    tables = data.get("services", {})
    services: dict[str, Service] = {}
    if not isinstance(tables, dict):
        here.error(f"must be a table of services, got {show(tables)}", "write [services.NAME] for each")
    elif not tables and ("services" in data or not any(name not in TOP for name in data)):
        fix = "write [services.NAME] with a `command`; to remove everything, use sysresp down"
        (here if "services" in data else top).error("has no services", fix)
    else:
        for name, own in tables.items():
            if isinstance(own, dict):
                services[name] = build(document, name, own, here / name, project=project, scope=scope)
            else:
                _no_service(name, own, here / name)
        relations.check(project, services, here)
        relations.check_alerts(services, data.get("alerts", {}), here)
    return Spec(
        project=project,
        origin=Origin(first),
        services=services,
        description=None if description is BAD else description,
        keep_generations=keep,
        controller=controller,
        alerts=alerts,
    )


def _at(top: At, name: str) -> At:
    return At(top.report, (name,), (name, TOP[name].example))


def _unknown_top(name: str, value: object, at: At) -> None:
    """Report an unknown key of the file; one that looks like a service may be one."""
    if name in SERVICE_TABLE.keys and not isinstance(value, dict):
        at.error(
            "is a key of a service, and stands outside of one", "move it below [services.NAME] or [defaults]"
        )
    elif isinstance(value, dict) and "command" in value:
        at.error("is no key that is known here", f"write [services.{name}] if it is a service")
    else:
        unknown(name, TOP, at)


def _no_service(name: str, value: object, at: At) -> None:
    if name in SERVICE_TABLE.keys:
        at.error("is a key of a service, and stands outside of one", "move it below [services.NAME]")
    else:
        header = f"write [services.{dotted((name,))}], in single brackets" if isinstance(value, list) else ""
        hint = header or near(name, SERVICE_TABLE.keys)
        at.error(
            f"must be a table of keys of a service, got {show(value)}", hint or "write { command = [...] }"
        )


def _project(data: dict[str, Any], first: str, top: At) -> str:
    """Return the project's name, by default that of the file."""
    if "project" in data:
        at, name = top / "project", data["project"]
        name = PROJECT_NAME.parse(name, at)
    else:
        at = top
        name = first.rpartition("/")[2].removesuffix(".toml")
        if not PROJECT_NAME.fits(name):
            what = f"names no project, and the file's name is none: {quote(name)}"
            name = at.error(what, 'write project = "shop" at the top')
    if name is BAD:
        return "project"
    if name in RESERVED or has_unit_suffix(name):
        at.error(
            f"is the name of a unit of systemd itself: {quote(name)}",
            'write another one, such as project = "shop"',
        )
    return str(name)
