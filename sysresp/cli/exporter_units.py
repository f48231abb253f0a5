"""The units of the exporter and of the textfile's timer: the same spec and templates as for any service.

Owns exporter.toml, what is laid over it for a host, and the unit files that a package ships. Never looks at
the host: `metrics_enable` does. They have an account of their own, which may read what everybody may read
(unit properties, manifests, the ledger) and nothing else; the controller's may restart services. It is no
dynamic user, since D-Bus refuses those where libnss-systemd is not installed.

Where the textfile goes: into a directory below /run that is that account's own, and a link to it lies where
the collector looks, since nobody but that directory's owner could write there.

Rule: `systemd-analyze security` says at most 1.5 for both services.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sysresp.controller import own
from sysresp.model import Scope
from sysresp.spec.parse import Layer, parse
from sysresp.units.render import render

PROJECT = "sysresp-metrics"
UNIT = "sysresp-metrics.service"
SOCKET = "sysresp-metrics.socket"
TIMER = "sysresp-metrics-textfile.timer"
TEXTFILE_UNIT = "sysresp-metrics-textfile.service"
LISTEN = "127.0.0.1:9917"
ACCOUNT = "sysresp-metrics"
SYSUSERS_TEXT = f'u {ACCOUNT} - "sysresp metrics"\n'
DEFINITION = Path(__file__).with_name("exporter.toml")

_NOT_FOR_USERS = ("PrivateNetwork", "IPAddressDeny", "PrivateMounts")


class Wish(NamedTuple):
    """What is to be installed."""

    listen: str = ""  # the exporter's address; "": no exporter
    textfile: str = ""  # the file that the timer writes; "": no timer
    link: str = ""  # ... and the link to it, where the collector looks


def layers(
    program: tuple[str, ...], environment: Mapping[str, str], wish: Wish, scope: Scope
) -> tuple[Layer, ...]:
    """Return the definition as layers of a services.toml."""
    import tomli_w  # noqa: PLC0415 - only who enables it pays for it

    user = ["--user"] if scope is Scope.USER else []
    services: dict[str, Any] = {}
    if wish.listen:
        services["exporter"] = {"command": [*program, "metrics", "serve", *user], "listen": [wish.listen]}
    if wish.textfile:
        words = [*program, "metrics", "--textfile", wish.textfile, *user]
        manual = ["man:sysresp-metrics(5)", *([f"file:{wish.link}"] if wish.link else [])]
        services["textfile"] = {"command": words, "documentation": manual}
    defaults: dict[str, Any] = {"environment": dict(environment)} if environment else {}
    if not user:
        defaults["user"] = ACCOUNT
    base = DEFINITION.read_text()
    kept = "\n".join(part for part in _parts(base) if _is_wanted(part, services))
    if user:
        kept = "\n".join(line for line in kept.split("\n") if not line.startswith(_NOT_FOR_USERS))
    host = tomli_w.dumps({"defaults": defaults, "services": services})
    return (Layer("exporter.toml", kept.encode()), Layer("(this host)", host.encode()))


def _parts(text: str) -> list[str]:
    """Return the text's tables, each from its header to the next."""
    head, *tables = text.split("\n[")
    return [head, *(f"[{table}" for table in tables)]


def _is_wanted(part: str, services: Mapping[str, object]) -> bool:
    if not part.startswith("[services."):
        return True
    return part.removeprefix("[services.").partition("]")[0].partition(".")[0] in services


def packaged() -> dict[str, str]:
    """Return the unit files of a package: name -> text; nobody enables the socket."""
    found, problems = parse(layers(own.PACKAGED.program, {}, Wish(LISTEN), Scope.SYSTEM))
    assert found is not None, problems
    files = render(found, version=own.PACKAGED_FOR).desired.files
    return {name: _of_the_package(files[name].text) for name in (UNIT, SOCKET)}


def _of_the_package(text: str) -> str:
    lines = own.of_the_package(text, _PACKAGE_HEADER).splitlines(keepends=True)
    text = "".join(line for line in lines if not line.startswith(("PartOf=", "Slice=")))
    return text.replace("WantedBy=sysresp-metrics.target", "WantedBy=sockets.target").replace(
        "\n\n\n", "\n\n"
    )


_PACKAGE_HEADER = "# Made from exporter.toml by sysresp.cli.exporter_units; change it there."
