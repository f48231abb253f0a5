"""Health probes: what results add up to, and when each try begins, in virtual time on real sockets."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysresp.controller.events import Health
from sysresp.controller.probes import MOST_CHILDREN, Probes, ProbeState, first_after, tally
from sysresp.units.supervision import Probe
from tests.virtual_loop import BROKEN, OK, Manner, VirtualLoop, hangs

UNIT, RUN = "shop-web.service", "0" * 32
SLEEP = ("/bin/sleep", "3600")
TRUE = ("/bin/true",)


class Watched:
    """The probes on a loop in virtual time, and what they told."""

    def __init__(self) -> None:
        self.loop = VirtualLoop()
        self.turns: list[Health] = []
        self.times: list[float] = []
        self.probes = Probes(self.loop, self._on_turn)
        self.hanging: set[str] = set()  # units of which no answer is expected
        self.loop.is_settled = lambda: self.running() <= self.hanging

    def _on_turn(self, event: Health) -> None:
        self.turns.append(event)
        self.times.append(self.loop.now)

    def running(self) -> set[str]:
        """Return the units of which a try runs, or a child is not reaped."""
        watches = self.probes._watches.items()
        return {unit for unit, watch in watches if watch.attempt is not None or watch.child is not None}

    def watch(self, probe: Probe, unit: str = UNIT) -> None:
        self.probes.watch(unit, RUN, probe, self.loop.now)

    def state(self, unit: str = UNIT) -> ProbeState:
        return self.probes.latest()[unit]


@pytest.fixture
def watched() -> Iterator[Watched]:
    made = Watched()
    yield made
    made.probes.close()
    made.loop.end()


def http(port: int, **fields: float) -> Probe:
    return Probe("http", f"http://127.0.0.1:{port}/health", **fields)  # type: ignore[arg-type]


# What results add up to

PROBES = st.builds(
    Probe,
    failures=st.integers(1, 4),
    successes=st.integers(1, 3),
    grace_sec=st.sampled_from([0.0, 5.0, 30.0]),
)
RESULTS = st.lists(st.tuples(st.sampled_from([True, False, None]), st.floats(0.0, 8.0)), max_size=40)


def verdict_of(probe: Probe, history: list[tuple[bool | None, float]]) -> bool | None:
    """Say the same in another way: from the whole history of (result, seconds since the start)."""
    counted = []
    for index, (is_ok, at) in enumerate(history):
        has_answered = any(before for before, _ in history[:index])
        if is_ok or (is_ok is False and (has_answered or at >= probe.grace_sec)):
            counted.append(is_ok)
    for end in range(len(counted), 0, -1):
        for wanted, length in ((True, probe.successes), (False, probe.failures)):
            if end >= length and set(counted[end - length : end]) == {wanted}:
                return wanted
    return None


@given(PROBES, RESULTS)
def test_the_verdict_is_of_the_last_results_in_a_row(
    probe: Probe, results: list[tuple[bool | None, float]]
) -> None:
    state, now, history = ProbeState(RUN, 100.0), 100.0, []
    for is_ok, pause in results:
        now += pause
        history.append((is_ok, now - 100.0))
        before = state
        state, turned = tally(before, probe, is_ok, "why", now)
        assert state.is_healthy == verdict_of(probe, history)
        assert turned == (state.is_healthy is not before.is_healthy)
        assert (state.is_ok, state.why, state.at) == (is_ok, "why", now)
        assert state.tries - before.tries == (is_ok is not None)
        assert state.failed - before.failed == (is_ok is False)
        assert min(state.failures, state.successes) == 0
        if is_ok is None:
            assert not turned


def test_grace_ends_at_the_first_success() -> None:
    probe = Probe(failures=2, grace_sec=60.0)
    state = ProbeState(RUN, 0.0)
    for now in (1.0, 2.0, 3.0):
        state, turned = tally(state, probe, False, "connection refused", now)
        assert (state.failures, turned) == (0, False)
    state, turned = tally(state, probe, True, "", 4.0)
    assert turned
    state, turned = tally(state, probe, False, "connection refused", 5.0)
    assert not turned
    state, turned = tally(state, probe, False, "connection refused", 6.0)
    assert (state.is_healthy, turned) == (False, True)


# When each try begins


@pytest.mark.parametrize("phase", [0.0, 0.3, 0.99])
@pytest.mark.parametrize("numbers", [(1.0, 1.0, 3), (10.0, 2.0, 3), (0.5, 0.25, 1)])
@pytest.mark.parametrize(("broken", "why"), [(hangs, "no answer within {}s"), (BROKEN, "status 500")])
def test_a_broken_server_is_found_out_in_time(
    watched: Watched, broken: Manner, why: str, numbers: tuple[float, float, int], phase: float
) -> None:
    interval, timeout, failures = numbers
    server = watched.loop.serve(OK)
    probe = http(server.port, interval_sec=interval, timeout_sec=timeout, failures=failures)
    watched.watch(probe)
    watched.loop.until(lambda: watched.turns == [Health(UNIT, RUN, True)], interval)
    watched.loop.advance((2 + phase) * interval)
    server.manner = broken
    watched.hanging.add(UNIT)
    took = watched.loop.until(lambda: len(watched.turns) > 1, interval * failures + timeout + 1.0)
    assert took >= interval * (failures - 1)
    assert watched.turns[1:] == [Health(UNIT, RUN, False, why.format(f"{timeout:g}"))]
    server.manner = OK
    watched.loop.until(lambda: len(watched.turns) > 2, interval + timeout)
    assert watched.turns[2:] == [Health(UNIT, RUN, True)]


def test_tries_begin_an_interval_apart_or_when_the_last_has_ended(watched: Watched) -> None:
    server = watched.loop.serve(OK)
    watched.watch(http(server.port, interval_sec=10.0))
    watched.loop.advance(600.0)
    assert server.connections == 60
    server.manner = hangs
    watched.hanging.add(UNIT)
    watched.watch(http(server.port, interval_sec=1.0, timeout_sec=4.0))
    watched.loop.advance(40.5)
    assert server.connections - 60 in (10, 11)


def test_a_loop_that_stood_still_goes_on_at_the_old_pace(watched: Watched) -> None:
    server = watched.loop.serve(OK)
    units = [f"web@{n}.service" for n in range(50)]
    for unit in units:
        watched.watch(http(server.port, interval_sec=1.0), unit)
    watched.loop.advance(3.0)
    begun = {unit: watched.probes._watches[unit].begun % 1.0 for unit in units}
    watched.loop.now += 1000.0
    watched.loop.advance(3.0)
    assert all(watched.state(unit).tries <= 8 for unit in units)
    assert {unit: watched.probes._watches[unit].begun % 1.0 for unit in units} == begun


def test_a_controller_that_is_late_blames_nobody(watched: Watched) -> None:
    server = watched.loop.serve(hangs)
    watched.watch(http(server.port, interval_sec=1.0, timeout_sec=1.0, grace_sec=0.0, failures=1))
    watched.hanging.add(UNIT)
    watched.loop.until(lambda: watched.running() == {UNIT}, 2.0)
    watched.loop.now += 5.0
    watched.loop.advance(1 / 32)
    assert watched.turns == []
    assert watched.state().why == "the controller itself was too busy to hear an answer"
    watched.loop.until(lambda: bool(watched.turns), 2.0)
    assert watched.turns == [Health(UNIT, RUN, False, "no answer within 1s")]


def test_probes_are_spread_and_one_that_hangs_delays_no_other(watched: Watched) -> None:
    well, bad = watched.loop.serve(OK), watched.loop.serve(hangs)
    count = 500
    watched.hanging.add("web@0.service")
    for n in range(count):
        watched.watch(
            http(well.port if n else bad.port, interval_sec=1.0, grace_sec=0.0), f"web@{n}.service"
        )
    most, before = 0, 0
    for _ in range(32):  # ticks of the first second
        watched.loop.advance(1 / 32)
        most, before = max(most, well.connections - before), well.connections
    assert before >= count - 32  # the last tick's may be on the edge
    assert most <= 3 * count / 32
    watched.loop.advance(30.0)
    for unit, state in watched.probes.latest().items():
        if unit != "web@0.service":
            assert state.tries >= 30
            assert state.failed == 0
            # Virtual time only passes while nothing is due: it is 0 unless a timer had to come first.
            assert state.latency_sec == 0.0
    assert watched.state("web@0.service").tries >= 14
    assert [event.unit for event in watched.turns if not event.is_healthy] == ["web@0.service"]


def test_watching_the_same_again_changes_nothing(watched: Watched) -> None:
    server = watched.loop.serve(OK)
    probe, started = http(server.port, interval_sec=1.0), watched.loop.now
    for _ in range(50):
        watched.probes.watch(UNIT, RUN, probe, started)
        watched.loop.advance(0.2)
    assert 9 <= server.connections <= 11
    assert watched.turns == [Health(UNIT, RUN, True)]
    watched.probes.watch(UNIT, "1" * 32, probe, watched.loop.now)
    assert watched.state() == ProbeState("1" * 32, watched.loop.now)
    watched.loop.advance(2.0)
    assert watched.turns[1:] == [Health(UNIT, "1" * 32, True)]


def test_what_is_forgotten_says_nothing_and_leaves_no_timer(watched: Watched) -> None:
    server = watched.loop.serve(hangs)
    watched.watch(http(server.port, interval_sec=1.0, grace_sec=0.0, failures=1))
    watched.hanging.add(UNIT)
    watched.loop.until(lambda: watched.running() == {UNIT}, 2.0)
    watched.probes.forget(UNIT)
    watched.probes.forget(UNIT)
    assert watched.probes.latest() == {}
    before = watched.loop.turns
    watched.loop.advance(10_000.0)
    assert watched.loop.turns - before <= 10  # the advance itself, and the server hearing of it
    assert watched.turns == []


def test_a_turn_may_forget_and_watch_anew(watched: Watched) -> None:
    """The policy stops the unit, or starts it again, while it is told."""
    server = watched.loop.serve(BROKEN)
    probe = http(server.port, interval_sec=1.0, grace_sec=0.0, failures=1)
    runs: list[str] = []

    def on_turn(event: Health) -> None:
        runs.append(event.invocation)
        probes.forget(UNIT)
        if len(runs) < 3:
            probes.watch(UNIT, str(len(runs)), probe, watched.loop.now)

    probes = watched.probes = Probes(watched.loop, on_turn)
    probes.watch(UNIT, "0", probe, watched.loop.now)
    watched.loop.advance(10.0)
    assert runs == ["0", "1", "2"]
    assert server.connections == 3


def test_a_target_that_is_none_is_no_failure(watched: Watched) -> None:
    watched.watch(Probe("http", "https://example.org/", interval_sec=1.0, grace_sec=0.0, failures=1))
    watched.watch(Probe("tcp", "127.0.0.1:0", interval_sec=1.0, grace_sec=0.0, failures=1), "b.service")
    watched.loop.advance(5.0)
    assert watched.turns == []
    assert watched.state().is_ok is None
    assert watched.state().why == "'https://example.org/' is no http:// URL"
    assert watched.state("b.service").why == "'127.0.0.1:0' is no HOST:PORT"


@given(st.integers(1, 600))
def test_the_first_try_is_within_the_interval(interval: int) -> None:
    probe = Probe(interval_sec=float(interval))
    shares = [first_after(f"web@{n}.service", probe) for n in range(500)]
    span = min(interval, 10)
    assert all(0 <= share <= span for share in shares)
    assert max(sum(n * span / 10 <= share < (n + 1) * span / 10 for share in shares) for n in range(10)) < 80


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names, of which one is gone again


def test_ten_thousand_tries_leave_nothing(watched: Watched, tmp_path: Path) -> None:
    loop, path = watched.loop, tmp_path / "s"
    well, bad = loop.serve(OK), loop.serve(hangs)
    loop.serve_unix(hangs, path)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        targets = {
            "http": [f"http://127.0.0.1:{well.port}/", f"http://localhost:{bad.port}/"],
            "tcp": [f"127.0.0.1:{well.port}", f"127.0.0.1:{closed.getsockname()[1]}"],
            "unix": [str(path), str(tmp_path / "none")],
        }

        def rounds(tries: int) -> None:
            n = 0
            for by, both in targets.items():
                for target in both:
                    for _ in range(16):
                        n += 1
                        unit = f"{by}-{n}.service"
                        if target == both[1] and by == "http":
                            watched.hanging.add(unit)
                        watched.watch(Probe(by, target, interval_sec=0.25, timeout_sec=0.25), unit)
            for n in range(4):
                watched.watch(Probe("exec", argv=TRUE, interval_sec=1.0), f"exec-{n}.service")
            while sum(state.tries for state in watched.probes.latest().values()) < tries:
                loop.advance(1.0)
                loop._talks = [talk for talk in loop._talks if not talk.transport.is_closing()]
                for server in (well, bad):
                    server.requests.clear()
            for unit in watched.probes.latest():
                watched.probes.forget(unit)
            watched.turns.clear()
            watched.times.clear()
            loop.advance(1.0)
            loop._talks.clear()
            gc.collect()

        rounds(500)
        before, blocks = descriptors(), sys.getallocatedblocks()
        rounds(10_000)
        assert descriptors() == before
        assert sys.getallocatedblocks() - blocks < 1000
        assert not asyncio.all_tasks(loop)


def test_programs_queue_and_all_get_their_turn(watched: Watched) -> None:
    """More programs hang than may run at once: every one is tried, none twice before another."""
    units = [f"job@{n}.service" for n in range(2 * MOST_CHILDREN)]
    for unit in units:
        watched.watch(Probe("exec", argv=SLEEP, interval_sec=1.0, timeout_sec=2.0), unit)
    most = 0

    def settled() -> bool:
        nonlocal most
        running = watched.running()
        most = max(most, len(running))
        # A child that was killed has no try any more, and is about to be reaped.
        watches = [watched.probes._watches[unit] for unit in running]
        return not any(watch.child is not None and watch.attempt is None for watch in watches)

    watched.loop.is_settled = settled
    for _ in range(8):
        watched.loop.advance(2.0)
        tries = [state.tries for state in watched.probes.latest().values()]
        assert max(tries) - min(tries) <= 1
    assert most == MOST_CHILDREN
    assert min(tries) >= 3


def test_nothing_large_is_imported() -> None:
    code = (
        "from sysresp.controller.lean import import_asyncio; import_asyncio()\n"
        "import sys, asyncio, sysresp.controller.probes\n"
        "print([n for n in ('ssl', 'http', 'urllib', 'email', 'json', 're') if n in sys.modules])\n"
        "import ssl"
    )
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True)
    assert "'ssl'" not in done.stdout
    assert "'http'" not in done.stdout
    assert "'urllib'" not in done.stdout
