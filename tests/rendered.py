"""Making specs and looking at what was rendered from them, for the tests of the units room."""

from __future__ import annotations

from sysresp.model import (
    Command,
    Origin,
    Scope,
    Service,
    Spec,
)
from sysresp.units.desired import Desired
from sysresp.units.render import Rendered, render
from sysresp.units.text import parse

HERE = Origin("services.toml", 7)
MARK = ("X-Sysresp", "Service")


def service(name: str = "web", **keys: object) -> Service:
    keys.setdefault("command", (Command(("/bin/true",)),))
    return Service(name=name, origin=HERE, **keys)  # type: ignore[arg-type]


def spec(*services: Service, project: str = "shop") -> Spec:
    return Spec(project=project, origin=Origin("services.toml"), services={s.name: s for s in services})


def desired(*services: Service, version: int = 252, scope: Scope = Scope.SYSTEM) -> Desired:
    rendered = render(spec(*services), version=version, scope=scope)
    assert not rendered.problems
    return rendered.desired


def values(what: Desired, file: str, directive: str) -> list[str]:
    entries = parse(what.files[file].text)
    return [value for section, name, value in entries if name == directive and (section, name) != MARK]


def only(what: Desired, file: str, directive: str) -> str | None:
    found = values(what, file, directive)
    assert len(found) < 2
    return found[0] if found else None


def problems(rendered: Rendered) -> list[tuple[str, str]]:
    return [(problem.key, problem.what) for problem in rendered.problems]
