"""`why`, `incidents`, `events`, and `status` with a ledger: on a fake host, the ledger is a real one."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sysresp.cli import hosts, incidents, main, remembered
from sysresp.controller.events import Exit, Fate, Note, UnitMemory, Wait
from sysresp.controller.ledger import Ledger
from sysresp.errors import Exit as Status
from tests.fakes import FakeClock, FakeFiles, FakeJournal, FakeManager, fake_host

# typer 0.7 knows only `autocompletion`, and warns that Click has renamed it.
pytestmark = pytest.mark.filterwarnings("ignore:'autocompletion' is renamed:DeprecationWarning")

SHOP = """\
project = "shop"

[services.disk]
command = ["/bin/sh"]

[services.db]
command = ["/bin/sh"]
requires = ["disk"]

[services.web]
command = ["/bin/sh"]
requires = ["db"]

[services.cron]
command = ["/bin/sh"]
instances = 2
"""
DISK, DB, WEB = (f"shop-{name}.service" for name in ("disk", "db", "web"))


class World:
    """A host in memory on which the file was applied, with a controller and its ledger."""

    def __init__(self, top: Path) -> None:
        Path("services.toml").write_text(SHOP)
        self.files = FakeFiles()
        self.manager = FakeManager(self.files)
        self.journal = FakeJournal()
        self.host = fake_host(manager=self.manager, journal=self.journal)
        self.ledger = Ledger(str(top / "ledger.db"))
        self.is_running = True

    @property
    def clock(self) -> FakeClock:
        return self.manager.clock

    def run(self, *words: str, status: int = 0) -> str:
        result = CliRunner().invoke(main.app, list(words), prog_name="sysresp")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == status, result.output
        return result.output

    def why(self, *names: str) -> dict[str, Any]:
        found = json.loads(self.run("why", "--json", *names))
        assert found["version"] == 1
        units = {unit["unit"]: unit for unit in found["units"]}
        return units if len(units) != 1 else next(iter(units.values()))

    def start_controller(self) -> None:
        self.files.write("/etc/systemd/system/sysresp.service", b"[Service]\nExecStart=/bin/true\n")
        self.manager.set_state("sysresp.service", "active", "running")
        self.ledger.open()
        self.ledger.commit(meta={"boot": "b"})

    def fail(self, unit: str, status: int = 1, **memory: Any) -> None:
        """Let the unit be down as after an exit with a failure, and the controller know it."""
        self.manager.set_state(unit, "failed", "failed", "exit-code")
        row = Exit(unit, "1" * 32, self.clock.now() - 60, "exit-code", 1, status, Fate.GAVE_UP, uptime_sec=4)
        self.ledger.commit([row], units={unit: UnitMemory("1" * 32, failures=3, **memory)})


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Give a world without a controller."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    (tmp_path / "state").mkdir()
    one = World(tmp_path / "state")
    token = hosts.open_host.set(lambda _scope, _mode: one.host)
    places = remembered.directories.set((str(tmp_path / "state"),))
    one.run("apply", "--settle", "0")
    one.clock.sleep(1000)
    yield one
    one.ledger.close()
    remembered.directories.reset(places)
    hosts.open_host.reset(token)
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def world(bare: World) -> World:
    bare.start_controller()
    return bare


def block(world: World) -> None:
    """Let web wait for db, and db for disk, which cools down."""
    for unit, on in ((WEB, DB), (DB, DISK)):
        world.manager.set_state(unit, "inactive")
        world.ledger.commit(units={unit: UnitMemory(wait=Wait.BLOCKED, on=(on,))})
    world.fail(DISK, wait=Wait.COOLDOWN, wake_at=world.clock.monotonic() + 860)
    world.journal.lines[DISK] = ["mount: no such device"]


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


def test_what_somebody_stopped_says_so(world: World) -> None:
    world.manager.set_state(WEB, "inactive")
    world.ledger.commit(units={WEB: UnitMemory(is_stopped=True)})
    text = world.run("why", "web")
    assert f"{WEB}: stopped: by hand" in text
    assert "nothing, until somebody starts it; it was stopped by hand" in text
    assert "do: sysresp start web" in text


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
    lines = world.run("incidents").splitlines()
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
    found = json.loads(world.run("incidents", "--json"))
    assert [one["kind"] for one in found["incidents"]] == ["exit", "exit", "blocked", "exit", "exit"]
    assert found["incidents"][0] == {
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
    assert len(json.loads(world.run("incidents", "--json", "web"))["incidents"]) == 2
    assert len(json.loads(world.run("incidents", "--json", "--since", "35s"))["incidents"]) == 3
    text = world.run("incidents", "-n", "1")
    assert "there are earlier ones" in text
    assert "gone from" in text


def test_without_a_ledger_there_are_no_incidents(bare: World) -> None:
    for command in ("incidents", "events"):
        assert "sysresp controller enable" in bare.run(command)
    assert '"incidents": []' in bare.run("incidents", "--json")


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
