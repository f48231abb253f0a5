"""`why`: on a fake host with a real ledger, and without one."""

from __future__ import annotations

from pathlib import Path

import pytest

from sysresp.cli import remembered
from sysresp.controller.events import Exit, Fate, UnitMemory, Wait
from sysresp.errors import Exit as Status
from tests.ledger_world import DB, DISK, WEB, World, block

# typer 0.7 knows only `autocompletion`, and warns that Click has renamed it.
pytestmark = pytest.mark.filterwarnings("ignore:'autocompletion' is renamed:DeprecationWarning")


def test_a_chain_is_told_down_to_its_root(world: World) -> None:
    block(world)
    text = world.run("why", "web")
    assert text.splitlines()[0] == f"{WEB}: blocked: needs {DB}"
    chain = [line.strip() for line in text.splitlines() if "because of" in line]
    assert [line.partition(", for")[0] for line in chain] == [
        f"because of {DB}: blocked: needs {DISK}",
        f"because of {DISK}: cooling down: exit status 1",
    ]
    assert "next: the controller starts it again in 14min, at 22:44:20" in text
    assert f"next: the controller starts it as soon as {DB} is up" in text
    assert f"  last words of {DISK}:\n    mount: no such device\n" in text
    assert f"journalctl -u {DISK} -e" in text
    assert "services.toml:10 | [services.web] (generation 1)" in text
    found = world.why("web")
    assert (found["roots"], found["state"]) == ([DISK], "blocked")
    below = found["causes"][0]["causes"][0]
    assert (below["unit"], below["state"], below["next_at"]) == (
        DISK,
        "cooling down",
        "2023-11-14T22:44:20Z",
    )
    assert found["log"] == ["mount: no such device"]


def test_a_chain_that_is_a_circle_ends(world: World) -> None:
    for unit, on in ((WEB, (DB, DISK)), (DB, (WEB, DISK)), (DISK, (WEB,))):
        world.manager.set_state(unit, "inactive")
        world.ledger.commit(units={unit: UnitMemory(wait=Wait.BLOCKED, on=on)})
    text = world.run("why", "web", "db", "disk")
    assert f"because of {WEB}, see above" in text
    assert len(text.splitlines()) < 60


def test_a_cooldown_without_a_controller_is_no_promise(world: World) -> None:
    block(world)
    world.manager.set_state("sysresp.service", "inactive")
    world.ledger.close()
    text = world.run("why", "web", "disk")
    assert "nothing; the controller was to start it again, and does not run" in text
    assert f"nothing, even when {DB} is up again; no controller is at work" in text
    assert "sysresp controller enable" in text
    assert "the controller does not run, so what is known is older" in text


def test_without_a_ledger_systemd_is_asked(bare: World) -> None:
    bare.manager.set_state(DISK, "failed", "failed", "exit-code")
    bare.manager.set_state(DB, "inactive")
    bare.manager.set_state(WEB, "inactive")
    found = bare.why("web")
    assert (found["state"], found["roots"], found["last_exit"]) == ("stopped", [DISK], None)
    text = bare.run("why", "web")
    assert f"because of {DB}: stopped" in text
    assert f"because of {DISK}: failed: exit status 1" in text
    assert "only systemd's own memory is known (sysresp controller enable)" in text


def test_a_service_that_runs_is_told_with_its_last_end(world: World) -> None:
    row = Exit(WEB, "2" * 32, world.clock.now() - 300, "signal", 2, 9, Fate.RETRY, uptime_sec=75)
    world.ledger.commit([row])
    text = world.run("why", "web")
    assert text.splitlines()[0] == f"{WEB}: running"
    assert "its last run ended 2023-11-14 22:25:00 after 1min 15s: killed by SIGKILL\n" in text
    assert "do:" not in text
    assert "next:" not in text
    assert world.why("web")["last_exit"]["signal"] == "SIGKILL"


def test_a_service_that_is_unhealthy_runs_on(world: World) -> None:
    world.ledger.commit(units={WEB: UnitMemory(is_healthy=False, why="status 500")})
    text = world.run("why", "web")
    assert f"{WEB}: running: unhealthy: status 500" in text
    assert "next: it is left running, and its probe goes on" in text
    assert world.why("web")["healthy"] is False


def test_what_somebody_stopped_says_so(world: World) -> None:
    world.manager.set_state(WEB, "inactive")
    world.ledger.commit(units={WEB: UnitMemory(is_stopped=True)})
    text = world.run("why", "web")
    assert f"{WEB}: stopped: by hand" in text
    assert "nothing, until somebody starts it; it was stopped by hand" in text
    assert "do: sysresp start web" in text


