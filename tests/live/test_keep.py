"""What systemd leaves dead, the controller brings back; and what was stopped stays stopped."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest

from tests.live.conftest import CHECKOUT, Box
from tests.live.storms import TRUTH, enable, query
from tests.live.until import until

pytestmark = pytest.mark.live

CHAIN = "abcde"
COUNTED = """\
#!/bin/sh
# Fails until it was run $2 times.
echo x >>"$1"
[ "$(wc -l <"$1")" -gt "$2" ]
"""


def active(box: Box, *names: str) -> list[str]:
    """Return ActiveState of these services."""
    units = [f"{box.project}-{name}.service" for name in names]
    return box.systemctl("is-active", *units, check=False).stdout.split()


def apply(box: Box, text: str, *options: str) -> None:
    path = box.write(f"/etc/sysresp/{box.project}.toml", f'project = "{box.project}"\n{text}')
    box.sysresp("apply", path, *options)


def chain(box: Box, failures: int) -> str:
    """Return five services, each of which needs the one before; the first fails a few times."""
    counted = box.write("/usr/local/bin/counted", COUNTED, 0o755)
    text = f"""
    [defaults]
    command = ["/bin/sleep", "infinity"]
    [services.a]
    pre_start = ["{counted}", "/run/{box.project}-tries", "{failures}"]
    restart = {{ when = "on-failure", delay = "500ms" }}
    """
    for name, needed in pairwise(CHAIN):
        text += f'[services.{needed}]\nrequires = ["{name}"]\n'
    return text


@pytest.mark.parametrize("is_killed", [False, True], ids=["watched", "killed in between"])
def test_a_chain_heals(box: Box, is_killed: bool) -> None:
    enable(box)
    apply(box, chain(box, 3), "--no-rollback")
    if is_killed:
        box.systemctl("kill", "-s", "KILL", "sysresp.service")
    until(lambda: active(box, *CHAIN) == ["active"] * 5, "the chain is up")


def test_a_chain_does_not_heal_by_itself(box: Box) -> None:
    """What the test above shows is the controller's doing."""
    apply(box, chain(box, 3), "--no-rollback")
    until(lambda: active(box, "a") == ["active"], "the first is up")
    assert active(box, *"bcde") == ["inactive"] * 4


def test_what_was_stopped_meanwhile_stays_stopped(box: Box) -> None:
    enable(box)
    apply(box, chain(box, 8), "--no-rollback")
    unit = f"{box.project}-d.service"
    until(lambda: _notes(box, unit, "blocked"), "it is known to be blocked")
    box.systemctl("stop", unit)
    until(lambda: active(box, *"abc") == ["active"] * 3, "the first three are up")
    until(lambda: not _waiting(box), "nothing more is to come")
    assert active(box, "d") == ["inactive"]


def _notes(box: Box, unit: str, kind: str) -> list[str]:
    rows = query(box, "SELECT text FROM note WHERE unit = ? AND kind = ?", unit, kind)
    return [text for (text,) in rows]


def _waiting(box: Box) -> list[str]:
    """Return the units for which the controller will do something at a time it knows."""
    rows = query(box, "SELECT unit, fields FROM memory")
    return [unit for unit, fields in rows if json.loads(fields).get("wake_at")]


def test_a_service_at_its_start_limit_is_up_after_its_cooldown(box: Box) -> None:
    """Ten failures, three allowed in a row; its twin, left to systemd alone, stays failed."""
    enable(box)
    counted = box.write("/usr/local/bin/counted", COUNTED, 0o755)
    script = box.write(
        "/usr/local/bin/flaky", f'#!/bin/sh\n{counted} "$1" 10 && exec sleep infinity\nexit 1\n', 0o755
    )
    limit = 'when = "on-failure", delay = "100ms", attempts = 3, within = "1min"'
    apply(
        box,
        f"""
        [services.kept]
        command = ["{script}", "/run/{box.project}-kept"]
        restart = {{ {limit}, then = "cooldown 1s" }}
        [services.left]
        command = ["{script}", "/run/{box.project}-left"]
        restart = {{ {limit} }}
        """,
        "--no-rollback",
    )
    until(lambda: active(box, "left") == ["failed"], "the twin has failed")
    tries = box.path(f"/run/{box.project}-kept")
    until(lambda: len(tries.read_text().split()) == 11, "the kept one was started eleven times")
    until(lambda: active(box, "kept") == ["active"], "the kept one is up")
    assert len(tries.read_text().split()) == 11
    assert active(box, "left") == ["failed"]
    assert len(box.read(f"/run/{box.project}-left").split()) == 3


BACKOFF = """
[services.web]
command = ["{crash}", "{truth}", "3"]
restart = {{ when = "on-failure", delay = "1s", max_delay = "4s", steps = 3, reset_after = "3s" }}
"""


def _starts(box: Box, unit: str) -> list[float]:
    """Return when each run that has ended began, by the ledger: its end less its length."""
    rows = query(box, 'SELECT "when", uptime_sec FROM exit WHERE unit = ? ORDER BY "when"', unit)
    return [when - uptime for when, uptime in rows]


@pytest.mark.slow
def test_the_pause_grows_as_check_says(box: Box) -> None:
    """On 252 by the controller, on 257 by systemd; counted anew after a stable run; alone, at the cap."""
    enable(box)
    unit = f"{box.project}-web.service"
    box.run(["mkdir", "-p", TRUTH], check=True)
    truth = f"{TRUTH}/{unit}"
    text = BACKOFF.format(crash=f"{CHECKOUT}/tests/live/bin/crash", truth=truth)
    apply(box, text, "--no-rollback")
    path = f"/etc/sysresp/{box.project}.toml"
    preview = json.loads(box.sysresp("check", "--json", path, check=True).stdout)
    (curve,) = preview["backoff"]
    assert curve["by"] == ("systemd" if box.version >= 254 else "controller")
    expected = curve["restarts_after_sec"]
    assert expected == pytest.approx([1, 1.587, 2.520, 4], rel=0.01)
    runs = until(lambda: found if len(found := _starts(box, unit)) >= 5 else None, "five runs", 40)
    measured = [b - a for a, b in pairwise(runs[:5])]
    print(f"\nsystemd {box.version}: pauses {[round(x, 2) for x in measured]}, check said {expected}")
    # systemd's own timers have 250 ms of slack (AccuracySec of a service's timer).
    slack = 0.25 if box.version >= 254 else 0.0
    for pause, wanted in zip(measured, expected, strict=True):
        assert wanted * 0.95 <= pause <= wanted * 1.2 + slack

    box.write(f"{TRUTH}/calm", "")
    until(lambda: active(box, "web") == ["active"], "it is up")
    until(lambda: _notes(box, unit, "reset"), "its run counts as stable")
    box.path(f"{TRUTH}/calm").unlink()
    before = len(box.read(truth).split())
    box.systemctl("kill", "-s", "KILL", unit)
    until(lambda: len(box.read(truth).split()) > before, "it is back at once", 2.5)

    box.systemctl("stop", "sysresp.service")
    before = len(box.read(truth).split())
    until(lambda: len(box.read(truth).split()) > before, "systemd alone brings it back", 6)
