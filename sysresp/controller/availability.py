"""How long a unit was up, down or neither: from its rows in the ledger to a line of time without holes.

Owns the meaning of up-time. Up is from the start of the main process to its end. Between two runs the unit
is what followed the first one's end: `down` if systemd or the controller was to start it again, gave up or
waited for another unit; `off` if somebody stopped it or it had nothing more to do. Availability is
up / (up + down): what was off by somebody's wish is nobody's failure. Where the ledger does not tell, it is
`unknown`, which counts for nothing: before the first run that is known; around ends of which only the count,
or not the beginning, is known; and since the ledger last knew of the unit, if nobody writes it. Pure. Rule:
each second of the window is exactly one of the four, and none is guessed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from enum import StrEnum
from operator import itemgetter
from typing import NamedTuple

from sysresp.controller.events import Exit, Fate
from sysresp.controller.tables import Told


# Part of `report --json`, never renamed.
class State(StrEnum):
    """What a unit was at a time."""

    UP = "up"
    DOWN = "down"
    OFF = "off"
    UNKNOWN = "unknown"


AFTER = {
    Fate.RETRY: State.DOWN,
    Fate.GAVE_UP: State.DOWN,
    Fate.BLOCKED: State.DOWN,
    Fate.STOPPED_BY_US: State.DOWN,
    Fate.STOPPED: State.OFF,
    Fate.FINISHED: State.OFF,
    Fate.UNKNOWN: State.UNKNOWN,
}
"""What a unit is from the end of a run with this fate to the next run."""

ENDED_WELL = frozenset({"success", "exec-condition"})
_NOBODYS = frozenset({Fate.STOPPED, Fate.FINISHED})
_NEVER = float("inf")


class Live(NamedTuple):
    """The unit as it is now."""

    began: float = 0.0  # seconds since the epoch, when the run that goes on began; 0: none does
    is_known: bool = True  # the ledger is in step: it knows of that run, or of the end of the last


class Span(NamedTuple):
    """A part of the line of time."""

    begin: float
    end: float
    state: State

    @property
    def length(self) -> float:
        return self.end - self.begin


Hole = tuple[float, float]


class Figures(NamedTuple):
    """What a line of time comes to."""

    up_sec: float = 0.0
    down_sec: float = 0.0
    off_sec: float = 0.0
    unknown_sec: float = 0.0
    failures: int = 0
    repairs: tuple[float, ...] = ()  # how long it was down, each time that it came up again
    longest_sec: float = 0.0  # ... at the longest, repaired or not

    @property
    def availability(self) -> float | None:
        """From 0 to 1; None if it was never up or down."""
        known = self.up_sec + self.down_sec
        return self.up_sec / known if known else None

    @property
    def mtbf_sec(self) -> float | None:
        """Mean time between failures: up-time for each; None if there was none."""
        return self.up_sec / self.failures if self.failures else None

    @property
    def mttr_sec(self) -> float | None:
        """Mean time to repair; None if nothing was repaired."""
        return sum(self.repairs) / len(self.repairs) if self.repairs else None


def is_failure(one: Exit) -> bool:
    """Say whether the unit itself failed: not one that was stopped, or went down with another."""
    if one.fate in _NOBODYS:
        return False
    if one.fate is Fate.STOPPED_BY_US and one.because:
        return True  # its probe failed
    return one.result != "" and one.result not in ENDED_WELL


class _Run(NamedTuple):
    """A run of which the end is known, or that goes on."""

    end: float  # these two are what runs are sorted by
    begin: float  # of a run with an unknown beginning: the end
    is_vague: bool  # when it began is unknown
    is_told_late: bool  # by the journal
    after: State


def _run(one: Exit) -> _Run:
    end, ran = one.when, one.uptime_sec
    has_run = one.exec_code or one.result in ("", "success")
    begin = end - ran if ran > 0 else end
    return _Run(end, begin, bool(ran <= 0 and has_run), one.source == "journal", AFTER[one.fate])


def timeline(
    rows: Iterable[Told], live: Live, since: float, until: float, holes: Iterable[Hole] = ()
) -> list[Span]:
    """Return the states of one unit from `since` to `until`, in order, no two of a kind side by side.

    `rows` are its exits, in any order: those of the window, and the last one before it. `holes` are times
    that a clock which was set never showed, or showed twice: only of the run that goes on more is known.
    """
    rows = sorted(
        rows, key=itemgetter(0)
    )  # by their numbers: of one instant: in the order in which they were written
    told = [(one.at, one.what) for one in rows if isinstance(one.what, Exit)]
    runs = sorted([_run(one) for _, one in told if one.when], key=itemgetter(0, 1))
    lost = sorted((at, AFTER[one.fate]) for at, one in told if not one.when)
    if live.began:
        runs.append(_Run(max(until, live.began), live.began, False, False, State.UNKNOWN))
    doubts = _doubts(runs, lost)
    line: list[tuple[float, State]] = []  # until when, in which state
    before, after = 0.0, State.UNKNOWN  # the end of the run before, and what followed it
    for number, (end, began, is_vague, _, then) in enumerate(runs):
        begin = began if began > before else before
        is_now = live.began > 0 and number == len(runs) - 1
        if number in doubts:
            at, after = doubts[number]
            line.append((min(at, begin), State.UNKNOWN))
        line.append((begin, State.UNKNOWN if is_vague or (is_now and not live.is_known) else after))
        line.append((end, State.UP))
        before, after = end if end > before else before, then
    if len(runs) in doubts:
        at, after = doubts[len(runs)]
        line.append((at, State.UNKNOWN))
    line.append((until, after if live.is_known else State.UNKNOWN))
    known_from = live.began or until
    return _with_holes(
        _spans(line, since, until), [(begin, min(end, known_from)) for begin, end in sorted(holes)]
    )


def _with_holes(spans: list[Span], holes: Iterable[Hole]) -> list[Span]:
    for begin, end in holes:
        parts: list[Span] = []
        for span in spans:
            inner = Span(max(span.begin, begin), min(span.end, end), State.UNKNOWN)
            if inner.length <= 0:
                parts.append(span)
            else:
                parts += [span._replace(end=inner.begin), inner, span._replace(begin=inner.end)]
        spans = []
        for part in parts:
            if part.length > 0 and spans and spans[-1].state is part.state:
                spans[-1] = spans[-1]._replace(end=part.end)
            elif part.length > 0:
                spans.append(part)
    return spans


def _spans(line: Iterable[tuple[float, State]], since: float, until: float) -> list[Span]:
    """Return the parts of a line that are in the window; what ends before the part before it is left out."""
    found: list[Span] = []
    begin = at = since
    now: State | None = None
    for end, state in line:
        if end <= at or at >= until:
            continue
        if state is not now:
            if now is not None:
                found.append(Span(begin, at, now))
            begin, now = at, state
        at = end if end < until else until
    return [*found, Span(begin, at, now)] if now is not None else found


def _doubts(runs: Sequence[_Run], lost: Sequence[tuple[float, State]]) -> dict[int, tuple[float, State]]:
    """Return before which of the runs others were lost: until when at the latest, and what followed them.

    A lost run was told some time after its end: it was before the run that was under way then. If the
    journal told of runs at that time, with holes, it may as well have been before any of those.
    """
    ends = [run.end for run in runs]
    doubts: dict[int, tuple[float, State]] = {}
    for at, after in lost:
        place = bisect_left(ends, at)
        doubts[place] = max(doubts.get(place, (0.0, after)), (at, after))
        while place and runs[place - 1].is_told_late:
            place -= 1
            doubts[place] = (_NEVER, State.UNKNOWN)
    return doubts


def figures(spans: Sequence[Span], failures: int) -> Figures:
    """Return what these spans come to."""
    up = down = off = unknown = longest = 0.0
    repairs = []
    mended = 0.0  # for how long it was down just before
    for begin, end, state in spans:
        length = end - begin
        if state is State.UP:
            up += length
            if mended:
                repairs.append(mended)
        elif state is State.DOWN:
            down += length
            longest = max(longest, length)
            mended = length
            continue
        elif state is State.OFF:
            off += length
        else:
            unknown += length
        mended = 0.0
    return Figures(up, down, off, unknown, failures, tuple(repairs), longest)
