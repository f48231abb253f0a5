"""The first thing that the daemon does: ask for systemd's signals, before anything else is imported.

Owns nothing but that order. Between the end of a controller and the signals of its successor nobody listens,
and most of that time was the successor's imports. From here on what systemd tells waits in the socket. Rule:
nothing is imported but what the connection needs, and a failure is none: `Loop.connect` tries again.
"""

from __future__ import annotations

import time
from contextlib import suppress

from sysresp.systemd.signals import SystemSignals

Listening = tuple[SystemSignals, int, float]
"""The signals, their descriptor (-1: they are not open), and since when nothing is missed."""


def listen(scope: str) -> Listening:
    """Open the signals, if systemd grants them at once."""
    signals, descriptor = SystemSignals(user=scope == "user"), -1
    with suppress(Exception):
        descriptor = signals.open()
    return signals, descriptor, time.monotonic()
