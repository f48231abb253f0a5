"""`incidents`, `events`, and what `status` takes from the ledger: on a fake host with a real ledger."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from sysresp.cli import incidents, remembered
from sysresp.controller.events import Exit, Fate, Note, UnitMemory, Wait
from sysresp.errors import Exit as Status
from tests.ledger_world import DB, DISK, WEB, World, block

# typer 0.7 knows only `autocompletion`, and warns that Click has renamed it.
pytestmark = pytest.mark.filterwarnings("ignore:'autocompletion' is renamed:DeprecationWarning")


def test_incidents_are_lines_with_what_followed(world: World) -> None:
    now = world.clock.now()
    rows = [
        Exit(WEB, "a" * 32, now - 50, "exit-code", 1, 3, Fate.RETRY, now + 5, "", 1, 75.0),
        Exit(
            "shop-cron@1.service", "b" * 32, now - 40, "core-dump", 3, 11, Fate.GAVE_UP, because="too often"
        ),
        Exit(WEB, "lost-1", source="count"),
        Exit("gone.service", "c" * 32, now - 10, "success", 1, 0, Fate.FINISHED),
    ]
    note = Note("blocked", DB, f"needs {DISK}", now - 30)
    world.ledger.commit(rows, [note, Note("start", DB, "healed", now - 20)], when=now - 5)
    lines = world.run("incidents", "--exits").splitlines()
    assert [line.split("  ")[0] for line in lines[1:]] == [
        "2023-11-14 22:29:10",
        "2023-11-14 22:29:20",
        "2023-11-14 22:29:30",
        "2023-11-14 22:29:50",
        "before 2023-11-14 22:29:55",
    ]
    assert "web" in lines[1]
    assert "exit status 3" in lines[1]
    assert "1min 15s" in lines[1]
    assert lines[1].endswith("will retry in 5s")
    assert "cron@1" in lines[2]
    assert "killed by SIGSEGV, core dumped" in lines[2]
    assert lines[2].endswith("gave up: too often")
    assert f"blocked: needs {DISK}" in lines[3]
    assert "gone.service" in lines[4]
    assert "exit status 0" in lines[4]
    assert "the details are gone from the journal" in lines[5]
    found = json.loads(world.run("incidents", "--exits", "--json"))
    assert [one["kind"] for one in found["exits"]] == ["exit", "exit", "blocked", "exit", "exit"]
    assert found["exits"][0] == {
        "kind": "exit",
        "unit": WEB,
        "project": "shop",
        "service": "web",
        "instance": None,
        "invocation": "a" * 32,
        "when": "2023-11-14T22:29:10Z",
        "what": "exit status 3",
        "result": "exit-code",
        "exit_code": 3,
        "signal": None,
        "core_dump": False,
        "fate": "will retry",
        "retry_at": "2023-11-14T22:30:05Z",
        "because": None,
        "attempt": 1,
        "uptime_sec": 75.0,
        "memory_peak_bytes": None,
        "generation": None,
        "source": "live",
    }
    assert len(json.loads(world.run("incidents", "--exits", "--json", "web"))["exits"]) == 2
    assert len(json.loads(world.run("incidents", "--exits", "--json", "--since", "35s"))["exits"]) == 3
    text = world.run("incidents", "--exits", "-n", "1")
    assert "there are earlier ones" in text
    assert "gone from" in text


def test_without_a_ledger_there_are_no_incidents(bare: World) -> None:
    for command in ("incidents", "events"):
        assert "sysresp controller enable" in bare.run(command)
    assert '"exits": []' in bare.run("incidents", "--exits", "--json")


def test_events_are_exits_and_notes(world: World) -> None:
    now = world.clock.now()
    row = Exit(WEB, "a" * 32, now - 50, "exit-code", 1, 3, Fate.GAVE_UP, uptime_sec=2)
    world.ledger.commit([row], [Note("gap", "", "blind for 2s", now - 20), Note("start", DB, when=now)])
    assert world.run("events").splitlines() == [
        "2023-11-14 22:29:10  web  exit status 3 after 2s; gave up",
        "2023-11-14 22:29:40  (controller)  gap: blind for 2s",
        "2023-11-14 22:30:00  db  start",
    ]
    found = [json.loads(line) for line in world.run("events", "--json", "-n", "2").splitlines()]
    assert [(one["version"], one["kind"], one["unit"]) for one in found] == [
        (1, "gap", None),
        (1, "start", DB),
    ]


def test_following_shows_what_comes_until_ctrl_c(
    bare: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The ledger comes late, grows, and is begun anew; nothing is shown twice."""
    begin = bare.clock.monotonic()

    def note(text: str) -> None:
        bare.ledger.commit(notes=[Note("start", WEB, text, bare.clock.now())])

    def replace() -> None:
        bare.ledger.close()
        Path(remembered.ledger("system", {})).rename("old.db")
        bare.ledger.open()
        note("third")

    def end() -> None:
        raise KeyboardInterrupt

    bare.clock.at(begin + 1, bare.start_controller)
    bare.clock.at(begin + 2, lambda: note("first"))
    bare.clock.at(begin + 3, lambda: note("second"))
    bare.clock.at(begin + 4, replace)
    bare.clock.at(begin + 6, end)
    assert incidents.events(incidents.Asked(), follow=True) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.rpartition(" ")[2] for line in lines] == ["first", "second", "third"]
    assert max(bare.clock.slept) < 1000.5


def present() -> remembered.Now:
    return remembered.Now(time.time(), time.clock_gettime(time.CLOCK_MONOTONIC))


def status_of(world: World, *words: str, status: int) -> dict[str, dict[str, Any]]:
    return {one["unit"]: one for one in json.loads(world.run("status", "--json", *words, status=status))}


def test_status_shows_what_the_controller_waits_for(world: World) -> None:
    block(world)
    wake_at = present().monotonic + 860.9
    world.ledger.commit(
        units={
            DISK: UnitMemory(wait=Wait.COOLDOWN, wake_at=wake_at),
            "shop-cron@1.service": UnitMemory(is_healthy=False, why="status 500"),
            "shop-cron@2.service": UnitMemory(is_healthy=True),
        }
    )
    found = status_of(world, status=Status.NOT_WELL)
    assert [found[unit]["state"] for unit in (DISK, DB, WEB)] == ["cooling down", "blocked", "blocked"]
    assert (found[DISK]["wait"], found[WEB]["waits_for"]) == ("cooldown", [DB])
    assert found[DISK]["next_start"] is not None
    cron = [found[f"shop-cron@{n}.service"] for n in (1, 2)]
    assert [(one["healthy"], one["well"], one["reason"]) for one in cron] == [
        (False, False, "unhealthy: status 500"),
        (True, True, None),
    ]
    table = world.run("status", status=Status.NOT_WELL)
    assert "cooling down: exit status 1" in table
    assert "start in 14min" in table
    assert f"blocked: needs {DB}" in table
    assert "cron@1 running: unhealthy: status 500" in table


def test_status_does_not_believe_a_memory_that_systemd_contradicts(world: World) -> None:
    world.ledger.commit(units={WEB: UnitMemory(wait=Wait.COOLDOWN, wake_at=1.0)})
    assert status_of(world, "web", status=0)[WEB]["state"] == "running"


def test_status_without_a_controller_is_systemds_own(world: World) -> None:
    block(world)
    world.ledger.close()
    found = status_of(world, status=Status.NOT_WELL)
    assert (found[DISK]["state"], found[WEB]["wait"]) == ("failed", None)
