"""One suite for what systemd announces and remembers: `Signals`, `Records` and the reading of `Seen`.

On the fakes always; tests/live/test_signals_live.py runs this very file inside a booted systemd, as
tests/test_contract.py is run.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sysresp.controller.observe import seen
from sysresp.ports import (
    Gone,
    JobRemoved,
    Lost,
    Manager,
    Record,
    Records,
    Seen,
    Signal,
    Signals,
    UnitProblem,
)
from sysresp.systemd.manager import SystemManager
from sysresp.systemd.records import SystemRecords
from sysresp.systemd.signals import SystemSignals
from tests.fake_systemd import FakeRecords, FakeSignals, FakeSystemd

UNIT_DIR = "/run/systemd/system"
USER = os.environ.get("SYSRESP_CONTRACT") == "user"
A, B = "cs-a.service", "cs-b.service"
RUNS = "[Service]\nType=exec\nExecStart=/bin/sleep 1000\n"
RESTARTS = RUNS + "Restart=on-failure\nRestartSec=100ms\n"
FAILS = "[Service]\nType=exec\nExecStart=/nowhere\n"


class World:
    """The ports under test; on the fakes, time passes while we wait."""

    def __init__(self, manager: Manager, signals: Signals, records: Records, directory: str) -> None:
        self.manager = manager
        self.signals = signals
        self.records = records
        self.directory = directory
        self.told: list[Signal] = []
        self.descriptor = signals.open()
        signals.watch([A, B])
        self.cursor = records.since("", [])[1]

    def unit(self, name: str, text: str = RUNS) -> str:
        if isinstance(self.manager, FakeSystemd):
            self.manager.files.write(f"{self.directory}/{name}", text.encode())
            if "/nowhere" in text:
                self.manager.fail[name] = "failed"
        else:
            Path(self.directory, name).write_text(text)
        return name

    def until(self, condition: Callable[[list[Signal]], bool]) -> list[Signal]:
        """Listen until that is true of what was told since the last call, and return it."""
        told: list[Signal] = []
        deadline = time.monotonic() + 20
        while not condition(told):
            assert time.monotonic() < deadline, told
            if isinstance(self.manager, FakeSystemd):
                self.manager.pass_time(0.05)
            else:
                poll = select.poll()
                poll.register(self.descriptor, select.POLLIN)
                assert poll.poll(20_000), told
            told += self.signals.drain()
        self.told += told
        return told

    def states(self, told: list[Signal]) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        for signal in told:
            if isinstance(signal, Seen) and found[-1:] != [(signal.active, signal.sub)]:
                found.append((signal.active, signal.sub))
        return found

    def said(self, *units: str) -> list[Record]:
        records, self.cursor, is_whole = self.records.since(self.cursor, units)
        assert is_whole
        return records


def last(told: list[Signal], unit: str = A) -> Seen:
    return [signal for signal in told if isinstance(signal, Seen) and signal.unit == unit][-1]


def is_up(unit: str = A, after: str = "") -> Callable[[list[Signal]], bool]:
    """Say that the unit runs, in another run than that, and has no job."""
    return lambda told: any(
        isinstance(x, Seen) and (x.unit, x.sub, x.job) == (unit, "running", 0) and x.invocation != after
        for x in told
    )


def has(signal: Signal) -> Callable[[list[Signal]], bool]:
    return lambda told: signal in told


@pytest.fixture(params=["real"] if os.environ.get("SYSRESP_CONTRACT") else ["fake252", "fake257"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param != "real":
        fake = FakeSystemd(systemd=int(request.param.removeprefix("fake")))
        yield World(fake, FakeSignals(fake), FakeRecords(fake), UNIT_DIR)
        return
    directory = f"{os.environ['XDG_RUNTIME_DIR']}/systemd/user" if USER else UNIT_DIR
    Path(directory).mkdir(parents=True, exist_ok=True)
    real = SystemManager(user=USER)
    found = World(real, SystemSignals(user=USER), SystemRecords(user=USER), directory)
    yield found
    assert found.signals.forged == 0
    found.signals.close()
    real.watch_jobs()
    real.wait([real.stop(row.name) for row in real.units(["cs-*"])], 20, lambda _removed: None)
    for path in Path(directory).glob("cs-*"):
        path.unlink()
    real.reload()
    for row in real.units(["cs-*"]):
        real.reset_failed(row.name)
    real.close()


def test_start_and_stop(world: World) -> None:
    job = world.manager.start(world.unit(A))
    told = world.until(is_up())
    assert JobRemoved(job, A, "done") in told
    up = last(told)
    assert (up.active, up.result, up.n_restarts, up.exec_code, up.load) == (
        "active",
        "success",
        0,
        0,
        "loaded",
    )
    assert len(up.invocation) == 32
    assert up.main_pid > 0
    assert up.ended == 0
    assert seen(world.manager, [A]) == [up]
    job = world.manager.stop(A)
    told = world.until(has(Gone(A)))
    assert JobRemoved(job, A, "done") in told
    down = last(told)
    assert (down.active, down.sub, down.invocation, down.result) == (
        "inactive",
        "dead",
        up.invocation,
        "success",
    )
    assert (down.exec_code, down.exec_status, down.main_pid, down.job) == (2, 15, 0, 0)
    assert down.ended >= down.started == up.started
    assert seen(world.manager, [A]) == [Seen(A)]
    kinds = [(record.kind, record.invocation) for record in world.said(A)]
    # A user's manager says the second one only to those who debug (unit_log_success in src/core/unit.c).
    told_kinds = ["started", "stopped"] if USER else ["started", "finished", "stopped"]
    assert kinds == [(kind, up.invocation) for kind in told_kinds]
    assert world.said(A) == []


def test_what_is_not_watched_is_not_told(world: World) -> None:
    world.signals.watch([B])
    world.manager.start(world.unit(A))
    world.manager.start(world.unit(B))
    told = world.until(is_up(B))
    assert {signal.unit for signal in told if not isinstance(signal, Lost)} == {B}
    assert {record.unit for record in world.said(B)} == {B}


def test_a_crash_and_its_restart(world: World) -> None:
    world.manager.start(world.unit(A, RESTARTS))
    first = last(world.until(is_up()))
    world.manager.kill(A, 9)
    told = world.until(is_up(after=first.invocation))
    down = [x for x in told if isinstance(x, Seen) and x.invocation == first.invocation]
    assert ("activating", "auto-restart", first.invocation, "signal") in [x[1:5] for x in down]
    assert (down[-1].exec_code, down[-1].exec_status, down[-1].started) == (2, 9, first.started)
    is_new = world.manager.version() >= 254
    failed = "failed-before-auto-restart" if is_new else "failed"
    assert [s for s in world.states(told) if s[0] == "failed"] == [("failed", failed)]
    again = last(told)
    assert (again.n_restarts, again.exec_code, again.ended, again.result) == (1, 0, 0.0, "success")
    assert seen(world.manager, [A]) == [again]
    records = [r for r in world.said(A) if r.kind != "stopped"]  # 252 says that it stops what has failed
    assert [(r.kind, r.invocation == first.invocation) for r in records] == [
        ("started", True),
        ("exited", True),
        ("failed", True),
        ("restart", True),
        ("started", False),
    ]
    assert (records[1].exec_code, records[1].exec_status, records[2].result) == (2, 9, "signal")
    assert records[3].n_restarts == 1


def test_the_wait_for_a_restart_cut_short(world: World) -> None:
    world.manager.start(world.unit(A, RESTARTS.replace("100ms", "1000s")))
    first = last(world.until(is_up()))
    world.manager.kill(A, 9)
    world.until(lambda told: ("activating", "auto-restart") in world.states(told))
    world.manager.try_restart(A)
    again = last(world.until(is_up(after=first.invocation)))
    assert again.n_restarts == 0


def test_nothing_to_restart_or_kill(world: World) -> None:
    job = world.manager.try_restart(world.unit(A))
    assert world.until(has(JobRemoved(job, A, "done")))
    assert seen(world.manager, [A])[0].active == "inactive"
    with pytest.raises(UnitProblem) as caught:
        world.manager.kill(B, 9)
    assert caught.value.code == "NoSuchUnit"


def test_a_start_that_fails_and_what_needed_it(world: World) -> None:
    world.unit(A, FAILS)
    world.unit(B, f"[Unit]\nRequires={A}\nAfter={A}\n" + RUNS)
    job = world.manager.start(B)
    told = world.until(has(Gone(B)))
    assert JobRemoved(job, B, "dependency") in told
    assert [x.result for x in told if isinstance(x, JobRemoved) and x.unit == A] == ["failed"]
    failed = last(told)
    assert (failed.active, failed.sub, failed.result, failed.exec_code) == (
        "failed",
        "failed",
        "exit-code",
        1,
    )
    assert seen(world.manager, [A, B]) == [failed._replace(job=0), Seen(B)]
    records = world.said(A, B)
    assert ("start-failed", B, "", "dependency") in [
        (r.kind, r.unit, r.invocation, r.result) for r in records
    ]
    assert [r.invocation for r in records if r.kind == "failed"] == [failed.invocation]


def test_the_start_limit(world: World) -> None:
    text = RESTARTS.replace("[Service]", "[Unit]\nStartLimitBurst=2\nStartLimitIntervalSec=100s\n[Service]")
    world.manager.start(world.unit(A, text))
    first = last(world.until(is_up()))
    world.manager.kill(A, 9)
    second = last(world.until(is_up(after=first.invocation)))
    world.manager.kill(A, 9)
    told = world.until(lambda told: any(x[2:3] == ("failed",) and x[5:7] == (0, 2) for x in told))
    final = last(told)
    assert (final.invocation, final.result, final.exec_status) == (second.invocation, "signal", 9)
    failed = [record.invocation for record in world.said(A) if record.kind == "failed"]
    assert failed == [first.invocation, second.invocation]  # each once
    world.manager.reset_failed(A)
    assert last(world.until(has(Gone(A)))).active == "inactive"


def test_a_daemon_reload_takes_nothing_away(world: World) -> None:
    world.manager.start(world.unit(A, RESTARTS))
    first = last(world.until(is_up()))
    world.manager.reload()
    world.manager.kill(A, 9)
    told = world.until(is_up(after=first.invocation))
    assert not [x for x in told if isinstance(x, Gone)]


def test_how_units_are(world: World) -> None:
    world.unit(A)
    found = seen(world.manager, [A, "cs-none.service", "no name", A])
    assert found == [
        Seen(A),
        Seen("cs-none.service", load="not-found"),
        Seen("no name", load="not-found"),
        Seen(A),
    ]
    assert seen(world.manager, []) == []
