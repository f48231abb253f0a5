"""What comes back because something else came back: units whose start, or life, hung on another.

Owns the wait BLOCKED: who waits, for whom, and when it is over. systemd never tries again what failed with
`dependency`, and never brings back what BindsTo= or Requires= took down. Rule: what the operator stopped is
never started, and a unit is started only when all that it requires is up: so a chain heals link by link,
however long it is, and nothing is pulled up that somebody wanted down.
"""

from __future__ import annotations

from sysresp.controller.draft import NEW, Draft
from sysresp.controller.events import AskRequired, Fate, Look, Note, Required, UnitMemory, Wait
from sysresp.controller.limits import pause, take_turn
from sysresp.ports import Seen

TOGETHER_SEC = 0.25
"""What is stopped so soon after a unit that it requires has died was stopped by that."""

SOON_SEC = 0.1
"""Time in which whoever brought up what was missing may bring up what waited for it, too."""

BY_HAND = frozenset({Fate.STOPPED})
"""Ends of a unit that were somebody's wish, and so the end of what is bound to it, too."""


def block(draft: Draft, unit: str, known: UnitMemory, key: str) -> UnitMemory:
    """Return the memory of a unit whose start failed because of one that it requires."""
    draft.act(AskRequired(unit))
    known = known._replace(our_job="", credit=max(0, known.credit - 1), is_stopped=False)
    if known.wait is Wait.BLOCKED and not known.wake_at:
        return known
    draft.act(Note("blocked", unit, "cannot start: a unit that it requires is down", key=key))
    known = known._replace(wait=Wait.BLOCKED, on=(), wake_at=0.0, why="", tries=known.tries + 1)
    if known.fate in (Fate.RETRY, Fate.STOPPED):
        known = known._replace(fate=Fate.BLOCKED)
        draft.refate(unit, known)
    return known


def required(draft: Draft, event: Required) -> None:
    """Take in what the unit cannot start without."""
    unit, units = event.unit, event.units
    known = draft.get(unit)
    if known is None or draft.member(unit) is None:
        return
    if known.wait is Wait.BLOCKED:
        _follow(draft, event)
        down = ", ".join(other for other in units if not _is_up(draft.get(other), known))
        if known.fate is Fate.BLOCKED and down != known.why:
            draft.refate(unit, known, because=down)
        known = known._replace(on=units, why=down)
        draft.put(unit, known)
        _go_on(draft, unit, known)
    elif known.is_stopped and known.is_ended and known.wait is Wait.NOTHING:
        # A stop of what was down already is nobody's doing but a person's.
        culprit = _culprit(draft, known, event.bound) if known.stopping <= known.ended else ""
        if culprit:
            _follow(draft, event)
            known = known._replace(
                is_stopped=False, fate=Fate.BLOCKED, wait=Wait.BLOCKED, on=units, why=culprit, tries=0
            )
            draft.act(
                Note("blocked", unit, f"stopped with {culprit}, which it requires", key=known.invocation)
            )
            draft.refate(unit, known, because=culprit)
            draft.put(unit, known)
            _go_on(draft, unit, known)


def _follow(draft: Draft, event: Required) -> None:
    """Know from now on how all of these are, members or not: else none is known to be up."""
    for other in event.units:
        if draft.get(other) is None:
            draft.put(other, NEW)
    for seen in event.outside:
        outsider(draft, seen)


def _culprit(draft: Draft, known: UnitMemory, bound: tuple[str, ...]) -> str:
    """Return the member whose death, by nobody's wish, took down this one, which is bound to it; or ""."""
    stopped = known.stopping or known.ended
    for unit in bound:
        other = draft.get(unit)
        if draft.member(unit) is None or other is None:
            continue
        # It may be up again by now.
        is_cause = other.fate not in BY_HAND if other.is_ended else other.started > stopped
        died = other.ended
        if is_cause and died > known.started and died <= stopped <= died + TOGETHER_SEC:
            return unit
        if unit in known.on:
            return unit
    return ""


def _is_up(other: UnitMemory | None, dependent: UnitMemory) -> bool:
    """Say whether the unit is what its dependent needs it to be; a oneshot that has ended well since is."""
    if other is None:
        return False
    is_done = other.active == "inactive" and other.is_ended and other.fate is Fate.FINISHED
    return other.active == "active" or (is_done and other.ended > max(dependent.ended, dependent.stopping))


def came_up(draft: Draft, unit: str) -> None:
    """Let go on what waited for this unit."""
    for waiting in sorted(draft.memory.blocked):
        known = draft.get(waiting)
        if known is not None and unit in known.on:
            # It is another life of that: what came to nothing in the last one says nothing of this.
            _go_on(draft, waiting, known._replace(tries=min(known.tries, 1), wake_at=0.0))


def review(draft: Draft) -> None:
    """Look at all that waits: after a resync anything may have come up."""
    for waiting in sorted(draft.memory.blocked):
        known = draft.get(waiting)
        if known is None:
            continue
        if known.on:
            _go_on(draft, waiting, known)
        else:
            draft.act(AskRequired(waiting))


def _go_on(draft: Draft, unit: str, known: UnitMemory) -> None:
    """Let the unit start soon if nothing that it requires is down.

    Not at once: whoever started what it requires, a person or systemd's own restart of both, may be about
    to start it too, and our RestartUnit would then end the run that has just begun.
    """
    if known.wake_at or known.is_stopped or not known.on:
        return
    if all(_is_up(draft.get(other), known) for other in known.on):
        soon = SOON_SEC if known.tries <= 1 else pause(known.tries)
        draft.put(unit, known._replace(wake_at=draft.now + soon))
        draft.act(Look(unit))


def start(draft: Draft, unit: str, known: UnitMemory) -> UnitMemory:
    """Start the unit, now that this is due, if what it requires is still up."""
    known = known._replace(wake_at=0.0)
    if not all(_is_up(draft.get(other), known) for other in known.on):
        return known
    why = f"what it requires is up: {', '.join(known.on)}"
    draft.act(Note("healed", unit, why))
    return take_turn(draft, unit, known, why)


def outsider(draft: Draft, seen: Seen) -> None:
    """Take in the state of a unit that is not of the roster, if somebody waits for it."""
    known = draft.get(seen.unit)
    if known is None or 0 < seen.changed < known.changed:
        return
    now = known._replace(active=seen.active, sub=seen.sub, changed=max(seen.changed, known.changed))
    draft.put(seen.unit, now)
    if seen.active == "active" and known.active != "active":
        came_up(draft, seen.unit)
