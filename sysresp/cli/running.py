"""While a plan is executed, and right after: the progress line and the report of what is not well.

Owns what goes to standard error during `apply`, `down`, `start`, `stop`, `restart` and `reload`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sysresp.cli import outcome_text, table, terminal
from sysresp.model import Spec
from sysresp.reconcile.apply import Event
from sysresp.reconcile.outcome import Outcome
from sysresp.reconcile.steps import (
    DaemonReload,
    JobVerb,
    Pause,
    Plan,
    RunJobs,
    Settle,
    StartTransient,
    Step,
    WriteFile,
)

_DOING = {
    JobVerb.START: "starting",
    JobVerb.STOP: "stopping",
    JobVerb.RESTART: "restarting",
    JobVerb.RELOAD: "reloading",
}


IN_FULL = 10
"""Failures that are told with all there is; of more, only what and where."""


@contextmanager
def progress() -> Iterator[Callable[[Event], None]]:
    """Give what shows events on one rewriting line, and take the line away at the end."""
    line = terminal.Progress()
    doing = "working"

    def show(event: Event) -> None:
        nonlocal doing
        if event.step is not None:
            doing = _doing(event.step)
        if event.left_sec:
            line.show(f"watching, {event.left_sec:.0f}s to go,")
        elif event.removed is not None:
            line.show(f"{doing} {event.finished}/{event.total} {event.removed.unit}")
        elif event.step is None or isinstance(event.step, RunJobs | StartTransient):
            line.show(f"{doing} {event.finished}/{event.total}")
        elif event.step is not None:
            line.show(doing)

    try:
        yield show
    finally:
        line.end()


def _doing(step: Step) -> str:
    match step:
        case RunJobs(jobs):
            verbs = {job.verb for job in jobs}
            return _DOING[verbs.pop()] if len(verbs) == 1 else "changing"
        case StartTransient():
            return _DOING[JobVerb.START]
        case DaemonReload():
            return "reloading systemd"
        case Settle():
            return "watching"
        case Pause(seconds):
            return f"pausing {seconds:g}s"
        case WriteFile(path):
            return f"writing {path.rpartition('/')[2]}"
        case _:
            return "working"


def found(line: str) -> None:
    """Tell what an earlier run left behind, or what is waited for."""
    print(f"found: {table.clean(line)}", file=sys.stderr, flush=True)


def report(
    plan: Plan, outcome: Outcome, *, spec: Spec | None, user: bool, colour: bool, verb: str = "restart"
) -> None:
    """Print what was kept or skipped, and every failure with all that is known of it."""
    on = terminal.has_colour(sys.stderr, wanted=colour)
    for line in outcome_text.details(plan, outcome, colour=on):
        print(line, file=sys.stderr)
    for number, found in enumerate(outcome.failures):
        lines = outcome_text.failure(found, spec=spec, user=user, colour=on, verb=verb)
        print("\n".join(lines if number < IN_FULL else lines[:2]), file=sys.stderr)
    sys.stderr.flush()
