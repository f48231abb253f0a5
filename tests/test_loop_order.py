"""What is stored together belongs together: the loop killed between two of its transactions."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from sysresp.controller.events import Member, Roster
from sysresp.controller.ledger import Ledger
from sysresp.ports import Record, Signal
from sysresp.units.supervision import Supervision
from tests.fake_systemd import FakeRecords
from tests.test_loop import DB, WEB, Scene


class Killed(BaseException):
    """SIGKILL."""


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
