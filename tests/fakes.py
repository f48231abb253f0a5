"""A service manager in memory that tests can steer, and the whole fake host around it.

It behaves as systemd 252 does wherever sysresp can see it: a unit is loaded when somebody names it, keeps
the text it was loaded with until a reload, is forgotten when it is inactive, and its jobs end only while
somebody waits. tests/test_contract.py runs one suite on this and on a booted systemd, so it cannot drift.
The rule: what the real one refuses, this refuses; what it does not know, this does not invent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase

from sysresp.ports import Host, JobRemoved, Paths, Question, UnitProblem, UnitState
from tests.fake_clock import FakeClock
from tests.fake_files import FakeFiles, FakeJournal, FakeProcesses
from tests.fake_jobs import SEARCH, UNIT_DIR, FakeJobs
from tests.fake_units import (
    UP,
    FakeUnit,
    find,
    is_valid,
    properties,
    row,
    sub_state,
    words,
)

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

MANAGER_CHANGES = (
    *("reload", "start", "stop", "restart", "reload_unit", "try_restart"),
    *("start_transient", "kill", "reset_failed"),
)


class FakeManager(FakeJobs):
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

    def rest(self) -> None: ...

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
            loaded,
            interface,
            on_disk=find(self.files, self.search, loaded.name),
            skipped=loaded.name in self.skip,
        )
        self._collect()
        return {name: known[name] for name in names if name in known}

    def many_properties(self, questions: Sequence[Question]) -> list[dict[str, object]]:
        return [self.properties(*question) for question in questions]

    def reload(self) -> None:
        self._called("reload")
        for unit in self.loaded.values():
            if not unit.transient:
                unit.load, unit.path, unit.text = find(self.files, self.search, unit.name)
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

    def try_restart(self, unit: str) -> int:
        return self._job("try_restart", unit)

    def kill(self, unit: str, signal: int) -> None:
        self._called("kill", unit, str(signal))
        loaded = self.loaded.get(unit)
        if loaded is None:
            raise UnitProblem(unit, "NoSuchUnit", f"Unit {unit} not loaded")
        if loaded.active in UP and loaded.sub not in ("auto-restart", "exited"):
            self.end_process(unit, "success" if signal in (1, 2, 13, 15) else "signal", 2, signal)

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
            self.tell(loaded)
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
