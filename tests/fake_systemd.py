"""A fake service manager that lives on its own, in virtual time: Restart=, start limits, signals, a journal.

`FakeSystemd` acts when time passes on its clock and when somebody listens, not only while somebody waits.
`FakeSignals` and `FakeRecords` are `ports.Signals` and `ports.Records` over it, and can lose, delay and
reorder what they carry. tests/test_contract_signals.py runs one suite on these and on a booted systemd.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from sysresp.ports import JobRemoved, Lost, Record, Seen, Signal
from tests.fake_units import UP, FakeUnit
from tests.fakes import FakeManager

_CLEAN = "success"
_RESTARTS = {  # Restart= -> the results after which it acts, see the table in systemd.service(5)
    "no": frozenset[str](),
    "always": frozenset(("success", "exit-code", "signal", "core-dump", "timeout", "watchdog", "oom-kill")),
    "on-success": frozenset(("success",)),
    "on-failure": frozenset(("exit-code", "signal", "core-dump", "timeout", "watchdog", "oom-kill")),
    "on-abnormal": frozenset(("signal", "core-dump", "timeout", "watchdog", "oom-kill")),
    "on-abort": frozenset(("signal", "core-dump")),
    "on-watchdog": frozenset(("watchdog",)),
}
_UNITS_OF_TIME = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "": 1.0}


def seconds(value: str) -> float:
    """Return the seconds of one span, such as 200ms (systemd.time(7))."""
    digits = value.rstrip("abcdefghijklmnopqrstuvwxyz")
    return float(digits) * _UNITS_OF_TIME[value[len(digits) :]]


class FakeSystemd(FakeManager):
    """Steer it as `FakeManager`; `end_process` and `kill` end a run, and Restart= of the unit's text acts.

    What is said is in `journal`, what is announced goes to every `FakeSignals`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.boot = f"{1:032x}"
        self.journal: list[Record] = []
        self.listeners: list[Callable[[Signal], None]] = []
        self._starts: dict[str, list[float]] = {}  # unit -> times of the starts that count for its limit
        self._waits: dict[str, int] = {}  # unit -> number of the restart that it waits for
        self._last_wait = 0
        self.on_signal = self._announce

    def step(self) -> None:
        """Do what can be done now: every job that can end ends."""
        self._have_ended(set())
        self._ended.clear()
        self._collect()

    def pass_time(self, sec: float) -> None:
        """Let time pass, and systemd act in it."""
        self.step()
        self.clock.wait(sec, lambda: False)
        self.step()

    def reload(self) -> None:
        super().reload()
        if self.systemd <= 254:
            self._starts.clear()  # only since 255 they survive it

    def reset_failed(self, unit: str) -> None:
        self._starts.pop(unit, None)
        if unit in self.loaded:
            self.loaded[unit].restarts = 0
        super().reset_failed(unit)

    def reexecute(self) -> None:
        """Re-execute: nothing of the units changes."""
        self._announce(Lost("systemd re-executed itself"))

    def say(self, kind: str, unit: FakeUnit, **fields: Any) -> None:
        """Write a message into the journal."""
        run = "" if kind == "start-failed" else unit.invocation
        at, now = self.clock.now(), self.clock.monotonic()
        self.journal.append(Record(kind, unit.name, run, at, now, self.boot, **fields))

    def end_process(self, unit: str, result: str = "exit-code", code: int = 1, status: int = 1) -> None:
        loaded = self.loaded[unit]
        loaded.exec_code, loaded.exec_status, loaded.ended = code, status, self.clock.monotonic()
        if result != _CLEAN:
            self.say("exited", loaded, exec_code=code, exec_status=status)
        self._is_down(loaded, result)

    def _announce(self, signal: Signal) -> None:
        for listener in self.listeners:
            listener(signal)

    def _is_down(self, unit: FakeUnit, result: str) -> None:
        """Take a unit whose run has ended to where its Restart= wants it."""
        unit.result = result
        if result == _CLEAN:
            self.say("finished", unit)
        else:
            self.say("failed", unit, result=result)
        down = ("inactive", "dead") if result == _CLEAN else ("failed", "failed")
        if result not in _RESTARTS[(unit.values("Restart") or ["no"])[-1]]:
            unit.active, unit.sub = down
            self.tell(unit)
            return
        unit.active, unit.sub = down[0], f"{down[1]}-before-auto-restart" if self.systemd >= 254 else down[1]
        self.tell(unit)
        unit.active, unit.sub = "activating", "auto-restart"
        self.tell(unit)
        self._last_wait = self._waits[unit.name] = number = self._last_wait + 1
        delay = seconds((unit.values("RestartSec") or ["100ms"])[-1])
        self.say("restart", unit, n_restarts=unit.restarts + 1)
        self.clock.at(self.clock.monotonic() + delay, lambda: self._restart(unit, number))

    def _restart(self, unit: FakeUnit, number: int) -> None:
        if self._waits.get(unit.name) != number or unit.sub != "auto-restart":
            return  # somebody was quicker
        del self._waits[unit.name]
        unit.restarts += 1
        if self.systemd >= 254:
            unit.sub = "auto-restart-queued"
            self.tell(unit)
        self._enqueue("restart", unit)
        self.step()

    def _start(self, number: int, unit: FakeUnit, kind: str) -> None:
        if unit.active == "active" and kind == "restart":
            self.say("stopped", unit, job_type="restart")
        if unit.sub in ("dead", "failed") and not unit.told[1].startswith("auto-restart"):
            unit.restarts = 0  # it rested
        self._waits.pop(unit.name, None)
        if unit.active != "active" or kind == "restart":
            if self._is_limited(unit):
                unit.active, unit.sub = "failed", "failed"
                unit.result = unit.result if unit.result != _CLEAN else "start-limit-hit"
                self.say("failed", unit, result=unit.result)
                return self._end(number, "failed")
            self._starts.setdefault(unit.name, []).append(self.clock.monotonic())
        before = unit.invocation
        if unit.active == "active" and kind == "restart":
            unit.active, unit.sub = "inactive", "dead"
        super()._start(number, unit, kind)
        if unit.active == "active" and unit.invocation != before:
            self.say("started", unit, result="done")
        elif unit.active == "failed" and unit.invocation != before:
            unit.exec_code, unit.exec_status, unit.ended = 1, 1, self.clock.monotonic()
            self._is_down(unit, unit.result)
        return None

    def _end(self, number: int, result: str) -> None:
        unit = self.loaded[self.jobs[number][0]]
        kind = self.jobs[number][1]
        if kind in ("start", "restart") and result not in ("done", "canceled"):
            self.say("start-failed", unit, result=result, job_type=kind.replace("restart", "start"))
        super()._end(number, result)

    def _run(self, number: int) -> None:
        name, kind = self.jobs.get(number, ("", ""))
        if kind == "stop" and self.loaded[name].active in UP and name not in self.stuck:
            unit = self.loaded[name]
            self._waits.pop(name, None)
            if unit.sub == "running":
                unit.exec_code, unit.exec_status, unit.ended = 2, 15, self.clock.monotonic()
                self.say("finished", unit)
            self.say("stopped", unit, job_type="stop")
        super()._run(number)

    def _is_limited(self, unit: FakeUnit) -> bool:
        burst = int((unit.values("StartLimitBurst") or ["5"])[-1])
        interval = seconds((unit.values("StartLimitIntervalSec") or ["10s"])[-1])
        begin = self.clock.monotonic() - interval
        recent = [when for when in self._starts.get(unit.name, []) if when > begin]
        self._starts[unit.name] = recent
        return burst > 0 and interval > 0 and len(recent) >= burst


