"""What is stored together belongs together: the loop killed between two of its transactions."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from sysresp.controller.ledger import Ledger
from sysresp.ports import Record
from sysresp.units.supervision import Supervision
from tests.fake_systemd import FakeRecords
from tests.test_loop import WEB, Scene


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
