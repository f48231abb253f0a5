"""The forms in which a plan is shown: grouped text with unified diffs, and JSON.

Pure. Rule: what is printed is the very plan that `apply` executes, nothing is looked up again. The JSON keys
are documented in sysresp(1) and only ever added to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sysresp.cli import drift_text, problems, table, terminal
from sysresp.reconcile.steps import Change, Plan, Rolling, Verb

_COLOURS = {
    Verb.CREATE: terminal.GREEN,
    Verb.CHANGE: terminal.YELLOW,
    Verb.RESTART: terminal.YELLOW,
    Verb.RELOAD: terminal.YELLOW,
    Verb.START: terminal.GREEN,
    Verb.STOP: terminal.RED,
    Verb.REMOVE: terminal.RED,
    Verb.KEEP: terminal.DIM,
}
_DIFF_COLOURS = {"+": terminal.GREEN, "-": terminal.RED, "@": terminal.CYAN}
REFUSED = "apply refuses this, unless --accept-drift or --overwrite-drift says what becomes of the drift"


def text(plan: Plan, *, colour: bool, unchanged: int) -> str:
    """Return the plan for a person, with a final newline."""
    out: list[str] = []
    if plan.drift:
        out.append(terminal.paint("drift:", terminal.BOLD, on=colour))
        out.extend(drift_text.lines(plan.drift, colour=colour, fix=False))
        out.append("")
    for verb, changes in plan.grouped():
        out.append(terminal.paint(f"{verb}:", terminal.BOLD, on=colour))
        for change in changes:
            out.extend(_change(change, verb, colour))
        out.append("")
    if plan.rollouts:
        out.append(terminal.paint("rollout:", terminal.BOLD, on=colour))
        out.extend(f"  {table.clean(_rolling(one))}" for one in plan.rollouts)
        out.append("")
    out.append(summary(plan, unchanged))
    return "\n".join(out) + "\n"


def summary(plan: Plan, unchanged: int) -> str:
    """Return the one line at the end, such as "plan: 3 to create, 1 to restart, 5 unchanged"."""
    parts = [plan.summary()]
    if plan.keeps:
        parts.append(f"{len(plan.keeps)} kept as they are")
    if unchanged:
        parts.append(f"{unchanged} unchanged")
    line = f"plan: {', '.join(parts)}"
    return f"{line}\n{REFUSED}" if plan.refused else line


def _change(change: Change, first: Verb, colour: bool) -> Iterator[str]:
    also = ", ".join(str(verb) for verb in change.verbs if verb is not first)
    name = terminal.paint(table.clean(change.unit), _COLOURS[first], on=colour)
    note = "; ".join(part for part in (also and f"then {also}", table.clean(change.reason)) if part)
    where = f"  [{change.origin}]" if change.origin.line else ""
    yield f"  {name}" + (f"  {note}" if note else "") + terminal.paint(where, terminal.DIM, on=colour)
    yield from (f"    {line}" for line in diff(change.diff, colour=colour))


def _rolling(one: Rolling) -> str:
    """Return "web  8 instances, 2 at a time; each batch settles for 3s, then a pause of 5s; ..."."""
    number = sum(map(len, one.batches))
    if len(one.batches) == 1:
        return f"{one.service}  {number} instances, all at once: {one.reason}"
    parts = [f"{one.service}  {number} instances, {len(one.batches[0])} at a time"]
    if one.settle_sec:
        parts.append(f"each batch settles for {one.settle_sec:g}s")
    if one.pause_sec:
        parts.append(f"a pause of {one.pause_sec:g}s between them")
    parts.append("a failure stops it" if one.stop_on_failure else "a failure does not stop it")
    return "; ".join(parts)


def diff(lines: Iterable[str], *, colour: bool) -> Iterator[str]:
    """Return the lines of a unified diff, coloured."""
    for line in lines:
        shade = terminal.BOLD if line.startswith(("+++", "---")) else _DIFF_COLOURS.get(line[:1], "")
        yield terminal.paint(table.clean(line), shade, on=colour and bool(shade))


def as_object(plan: Plan, unchanged: int) -> dict[str, object]:
    """Return what `plan --json` prints."""
    return {
        "version": 1,
        "project": plan.project,
        "changed": not plan.is_noop,
        "summary": plan.summary(),
        "counts": {str(verb): count for verb, count in plan.counts().items()},
        "unchanged": unchanged,
        "changes": [_object(change) for change in plan.changes],
        "kept": [_object(change) for change in plan.keeps],
        "rollouts": [
            {
                "service": one.service,
                "batches": [list(batch) for batch in one.batches],
                "settle": one.settle_sec,
                "pause": one.pause_sec,
                "stop_on_failure": one.stop_on_failure,
                "reason": one.reason or None,
            }
            for one in plan.rollouts
        ],
        "problems": problems.as_objects(plan.problems),
        "drift": drift_text.as_objects(plan.drift),
        "refused": bool(plan.refused),
    }


def _object(change: Change) -> dict[str, object]:
    return {
        "unit": change.unit,
        "service": change.service or None,
        "verbs": [str(verb) for verb in change.verbs],
        "reason": change.reason or None,
        "path": change.origin.path or None,
        "line": change.origin.line or None,
        "before": change.before,
        "after": change.after,
    }
