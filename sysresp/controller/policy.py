"""What follows from what happened: the whole policy of the controller, as one pure function.

Owns the table of event x what is known -> memory, rows and actions. No clock, no environment, no file, no
bus: `now` is an argument (CLOCK_MONOTONIC), and so is everything else. `accounting` says which runs ended,
`limits` how often something may happen, `healing` what hangs on what.

How one unit is followed. A run begins with a new InvocationID, and ends when the unit is found out of its
running states, once. What then becomes of it is the row's fate:

    auto-restart            RETRY: systemd waits; the controller may shorten that (`limits.backoff`)
    failed, dead            whoever stopped it, if it was stopped; FINISHED or GAVE_UP, if Restart= does not
                            restart it after such an end; else SETTLE: auto-restart may follow at once
                            (systemd <= 253), and only a second look tells
    ... and it stays so     systemd gave up: cooldown, or GAVE_UP (`limits.gave_up`)

Every fate may be corrected by what is seen later. Rule: an event says "look", never "count": whatever is
told twice, late or out of order must change nothing, so compare with memory before anything is added.
"""

from __future__ import annotations

from typing import assert_never

from sysresp.controller import healing, limits
from sysresp.controller.accounting import unloaded
from sysresp.controller.draft import NEW, Draft
from sysresp.controller.events import (
    Decision,
    Event,
    Fate,
    Health,
    Kill,
    Look,
    Member,
    Memory,
    NewRoster,
    Note,
    Refused,
    Required,
    Resync,
    Shorten,
    Stop,
    UnitMemory,
    Wait,
    Wake,
)
from sysresp.controller.resync import resync
from sysresp.controller.runs import again, saw
from sysresp.ports import Gone, JobRemoved, Seen

PERMANENT = frozenset({"UnitMasked", "NoSuchUnit", "LoadFailed", "BadUnitSetting", "UnitError"})
"""Refusals that the next try would meet again."""


def decide(memory: Memory, event: Event, now: float) -> Decision:
    """Return what follows: memory as it is then, and what is to be done after that is in the ledger."""
    draft = Draft(memory, now)
    match event:
        case Seen():
            saw(draft, event)
        case JobRemoved():
            _job_removed(draft, event)
        case Gone():
            _gone(draft, event.unit)
        case Resync():
            resync(draft, event)
        case NewRoster():
            _new_roster(draft, event)
        case Required():
            healing.required(draft, event)
        case Health():
            _health(draft, event)
        case Refused():
            _refused(draft, event)
        case Wake():
            _wake(draft, event)
        case _:
            assert_never(event)
    return draft.decision()


# Jobs


def _job_removed(draft: Draft, job: JobRemoved) -> None:
    known, member = draft.get(job.unit), draft.member(job.unit)
    if known is None or member is None:
        return
    if not known.is_ended:
        if job.result not in ("done", "canceled"):
            draft.act(Look(job.unit))
        return
    match job.result:
        case "dependency":
            known = healing.block(draft, job.unit, known, str(job.job_id))
        case "canceled":
            pass
        case _ if known.our_job == "Start":
            # It made no run: refused, or skipped by a condition. If it did, the look shows that.
            why = "its start was skipped" if job.result == "done" else f"its start failed: {job.result}"
            known = known._replace(our_job="")
            known = limits.gave_up(draft, job.unit, known, member.supervision, why)
            draft.refate(job.unit, known, because=why, due=known.wake_at)
            draft.act(Look(job.unit))
        case _ if known.our_job:
            draft.act(Look(job.unit))
        case "done" if job.job_id > known.starting and known.wait in limits.OURS:
            # A stop of what is down; if it was a start after all, the look clears that.
            stopping = max(draft.now, known.ended + 1e-6)  # later than the run: no end of it
            known = known._replace(
                is_stopped=True, stopping=stopping, wait=Wait.NOTHING, wake_at=0.0, fate=Fate.STOPPED, on=()
            )
            draft.refate(job.unit, known)
            draft.act(
                Note("stopped", job.unit, "stopped while it waited", key=str(job.job_id)), Look(job.unit)
            )
        case _:
            pass
    draft.put(job.unit, known)


def _gone(draft: Draft, unit: str) -> None:
    known = draft.get(unit)
    if known is None:
        return
    if draft.member(unit) is None:
        draft.put(unit, known._replace(active="inactive", sub="dead"))
    elif not known.is_ended or known.wait in (Wait.BACKOFF, Wait.SETTLE):
        draft.act(Look(unit))  # it may be told late, when the unit is there again
    else:
        draft.put(unit, unloaded(known)._replace(active="inactive", sub="dead", job=0))


