"""What became of a change, told: failures, what was put back, the last line, the exit status.

Owns the words for generations, rollback and tolerance around those of `outcome_text`. Rule: the last line
says at which generation the host is now.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, replace

from sysresp.cli import outcome_text, running
from sysresp.errors import Exit
from sysresp.model import Spec
from sysresp.reconcile import generations
from sysresp.reconcile.converge import Report
from sysresp.reconcile.judge import IGNORED
from sysresp.reconcile.outcome import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What the words depend on beside the report."""

    spec: Spec | None
    user: bool
    again: str  # the command line with which to go on
    began: float  # time.monotonic() at the beginning
    unchanged: int = 0


def tell(done: Report, told: Told, *, as_json: bool, colour: bool) -> int:
    """Print the report, and return the exit status."""
    seconds = time.monotonic() - told.began
    if as_json:
        print(json.dumps(as_object(done, told, seconds), indent=2))
    else:
        # A service that runs again as before is not to be restarted by hand.
        verb = "restart" if done.back is None else ""
        running.report(done.plan, done.outcome, spec=told.spec, user=told.user, colour=colour, verb=verb)
        for line in remarks(done):
            print(line, file=sys.stderr)
        if done.back is not None and done.back_plan is not None:
            running.report(done.back_plan, done.back, spec=None, user=told.user, colour=colour)
        if not done.outcome.interrupted:
            print(summary(done, told.unchanged, seconds))
    if done.outcome.interrupted or done.outcome.timed_out:
        print(outcome_text.cut(done.outcome, told.again), file=sys.stderr)
    elif done.back is not None and done.back.interrupted:
        print(outcome_text.cut(done.back, "sysresp resume"), file=sys.stderr)
    return status(done)


def status(done: Report) -> Exit:
    """Return the exit status of a change."""
    if done.outcome.interrupted or (done.back is not None and done.back.interrupted):
        return Exit.INTERRUPTED
    if done.back is not None:
        return Exit.ROLLED_BACK if done.back.ok else Exit.FAILED
    ignored = {found.unit for found, why in done.tolerated if why == IGNORED}
    left = tuple(found for found in done.outcome.failures if found.unit not in ignored)
    return Exit.OK if replace(done.outcome, failures=left).ok else Exit.FAILED


def summary(done: Report, unchanged: int, seconds: float) -> str:
    """Return the last line."""
    if done.back is None or done.back_plan is None:
        line = outcome_text.summary(done.plan, done.outcome, unchanged, seconds)
        return f"{line}, generation {done.generation}" if done.generation else line
    words = outcome_text.counts(done.back_plan, done.back)
    how = "is back" if done.back.ok else "is back, but not all of it is well"
    return (
        f"{done.plan.project}: generation {done.generation} failed, "
        f"generation {done.previous} {how}: {words} ({seconds:.1f}s)"
    )


def remarks(done: Report) -> list[str]:
    """Return what is to be said about the failures as a whole."""
    out = [f"{found.unit}: no reason to roll back: {why}" for found, why in done.tolerated]
    if done.reasons and done.stays:
        out.append(f"not rolled back: {done.stays}")
    if done.back is not None:
        names = ", ".join(found.unit for found in done.reasons[: outcome_text.MOST_NAMES])
        out.append(f"rolled back to generation {done.previous}, because of {names}")
    return out


def as_object(done: Report, told: Told, seconds: float) -> dict[str, object]:
    """Return what `--json` prints."""

    def one(outcome: Outcome, spec: Spec | None) -> dict[str, object]:
        plan = done.plan if outcome is done.outcome or done.back_plan is None else done.back_plan
        unchanged = told.unchanged if outcome is done.outcome else 0
        return outcome_text.as_object(
            plan,
            outcome,
            unchanged=unchanged,
            seconds=seconds,
            spec=spec,
            user=told.user,
            verb="restart" if done.back is None else "",
        )

    return {
        **one(done.outcome, told.spec),
        "ok": status(done) is Exit.OK,
        "generation": done.generation or None,
        "previous": done.previous or None,
        "end": done.end,
        "reasons": [found.unit for found in done.reasons],
        "tolerated": [{"unit": found.unit, "why": why} for found, why in done.tolerated],
        "not_rolled_back": done.stays or None,
        "rolled_back": None if done.back is None else one(done.back, None),
        "standing": done.previous if done.end == generations.ROLLED_BACK else done.generation or None,
    }
