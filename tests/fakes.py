"""A service manager in memory that tests can steer, and the whole fake host around it.

It behaves as systemd 252 does wherever sysresp can see it: a unit is loaded when somebody names it, keeps
the text it was loaded with until a reload, is forgotten when it is inactive, and its jobs end only while
somebody waits. tests/test_contract.py runs one suite on this and on a booted systemd, so it cannot drift.
The rule: what the real one refuses, this refuses; what it does not know, this does not invent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from posixpath import join

from sysresp.ports import Host, JobRemoved, Paths, Question, UnitProblem, UnitState
from sysresp.units.change import Effect, effect
from tests.fake_clock import FakeClock
from tests.fake_files import FakeFiles, FakeJournal, FakeProcesses
from tests.fake_units import FakeUnit, is_bad, is_valid, properties, row, sub_state, words

__all__ = [
    "SEARCH",
    "UNIT_DIR",
    "FakeClock",
    "FakeFiles",
    "FakeJournal",
    "FakeManager",
    "FakeProcesses",
    "FakeUnit",
    "fake_host",
]

UNIT_DIR = "/etc/systemd/system"
SEARCH = (UNIT_DIR, "/run/systemd/system", "/usr/lib/systemd/system")
MANAGER_CHANGES = ("reload", "start", "stop", "restart", "reload_unit", "start_transient", "reset_failed")
BUILT_IN = (
    "-.slice",
    "system.slice",
    "basic.target",
    "sysinit.target",
    "multi-user.target",
    "shutdown.target",
)
UP = ("active", "activating", "reloading")


class FakeManager:
    """A service manager over `FakeFiles`; jobs end at the next `wait`, in the order of After=.

    Steer it by unit name:
    - `fail[unit] = "failed"` (or "timeout", "dependency", "canceled", "skipped", ...): the job's result
    - `crash[unit] = "exit-code"`: the job is done, but then the unit is failed with this Result
    - `crash_text["/bin/web 2"] = "exit-code"`: the same for every unit with this in its text
    - `skip`: a condition is not met: the job is done, the unit stays inactive, ConditionResult is false
    - `stuck`: jobs of these never end
    - `refuse[unit] = "BadUnitSetting"`: a job is refused with this code
    - `raises["reload"] = error`: any method raises this
    - `on_start(unit)`: is called when a unit becomes active
    """

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
        self.watching = False
        self.own: set[int] = set()  # jobs that the client queued: their ends are announced
        self.jobs: dict[int, tuple[str, str]] = {}  # the queue: number -> unit, type
        self.most_jobs = 0  # the longest queue so far
        self._ended: list[JobRemoved] = []
        self._last_job = 0
        self._last_run = 0

    def changes(self) -> list[tuple[str, ...]]:
        """Return the calls so far that change something."""
        return [call for call in self.calls if call[0] in MANAGER_CHANGES]

    def set_state(self, unit: str, active: str, sub: str = "", result: str = "success") -> FakeUnit:
        """Set the scene: this unit is loaded and in this state."""
        loaded = self._load(unit)
        loaded.active, loaded.sub, loaded.result = active, sub or sub_state(loaded, active), result
        if active in (*UP, "failed") and not loaded.invocation:
            loaded.invocation = self.new_invocation()
        return loaded

    def lose_client(self) -> None:
        """Go on without the client that queued the jobs: they end, and nobody is told."""
        self._have_ended(set())
        self.own.clear()
        self._ended.clear()
        self.watching = False
        self._collect()

    # What the port offers

    def version(self) -> int:
        self._called("version")
        return self.systemd

    def units(self, patterns: Sequence[str]) -> list[UnitState]:
        self._called("units", *patterns)
        return [
            row(unit)
            for name, unit in sorted(self.loaded.items())
            if any(fnmatchcase(name, pattern) for pattern in patterns)
        ]

    def units_by_name(self, names: Sequence[str]) -> list[UnitState]:
        self._called("units_by_name", *names)
        rows = [row(self._load(name)) for name in names if is_valid(name)]
        self._collect()
        return rows

    def properties(self, unit: str, interface: str, names: Sequence[str]) -> dict[str, object]:
        self._called("properties", unit, interface, *names)
        loaded = self._load(unit)
        known = properties(
            loaded, interface, on_disk=self._find(loaded.name), skipped=loaded.name in self.skip
        )
        self._collect()
        return {name: known[name] for name in names if name in known}

    def many_properties(self, questions: Sequence[Question]) -> list[dict[str, object]]:
        return [self.properties(*question) for question in questions]

    def reload(self) -> None:
        self._called("reload")
        for unit in self.loaded.values():
            if not unit.transient:
                unit.load, unit.path, unit.text = self._find(unit.name)
        self._collect()

    def watch_jobs(self) -> None:
        self._called("watch_jobs")
        self.watching = True

    def start(self, unit: str) -> int:
        return self._job("start", unit)

    def stop(self, unit: str) -> int:
        return self._job("stop", unit)

    def restart(self, unit: str) -> int:
        return self._job("restart", unit)

    def reload_unit(self, unit: str) -> int:
        return self._job("reload_unit", unit)

    def start_transient(self, unit: str, properties: Sequence[tuple[str, str, object]]) -> int:
        self._called("start_transient", unit)
        if not is_valid(unit):
            raise UnitProblem(unit, "InvalidArgs", f"Invalid unit name or type: {unit}")
        if unit in self.refuse:
            raise UnitProblem(unit, self.refuse[unit], f"Unit {unit} was refused by the test")
        loaded = self._load(unit)
        if loaded.load != "not-found":
            raise UnitProblem(unit, "UnitExists", f"Unit {unit} was already loaded or has a fragment file")
        loaded.transient, loaded.load, loaded.path = True, "loaded", f"/run/systemd/transient/{unit}"
        loaded.text = "".join(f"{name}={words(value)}\n" for name, _signature, value in properties)
        loaded.extra = {n: value for n, _signature, value in properties if not n.startswith("Exec")}
        number = self._enqueue("start", loaded)
        self.own.add(number)
        return number

    def reset_failed(self, unit: str) -> None:
        self._called("reset_failed", unit)
        loaded = self.loaded.get(unit)
        if loaded is not None and loaded.active == "failed":
            loaded.active, loaded.sub, loaded.result, loaded.restarts = "inactive", "dead", "success", 0
        self._collect()

    def pending_jobs(self) -> dict[int, str]:
        self._called("pending_jobs")
        return {number: unit for number, (unit, _type) in self.jobs.items()}

    def wait(
        self, jobs: Iterable[int], timeout_sec: float, on_removed: Callable[[JobRemoved], None]
    ) -> set[int]:
        wanted = set(jobs)
        self._called("wait", *(str(job) for job in sorted(wanted)), f"{timeout_sec:g}s")
        if not self._have_ended(wanted):
            self.clock.wait(timeout_sec, lambda: self._have_ended(wanted))
        ended, self._ended = self._ended, []
        for removed in ended:
            if removed.job_id in self.own:
                on_removed(removed)
        self._collect()
        return wanted & self.jobs.keys()

    def _have_ended(self, wanted: set[int]) -> bool:
        for number in list(self.jobs):
            self._run(number)
        return not wanted & self.jobs.keys()

    # Loading and forgetting

    def _called(self, *call: str) -> None:
        self.calls.append(call)
        if call[0] in self.raises:
            raise self.raises[call[0]]

    def _load(self, name: str) -> FakeUnit:
        unit = self.loaded.setdefault(name, FakeUnit(name))
        if unit.load == "not-found":  # PID 1 looks again for what it did not find
            unit.load, unit.path, unit.text = self._find(name)
        return unit

    def _find(self, name: str) -> tuple[str, str, str]:
        """Return load state, path and text as they are on disk."""
        stem, at, rest = name.partition("@")
        files = [name, f"{stem}@.{rest.rpartition('.')[2]}"] if at else [name]
        for file in files:
            for directory in self.search:
                path = join(directory, file)
                content = self.files.files.get(self.files.real(path))
                if self.files.real(path) == "/dev/null" or content == b"":
                    return "masked", path, ""
                if content is not None:
                    text = content.decode()
                    return ("bad-setting" if is_bad(name, text) else "loaded"), path, text
        return ("loaded" if name in BUILT_IN or name.endswith(".slice") else "not-found"), "", ""

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
        number = self._enqueue("reload" if method == "reload_unit" else method, unit)
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
        """Return the names in these directives and in the unit's .wants and .requires directories."""
        names = unit.values(*keys)
        for directory in self.search:
            for key in keys:
                names += self.files.entries(f"{directory}/{unit.name}.{key.lower()}")
        return list(dict.fromkeys(names))

    def _run(self, number: int) -> None:
        name, kind = self.jobs.get(number, ("", ""))
        if not name:
            return
        unit = self.loaded[name]
        if name in self.stuck:
            if kind in ("start", "restart"):
                unit.active, unit.sub = "activating", "start"
            return
        if kind == "stop":
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
            unit.invocation = self.new_invocation()
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
        self.loaded[name].job = (0, "")
        self._ended.append(JobRemoved(number, name, result))

    def new_invocation(self) -> str:
        self._last_run += 1
        return f"{self._last_run:032x}"


def fake_host(
    files: FakeFiles | None = None,
    manager: FakeManager | None = None,
    journal: FakeJournal | None = None,
    processes: FakeProcesses | None = None,
) -> Host:
    """Return a fake host, system scope and persistent mode; hold on to the parts you want to question."""
    if manager is None:
        manager = FakeManager(files)
    journal = journal if journal is not None else FakeJournal()
    processes = processes if processes is not None else FakeProcesses()
    paths = Paths(UNIT_DIR, "/var/lib/sysresp", "/var/lib/sysresp/ready.py", SEARCH, "/run/sysresp")
    return Host(manager, manager.files, journal, paths, processes, manager.clock)
