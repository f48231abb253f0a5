"""`incidents`, `incidents show N` and `alerts`: on a fake host with a real ledger."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from sysresp.cli.alert_test import properties
from sysresp.controller import own
from sysresp.controller.events import Exit, Fate
from sysresp.controller.incident_rows import Verdict, statements
from sysresp.controller.incidents import Incident, Part, Told
from sysresp.controller.telling import Message
from sysresp.errors import Exit as Status
from sysresp.ports import Line
from tests.ledger_world import DB, WEB, World

# typer 0.7 knows only `autocompletion`, and warns that Click has renamed it.
pytestmark = pytest.mark.filterwarnings("ignore:'autocompletion' is renamed:DeprecationWarning")


@pytest.fixture
def world(bare: World) -> World:
    """A database that gave up with what needs it, told once; and an incident that is over."""
    bare.start_controller()
    now = bare.clock.now()
    run = "a" * 32
    over = Incident(
        1, WEB, now - 900, (Part(WEB, ("flapping",), "5 failures", now - 900),), resolved=now - 780
    )
    down = Incident(
        *(2, DB, now - 60),
        (
            Part(DB, ("gave-up",), "too many starts", now - 60, (), 3, "exit status 3", run),
            Part(WEB, ("blocked",), "a unit that it requires is down", now - 59, (DB,)),
        ),
        told={"shop/ops": Told(now - 58, now - 58)},
    )
    merged = Incident(3, WEB, now - 60, (Part(WEB, ("gave-up",), "", now - 60),), resolved=now - 59, into=2)
    message = Message("key", "shop/ops", 2, "opened", DB, now - 58, now - 58, "{}")
    later = message._replace(key="later", kind="escalated")
    verdict = Verdict("delivered", 3, now - 50, "", "shop/ops", "key")
    rows = [Exit(DB, run, now - 61, "core-dump", 3, 11, Fate.GAVE_UP, because="too many starts", attempt=3)]
    made = statements({one.id: one for one in (over, down, merged)}, [message, later], [verdict])
    bare.ledger.commit(rows, statements=made, when=now)
    bare.journal.lines[DB] = ["FATAL: out of disk"]
    bare.journal.dumps[DB] = [4711]
    return bare


def test_incidents_are_lines_the_root_first(world: World) -> None:
    lines = world.run("incidents").splitlines()
    assert len(lines) == 2
    assert "1  resolved" in lines[0]
    assert "web fails again and again (5 failures); over after 2min" in lines[0]
    assert "2  open" in lines[1]
    assert "db is down for good (too many starts; exit status 3), with it web; for 1min" in lines[1]
    assert world.run("incidents", "db").splitlines() == lines[1:]
    assert "there are earlier ones" in world.run("incidents", "-n", "1")
    assert world.run("incidents", "--since", "5min").splitlines() == lines[1:]
    assert "there was no incident" in world.run("incidents", "disk")


def test_incidents_as_json(world: World) -> None:
    found = json.loads(world.run("incidents", "--json"))
    assert [one["state"] for one in found["incidents"]] == ["resolved", "open"]
    one = found["incidents"][1]
    assert (one["incident"], one["service"], one["unit"], one["failures"]) == (2, "db", DB, 3)
    assert [each["unit"] for each in one["units"]] == [DB, WEB]
    assert one["units"][1]["waits_for"] == [DB]
    assert one["told"][0]["alert"] == "shop/ops"


def test_all_about_one(world: World) -> None:
    text = world.run("incidents", "show", "2")
    for words in (
        "db: too many starts; 3 failures, the last: exit status 3",
        "`- web: a unit that it requires is down (db)",
        "killed by SIGSEGV, core dumped",
        "FATAL: out of disk",
        "coredumpctl info 4711",
        "generation 1 was applied",
        "shop/ops  opened    incident 2  delivered",
        "after 3 tries",
    ):
        assert words in text
    assert world.journal.calls[-1] == (DB, 50, "a" * 32)
    found = json.loads(world.run("incidents", "show", "2", "--json"))
    assert found["logs"] == [{"unit": DB, "invocation": "a" * 32, "lines": ["FATAL: out of disk"]}]
    assert found["fingerprints"] == []
    world.journal.lines[DB] = ["Traceback (most recent call last):", '  File "/srv/db.py", line 3, in main']
    world.journal.lines[DB] += ["    run()", "ValueError: no room"]
    assert "it died of python: ValueError in main" in world.run("incidents", "show", "2")
    (trace,) = json.loads(world.run("incidents", "show", "2", "--json"))["fingerprints"]
    assert (trace["unit"], trace["kind"], trace["message"]) == (DB, "ValueError", "no room")
    assert (trace["times"], trace["other_incidents"]) == (None, [])  # the journal has no such line any more
    at = world.clock.now()
    for when in (at - 62, at - 61):  # both before it opened, and so many runs of one service
        world.journal.scanned += [Line(DB, "a" * 32, when, text) for text in world.journal.lines[DB]]
    assert "  seen 2 times since " in world.run("incidents", "show", "2")
    (trace,) = json.loads(world.run("incidents", "show", "2", "--json"))["fingerprints"]
    assert (trace["times"], trace["other_incidents"], trace["read_since"]) == (2, [], None)
    assert found["core_dumps"] == [{"unit": DB, "pids": [4711]}]
    assert [one["state"] for one in found["messages"]] == ["delivered", "queued"]
    assert found["exits"][0]["core_dump"] is True
    assert "sysresp incidents show 2" in world.run("incidents", "show", "3")


def test_what_changed_before_is_shown(world: World) -> None:
    path = Path("services.toml")
    path.write_text(path.read_text().replace("[services.db]", "[services.db]\nnice = 5"))
    world.run("apply", "services.toml", "--settle", "0")
    now = world.clock.now()
    later = Incident(9, DB, now + 5, (Part(DB, ("gave-up",), "", now + 5),))
    world.ledger.commit(statements=statements({9: later}, [], []), when=now)
    text = world.run("incidents", "show", "9")
    assert "since generation 1:" in text
    assert "+nice = 5" in text
    assert "+Nice=5" in text


def test_what_is_not_there_is_said(world: World, bare: World) -> None:
    assert "there is no incident 99" in world.run("incidents", "show", "99", status=Status.UNKNOWN)
    assert 'no project that is applied here has an alert "ops"' in world.run(
        "alerts", "test", "ops", status=Status.UNKNOWN
    )


def test_without_a_controller(bare: World) -> None:
    assert "no controller has run" in bare.run("incidents")
    assert "no controller has run" in bare.run("alerts")
    assert '"incidents": []' in bare.run("incidents", "--json")


def test_the_queue_is_last(world: World) -> None:
    lines = world.run("alerts").splitlines()
    assert [line.split()[-1] for line in lines] == ["tries", "queued"]
    found = json.loads(world.run("alerts", "--json"))
    assert [one["kind"] for one in found["messages"]] == ["opened", "escalated"]
    assert time.strptime(found["messages"][0]["made"], "%Y-%m-%dT%H:%M:%SZ")


def test_a_test_takes_the_real_way(world: World) -> None:
    path = Path("services.toml")
    path.write_text(
        path.read_text() + '\n[alerts.ops]\nexec = "/bin/true"\n[alerts.no]\nexec = "/bin/false"\n'
    )
    world.run("apply", "services.toml", "--settle", "0")
    assert "ops has taken it" in world.run("alerts", "test", "ops")
    assert "no did not take it: /bin/false ended with 1" in world.run(
        "alerts", "test", "no", status=Status.FAILED
    )


def test_a_test_runs_as_the_controllers_unit_says() -> None:
    unit = own.packaged()[own.UNIT] + "\n# /etc/systemd/system/sysresp.service.d/ops.conf\n"
    unit += "[Unit]\nAfter=postfix.service\n[Service]\nLoadCredential=ops:/etc/ops\nUser=\nUser=me\n"
    found = properties(unit)
    assert {"NoNewPrivileges=yes", "ProtectSystem=strict", "SystemCallFilter=~@privileged @resources"} <= {
        *found
    }
    assert found[-3:] == ["LoadCredential=ops:/etc/ops", "User=", "User=me"]
    assert not [
        line for line in found if line.startswith(("Type", "Exec", "Restart", "Timeout", "Watchdog"))
    ]
