"""The health probes of services that know nothing of systemd: when each is tried, and what that adds up to.

Owns the schedule of the probes of `units.supervision.Probe` and the verdict on each service; one try is
`dial.Dial` (tcp, unix, http) or `spawn.Child` (exec). Never restarts or stops anything: a verdict that turns
is told to the loop as `events.Health`, once, and `policy` decides.

A try begins `interval_sec` after the last one began, or when that has ended if it took longer; of a service
there are never two at once. So a service that hangs is found out within interval x failures + timeout, as
long as the timeout is not longer than the interval. The first try comes at a fraction of the interval (of
10 s at most) that the unit's name decides, so that services started together are not probed together. Tries
of different services wait for nothing of each other, but for programs: of those `MOST_CHILDREN` run at once,
and the next in the queue begins when one is reaped. Whatever is due is done at the next whole `TICK_SEC` of
the clock, since a wake-up costs more than a try: at 500 tries a second this halves the CPU time.

The rule: no await, no task, no thread for a probe, no timer but one for each service, and none at all while
nothing is probed. A try that could not be made (`dial` says when) is in `ProbeState.why`, and counts as
nothing.
"""

from __future__ import annotations

import binascii
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from math import ceil
from typing import TYPE_CHECKING, NamedTuple

from sysresp.controller.dial import Dial, Names, Place, Try
from sysresp.controller.events import Health
from sysresp.controller.spawn import REAP_SEC, Child, environment
from sysresp.units.supervision import Probe

if TYPE_CHECKING:
    import asyncio

MOST_CHILDREN = 32
SPREAD_SEC = 10.0
TICK_SEC = 1 / 32
LAG_SEC = 0.5
LAGGED = "the controller itself was too busy to hear an answer"
STUCK = "it still runs, though it was killed"


class ProbeState(NamedTuple):
    """What the probes of one run of a unit have shown so far."""

    invocation: str = ""
    started: float = 0.0  # of the run; grace counts from here
    is_healthy: bool | None = None  # the verdict; None: not yet
    has_answered: bool = False  # at least once, which ends the grace
    failures: int = 0  # in a row
    successes: int = 0  # in a row
    is_ok: bool | None = None  # the last try; None: there was none, or it could not be made
    why: str = ""  # ... in words, "" for a success
    at: float = 0.0  # when it ended; 0: there was none
    latency_sec: float = 0.0  # how long it took
    tries: int = 0  # in all, without those that could not be made
    failed: int = 0  # in all, those during the grace included


def tally(
    state: ProbeState, probe: Probe, is_ok: bool | None, why: str, now: float
) -> tuple[ProbeState, bool]:
    """Add one result, and say whether the verdict has turned with it."""
    healthy, answered, failures, successes = (
        state.is_healthy,
        state.has_answered,
        state.failures,
        state.successes,
    )
    if is_ok:
        answered, failures, successes = True, 0, successes + 1
        healthy = True if successes >= probe.successes else healthy
    elif is_ok is False:
        successes = 0
        if answered or now - state.started >= probe.grace_sec:
            failures += 1
            healthy = False if failures >= probe.failures else healthy
    new = state._replace(
        is_healthy=healthy,
        has_answered=answered,
        failures=failures,
        successes=successes,
        is_ok=is_ok,
        why=why,
        at=now,
        tries=state.tries + (is_ok is not None),
        failed=state.failed + (is_ok is False),
    )
    return new, healthy is not state.is_healthy


def first_after(unit: str, probe: Probe) -> float:
    """Return how long after it is watched the first probe of a unit begins, in seconds."""
    share = binascii.crc32(unit.encode(errors="surrogateescape")) / 2**32
    return share * min(probe.interval_sec, SPREAD_SEC)


def _tick(when: float) -> float:
    return ceil(when / TICK_SEC) * TICK_SEC


class _Watch:
    """One unit in one run, from `watch` to `forget`."""

    __slots__ = (
        "attempt",
        "begun",
        "child",
        "due",
        "interval",
        "is_queued",
        "place",
        "probe",
        "state",
        "timer",
        "trouble",
        "unit",
    )

    def __init__(self, unit: str, probe: Probe, state: ProbeState) -> None:
        self.unit = unit
        self.probe = probe
        self.state = state
        self.interval = max(probe.interval_sec, TICK_SEC)
        self.due = 0.0  # when the next try begins, or the last one was to
        self.begun = 0.0  # when the last try did
        self.timer: asyncio.TimerHandle | None = None  # to the next begin, or to the end of the timeout
        self.attempt: Try | None = None  # that runs
        self.child: Child | None = None  # that is not reaped
        self.is_queued = False  # for a child
        self.place: Place | None = None
        self.trouble = ""  # why no try can ever be made
        if probe.by != "exec":
            try:
                self.place = Place(probe.by, probe.target)
            except (ValueError, OSError) as error:
                self.trouble = str(error)


