"""The life of the .rpm: resolved, installed, upgraded, verified, downgraded, erased by rpm and dnf.

Owns a repository made on the spot, with one package that is only a bridge: it provides the names that
Fedora's packages have and Debian's lack, in the versions that are really there, so that each requirement is
resolved. The same file is installed beside Python 3.11 and 3.13. What is not tried is Fedora's own userland.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sysresp.sandbox.boot import Bind, Sandbox
from tests.package.conftest import CONTROLLER, EXAMPLE, NEXT, SERVICES, VERSION, Machine, root_of, timed

_BRIDGE = """\
Name: bridge
Version: 1
Release: 1
Summary: What Debian's packages provide, by Fedora's names
License: MIT
BuildArch: noarch
Provides: python3 = {python}
Provides: python3-jinja2 = {jinja2}
Provides: python3-pystemd = {pystemd}
Provides: python3-tomli-w = {tomli-w}
Provides: python3-typer = {typer}
Provides: systemd = {systemd}
Provides: /bin/sh
Provides: /usr/bin/python3
%description
%files
"""
_REPOSITORY = "[test]\nname=test\nbaseurl=file:///repo\ngpgcheck=0\n"


@pytest.fixture(params=["bookworm", "trixie"])
def machine(request: pytest.FixtureRequest, rpms: Path) -> Iterator[Machine]:
    with Sandbox(root_of(f"build-{request.param}"), binds=[Bind(str(rpms), "/rpms")]) as sandbox:
        machine = Machine(sandbox, f"rpm on {request.param}")
        machine.python = ["env", "PYTHONPATH=/usr/share/sysresp", "python3", "-B"]
        yield machine


def test_lifecycle(machine: Machine) -> None:
    missing = machine.run(["rpm", "--install", f"/rpms/sysresp-{VERSION}-1.noarch.rpm"])
    assert missing.returncode != 0
    for name in ("python3-jinja2", "python3-pystemd", "python3-tomli-w", "python3-typer", "systemd"):
        assert f"{name} >= " in missing.stderr
    make_repository(machine)

    dnf(machine, "install", f"sysresp-{VERSION}")
    assert machine.sh("sysresp --version") == f"sysresp {VERSION}"
    machine.sh("systemctl enable --now sysresp.service")  # as the README says, since Fedora's presets do not
    first = machine.controller()
    machine.sh(f"cp {EXAMPLE} /etc/sysresp/services.toml && sysresp apply && sysresp status")
    rows = {machine.crash("demo-web@1.service")}
    before = machine.pids(SERVICES)
    verified(machine)
    assert "python3." not in machine.sh("rpm --query --list sysresp")

    dnf(machine, "upgrade", "sysresp")
    assert machine.sh("sysresp --version") == f"sysresp {NEXT}"
    second = machine.controller()
    assert second != first
    assert machine.pids(SERVICES) == before
    assert machine.ledger() >= rows
    rows.add(machine.crash("demo-web@2.service"))
    before = machine.pids(SERVICES)
    verified(machine)

    dnf(machine, "downgrade", "sysresp")
    assert machine.controller() not in {first, second}
    assert machine.pids(SERVICES) == before
    assert machine.ledger() >= rows
    assert "nothing to do" in machine.sh("sysresp apply")

    dnf(machine, "remove", "sysresp")
    assert machine.pids(SERVICES) == before
    assert machine.show(CONTROLLER, "LoadState") == "not-found"
    left = machine.sh("find /etc /usr /var -xdev -path '*sysresp*' -not -path '/var/*/dnf/*' ! -type d")
    kept = ("/etc/sysresp/services.toml", "/var/lib/sysresp/", "/var/lib/sysresp-controller/")
    assert all(path.startswith(kept) for path in left.splitlines()), left
    machine.sh("systemctl restart demo-db.service")  # with its readiness probe


def make_repository(machine: Machine) -> None:
    """Build the bridge, and make a repository of it and our packages."""
    script = "from importlib.metadata import version; import sys, platform\n"
    script += "print(platform.python_version(), *map(version, sys.argv[1:]))"
    names = ("jinja2", "pystemd", "tomli-w", "typer")
    python, *versions = machine.run(["python3", "-c", script, *names], check=True).stdout.split()
    systemd = machine.sh("systemctl --version | sed -n '1s/systemd \\([0-9]*\\).*/\\1/p'")
    text = _BRIDGE.format(python=python, systemd=systemd, **dict(zip(names, versions, strict=True)))
    machine.path("/tmp/bridge.spec").write_text(text)
    machine.sh("rpmbuild -bb --define '_rpmdir /repo' /tmp/bridge.spec && cp /rpms/*.noarch.rpm /repo")
    machine.sh("createrepo_c /repo && mkdir -p /etc/yum.repos.d")
    machine.path("/etc/yum.repos.d/test.repo").write_text(_REPOSITORY)


def dnf(machine: Machine, verb: str, name: str) -> None:
    with timed(f"{machine.suite}: {verb}"):
        machine.sh(f"dnf --assumeyes --quiet {verb} {name}")


def verified(machine: Machine) -> None:
    """Every file is as it was packed, and nothing was written beside them."""
    assert machine.sh("rpm --verify sysresp") == ""
    assert machine.sh("find /usr/share/sysresp -name '*.pyc'") == ""
