"""One unit followed through its runs: what one look at it changes, and what becomes of a run that ended.

Owns the states of a unit's memory and every row but those that only the journal or the count knows. The
table of fates is in `policy`. Rule: a look that tells nothing new changes nothing, in whatever order it
comes.
"""

from __future__ import annotations

from typing import assert_never

from sysresp.controller import healing, limits
from sysresp.controller.accounting import Phase, credit, has_waited, is_queued, phase, row_of
from sysresp.controller.draft import NEW, Draft
from sysresp.controller.events import (
    AskRequired,
    Exit,
    Fate,
    Kill,
    Member,
    Note,
    Recount,
    Row,
    Stop,
    UnitMemory,
    Wait,
)
from sysresp.ports import Seen
from sysresp.units.supervision import restarts_after

SETTLE_SEC = 0.1
"""After `failed`, auto-restart follows within a millisecond, if it follows (measured on 247 and 252)."""

ABSENT = frozenset({"masked", "not-found", "bad-setting", "error"})
"""LoadStates of a unit that cannot be started."""

START_LIMIT = "systemd gave up: too many starts"
MOST_NAMED = 64


def saw(draft: Draft, seen: Seen) -> None:
    """Take in what systemd said of one unit."""
    member = draft.member(seen.unit)
    if member is None:
        healing.outsider(draft, seen)
        return
    known = draft.get(seen.unit)
    if known is None:
        known = NEW._replace(n_restarts=seen.n_restarts, failures=seen.n_restarts)
    elif is_late(seen, known) or _is_told(seen, known):
        return
    elif not known.is_ended and not seen.invocation and known.wait is Wait.NOTHING:
        # Unloaded since, or told before the run began? It has no time that would tell.
        draft.put(seen.unit, known._replace(wait=Wait.SETTLE, wake_at=draft.now + SETTLE_SEC, tries=0))
        return
    elif not known.is_ended and not seen.invocation and known.wait is Wait.SETTLE and not known.tries:
        return
    look(draft, member, known, seen)


def is_late(seen: Seen, known: UnitMemory) -> bool:
    """Say whether this is older than what is known; a unit that was unloaded has no time and no run."""
    if seen.invocation and seen.invocation == known.previous:
        return True
    return seen.changed < known.changed and bool(seen.changed or seen.invocation)


def _is_told(seen: Seen, known: UnitMemory) -> bool:
    """Say whether all of this is known: PID 1 tells each state up to three times."""
    if known.our_job or known.wait is Wait.SETTLE or seen.load in ABSENT:
        return False  # a second look may tell more than the first
    return (
        seen.changed == known.changed
        and seen.invocation == known.invocation
        and seen.sub == known.sub
        and seen.active == known.active
        and seen.job == known.job
        and seen.n_restarts == known.n_restarts
        and (known.is_ended or seen.started == known.started)
        and seen.result != "start-limit-hit"
    )