class FakeSignals:
    """`ports.Signals` of a `FakeSystemd`.

    Steer it: `lost` says of each signal whether it gets lost, `mangle` delays, reorders and doubles what one
    `drain` returns, `break_off` ends the connection, and `refuse` is raised by `open`.
    """

    def __init__(self, systemd: FakeSystemd) -> None:
        self.systemd = systemd
        self.forged = 0
        self.lost: Callable[[Signal], bool] = lambda _signal: False
        self.mangle: Callable[[list[Signal]], list[Signal]] = lambda signals: signals
        self.refuse: BaseException | None = None
        self.opened = 0
        self._is_open = False
        self._units: frozenset[str] = frozenset()
        self._queue: list[Signal] = []
        self._told: dict[str, Seen] = {}
        systemd.listeners.append(self._hear)

    def open(self) -> int:
        self.close()
        if self.refuse is not None:
            raise self.refuse
        self._is_open = True
        self.opened += 1
        return 1000 + self.opened  # no descriptor of anything

    def watch(self, units: Iterable[str]) -> None:
        self._units = frozenset(units)

    def drain(self) -> list[Signal]:
        self.systemd.step()
        signals, self._queue = self._queue, []
        return self.mangle(signals)

    def close(self) -> None:
        self._is_open = False
        self._queue.clear()
        self._told.clear()

    def break_off(self, why: str = "disconnected") -> None:
        """Lose the connection, or what was sent over it."""
        self._hear(Lost(why))
        if why == "disconnected":
            self._is_open = False

    def _hear(self, signal: Signal) -> None:
        if not self._is_open:
            return
        if isinstance(signal, Lost):
            self._told.clear()
        elif signal.unit not in self._units or self.lost(signal):
            return
        elif isinstance(signal, Seen):
            if self._told.get(signal.unit) == signal:
                return
            self._told[signal.unit] = signal
        elif not isinstance(signal, JobRemoved):
            self._told.pop(signal.unit, None)
        self._queue.append(signal)


class FakeRecords:
    """`ports.Records` of a `FakeSystemd`: a cursor is a place in its journal.

    Steer it: `dropped` says of each record whether the rate limit ate it, `vacuum` forgets all so far, and
    `is_readable` whether the journal may be read.
    """

    def __init__(self, systemd: FakeSystemd) -> None:
        self.systemd = systemd
        self.dropped: Callable[[Record], bool] = lambda _record: False
        self.is_readable = True
        self._oldest = 0

    def since(self, cursor: str, units: Iterable[str]) -> tuple[list[Record], str, bool]:
        if not self.is_readable:
            return [], cursor, False
        end = len(self.systemd.journal)
        if not cursor:
            return [], str(end), True
        wanted = frozenset(units)
        found = []
        failed: set[tuple[str, str]] = set()
        for record in self.systemd.journal[max(int(cursor), self._oldest) : end]:
            again = record.kind == "failed" and (record.unit, record.invocation) in failed
            if record.unit in wanted and not again and not self.dropped(record):
                found.append(record)
                if record.kind == "failed":
                    failed.add((record.unit, record.invocation))
        return found, str(end), int(cursor) >= self._oldest

    def vacuum(self) -> None:
        """Forget what was said so far."""
        self._oldest = len(self.systemd.journal)
