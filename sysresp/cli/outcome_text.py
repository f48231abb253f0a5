"""The forms in which an outcome is shown: what was done, what failed and why, and what to do next.

Pure but for the text of the user's line, which is read from the file that was applied a moment ago. Rule: a
failure names the unit, the reason in words, the line that asked for it, the last words of the unit, and the
commands that come next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from sysresp.cli import plan_text, table, terminal
from sysresp.cli.words import plural, span
from sysresp.model import NOWHERE, Origin, Spec
from sysresp.reconcile.outcome import Outcome, UnitOutcome
from sysresp.reconcile.steps import Plan, Verb

_DONE = {
    Verb.CREATE: "created",
    Verb.CHANGE: "changed",
    Verb.RESTART: "restarted",
    Verb.RELOAD: "reloaded",
    Verb.START: "started",
    Verb.STOP: "stopped",
    Verb.REMOVE: "removed",
    Verb.KEEP: "kept",
}
_FILES = (Verb.CREATE, Verb.CHANGE, Verb.REMOVE)
MOST_NAMES = 8


def summary(plan: Plan, outcome: Outcome, unchanged: int, seconds: float) -> str:
    """Return the last line, such as "shop: 3 created, 3 started, 5 unchanged (1.2s)"."""
    parts = [counts(plan, outcome)]
    parts += [f"{unchanged} unchanged"] if unchanged else []
    taken = f"{seconds:.1f}s" if seconds < 60 else span(seconds)
    return f"{plan.project}: {', '.join(parts)} ({taken})"


def counts(plan: Plan, outcome: Outcome) -> str:
    """Return what was done in numbers, such as "3 created, 3 started"."""
    done = {verb: count for verb, count in plan.counts().items() if verb in _FILES} | dict(outcome.counts)
    parts = [f"{count} {_DONE[verb]}" for verb in Verb if (count := done.get(verb))]
    parts += [f"{len(outcome.failures)} failed"] if outcome.failures else []
    parts += [f"{len(outcome.skipped)} skipped"] if outcome.skipped else []
    parts = parts or ["nothing to do"]
    parts += [f"{len(plan.keeps)} kept as they are"] if plan.keeps else []
    return ", ".join(parts)


def details(plan: Plan, outcome: Outcome, *, colour: bool) -> Iterator[str]:
    """Return a line for each thing that is not simply done: kept, skipped."""
    for change in plan.keeps:
        name = terminal.paint(table.clean(change.unit), terminal.DIM, on=colour)
        yield f"kept as it is: {name}: {table.clean(change.reason)}"
    for found in outcome.skipped:
        yield f"{table.clean(found.unit)}: {table.clean(found.why)}"


def failure(
    found: UnitOutcome, *, spec: Spec | None, user: bool, colour: bool, verb: str = "restart"
) -> list[str]:
    """Return the lines of a failure; `spec` is the file that was applied, if one was."""
    head = f"{table.clean(found.unit)}: {table.clean(found.why)}"
    out = [terminal.paint(head, terminal.RED, on=colour)]
    if found.job_result not in {"", "done", "failed", "dependency"} and found.job_result not in found.why:
        out.append(f"  job result: {found.job_result}")
    origin, text = blame(found, spec)
    if origin.path:
        out.append(f"  {origin}" + (f" | {table.clean(text.strip())}" if text else ""))
    if found.journal_tail:
        out.append("  its last words:")
        out += [f"    {table.clean(line)}" for line in found.journal_tail]
    for number, words in enumerate(next_commands(found, user=user, verb=verb)):
        out.append(f"  {'next:' if not number else '     '} {words}")
    return out


def blame(found: UnitOutcome, spec: Spec | None) -> tuple[Origin, str]:
    """Return the line that is to blame, and its text if the file is the one just read.

    The key that the outcome names, or the nearest table around it that the user wrote, else the service.
    """
    service = spec.services.get(found.service) if spec is not None else None
    if service is None:
        return found.origin, ""
    key = found.cause
    while key and key not in service.lines:
        key = key.rpartition(".")[0]
    origin = service.lines[key] if key else service.origin
    return origin, line_text(origin)


def line_text(origin: Origin) -> str:
    """Return the text of a line of the user's file, "" if it cannot be read."""
    if origin == NOWHERE or not origin.line:
        return ""
    try:
        lines = Path(origin.path).read_text(encoding="utf-8", errors="replace").splitlines()
    except (OSError, ValueError):
        return ""
    return lines[origin.line - 1] if origin.line <= len(lines) else ""


def next_commands(found: UnitOutcome, *, user: bool, verb: str) -> tuple[str, ...]:
    """Return the commands with which a person goes on; no verb: the unit has been put back."""
    mine = " --user" if user else ""
    unit = f"'{found.unit}'" if "\\" in found.unit else found.unit
    looks = (f"journalctl{mine} -u {unit} -e", f"systemctl{mine} status {unit}")
    if not verb:
        return looks[:1]
    return (*looks, f"sysresp {verb}{mine} {found.service}") if found.service else looks


def cut(outcome: Outcome, again: str) -> str:
    """Return the one line that says where things stand after Ctrl-C."""
    if outcome.undone:
        return "interrupted: nothing was changed"
    done = sum(outcome.counts.values())
    parts = [f"{plural(done, 'unit')} done"]
    if outcome.unfinished:
        parts.append(f"systemd goes on with {_names(outcome.unfinished)}")
    if outcome.unbegun:
        parts.append(f"not begun: {_names(outcome.unbegun)}")
    word = "interrupted" if outcome.interrupted else "out of time"
    return f"{word}: {'; '.join(parts)}; to go on: {again}"


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(table.clean(name) for name in names[:MOST_NAMES])
    return shown if len(names) <= MOST_NAMES else f"{shown} and {len(names) - MOST_NAMES} more"


def as_object(
    plan: Plan, outcome: Outcome, *, unchanged: int, seconds: float, spec: Spec | None, user: bool, verb: str
) -> dict[str, object]:
    """Return what `apply --json` and `down --json` print."""
    return {
        "version": 1,
        "project": outcome.project,
        "ok": outcome.ok,
        "interrupted": outcome.interrupted,
        "summary": summary(plan, outcome, unchanged, seconds),
        "seconds": round(seconds, 3),
        "counts": {str(name): count for name, count in outcome.counts.items()},
        "failures": [_failure_object(found, spec, user, verb) for found in outcome.failures],
        "skipped": [{"unit": found.unit, "what": found.why} for found in outcome.skipped],
        "unfinished": list(outcome.unfinished),
        "unbegun": list(outcome.unbegun),
        "plan": plan_text.as_object(plan, unchanged),
    }


def _failure_object(found: UnitOutcome, spec: Spec | None, user: bool, verb: str) -> dict[str, object]:
    origin, text = blame(found, spec)
    return {
        "unit": found.unit,
        "service": found.service or None,
        "what": found.why,
        "job_result": found.job_result or None,
        "result": found.result or None,
        "active_state": found.active_state,
        "key": found.cause or None,
        "path": origin.path or None,
        "line": origin.line or None,
        "source": text or None,
        "log": list(found.journal_tail),
        "next": list(next_commands(found, user=user, verb=verb)),
    }