def look(draft: Draft, member: Member, known: UnitMemory, seen: Seen, stopped: float = 0.0) -> None:
    """Take in a look at a member that is not older than what is known.

    `stopped`: since when a job stopped the run that it tells of, if that is known from elsewhere.
    """
    unit = seen.unit
    where = phase(seen, known)
    is_new = seen.invocation not in ("", known.invocation)
    before = known
    if is_new:
        if not known.is_ended:
            draft.act(Row(_unseen_end(known, seen)))
        is_ahead = where is Phase.FAILED or (where is Phase.DEAD and has_waited(seen))
        is_ahead |= where is Phase.WAITING and is_queued(seen)
        known = credit(known, seen, True, is_ahead)
        if known.missing and len(known.named) < MOST_NAMED:
            named = known.named or (before.previous,)
            known = known._replace(named=(*named, before.invocation, seen.invocation))
        known = _begin(member, known, seen)
    else:
        known = credit(known, seen, False)
        if known.missing > before.missing and not known.named:
            known = known._replace(named=(known.previous, known.invocation))
    if known.missing > before.missing:
        draft.act(Recount(unit))
    if stopped and not known.is_ended:
        known = known._replace(stopping=stopped)
    if where is Phase.UP:
        known = _up(member, known, seen, draft.now)
    elif known.is_ended:
        known = _down(draft, member, known, seen, where)
        rests = where is not Phase.WAITING and known.wait not in (Wait.SETTLE, Wait.BACKOFF)
        if rests and known.credit and not seen.job:
            known = known._replace(credit=0)  # what was counted beyond the runs was refused
    else:
        known = _end(draft, member, known, seen, where)
    known = known._replace(
        active=seen.active,
        sub=seen.sub,
        job=seen.job,
        changed=max(seen.changed, known.changed),
    )
    if seen.load in ABSENT and known.wait in limits.OURS:
        known = known._replace(wait=Wait.NOTHING, wake_at=0.0, fate=Fate.GAVE_UP, why=seen.load, on=())
        draft.refate(unit, known, because=seen.load)
        draft.act(Note("refused", unit, f"cannot start it: {seen.load}"))
    draft.put(unit, known)
    is_up = seen.active == "active" or (known.fate is Fate.FINISHED and not before.is_ended)
    if is_up and (before.active != "active" or is_new):
        healing.came_up(draft, unit)


def _begin(member: Member, known: UnitMemory, seen: Seen) -> UnitMemory:
    """Return the memory of a run that is seen for the first time."""
    known = known._replace(
        invocation=seen.invocation,
        previous=known.invocation,
        is_ended=False,
        started=0.0,
        generation=member.generation,
        fate=Fate.UNKNOWN,
        result="",
        is_healthy=None,
        starting=0 if seen.active == "deactivating" else seen.job,
        stopping=0.0,
        tries=0,
        is_stopped=False,
    )
    if known.our_job == "Stop":
        return known  # the run began while our stop was on its way
    return known._replace(our_job="", wait=Wait.NOTHING, wake_at=0.0, on=(), why="")


def _up(member: Member, known: UnitMemory, seen: Seen, now: float) -> UnitMemory:
    """Return the memory of a unit that runs."""
    if seen.started and (seen.main_pid or seen.started > known.ended):
        known = known._replace(started=seen.started)
    if seen.job and seen.active in ("activating", "reloading", "refreshing"):
        known = known._replace(starting=seen.job)
    elif seen.job and seen.active == "deactivating" and not known.stopping:
        # A restart that comes while the start job runs is merged into that, and keeps its number.
        is_merged = seen.job == known.starting and seen.main_pid and seen.result == "success"
        if is_merged or seen.job != known.starting:
            known = known._replace(stopping=seen.changed or now)
    if known.wait is Wait.SETTLE:
        known = known._replace(wait=Wait.NOTHING, wake_at=0.0, tries=0)
    if known.wait is Wait.NOTHING and not known.is_ended and not known.our_job:
        known = known._replace(wake_at=limits.reset_due(known, member.supervision, now))
    return known


def _unseen_end(known: UnitMemory, seen: Seen) -> Exit:
    """Return the row of a run whose end nobody saw, now that another one is there, or none."""
    return Exit(
        seen.unit,
        known.invocation,
        fate=_unseen_fate(known, seen),
        generation=known.generation,
        because=known.why if known.our_job in ("Kill", "Stop") else "",
    )


def _unseen_fate(known: UnitMemory, seen: Seen) -> Fate:
    if known.our_job == "Stop":
        return Fate.STOPPED_BY_US
    if seen.n_restarts > known.n_restarts or known.our_job == "Kill":
        return Fate.RETRY
    return Fate.STOPPED if known.stopping else Fate.UNKNOWN


def _stopper(known: UnitMemory, seen: Seen) -> Fate | None:
    """Return who stopped the run that has ended, None if nobody did."""
    if known.our_job == "Stop":
        return Fate.STOPPED_BY_US
    if known.stopping or (seen.job and seen.job != known.starting):
        return Fate.STOPPED_BY_US if known.our_job in ("Start", "Shorten") else Fate.STOPPED
    return None


