"""The sandbox itself: what it shows, what it hides, and that it leaves nothing."""

from __future__ import annotations

import pytest

from tests.live.conftest import UID, USER, Box

pytestmark = pytest.mark.live


def test_boots_and_starts_nothing_of_the_host(box: Box) -> None:
    assert box.systemctl("is-system-running", check=False).stdout.strip() in ("running", "degraded")
    assert box.systemctl("--failed", "--no-legend").stdout == ""
    running = box.systemctl(
        "list-units", "--type=service", "--state=running", "--no-legend", "--plain"
    ).stdout
    names = {line.split()[0] for line in running.splitlines()}
    assert names - {"systemd-logind.service", f"user@{UID}.service"} == {
        "dbus.service",
        "systemd-journald.service",
    }


def test_runs_a_unit_and_its_journal(box: Box) -> None:
    unit = f"{box.project}-hello.service"
    box.write(
        f"/etc/systemd/system/{unit}",
        "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/echo good day\nMemoryMax=64M\n",
    )
    box.systemctl("daemon-reload")
    box.systemctl("start", unit)
    assert box.show(unit, "ActiveState") == "active"
    journal = box.run(["journalctl", "--sync"], check=True) and box.run(
        ["journalctl", "-u", unit, "-o", "cat"]
    )
    assert "good day" in journal.stdout


def test_runs_a_unit_of_a_user(box: Box) -> None:
    unit = f"{box.project}-mine"
    box.need_user_manager()
    box.run(["systemd-run", "--user", f"--unit={unit}", "sleep", "60"], user=USER, check=True)
    assert box.show(f"{unit}.service", "ActiveState", user=USER) == "active"
