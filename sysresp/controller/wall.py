"""The wall clock, which somebody may set: by how much, and what that does to what is remembered.

Owns the question that the loop asks before each step. What the policy remembers is monotonic and does not
care; an incident has instants of the wall clock, since people read them, which are set along with the clock:
an incident that began ten minutes ago still did. What has ended keeps the times that the clock showed then.
The rule: time in which the machine was asleep has passed, and is no setting of the clock.
"""

from __future__ import annotations

from contextlib import suppress

from sysresp.controller.events import Note
from sysresp.ports import Clock

WALL = "wall"
"""Key of the ledger's meta table: what a successor goes on from."""

LEAST_SEC = 2.0
"""Less than this is the drift of the clock that NTP corrects, or our own pause between two looks."""


def clock_note(by: float, when: float) -> Note:
    """Return the note that the clock was set, and now is `when`."""
    how = "forward" if by > 0 else "back"
    text = f"the clock was set {how} by {abs(by):.0f} s: times from before are by the clock of then"
    return Note("clock", text=text, when=when, key=f"{by:.3f} {when:.3f}")


def hole(note: Note) -> tuple[float, float]:
    """Return from when to when the clock showed nothing, or everything twice, by such a note."""
    try:
        by = float(note.key.partition(" ")[0])
    except ValueError:
        by = 0.0
    return min(note.when, note.when - by), max(note.when, note.when - by)


class WallClock:
    """What the wall clock showed when it was last looked at."""

    def __init__(self, clock: Clock, stored: str) -> None:
        """`stored` is what `text` was, in this boot; "" if that is unknown."""
        self._clock = clock
        self._origin = self._since_boot()  # what the clock would have shown at the boot
        with suppress(ValueError):
            self._origin = float(stored)

    def text(self) -> str:
        """Return what the next one is to be told."""
        return f"{self._origin:.3f}"

    def _since_boot(self) -> float:
        return self._clock.now() - self._clock.uptime()

    def offset(self) -> float:
        """Return the seconds since the epoch less CLOCK_MONOTONIC."""
        return self._clock.now() - self._clock.monotonic()

    def was_set(self) -> float:
        """Return by how much the clock was set since the last time that this was asked: below 0, back."""
        by = self._since_boot() - self._origin
        if abs(by) < LEAST_SEC:
            return 0.0
        self._origin += by
        return by
