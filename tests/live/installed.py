"""services.toml text -> unit files in a box, with the pure rooms of sysresp only.

Owns the short way by which the proofs of units (round trip, ready gate, security) put units into a booted
systemd: parse, render, write. Never starts anything, and no sysresp runs in the box: what these tests show
is what systemd alone does with the files. Tests of apply itself go through the command line.
"""

from __future__ import annotations

from pathlib import Path

from sysresp.cli import build, hosts
from sysresp.errors import Severity
from sysresp.model import Mode, Scope
from sysresp.reconcile.layout import paths
from sysresp.spec.parse import Layer, Parsed, parse
from sysresp.units.desired import Desired
from sysresp.units.render import render
from tests.live.conftest import UID, Box

BIN = Path(__file__).parent / "bin"


def read_text(text: str) -> Parsed:
    """Parse the text of a services.toml."""
    return parse([Layer("services.toml", text.encode())])


def install_text(box: Box, text: str, mode: Mode = Mode.PERSISTENT) -> Desired:
    """Write what sysresp makes of this services.toml into the box's unit directory."""
    spec, problems = read_text(text)
    assert spec is not None, problems
    places = paths(Scope.SYSTEM, mode, {})
    rendered = render(spec, version=box.version, prober=build.prober(places.prober))
    assert not [p for p in rendered.problems if p.severity is Severity.ERROR]
    desired = rendered.desired
    directory = places.unit_dir
    if desired.needs_prober:
        box.write(places.prober, hosts.prober_program().decode(), 0o755)
    for file in desired.files.values():
        box.write(f"{directory}/{file.name}", file.text)
    for link, target in desired.links.items():
        place = box.path(f"{directory}/{link}")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(f"{directory}/{target}")
    return desired


def install_program(box: Box, name: str, to: str = "") -> str:
    """Copy a program of tests/live/bin to where every user and every sandbox of a unit can run it."""
    return box.write(to or f"/usr/local/bin/{name}", (BIN / name).read_text(), 0o755)


def write_file(box: Box, text: str) -> str:
    """Write the text as services.toml of the test's project, readable by everyone; return its path."""
    return box.write(f"/srv/{box.project}/services.toml", f'project = "{box.project}"\n{text.lstrip()}')


def snapshot(box: Box, user: str = "") -> dict[str, str]:
    """Return every file and link that sysresp could have written, with its content.

    Left out is what stays when a project is taken away: its history, and the file of its lock.
    """
    places = ["/etc/systemd/system", "/run/systemd/system", "/var/lib/sysresp", "/run/sysresp"]
    if user:
        places = [
            f"/home/{user}/.config",
            f"/home/{user}/.local",
            f"/run/user/{UID}/systemd",
            f"/run/user/{UID}/sysresp",
        ]
    found = {}
    for place in places:
        for path in sorted(box.path(place).rglob("*")):
            inside = f"{place}/{path.relative_to(box.path(place))}"
            if "/generations/" in inside or inside.endswith(".lock"):
                continue
            if path.is_symlink():
                found[inside] = f"-> {path.readlink()}"
            elif path.is_file():
                found[inside] = path.read_text()
    return found
