"""A crash storm whose services keep the count themselves, the controller in it, and the comparison.

Every run of a service appends its invocation to a file of its own before it crashes (bin/crash): that is the
truth. `Storm` applies the services, lets them crash, calms them, and says in what the ledger differs.
"""

from __future__ import annotations

import json
import random
from typing import Any, NamedTuple

from tests.live.conftest import CHECKOUT, Box
from tests.live.until import until

UNIT = "sysresp.service"
LEDGER = "/var/lib/sysresp-controller/ledger.db"
TRUTH = "/var/tmp/truth"
ENDS = ("0", "1", "3", "75", "255", "KILL", "SEGV", "TERM", "ABRT", "USR1")


class Differences(NamedTuple):
    """In what the ledger is not the truth; all empty or 0 if it is."""

    missing: dict[str, int]  # unit -> runs that ended and have no row
    extra: dict[str, int]  # unit -> rows of no run
    runs: int  # that ended
    by_count: int  # rows of which only the count is known


def is_none(found: Differences) -> bool:
    """Say whether the ledger is the truth."""
    return not found.missing and not found.extra


QUERY = f"""
import json, sqlite3, sys
db = sqlite3.connect("file:{LEDGER}?mode=ro", uri=True, timeout=10)
print(json.dumps(db.execute(sys.argv[1], sys.argv[2:]).fetchall()))
"""


def query(box: Box, statement: str, *values: str) -> list[list[Any]]:
    """Ask the ledger in the box; SQLite would follow /proc/PID/root out of it. [] while there is none."""
    done = box.run(["/usr/bin/python3", "-I", "-c", QUERY, statement, *values])
    return list(json.loads(done.stdout)) if done.returncode == 0 else []


def enable(box: Box, drop_in: str = "") -> None:
    """Install and start the controller of this checkout, with a drop-in for its unit."""
    text = f"[Unit]\nStartLimitIntervalSec=0\n[Service]\n{drop_in}"
    box.write(f"/etc/systemd/system/{UNIT}.d/test.conf", text)
    box.sysresp("controller", "enable", check=True)


def is_up(box: Box) -> bool:
    """Say whether the controller is ready."""
    return box.systemctl("is-active", UNIT, check=False).stdout.strip() == "active"


class Storm:
    """Services that crash all the time, unless it is calm."""

    def __init__(self, box: Box, services: int, delay_sec: tuple[float, float], seed: int) -> None:
        self.box = box
        self.seed = seed
        self.random = random.Random(seed)
        self.each = services // len(ENDS)
        self.truth = box.path(TRUTH)
        self.delay_sec = delay_sec
        self.kills = 0

    def units(self) -> list[str]:
        """Return the units of all services."""
        project = self.box.project
        return [f"{project}-{end.lower()}@{n}.service" for end in ENDS for n in range(1, self.each + 1)]

    def apply(self) -> None:
        """Start the services; they stay up as long as it is calm."""
        box = self.box
        box.run(["mkdir", "-p", TRUTH], check=True)
        self.calm()
        text = f'project = "{box.project}"\n'
        for end in ENDS:
            delay = self.random.uniform(*self.delay_sec)
            name = end.lower()
            file = f"{TRUTH}/{box.project}-{name}@{{instance}}.service"
            text += (
                f"[services.{name}]\n"
                f'command = ["{CHECKOUT}/tests/live/bin/crash", "{file}", "{end}"]\n'
                f"instances = {self.each}\n"
                f'restart = {{ when = "always", delay = "{delay:.3f}s" }}\n'
                "rollout = { parallel = 1000 }\n"
            )
        path = box.write(f"/etc/sysresp/{box.project}.toml", text)
        box.sysresp("apply", path, check=True, timeout=300)

    def calm(self) -> None:
        """Let services that start from now on stay up."""
        (self.truth / "calm").touch()

    def begin(self) -> None:
        """Let all of them crash."""
        (self.truth / "calm").unlink()
        self.box.systemctl("kill", "-s", "KILL", *self.units())

    def runs(self) -> int:
        """Return how many runs there were so far."""
        return sum(path.stat().st_size for path in self.truth.iterdir()) // 33

    def wait_for(self, more: int, deadline_sec: float = 60.0) -> None:
        """Wait until there were so many more runs."""
        goal = self.runs() + more
        until(lambda: self.runs() >= goal, f"{more} more runs", deadline_sec)

    def kill(self) -> None:
        """Kill the controller, wherever it is."""
        self.box.systemctl("kill", "-s", "KILL", UNIT, check=False)
        self.kills += 1

    def settle(self) -> dict[str, list[str]]:
        """Calm it, wait until everything is up and nothing is owed, and return each unit's runs."""
        self.calm()
        units = self.units()

        def is_calm() -> bool:
            found = self.box.systemctl("show", "-p", "SubState,InvocationID", "--value", *units).stdout
            states = [block.split() for block in found.split("\n\n") if block.strip()]
            lines = {unit: self._lines(unit) for unit in units}
            return len(states) == len(units) and all(
                set(state) == {"running", lines[unit][-1]} for unit, state in zip(units, states, strict=True)
            )

        until(is_calm, "all services are up", 60)
        return {unit: self._lines(unit) for unit in units}

    def _lines(self, unit: str) -> list[str]:
        path = self.truth / unit
        return path.read_text().split() if path.exists() else []

    def compared(self, truth: dict[str, list[str]]) -> Differences:
        """Return the differences, once the controller has had the time to write what it knows."""
        try:
            return until(lambda: found if is_none(found := self.differences(truth)) else None, "exact", 10)
        except AssertionError:
            return self.differences(truth)

    def differences(self, truth: dict[str, list[str]]) -> Differences:
        """Compare the ledger with the truth: rows with their invocations, and the others by their number."""
        rows: dict[str, list[str]] = {}
        for unit, invocation in query(self.box, "SELECT unit, invocation FROM exit"):
            rows.setdefault(unit, []).append(invocation)
        missing: dict[str, int] = {}
        extra: dict[str, int] = {}
        by_count = 0
        for unit, runs in truth.items():
            ended = set(runs[:-1])
            have = rows.get(unit, [])
            lost = [one for one in have if one.startswith("lost-")]
            by_count += len(lost)
            unknown = len(ended - set(have)) - len(lost)  # above 0: rows that are missing
            strange = len(set(have) - ended - set(lost))
            if unknown > 0:
                missing[unit] = unknown
            if strange or unknown < 0:
                extra[unit] = strange + max(0, -unknown)
        return Differences(missing, extra, sum(len(runs) - 1 for runs in truth.values()), by_count)

    def dump(self, differences: Differences) -> str:
        """Return what there is to say of the units that differ: rows, in order, by number of the run."""
        found = {**differences.missing, **differences.extra}
        lines = [
            f"seed {self.seed}: of {differences.runs} runs {sum(differences.missing.values())} are missing, "
            f"{sum(differences.extra.values())} rows too many, {len(found)} units"
        ]
        for unit in list(found)[:5]:
            numbers = {run: str(number) for number, run in enumerate(self._lines(unit))}
            rows = query(self.box, "SELECT invocation, source FROM exit WHERE unit = ? ORDER BY id", unit)
            shown = " ".join(f"{numbers.get(run, run)}{source[0]}" for run, source in rows)
            lines.append(f"{unit}, {len(numbers) - 1} runs: {shown}")
        return "\n".join(lines)
