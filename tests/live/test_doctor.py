"""`sysresp doctor` on booted systems: what it says is so, and what mends it does."""

from __future__ import annotations

import json
from typing import Any

from tests.live.conftest import UID, USER, Box


def findings(box: Box, *args: str, user: str | None = None, **env: str) -> dict[str, dict[str, Any]]:
    """Run it as root, or as the test user without a session, and return what it found by check."""
    words = [box.python, "-m", "sysresp", "doctor", "--json", *args]
    done = box.run(words, user=user, env=env)
    assert done.stdout, done.stderr
    told = json.loads(done.stdout)
    found = {one["check"]: one for one in told["findings"]}
    bad = {name for name, one in found.items() if one["level"] in {"limit", "missing"}}
    assert done.returncode == (3 if bad else 0), done.stdout + done.stderr
    assert told["facts"]["version"] == box.version
    return found


def test_a_volatile_journal_and_its_mend(box: Box) -> None:
    found = findings(box)
    assert found["journal"]["what"] == "the journal is only in memory"
    assert found["systemd"]["what"].startswith(f"systemd {box.version}")
    assert ("do not grow" in found["systemd"]["what"]) == (box.version < 254)
    assert found["cgroup"]["level"] == "ok"
    # The sandbox says Storage=volatile, which the mend speaks of as well.
    settings = "/run/systemd/journald.conf.d/50-sandbox.conf"
    before = box.read(settings)
    try:
        box.run(["rm", settings], check=True)
        mend = found["journal"]["fix"].partition(";")[0]
        box.run(["sh", "-c", mend], check=True)
        box.run(["journalctl", "--flush"], check=True)
        assert findings(box)["journal"]["level"] == "ok"
    finally:
        box.write(settings, before)
        box.run(["rm", "-rf", "/var/log/journal"], check=True)
        box.systemctl("restart", "systemd-journald.service")


def test_a_user_without_a_session_and_without_lingering(box: Box) -> None:
    nothing = {"XDG_RUNTIME_DIR": "", "DBUS_SESSION_BUS_ADDRESS": ""}
    found = findings(box, "--user", user=USER, **nothing)
    assert found["session"]["level"] == "missing"
    assert found["session"]["fix"].startswith(f"loginctl enable-linger {USER}")
    assert f"/run/user/{UID}" in found["session"]["fix"]
    assert found["linger"]["what"] == f"{USER} does not linger"
    assert found["journal-access"]["fix"].startswith(f"usermod --append --groups systemd-journal {USER}")
    try:
        # What enable-linger does, where no logind runs.
        box.run(["install", "-D", "/dev/null", f"/var/lib/systemd/linger/{USER}"], check=True)
        box.need_user_manager()
        found = findings(box, "--user", user=USER)
        assert "session" not in found
        assert found["linger"]["level"] == "ok"
        assert found["controller"]["fix"] == "sysresp controller enable --user"
    finally:
        box.run(["rm", "-rf", "/var/lib/systemd/linger"], check=True)


def test_a_directory_that_others_may_write(box: Box) -> None:
    box.run(["install", "-d", "-m", "777", "/var/lib/sysresp"], check=True)
    found = findings(box)["directories"]
    assert "can be written by others" in found["what"]
    box.run(["sh", "-c", found["fix"]], check=True)
    assert findings(box)["directories"]["level"] == "ok"


def test_no_d_bus(box: Box) -> None:
    box.systemctl("stop", "dbus.socket", "dbus.service")
    try:
        found = findings(box)
        assert found["dbus"]["what"] == "there is no D-Bus"
        assert found["systemd"]["what"].startswith(f"systemd {box.version}")  # root's own way in still works
    finally:
        box.systemctl("start", "dbus.socket", "dbus.service")
