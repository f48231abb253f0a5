"""What became of it: the state of each unit after its job, which is not what the job said.

Owns the judgement on the units of a plan. A job that is `done` does not mean that the unit runs (a crash may
follow at once, a condition may have been unmet), so the state of all is read in one call, and details only
of those that are not active. It reads and changes nothing. Rule: a unit is a failure unless its state shows
that it is up, that it has finished well, or that its conditions told it not to run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sysresp.model import NOWHERE, Origin
from sysresp.ports import Host, Question, UnitProblem, UnitState
from sysresp.reconcile.explain import cause_key, job_words, refused_words, result_words
from sysresp.reconcile.manifest import patterns
from sysresp.reconcile.settle import Fall
from sysresp.reconcile.steps import Awaited, Plan, Verb

TAIL_LINES = 10
TAILS = 10  # failures whose journal is read: more than that nobody reads, and each costs a search

_SERVICE = (
    *("Result", "ExecMainCode", "ExecMainStatus", "ExecMainExitTimestampMonotonic"),
    *("ExecStartPre", "ExecStartPost", "ExecReload"),
)
_UNIT = ("InvocationID", "ConditionResult", "ConditionTimestamp", "Requires", "Requisite", "BindsTo")


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitOutcome:
    """A unit that is not as it should be (or was skipped), and all that is known about why."""

    unit: str
    verb: Verb  # what was asked for: START, RESTART, RELOAD or STOP
    why: str  # in words: "the program could not be executed (203/EXEC)"
    service: str = ""
    origin: Origin = NOWHERE  # the service in the user's file
    cause: str = ""  # key of the service that is to blame, such as "command"; "" if none can be named
    culprit: str = ""  # the unit that it requires and that failed
    job_result: str = ""  # done | failed | dependency | ...; "" if its end was not seen
    active_state: str = "inactive"
    sub_state: str = "dead"
    result: str = ""  # the unit's Result property
    exit_code: int = 0  # ExecMainCode: 1 exited, 2 killed, 3 dumped core
    status: int = 0  # ExecMainStatus: exit status or number of the signal
    invocation_id: str = ""
    journal_tail: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What apply, down or an action did."""

    project: str
    failures: tuple[UnitOutcome, ...] = ()
    skipped: tuple[UnitOutcome, ...] = ()  # conditions not met, or finished at once and well: no failures
    counts: Mapping[Verb, int] = field(default_factory=dict)  # units that came out well, by verb
    unfinished: tuple[str, ...] = ()  # units whose jobs were still queued when time was up or at Ctrl-C
    unbegun: tuple[str, ...] = ()  # units for which no job was queued
    interrupted: bool = False  # Ctrl-C
    timed_out: bool = False
    undone: bool = False  # cut before any job was queued: everything is as it was

    @property
    def ok(self) -> bool:
        """Say whether everything came out well."""
        cut = self.interrupted or self.timed_out or self.unfinished or self.unbegun
        return not (self.failures or cut)


@dataclass(slots=True)
class Ledger:
    """What was seen of the jobs while they ran."""

    results: dict[str, str] = field(default_factory=dict)  # unit -> job result
    refused: dict[str, UnitProblem] = field(default_factory=dict)
    begun: set[str] = field(default_factory=set)
    unfinished: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)  # filled when the outcome is read
    fallen: dict[str, Fall] = field(default_factory=dict)  # what did not stay up for its settle time
    halted: bool = False  # the plan ended at that


