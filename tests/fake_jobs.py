"""The loading and the jobs of the fake service manager; what the port offers is `tests.fakes.FakeManager`'s.

A unit is loaded when somebody names it, keeps the text it was loaded with until a reload, and is forgotten
when it is inactive. The rule of tests/fakes.py holds here, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sysresp.ports import Gone, JobRemoved, Signal, UnitProblem
from sysresp.units.change import Effect, effect
from tests.fake_clock import FakeClock
from tests.fake_files import FakeFiles
from tests.fake_units import UP, FakeUnit, find, is_valid, needs, seen, sub_state

UNIT_DIR = "/etc/systemd/system"
SEARCH = (UNIT_DIR, "/run/systemd/system", "/usr/lib/systemd/system")


class FakeJobs:
    """Units over `FakeFiles`, and the queue; see `tests.fakes.FakeManager` for how it is steered."""

    def __init__(
        self,
        files: FakeFiles | None = None,
        *,
        search: Sequence[str] = SEARCH,
        systemd: int = 252,
        clock: FakeClock | None = None,
    ) -> None:
        self.files = files if files is not None else FakeFiles()
        self.clock = clock if clock is not None else FakeClock()  # passes while jobs are waited for
        self.files.now = self.clock.now
        self.search = tuple(search)
        self.systemd = systemd
        self.calls: list[tuple[str, ...]] = []  # every call: ("start", unit)
        self.loaded: dict[str, FakeUnit] = {}
        self.fail: dict[str, str] = {}
        self.crash: dict[str, str] = {}
        self.crash_text: dict[str, str] = {}
        self.skip: set[str] = set()
        self.stuck: set[str] = set()
        self.refuse: dict[str, str] = {}
        self.raises: dict[str, BaseException] = {}
        self.on_start: Callable[[str], None] = lambda _unit: None
        self.on_signal: Callable[[Signal], None] | None = None  # hears what PID 1 announces
        self.watching = False
        self.own: set[int] = set()  # jobs that the client queued: their ends are announced
        self.jobs: dict[int, tuple[str, str]] = {}  # the queue: number -> unit, type
        self.most_jobs = 0  # the longest queue so far
        self._ended: list[JobRemoved] = []
        self._last_job = 0
        self._last_run = 0

    def end_process(self, unit: str, result: str = "exit-code", code: int = 1, status: int = 1) -> None:
        """Let the main process of a unit end; nothing starts it again."""
        loaded = self.loaded[unit]
        loaded.exec_code, loaded.exec_status, loaded.ended = code, status, self.clock.monotonic()
        loaded.active, loaded.sub, loaded.result = "failed", "failed", result
        if result == "success":
            loaded.active, loaded.sub = "inactive", "dead"
        self.tell(loaded)

    def tell(self, unit: FakeUnit) -> None:
        """Announce the unit as it is."""
        state = (unit.active, unit.sub)
        if state != unit.told:
            unit.told, unit.changed = state, self.clock.monotonic()
        if self.on_signal is not None:
            self.on_signal(seen(unit, self.clock.start))

    # Loading and forgetting

    def _called(self, *call: str) -> None:
        self.calls.append(call)
        if call[0] in self.raises:
            raise self.raises[call[0]]

    def _load(self, name: str) -> FakeUnit:
        unit = self.loaded.setdefault(name, FakeUnit(name))
        if unit.load == "not-found":  # PID 1 looks again for what it did not find
            unit.load, unit.path, unit.text = find(self.files, self.search, name)
        return unit

    def _collect(self) -> None:
        """Forget units as PID 1 does: not up, not failed, without a job, and needed by nobody that is up."""
        idle = [n for n, unit in self.loaded.items() if unit.active == "inactive" and not unit.job[0]]
        if not idle:
            return
        needed = {
            need
            for unit in self.loaded.values()
            if unit.active in UP
            for need in self._needs(unit, "Requires", "Wants", "BindsTo")
        }
        for name in idle:
            if name not in needed:
                del self.loaded[name]
                if self.on_signal is not None:
                    self.on_signal(Gone(name))

    # Jobs

    def _job(self, method: str, name: str) -> int:
        self._called(method, name)
        if not is_valid(name):
            raise UnitProblem(name, "InvalidArgs", f"Unit name {name} is not valid")
        if name in self.refuse:
            raise UnitProblem(name, self.refuse[name], f"Unit {name} was refused by the test")
        unit = self._load(name)
        if method == "stop":
            if unit.load == "not-found" and unit.active == "inactive":
                raise UnitProblem(name, "NoSuchUnit", f"Unit {name} not loaded")
        elif unit.load == "not-found":
            raise UnitProblem(name, "NoSuchUnit", f"Unit {name} not found")
        elif unit.load == "masked":
            raise UnitProblem(name, "UnitMasked", f"Unit {name} is masked")
        elif unit.load == "bad-setting":
            raise UnitProblem(name, "BadUnitSetting", f"Unit {name} has a bad unit file setting")
        elif method == "reload_unit" and not unit.values("ExecReload"):
            raise UnitProblem(
                name, "JobTypeNotApplicable", f"Job type reload is not applicable for unit {name}"
            )
        kind = {"reload_unit": "reload", "try_restart": "restart"}.get(method, method)
        if method == "try_restart" and unit.active not in UP:
            kind = "nop"
        number = self._enqueue(kind, unit)
        self.own.add(number)
        return number

    def _enqueue(self, kind: str, unit: FakeUnit) -> int:
        number, queued = unit.job
        if number and (kind == queued or {kind, queued} == {"start", "restart"}):
            return number  # merged into the job that is there
        if number:  # mode "replace"
            self._end(number, "canceled")
        self._last_job = number = self._last_job + 1
        unit.job = (number, kind)
        self.jobs[number] = (unit.name, kind)
        self.tell(unit)
        self.most_jobs = max(self.most_jobs, len(self.jobs))
        if kind in ("start", "restart"):
            for name in self._needs(unit, "Requires", "Wants", "BindsTo"):
                other = self._load(name)
                if other.load == "loaded" and other.active not in UP and not other.job[0]:
                    self._enqueue("start", other)
        if kind in ("stop", "restart"):
            for other in list(self.loaded.values()):
                keys = (
                    ("Requires", "BindsTo", "PartOf")
                    if kind == "stop"
                    else ("Requires", "PartOf", "BindsTo")
                )
                if other.active in UP and not other.job[0] and unit.name in self._needs(other, *keys):
                    self._enqueue(kind, other)
        return number

    def _needs(self, unit: FakeUnit, *keys: str) -> list[str]:
        return needs(self.files, self.search, unit, *keys)

    def _run(self, number: int) -> None:
        name, kind = self.jobs.get(number, ("", ""))
        if not name:
            return
        unit = self.loaded[name]
        if name in self.stuck:
            if kind in ("start", "restart"):
                unit.active, unit.sub = "activating", "start"
            return
        if kind == "nop":
            self._end(number, "done")
        elif kind == "stop":
            if unit.active != "failed":  # unit_stop in src/core/unit.c: it is down already
                unit.active, unit.sub = "inactive", "dead"
            self._end(number, "done")
        elif kind == "reload":
            result = self.fail.get(name, "done") if unit.active == "active" else "invalid"
            if result == "done" and effect(unit.runs, unit.text) is not Effect.RESTART:
                unit.runs = unit.text
            self._end(number, result)
        elif self._is_ready(unit):
            self._start(number, unit, kind)

    def _is_ready(self, unit: FakeUnit) -> bool:
        """Let the jobs end that this one is ordered after; false if one of them does not."""
        for name in unit.values("After"):
            other = self.loaded.get(name)
            if other is not None and other.job[0] and name != unit.name:
                self._run(other.job[0])
                if other.job[0]:
                    return False
        return True

    def _start(self, number: int, unit: FakeUnit, kind: str) -> None:
        if unit.active == "active" and kind == "start":
            return self._end(number, "done")
        for name in unit.values("Requires", "BindsTo"):
            other = self._load(name)
            if name in unit.values("After") and other.active not in UP:
                unit.active, unit.sub = "inactive", "dead"
                return self._end(number, "dependency")
        result = self.fail.get(unit.name, "done")
        if result in ("done", "failed", "timeout") and unit.name not in self.skip:
            unit.begin(self.new_invocation(), self.clock.monotonic())
        if unit.name in self.skip:
            pass
        elif crash := self._crash(unit):
            unit.active, unit.sub, unit.result = "failed", "failed", crash
        elif result == "done":
            unit.active, unit.sub, unit.result = "active", sub_state(unit, "active"), "success"
            unit.runs = unit.text
            if unit.sub == "exited" and unit.values("RemainAfterExit")[-1:] != ["yes"]:
                unit.active, unit.sub = "inactive", "dead"
            self.on_start(unit.name)
        elif result in ("failed", "timeout"):
            unit.active, unit.sub = "failed", "failed"
            unit.result = "exit-code" if result == "failed" else "timeout"
        return self._end(number, result)

    def _crash(self, unit: FakeUnit) -> str:
        """Return with which Result the unit fails right after its start, "" if it does not."""
        found = [result for text, result in self.crash_text.items() if text in unit.text]
        return self.crash.get(unit.name, "") or (found[0] if found else "")

    def _end(self, number: int, result: str) -> None:
        name, _kind = self.jobs.pop(number)
        unit = self.loaded[name]
        self.tell(unit)
        unit.job = (0, "")
        self._ended.append(JobRemoved(number, name, result))
        if self.on_signal is not None:
            self.on_signal(self._ended[-1])
        self.tell(unit)

    def new_invocation(self) -> str:
        self._last_run += 1
        return f"{self._last_run:032x}"
