"""How often: the pauses between restarts, cooldowns, and what no policy may exceed.

Owns the token bucket of starts_per_second, the backoff, the cooldown after systemd's start limit, the limit
over the ledger and the counting anew after a stable run. Never looks at a signal: `policy` says what
happened. Rule: each start that the controller asks for passes `take_turn`, but for `Shorten`: systemd would
make that restart anyway, on 254 and later at the very same instant without being asked, and the same file
must behave the same on both.
"""

from __future__ import annotations

from sysresp.controller.draft import Draft
from sysresp.controller.events import Fate, Note, ResetFailed, Start, Stop, UnitMemory, Wait
from sysresp.units.supervision import Supervision, delay, rest

OURS = frozenset({Wait.COOLDOWN, Wait.BLOCKED, Wait.SLOT})
"""Waits that the controller ends, not systemd."""

LONGEST_PAUSE = 300.0


def pause(tries: int) -> float:
    """Return the pause before what came to nothing so many times is tried again."""
    return min(LONGEST_PAUSE, 0.5 * 2.0 ** min(tries, 16))


# starts_per_second


def take_turn(draft: Draft, unit: str, known: UnitMemory, why: str) -> UnitMemory:
    """Start the unit at once, or let it wait for its turn; first come, first served.

    The bucket holds one second's worth. Below 0 it is a queue: each that waits has taken a token of the
    future, and so knows its instant; a turn that is not used after all is lost, which errs on the safe side.
    A rate of 0 is no limit.
    """
    rate = draft.roster.settings.starts_per_second
    if rate <= 0:
        return start(draft, unit, known, why)
    tokens = _tokens(draft, rate) - 1.0
    draft.memory = draft.memory._replace(tokens=tokens, tokens_at=draft.now)
    if tokens >= -1e-9:
        return start(draft, unit, known, why)
    return known._replace(wait=Wait.SLOT, wake_at=draft.now - tokens / rate, why=why)


def _tokens(draft: Draft, rate: float) -> float:
    memory = draft.memory
    if not memory.tokens_at:
        return 0.0  # a controller that has just begun: its predecessor may have used them up
    return min(max(1.0, rate), memory.tokens + (draft.now - memory.tokens_at) * rate)


def start(draft: Draft, unit: str, known: UnitMemory, why: str) -> UnitMemory:
    """Start the unit now; its turn has come."""
    if known.active == "failed":
        draft.act(ResetFailed(unit))  # else the start limit refuses it
        known = known._replace(is_reset=True)
    draft.act(Start(unit, why), Note("start", unit, why))
    return known._replace(wait=Wait.NOTHING, wake_at=0.0, our_job="Start", on=(), is_stopped=False)


# Backoff


def backoff(known: UnitMemory, supervision: Supervision, since: float) -> UnitMemory:
    """Return the memory of a unit that systemd waits with since this instant: wake_at where we end that."""
    wanted = wanted_delay(supervision, known)
    is_ours = wanted < systemd_waits(supervision, known) and known.our_job != "Shorten"
    return known._replace(wait=Wait.BACKOFF, wake_at=since + wanted if is_ours else 0.0, tries=0)


def wanted_delay(supervision: Supervision, known: UnitMemory) -> float:
    """Return how long the unit is to wait: by its failures, or, if systemd lets it grow, its count."""
    return delay(supervision, known.n_restarts + 1 if supervision.is_native else known.failures)


def systemd_waits(supervision: Supervision, known: UnitMemory) -> float:
    """Return how long systemd itself waits before it restarts the unit."""
    return rest(supervision, known.n_restarts + 1)


def restart_due(known: UnitMemory, supervision: Supervision, since: float) -> float:
    """Return when a unit that systemd waits with since this instant is started again."""
    return since + min(systemd_waits(supervision, known), wanted_delay(supervision, known))


# Cooldown, and the limit over the ledger


