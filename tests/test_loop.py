"""The loop on a systemd that lives in virtual time, with a real ledger: stored first, then done."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sysresp.controller.events import Exit, Fate, Member, Note, Roster
from sysresp.controller.ledger import Ledger, LedgerTrouble
from sysresp.controller.loop import Loop, Ports
from sysresp.controller.reader import Reader
from sysresp.controller.tables import Stored
from sysresp.errors import Exit as Status
from sysresp.errors import SysrespError
from sysresp.units.supervision import Supervision
from tests.fake_systemd import FakeRecords, FakeSignals, FakeSystemd

WEB, DB = "shop-web.service", "shop-db.service"
DIRECTORY = "/etc/systemd/system"
TEXT = "[Unit]\n{limit}\n[Service]\nType=exec\nExecStart=/bin/web\nRestart=on-failure\nRestartSec={delay}\n"
FOREVER = "StartLimitIntervalSec=0"


def limit(starts: int) -> str:
    """Return a start limit that a test does not outlive."""
    return f"StartLimitBurst={starts}\nStartLimitIntervalSec=1h"


class Quiet:
    """`ports.Notify` that keeps the last status."""

    watchdog_sec = 0.0

    def __init__(self) -> None:
        self.last = ""

    def ready(self, status: str = "") -> None:
        self.last = status

    def status(self, status: str) -> None:
        self.last = status

    def alive(self) -> None: ...

    def extend(self, sec: float) -> None: ...

    def stopping(self, status: str = "") -> None: ...


class Breakable(Ledger):
    """A ledger that can be made to fail; it notes how often systemd had been asked when it was written."""

    def __init__(self, path: str, systemd: FakeSystemd) -> None:
        super().__init__(path)
        self.why = ""
        self.systemd = systemd
        self.commits: list[tuple[Sequence[Exit], int]] = []

    def commit(self, rows: Sequence[Exit] = (), *args: Any, **kwargs: Any) -> None:
        if self.why:
            raise LedgerTrouble(self.why)
        super().commit(rows, *args, **kwargs)
        self.commits.append((rows, len(self.systemd.changes())))


class Scene:
    """One systemd, and a controller that can be killed and begun again."""

    def __init__(self, path: Path) -> None:
        self.systemd = FakeSystemd()
        self.signals = FakeSignals(self.systemd)
        self.records = FakeRecords(self.systemd)
        self.path = str(path / "ledger.db")
        self.said: list[str] = []
        self.roster = Roster({})
        self.notify = Quiet()
        self.begin()

    def begin(self) -> None:
        """Begin a controller, with the memory that the last one stored."""
        self.ledger = Breakable(self.path, self.systemd)
        stored = self.ledger.open()
        self.ledger.commits.clear()
        ports = Ports(
            self.systemd,
            self.signals,
            self.records,
            self.ledger,
            self.systemd.clock,
            self.notify,
            lambda: self.roster,
            self.systemd.boot,
            lambda _level, text: self.said.append(text),
        )
        self.loop = Loop(ports, stored)
        self.loop.connect("start")

    def add(self, unit: str, supervision: Supervision, limit: str = FOREVER, delay: str = "1s") -> None:
        """Install a unit, and let the controller know."""
        text = TEXT.format(delay=delay, limit=limit)
        self.systemd.files.write(f"{DIRECTORY}/{unit}", text.encode())
        member = Member(unit, "shop", unit, supervision=supervision)
        self.roster = Roster({**self.roster.members, unit: member})
        self.loop.roster_changed()
        self.systemd.start(unit)
        self.live(0.1)

    def live(self, seconds: float) -> None:
        """Let time pass: systemd acts in it, and the controller is woken for what it waits for."""
        end = self.systemd.clock.monotonic() + seconds
        while True:
            self.listen()
            now, due = self.systemd.clock.monotonic(), self.loop.memory.wake_at()
            if now >= end:
                return
            until = min(end, due or end, now + 0.5)  # it is told at once, as far as its waits are concerned
            self.systemd.pass_time(max(0.0, until - now))
            if due and self.systemd.clock.monotonic() >= due:
                self.listen()
                self.loop.woken()

    def listen(self) -> None:
        """Take in what was announced."""
        for _ in range(20):
            before = len(self.systemd.calls)
            if self.loop.is_connected and not self.loop.signals_came():
                self.loop.connect("disconnected")
            if len(self.systemd.calls) == before:
                return

    def crash(self, unit: str = WEB) -> str:
        run = self.systemd.loaded[unit].invocation
        self.systemd.end_process(unit)
        return run

    def rows(self) -> list[Exit]:
        with Reader(self.path) as reader:
            return list(reader.exits())

    def runs(self) -> list[str]:
        return [row.invocation for row in self.rows()]

    def notes(self, kind: str) -> list[Note]:
        with Reader(self.path) as reader:
            notes = [told.what for told in reader.events()[0]]
            return [note for note in notes if isinstance(note, Note) and note.kind == kind]

    def active(self, unit: str = WEB) -> str:
        return self.systemd.loaded[unit].active if unit in self.systemd.loaded else "unloaded"


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_a_crash_is_one_row(scene: Scene) -> None:
    scene.add(WEB, Supervision())
    run = scene.crash()
    scene.live(5)
    assert scene.runs() == [run]
    assert scene.rows()[0].fate is Fate.RETRY
    assert scene.active() == "active"


def test_what_is_done_was_stored_before(scene: Scene) -> None:
    """The row of an exit, and the wish to shorten the wait, are in the ledger before systemd is asked."""
    scene.add(WEB, Supervision(max_delay_sec=60, steps=5, is_native=False, rest_sec=60), delay="60s")
    before = len(scene.systemd.changes())
    run = scene.crash()
    scene.live(3)
    asked = [call for call in scene.systemd.changes()[before:] if call[0] == "try_restart"]
    assert asked == [("try_restart", WEB)]
    written = [done for rows, done in scene.ledger.commits if any(row.invocation == run for row in rows)]
    assert written[0] == before
    assert scene.active() == "active"


def test_killed_and_begun_again_it_misses_nothing(scene: Scene) -> None:
    scene.add(WEB, Supervision())
    runs = [scene.crash()]
    scene.live(0.5)  # it is killed while systemd waits
    for _ in range(3):
        scene.systemd.pass_time(2)
        runs.append(scene.crash())
    scene.begin()
    scene.live(5)
    assert scene.runs() == runs


def test_what_the_journal_has_lost_is_counted(scene: Scene) -> None:
    scene.add(WEB, Supervision())
    runs = [scene.crash()]
    scene.live(2)
    scene.records.dropped = lambda _record: True
    for _ in range(3):
        scene.systemd.pass_time(2)
        scene.crash()
    scene.systemd.pass_time(2)
    scene.begin()
    scene.live(5)
    assert scene.runs()[0] == runs[0]
    known, *counted = scene.rows()[1:]  # which run was up is in memory, but not how it ended
    assert (known.result, known.exec_code) == ("", 0)
    assert [row.source for row in counted] == ["count", "count"]
    assert len(set(scene.runs())) == 4


def test_a_connection_that_is_lost_is_made_again(scene: Scene) -> None:
    scene.add(WEB, Supervision())
    runs = [scene.crash()]
    scene.live(3)
    scene.signals.break_off()
    runs.append(scene.crash())
    scene.live(5)
    assert scene.runs() == runs
    assert scene.signals.opened == 2


def test_without_a_ledger_it_goes_on_and_forgets_nothing(scene: Scene) -> None:
    scene.add(WEB, Supervision(cooldown_sec=10, attempts=2), limit(2))
    scene.ledger.why = "the disk is full"
    runs = [scene.crash()]
    scene.live(2)
    runs.append(scene.crash())
    scene.live(30)  # two starts were too many: it cools down, and is started
    assert scene.active() == "active"
    assert scene.runs() == []
    assert sum("the disk is full" in line for line in scene.said) == 1
    scene.ledger.why = ""
    assert scene.loop.flush()
    assert scene.runs() == runs
    assert scene.loop.owed.trouble == ""


def test_a_ledger_that_was_begun_anew_gets_all_of_the_memory(scene: Scene) -> None:
    scene.add(WEB, Supervision())
    scene.crash()
    scene.live(3)
    Path(scene.path).unlink()
    run = scene.crash()
    scene.live(3)
    scene.loop.flush()
    assert scene.runs() == [run]
    assert set(Ledger(scene.path).open().units) == {WEB}


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_a_clock_that_is_set_changes_nothing(scene: Scene, jump: float) -> None:
    """Waits are of the monotonic clock; only what is shown is of the other."""
    scene.add(WEB, Supervision(cooldown_sec=600, attempts=1), limit(1))
    runs = [scene.crash()]
    scene.live(5)
    assert scene.active() == "failed"
    scene.systemd.clock.start += jump
    scene.live(500)
    assert scene.active() == "failed"
    scene.begin()
    scene.live(50)
    assert scene.active() == "failed"
    scene.live(100)
    assert scene.active() == "active"
    assert scene.runs() == runs


def test_systemd_that_does_not_answer_is_asked_again(scene: Scene) -> None:
    scene.add(WEB, Supervision(cooldown_sec=5, attempts=1), limit(1))
    scene.crash()
    scene.live(1)
    scene.systemd.raises["restart"] = SysrespError("no answer", exit=Status.UNREACHABLE)
    scene.live(20)
    assert scene.active() != "active"
    del scene.systemd.raises["restart"]
    scene.live(60)
    assert scene.active() == "active"


def test_the_journal_cursor_moves_on_after_much(scene: Scene) -> None:
    scene.loop.cursor_rows = 3
    scene.add(WEB, Supervision())
    before = scene.loop.cursor
    for _ in range(4):
        scene.crash()
        scene.live(2)
    for _ in range(2):
        scene.loop.move_cursor()
    assert int(scene.loop.cursor) > int(before)
    assert Ledger(scene.path).open().cursor == scene.loop.cursor
    assert len(scene.runs()) == 4


BASE = "base.target"  # every service requires one, and a slice; neither is anybody's member


def needs_db(scene: Scene, *keys: str) -> None:
    """Install a web that needs db, by these keys of [Unit]."""
    scene.systemd.files.write(f"{DIRECTORY}/{BASE}", b"[Unit]\n")
    scene.systemd.start(BASE)
    scene.add(DB, Supervision())
    needs = "".join(f"\n{key}={DB}" for key in keys)
    scene.add(WEB, Supervision(), f"{FOREVER}\nRequires={BASE}\nAfter={DB}{needs}")


def test_what_blocks_is_what_is_down(scene: Scene) -> None:
    needs_db(scene, "Requires")
    scene.systemd.fail[DB] = "canceled"
    scene.systemd.stop(DB)
    scene.live(1)
    scene.systemd.start(WEB)
    scene.live(0.1)
    assert scene.loop.memory.units[WEB].why == DB
    del scene.systemd.fail[DB]
    scene.systemd.start(DB)
    scene.live(10)
    assert scene.active() == "active"


def test_what_is_bound_to_the_dead_is_started_with_it(scene: Scene) -> None:
    needs_db(scene, "BindsTo")
    scene.crash(DB)
    scene.systemd.stop(WEB)  # as systemd does
    scene.live(10)
    (row,) = (row for row in scene.rows() if row.unit == WEB)
    assert (row.fate, row.because) == (Fate.BLOCKED, DB)
    assert scene.active() == "active"
    scene.systemd.stop(WEB)  # by hand
    scene.live(10)
    assert scene.active() != "active"


def test_what_is_nobodys_is_heard_to_come_up(scene: Scene) -> None:
    needs_db(scene, "Requires")
    scene.roster = Roster({WEB: scene.roster.members[WEB]})
    scene.loop.roster_changed()
    scene.systemd.fail[DB] = "canceled"
    scene.systemd.stop(DB)
    scene.live(1)
    scene.systemd.start(WEB)
    scene.live(1)
    assert scene.loop.memory.units[WEB].on
    del scene.systemd.fail[DB]
    scene.systemd.start(DB)
    scene.live(10)
    assert scene.active() == "active"


def test_a_project_that_is_stopped_is_asked_about_at_once(scene: Scene) -> None:
    units = [f"shop-many@{n}.service" for n in range(40)]
    for unit in units:
        scene.add(unit, Supervision())
    before = len(scene.systemd.calls)
    for unit in units:
        scene.systemd.stop(unit)
    scene.live(1)
    assert {row.fate for row in scene.rows()} == {Fate.STOPPED}
    calls = [call[0] for call in scene.systemd.calls[before:]]
    assert calls.count("stop") == len(units)
    assert len(calls) - len(units) < 4 * len(units)
    assert calls.count("units") < 10


def test_nothing_that_is_stored_of_no_member_stays(scene: Scene) -> None:
    scene.add(WEB, Supervision())
    scene.add(DB, Supervision())
    members = dict(scene.roster.members)
    del members[DB]
    scene.roster = Roster(members)
    scene.begin()
    assert set(scene.loop.memory.units) == {WEB}
    assert set(Ledger(scene.path).open().units) == {WEB}


def test_an_empty_store_is_a_beginning() -> None:
    memory = Stored({}, {}, "").memory("b")
    assert memory.boot == "b"
    assert not memory.units
