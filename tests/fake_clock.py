"""Virtual time: `ports.Clock` that passes only when somebody sleeps, and what is to happen meanwhile.

The rule: what is due happens in the order of its time, before any later time is seen.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

START = 1_700_000_000.0


class FakeClock:
    """Time since the test began, in `monotonic`; `now` is that and `start`, which a test may set anew."""

    def __init__(self, start: float = START) -> None:
        self.start = start
        self.slept: list[float] = []  # each sleep asked for
        self._monotonic = 0.0
        self._count = itertools.count()
        self._due: list[tuple[float, int, Callable[[], None]]] = []

    def now(self) -> float:
        return self.start + self._monotonic

    def monotonic(self) -> float:
        return self._monotonic

    def uptime(self) -> float:
        return self._monotonic

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.wait(seconds, lambda: False)

    def at(self, when: float, call: Callable[[], None]) -> None:
        """Let this happen at that time of `monotonic`; what has passed happens at the next sleep."""
        heapq.heappush(self._due, (when, next(self._count), call))

    def wait(self, seconds: float, until: Callable[[], bool]) -> None:
        """Let that much time pass, or less if something that happens makes `until` true."""
        end = self._monotonic + max(seconds, 0.0)
        while self._due and self._due[0][0] <= end:
            when, _, call = heapq.heappop(self._due)
            self._monotonic = max(self._monotonic, when)
            call()
            if until():
                return
        self._monotonic = max(self._monotonic, end)
