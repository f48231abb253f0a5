"""Everything looked at again: what happened while nobody listened, from the journal and the count.

Owns the closing of gaps. Ends in the memory that there would be had nothing been missed, but for what
neither systemd nor its journal knows any more. Rule: for each unit first the runs that are over, in their
order, then the look at it as it is now, by the same code as any other look (`runs.look`). What ended before
the ledger knew of the unit, and is down by no failure, is no row: nobody could say who ended it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable

from sysresp.controller import healing, limits
from sysresp.controller.accounting import (
    ENDS,
    SILENCE,
    Gap,
    Phase,
    Run,
    deaths,
    ended_at,
    gap,
    is_queued,
    phase,
    run_of,
)
from sysresp.controller.draft import NEW, Draft
from sysresp.controller.events import AskRequired, Exit, Fate, Member, Note, Resync, Row, UnitMemory, Wait
from sysresp.controller.runs import SETTLE_SEC, START_LIMIT, again, look
from sysresp.ports import Record, Seen
from sysresp.units.supervision import restarts_after

SELF_MADE = frozenset({Fate.FINISHED, Fate.GAVE_UP, Fate.UNKNOWN})
"""Ends that look as if nobody had asked for them."""


AFTER_SEC = 0.02
"""What the journal has of a run from this long after the unit's last change of state, as it was read, is
newer than that: a signal tells of it, and the count that was read does not have it. A start that failed by a
dependency is no run and changes no state: it may be of any time."""

Deaths = list[tuple[float, str]]
"""When which unit died, by itself; sorted."""


def resync(draft: Draft, event: Resync) -> None:
    """Take in everything as it is now."""
    if event.wall_offset:
        draft.memory = draft.memory._replace(wall_offset=event.wall_offset)
    if event.boot and event.boot != draft.memory.boot:
        if draft.memory.boot:
            _rebooted(draft, event.records)
        draft.memory = draft.memory._replace(boot=event.boot, tokens=0.0, tokens_at=0.0)
    records: dict[str, list[Record]] = {}
    now = draft.now
    read_at = {seen.unit: seen.changed or now for seen in event.seen}
    for record in event.records:
        if event.boot and record.boot not in ("", event.boot):
            record = record._replace(monotonic=0.0)  # noqa: PLW2901 - of a clock that is no more
        if record.kind == "start-failed" or record.monotonic <= read_at.get(record.unit, now) + AFTER_SEC:
            records.setdefault(record.unit, []).append(record)
    told = {unit: gap(its, read_at.get(unit, now) + AFTER_SEC) for unit, its in records.items()}
    died = sorted((at, unit) for unit, its in told.items() for at in its.deaths())
    found = Counter[str]()
    for seen in event.seen:
        member = draft.member(seen.unit)
        if member is None:
            healing.outsider(draft, seen)
        else:
            its = told.get(seen.unit, SILENCE)
            _unit(draft, member, seen, its, found)
            _after(draft, member, seen, its, died, is_whole=event.is_whole)
    blocked = frozenset(
        unit
        for unit in draft.roster.members
        if (known := draft.get(unit)) is not None and known.wait is Wait.BLOCKED
    )
    draft.memory = draft.memory._replace(blocked=blocked)
    healing.review(draft)
    _queue_anew(draft)
    if event.blind_sec or found["journal"] or found["count"]:
        draft.act(_note(event, found))


def _note(event: Resync, found: Counter[str]) -> Note:
    text = f"{event.cause}: blind for {event.blind_sec:.3f} s"
    text += f"; {found['journal']} runs ended meanwhile by the journal"
    if found["count"]:
        text += f", {found['count']} more by the count of restarts alone"
    if not event.is_whole:
        text += "; the journal has lost some of that time"
    if found["uncounted"]:
        text += f"; of {found['uncounted']} units the count was set back, so only the journal tells"
    return Note("gap", text=text, amount=event.blind_sec)


def _unit(draft: Draft, member: Member, seen: Seen, told: Gap, found: Counter[str]) -> None:
    known = draft.get(seen.unit)
    is_known = known is not None
    if known is None:
        known = NEW._replace(n_restarts=seen.n_restarts, failures=seen.n_restarts)
    where = phase(seen, known)
    rests = where in (Phase.DEAD, Phase.EXITED) and bool(seen.invocation)
    if not is_known and rests and seen.invocation not in told.runs:
        known = known._replace(
            invocation=seen.invocation, ended=max(seen.ended, seen.changed), result=seen.result
        )
    count = is_ours = 0
    is_ahead = _is_ahead(member, known, seen, where, told)
    if is_known:
        if seen.n_restarts < known.n_restarts and not known.is_reset:
            found["uncounted"] += 1
            count = known.missing
        else:
            refused = told.refused + told.counted_again(known) + is_ahead
            count = deaths(known, seen, where, refused)
            is_ours = _is_ours(member, known, seen, told)
    known, named = _past(draft, member, known, seen, told)
    found["journal"] += named
    ends_now = where is not Phase.UP and (
        seen.invocation not in ("", known.invocation) or not known.is_ended
    )
    lost = count - named - ends_now
    for _ in range(lost + is_ours if lost > 0 or not told.runs else 0):
        found["count"] += 1
        known = known._replace(lost=known.lost + 1, failures=known.failures + 1)
        row = Exit(seen.unit, f"lost-{known.lost}", generation=known.generation, source="count")
        draft.act(Row(row))
    is_first = seen.invocation not in ("", known.invocation)  # the look below uses up one credit then
    credit = 1 + is_first if is_ahead else 0
    known = known._replace(
        n_restarts=seen.n_restarts, credit=credit, missing=0, named=(), since=0.0, is_reset=False
    )
    if known.is_ended and known.our_job == "Shorten":
        known = known._replace(our_job="")  # perhaps it was never asked for; if it waits still, once more
    if told.was_skipped and known.our_job == "Start":
        known = known._replace(our_job="")
    look(draft, member, known, seen, 0.0 if where is Phase.UP else told.stopped_at(seen.invocation))
    known = draft.get(seen.unit) or known
    # A unit is never read as `failed` between its end and the wait that follows: this is what followed that.
    is_settled = where is Phase.FAILED and told.was_refused(seen.invocation)
    is_settled |= draft.now >= seen.changed + SETTLE_SEC
    if known.wait is Wait.SETTLE and known.is_ended and is_settled:
        look(draft, member, known._replace(tries=1), seen)


def _past(draft: Draft, member: Member, known: UnitMemory, seen: Seen, told: Gap) -> tuple[UnitMemory, int]:
    """Write the runs that are over and are not the last one; return the memory, and how many were new."""
    unit, new = seen.unit, 0
    last, runs = known.invocation, told.runs
    is_since = known.since and (known.missing or known.credit)
    cut = known.since if is_since else max(known.started, known.ended)
    is_after, is_older = last in runs, last in runs  # is the run that comes next newer, or older, than that?
    if not is_after and not known.is_ended and last != seen.invocation:
        runs = {last: [], **runs}
    for invocation, records in runs.items():
        is_last_known = invocation == last
        is_older &= not is_last_known
        if is_last_known and known.is_ended:
            run = run_of(unit, invocation, records, member.supervision, by_us=False)
            known = _told_late(draft, unit, known, run)
            continue
        if invocation == seen.invocation:
            continue
        run = run_of(unit, invocation, records, member.supervision, by_us=known.our_job == "Stop")
        row = run.row._replace(generation=member.generation)
        if is_last_known:
            because = known.why if known.our_job in ("Kill", "Stop") else ""
            ran = row.uptime_sec or _length(known, run.ended)  # it began before the gap
            row = row._replace(generation=known.generation, because=because, uptime_sec=ran)
        is_new = is_last_known or (
            invocation not in known.named
            and invocation != known.previous
            and ((is_after and not is_older) or records[-1].monotonic > cut)
        )
        if not is_new:
            draft.act(Row(row, is_late=True))
            continue
        new += 1
        if 0 < member.supervision.reset_after_sec <= row.uptime_sec:
            known = limits.count_anew(known)
        if row.fate is Fate.STOPPED:
            known = limits.count_anew(known)
        elif row.fate is Fate.RETRY or run.is_failure:
            known = known._replace(failures=known.failures + 1)
        if run.is_failure and row.fate is not Fate.STOPPED:
            known = limits.note_failure(known, member.supervision, run.ended or draft.now)
            row = row._replace(attempt=known.failures)
        draft.act(Row(row))
        if is_older:
            continue
        if not is_last_known:
            known = known._replace(invocation=invocation, previous=known.invocation)
        known = known._replace(
            is_ended=True,
            ended=max(known.ended, run.ended),
            fate=row.fate,
            result=row.result,
            is_stopped=row.fate is Fate.STOPPED,
            stopping=0.0,
        )
        if known.our_job != "Stop" or row.fate is not Fate.RETRY:  # else our stop is still to come
            known = known._replace(our_job="", wait=Wait.NOTHING, wake_at=0.0, on=())
    return known, new


def _told_late(draft: Draft, unit: str, known: UnitMemory, run: Run) -> UnitMemory:
    """Return the memory of a unit of which the last run was known to be over, but perhaps not how."""
    fate = run.row.fate
    if run.is_failure and known.result in ("", "success"):
        known = known._replace(result=run.row.result)
    # It was unloaded, or its failure reset, before it was looked at?
    if known.fate is Fate.UNKNOWN or (known.fate is Fate.FINISHED and run.is_failure):
        known = known._replace(result=run.row.result, ended=run.ended or known.ended, fate=fate)
        if known.wait is Wait.BLOCKED and fate in (Fate.RETRY, Fate.STOPPED):
            known = known._replace(fate=Fate.BLOCKED)  # by a start after that
        elif fate is Fate.STOPPED:
            known = limits.count_anew(known)._replace(is_stopped=known.wait is Wait.NOTHING)
        draft.act(Row(run.row._replace(fate=known.fate)))
    # A job was seen with its end, which no job had brought about: somebody's start, which may be blocked.
    elif fate in (Fate.GAVE_UP, Fate.FINISHED) and (
        known.fate is Fate.BLOCKED or (known.fate is Fate.STOPPED and not known.stopping)
    ):
        known = known._replace(fate=fate, is_stopped=False)
        draft.refate(unit, known)
    return known


def _length(known: UnitMemory, ended: float) -> float:
    """Return how long the last known run was; 0: unknown."""
    return max(0.0, ended - known.started) if known.started else 0.0


def _is_ours(member: Member, known: UnitMemory, seen: Seen, told: Gap) -> bool:
    """Say whether the controller, before the gap, began the first run in it: RestartUnit is not counted.

    It may have been cut before it did what is in memory. Then systemd ended the wait, and not before its
    time; or a person did, which nobody can tell apart: so this is believed only where the journal has holes.
    """
    if known.our_job == "Start":
        return seen.invocation not in ("", known.invocation)
    if known.our_job != "Shorten" or seen.invocation in ("", known.invocation):
        return False
    if seen.n_restarts <= known.n_restarts:
        return True
    first = next((r for i, r in told.runs.items() if i not in (known.invocation, known.previous)), None)
    began = first[0].monotonic if first else seen.started
    return began < known.changed + limits.systemd_waits(member.supervision, known) - 0.05


def _is_ahead(member: Member, known: UnitMemory, seen: Seen, where: Phase, told: Gap) -> bool:
    """Say whether the count is one ahead of the runs: by a queued restart, or one that was refused.

    After a gap nobody knows whether a unit that failed hit the start limit; if it can, it is taken for that.
    """
    if where is not Phase.FAILED:
        return where in (Phase.WAITING, Phase.DEAD) and is_queued(seen)
    if told.was_refused(seen.invocation):
        return True  # it was to be restarted, and nobody stopped it: that is never left as `failed`
    if told.stopped_at(seen.invocation):
        return False
    if known.invocation == seen.invocation:
        return seen.n_restarts + known.credit > known.n_restarts
    supervision = member.supervision
    is_to_go_on = restarts_after(supervision, seen.result, seen.exec_code, seen.exec_status)
    is_limit = seen.result == "start-limit-hit" or (supervision.attempts > 0 and is_to_go_on)
    return is_limit and seen.n_restarts > 0


def _after(draft: Draft, member: Member, seen: Seen, told: Gap, died: Deaths, *, is_whole: bool) -> None:
    """Take up what the journal tells of the time since the last run, and what was under way."""
    unit, known = seen.unit, draft.get(seen.unit)
    if known is None:
        return
    is_limit = known.fate is Fate.GAVE_UP and known.why  # ... of ours, which asked for a stop
    looks_self_made = known.is_ended and known.fate in SELF_MADE and not is_limit
    if looks_self_made and told.stopped_at(known.invocation):  # its end was seen, but not who ended it
        if known.wait is Wait.NOTHING:
            known = limits.count_anew(known)._replace(is_stopped=True, fate=Fate.STOPPED)
            draft.refate(unit, known)
        elif known.wait is Wait.BLOCKED:  # by a start after that
            known = limits.count_anew(known)._replace(fate=Fate.BLOCKED)
            draft.refate(unit, known, because=known.why)
    is_blocked = known.is_ended and told.blocked_at > max(known.started, known.stopping)
    # That it was refused, and not stopped, is certain if it is `failed`; else by what the journal lacks.
    is_certain = seen.active == "failed" or is_whole
    looks_refused = known.is_ended and known.wait is Wait.NOTHING and known.fate is Fate.RETRY
    looks_refused |= known.is_stopped
    stopped = known.stopping if known.stopping > known.ended + 1e-5 else 0.0  # as it was down already
    result = "start-limit-hit" if known.result == "success" else known.result
    if is_certain and looks_refused and told.refused_at(known.invocation) > stopped and not is_blocked:
        known = limits.gave_up(
            draft, unit, known._replace(is_stopped=False, result=result), member.supervision, START_LIMIT
        )
        draft.refate(unit, known, because=known.why, due=known.wake_at)
    goes_on = not known.is_ended or known.wait in (Wait.BACKOFF, Wait.SETTLE)
    if goes_on and limits.is_exceeded(known, member.supervision) and known.our_job != "Stop":
        known = limits.exceed(draft, unit, known, member.supervision)
        draft.refate(unit, known, because=known.why, due=known.wake_at)
        draft.put(unit, known)
        return
    known = limits.forgive(known, member.supervision)
    if is_blocked:
        known = healing.block(draft, unit, known, f"{told.blocked_at:.6f}")
    elif known.is_stopped and known.wait is Wait.NOTHING:
        if told.was_due(known.invocation):  # it was stopped as it waited: by hand, so later than the run
            stopping = max(known.stopping, told.stopped_at(known.invocation), known.ended + 1e-6)
            known = known._replace(stopping=stopping)
        else:
            known = known._replace(on=_died_before(unit, told, died))
        draft.act(AskRequired(unit))  # it may have been stopped along with what it requires
    elif known.our_job and not seen.job and known.wait is not Wait.SLOT:
        known = again(draft, unit, known)
    draft.put(unit, known)


def _died_before(unit: str, told: Gap, deaths: Deaths) -> tuple[str, ...]:
    """Return the units that died, not by a job, just before the last run of this one was stopped."""
    last = next(reversed(told.runs.values()), [])
    end = ended_at(last)
    began = last[0].monotonic if last and last[0].kind == "started" else 0.0
    begin = bisect_left(deaths, (max(end - healing.TOGETHER_SEC, began), ""))
    close = bisect_right(deaths, (end, chr(0x10FFFF)))
    return tuple(sorted({name for _, name in deaths[begin:close]} - {unit}))


def _queue_anew(draft: Draft) -> None:
    """Give those that wait for their turn a new one: the bucket of a new controller knows none of theirs."""
    if draft.memory.tokens_at:
        return
    draft.memory = draft.memory._replace(tokens=0.0, tokens_at=draft.now)
    waiting = sorted(
        (known.wake_at, unit)
        for unit in draft.roster.members
        if (known := draft.get(unit)) is not None and known.wait is Wait.SLOT
    )
    for _, unit in waiting:
        known = draft.get(unit)
        if known is not None:
            draft.put(unit, limits.take_turn(draft, unit, known, known.why))


def _rebooted(draft: Draft, records: Iterable[Record]) -> None:
    """Forget what was of another boot: every run is over, and each instant means nothing any more.

    But for how long a run was: that boot's own clock is in its records.
    """
    ends: dict[tuple[str, str], float] = {}
    for record in records:
        if record.boot == draft.memory.boot and record.kind in ENDS:
            ends.setdefault((record.unit, record.invocation), record.monotonic)
    for unit, known in draft.memory.units.items():
        if draft.member(unit) is None:
            draft.forget(unit)
            continue
        if not known.is_ended:
            row = Exit(
                unit, known.invocation, generation=known.generation, because="the machine was restarted"
            )
            ran = _length(known, ends.get((unit, known.invocation), 0.0))
            draft.act(Row(row._replace(uptime_sec=ran, source="count")))
        draft.put(
            unit,
            NEW._replace(
                invocation=known.invocation,
                previous=known.previous,
                generation=known.generation,
                lost=known.lost,
                fate=known.fate,  # UNKNOWN, if the run has not ended: the journal may tell
                result=known.result,
            ),
        )