def outcome(plan: Plan, host: Host, ledger: Ledger, *, interrupted: bool, timed_out: bool) -> Outcome:
    """Read the truth and return it."""
    rows: dict[str, UnitState] = {}
    if plan.awaited:
        names = [a.unit for a in plan.awaited]
        rows = {row.name: row for row in host.manager.units(patterns(plan.project, names))}
    ledger.failed |= {name for name, row in rows.items() if row.active_state == "failed"}
    failures: list[UnitOutcome] = []
    skipped: list[UnitOutcome] = []
    unbegun = []
    others: list[tuple[Awaited, UnitState]] = []
    counts: dict[Verb, int] = {}
    for awaited in plan.awaited:
        row = rows.get(awaited.unit, UnitState(awaited.unit, "", "not-found", "inactive", "dead", 0, ""))
        if awaited.unit in ledger.unfinished:
            continue
        if (interrupted or timed_out or ledger.halted) and not _is_begun(awaited, ledger):
            unbegun.append(awaited.unit)
        elif _is_well(awaited, row, ledger):
            counts[awaited.verb] = counts.get(awaited.verb, 0) + 1
        else:
            others.append((awaited, row))
    asked = _ask(host, [awaited for awaited, _ in others if _is_asked(awaited, ledger)])
    for awaited, row in others:
        found, failed = _look_closer(host, awaited, row, ledger, plan.prober, asked.get(awaited.unit, {}))
        if failed:
            ledger.failed.add(awaited.unit)
        (failures if failed else skipped).append(found)
    return Outcome(
        project=plan.project,
        failures=tuple(_finish(f, host, ledger.failed, n) for n, f in enumerate(failures)),
        skipped=tuple(skipped),
        counts=counts,
        unfinished=tuple(a.unit for a in plan.awaited if a.unit in ledger.unfinished),
        unbegun=tuple(unbegun),
        interrupted=interrupted,
        timed_out=timed_out,
    )


def _is_begun(awaited: Awaited, ledger: Ledger) -> bool:
    return awaited.unit in ledger.begun or awaited.unit in ledger.results or awaited.unit in ledger.refused


def _is_well(awaited: Awaited, row: UnitState, ledger: Ledger) -> bool:
    if awaited.verb is Verb.STOP:
        # A unit that had to be killed ends as failed, but it is stopped all the same.
        return awaited.unit not in ledger.refused and row.active_state in ("inactive", "failed")
    if awaited.unit in ledger.refused or awaited.unit in ledger.fallen:
        return False
    good = ("done", "") if awaited.verb is Verb.RELOAD else ("done", "", "failed", "timeout", "canceled")
    return row.active_state in ("active", "reloading", "refreshing") and (
        ledger.results.get(awaited.unit, "") in good
    )


def _is_asked(awaited: Awaited, ledger: Ledger) -> bool:
    return awaited.unit not in ledger.refused and awaited.verb is not Verb.STOP


def _ask(host: Host, awaited: Sequence[Awaited]) -> dict[str, dict[str, Any]]:
    """Return what systemd knows of these, in one go: while they all crash again, each answer is late."""
    questions = [Question(one.unit, "Unit", _UNIT) for one in awaited]
    for one in awaited:
        kind = one.unit.rpartition(".")[2].capitalize()
        if kind in ("Service", "Socket", "Timer", "Path"):
            questions.append(Question(one.unit, kind, _SERVICE if kind == "Service" else ("Result",)))
    found: dict[str, dict[str, Any]] = {one.unit: {} for one in awaited}
    for question, answer in zip(questions, host.manager.many_properties(questions), strict=True):
        found[question.unit] |= answer
    return found


def _look_closer(  # noqa: PLR0917
    host: Host, awaited: Awaited, row: UnitState, ledger: Ledger, prober: str, asked: Mapping[str, Any]
) -> tuple[UnitOutcome, bool]:
    """Return what is known about a unit that is not up, and whether it is a failure."""
    unit = awaited.unit
    job = ledger.results.get(unit, "")
    base = {
        "unit": unit,
        "verb": awaited.verb,
        "service": awaited.service,
        "origin": awaited.origin,
        "job_result": job,
        "active_state": row.active_state,
        "sub_state": row.sub_state,
    }
    if unit in ledger.refused:
        problem = ledger.refused[unit]
        return UnitOutcome(**base, why=refused_words(problem.code, problem.message)), True  # type: ignore[arg-type]
    if awaited.verb is Verb.STOP:
        return UnitOutcome(**base, why=f"it is still {row.active_state}"), True  # type: ignore[arg-type]
    result = str(asked.get("Result", ""))
    control, code, status = _control(asked, prober)
    if not control:
        code, status = int(asked.get("ExecMainCode", 0)), int(asked.get("ExecMainStatus", 0))
    requires = [str(n) for key in ("Requires", "Requisite", "BindsTo") for n in asked.get(key, ())]
    if not job and row.active_state == "inactive" and result in ("", "success"):
        job = _unannounced(host, requires, ledger)
        base["job_result"] = job
    fall = ledger.fallen.get(unit)
    why, failed = _why(row, job, result, asked)
    if failed and result not in ("", "success"):
        words = result_words(result, code, status, control=control)
        why = f"{words}; {why}" if row.active_state == "activating" else words
    if fall is not None:
        why, failed = _fall_words(why, fall), True
    return (
        UnitOutcome(
            **base,  # type: ignore[arg-type]
            why=why,
            cause="requires" if job == "dependency" else cause_key(result, code, status, control=control),
            culprit=" ".join(requires) if job == "dependency" else "",
            result=result,
            exit_code=code,
            status=status,
            invocation_id=(fall and fall.invocation_id) or str(asked.get("InvocationID", "")),
        ),
        failed,
    )


