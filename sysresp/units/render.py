"""Spec -> Desired: the texts of all unit files, the units they define, and the links that enable them.

Owns the way from groups of directives through Jinja to text, the order of units, and which links there are.
Never reads the host but for the templates; never writes.

Templates are looked up in the user's directories first, then among those that are shipped: beside this
package in an installation, one level up in a source tree. A user's own template is held to the same standard
as ours: what it makes must be a unit file, and the mark of ownership is added to it here.

Rule: the text of a unit depends on nothing but the spec, the version of systemd, the scope and the
templates: no path of the user's file, no line number, no time, no version of sysresp.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import jinja2

from sysresp.errors import Problem
from sysresp.model import Scope, Service, Spec
from sysresp.spec import names
from sysresp.spec.values import filled
from sysresp.units import companions, quote
from sysresp.units.change import DIGEST
from sysresp.units.compose import compose
from sysresp.units.desired import Desired, Policy, Unit, UnitFile
from sysresp.units.sheet import SECTIONS, Group, Groups, Report, Setting, apply_raw, one_line
from sysresp.units.supervise import receiver, settings, supervise
from sysresp.units.supervision import DEFAULT, Supervision
from sysresp.units.text import OWNER_SECTION, parse

TEMPLATE_DIRS = ("/etc/sysresp/templates",)
"""Where users keep their own templates."""

PROBER = ("/usr/bin/python3", "-I", "-S", "/var/lib/sysresp/ready.py")
"""Command line of the readiness prober in persistent mode of the system scope."""

HEADER = "# Made by sysresp from the project's services.toml; edits here show up as drift."

_NO_DIGESTS: Mapping[str, str] = MappingProxyType({})
_LINKS = {"WantedBy": "wants", "RequiredBy": "requires", "UpheldBy": "upholds"}


class Rendered(NamedTuple):
    """The result of `render`: with an error among the problems, `desired` must not be applied."""

    desired: Desired
    problems: tuple[Problem, ...]


def render(
    spec: Spec,
    *,
    version: int,
    scope: Scope = Scope.SYSTEM,
    prober: Sequence[str] = PROBER,
    template_dirs: Sequence[str] = (),
    digests: Mapping[str, str] = _NO_DIGESTS,
) -> Rendered:
    """Return everything the project should own on a host with this version of systemd.

    `digests` holds the digest of the config_files of each service that has some.
    """
    room = _Room(spec, version, scope, prober, template_dirs)
    slice_, target = names.slice_unit(spec.project), names.target_unit(spec.project)
    room.project_file(slice_, "slice", "Slice", Group())
    for service in _in_order(spec):
        room.service_files(service, digests.get(service.name, ""))
    wanted_by = "multi-user.target" if scope is Scope.SYSTEM else "default.target"
    room.project_file(target, "target", "All services", Group([("WantedBy", wanted_by)]))
    units = {unit.name: unit for unit in sorted(room.units, key=_rank)}
    desired = Desired(
        project=spec.project,
        target=target,
        files=room.files,
        units=units,
        links=room.links,
        configs=room.configs,
        needs_prober=any(service.ready is not None for service in spec.services.values()),
        policies=_policies(spec),
        keep_generations=spec.keep_generations,
        supervision={n: room.supervision[n] for n in units if room.supervision.get(n, DEFAULT) != DEFAULT},
        settings=settings(spec.controller),
        alerts={name: receiver(alert) for name, alert in spec.alerts.items()},
    )
    return Rendered(desired, tuple(sorted(room.problems)))


class _Room:
    """What one rendering builds up."""

    def __init__(
        self, spec: Spec, version: int, scope: Scope, prober: Sequence[str], template_dirs: Sequence[str]
    ) -> None:
        self.spec = spec
        services = spec.services.values()
        units = {service.name: names.service_units(spec.project, service) for service in services}
        sockets = {s.name: names.socket_units(spec.project, s) for s in services if s.on_demand}
        self.setting = Setting(
            project=spec.project,
            version=version,
            scope=scope,
            prober=prober,
            units=units,
            wanted=units | {name: which for name, which in sockets.items() if which},
        )
        self.shipped = shipped_templates()
        self.jinja = _environment((*template_dirs, self.shipped))
        self.templates: dict[str, jinja2.Template] = {}
        self.files: dict[str, UnitFile] = {}
        self.units: list[Unit] = []
        self.links: dict[str, str] = {}
        self.configs: dict[str, tuple[str, ...]] = {}
        self.supervision: dict[str, Supervision] = {}
        self.problems: list[Problem] = []

    def project_file(self, name: str, kind: str, title: str, install: Group) -> None:
        """Make the project's slice or target."""
        project, origin = self.spec.project, self.spec.origin
        report = Report("project", origin, {})
        about = one_line(self.spec.description or "") if kind == "target" else ""
        description = report.value("description", quote.text, about or f"{title} of {project}")
        groups = {"about": Group(), "install": install}
        groups["about"].add("Description", description)
        text = self._text(f"{kind}.j2", name, groups, report, None)
        self.files[name] = UnitFile(name, _owned(text, project), origin)
        self._units(name, kind, True, [(name, "")], start=kind == "target")
        self.problems += report.problems

    def service_files(self, service: Service, digest: str) -> None:
        """Make the files, units and links of one service."""
        project, setting = self.spec.project, self.setting
        report = Report(f"services.{service.name}", service.origin, service.lines)
        parts = list(_parts(service, setting, report))
        _check_raw_sections(service, report, {kind for kind, _, _ in parts})
        for kind, name, groups in parts:
            main = kind == "service"
            own = {"Unit", "Service", "Install"} if main else {kind.title()}
            raw = {section: lines for section, lines in service.systemd.items() if section in own}
            apply_raw(groups, raw, report, setting.version)
            template = service.template if main and service.template else _TEMPLATES[kind]
            text = self._text(template, name, groups, report, service)
            text = _owned(text, project, service.name, digest if main else "")
            self.files[name] = UnitFile(name, text, service.origin, service.name)
            waits = main and (service.on_demand or service.schedule is not None)
            start = service.enabled and not waits and kind != "helper"
            self._units(name, kind, service.enabled, _loaded(service, name), start=start)
            if main:
                loaded = dict(_loaded(service, name))
                self.supervision |= supervise(service, name, text, loaded, setting.version)
                for unit, instance in loaded.items() if service.config_files else ():
                    self.configs[unit] = tuple(filled(path, instance) for path in service.config_files)
        self.problems += report.problems

    def _units(
        self, name: str, kind: str, enabled: bool, loaded: Iterable[tuple[str, str]], *, start: bool
    ) -> None:
        """Add the units that a file defines, and their links."""
        file = self.files[name]
        for unit, instance in loaded:
            links = _links(unit, file, instance) if enabled else {}
            self.links |= links
            self.units.append(
                Unit(
                    name=unit,
                    file=name,
                    service=file.service,
                    instance=instance,
                    start=start,
                    enabled=bool(links),
                    main=kind == "service",
                    origin=file.origin,
                )
            )

    def _text(self, name: str, unit: str, groups: Groups, report: Report, service: Service | None) -> str:
        """Return the unit's text; whatever is wrong with a template is a problem where it is asked for."""
        try:
            template = self._template(name)
            text = template.render(
                _NO_GROUPS | groups, header=HEADER, project=self.spec.project, unit=unit, service=service
            )
        except jinja2.TemplateNotFound as error:
            report.add("template", f"there is no template {error.name}", f"put it in {TEMPLATE_DIRS[0]}")
            return ""
        except jinja2.TemplateSyntaxError as error:
            report.add("template", f"{error.name}:{error.lineno}: {error.message}", "correct the template")
            return ""
        except Exception as error:  # a template is a program: whatever it raises is its author's to correct
            report.add("template", f"{name}:{_template_line(error, name)}: {error}", "correct the template")
            return ""
        if not str(template.filename).startswith(self.shipped) and (wrong := _wrong(text, unit)):
            report.add("template", f"{name} {wrong}", "correct the template")
            return ""
        return text

    def _template(self, name: str) -> jinja2.Template:
        if name not in self.templates:
            self.templates[name] = self.jinja.get_template(name)
        return self.templates[name]


