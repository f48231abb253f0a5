"""Queueing jobs with systemd and waiting for their ends.

Owns the window of unfinished jobs, the counting of those that systemd makes itself, the deadline. Decides
nothing. Rule: jobs that are queued are never canceled by us, at Ctrl-C neither, since systemd finishes them
without us.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NamedTuple

from sysresp.errors import SysrespError
from sysresp.ports import Clock, JobRemoved, Manager, UnitProblem
from sysresp.reconcile.outcome import Ledger
from sysresp.reconcile.steps import Job, JobVerb, StartTransient, Step

WINDOW = 256
"""Unfinished jobs at a time: above 510 PID 1 leaves the bus (systemd PR 35779, dbus match rule limit)."""

FOREVER_SEC = 86400.0
COUNT_SEC = 0.5  # the queue is counted so often for the progress: systemd does not announce its own jobs


class Event(NamedTuple):
    """Progress: a step begins, a job has ended, or (neither) the queue has become shorter."""

    step: Step | None  # the step that begins
    removed: JobRemoved | None  # the job that has ended
    finished: int  # units of the plan whose jobs have ended so far
    total: int  # units of the plan that get a job, systemd's own ones included
    left_sec: float = 0.0  # of a settle time


class OutOfTimeError(Exception):
    """The deadline passed while jobs were unfinished."""


class Call(NamedTuple):
    """One job to be queued."""

    unit: str
    pulls: tuple[str, ...]
    queue: Callable[[], int]


class Jobs:
    """The jobs of one plan."""

    def __init__(
        self,
        manager: Manager,
        clock: Clock,
        ledger: Ledger,
        on_event: Callable[[Event], None],
        *,
        total: int,
        timeout_sec: float | None,
    ) -> None:
        self.queued = False  # a job was queued, if only to stop something
        self.stopped: list[str] = []  # units that were told to stop
        self.ended: set[str] = set()
        self._manager = manager
        self._clock = clock
        self._ledger = ledger
        self._on_event = on_event
        self._total = total
        self._deadline = None if timeout_sec is None else clock.monotonic() + timeout_sec
        self._outstanding: dict[int, str] = {}
        self._watched: frozenset[str] = frozenset()  # units for which the jobs of this step are those meant
        self._watching = False

    def run(
        self, calls: Iterable[Call], watched: frozenset[str], refused: Callable[[UnitProblem], None]
    ) -> None:
        """Queue all and wait until all have ended; `refused` is told of each that systemd does not take."""
        if not self._watching:
            self._manager.watch_jobs()
            self._watching = True
        self._watched = watched
        try:
            for unit, pulls, queue in calls:
                while len(self._outstanding) >= WINDOW:
                    self._wait(sorted(self._outstanding)[: WINDOW // 4])
                self.queued = True
                try:
                    self._outstanding[queue()] = unit
                    self._ledger.begun |= {unit, *pulls} & watched
                except UnitProblem as problem:
                    refused(problem)
            self._wait(list(self._outstanding))
            # systemd makes jobs of its own: for what a target pulls in, for what requires a restarted unit.
            pending = self._manager.pending_jobs()
            self._outstanding = {job: unit for job, unit in pending.items() if unit in watched}
            self._wait(list(self._outstanding))
        except (KeyboardInterrupt, OutOfTimeError):
            self._ledger.unfinished |= set(self._outstanding.values()) & watched
            with suppress(SysrespError):
                self._ledger.unfinished |= set(self._manager.pending_jobs().values()) & watched
            raise

    def queue(self, job: Job) -> int:
        """Queue one job and return its number."""
        match job.verb:
            case JobVerb.START:
                return self._manager.start(job.unit)
            case JobVerb.STOP:
                number = self._manager.stop(job.unit)
                self.stopped.append(job.unit)
                return number
            case JobVerb.RESTART:
                return self._manager.restart(job.unit)
            case JobVerb.RELOAD:
                return self._manager.reload_unit(job.unit)

    def start_transient(self, step: StartTransient) -> int:
        """Start one transient unit and return the number of its job."""
        for _ in range(5):
            try:
                return self._manager.start_transient(step.unit, step.properties)
            except UnitProblem as problem:
                if problem.code != "UnitExists":
                    raise
                # The old one was stopped, and systemd forgets it when it next has nothing else to do.
                self._manager.reset_failed(step.unit)
                self._manager.units([step.unit])
        return self._manager.start_transient(step.unit, step.properties)

    def start_again(self, units: Iterable[str]) -> None:
        """Start these, which were stopped, and wait for them."""
        again = []
        for unit in units:
            with suppress(UnitProblem):
                again.append(self._manager.start(unit))
        if again:
            self._manager.wait(again, self._left(), lambda _: None)
        self.stopped.clear()

    def _wait(self, jobs: list[int]) -> None:
        while jobs:
            left = self._manager.wait(jobs, min(self._left(), COUNT_SEC), self._removed)
            for job in set(jobs) - left:
                self._outstanding.pop(job, None)
            jobs = [job for job in jobs if job in left]
            if jobs and self._deadline is not None and self._clock.monotonic() >= self._deadline:
                raise OutOfTimeError
            if jobs:
                self._count()

    def _count(self) -> None:
        """Tell how many have ended, by what is left in the queue."""
        ended = (self._ledger.begun & self._watched).difference(self._manager.pending_jobs().values())
        if not ended <= self.ended:
            self.ended |= ended
            self._on_event(Event(None, None, len(self.ended), self._total))

    def _left(self) -> float:
        return FOREVER_SEC if self._deadline is None else max(self._deadline - self._clock.monotonic(), 0.0)

    def _removed(self, removed: JobRemoved) -> None:
        self._outstanding.pop(removed.job_id, None)
        if removed.unit in self._watched:
            self._ledger.results[removed.unit] = removed.result
            self.ended.add(removed.unit)
            self._on_event(Event(None, removed, len(self.ended), self._total))
