"""Time as this machine has it: `ports.Clock`.

Owns the calls, so that nothing else waits or looks at a clock. Never used by what decides: there
`now` is an argument. The rule: what is shown or stored is `now`, what is measured is `monotonic`.
"""

from __future__ import annotations

import time


class RealClock:
    """The clocks of the kernel."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def uptime(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def sleep(self, seconds: float) -> None:
        if seconds > 0:
            time.sleep(seconds)