@lru_cache(maxsize=4)
def _environment(directories: tuple[str, ...]) -> jinja2.Environment:
    """Return Jinja over these directories; it notices when a template changes."""
    jinja = jinja2.Environment(
        loader=jinja2.FileSystemLoader(directories),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # unit files are not HTML
    )
    jinja.filters["word"] = lambda value: quote.word(str(value), command=True)
    jinja.filters["path"] = lambda value: quote.path(str(value))
    return jinja


_TEMPLATES = {kind: f"{kind}.j2" for kind in ("service", "socket", "timer", "path")} | {
    "helper": "service.j2"
}
_NO_GROUPS = {name: Group() for name in SECTIONS}


def _parts(service: Service, setting: Setting, report: Report) -> Iterator[tuple[str, str, Groups]]:
    """Yield (kind, file name, groups) of each unit of the service."""
    project = setting.project
    yield "service", names.unit_name(project, service), compose(service, setting, report)
    if service.socket is not None:
        yield "socket", names.socket_unit(project, service), companions.socket(service, setting, report)
    if service.schedule is not None:
        yield "timer", names.timer_unit(project, service), companions.timer(service, setting, report)
    if service.watch is not None:
        path, helper = names.watch_units(project, service)
        yield "path", path, companions.path(service, setting, report)
        if companions.needs_helper(service):
            yield "helper", helper, companions.helper(service, setting)


