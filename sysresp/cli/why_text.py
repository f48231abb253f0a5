"""The forms in which `why` gives its answers: lines for people, and JSON.

Pure: answers and the present in, text out. Rule: one thought a line, the state first, what to do last; the
JSON keys are documented in sysresp(1) and only ever added to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from sysresp.cli import table, terminal
from sysresp.cli.incidents import Named, exit_object, exit_words, fate_words, is_bare
from sysresp.cli.status_table import stamp as instant
from sysresp.cli.why import Answer, Cause, Facts, Next, Present
from sysresp.cli.words import plural, span
from sysresp.controller.events import Fate
from sysresp.reconcile.lock import stamp

SHOWN_IN_FULL = 10
"""Units that are told with all there is; of more, only what and why."""


def text(answers: Sequence[Answer], present: Present, *, colour: bool) -> Iterator[str]:
    """Yield the lines of all answers; what is not well comes in full, what is, in brief."""
    bad = sum(not one.facts.is_well for one in answers)
    shown = 0
    for answer in answers:
        is_full = len(answers) == 1 or (not answer.facts.is_well and shown < SHOWN_IN_FULL)
        shown += not answer.facts.is_well
        yield from _one(answer, present, colour=colour, is_full=is_full)
    if bad > SHOWN_IN_FULL:
        yield f"{plural(bad - SHOWN_IN_FULL, 'more unit')} in brief only: name one to have all of it"
    yield from remarks(present)


def remarks(present: Present) -> Iterator[str]:
    """Yield what is missing for a better answer."""
    mine = " --user" if present.is_user else ""
    enable = f"sysresp controller enable{mine}"
    if present.gave_up:
        yield f"{table.clean(present.gave_up)} (sysresp controller status{mine})"
    elif not present.has_controller:
        known = "what is known is older" if present.has_ledger else "only systemd's own memory is known"
        yield f"the controller does not run, so {known} ({enable})"
    elif not present.has_ledger:
        yield "the controller has no ledger that can be read, so only systemd's own memory is known"


def _one(answer: Answer, present: Present, *, colour: bool, is_full: bool) -> Iterator[str]:
    facts = answer.facts
    mark = terminal.GREEN if facts.is_well else terminal.RED
    head = f"{facts.unit}: {_state(facts)}"
    yield terminal.paint(table.clean(head), mark, on=colour)
    body = [*_history(facts, present), *_chain(answer.causes, present, 0)]
    body += _next(answer.next, present, "")
    if is_full:
        body += [*_where(facts), *_log(answer)]
        body += [f"{'do:' if not number else '   '} {words}" for number, words in enumerate(answer.commands)]
    yield from (f"  {table.clean(line)}" for line in body)


def _state(facts: Facts) -> str:
    return facts.state + (f": {facts.reason}" if facts.reason else "")


def _history(facts: Facts, present: Present) -> Iterator[str]:
    """Yield since when it is so, how its last run ended, and how often that was."""
    if facts.since:
        line = f"since {stamp(facts.since)}, for {span(present.now - facts.since)}"
        if facts.restarts and facts.active not in {"inactive", "failed"}:
            line += f"; systemd started it again {plural(facts.restarts, 'time')}"
        yield line
    last = facts.last
    if last is not None:
        when = f" {stamp(last.when)}" if last.when else ""
        ran = f" after {span(last.uptime_sec)}" if last.uptime_sec else ""
        then = f"; {fate_words(last, present.now)}" if last.fate not in {Fate.UNKNOWN, Fate.RETRY} else ""
        of = f" (generation {last.generation})" if last.generation not in {0, facts.generation} else ""
        how = "; the details are gone from the journal" if is_bare(last) else f": {exit_words(last)}"
        yield f"its last run ended{when}{ran}{how}{then}{of}"
    memory = facts.memory
    counts = []
    if memory is not None and memory.failures:
        counts.append(f"{plural(memory.failures, 'failure')} in a row")
    if memory is not None and memory.cooldowns:
        counts.append(plural(memory.cooldowns, "cooldown"))
    if facts.recent > 1:
        counts.append(f"{facts.recent} ends in the last hour")
    if counts:
        yield ", ".join(counts)
    if memory is not None and memory.is_healthy is False and memory.why and "unhealthy" not in facts.reason:
        yield f"its probe said: {memory.why}"
    for condition in facts.conditions:
        yield f"not met: {condition}"
    if facts.error:
        yield f"systemd says: {facts.error}"


def _chain(causes: Iterable[Cause], present: Present, depth: int) -> Iterator[str]:
    indent = "  " * depth
    for cause in causes:
        facts = cause.facts
        if cause.is_known:
            yield f"{indent}because of {facts.unit}, see above"
            continue
        ago = f", for {span(present.now - facts.since)}" if facts.since else ""
        yield f"{indent}because of {facts.unit}: {_state(facts)}{ago}"
        yield from _chain(cause.causes, present, depth + 1)
        yield from _next(cause.next, present, f"{indent}  ")


def _next(step: Next, present: Present, indent: str) -> Iterator[str]:
    if step.what:
        yield f"{indent}next: {step.what}{_when(step.at, present.now)}"


def _when(at: float, now: float) -> str:
    if not at:
        return ""
    return (
        f" in {span(at - now)}, at {stamp(at)[11:] if at - now < 43200 else stamp(at)}"
        if at >= now + 1
        else " now"
    )


def _where(facts: Facts) -> Iterator[str]:
    if facts.origin.path:
        source = f" | {facts.source.strip()}" if facts.source.strip() else ""
        of = f" (generation {facts.generation})" if facts.generation else ""
        yield f"asked for by {facts.origin}{source}{of}"


def _log(answer: Answer) -> Iterator[str]:
    for root in answer.roots():
        if root.log:
            yield "its last words:" if root.unit == answer.facts.unit else f"last words of {root.unit}:"
            yield from (f"  {line}" for line in root.log)


def as_object(answers: Sequence[Answer], present: Present) -> dict[str, object]:
    """Return what `--json` prints."""
    return {
        "version": 1,
        "controller": present.has_controller,
        "ledger": present.has_ledger,
        "units": [_object(answer) for answer in answers],
    }


def _object(answer: Answer) -> dict[str, object]:
    facts = answer.facts
    service, _, instance = facts.name.partition("@")
    name = Named(facts.project, service, instance)
    memory = facts.memory
    return {
        "unit": facts.unit,
        "project": facts.project or None,
        "service": service or None,
        "instance": instance or None,
        **_in_chain(facts, answer.next),
        "well": facts.is_well,
        "restarts": facts.restarts,
        "failures": memory.failures if memory is not None else None,
        "cooldowns": memory.cooldowns if memory is not None else None,
        "healthy": memory.is_healthy if memory is not None else None,
        "last_exit": exit_object(facts.last, name) if facts.last is not None else None,
        "exits_last_hour": facts.recent,
        "conditions": list(facts.conditions),
        "causes": [_cause(cause) for cause in answer.causes],
        "roots": [root.unit for root in answer.roots()] if answer.causes else [],
        "generation": facts.generation or None,
        "path": facts.origin.path or None,
        "line": facts.origin.line or None,
        "source": facts.source or None,
        "log": [line for root in answer.roots() for line in root.log],
        "commands": list(answer.commands),
    }


def _cause(cause: Cause) -> dict[str, object]:
    return {
        "unit": cause.facts.unit,
        **_in_chain(cause.facts, cause.next),
        "causes": [_cause(below) for below in cause.causes],
    }


def _in_chain(facts: Facts, step: Next) -> dict[str, object]:
    return {
        "state": facts.state,
        "reason": facts.reason or None,
        "since": instant(facts.since or None),
        "next": step.what or None,
        "next_at": instant(step.at or None),
    }