def _fall_words(why: str, fall: Fall) -> str:
    """Say how a unit fell that had been up, or that ended although it is meant to go on."""
    if fall.invocation_id:
        why = "it ended, and systemd started it again"
    elif fall.ended:
        why = "it ended with exit status 0, but it is meant to go on running"
    if not fall.after_sec:
        return why
    return f"{why} ({fall.after_sec:.1f}s into its settle time of {fall.settle_sec:g}s)"


def _unannounced(host: Host, requires: list[str], ledger: Ledger) -> str:
    """Return the result of a job that systemd made itself, of which it tells nobody: "dependency" or ""."""
    if not ledger.failed.isdisjoint(requires):  # what a unit requires comes before it in a plan
        return "dependency"
    rows = host.manager.units_by_name(requires)
    return "dependency" if any(_is_down(row) for row in rows) else ""


def _is_down(row: UnitState) -> bool:
    return row.active_state == "failed" or row.load_state != "loaded"


def _why(row: UnitState, job: str, result: str, asked: Mapping[str, Any]) -> tuple[str, bool]:
    """Return why the unit is not up, and whether that is a failure."""
    if row.active_state == "activating":
        return "systemd is trying again", True
    if row.active_state == "failed" or job not in ("done", "skipped", ""):
        return job_words(job) if job not in ("", "done") else "it failed", True
    if row.active_state in ("active", "reloading", "refreshing"):
        return job_words(job), True
    if result not in ("", "success", "exec-condition"):
        return "it failed", True
    if result == "exec-condition" or (
        asked.get("ConditionResult") is False and asked.get("ConditionTimestamp")
    ):
        return "a condition is not met", False
    if job or asked.get("InvocationID") or asked.get("ConditionTimestamp"):
        return "it has finished", False
    return "it was not started, and nothing tells why", True


def _control(asked: Mapping[str, Any], prober: str) -> tuple[str, int, int]:
    """Return the key of the command beside the main one that failed, and how it ended.

    The rows are a(sasbttttuii): path, argv, ignore failure, four timestamps, pid, code, status. The prober
    also gives up when the main process ends; then that one is to blame.
    """
    main_ended = int(asked.get("ExecMainExitTimestampMonotonic", 0))
    for name, key in (
        ("ExecStartPre", "pre_start"),
        ("ExecStartPost", "post_start"),
        ("ExecReload", "reload"),
    ):
        for row in asked.get(name, ()):
            path, argv, ignore, code, status = row[0], row[1], row[2], int(row[-2]), int(row[-1])
            if not ignore and code and not (code == 1 and status == 0):
                is_ready = bool(prober) and prober in (path, *argv)
                if is_ready and 0 < main_ended <= int(row[6]):
                    return "", 0, 0
                return ("ready" if is_ready else key), code, status
    return "", 0, 0


def _finish(found: UnitOutcome, host: Host, failed: set[str], number: int) -> UnitOutcome:
    """Add the last journal lines, and name the culprit of a dependency failure."""
    changes: dict[str, Any] = {}
    if found.culprit:
        names = found.culprit.split()
        culprits = [name for name in names if name in failed]
        if not culprits:
            rows = host.manager.units_by_name(names)
            culprits = [row.name for row in rows if _is_down(row)]
        changes["culprit"] = " ".join(culprits)
        if culprits:
            changes["why"] = f"{' and '.join(culprits)}, which it requires, could not be started"
    if number < TAILS and found.job_result != "dependency":
        changes["journal_tail"] = tuple(host.journal.tail(found.unit, TAIL_LINES, found.invocation_id))
    return replace(found, **changes) if changes else found
