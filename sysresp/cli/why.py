"""`sysresp why NAME`: why a service is as it is, down to the root, and what comes next.

Owns the reasoning: facts of units in, an answer out. Pure; `why_facts` gathers the facts, `why_text` says
the answer. The states are those of `status`; what this adds is the chain behind them. A unit waits for units
that it requires, and those for others: each is told once, and the end of the chain is the root. Rule: where
nothing will happen, that is said, and what to do about it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from sysresp.controller.events import Exit, Fate, UnitMemory, Wait
from sysresp.model import NOWHERE, Origin

DEEPEST = 100
"""Levels of a chain that are followed: more are a circle in disguise."""

_DOWN = frozenset({"inactive", "failed"})
_ABNORMAL = ("signal", "core-dump", "timeout", "watchdog")
_FAILURE = (*_ABNORMAL, "exit-code", "protocol", "oom-kill", "resources")
# Restart=: after which ends systemd starts it again (systemd.service(5), table 1)
_FOLLOWED = {
    "always": _FAILURE,
    "on-failure": _FAILURE,
    "on-abnormal": _ABNORMAL,
    "on-abort": ("signal", "core-dump"),
    "on-watchdog": ("watchdog",),
}


class Facts(NamedTuple):
    """What is known of one unit: from the service manager, the manifest and the ledger."""

    unit: str
    name: str = ""  # "web@2", as a person calls it; "": it belongs to no project
    project: str = ""
    state: str = ""  # a word of `status`
    reason: str = ""
    is_well: bool = True
    since: float = 0.0  # seconds since the epoch; 0: unknown
    load: str = "loaded"
    active: str = "inactive"
    result: str = ""  # Result=
    restart: str = ""  # Restart=
    restart_at: float = 0.0  # when systemd starts it again by itself; 0: not, or unknown
    restarts: int = 0  # NRestarts
    next_run: float = 0.0  # of its timer
    next_start: float = 0.0  # by the controller
    requires: tuple[str, ...] = ()  # what it requires, or waits for, and is not up
    queued_after: tuple[str, ...] = ()  # jobs that its own start job waits for
    conditions: tuple[str, ...] = ()  # that are not met: "ConditionPathExists=/srv/shop"
    error: str = ""  # why systemd cannot load it
    memory: UnitMemory | None = None
    last: Exit | None = None
    recent: int = 0  # exits in the last hour
    origin: Origin = NOWHERE
    source: str = ""  # the text of that line
    generation: int = 0  # of the project
    log: tuple[str, ...] = ()  # last words of the run that failed


class Present(NamedTuple):
    """What is so for all units."""

    now: float  # seconds since the epoch
    has_controller: bool = True
    has_ledger: bool = True
    is_user: bool = False
    gave_up: str = ""  # why there is no controller any more, in one line


class Next(NamedTuple):
    """What happens next."""

    what: str = ""  # "": nothing has to
    at: float = 0.0  # seconds since the epoch; 0: nobody can say


class Cause(NamedTuple):
    """A unit in the chain, and what it waits for."""

    facts: Facts
    next: Next
    causes: tuple[Cause, ...] = ()
    is_known: bool = False  # it was told before, in this answer: its causes are there


class Answer(NamedTuple):
    """Why one unit is as it is."""

    facts: Facts
    next: Next
    causes: tuple[Cause, ...]
    commands: tuple[str, ...]

    def roots(self) -> tuple[Facts, ...]:
        """Return the units at the ends of the chain; the unit itself if it waits for none."""
        found = dict.fromkeys(_roots(self.causes))
        return tuple(found) or (self.facts,)


def explain(known: Mapping[str, Facts], unit: str, present: Present) -> Answer:
    """Return the answer for one unit; `known` has the facts of all units in the chain."""
    facts = known[unit]
    causes = _causes(known, facts, present, {unit})
    answer = Answer(facts, _next(facts, present), causes, ())
    return answer._replace(commands=tuple(dict.fromkeys(_commands(answer, present))))


def waits_for(facts: Facts) -> tuple[str, ...]:
    """Return the units that stand in the way of this one."""
    if facts.state == "queued":
        return facts.queued_after
    if facts.active not in _DOWN or facts.load != "loaded" or facts.is_well or _is_stopped(facts):
        return ()
    if facts.memory is not None and facts.memory.wait is Wait.BLOCKED:
        return facts.requires  # who is up by now is none of it
    # One that failed by itself did start: it is down for its own reasons.
    return () if facts.state == "failed" and facts.result not in {"", "success"} else facts.requires


def _causes(
    known: Mapping[str, Facts], facts: Facts, present: Present, told: set[str], depth: int = 0
) -> tuple[Cause, ...]:
    found = []
    for unit in waits_for(facts) if depth < DEEPEST else ():
        one = known.get(unit)
        if one is None:
            continue
        is_known = unit in told
        told.add(unit)
        below = () if is_known else _causes(known, one, present, told, depth + 1)
        found.append(Cause(one, _next(one, present), below, is_known))
    return tuple(found)


def _roots(causes: tuple[Cause, ...]) -> Iterator[Facts]:
    for cause in causes:
        if cause.causes:
            yield from _roots(cause.causes)
        elif not cause.is_known:
            yield cause.facts


def _is_stopped(facts: Facts) -> bool:
    return facts.memory is not None and facts.memory.is_stopped


def _next(facts: Facts, present: Present) -> Next:
    """Say what happens next to a unit, and when."""
    others = ", ".join(waits_for(facts))
    match facts.state:
        case "waiting to restart":
            if facts.next_start and (not facts.restart_at or facts.next_start < facts.restart_at):
                return Next("the controller ends systemd's wait, and it starts again", facts.next_start)
            return Next("systemd starts it again", facts.restart_at)
        case "cooling down":
            return Next("the controller starts it again", facts.next_start)
        case "waiting to start":
            return Next("the controller starts it when its turn comes", facts.next_start)
        case "waiting":
            return Next("its timer starts it", facts.next_run)
        case "listening":
            return Next("the first connection starts it")
        case "queued":
            return Next(f"it starts when {others or 'the jobs before it'} has ended its start")
        case "starting" | "stopping" | "reloading":
            return Next("its job goes on")
        case "masked":
            return Next("nothing, until it is unmasked")
        case "missing":
            return Next("nothing, until its unit file is written again")
        case "broken":
            return Next("nothing, until its unit file is mended")
        case "skipped":
            return Next("nothing, until it is started again with its condition met")
    if facts.active in _DOWN:
        return _next_of_down(facts, present, others)
    is_sick = present.has_controller and facts.memory is not None and facts.memory.is_healthy is False
    return Next("it is left running, and its probe goes on") if is_sick else Next()


def _next_of_down(facts: Facts, present: Present, others: str) -> Next:
    """Say what happens next to a unit that is down, and of which systemd thinks that it may stay so."""
    memory = facts.memory
    if others:
        if not facts.name:
            return Next(f"nothing by itself when {others} is up; it is not one of ours")
        if present.has_controller and facts.state == "blocked":
            return Next(f"the controller starts it as soon as {others} is up")
        return Next(f"nothing, even when {others} is up again; no controller is at work to start it")
    if facts.is_well:
        return Next()
    if facts.state == "blocked" and present.has_controller:
        return Next("the controller starts it: what it waited for is up")
    if _is_stopped(facts):
        return Next("nothing, until somebody starts it; it was stopped by hand")
    if memory is not None and memory.wait in {Wait.COOLDOWN, Wait.SLOT, Wait.BLOCKED}:
        return Next("nothing; the controller was to start it again, and does not run")
    if present.has_controller and memory is not None and memory.fate is Fate.GAVE_UP and memory.why:
        return Next(f"nothing; it was given up: {memory.why}")
    # The start limit leaves the Result= of the last end (service_enter_dead in systemd's service.c).
    if facts.state == "failed" and facts.result in {"start-limit-hit", *_FOLLOWED.get(facts.restart, ())}:
        return Next("nothing; systemd gave up, as it does after too many starts in too short a time")
    if facts.state == "failed" and facts.restart:
        return Next(f"nothing; Restart={facts.restart} does not follow such an end")
    return Next("nothing, until somebody starts it")


def _commands(answer: Answer, present: Present) -> Iterator[str]:
    """Yield what to do, the most useful first."""
    mine = " --user" if present.is_user else ""
    facts = answer.facts
    if facts.is_well and facts.state not in {"masked", "skipped"}:
        return
    for root in answer.roots():
        yield from _mend(root, mine, fallback=facts.name)
    waits = facts.memory is not None and facts.memory.wait in {Wait.COOLDOWN, Wait.BLOCKED, Wait.SLOT}
    if not present.has_controller and (waits or answer.causes):
        yield f"sysresp controller {'status' if present.gave_up else 'enable'}{mine}"


def _mend(facts: Facts, mine: str, *, fallback: str) -> Iterator[str]:
    """Yield what mends one unit."""
    unit = f"'{facts.unit}'" if "\\" in facts.unit else facts.unit
    start = f"sysresp start{mine} {facts.name}" if facts.name else f"systemctl{mine} start {unit}"
    again = f"sysresp restart{mine} {facts.name}" if facts.name else f"systemctl{mine} restart {unit}"
    match facts.state:
        case "masked":
            yield f"systemctl{mine} unmask {unit}"
            yield start
        case "missing" | "broken":
            if facts.state == "broken":
                yield f"systemd-analyze{mine} verify {unit}"
            if facts.name:
                yield f"sysresp drift{mine} {facts.name}"
                yield f"sysresp apply{mine} {facts.origin.path or 'services.toml'}"
            else:
                yield f"systemctl{mine} status {unit}"
        case "stopped" | "skipped":
            yield start
        case "queued" | "starting" | "stopping":
            yield f"systemctl{mine} list-jobs"
        case _:
            yield f"journalctl{mine} -u {unit} -e"
            yield again
            if not facts.name and fallback:
                yield f"sysresp start{mine} {fallback}"