def _end(draft: Draft, member: Member, known: UnitMemory, seen: Seen, where: Phase) -> UnitMemory:
    """Write the row of the run that has just ended, and return the memory after it."""
    supervision, unit = member.supervision, seen.unit
    row = row_of(unit, known, seen, draft.wall(seen.changed or draft.now))
    ended = max(seen.ended, seen.changed) or draft.now
    if 0 < supervision.reset_after_sec <= row.uptime_sec:
        known = limits.count_anew(known)
    stopper = None if where is Phase.WAITING else _stopper(known, seen)
    is_failure = stopper is None and row.result not in ("", "success", "exec-condition")
    expected = restarts_after(supervision, row.result or "success", row.exec_code, row.exec_status)
    because = known.why if known.our_job in ("Kill", "Stop") else ""
    our_stop = known.our_job == "Stop"
    if known.wait is Wait.SETTLE:
        known = known._replace(wait=Wait.NOTHING)
    known = known._replace(
        is_ended=True,
        ended=ended,
        result=seen.result,
        our_job=known.our_job if our_stop and where is Phase.WAITING else "",
        started=row.uptime_sec and seen.started,
        wake_at=known.wake_at if our_stop else 0.0,
        starting=max(known.starting, known.job, seen.job),
    )
    if seen.result == "exec-condition":
        return known  # skipped: it never ran
    if stopper is None and (
        is_failure or where is Phase.WAITING or (expected and where is not Phase.EXITED)
    ):
        known = known._replace(failures=known.failures + 1)
    if is_failure:
        known = limits.note_failure(known, supervision, ended)
    attempt = known.failures if is_failure else 0

    goes_on = where is Phase.WAITING or expected
    if our_stop or not goes_on:
        known = limits.forgive(known, supervision)

    since, due = seen.changed or ended, 0.0
    if stopper is not None:
        known = _stopped(draft, unit, known, seen, stopper)
    elif our_stop:  # our stop is still on its way, and ends systemd's own restarts
        known = known._replace(fate=Fate.STOPPED_BY_US)
    elif limits.is_exceeded(known, supervision):
        known = limits.exceed(draft, unit, known, supervision)
        because, due = known.why, known.wake_at
    else:
        match where:
            case Phase.WAITING:
                known = limits.backoff(known._replace(fate=Fate.RETRY), supervision, since)
                due = limits.restart_due(known, supervision, since)
            case Phase.EXITED:
                known = known._replace(fate=Fate.FINISHED)
            case Phase.FAILED if seen.result == "start-limit-hit":
                known = limits.gave_up(draft, unit, known, supervision, START_LIMIT)
                because, due = known.why, known.wake_at
            case Phase.FAILED | Phase.DEAD if expected:
                known = known._replace(
                    fate=Fate.RETRY, wait=Wait.SETTLE, wake_at=draft.now + SETTLE_SEC, tries=0
                )
                due = limits.restart_due(known, supervision, since)
            case _ if not seen.invocation:  # unloaded meanwhile: how it ended, only the journal knows
                known = known._replace(fate=Fate.UNKNOWN)
            case _:
                known = known._replace(fate=Fate.GAVE_UP if is_failure else Fate.FINISHED)
    draft.act(
        Row(
            row._replace(
                fate=known.fate,
                retry_at=draft.wall(due) if known.fate is Fate.RETRY else 0.0,
                because=because,
                attempt=attempt,
            )
        )
    )
    return known


def _stopped(draft: Draft, unit: str, known: UnitMemory, seen: Seen, stopper: Fate) -> UnitMemory:
    """Return the memory of a unit that was stopped, or is being restarted by somebody."""
    if stopper is Fate.STOPPED_BY_US:
        is_kept = known.wait is Wait.COOLDOWN  # the limit over the ledger asked for the stop
        return known._replace(fate=stopper, our_job="") if is_kept else _rest(known, stopper)
    if not seen.job:
        draft.act(AskRequired(unit))  # it may have been stopped along with what it requires
    return _rest(known, stopper)._replace(is_stopped=True, failures=0, cooldowns=0, recent=())