# The world around


def _new_roster(draft: Draft, event: NewRoster) -> None:
    before, after = draft.roster.members, event.roster.members
    draft.memory = draft.memory._replace(roster=event.roster)
    draft.act(*(Look(unit) for unit in sorted(after.keys() - before.keys())))
    left = before.keys() - after.keys()
    if not left:
        return
    for unit in left:
        draft.forget(unit)
    waited_for = {other for unit in draft.memory.blocked if (known := draft.get(unit)) for other in known.on}
    for unit in left & waited_for:
        old = draft.memory.units.get(unit, NEW)
        draft.put(unit, NEW._replace(active=old.active, sub=old.sub, changed=old.changed))


def _health(draft: Draft, health: Health) -> None:
    known, member = draft.get(health.unit), draft.member(health.unit)
    if known is None or member is None or known.is_ended or known.invocation != health.invocation:
        return
    probe = member.supervision.probe
    if known.is_healthy is health.is_healthy or probe is None:
        return
    if health.is_healthy:
        if known.is_healthy is False:
            draft.act(Note("healthy", health.unit))
        draft.put(health.unit, known._replace(is_healthy=True, why=""))
        return
    known = known._replace(is_healthy=False, why=health.why)
    recent = tuple(t for t in known.probe_restarts if t > draft.now - probe.within_sec)
    text = f"unhealthy: {health.why}"
    match probe.action:
        case "restart" if len(recent) < probe.restarts:
            known = known._replace(our_job="Kill", probe_restarts=(*recent, draft.now))
            draft.act(Kill(health.unit, text))
        case "restart":
            text += f"; left as it is after {probe.restarts} restarts in {probe.within_sec:g} s"
        case "stop":
            known = known._replace(our_job="Stop")
            draft.act(Stop(health.unit, text))
        case _:
            pass
    draft.act(Note("unhealthy", health.unit, text, key=f"{health.invocation} {draft.now:.3f}"))
    draft.put(health.unit, known)


def _refused(draft: Draft, refused: Refused) -> None:
    known = draft.get(refused.unit)
    if (
        known is None
        or draft.member(refused.unit) is None
        or refused.action not in ("Start", "Stop", "Kill")
    ):
        return
    if known.our_job != refused.action:
        return  # something else has happened since
    if refused.code in PERMANENT:
        known = known._replace(our_job="", wait=Wait.NOTHING, wake_at=0.0, tries=0, why=refused.code)
        if known.is_ended:
            known = known._replace(fate=Fate.GAVE_UP)
            draft.refate(refused.unit, known, because=refused.code)
        draft.act(Note("refused", refused.unit, f"cannot {refused.action.lower()} it: {refused.code}"))
    else:
        wake_at = draft.now + limits.pause(known.tries)
        known = known._replace(tries=known.tries + 1, wake_at=wake_at)
        draft.act(Look(refused.unit))
    draft.put(refused.unit, known)


# Time


def _wake(draft: Draft, event: Wake) -> None:
    if event.wall_offset:
        draft.memory = draft.memory._replace(wall_offset=event.wall_offset)
    due = [
        (known.wake_at, unit) for unit, known in draft.memory.units.items() if 0 < known.wake_at <= draft.now
    ]
    for _, unit in sorted(due):
        known, member = draft.get(unit), draft.member(unit)
        if known is None:
            continue
        if member is None:
            draft.put(unit, known._replace(wake_at=0.0))
        else:
            draft.put(unit, _due(draft, member, known))


def _due(draft: Draft, member: Member, known: UnitMemory) -> UnitMemory:
    """Return the memory of a unit for which an instant has come, and do what was to be done then."""
    unit = member.unit
    match known.wait:
        case Wait.SETTLE:
            draft.act(Look(unit))
            return known._replace(tries=known.tries + 1, wake_at=draft.now + limits.pause(known.tries))
        case Wait.BACKOFF:
            draft.act(Shorten(unit))
            return known._replace(our_job="Shorten", wake_at=0.0)
        case Wait.COOLDOWN:
            return limits.end_cooldown(draft, unit, known)
        case Wait.BLOCKED:
            return healing.start(draft, unit, known)
        case Wait.SLOT:
            return limits.start(draft, unit, known, known.why)
        case Wait.NOTHING if known.our_job:
            return again(draft, unit, known)
        case Wait.NOTHING if not known.is_ended:
            if known.stopping or not limits.is_counted(known, member.supervision):
                return known._replace(wake_at=0.0)
            return limits.reset(draft, unit, known, member.supervision)
        case Wait.NOTHING:
            return known._replace(wake_at=0.0)
        case _:
            assert_never(known.wait)