def _check_raw_sections(service: Service, report: Report, kinds: set[str]) -> None:
    has = {"Unit", "Install", *(kind.title() for kind in kinds if kind != "helper")}
    for section in service.systemd:
        if section not in has:
            report.add(
                f"systemd.{section}",
                f"has no place to go: no unit of this service has a section [{section}]",
                f"its units have {', '.join(sorted(has))}",
            )


def _loaded(service: Service, file: str) -> list[tuple[str, str]]:
    """Return (unit, instance) of what systemd loads from the file."""
    before, at, after = file.partition("@.")
    if not at:
        return [(file, "")]
    return [(f"{before}@{instance}.{after}", instance) for instance in service.instances or ()]


def _policies(spec: Spec) -> dict[str, Policy]:
    """Return how a change of each service goes, where the file says it."""
    found = {
        name: Policy(service.settle_sec, service.ignore_start_failure, service.rollout)
        for name, service in spec.services.items()
    }
    usual = Policy()
    return {name: policy for name, policy in found.items() if policy != usual}


def _owned(text: str, project: str, service: str = "", digest: str = "") -> str:
    """Return the text with our mark at its end."""
    lines = [f"[{OWNER_SECTION}]", f"Project={project}"]
    if service:
        lines.append(f"Service={service}")
    if digest:
        lines.append(f"{DIGEST}={digest}")
    mark, text = "\n".join(lines), text.rstrip("\n")
    return f"{text}\n\n{mark}\n"


def _links(unit: str, file: UnitFile, instance: str = "") -> dict[str, str]:
    """Return the links that `systemctl enable` would make for the unit, by what [Install] says."""
    at = file.text.find("\n[Install]\n")
    if at < 0:
        return {}
    links = {}
    for section, name, value in parse(file.text[at : file.text.rfind(f"\n[{OWNER_SECTION}]\n")]):
        for word in value.split() if section == "Install" else ():
            if name in _LINKS:
                links[f"{word.replace('%i', instance)}.{_LINKS[name]}/{unit}"] = file.name
            elif name == "Alias":
                links[word.replace("%i", instance)] = file.name
    return links


def _rank(unit: Unit) -> int:
    """Sort by what has to be there first; units of one rank stay in the order of their services."""
    return ("slice", "socket", "service", "timer", "path", "target").index(unit.name.rpartition(".")[2])


def _in_order(spec: Spec) -> list[Service]:
    """Return the services so that each comes after those it is ordered after."""
    earlier: dict[str, list[str]] = {name: [] for name in spec.services}
    for name, service in spec.services.items():
        implied = (*service.requires, *service.wants, *service.binds_to)
        earlier[name] += [*service.after, *(other for other in implied if other not in service.before)]
        for other in service.before:
            if other in earlier:
                earlier[other].append(name)
    ordered: dict[str, Service] = {}
    entered: set[str] = set()
    for first in spec.services:
        stack = [first]
        while stack:
            name = stack[-1]
            missing = [other for other in earlier[name] if other in earlier and other not in entered]
            entered.add(name)
            if missing:
                stack += reversed(missing)
            else:
                ordered.setdefault(stack.pop(), spec.services[name])
    return list(ordered.values())


def _template_line(error: Exception, template: str) -> int:
    """Return the line of the template at which it failed: Jinja puts it into the traceback."""
    line = 0
    at = error.__traceback__
    while at is not None:
        if at.tb_frame.f_code.co_filename.endswith(f"/{template}"):
            line = at.tb_lineno
        at = at.tb_next
    return line


def _wrong(text: str, unit: str) -> str:
    """Say why systemd could not load what a user's template made, "" if it could."""
    try:
        quote.loadable(text)
    except quote.Unrepresentable as error:
        return error.what
    entries = parse(text)
    sections = {section for section, _, _ in entries}
    stray = next((value for _, name, value in entries if not name), None)
    if stray is not None:
        return f"makes a line that is no assignment: {stray[:60]!r}"
    if OWNER_SECTION in sections:
        return f"makes a section [{OWNER_SECTION}], which is sysresp's own"
    needed = unit.rpartition(".")[2].title()
    if needed in ("Service", "Socket", "Timer", "Path") and needed not in sections:
        return f"makes no unit file: there is no section [{needed}]"
    return ""


def shipped_templates() -> str:
    """Return the directory of the templates that come with sysresp."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "templates"
    return str(inside if inside.is_dir() else package.parent / "templates")
