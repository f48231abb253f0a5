"""Each call that the loop makes fails once, before or after it has had its effect: nothing is lost by that.

One story (crashes, a start limit and its cooldown, a dependency that fails, a probe, a change of the roster,
a lost connection) is told again for each of its calls. The driver is as short as `serve.Daemon` is careful:
what a callback raises costs the connection, and it is made again. At the end everything is up, the ledger
has each run that is over, once, and no other, and what is stored is what the controller remembers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from sysresp.controller.events import Health, Member, Roster, UnitMemory, Wait
from sysresp.controller.ledger import Ledger, LedgerTrouble
from sysresp.controller.loop import Loop, Ports
from sysresp.errors import Exit as Status
from sysresp.errors import SysrespError
from sysresp.ports import Lost, Manager, Records, Seen, Signal, Signals, UnitProblem
from sysresp.units.supervision import Probe, Supervision
from tests.fake_systemd import FakeRecords, FakeSignals, FakeSystemd
from tests.test_loop import DIRECTORY, FOREVER, TEXT, Quiet, limit

DB, WEB, JOB = "shop-db.service", "shop-web.service", "shop-job.service"
LATE = "shop-late.service"
UNITS = {
    DB: (Supervision(cooldown_sec=5, attempts=2), limit(2), "1s"),
    WEB: (Supervision(probe=Probe()), f"{FOREVER}\nRequires={DB}\nAfter={DB}", "1s"),
    JOB: (Supervision(max_delay_sec=60, steps=5, is_native=False, rest_sec=60), FOREVER, "60s"),
    LATE: (Supervision(), FOREVER, "1s"),
}
JOBS = ("start", "stop", "restart", "try_restart", "kill", "reset_failed")
READS = ("drain", "many_properties", "open", "pending_jobs", "since", "units", "units_by_name", "version")
COUNTED = {"before": (*READS, *JOBS, "commit"), "after": (*JOBS, "commit"), "refused": JOBS}
PAUSE_SEC = 0.5  # until the connection is made again


class Fault:
    """Raises once: at a call of this number, before or after it is done."""

    def __init__(self, number: int, how: str) -> None:
        self.number = number
        self.after = how != "before"
        self.is_refusal = how == "refused"
        self.names = COUNTED[how]
        self.calls: list[str] = []
        self.is_on = False
        self.is_over = False

    def around(self, name: str, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Make the call, with what is to go wrong with it."""
        if self.is_on and name in self.names:
            self.calls.append(name)
        is_now = self.is_on and len(self.calls) == self.number and not self.is_over
        self.is_over |= is_now
        if is_now and not self.after:
            raise self.error(name, *args)
        found = call(*args, **kwargs)
        if is_now:
            raise self.error(name, *args)
        return found

    def error(self, name: str, *args: Any) -> Exception:
        if name == "commit":
            return LedgerTrouble("the disk is full")
        if self.is_refusal and name in JOBS:
            return UnitProblem(str(args[0]), "Interrupted", "the call was cut short")
        return SysrespError("no answer", exit=Status.UNREACHABLE)


class Faulty:
    """A port whose calls may fail."""

    def __init__(self, port: object, fault: Fault) -> None:
        self._port = port
        self._fault = fault

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._port, name)
        if not callable(found) or name in ("close", "watch", "prune"):  # these never raise
            return found
        return lambda *args, **kwargs: self._fault.around(name, found, *args, **kwargs)


class Brittle(FakeSignals):
    """Signals whose connection may end while they are read: what was in it is lost."""

    def __init__(self, systemd: FakeSystemd, fault: Fault) -> None:
        super().__init__(systemd)
        self._fault = fault

    def drain(self) -> list[Signal]:
        self.systemd.step()
        if not self._queue:
            return super().drain()
        try:
            return cast(list[Signal], self._fault.around("drain", super().drain))
        except SysrespError:
            return [Lost("disconnected")]