class Probes:
    """All probes of the controller, on its loop. `on_turn` may call any method of this."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_turn: Callable[[Health], None],
        own: Mapping[str, str] = os.environ,
    ) -> None:
        """`own` is the environment that children get a part of."""
        self._loop = loop
        self._on_turn = on_turn
        self._own = own
        self._watches: dict[str, _Watch] = {}
        self._names = Names(loop)
        self._children: dict[Child, _Watch] = {}
        self._queue: deque[_Watch] = deque()

    def watch(self, unit: str, invocation: str, probe: Probe, started: float) -> None:
        """Probe this run of the unit from now on; nothing changes if that is so already."""
        old = self._watches.get(unit)
        if old is not None:
            if (old.state.invocation, old.probe) == (invocation, probe):
                old.state = old.state._replace(started=started)
                return
            self.forget(unit)
        watch = _Watch(unit, probe, ProbeState(invocation, started))
        self._watches[unit] = watch
        watch.due = self._loop.time() + first_after(unit, probe)
        watch.timer = self._loop.call_at(_tick(watch.due), self._due, watch)

    def forget(self, unit: str) -> None:
        """Probe the unit no more, and say nothing more of it; no error if it is not probed."""
        watch = self._watches.pop(unit, None)
        if watch is None:
            return
        if watch.timer is not None:
            watch.timer.cancel()
        if watch.is_queued:
            watch.is_queued = False
            self._queue.remove(watch)
        if watch.attempt is not None:
            watch.attempt.abandon()

    def latest(self) -> Mapping[str, ProbeState]:
        """Return what is known of each unit that is probed."""
        return {unit: watch.state for unit, watch in self._watches.items()}

    def close(self) -> None:
        """Forget all units, and reap the children that still run."""
        for unit in list(self._watches):
            self.forget(unit)
        deadline = time.monotonic() + REAP_SEC
        for child in list(self._children):
            child.reap(deadline)

    def _due(self, watch: _Watch) -> None:
        watch.timer = None
        watch.begun = now = self._loop.time()
        missed = (now - watch.due) // watch.interval
        if missed > 0:  # the loop, or the machine, stood still: go on at the same fractions of the interval
            watch.due += missed * watch.interval
        if watch.trouble:
            self._ended(watch, None, watch.trouble)
        elif watch.place is not None:
            self._begin(watch)
        else:
            watch.is_queued = True
            self._queue.append(watch)
            if watch.child is not None:  # it was killed a moment ago, or is in an uninterruptible sleep
                late = _tick(now + watch.probe.timeout_sec)
                watch.timer = self._loop.call_at(late, self._stuck, watch)
            self._next()

    def _begin(self, watch: _Watch) -> None:
        done = partial(self._ended, watch)
        if watch.place is not None:
            attempt: Try = Dial(self._loop, watch.place, self._names, done)
        else:
            seen = environment(watch.unit, watch.state.invocation, self._own)
            attempt = watch.child = Child(self._loop, watch.probe.argv, seen, done, self._gone)
            self._children[watch.child] = watch
        watch.attempt = attempt
        attempt.begin()
        if watch.attempt is attempt:
            late = _tick(watch.begun + watch.probe.timeout_sec)
            watch.timer = self._loop.call_at(late, self._late, watch)

    def _late(self, watch: _Watch) -> None:
        assert watch.attempt is not None
        result = watch.attempt.late(f"{watch.probe.timeout_sec:g}s")
        assert watch.timer is not None
        if self._loop.time() - watch.timer.when() > LAG_SEC:  # an answer may be there, and not heard yet
            result = None, LAGGED
        self._ended(watch, *result)

    def _stuck(self, watch: _Watch) -> None:
        watch.is_queued = False
        self._queue.remove(watch)
        self._ended(watch, False, STUCK)

    def _gone(self, child: Child) -> None:
        """Let the next program begin, as one is reaped."""
        watch = self._children.pop(child)
        watch.child = None
        if watch.is_queued and watch.timer is not None:  # it is not stuck
            watch.timer.cancel()
            watch.timer = None
        if self._queue:
            self._loop.call_soon(self._next)

    def _next(self) -> None:
        """Begin with those in the queue, as many as may run, that wait for no child of their own."""
        for watch in list(self._queue):
            if len(self._children) >= MOST_CHILDREN:
                return
            if watch.is_queued and watch.child is None:
                watch.is_queued = False
                self._queue.remove(watch)
                watch.begun = self._loop.time()
                self._begin(watch)

    def _ended(self, watch: _Watch, is_ok: bool | None, why: str) -> None:
        """Take the result of a try, and set the timer to the next."""
        now = self._loop.time()
        watch.attempt = None
        if watch.timer is not None:
            watch.timer.cancel()
        watch.due = max(watch.due + watch.interval, now)
        watch.timer = self._loop.call_at(_tick(watch.due), self._due, watch)
        state, turned = tally(watch.state, watch.probe, is_ok, why, now)
        watch.state = state._replace(latency_sec=now - watch.begun)
        if turned:
            self._on_turn(Health(watch.unit, state.invocation, bool(state.is_healthy), why))
