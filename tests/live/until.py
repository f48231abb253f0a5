"""Waiting for what a booted system does by itself: looked at until a deadline."""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_LOOK_MS = 20


def until(look: Callable[[], T], what: str, deadline_sec: float = 30.0) -> T:
    """Return the first true value of `look`; fail with `what` if there is none in time."""
    end = time.monotonic() + deadline_sec
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline_sec:g}s: {what}; at last: {found!r}")
        select.poll().poll(_LOOK_MS)
