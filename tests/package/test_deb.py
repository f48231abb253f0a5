"""The life of the .deb on new installations of Debian 12 and 13: from install to purge, and back.

Owns what an upgrade, a failed one, a removal and a purge leave as it was. Everything is typed as an
administrator would, without a terminal, so that nothing can ask a question.
"""

from __future__ import annotations

import json

from sysresp.controller.respawn import QUIET_SEC
from tests.package.conftest import CONTROLLER, EXAMPLE, NEXT, SERVICES, VERSION, Machine

EXPORTER = "sysresp-metrics.socket"
GET = "import urllib.request as web; print(web.urlopen('http://127.0.0.1:9000/metrics').read().decode())"
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
    first = machine.controller()
    contents(machine)
    apply_example(machine)
    rows = {machine.crash("demo-web@1.service")}
    before = machine.pids(SERVICES)
    assert "0" not in before.values()
    edited = machine.sh(f"echo '# mine' >>{OURS}; sha256sum {OURS}")
    rights(machine)
    exporter(machine)

    # As apt does it with many packages: a while goes by between unpacking and configuring.
    starts = machine.starts()
    machine.sh(f"dpkg --unpack /debs/sysresp_{NEXT}_all.deb")
    machine.sh(f"sleep {3 * QUIET_SEC}")
    machine.sh("dpkg --configure sysresp")
    assert machine.installed() == f"ii {NEXT}"
    second = machine.controller()
    assert machine.starts() == starts + 1, "it restarted itself, and so did the package"
    assert second != first
    assert machine.pids(SERVICES) == before
    assert machine.ledger() >= rows
    rows.add(machine.crash("demo-web@2.service"))
    before = machine.pids(SERVICES)
    machine.sh("sysresp status")
    install(machine, VERSION, "downgrade", "--allow-downgrades")
    assert machine.controller() not in {first, second}
    assert machine.pids(SERVICES) == before
    assert machine.ledger() >= rows
    assert machine.sh(f"sha256sum {OURS}") == edited
    assert "nothing to do" in machine.sh("sysresp apply")

    machine.apt("remove", "remove", "sysresp")
    assert machine.installed() == f"rc {VERSION}"
    assert machine.pids(SERVICES) == before
    assert machine.show(CONTROLLER, "ActiveState") == "inactive"
    assert machine.show(EXPORTER, "ActiveState") == "inactive"
    assert machine.run(["sysresp", "--version"]).returncode != 0
    install(machine, VERSION, "install again")
    machine.controller()
    assert machine.pids(SERVICES) == before
    assert machine.ledger() >= rows

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
    install(machine, VERSION, "install after a purge")
    machine.controller()
    assert "nothing to do" in machine.sh("sysresp apply")
    assert machine.pids(SERVICES) == before
    machine.crash("demo-db.service")
    machine.sh("sysresp down")
    assert machine.sh("find /etc/systemd/system -name 'demo*'") == ""
    machine.apt("purge, with nothing applied", "purge", "sysresp")
    assert left(machine) == {OURS}


def left(machine: Machine) -> set[str]:
    """Return the files of ours on the disk."""
    places = "/etc /usr /var /opt /srv /home /root"
    found = machine.sh(f"find {places} -xdev -path '*sysresp*' ! -type d -not -path '/var/cache/apt/*'")
    return set(found.splitlines())


def contents(machine: Machine) -> None:
    """Look at what else the package brings."""
    assert json.loads(machine.path("/usr/share/sysresp/services.schema.json").read_text())["properties"]
    pages = ("man1/sysresp.1", "man5/sysresp-services.toml.5", "man5/services.toml.5")
    for page in pages:
        assert machine.sh(f"zcat /usr/share/man/{page}.gz | head -n 1").startswith(".Dd")
    assert machine.sh("dpkg --verify sysresp") == ""
    conffiles = machine.sh("dpkg-query -W -f '${Conffiles}' sysresp")
    assert conffiles == "", "a conffile can block an unattended upgrade with a question"


def rights(machine: Machine) -> None:
    """Ask as the controller's account: it may restart what was applied, and run nothing of its own."""
    call = "busctl call org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager"
    ask = f"setpriv --reuid=sysresp --regid=sysresp --clear-groups {call}"
    machine.sh(f"{ask} RestartUnit ss demo-front.socket replace && exit 1 || true")
    machine.sh(f"{ask} RestartUnit ss demo-report.service replace")
    done = machine.run(["sh", "-c", f"{ask} StartTransientUnit 'ssa(sv)a(sa(sv))' evil.service replace 0 0"])
    assert "denied" in done.stderr.lower() or "authentication" in done.stderr.lower(), done


def test_an_upgrade_that_fails_leaves_the_old_one(machine: Machine) -> None:
    """Also: what an installation without the recommended packages, and so without polkit, is like."""
    install(machine, VERSION, "install without recommended packages", "--no-install-recommends")
    first = machine.controller()
    told = json.loads(machine.run(["sysresp", "doctor", "--json"]).stdout)
    polkit = next(found for found in told["findings"] if found["check"] == "polkit")
    assert (polkit["level"], polkit["what"]) == ("limit", "there is no polkit")
    apply_example(machine)
    row = machine.crash("demo-web@1.service")
    before = machine.pids(SERVICES)

    done = machine.run(["apt-get", "-y", "-q", "install", "/debs/broken.deb"], timeout=300)
    assert done.returncode != 0
    assert "refused by its preinst" in done.stdout + done.stderr
    assert machine.installed() == f"ii {VERSION}"
    assert machine.sh("sysresp --version") == f"sysresp {VERSION}"
    machine.controller()
    assert machine.pids(SERVICES) == before
    assert row in machine.ledger()

    install(machine, NEXT, "upgrade after a failed one")
    assert machine.controller() != first
    assert machine.pids(SERVICES) == before
    assert row in machine.ledger()

    polkit_fix = polkit["fix"].partition(";")[0].partition(", or")[0]
    machine.apt("the mend of doctor", polkit_fix.removeprefix("apt "))
    told = json.loads(machine.run(["sysresp", "doctor", "--json"]).stdout)
    assert next(found for found in told["findings"] if found["check"] == "polkit")["level"] == "ok"
    rights(machine)


def exporter(machine: Machine) -> None:
    """Let the package's socket, which nobody has enabled, serve metrics, once what they need is there."""
    assert machine.show(EXPORTER, "UnitFileState") == "disabled"
    assert "sysresp_controller_up" in machine.sh("sysresp metrics --format json")
    said = machine.sh("sysresp metrics enable 2>&1 && exit 1 || true")
    assert "apt install python3-prometheus-client" in said
    machine.apt("install of prometheus-client", "install", "python3-prometheus-client")
    machine.sh("sysresp metrics enable --listen 127.0.0.1:9000")
    text = machine.sh(f'python3 -c "{GET}"')
    assert "sysresp_controller_up 1.0" in text
    assert 'unit="demo-db.service"' in text
    assert machine.show("sysresp-metrics.service", "User") == "sysresp-metrics"
    assert machine.show(EXPORTER, "UnitFileState") == "enabled"
