"""What is stored together belongs together: the loop killed between two of its transactions."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path

import pytest

from sysresp.controller.events import Member, Roster
from sysresp.controller.incident_rows import statements
from sysresp.controller.incidents import Incident, Part
from sysresp.controller.ledger import Ledger, LedgerTrouble
from sysresp.controller.reader import Reader
from sysresp.errors import Exit as Status
from sysresp.errors import SysrespError
from sysresp.ports import Record, Signal
from sysresp.units.supervision import Settings, Supervision
from tests.fake_systemd import FakeRecords
from tests.test_loop import DB, WEB, Scene, limit


class Killed(BaseException):
    """SIGKILL."""


class ReadOnly(Ledger):
    """A ledger on a read-only disk."""

    def _connect(self) -> sqlite3.Connection:
        raise sqlite3.OperationalError("attempt to write a readonly database")


class Deadly(FakeRecords):
    """The journal of which the reading is the end."""

    def since(self, _cursor: str, _units: Iterable[str]) -> tuple[list[Record], str, bool]:
        raise Killed


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_a_boot_is_stored_with_what_follows_from_it(scene: Scene) -> None:
    """Else times of the last boot would be taken for times of this one, by the next controller."""
    scene.add(WEB, Supervision())
    old, records = scene.systemd.boot, scene.records
    scene.systemd.boot = f"{2:032x}"
    scene.records = Deadly(scene.systemd)
    with pytest.raises(Killed):
        scene.begin()
    scene.ledger.close()
    assert Ledger(scene.path).open().meta["boot"] == old
    scene.records = records
    scene.begin()
    stored = Ledger(scene.path).open()
    assert stored.meta["boot"] == scene.systemd.boot
    assert stored.units == dict(scene.loop.memory.units)


def test_the_cursor_does_not_pass_what_is_still_on_its_way(scene: Scene) -> None:
    """The journal is quicker than the bus in a storm; then SIGKILL, and the next reads from the cursor."""
    scene.loop.cursor_rows = 1
    scene.add(WEB, Supervision())
    runs = [scene.crash()]
    scene.live(3)
    held: list[Signal] = []
    scene.signals.mangle = lambda signals: held.extend(signals) or []
    runs.append(scene.crash())
    scene.loop.move_cursor()
    scene.systemd.pass_time(3)  # up again, which tells nothing of how it died
    scene.begin()
    assert scene.runs() == runs
    assert [row.result for row in scene.rows()] == ["exit-code"] * 2


def test_what_a_damaged_manifest_had_is_not_forgotten(scene: Scene) -> None:
    scene.add(WEB, Supervision())
    known = scene.loop.memory.units[WEB]
    scene.roster = Roster({DB: Member(DB)}, is_whole=False)
    scene.begin()
    assert scene.loop.memory.units[WEB] == known
    assert set(scene.loop.memory.roster.members) == {WEB, DB}
    scene.roster = Roster({DB: Member(DB)})
    scene.loop.roster_changed()
    assert set(scene.loop.memory.roster.members) == {DB}


def test_who_does_not_answer_is_not_asked_for_each_unit(scene: Scene) -> None:
    """Each wait is of seconds, and PID 1 kills a controller that is silent for a minute."""
    units = [f"shop-many@{n}.service" for n in range(5)]
    for unit in units:
        scene.add(unit, Supervision(cooldown_sec=5, attempts=1), limit(1))
    scene.roster = scene.roster._replace(settings=Settings(starts_per_second=0))
    scene.loop.roster_changed()
    for unit in units:
        scene.crash(unit)
    scene.live(1)
    scene.systemd.raises["restart"] = SysrespError("no answer", exit=Status.UNREACHABLE)
    before = len(scene.systemd.changes())
    scene.systemd.pass_time(10)
    scene.loop.woken()
    assert [call[0] for call in scene.systemd.changes()[before:]].count("restart") == 1
    scene.systemd.raises.clear()
    scene.live(60)
    assert {scene.active(unit) for unit in units} == {"active"}


def test_what_is_known_of_incidents_is_read_where_nothing_can_be_written(tmp_path: Path) -> None:
    """Else the next incident has the number of an old one, and takes its place."""
    path = str(tmp_path / "ledger.db")
    ledger = Ledger(path)
    ledger.open()
    incident = Incident(7, WEB, 1.0, (Part(WEB, ("gave-up",), "too many starts", 1.0),))
    ledger.commit(statements=statements({7: incident}, (), ()))
    ledger.close()
    other = ReadOnly(path)
    with pytest.raises(LedgerTrouble):
        other.open()
    assert other.alarm is not None
    assert other.alarm.known.incidents == {7: incident}
    assert other.alarm.known.next_id == 8


@pytest.mark.parametrize("fields", ["[" * 100_000, '{"recent": [' + "9" * 400 + "]}", "{", '{"wait": []}'])
def test_memory_that_somebody_made_up_is_begun_anew(tmp_path: Path, fields: str) -> None:
    path = str(tmp_path / "ledger.db")
    ledger = Ledger(path)
    ledger.open()
    ledger.commit(statements=[("INSERT INTO memory VALUES (?, ?)", [(WEB, fields)])])
    with Reader(path) as reader:
        assert reader.unit(WEB) is None
        assert reader.stored().units == {}
    assert Ledger(path).open().units == {}
