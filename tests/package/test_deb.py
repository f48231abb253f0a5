"""The life of the .deb on new installations of Debian 12 and 13: from install to purge, and back.

Owns the lifecycle of docs: what an upgrade, a failed one, a removal and a purge leave as it was. Everything
is typed as an administrator would, without a terminal, so that nothing can ask a question.
"""

from __future__ import annotations

import json

from tests.package.conftest import EXAMPLE, NEXT, VERSION, Machine

SERVICES = ("demo-db.service", "demo-web@1.service", "demo-web@2.service")
OURS = "/etc/sysresp/services.toml"


def install(machine: Machine, version: str, step: str, *options: str) -> None:
    machine.apt(step, "install", *options, f"/debs/sysresp_{version}_all.deb")
    assert machine.installed() == f"ii {version}"
    assert machine.sh("sysresp --version") == f"sysresp {version}"


def apply_example(machine: Machine) -> None:
    """Do as the README says: copy the example, apply it."""
    machine.sh(f"cp {EXAMPLE} {OURS} && sysresp apply")
    assert "nothing to do" in machine.sh("sysresp apply")
    machine.sh("sysresp status")


def test_lifecycle(machine: Machine) -> None:
    install(machine, VERSION, "install")
    assert machine.sh("systemctl is-enabled sysresp.service") == "enabled"
    apply_example(machine)
    before = machine.pids(SERVICES)
    assert "0" not in before.values()
    edited = machine.sh(f"echo '# mine' >>{OURS}; sha256sum {OURS}")

    install(machine, NEXT, "upgrade")
    assert machine.pids(SERVICES) == before
    machine.sh("sysresp status")
    install(machine, VERSION, "downgrade", "--allow-downgrades")
    assert machine.pids(SERVICES) == before
    assert machine.sh(f"sha256sum {OURS}") == edited
    assert "nothing to do" in machine.sh("sysresp apply")

    machine.apt("remove", "remove", "sysresp")
    assert machine.installed() == f"rc {VERSION}"
    assert machine.pids(SERVICES) == before
    assert machine.run(["sysresp", "--version"]).returncode != 0
    assert machine.path("/var/lib/sysresp/demo.json").exists()
    machine.apt("purge", "purge", "sysresp")
    assert not machine.installed().startswith(("ii", "rc"))
    assert machine.pids(SERVICES) == before
    assert left(machine) == {
        OURS,  # the administrator's own
        "/var/lib/sysresp/ready.py",  # two of the units start with it
    }
    # Without sysresp the units are as good as any: they start, with their readiness probe, too.
    machine.sh("systemctl restart demo.target demo-db.service 'demo-web@*.service'")

    before = machine.pids(SERVICES)
    install(machine, VERSION, "reinstall")
    assert "nothing to do" in machine.sh("sysresp apply")
    assert machine.pids(SERVICES) == before
    machine.sh("sysresp down")
    assert machine.sh("find /etc/systemd/system -name 'demo*'") == ""
    machine.apt("purge, with nothing applied", "purge", "sysresp")
    assert left(machine) == {OURS}


def left(machine: Machine) -> set[str]:
    """Return the files of ours on the disk, apart from the locks of this boot and the account."""
    places = "/etc /usr /var /opt /srv /home /root"
    found = machine.sh(f"find {places} -xdev -path '*sysresp*' ! -type d -not -path '/var/cache/apt/*'")
    return set(found.splitlines())


def test_an_upgrade_that_fails_leaves_the_old_one(machine: Machine) -> None:
    install(machine, VERSION, "install without recommended packages", "--no-install-recommends")
    apply_example(machine)
    before = machine.pids(SERVICES)
    done = machine.run(["apt-get", "-y", "-q", "install", "/debs/broken.deb"], timeout=300)
    assert done.returncode != 0
    assert "refused by its preinst" in done.stdout + done.stderr
    assert machine.installed() == f"ii {VERSION}"
    assert machine.sh("sysresp --version") == f"sysresp {VERSION}"
    assert machine.pids(SERVICES) == before
    install(machine, NEXT, "upgrade after a failed one")
    assert machine.pids(SERVICES) == before


def test_what_is_in_it(machine: Machine) -> None:
    install(machine, VERSION, "install, again")
    assert json.loads(machine.path("/usr/share/sysresp/services.schema.json").read_text())["properties"]
    for page in ("man1/sysresp.1", "man5/sysresp-services.toml.5", "man5/services.toml.5"):
        assert machine.sh(f"zcat /usr/share/man/{page}.gz | head -n 1").startswith(".Dd")
    assert machine.sh("dpkg --verify sysresp") == ""
    conffiles = machine.sh("dpkg-query -W -f '${Conffiles}' sysresp")
    assert conffiles == "", "a conffile can block an unattended upgrade with a question"
