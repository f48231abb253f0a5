"""A small systemd in virtual time: what the policy's simulation plays against.

Owns units with Restart=, RestartSec, a start limit, Requires= and BindsTo=, in the two dialects (systemd up
to 253, and from 254), what they announce, what the journal gets, and the truth: each run that has ended. As
measured on 247, 252 and 257. Knows nothing of the controller. Rule: a unit's run goes into `ended` here and
nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sysresp.ports import Gone, JobRemoved, Record, Seen, Signal
from sysresp.units.supervision import Supervision, delay, restarts_after

BOOT = "b" * 32
EPOCH = 1_700_000_000.0
TICK = 0.0001  # between two things that happen "at once"


@dataclass
class Unit:
    """One .service."""

    name: str
    supervision: Supervision
    requires: tuple[str, ...] = ()
    binds: bool = False  # BindsTo= what it requires
    broken: int = 0  # so many starts fail at once
    active: str = "inactive"
    sub: str = "dead"
    invocation: str = ""
    result: str = "success"
    job: int = 0
    n_restarts: int = 0
    main_pid: int = 0
    exec_code: int = 0
    exec_status: int = 0
    started: float = 0.0
    ended: float = 0.0
    changed: float = 0.0
    due: float = 0.0  # when systemd restarts it
    starts: list[float] = field(default_factory=list)
    is_fresh: bool = True  # the next manual start counts NRestarts from 0
    is_wanted_down: bool = False  # the operator stopped it, and nobody has started it since

    def is_up(self) -> bool:
        return self.main_pid != 0


class ToySystemd:
    """PID 1 and its journal."""

    def __init__(self, units: list[Unit], *, is_new: bool) -> None:
        self.units = {unit.name: unit for unit in units}
        self.is_new = is_new  # 254 and later
        self.now = 100.0
        self.runs = 0
        self.jobs = 0
        self.ended: list[tuple[str, str]] = []  # the truth
        self.journal: list[Record] = []
        self._failed: set[tuple[str, str]] = set()
        self.announce: Callable[[Signal], None] = lambda _: None
        self.throttles: Callable[[], bool] = lambda: False  # does journald drop the next message?
        self.dependents = {
            unit.name: [other for other in units if unit.name in other.requires] for unit in units
        }

    # What it tells

    def seen(self, name: str) -> Seen:
        """Return what a read of the unit says now."""
        u = self.units[name]
        return Seen(
            name, u.active, u.sub, u.invocation, u.result, u.job, u.n_restarts, u.main_pid, u.exec_code,
            u.exec_status, u.started, u.ended, EPOCH + u.ended if u.ended else 0.0, u.changed,
        )  # fmt: skip

    def tell(self, u: Unit) -> None:
        self.announce(self.seen(u.name))

    def become(self, u: Unit, active: str, sub: str) -> None:
        self.now += TICK
        u.active, u.sub, u.changed = active, sub, self.now
        self.tell(u)

    def record(self, u: Unit, kind: str, **fields: Any) -> None:
        if self.throttles() or (kind == "failed" and (u.invocation, u.name) in self._failed):
            return  # it is said again as systemd gives up, and read once
        if kind == "failed":
            self._failed.add((u.invocation, u.name))
        made = Record(kind, u.name, u.invocation, EPOCH + self.now, self.now, BOOT)
        self.journal.append(made._replace(**fields))

    def job_removed(self, u: Unit, job: int, result: str) -> None:
        self.announce(JobRemoved(job, u.name, result))
        u.job = 0
        self.tell(u)

    def new_job(self, u: Unit) -> int:
        self.jobs += 1
        u.job = self.jobs
        return self.jobs

    # What can be asked for

    def start(self, name: str) -> None:
        """StartUnit."""
        u = self.units[name]
        if u.is_up():
            return
        if u.sub == "auto-restart" and not self.is_new:
            return  # the job waits for RestartSec
        if u.is_fresh:
            u.n_restarts = 0
        if u.due:
            u.due = 0.0
            u.n_restarts += 1
        self._start_job(u, self.new_job(u))

    def stop(self, name: str, status: int = 0) -> None:
        """StopUnit; `status` is how the process takes it."""
        u = self.units[name]
        for other in self.dependents[name]:
            if other.is_up() and u.is_up():
                self.stop(other.name)
        job = self.new_job(u)
        if u.is_up():
            self.become(u, "deactivating", "stop-sigterm")
            self._end(u, "exit-code" if status else "success", 1, status, "stop")
        elif u.due:
            u.due = 0.0
            self.record(u, "stopped", job_type="stop", result="done")
            self._rest(u)
        u.is_fresh = True
        self.job_removed(u, job, "done")
        self._unload(u)

    def restart(self, name: str) -> None:
        """RestartUnit."""
        u = self.units[name]
        along = [other for other in self._all_dependents(name) if other.is_up() and u.is_up()]
        for other in reversed(along):
            self._stop_for_restart(other)
        if u.is_up():
            self._stop_for_restart(u)
        else:
            if u.is_fresh:
                u.n_restarts = 0
            self.new_job(u)
            if u.due:
                u.due = 0.0
                if not self.is_new:
                    self.become(u, "inactive", "dead")
        self._start_job(u, u.job)
        for other in along:
            self._start_job(other, other.job)

    def _all_dependents(self, name: str) -> list[Unit]:
        found = list(self.dependents[name])
        for other in found:
            found += self.dependents[other.name]
        return found

    def try_restart(self, name: str) -> None:
        """TryRestartUnit (252 and later)."""
        if self.units[name].due or self.units[name].is_up():
            self.restart(name)

    def reset_failed(self, name: str) -> None:
        """ResetFailedUnit."""
        u = self.units[name]
        u.n_restarts, u.starts = 0, []
        if u.active == "failed" and not u.due:
            u.result = "success"
            self.become(u, "inactive", "dead")
            self._unload(u)

    def crash(self, name: str, code: int, status: int) -> None:
        """Let the main process end: code 1 by itself, 2 killed."""
        u = self.units[name]
        if not u.is_up():
            return
        result = {1: "exit-code" if status else "success", 2: "signal"}[code]
        for other in self.dependents[name]:
            if other.binds and other.is_up():
                self.now += TICK
        self._end(u, result, code, status, "")
        for other in self.dependents[name]:
            if other.binds and other.is_up():
                self.stop(other.name)

    def kill(self, name: str) -> None:
        """SIGKILL all its processes."""
        self.crash(name, 2, 9)

    # What happens by itself

    def next_due(self) -> float:
        """Return when something will happen by itself; 0: never."""
        return min((u.due for u in self.units.values() if u.due), default=0.0)

    def advance(self, until: float) -> None:
        """Let that be the time, and what is due before happen."""
        while 0 < (due := self.next_due()) <= until:
            self.now = max(self.now, due)
            u = next(u for u in self.units.values() if u.due == due)
            u.due = 0.0
            u.n_restarts += 1
            job = self.new_job(u)
            if self.is_new:
                self.become(u, "activating", "auto-restart-queued")
            else:
                self.tell(u)
                self.record(u, "stopped", job_type="restart", result="done")
                if u.requires:
                    self.become(u, "inactive", "dead")
            self._start_job(u, job)
        self.now = max(self.now, until)

    # How it goes

    def _is_limited(self, u: Unit) -> bool:
        sup = u.supervision
        if not sup.attempts:
            return False
        u.starts = [at for at in u.starts if at > self.now - sup.within_sec]
        if len(u.starts) >= sup.attempts:
            return True
        u.starts.append(self.now)
        return False

    def _start_job(self, u: Unit, job: int) -> None:
        u.job, u.is_wanted_down = job, False
        self.tell(u)
        for name in u.requires:
            other = self.units[name]
            if not other.is_up() and not other.due:
                self.start(name)
            if not other.is_up():
                if u.active != "failed":
                    self._rest(u)
                self.record(u, "start-failed", result="dependency", job_type="start")
                self.job_removed(u, job, "dependency")
                self._unload(u)
                return
        if self._is_limited(u):
            if u.result == "success":
                u.result = "start-limit-hit"
            self.record(u, "failed", result=u.result)
            self.become(u, "failed", "failed")
            u.is_fresh = True
            self.job_removed(u, job, "failed")
            return
        self._begin(u, job)

    def _begin(self, u: Unit, job: int) -> None:
        self.runs += 1
        self.now += TICK
        u.invocation = f"{self.runs:032x}"
        u.result, u.main_pid, u.started, u.ended = "success", self.runs, self.now, 0.0
        u.exec_code = u.exec_status = 0
        u.is_fresh = False
        self.tell(u)
        if u.broken:
            u.broken -= 1
            self.become(u, "activating", "start")
            self._end(u, "exit-code", 1, 203, "")
            self.job_removed(u, job, "failed")
            return
        self.become(u, "active", "running")
        self.record(u, "started", result="done")
        self.job_removed(u, job, "done")

    def _stop_for_restart(self, u: Unit) -> None:
        self.new_job(u)
        self.become(u, "deactivating", "stop-sigterm")
        self._end(u, "success", 1, 0, "restart")
        u.n_restarts = 0

    def _end(self, u: Unit, result: str, code: int, status: int, stopped_by: str) -> None:
        """End the run; `stopped_by` is the type of the job that did it."""
        self.now += TICK
        self.ended.append((u.name, u.invocation))
        u.main_pid, u.ended, u.result = 0, self.now, result
        u.exec_code, u.exec_status = code, status
        if result != "success":
            self.record(u, "exited", exec_code=code, exec_status=status)
        self.record(u, "finished" if result == "success" else "failed", result=result)
        will = not stopped_by and restarts_after(u.supervision, result, code, status)
        state = "inactive" if result == "success" else "failed"
        rests = "dead" if result == "success" else "failed"
        self.become(u, state, f"{rests}-before-auto-restart" if will and self.is_new else rests)
        if will:
            self.become(u, "activating", "auto-restart")
            u.due = self.now + self._restart_sec(u)
            self.record(u, "restart", n_restarts=u.n_restarts + 1)
        elif stopped_by:
            self.record(u, "stopped", job_type=stopped_by, result="done")
        else:
            u.is_fresh = True
        if not will and not stopped_by:
            self._unload(u)

    def _restart_sec(self, u: Unit) -> float:
        sup = u.supervision
        if sup.max_delay_sec and not sup.is_native:
            return sup.max_delay_sec
        return delay(sup, u.n_restarts + 1)

    def _rest(self, u: Unit) -> None:
        u.result = "success"
        self.become(u, "inactive", "dead")

    def _unload(self, u: Unit) -> None:
        """Forget a unit that rests, as PID 1 does with what nothing refers to."""
        if u.active != "inactive" or u.job:
            return
        u.invocation, u.result, u.n_restarts, u.exec_code, u.exec_status = "", "success", 0, 0, 0
        u.started = u.ended = u.changed = 0.0
        u.is_fresh, u.starts = True, []
        self.announce(Gone(u.name))
