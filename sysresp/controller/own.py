"""The controller's own units: the same spec, the same templates, the same apply as for any service.

Owns controller.toml, what is laid over it for a host (who runs it, by which command), and the unit files
that a package ships. Never looks at the host: `sysresp.cli.own_units` decides which way it is run.

What the strict sandbox means for it, and why more is not taken away:

    AF_UNIX AF_INET AF_INET6     D-Bus, and probes of sockets, ports and URLs; a probe may go to any address
                                 that services.toml names, so there is no PrivateNetwork= and IPAddressDeny=
    CapabilityBoundingSet=       none, as root, too: systemd asks for uid 0, not for capabilities
    ProtectSystem=strict         it writes nothing but its StateDirectory=
    ProtectHome=, PrivateTmp=    an exec probe finds nothing there; a unix probe no socket in /tmp
    ProcSubset=                  left out for boot_id; ProtectProc=invisible stays

Rule: `systemd-analyze security` says at most 1.5 for both units, as root and as its own user.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from sysresp.model import Scope
    from sysresp.spec.parse import Layer

PROJECT = "sysresp"
"""The project of the controller's own units; no file of a user's may take it."""

PROJECTS = frozenset({PROJECT, "sysresp-metrics"})
"""... and that of `sysresp metrics enable`, for which the same holds."""

UNIT = "sysresp.service"
FALLBACK_UNIT = "sysresp-fallback.service"
ACCOUNT = "sysresp"
"""Who runs it where there is polkit; packaging/polkit/50-sysresp.rules knows this name."""

DEFINITION = Path(__file__).with_name("controller.toml")
FALLBACK = Path(__file__).with_name("fallback.py")
PACKAGED_FOR = 252
"""The systemd that packaged units are made for; newer ones know all that this one knows."""

_PACKAGE_HEADER = "# Made from controller.toml by sysresp.controller.own; change it there."
_JOURNAL_GROUP = "systemd-journal"


class Way(NamedTuple):
    """How the controller is run on one host."""

    program: tuple[str, ...]  # the command before "controller run"
    fallback: tuple[str, ...]  # the command of the fallback
    account: str = ""  # "": root, without capabilities; in a user's manager: that user
    environment: Mapping[str, str] = {}


PACKAGED = Way(
    ("/usr/bin/sysresp",), ("/usr/bin/python3", "-I", "-S", "/usr/share/sysresp/fallback.py"), ACCOUNT
)


def layers(way: Way, scope: Scope) -> tuple[Layer, ...]:
    """Return the definition as layers of a services.toml."""
    # Most want no more of this module than a name, and only who enables it pays for the rest.
    import tomli_w  # noqa: PLC0415

    from sysresp.spec.parse import Layer  # noqa: PLC0415

    user = ["--user"] if scope == "user" else []
    defaults: dict[str, Any] = {}
    if way.account and not user:
        defaults = {"user": way.account, "groups": [_JOURNAL_GROUP]}
    controller: dict[str, Any] = {"command": [*way.program, "controller", "run", *user]}
    if way.environment:
        controller["environment"] = dict(way.environment)
    services = {"controller": controller, "fallback": {"command": [*way.fallback, *user]}}
    host = tomli_w.dumps({"defaults": defaults, "services": services})
    return (Layer("controller.toml", DEFINITION.read_bytes()), Layer("(this host)", host.encode()))


def packaged() -> dict[str, str]:
    """Return the unit files of a package: name -> text.

    They belong to the package, so they carry no mark of ours, and hang on multi-user.target directly.
    """
    # As above.
    import tomli_w  # noqa: PLC0415

    from sysresp.model import Scope  # noqa: PLC0415
    from sysresp.spec.parse import Layer, parse  # noqa: PLC0415
    from sysresp.units.render import render  # noqa: PLC0415

    wanted = {"controller": {"systemd": {"Install": {"WantedBy": "multi-user.target"}}}}
    top = {"defaults": {"systemd": {"Unit": {"PartOf": ""}}}, "services": wanted}
    spec, problems = parse(
        (*layers(PACKAGED, Scope.SYSTEM), Layer("(package)", tomli_w.dumps(top).encode()))
    )
    assert spec is not None, problems
    files = render(spec, version=PACKAGED_FOR).desired.files
    return {name: of_the_package(files[name].text, _PACKAGE_HEADER) for name in (UNIT, FALLBACK_UNIT)}


def of_the_package(text: str, header: str) -> str:
    """Return the text of a unit as a package ships it: without our marks, under its own header."""
    from sysresp.units.render import HEADER  # noqa: PLC0415 - as above
    from sysresp.units.text import OWNER_SECTION  # noqa: PLC0415

    body = text.removeprefix(f"{HEADER}\n").partition(f"\n[{OWNER_SECTION}]\n")[0].rstrip("\n")
    left_out = {"PartOf=", "# As written in services.toml"}
    return "\n".join([header, *(x for x in body.splitlines() if x not in left_out), ""])