def gave_up(draft: Draft, unit: str, known: UnitMemory, supervision: Supervision, why: str) -> UnitMemory:
    """Return the memory of a unit that systemd starts no more, for this reason: cooldown, or given up."""
    is_used_up = 0 < supervision.cooldowns <= known.cooldowns
    if supervision.cooldown_sec <= 0 or is_used_up:
        known = known._replace(wait=Wait.NOTHING, wake_at=0.0, fate=Fate.GAVE_UP, why=why, tries=0)
        draft.act(Note("gave-up", unit, why, key=known.invocation))
        return known
    due = (known.ended or draft.now) + supervision.cooldown_sec
    draft.act(
        Note(
            "cooldown", unit, f"{why}: starts again in {supervision.cooldown_sec:g} s", key=known.invocation
        )
    )
    return known._replace(wait=Wait.COOLDOWN, wake_at=due, fate=Fate.RETRY, why=why, tries=0)


def end_cooldown(draft: Draft, unit: str, known: UnitMemory) -> UnitMemory:
    """Start the unit: its cooldown is over."""
    known = known._replace(cooldowns=known.cooldowns + 1, failures=0, recent=())
    return take_turn(draft, unit, known, f"the cooldown is over ({known.why})")


def note_failure(known: UnitMemory, supervision: Supervision, at: float) -> UnitMemory:
    """Return the memory with one more failure in the window of the limit over the ledger."""
    if supervision.failures <= 0:
        return known
    recent = tuple(t for t in known.recent if t > at - supervision.per_sec)
    return known._replace(recent=(*recent, at)[-supervision.failures - 1 :])


def is_exceeded(known: UnitMemory, supervision: Supervision) -> bool:
    """Say whether there were more failures than the ledger's limit allows."""
    return 0 < supervision.failures < len(known.recent)


def forgive(known: UnitMemory, supervision: Supervision) -> UnitMemory:
    """Return the memory of a unit that stays down by itself: there is nothing to stop."""
    if not is_exceeded(known, supervision):
        return known
    return known._replace(recent=known.recent[-supervision.failures :])


def exceed(draft: Draft, unit: str, known: UnitMemory, supervision: Supervision) -> UnitMemory:
    """Stop the unit, which breaks systemd's own restarts, and let it cool down if that is wanted."""
    why = f"more than {supervision.failures} failures in {supervision.per_sec:g} s"
    draft.act(Stop(unit, why), Note("limit", unit, why, key=known.invocation))
    known = known._replace(our_job="Stop", recent=())
    return gave_up(draft, unit, known, supervision, why)


# Counting anew


def is_counted(known: UnitMemory, supervision: Supervision) -> bool:
    """Say whether there is anything that a stable run sets back."""
    return bool(
        known.failures
        or known.cooldowns
        or known.recent
        or (known.n_restarts and _is_in_systemd(supervision))
    )


def _is_in_systemd(supervision: Supervision) -> bool:
    """Say whether systemd itself counts restarts for a purpose."""
    return supervision.attempts > 0 or (supervision.is_native and supervision.max_delay_sec > 0)


def reset_due(known: UnitMemory, supervision: Supervision, now: float) -> float:
    """Return when the run has been long enough for everything to be counted anew; 0: never."""
    if supervision.reset_after_sec <= 0 or not is_counted(known, supervision):
        return 0.0
    return (known.started or known.changed or now) + supervision.reset_after_sec


def count_anew(known: UnitMemory) -> UnitMemory:
    """Return the memory after a stable run."""
    return known._replace(failures=0, cooldowns=0, recent=())


def reset(draft: Draft, unit: str, known: UnitMemory, supervision: Supervision) -> UnitMemory:
    """Count everything anew while the unit runs: here, and in systemd if it counts."""
    draft.act(Note("reset", unit, f"has run for {supervision.reset_after_sec:g} s: failures count anew"))
    if known.n_restarts and _is_in_systemd(supervision):
        draft.act(ResetFailed(unit))
        known = known._replace(is_reset=True)
    return count_anew(known)._replace(wake_at=0.0)
