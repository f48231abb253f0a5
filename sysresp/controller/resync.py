"""Everything looked at again: what happened while nobody listened, from the journal and the count.

Owns the closing of gaps. Ends in the memory that there would be had nothing been missed, but for what
neither systemd nor its journal knows any more. Rule: for each unit first the runs that are over, in their
order, then the look at it as it is now, by the same code as any other look (`runs.look`).
"""

from __future__ import annotations

from collections import Counter

from sysresp.controller import healing, limits
from sysresp.controller.accounting import Gap, Phase, deaths, gap, phase, run_of
from sysresp.controller.draft import NEW, Draft
from sysresp.controller.events import Exit, Fate, Member, Note, Resync, Row, UnitMemory, Wait
from sysresp.controller.runs import again, look
from sysresp.ports import Record, Seen
from sysresp.units.supervision import restarts_after


def resync(draft: Draft, event: Resync) -> None:
    """Take in everything as it is now."""
    if event.wall_offset:
        draft.memory = draft.memory._replace(wall_offset=event.wall_offset)
    if event.boot and event.boot != draft.memory.boot:
        if draft.memory.boot:
            _rebooted(draft)
        draft.memory = draft.memory._replace(boot=event.boot, tokens=0.0, tokens_at=0.0)
    records: dict[str, list[Record]] = {}
    for record in event.records:
        records.setdefault(record.unit, []).append(record)
    found = Counter[str]()
    for seen in event.seen:
        member = draft.member(seen.unit)
        if member is None:
            healing.outsider(draft, seen)
        else:
            _unit(draft, member, seen, gap(records.get(seen.unit, ())), found)
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
    return Note("gap", text=text)


def _unit(draft: Draft, member: Member, seen: Seen, told: Gap, found: Counter[str]) -> None:
    known = draft.get(seen.unit)
    is_known = known is not None
    if known is None:
        known = NEW._replace(n_restarts=seen.n_restarts)
    elif 0 < seen.changed < known.changed:
        return  # a look that was answered before the last signal was read
    where = phase(seen, known)
    count = 0
    refused = told.refused
    is_limit = _is_limit(member, known, seen, where)
    if is_known:
        if seen.n_restarts < known.n_restarts and not known.is_reset:
            found["uncounted"] += 1
            count = known.missing
        else:
            count = deaths(known, seen, where, refused + is_limit)
    known, named = _past(draft, member, known, seen, told)
    found["journal"] += named
    ends_now = where is not Phase.UP and (
        seen.invocation not in ("", known.invocation) or not known.is_ended
    )
    for _ in range(count - named - ends_now):
        found["count"] += 1
        known = known._replace(lost=known.lost + 1, failures=known.failures + 1)
        row = Exit(seen.unit, f"lost-{known.lost}", generation=known.generation, source="count")
        draft.act(Row(row))
    known = known._replace(
        n_restarts=seen.n_restarts, credit=int(is_limit), missing=0, named=(), since=0.0, is_reset=False
    )
    if where is not Phase.UP:
        known = _stop_in_gap(known, seen, told)
    if known.is_ended and known.our_job == "Shorten":
        known = known._replace(our_job="")  # perhaps it was never asked for; if it waits still, once more
    if told.was_skipped and known.our_job == "Start":
        known = known._replace(our_job="")
    look(draft, member, known, seen)
    _after(draft, seen, told)


def _past(draft: Draft, member: Member, known: UnitMemory, seen: Seen, told: Gap) -> tuple[UnitMemory, int]:
    """Write the runs that are over and are not the last one; return the memory, and how many were new."""
    unit, new = seen.unit, 0
    cut = known.since if known.missing else max(known.started, known.ended)
    runs = dict(told.runs)
    if not known.is_ended and known.invocation != seen.invocation:
        runs = {known.invocation: runs.pop(known.invocation, []), **runs}
    for invocation, records in runs.items():
        if invocation == seen.invocation or (invocation == known.invocation and known.is_ended):
            continue
        run = run_of(unit, invocation, records, member.supervision, by_us=known.our_job == "Stop")
        is_last_known = invocation == known.invocation
        row = run.row
        if is_last_known:
            because = known.why if known.our_job in ("Kill", "Stop") else ""
            row = row._replace(generation=known.generation, because=because)
        is_new = is_last_known or (
            invocation not in known.named and invocation != known.previous and records[-1].monotonic > cut
        )
        if not is_new:
            draft.act(Row(row, is_late=True))
            continue
        new += 1
        if 0 < member.supervision.reset_after_sec <= row.uptime_sec:
            known = limits.count_anew(known)
        if row.fate is Fate.STOPPED:
            known = known._replace(failures=0, cooldowns=0, recent=())
        elif row.fate is Fate.RETRY or run.is_failure:
            known = known._replace(failures=known.failures + 1)
        if run.is_failure and row.fate is not Fate.STOPPED:
            known = limits.note_failure(known, member.supervision, run.ended or draft.now)
            row = row._replace(attempt=known.failures)
        if is_last_known:
            known = known._replace(is_ended=True, fate=row.fate, result=row.result, our_job="")
        known = known._replace(ended=max(known.ended, run.ended))
        draft.act(Row(row))
    return known, new


def _is_limit(member: Member, known: UnitMemory, seen: Seen, where: Phase) -> bool:
    """Say whether the unit is down by the start limit, whose refused restart was counted."""
    if where is not Phase.FAILED or (
        known.is_ended
        and known.invocation == seen.invocation
        and not known.credit
        and seen.n_restarts <= known.n_restarts
    ):
        return False
    if seen.result == "start-limit-hit":
        return True
    if known.invocation == seen.invocation:
        return seen.n_restarts + known.credit > known.n_restarts
    return member.supervision.attempts > 0 and restarts_after(
        member.supervision, seen.result, seen.exec_code, seen.exec_status
    )


def _stop_in_gap(known: UnitMemory, seen: Seen, told: Gap) -> UnitMemory:
    """Return the memory with a stop job in it, if the journal has one that ended the last run."""
    records = told.runs.get(seen.invocation, ())
    is_restart = any(record.kind == "restart" for record in records)
    for record in reversed(records):
        if record.kind == "stopped" and record.job_type == "stop" and not is_restart:
            return known._replace(stopping=record.monotonic)
    return known


def _after(draft: Draft, seen: Seen, told: Gap) -> None:
    """Take up again what was under way."""
    known = draft.get(seen.unit)
    if known is None:
        return
    if told.is_blocked and known.is_ended and known.wait is not Wait.BLOCKED:
        draft.put(seen.unit, healing.block(draft, seen.unit, known, f"resync {draft.now:.3f}"))
    elif known.our_job and not seen.job and known.wait is not Wait.SLOT:
        draft.put(seen.unit, again(draft, seen.unit, known))


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


def _rebooted(draft: Draft) -> None:
    """Forget what was of another boot: every run is over, and each instant means nothing any more."""
    for unit, known in draft.memory.units.items():
        if draft.member(unit) is None:
            draft.forget(unit)
            continue
        if not known.is_ended:
            row = Exit(
                unit, known.invocation, generation=known.generation, because="the machine was restarted"
            )
            draft.act(Row(row._replace(fate=Fate.STOPPED, source="count")))
        draft.put(
            unit,
            NEW._replace(
                invocation=known.invocation,
                previous=known.previous,
                generation=known.generation,
                lost=known.lost,
                fate=Fate.STOPPED if not known.is_ended else known.fate,
                result=known.result,
            ),
        )
