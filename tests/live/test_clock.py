"""The clock is set by an hour, back and forth: what is measured goes on, and what is shown stays sane.

Owns a box in which every program, PID 1 and journald included, has a wall clock that the test sets
(clock.c); the machine's own is never touched. Rule: no time in here is waited for by the wall clock.
"""

from __future__ import annotations

import json
import struct
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from sysresp.sandbox.boot import Bind
from tests.live.conftest import Box, fresh_box
from tests.live.storms import UNIT, enable, is_up, query
from tests.live.until import until

pytestmark = [pytest.mark.live, pytest.mark.slow]

SOURCE = Path(__file__).with_name("clock.c")
HOUR = 3600
FLAPS = 4
SERVICES = f"""
[controller]
flapping = {FLAPS}
flapping_within = "20s"

[defaults]
command = ["/bin/sleep", "infinity"]

[services.web]
restart = {{ when = "always", delay = "100ms" }}

[services.limited]
restart = {{ when = "always", delay = "100ms", failures = 2, per = "1h" }}

[services.cold]
command = ["/bin/sh", "-c", "echo x >>/run/cold; exit 1"]
restart = {{ when = "on-failure", delay = "100ms", attempts = 2, within = "1min", then = "cooldown 3s" }}

[services.stable]
restart = {{ when = "always", delay = "100ms", max_delay = "2s", steps = 2, reset_after = "2s" }}
"""


class Clock:
    """A booted systemd and its wall clock."""

    def __init__(self, box: Box, file: Path) -> None:
        self.box = box
        self._file = file
        self.offset = 0

    def set(self, offset: int) -> None:
        """Set the clock so far from the machine's."""
        self.offset = offset
        with self._file.open("r+b") as file:
            file.write(struct.pack("q", offset))

    def now(self) -> float:
        return time.time() + self.offset

    def unit(self, name: str) -> str:
        return f"{self.box.project}-{name}.service"

    def crash(self, name: str) -> str:
        """Kill a service, and return the run that ended, once its end is in the ledger, at a sane time."""
        run = self.box.show(self.unit(name), "InvocationID")
        self.box.systemctl("kill", "-s", "KILL", self.unit(name))
        rows = until(
            lambda: query(self.box, 'SELECT "when" FROM exit WHERE invocation = ?', run), f"row {run}"
        )
        assert abs(rows[0][0] - self.now()) < 5
        return run

    def is_back(self, name: str, run: str) -> None:
        """Wait until it runs again."""
        words = ("show", "-p", "SubState,InvocationID", "--value", self.unit(name))

        def look() -> bool:
            found = self.box.systemctl(*words).stdout
            return "running" in found and run not in found

        until(look, f"{name} is back", 5)

    def told(self, *words: str) -> Any:
        """Return what a command says, as JSON."""
        return json.loads(self.box.sysresp(*words, "--json", "--project", self.box.project).stdout)


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the library that is the clock."""
    top = tmp_path_factory.mktemp("clock")
    top.chmod(0o755)
    subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", top / "clock.so", SOURCE], check=True)
    (top / "preload").write_text("/srv/clock/clock.so\n")
    return top


@pytest.fixture(params=["host", pytest.param("trixie", marks=pytest.mark.trixie)])
def clock(request: pytest.FixtureRequest, library: Path) -> Iterator[Clock]:
    file = library / "offset"
    file.write_bytes(struct.pack("q", 0))
    binds = [Bind(str(library), "/srv/clock"), Bind(str(library / "preload"), "/etc/ld.so.preload")]
    with fresh_box(request.param, *binds) as box:
        yield Clock(box, file)


def _at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def test_the_clock_is_set_back_and_forward(clock: Clock) -> None:
    box = clock.box
    enable(box)
    text = f'project = "{box.project}"\n{SERVICES}'
    box.sysresp("apply", "--no-rollback", box.write(f"/etc/sysresp/{box.project}.toml", text))
    tries = box.path("/run/cold")
    began = time.monotonic()
    runs = []

    def crash_and_wait(name: str) -> None:
        run = clock.crash(name)
        if name == "web":
            runs.append(run)
        clock.is_back(name, run)

    # Where the clock is set while something is waited for, nothing is skipped, nothing waits longer.
    crash_and_wait("limited")
    crash_and_wait("stable")
    crash_and_wait("web")
    clock.set(HOUR)
    crash_and_wait("limited")
    crash_and_wait("web")
    clock.set(-HOUR)
    crash_and_wait("web")
    crash_and_wait("web")
    clock.crash("limited")
    until(
        lambda: box.show(clock.unit("limited"), "ActiveState") == "inactive", "three failures in an hour", 5
    )
    box.systemctl("kill", "-s", "KILL", UNIT)
    clock.set(0)
    until(lambda: is_up(box), "the next controller")
    crash_and_wait("web")

    reset = "SELECT text FROM note WHERE unit = ? AND kind = 'reset'"
    until(lambda: query(box, reset, clock.unit("stable")), "it counts as stable", 5)
    until(lambda: len(tries.read_text().split()) >= 4, "the cooldown is over", 6)
    assert len(tries.read_text().split()) <= 2 * (1 + (time.monotonic() - began) / 3)

    # Nothing is missing, nothing is there twice.
    found = query(box, "SELECT invocation FROM exit WHERE unit = ? ORDER BY id", clock.unit("web"))
    assert [run for (run,) in found] == runs

    # Its incident opened before the clock was set for the last time, and ends as if it had not been.
    over = "SELECT at, resolved FROM incident WHERE root = ? AND resolved != 0"
    ((opened, resolved),) = until(lambda: query(box, over, clock.unit("web")), "its incident is over", 10)
    assert 0 <= resolved - opened < 60
    assert abs(clock.now() - resolved) < 60
    (still,) = query(box, "SELECT at FROM incident WHERE root = ? AND resolved = 0", clock.unit("limited"))
    assert 0 <= clock.now() - still[0] < 60

    # What is said is true, of both sides of it.
    report = clock.told("report", "--since", "5min")
    for one in report["services"]:
        lengths = [one["up_sec"], one["down_sec"], one["off_sec"], one["unknown_sec"]]
        assert min(lengths) >= 0
        assert sum(lengths) == pytest.approx(300, abs=1)
        assert one["down_sec"] < 60  # not an hour
    assert any("the clock was set" in remark for remark in report["remarks"])
    for one in clock.told("status"):
        assert -5 < clock.now() - _at(one["since"]) < 60 or one["service"] == "limited"
    (why,) = clock.told("why", "web")["units"]
    assert (why["last_exit"]["invocation"], why["state"]) == (runs[-1], "running")
    assert box.sysresp("events", "--json").stdout.count("the clock was set") == 3