@pytest.mark.parametrize(
    ("restart", "result", "words"),
    [
        ("always", "exit-code", "systemd gave up, as it does after too many starts"),
        ("on-failure", "start-limit-hit", "systemd gave up, as it does after too many starts"),
        ("on-abnormal", "exit-code", "Restart=on-abnormal does not follow such an end"),
        ("no", "signal", "Restart=no does not follow such an end"),
    ],
)
def test_why_systemd_leaves_it_dead(bare: World, restart: str, result: str, words: str) -> None:
    unit = bare.manager.set_state(WEB, "failed", "failed", result)
    unit.extra = {"Restart": restart}
    assert f"next: nothing; {words}" in bare.run("why", "web")


def test_what_the_controller_gave_up_has_its_reason(world: World) -> None:
    world.fail(WEB, fate=Fate.GAVE_UP, why="4 cooldowns in a row")
    assert "next: nothing; it was given up: 4 cooldowns in a row" in world.run("why", "web")


@pytest.mark.parametrize(
    ("load", "state", "commands"),
    [
        ("masked", "masked", [f"systemctl unmask {WEB}", "sysresp start web"]),
        ("not-found", "missing", ["sysresp drift web", "sysresp apply services.toml"]),
        ("bad-setting", "broken", [f"systemd-analyze verify {WEB}", "sysresp drift web"]),
    ],
)
def test_a_unit_that_systemd_will_not_start(
    world: World, load: str, state: str, commands: list[str]
) -> None:
    unit = world.manager.set_state(WEB, "inactive")
    unit.load = load
    if load == "masked":
        world.files.link(f"/etc/systemd/system/{WEB}", "/dev/null")
    elif load == "not-found":
        world.files.remove(f"/etc/systemd/system/{WEB}")
    else:
        world.files.write(f"/etc/systemd/system/{WEB}", b"[Service]\n")
    world.manager.reload()
    found = world.why("web")
    assert found["state"] == state
    told = [words.replace(str(Path.cwd()) + "/", "") for words in found["commands"]]
    assert told[: len(commands)] == commands
    assert found["next"].startswith("nothing, until")


def test_a_condition_that_is_not_met_is_named(world: World) -> None:
    unit = world.manager.set_state(WEB, "inactive")
    unit.extra = {
        "ConditionResult": False,
        "ConditionTimestamp": 1,
        "Conditions": [
            ("ConditionPathExists", False, True, "/srv/x", -1),
            ("ConditionHost", True, False, "a", 1),
        ],
    }
    assert world.why("web")["conditions"] == ["ConditionPathExists=!/srv/x"]
    assert "not met: ConditionPathExists=!/srv/x" in world.run("why", "web")


def test_systemds_own_restart_has_a_time(world: World) -> None:
    unit = world.manager.set_state(WEB, "activating", "auto-restart", "exit-code")
    at = int(world.clock.now() - 2) * 1_000_000
    unit.extra = {"StateChangeTimestamp": at, "RestartUSec": 30_000_000}
    assert "next: systemd starts it again in 28s, at 22:30:28" in world.run("why", "web")
    unit.extra["RestartUSecNext"] = 12_000_000
    assert "next: systemd starts it again in 10s, at 22:30:10" in world.run("why", "web")
    memory = UnitMemory(wait=Wait.BACKOFF, wake_at=world.clock.monotonic() + 4)
    world.ledger.commit(units={WEB: memory})
    assert "next: the controller ends systemd's wait, and it starts again in 4s" in world.run("why", "web")


def test_a_name_that_is_not_applied_offers_the_nearest(world: World) -> None:
    for command in ("why", "incidents", "events"):
        text = world.run(command, "wbe", status=Status.UNKNOWN)
        assert 'no service or unit of the name "wbe"' in text
        assert "did you mean web" in text


def test_all_instances_of_a_service_are_told(world: World) -> None:
    world.fail("shop-cron@2.service")
    found = world.why("cron")
    assert [(u["service"], u["instance"], u["well"]) for u in found.values()] == [
        ("cron", "1", True),
        ("cron", "2", False),
    ]
    assert world.why("cron@2")["instance"] == "2"


def test_a_ledger_that_cannot_be_read_is_said(world: World) -> None:
    world.ledger.close()
    path = Path(remembered.ledger("system", {}))
    path.write_bytes(b"nonsense " * 1000)
    assert "no ledger that can be read" in world.run("why", "web")
    assert "cannot read" in world.run("incidents", status=Status.FAILED)
