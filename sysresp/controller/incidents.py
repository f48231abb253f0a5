"""Incidents: failures that belong together, from the first of them until all is well again.

Owns the nouns, and what counts as trouble and as well; `correlate` finds out what belongs together,
`telling` who hears of it. Pure: no clock, no file, no bus. An incident opens when something will not mend by
itself or goes on too long (`REASONS` of sysresp.units.alerting). An exit that systemd's Restart= follows is
none, until there are `flaps` of them in `flaps_sec`. It ends when the root and all consequences have been
well for a while, or nobody wants them to run any more.

Rule: trouble is read from the memory of the units as they are now, so that it does not matter how it came.
"""

from __future__ import annotations

import signal
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from sysresp.controller.events import Action, Exit, Fate, Roster, Row, UnitMemory, Wait

SETTLE_SEC = 5.0
"""All must be well for so long before an incident is over."""

_UP = frozenset({"active", "reloading", "refreshing"})
_ENDED_WELL = frozenset({Fate.FINISHED, Fate.STOPPED})
_HARMLESS = frozenset({"", "success", "exec-condition"})


class Part(NamedTuple):
    """One unit's share of an incident."""

    unit: str
    reasons: tuple[str, ...] = ()  # in the order of REASONS; (): others depend on it, and it is down
    why: str = ""  # in words
    since: float = 0.0  # seconds since the epoch
    waits_for: tuple[str, ...] = ()  # the units that it is blocked by
    failures: int = 0
    exit: str = ""  # how its last failure ended
    run: str = ""  # ... and its invocation


class Told(NamedTuple):
    """What one receiver has been told of an incident: seconds since the epoch, 0: not yet."""

    opened: float = 0.0
    last: float = 0.0
    escalated: float = 0.0
    resolved: float = 0.0


class Incident(NamedTuple):
    """Failures that belong together; stored as JSON, so fields are only added, with a default."""

    id: int
    root: str
    opened: float
    parts: tuple[Part, ...] = ()  # the root first, then in the order in which they joined
    runs: tuple[str, ...] = ()  # the last invocations that were counted
    well_since: float = 0.0  # 0: something is not well
    ends: float = 0.0  # when it is over if all stays well; 0: something is not
    resolved: float = 0.0  # when all was well; 0: it is not over
    into: int = 0  # the incident that it turned out to be a consequence of
    told: Mapping[str, Told] = {}  # by receiver, "PROJECT/NAME"
    named: float = 0.0  # what `opened` was before the clock was set: messages go on being named by it

    def units(self) -> tuple[str, ...]:
        """Return its units, the root first."""
        return tuple(part.unit for part in self.parts)

    def reasons(self) -> frozenset[str]:
        """Return all that makes it an incident."""
        return frozenset(reason for part in self.parts for reason in part.reasons)

    def failures(self) -> int:
        """Return how many failures it has seen."""
        return sum(part.failures for part in self.parts)


class Failure(NamedTuple):
    """One failure, as long as it may be one of too many."""

    at: float
    run: str
    exit: str


class Open(NamedTuple):
    """What the correlator remembers. Treated as immutable."""

    incidents: Mapping[int, Incident] = {}  # that are not over
    of: Mapping[str, int] = {}  # unit -> its incident
    recent: Mapping[str, tuple[Failure, ...]] = {}  # by unit, at most `flaps`
    next_id: int = 1


class Batch(NamedTuple):
    """What happened, after the policy has decided on it."""

    roster: Roster
    units: Mapping[str, UnitMemory]  # all, as they are now
    changed: Collection[str]  # units of which the memory changed, or went
    failures: tuple[Exit, ...]
    when: float  # now, in seconds since the epoch


class Outcome(NamedTuple):
    """What follows from a batch."""

    known: Open
    touched: Mapping[int, Incident] = {}  # new, changed or over: to be stored


def moved(known: Open, by: float) -> Open:
    """Return the same after the clock was set by so many seconds: nothing is older or younger for that."""

    def at(instant: float) -> float:
        return instant and instant + by

    incidents = {
        number: one._replace(
            opened=at(one.opened),
            named=one.named or one.opened,
            well_since=at(one.well_since),
            ends=at(one.ends),
            parts=tuple(part._replace(since=at(part.since)) for part in one.parts),
            told={name: Told._make(map(at, told)) for name, told in one.told.items()},
        )
        for number, one in known.incidents.items()
    }
    recent = {
        unit: tuple(failure._replace(at=at(failure.at)) for failure in failures)
        for unit, failures in known.recent.items()
    }
    return known._replace(incidents=incidents, recent=recent)


def failures_of(actions: Iterable[Action]) -> tuple[Exit, ...]:
    """Return the ends of runs among these that are failures; a row's correction is none."""
    return tuple(
        action.exit
        for action in actions
        if isinstance(action, Row)
        and (action.exit.attempt > 0 or (action.is_late and _is_failure(action.exit)))
    )


def _is_failure(one: Exit) -> bool:
    return one.result not in _HARMLESS and one.fate not in (Fate.STOPPED, Fate.STOPPED_BY_US)


def exit_words(one: Exit) -> str:
    """Return how a run ended, shortly."""
    if one.exec_code == 1:
        return f"exit status {one.exec_status}"
    if one.exec_code in (2, 3):
        try:
            name = signal.Signals(one.exec_status).name
        except ValueError:
            name = f"signal {one.exec_status}"
        return f"killed by {name}" + (", core dumped" if one.exec_code == 3 else "")
    return one.result


def settle_sec(incident: Incident, roster: Roster) -> float:
    """Return how long all must be well: after flapping, as long as its failures may be apart on average."""
    settings = roster.settings
    is_flapping = "flapping" in incident.reasons()
    return max(SETTLE_SEC, settings.flaps_sec / settings.flaps) if is_flapping else SETTLE_SEC


def trouble(known: UnitMemory) -> tuple[str, str]:
    """Return the reason for which a member is in trouble, and why in words; "" if it is not."""
    if known.is_stopped and known.is_ended:
        return "", ""
    if not known.is_ended:
        return ("probe", f"unhealthy: {known.why}") if known.is_healthy is False else ("", "")
    match known.wait, known.fate:
        case Wait.BLOCKED, _:
            return "blocked", "a unit that it requires is down"
        case Wait.COOLDOWN, _:
            return "gave-up", f"{known.why}, it waits for the end of its cooldown"
        case Wait.NOTHING, Fate.GAVE_UP:
            return "gave-up", known.why or "nothing starts it again"
        case Wait.NOTHING, Fate.STOPPED_BY_US:
            reason = "probe" if known.is_healthy is False else "gave-up"
            return reason, f"stopped by sysresp: {known.why}" if known.why else "stopped by sysresp"
    return "", ""


def is_well(known: UnitMemory | None, *, is_member: bool) -> bool:
    """Say whether the unit is as it should be, or nobody wants it to be any more."""
    if known is None:
        return True
    if not is_member:
        return known.active in _UP
    if known.is_ended and (known.is_stopped or (known.fate in _ENDED_WELL and known.wait is Wait.NOTHING)):
        return True
    return known.active in _UP and known.is_healthy is not False