class World:
    """One systemd, and a controller on it."""

    def __init__(self, path: Path, fault: Fault) -> None:
        self.fault = fault
        self.systemd = FakeSystemd(systemd=257)  # which is asked for most
        self.runs: set[tuple[str, str]] = set()
        self.systemd.listeners.append(self._began)
        self.roster = Roster({})
        self.path = str(path)
        ledger = Ledger(self.path)
        stored = ledger.open()
        ports = Ports(
            cast(Manager, Faulty(self.systemd, fault)),
            cast(Signals, Brittle(self.systemd, fault)),
            cast(Records, Faulty(FakeRecords(self.systemd), fault)),
            cast(Any, Faulty(ledger, fault)),
            self.systemd.clock,
            Quiet(),
            lambda: self.roster,
            self.systemd.boot,
            lambda _level, _text: None,
        )
        self.loop = Loop(ports, stored)
        self.loop.cursor_rows = 3
        for unit, (care, starts, delay) in UNITS.items():
            text = TEXT.format(delay=delay, limit=starts)
            self.systemd.files.write(f"{DIRECTORY}/{unit}", text.encode())
            if unit != LATE:
                self.add(unit, care)
            self.systemd.start(unit)
        self.systemd.step()
        self.ledger = ledger
        self._again_at = 0.0

    def _began(self, signal: Signal) -> None:
        if isinstance(signal, Seen) and signal.invocation:
            self.runs.add((signal.unit, signal.invocation))

    def add(self, unit: str, care: Supervision) -> None:
        self.roster = Roster({**self.roster.members, unit: Member(unit, "shop", unit, supervision=care)})

    def guarded(self, call: Callable[[], object]) -> None:
        """Do what `serve.Daemon` does with what comes out of a callback."""
        try:
            call()
        except (SysrespError, UnitProblem):
            self.loop.disconnected()
        if not self.loop.is_connected:
            self._again_at = self.systemd.clock.monotonic() + PAUSE_SEC

    def live(self, seconds: float, step: float = 0.5) -> None:
        """Let time pass: systemd acts in it, and the controller is woken for what it waits for."""
        clock = self.systemd.clock
        end = clock.monotonic() + seconds
        while True:
            self.listen()
            now, due = clock.monotonic(), self.loop.wake_at() if self.loop.is_connected else 0.0
            if now >= end:
                return
            self.systemd.pass_time(max(0.0, min(end, due or end, now + step) - now))
            if due and clock.monotonic() >= due:
                self.listen()
                if self.loop.is_connected:
                    self.guarded(self.loop.woken)
            if self.loop.owed.trouble:
                self.loop.flush()

    def listen(self) -> None:
        if self.loop.is_connected:
            self.guarded(self.loop.signals_came)
        elif self.systemd.clock.monotonic() >= self._again_at:
            self.guarded(lambda: self.loop.connect("disconnected"))

    def crash(self, unit: str) -> None:
        if self.active(unit) == "active":
            self.systemd.end_process(unit)

    def active(self, unit: str) -> str:
        return self.systemd.loaded[unit].active if unit in self.systemd.loaded else "unloaded"


def tell(world: World) -> None:
    """Live through the story."""
    systemd, loop = world.systemd, world.loop
    world.fault.is_on = True
    world.listen()
    world.live(1)
    world.crash(WEB)
    world.crash(JOB)
    world.live(3)
    world.add(LATE, UNITS[LATE][0])
    world.guarded(loop.roster_changed)
    world.live(1)
    for _ in range(2):  # too often: it cools down, and is started
        world.crash(DB)
        world.live(2)
    world.crash(LATE)
    world.live(8)
    systemd.stop(DB)  # by hand
    world.live(1)
    systemd.fail[DB] = "canceled"
    systemd.start(WEB)  # cannot, without db
    world.live(1)
    del systemd.fail[DB]
    systemd.start(DB)
    world.live(3)
    known = loop.memory.units.get(WEB, UnitMemory())
    world.guarded(lambda: loop.health_turned(Health(WEB, known.invocation, False, "status 500")))
    world.live(3)
    systemd.reexecute()
    world.live(0.1)
    world.guarded(loop.move_cursor)
    world.crash(JOB)
    world.live(1)
    world.guarded(loop.move_cursor)
    world.fault.is_on = False
    world.live(2)
    world.live(70, step=10)


def check(world: World) -> None:
    """Check that everything is up, told once, stored, and owed to nobody."""
    loop, systemd = world.loop, world.systemd
    assert {unit: world.active(unit) for unit in UNITS} == dict.fromkeys(UNITS, "active")
    up = {(unit, systemd.loaded[unit].invocation) for unit in UNITS}
    world.ledger.close()
    again = Ledger(world.path)
    stored = again.open()
    rows = again._connected().execute("SELECT unit, invocation FROM exit").fetchall()
    again.close()
    assert sorted(rows) == sorted(world.runs - up)
    owed = loop.owed
    assert not any((owed.rows, owed.late, owed.notes, owed.units, owed.meta, owed.trouble))
    assert (owed.cursor, owed.incidents, owed.messages, owed.verdicts) == (None, {}, [], [])
    assert not loop._queue
    assert stored.units == dict(loop.memory.units)
    assert stored.cursor == loop.cursor
    for unit in UNITS:
        known = loop.memory.units[unit]
        assert (known.active, known.is_ended, known.our_job) == ("active", False, ""), unit
        assert (known.wait, known.is_stopped, known.missing) == (Wait.NOTHING, False, 0), unit


def stories(path: Path, how: str) -> Iterator[tuple[int, World]]:
    """Tell the story with each of its calls failing once, and at last with none."""
    number = 1
    while True:
        world = World(path / f"{number}.db", Fault(number, how))
        tell(world)
        yield number, world
        if len(world.fault.calls) < number:
            return
        number += 1


@pytest.mark.parametrize("how", COUNTED)
def test_each_call_fails_once(tmp_path: Path, how: str) -> None:
    for number, world in stories(tmp_path, how):
        failed = world.fault.calls[number - 1] if number <= len(world.fault.calls) else "nothing"
        try:
            check(world)
        except AssertionError as error:
            raise AssertionError(f"{failed} (call {number}) failed: {error}") from error
