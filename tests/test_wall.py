"""The wall clock is set: in the loop, nothing that is measured by it becomes older or younger."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysresp.controller.events import Note
from sysresp.controller.reader import Reader
from sysresp.controller.wall import WallClock, clock_note, hole
from sysresp.units.supervision import Supervision
from tests.fake_clock import START, FakeClock
from tests.test_alarm import Told
from tests.test_loop import WEB, limit

HOUR = 3600.0
BOTH = pytest.mark.parametrize("by", [-HOUR, HOUR])


@pytest.fixture
def scene(tmp_path: Path) -> Told:
    return Told(tmp_path)


def crash(scene: Told, times: int = 1) -> None:
    for _ in range(times):
        scene.systemd.end_process(WEB)
        scene.wait(3)


def set_clock(scene: Told, by: float) -> None:
    scene.systemd.clock.start += by


def test_only_what_is_more_than_drift_is_told_and_once() -> None:
    clock = FakeClock()
    wall = WallClock(clock, "")
    clock.sleep(100)
    clock.start += 1
    assert wall.was_set() == 0
    clock.start += HOUR
    assert (wall.was_set(), wall.was_set()) == (HOUR + 1, 0)
    assert WallClock(clock, wall.text()).was_set() == 0
    clock.start -= HOUR
    assert WallClock(clock, wall.text()).was_set() == -HOUR  # it was set while nobody looked
    assert WallClock(clock, "damaged").was_set() == 0


@given(st.floats(-1e6, 1e6))
def test_a_note_tells_which_times_are_doubtful(by: float) -> None:
    begin, end = hole(clock_note(by, START))
    assert end - begin == pytest.approx(abs(by), abs=0.01)
    assert START in (begin, end)
    assert (begin == START) == (by <= 0) or abs(by) < 0.01


def test_a_note_that_is_none() -> None:
    assert hole(Note("clock", when=5.0, key="?")) == (5, 5)


@BOTH
@pytest.mark.parametrize("is_killed", [False, True])
def test_an_incident_lasts_as_long_as_it_lasts(scene: Told, by: float, is_killed: bool) -> None:
    """Its messages keep their name, and another controller knows what the last one knew."""
    scene.install(WEB, Supervision(attempts=2, within_sec=3600), limit(2))
    crash(scene, 2)
    scene.wait(10)
    (opened,) = scene.posted
    set_clock(scene, by)
    if is_killed:
        scene.kill()
    scene.wait(60)
    scene.systemd.reset_failed(WEB)
    scene.systemd.start(WEB)
    scene.wait(0.1)
    scene.wait(30)
    assert [kind for kind, _ in scene.told()] == ["opened", "resolved"]
    assert scene.posted[-1].key == opened.key.replace("opened", "resolved")
    ((began, ended),) = scene.rows("SELECT at, resolved FROM incident")
    assert 65 <= ended - began < 75
    assert scene.systemd.clock.now() - 40 < ended <= scene.systemd.clock.now()
    assert scene.set_by == ([] if is_killed else [by])
    with Reader(scene.path) as reader:
        (note,) = [one.what for one in reader.notes("clock")]
    assert isinstance(note, Note)
    assert f"by {HOUR:.0f} s" in note.text


@BOTH
def test_failures_on_both_sides_are_together_too_many(scene: Told, by: float) -> None:
    scene.install(WEB, Supervision(when="always"), "")
    crash(scene, 3)
    set_clock(scene, by)
    crash(scene, 2)
    assert scene.rows("SELECT failures FROM incident") == [(5,)]


def test_failures_of_a_time_to_come_are_from_before(scene: Told) -> None:
    """The ledger of a controller that was away while the clock was set back, of another boot."""
    scene.install(WEB, Supervision(when="always"), "")
    crash(scene, 3)
    scene.ledger.commit(meta={"wall": ""})
    set_clock(scene, -HOUR)
    scene.kill()
    crash(scene, 2)
    assert scene.rows("SELECT failures FROM incident") == [(5,)]


@BOTH
def test_the_row_says_when_the_next_start_is_due(scene: Told, by: float) -> None:
    scene.install(WEB, Supervision(when="always"), "")
    set_clock(scene, by)
    crash(scene)
    ((when, retry_at),) = scene.rows('SELECT "when", retry_at FROM exit')
    assert retry_at == pytest.approx(when + 1, abs=0.5)
