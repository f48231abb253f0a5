"""Which runs have ended: exactly once each, from signals, from the journal, and from the count.

Owns the arithmetic of NRestarts (what it counts and what it does not: see `credit` and `deaths`) and the
reading of journal records as runs. Decides no fate of a unit's future and asks for nothing. Rule: a run is
(unit, InvocationID); a count only ever says that some are missing, never which.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum, auto
from math import inf
from typing import NamedTuple

from sysresp.controller.events import Exit, Fate, UnitMemory
from sysresp.ports import Record, Seen
from sysresp.units.supervision import DEFAULT, Supervision, restarts_after, result_of

WAITING = frozenset(
    (
        "auto-restart",
        "auto-restart-queued",  # 254, as the two below
        "failed-before-auto-restart",
        "dead-before-auto-restart",
    )
)
"""SubStates in which systemd itself is going to start the unit again."""


WAITED_SEC = 0.05
"""A unit that was merely stopped is dead sooner after its process; RestartSec= is longer, as a rule."""


class Phase(Enum):
    """Where a unit is, as far as its runs are concerned."""

    UP = auto()  # a run is under way, or begins
    EXITED = auto()  # the run is over, and the unit stays active (RemainAfterExit=)
    WAITING = auto()  # the run is over, and systemd restarts it
    FAILED = auto()  # the run is over; below systemd 254 WAITING may follow at once
    DEAD = auto()  # ... and so here, with Restart=always and on-success


def phase(seen: Seen, known: UnitMemory) -> Phase:
    """Return where the unit is."""
    if begins(seen, known):
        return Phase.UP
    if seen.sub in WAITING:
        return Phase.WAITING
    match seen.active:
        case "failed":
            return Phase.FAILED
        case "inactive":
            return Phase.DEAD
        case "active" if seen.sub == "exited":
            return Phase.EXITED
        case _:
            return Phase.UP


def is_queued(seen: Seen) -> bool:
    """Say whether systemd's restart is in the queue: it is counted then, and the run has not begun.

    Up to 253 the job stops the unit first, which is then dead for a moment (service_stop in service.c): long
    after its process ended, for it has waited.
    """
    if seen.sub == "dead" and seen.job:
        return has_waited(seen)
    return seen.sub == "auto-restart-queued" or (seen.sub == "auto-restart" and seen.job != 0)


def has_waited(seen: Seen) -> bool:
    """Say whether a unit that is dead waited for a restart, which may be counted, before it came to that."""
    return seen.ended > 0 and seen.changed > seen.ended + WAITED_SEC


def begins(seen: Seen, known: UnitMemory) -> bool:
    """Say whether a run is just beginning: a new InvocationID comes before the state that goes with it."""
    if seen.invocation in ("", known.invocation):
        # Told once more, as it was when it began?
        is_same = (seen.active, seen.sub, seen.changed) == (known.active, known.sub, known.changed)
        return is_same and not known.is_ended and bool(seen.invocation)
    if seen.main_pid or not seen.job:
        return bool(seen.main_pid)
    # What is told of the main process may still be that of the run before; it is if it contradicts Result=,
    # which is set anew as a run begins. If that is wrong (ExecStart=-), a look without a job puts it right.
    is_of_before = bool(seen.exec_code) and result_of(DEFAULT, seen.exec_code, seen.exec_status) != "success"
    return seen.result == "success" and (is_of_before or not known.ended < seen.started <= seen.ended)


def credit(known: UnitMemory, seen: Seen, is_new: bool, is_ahead: bool = False) -> UnitMemory:
    """Return the memory with NRestarts taken in; `is_new`: a run is seen for the first time.

    Each restart by systemd adds 1, before the run begins; RestartUnit adds nothing; a manual start, a reset
    and the unloading of the unit set it to 0. So a run that is seen uses up one credit if there is any, and
    what is left then are runs that nobody told of. `is_ahead`: the run is over already, and one more may be
    the restart that is queued, or that the start limit refused. After the same run there is but one restart:
    systemd counts it again when it is reloaded while the job is queued (seen on 252).
    """
    base = known.n_restarts
    if not seen.changed and not seen.invocation:
        return unloaded(known)
    if seen.n_restarts < base:
        if seen.changed == known.changed and not is_new and not known.is_reset and seen.n_restarts:
            return known  # told late
        base = 0 if known.is_reset else seen.n_restarts
        known = known._replace(credit=0, is_reset=False)
    more = known.credit + seen.n_restarts - base
    known = known._replace(n_restarts=seen.n_restarts)
    if not is_new:
        is_same = seen.invocation == known.invocation
        if is_same and seen.sub == "auto-restart" and not seen.job:
            # No restart is queued: what looked like a spare one was that of a run which nobody told of.
            lost = known.credit if seen.n_restarts == base else 0
            return known._replace(credit=0, missing=known.missing + lost)
        return known._replace(credit=min(more, 1) if is_same else more)
    spare = 1 if is_ahead and more > 1 else 0
    lost = max(0, more - 1 - spare)
    since = 0.0
    if lost or spare or known.missing:  # a spare one may turn out to be lost
        is_since = known.since and (known.missing or known.credit)
        since = known.since if is_since else max(known.started, known.ended, 1e-6)  # 0: none is missing
    return known._replace(credit=spare, missing=known.missing + lost, since=since, is_reset=False)


def unloaded(known: UnitMemory) -> UnitMemory:
    """Return the memory of a unit of which systemd forgot the count; what tells of before may still come."""
    return known._replace(credit=0, is_reset=known.n_restarts > 0)


def deaths(known: UnitMemory, seen: Seen, where: Phase, refused: int) -> int:
    """Return how many runs have ended since memory was made, by the count; meaningless if it went down.

    `refused` are restarts that were counted and made no run: at the start limit, for a dependency that
    failed, for a condition. Nor is a run counted that the controller began.
    """
    base = known.n_restarts
    if known.is_reset and seen.n_restarts < base:
        base = 0
    begun = known.credit + seen.n_restarts - base - refused
    is_running = where is Phase.UP
    return known.missing + max(0, begun + (not known.is_ended) - is_running)


class Gap(NamedTuple):
    """What the journal has of one unit: runs in their order, and what else matters."""

    runs: dict[str, list[Record]]  # by invocation
    refused: int  # restarts that made no run, as far as it tells
    blocked_at: float  # when the last start failed by a dependency; 0: it did not
    was_skipped: bool  # the last start was skipped by a condition

    def deaths(self) -> list[float]:
        """Return when runs ended that no job stopped."""
        kinds = {invocation: {record.kind for record in of_run} for invocation, of_run in self.runs.items()}
        ends = [
            ended_at(of_run)
            for invocation, of_run in self.runs.items()
            if "restart" in kinds[invocation] or "stopped" not in kinds[invocation]
        ]
        return [at for at in ends if at]

    def counted_again(self, known: UnitMemory) -> int:
        """Return how many restarts were counted more than once: one follows each run, see `credit`."""
        again = 0
        for invocation, of_run in self.runs.items():
            restarts = sum(record.kind == "restart" for record in of_run)
            if invocation == known.invocation:
                restarts += known.credit
            again += max(0, restarts - 1)
        return again

    def was_refused(self, invocation: str) -> bool:
        """Say whether the run, of a unit that is `failed`, was to be restarted, and nobody stopped that."""
        return self.was_due(invocation) and not self.stopped_at(invocation)

    def was_due(self, invocation: str) -> bool:
        """Say whether systemd waited to restart the unit after the run, by the journal."""
        return any(record.kind == "restart" for record in self.runs.get(invocation, ()))

    def refused_at(self, invocation: str) -> float:
        """Return when the start limit refused what was to follow the run; 0: it did not, by the journal."""
        was_due = self.was_refused(invocation)
        return max(
            (
                record.monotonic
                for record in self.runs.get(invocation, ())
                if record.result == "start-limit-hit" or (was_due and record.kind == "restart")
            ),
            default=0.0,
        )

    def stopped_at(self, invocation: str) -> float:
        """Return when a job ended the run, or the wait for the next; 0: none did, by the journal.

        A job of type "restart" is somebody's, too, but for the one that follows each wait up to 253.
        """
        records = self.runs.get(invocation, ())
        kinds = {record.kind for record in records}
        is_sure = "finished" in kinds and not kinds & {"restart", "failed", "exited"}
        jobs = ("stop", "restart") if is_sure else ("stop",)
        for record in reversed(records):
            if record.kind == "stopped" and record.job_type in jobs:
                return record.monotonic
        return 0.0


def gap(records: Iterable[Record], until: float = inf) -> Gap:
    """Read the records of one unit, which are in order; what is refused after `until` is not counted yet."""
    runs: dict[str, list[Record]] = {}
    refused, blocked_at, was_skipped = 0, 0.0, False
    for record in records:
        if record.invocation and record.kind != "start-failed":  # that names the run before
            runs.setdefault(record.invocation, []).append(record)
            if record.result != "start-limit-hit":  # that is said of the run before, too
                blocked_at = 0.0
        if record.kind == "start-failed" and record.result == "dependency":
            refused, blocked_at = refused + (record.monotonic <= until), record.monotonic
        elif record.kind == "started":
            blocked_at, was_skipped = 0.0, not record.invocation
            refused += was_skipped
    return Gap(runs, refused, blocked_at, was_skipped)


SILENCE = Gap({}, 0, 0.0, False)
ENDS = frozenset({"exited", "failed", "finished", "stopped"})


def ended_at(records: list[Record]) -> float:
    """Return when a run ended, by the journal; 0: it does not tell."""
    return min((record.monotonic for record in records if record.kind in ENDS), default=0.0)


class Run(NamedTuple):
    """How a run ended, as the journal has it."""

    row: Exit
    ended: float  # monotonic
    is_failure: bool


def run_of(
    unit: str, invocation: str, records: list[Record], supervision: Supervision, *, by_us: bool
) -> Run:
    """Return the end of a run that another one followed; `by_us`: the controller had asked for its stop."""
    code = status = 0
    result, at, ended, began = "", 0.0, 0.0, 0.0
    is_restarted, stopped_by = False, ""
    for record in records:
        match record.kind:
            case "started":
                began = record.monotonic
                continue
            case "exited":
                code, status = record.exec_code, record.exec_status
            case "failed" if result and record.result == "start-limit-hit":
                continue  # a start that was refused later
            case "failed":
                result = record.result or result
            case "finished":
                result = result or "success"
            case "oom":
                result = "oom-kill"
            case "restart":
                is_restarted = True
                continue
            case "stopped":
                stopped_by = record.job_type
            case _:
                continue
        if not at or record.kind in ("exited", "failed", "finished"):
            at, ended = record.at, record.monotonic
    if not result and code:
        result = result_of(supervision, code, status)
    is_failure = result not in ("", "success")
    expected = restarts_after(supervision, result or "success", code, status)
    # Up to 253 each restart by systemd stops the unit once more, by a job of type "restart".
    if stopped_by == "stop" or (stopped_by and not is_restarted and not (expected and is_failure)):
        fate = Fate.STOPPED_BY_US if by_us else Fate.STOPPED
    elif is_restarted or (expected and is_failure):
        fate = Fate.RETRY
    elif not result:
        fate = Fate.UNKNOWN
    elif expected:
        fate = Fate.RETRY
    else:
        fate = Fate.GAVE_UP if is_failure else Fate.FINISHED
    row = Exit(
        unit,
        invocation,
        when=at,
        result=result,
        exec_code=code,
        exec_status=status,
        fate=fate,
        uptime_sec=max(0.0, ended - began) if began else 0.0,
        source="journal" if at else "count",
    )
    return Run(row, ended, is_failure)


def row_of(unit: str, known: UnitMemory, seen: Seen, when: float) -> Exit:
    """Return the row of the run that `seen` tells the end of; the fate is the caller's."""
    has_main = (
        bool(seen.invocation) and seen.ended > 0 and seen.ended >= seen.started and seen.ended > known.ended
    )
    return Exit(
        unit,
        known.invocation,
        when=seen.ended_at if has_main and seen.ended_at else when,
        result=seen.result if seen.invocation else "",
        exec_code=seen.exec_code if has_main else 0,
        exec_status=seen.exec_status if has_main else 0,
        uptime_sec=seen.ended - seen.started if has_main and seen.started else 0.0,
        generation=known.generation,
    )
