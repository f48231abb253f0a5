"""What systemd leaves of a start that was refused or blocked, and of a stop: what a resync goes by.

tests/toy_systemd.py, on which the policy is simulated, claims no more than this.
"""

from __future__ import annotations

import json

import pytest

from tests.live.conftest import Box
from tests.live.until import until

pytestmark = pytest.mark.live

WAITS = "[Service]\nExecStart=/bin/false\nRestart=on-failure\nRestartSec=300\n"
LIMITED = "[Unit]\nStartLimitBurst=1\nStartLimitIntervalSec=1h\n"
BLOCKED = "be02cf6855d2428ba40df7e9d022f03d"  # MESSAGE_ID of a start job that failed
FIELDS = ("ActiveState", "InvocationID", "StateChangeTimestampMonotonic")


def states(box: Box, unit: str) -> dict[str, str]:
    return {field: box.show(unit, field) for field in FIELDS}


def blocked(box: Box, unit: str) -> list[dict[str, str]]:
    words = ["journalctl", "-o", "json", "_PID=1", f"MESSAGE_ID={BLOCKED}", f"UNIT={unit}"]
    words.append("JOB_RESULT=dependency")
    return [json.loads(line) for line in box.run(words, check=True).stdout.splitlines()]


def test_a_blocked_start_changes_no_state_of_what_had_failed(box: Box) -> None:
    db, web = f"{box.project}-db.service", f"{box.project}-web.service"
    box.write(f"/run/systemd/system/{db}", "[Service]\nType=oneshot\nExecStart=/bin/false\n")
    need = f"[Unit]\nRequires={db}\nAfter={db}\n[Service]\nType=exec\nExecStart=/bin/sh -c 'exit 7'\n"
    box.write(f"/run/systemd/system/{web}", need.replace(f"Requires={db}\nAfter={db}\n", ""))
    box.systemctl("start", web, check=False)  # Type=exec, and whether it waits for the end is a race
    until(lambda: box.show(web, "ActiveState") == "failed", "it fails by itself")
    box.write(f"/run/systemd/system/{web}", need)
    box.systemctl("daemon-reload")
    before = states(box, web)
    assert box.systemctl("start", web, check=False).returncode != 0
    assert states(box, web) == before
    entries = until(lambda: blocked(box, web), "the journal has it")
    assert [entry["JOB_TYPE"] for entry in entries] == ["start"]
    assert entries[0]["INVOCATION_ID"] == before["InvocationID"]  # of the run before


def test_a_stop_of_what_waits_ends_in_inactive_and_a_refused_restart_in_failed(box: Box) -> None:
    unit, other = f"{box.project}-a.service", f"{box.project}-b.service"
    box.write(f"/run/systemd/system/{unit}", WAITS)
    box.write(f"/run/systemd/system/{other}", LIMITED + WAITS)
    for name in (unit, other):
        box.systemctl("start", name)
        until(lambda name=name: box.show(name, "SubState") == "auto-restart", "it waits")
    box.systemctl("stop", unit)
    assert box.show(unit, "ActiveState") == "inactive"
    run = box.show(other, "InvocationID")
    assert box.systemctl("restart", other, check=False).returncode != 0
    assert [box.show(other, name) for name in ("ActiveState", "InvocationID")] == ["failed", run]


def test_what_is_unloaded_has_its_starts_forgotten(box: Box) -> None:
    unit = f"{box.project}-a.service"
    box.write(f"/run/systemd/system/{unit}", LIMITED + "[Service]\nType=oneshot\nExecStart=/bin/true\n")
    for _ in range(3):
        box.systemctl("start", unit)