def _rest(known: UnitMemory, fate: Fate) -> UnitMemory:
    return known._replace(fate=fate, wait=Wait.NOTHING, wake_at=0.0, our_job="", tries=0, on=())


def _down(draft: Draft, member: Member, known: UnitMemory, seen: Seen, where: Phase) -> UnitMemory:
    """Return the memory of a unit whose last run is in the ledger, and correct the row's fate."""
    supervision, unit = member.supervision, seen.unit
    match where:
        case Phase.WAITING:
            if known.our_job == "Stop":
                return known
            since = seen.changed or known.ended
            due = limits.restart_due(known, supervision, since)
            is_wrong = known.fate is not Fate.RETRY or known.wait is Wait.COOLDOWN
            known = known._replace(fate=Fate.RETRY, is_stopped=False)
            if is_wrong:
                draft.refate(unit, known, due=due)
            if is_queued(seen):  # the wait is over: to shorten it now would end the run that begins
                return known._replace(wait=Wait.BACKOFF, wake_at=0.0, tries=0)
            if seen.sub == "auto-restart" or known.wait is not Wait.BACKOFF:
                known = limits.backoff(known, supervision, since)
            return known
        case Phase.FAILED | Phase.DEAD:
            is_ours = known.our_job == "Stop"
            if is_ours:
                known = known._replace(our_job="")
            match known.wait:
                case Wait.BACKOFF if where is Phase.DEAD and seen.job:
                    return known  # the restart is under way (systemd <= 253 rests in between)
                case Wait.BACKOFF | Wait.SETTLE if where is Phase.DEAD and is_ours:
                    known = _rest(known, Fate.STOPPED_BY_US)
                    draft.refate(unit, known)
                    return known
                case Wait.BACKOFF:
                    return _final(draft, member, known, seen, where)
                case Wait.SETTLE if known.tries > 0 and not seen.job:
                    return _final(draft, member, known, seen, where)
                case Wait.NOTHING if seen.result == "start-limit-hit" != known.result:
                    # Somebody asked for a start or restart, and systemd refused it.
                    known = known._replace(is_stopped=False)
                    return _final(draft, member, known, seen, where)
                case Wait.NOTHING if known.is_stopped and known.job and not seen.job:
                    draft.act(AskRequired(unit))  # it was a stop: after a restart it would be up
                    return known
                case _:
                    return known
        case Phase.EXITED | Phase.UP:
            return known
        case _:
            assert_never(where)


def _final(draft: Draft, member: Member, known: UnitMemory, seen: Seen, where: Phase) -> UnitMemory:
    """Return the memory of a unit that Restart= should start again, and that systemd leaves down.

    The start limit always ends in `failed`: the restart that it refused was counted in NRestarts, or the
    unit had waited, and a stop of what waits ends in `inactive`. Whatever else keeps it down was somebody's
    wish: that stays so.
    """
    is_limit = known.credit > 0 or known.wait is Wait.BACKOFF or seen.result == "start-limit-hit"
    if where is Phase.FAILED and is_limit:
        known = known._replace(credit=0, result=seen.result)
        known = limits.gave_up(draft, seen.unit, known, member.supervision, START_LIMIT)
        draft.refate(seen.unit, known, because=known.why, due=known.wake_at)
        return known
    if known.wait is Wait.BACKOFF:  # it was stopped as it waited: by hand, not with what it requires
        known = known._replace(stopping=known.ended + 1e-6)
    known = _stopped(draft, seen.unit, known, seen._replace(job=0), Fate.STOPPED)
    draft.refate(seen.unit, known)
    return known


def again(draft: Draft, unit: str, known: UnitMemory) -> UnitMemory:
    """Ask once more for what the controller wanted last, since nobody knows whether it did."""
    is_up = not known.is_ended
    match known.our_job:
        case "Start" if not is_up:
            return limits.take_turn(draft, unit, known, known.why)
        case "Stop":
            draft.act(Stop(unit, known.why))
        case "Kill" if is_up:
            draft.act(Kill(unit, known.why))
        case _:
            return known._replace(our_job="")
    return known
