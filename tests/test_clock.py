"""`ports.Clock`: the real one, and the virtual one with what is due in it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysresp.ports import Clock
from sysresp.systemd.clock import RealClock
from tests.fakes import FakeClock, FakeManager


@pytest.mark.parametrize("clock", [RealClock(), FakeClock()], ids=["real", "fake"])
def test_time_passes(clock: Clock) -> None:
    wall, begun, boot = clock.now(), clock.monotonic(), clock.uptime()
    assert wall > 1_600_000_000
    clock.sleep(0.01)
    clock.sleep(-1)
    assert clock.monotonic() >= begun + 0.01
    assert clock.uptime() >= boot + 0.01
    assert clock.now() > wall


times = st.lists(st.integers(0, 20), max_size=8)


@given(due=times, sleeps=times)
def test_what_is_due_happens_in_its_order(due: list[int], sleeps: list[int]) -> None:
    clock = FakeClock()
    happened: list[tuple[float, float]] = []
    for when in due:
        clock.at(when, lambda when=when: happened.append((when, clock.monotonic())))  # type: ignore[misc]
    for seconds in (*sleeps, 0):
        clock.sleep(seconds)
    assert [when for when, _ in happened] == sorted(when for when in due if when <= sum(sleeps))
    assert all(when == at for when, at in happened)
    assert clock.monotonic() == sum(sleeps)


def test_what_happens_may_arrange_more() -> None:
    clock = FakeClock()
    seen: list[float] = []
    clock.at(1, lambda: clock.at(2, lambda: seen.append(clock.monotonic())))
    clock.sleep(3)
    assert seen == [2]


def test_a_job_that_is_waited_for_takes_time() -> None:
    manager = FakeManager()
    manager.files.write("/etc/systemd/system/a.service", b"[Service]\nExecStart=/bin/true\n")
    manager.stuck.add("a.service")
    job = manager.start("a.service")
    assert manager.wait([job], 5, lambda _: None) == {job}
    assert manager.clock.monotonic() == 5
    manager.clock.at(7, manager.stuck.clear)
    assert manager.wait([job], 5, lambda _: None) == set()
    assert manager.clock.monotonic() == 7
