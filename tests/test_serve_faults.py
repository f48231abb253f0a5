"""The daemon when something goes wrong in the middle: nothing that belongs together is half done."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from sysresp.controller.events import Member, Note, Roster
from sysresp.controller.reader import Reader
from sysresp.controller.respawn import QUIET_SEC
from sysresp.controller.serve import REQUEST
from sysresp.errors import Exit as Status
from sysresp.errors import SysrespError
from sysresp.units.supervision import Settings
from tests.test_serve import UNIT, WEB, Scene, whole_scene

AWAY = SysrespError("no answer", exit=Status.UNREACHABLE)
ASKED = ("units", "units_by_name", "many_properties")
MANIFEST = "/var/lib/sysresp/shop.json"


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    yield from whole_scene(tmp_path)


def test_a_bug_at_the_start_is_a_failure_like_any_other(scene: Scene) -> None:
    scene.systemd.raises["version"] = RuntimeError("a bug")
    daemon = scene.begin()
    assert scene.task is not None
    assert scene.task.result() == 1
    assert str(daemon.failure) == "a bug"
    assert scene.notify.words == []


@pytest.mark.parametrize("previous", ["{", "[]", "7", "{}", "[" * 100_000])
def test_a_request_that_cannot_be_read_is_confirmed_all_the_same(scene: Scene, previous: str) -> None:
    scene.begin(previous)
    assert scene.notify.words == ["ready"]
    assert scene.notes("self-restart") == ["restarted itself: nobody knows why"]


def test_while_it_begins_nothing_else_connects(scene: Scene) -> None:
    for name in ASKED:
        scene.systemd.raises[name] = AWAY
    scene.roster = Roster({WEB: Member(WEB)})
    scene.begin()
    opened = scene.signals.opened
    scene.roster = Roster({WEB: Member(WEB), "shop-db.service": Member("shop-db.service")})
    scene.disk.touch(MANIFEST)
    scene.live(0.05)
    scene.systemd.raises.clear()
    scene.live(10)
    assert scene.notify.words == ["ready"]
    assert scene.signals.opened <= opened + 1


def test_new_code_is_seen_beside_a_manifest_that_costs_the_connection(scene: Scene) -> None:
    scene.begin()
    for name in ASKED:
        scene.systemd.raises[name] = AWAY
    scene.roster = Roster({WEB: Member(WEB)}, Settings(max_age_sec=100))
    scene.code = "new"
    scene.disk.touch(MANIFEST, "/code/loop.py")
    scene.live(0.1)
    scene.systemd.raises.clear()
    scene.live(QUIET_SEC + 1)
    assert scene.restarts() == 1


def test_a_new_age_counts_although_the_connection_was_lost_with_it(scene: Scene) -> None:
    scene.begin()
    for name in ASKED:
        scene.systemd.raises[name] = AWAY
    scene.roster = Roster({WEB: Member(WEB)}, Settings(max_age_sec=60))
    scene.disk.touch(MANIFEST)
    scene.live(0.1)
    scene.systemd.raises.clear()
    scene.live(70)
    assert scene.restarts() == 1


def test_an_upgrade_that_brings_a_unit_too_is_left_to_finish(scene: Scene) -> None:
    """Ticks look at the unit, which systemd has not read yet; the code is only half there."""
    scene.watchdog_sec = 3.0
    scene.begin()
    scene.unit, scene.code = "", "half"
    for _ in range(10):
        scene.disk.touch("/code/loop.py", UNIT)
        scene.live(QUIET_SEC / 2)
    assert scene.restarts() == 0
    scene.code = "new"
    scene.live(QUIET_SEC * 2)
    assert scene.restarts() == 1


def test_code_that_changed_before_it_was_watched_is_followed(scene: Scene) -> None:
    """An upgrade may go on while its successor is being imported."""
    scene.code = "new"
    scene.begin()
    scene.live(QUIET_SEC * 2)
    assert scene.restarts() == 1


def test_who_it_is_may_be_known_later(scene: Scene) -> None:
    scene.is_service = False  # systemd did not answer
    scene.begin()
    scene.is_service = True
    scene.code = "new"
    scene.disk.touch("/code/loop.py")
    scene.live(QUIET_SEC * 2)
    assert scene.restarts() == 1


def test_a_request_that_was_refused_has_no_successor(scene: Scene) -> None:
    scene.begin()
    scene.systemd.raises["restart"] = SysrespError("not allowed", exit=Status.DENIED)
    scene.code = "new"
    scene.disk.touch("/code/loop.py")
    scene.live(QUIET_SEC * 2)
    with Reader(scene.path) as reader:
        assert reader.stored().meta[REQUEST] == ""
    assert scene.notes("refused") == ["cannot restart itself: not allowed"]


def test_much_that_is_old_goes_soon(scene: Scene) -> None:
    """Not 500 rows with each tick: a storm writes more."""
    scene.roster = Roster({}, Settings(keep_sec=1000))
    daemon = scene.begin()
    daemon.loop.owed.notes += [Note("old", when=1.0 + n) for n in range(11_000)]
    assert daemon.loop.flush()
    scene.live(25)
    assert scene.notes("old") == []


@pytest.mark.parametrize("is_late", [False, True])
def test_files_that_cannot_be_watched_are_looked_at(scene: Scene, is_late: bool) -> None:
    def refuse(*_: str) -> NoReturn:
        raise OSError(errno.ENOSPC, "no more watches")

    if not is_late:
        scene.disk.add = refuse  # type: ignore[method-assign]
    daemon = scene.begin()
    assert scene.notify.words == ["ready"]
    scene.disk.changed = refuse  # type: ignore[method-assign]
    if is_late:
        scene.disk.touch(MANIFEST)
        scene.live(1)
    scene.roster = Roster({WEB: Member(WEB)})
    scene.live(25)
    assert WEB in daemon.loop.memory.roster.members
    assert sum("cannot watch" in line for line in scene.said) == 1
    scene.code = "new"
    scene.live(25)
    assert scene.restarts() == 1
