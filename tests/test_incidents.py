"""The correlator: what belongs together is one incident, in whatever order it is told."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sysresp.controller.correlate import correlate, due
from sysresp.controller.events import Exit, Fate, Member, Roster, Row, UnitMemory, Wait
from sysresp.controller.incidents import (
    SETTLE_SEC,
    Batch,
    Incident,
    Open,
    Outcome,
    failures_of,
    settle_sec,
)
from sysresp.units.alerting import Receiver
from sysresp.units.supervision import Settings, Supervision

EPOCH = 1e9
UP = UnitMemory("run", False, "active", "running")
GAVE_UP = UnitMemory("run", True, "failed", "failed", fate=Fate.GAVE_UP, why="too many starts")
RETRY = UnitMemory("run", True, "activating", "auto-restart", fate=Fate.RETRY, wait=Wait.BACKOFF)
STOPPED = UnitMemory("run", True, "inactive", "dead", is_stopped=True, fate=Fate.STOPPED)
UNITS = ("db", "cache", "web", "app", "job")


def blocked(*on: str) -> UnitMemory:
    return UnitMemory("run", True, "inactive", "dead", fate=Fate.BLOCKED, wait=Wait.BLOCKED, on=on)


def failure(unit: str, run: str, when: float = EPOCH) -> Exit:
    return Exit(unit, run, when, "exit-code", 1, 3, Fate.RETRY, attempt=1)


class Scene:
    """Units as they are, and what the correlator makes of them."""

    def __init__(self, every_exit: bool = False, flaps: int = 5) -> None:
        care = Supervision(alerts=("ops",) if every_exit else ())
        members = {unit: Member(unit, "shop", unit, supervision=care) for unit in UNITS}
        receivers = {"shop/ops": Receiver(on=("every-exit",))}
        self.roster = Roster(members, Settings(flaps=flaps, flaps_sec=100.0), receivers)
        self.units: dict[str, UnitMemory] = dict.fromkeys(UNITS, UP)
        self.known = Open()
        self.over: list[Incident] = []
        self.now = EPOCH

    def tell(self, *changed: str, failures: Sequence[Exit] = (), **units: UnitMemory) -> Outcome:
        self.units |= units
        batch = Batch(self.roster, self.units, (*changed, *units), tuple(failures), self.now)
        outcome = correlate(self.known, batch)
        self.known = outcome.known
        self.over += [one for one in outcome.touched.values() if one.resolved]
        return outcome

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.tell()

    def open(self) -> list[Incident]:
        return list(self.known.incidents.values())


def shape(incidents: Iterable[Incident]) -> set[tuple[str, frozenset[str], frozenset[str]]]:
    """Return what must not depend on the order of events."""
    return {(one.root, frozenset(one.units()), one.reasons()) for one in incidents}


def test_a_database_and_what_needs_it_are_one_incident_from_first_to_last() -> None:
    scene = Scene()
    scene.tell(db=RETRY, failures=[failure("db", "1")])
    assert scene.open() == []  # Restart= follows it
    scene.tell(web=blocked("db"), app=blocked("web", "db"))
    scene.tell(db=GAVE_UP, failures=[failure("db", "2")])
    (one,) = scene.open()
    assert one.root == "db"
    assert one.units() == ("db", "app", "web")
    assert one.parts[0].reasons == ("gave-up",)
    assert (one.parts[0].failures, one.parts[0].exit) == (2, "exit status 3")
    assert one.parts[1].waits_for == ("db", "web")
    scene.tell(db=UP)
    scene.wait(60)
    assert scene.over == []  # its consequences are still down
    scene.tell(web=UP, app=UP)
    scene.wait(SETTLE_SEC - 1)
    assert scene.over == []
    back = scene.now - SETTLE_SEC + 1
    scene.wait(1)
    assert [(one.root, one.resolved) for one in scene.over] == [("db", back)]
    assert scene.known == Open(next_id=2)


def test_to_fail_again_before_it_settles_goes_on_with_it() -> None:
    scene = Scene()
    scene.tell(db=GAVE_UP)
    scene.tell(db=UP)
    scene.wait(SETTLE_SEC - 1)
    scene.tell(db=GAVE_UP)
    scene.wait(SETTLE_SEC)
    (one,) = scene.open()
    assert one.well_since == 0
    assert scene.over == []


def test_flapping_opens_once_and_counts() -> None:
    scene = Scene()
    for number in range(500):
        scene.now += 0.12
        scene.tell(db=RETRY if number % 2 else UP, failures=[failure("db", str(number), scene.now)])
        assert len(scene.open()) == (number >= 4)
    (one,) = scene.open()
    assert one.reasons() == {"flapping"}
    assert one.failures() == 500
    assert len(one.runs) <= 32
    scene.tell(db=UP)
    scene.wait(settle_sec(one, scene.roster) - 0.1)
    assert scene.over == []
    scene.wait(0.1)
    assert len(scene.over) == 1
    assert settle_sec(one, scene.roster) == 20  # failures so far apart are no flapping


def test_failures_that_are_far_apart_are_no_incident() -> None:
    scene = Scene()
    for number in range(50):
        scene.now += 26
        scene.tell(failures=[failure("db", str(number), scene.now)])
    assert scene.open() == []
    assert len(scene.known.recent["db"]) <= 5


def test_every_exit_opens_if_somebody_wants_it() -> None:
    scene = Scene(every_exit=True)
    scene.tell(db=RETRY, failures=[failure("db", "1")])
    (one,) = scene.open()
    assert one.reasons() == {"every-exit"}
    scene.tell(db=UP)
    scene.wait(SETTLE_SEC)
    assert len(scene.over) == 1


@pytest.mark.parametrize(
    ("memory", "reason"),
    [
        (GAVE_UP, "gave-up"),
        (GAVE_UP._replace(wait=Wait.COOLDOWN, fate=Fate.RETRY, wake_at=5.0), "gave-up"),
        (UP._replace(is_healthy=False, why="status 500"), "probe"),
        (GAVE_UP._replace(fate=Fate.STOPPED_BY_US, is_healthy=False), "probe"),
        (blocked("db"), "blocked"),
        (blocked(), ""),  # what blocks it is not known yet
        (RETRY, ""),
        (STOPPED, ""),
        (STOPPED._replace(is_stopped=False, fate=Fate.FINISHED), ""),
    ],
)
def test_what_is_trouble(memory: UnitMemory, reason: str) -> None:
    scene = Scene()
    scene.tell(db=RETRY)
    scene.tell(web=memory)
    found = {r for one in scene.open() for r in one.reasons()}
    assert found == ({reason} if reason else set())


def test_what_is_blocked_by_what_somebody_stopped_is_no_incident() -> None:
    scene = Scene()
    scene.tell(db=STOPPED, web=blocked("db"))
    assert scene.open() == []


def test_what_somebody_stops_or_takes_away_ends_it() -> None:
    for end in ("stopped", "gone"):
        scene = Scene()
        scene.tell(db=GAVE_UP)
        if end == "stopped":
            scene.tell(db=STOPPED)
        else:
            del scene.units["db"]
            scene.roster = scene.roster._replace(members={})
            scene.tell("db")
        scene.wait(SETTLE_SEC)
        assert len(scene.over) == 1
        assert due(scene.known) == 0


def test_a_dependent_that_is_told_of_first_joins_its_root() -> None:
    scene = Scene()
    scene.tell(web=GAVE_UP)
    scene.tell(db=GAVE_UP)
    scene.tell(web=blocked("db"))
    (one,) = scene.open()
    assert (one.root, one.units()) == ("db", ("db", "web"))
    assert [(each.root, each.into) for each in scene.over] == [("web", one.id)]


def test_a_circle_has_a_root_too() -> None:
    scene = Scene()
    scene.tell(web=blocked("app"), app=blocked("web"))
    assert len({unit for one in scene.open() for unit in one.units()}) == 2


def test_a_root_outside_of_all_projects() -> None:
    scene = Scene()
    scene.units["mnt.mount"] = UnitMemory(active="failed", sub="failed")
    scene.tell(web=blocked("mnt.mount"))
    (one,) = scene.open()
    assert one.root == "mnt.mount"
    scene.tell("mnt.mount", **{"mnt.mount": UnitMemory(active="active", sub="mounted"), "web": UP})
    scene.wait(SETTLE_SEC)
    assert scene.over[0].root == "mnt.mount"


def test_only_failures_count() -> None:
    good, late = failure("db", "1"), failure("db", "2")._replace(attempt=0)
    stopped = late._replace(fate=Fate.STOPPED)
    refated = Exit("db", "1", fate=Fate.GAVE_UP)
    rows = [Row(good), Row(refated), Row(late), Row(late, is_late=True), Row(stopped, is_late=True)]
    assert failures_of(rows) == (good, late)


MEMORIES = st.one_of(
    st.sampled_from([UP, GAVE_UP, RETRY, STOPPED, UP._replace(is_healthy=False)]),
    st.lists(st.sampled_from(UNITS), min_size=1, max_size=2, unique=True).map(lambda on: blocked(*on)),
)


@settings(max_examples=300)
@given(
    st.dictionaries(st.sampled_from(UNITS), MEMORIES),
    st.lists(st.tuples(st.sampled_from(UNITS), st.integers(0, 30)), max_size=30),
    st.randoms(use_true_random=False),
)
def test_no_order_and_no_repetition_changes_the_incidents(units, runs, random) -> None:  # type: ignore[no-untyped-def]
    """Units are as they are; in which order, batches and how often that is told must not matter."""
    failures = list(dict.fromkeys(failure(unit, f"{unit}{n}", EPOCH + n) for unit, n in runs))
    once = Scene()
    once.units |= units
    once.now += 40
    once.tell(*UNITS, failures=failures)
    shuffled = Scene()
    shuffled.units |= units
    shuffled.now += 40
    news: list[str | Exit] = [*UNITS, *failures, *random.choices([*UNITS, *failures], k=10)]
    random.shuffle(news)
    while news:
        batch = [news.pop() for _ in range(min(len(news), random.randint(1, 4)))]
        names = [one for one in batch if isinstance(one, str)]
        shuffled.tell(*names, failures=[one for one in batch if isinstance(one, Exit)])
    shuffled.tell(*UNITS)  # a resync
    assert shape(shuffled.open()) == shape(once.open())
    counted = {one.root: {part.unit: part.failures for part in one.parts} for one in once.open()}
    assert {one.root: {p.unit: p.failures for p in one.parts} for one in shuffled.open()} == counted


@settings(max_examples=300)
@given(st.lists(st.tuples(st.sampled_from(UNITS), MEMORIES, st.floats(0, 10)), max_size=30))
def test_every_incident_ends_or_is_open_for_a_reason(story) -> None:  # type: ignore[no-untyped-def]
    scene = Scene()
    seen: set[int] = set()
    for unit, memory, pause in story:
        scene.tell(**{unit: memory})
        scene.wait(pause)
        seen |= set(scene.known.incidents)
        units = [each for one in scene.open() for each in one.units()]
        assert len(units) == len(set(units))  # a unit is in one incident
        assert scene.known.of == {u: one.id for one in scene.open() for u in one.units()}
        for one in scene.open():
            is_bad = any(
                scene.units[u].active != "active" or scene.units[u].is_healthy is False for u in one.units()
            )
            assert is_bad or one.well_since > scene.now - SETTLE_SEC
    scene.tell(**dict.fromkeys(UNITS, UP))
    scene.wait(SETTLE_SEC)
    assert scene.open() == []
    assert {one.id for one in scene.over} >= seen
    assert len({one.id for one in scene.over}) == len(scene.over)  # each ends once
