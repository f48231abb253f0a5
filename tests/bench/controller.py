"""What the controller costs: idle, beside probes, and in crash storms; prints tables, asserts nothing.

Run as root: `python tests/bench/controller.py [--quick] [idle] [storm] [backoff] [latency]`. Runs on this
host's systemd with the distribution's Python packages. CPU is read from /proc, so it is the processes' own
and not the machine's; the yardstick beside it is PID 1 in the same seconds. Figures of the machine's clock
(respawn, `status`) are ratios to the same, quiet.
"""

from __future__ import annotations

import argparse
import os
import re
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT))

from sysresp.sandbox.boot import Sandbox  # noqa: E402 - the checkout's own

UNIT = "sysresp.service"
LEDGER = "/var/lib/sysresp-controller/ledger.db"
SYSRESP = ["/usr/bin/env", f"PYTHONPATH={CHECKOUT}", "/usr/bin/python3", "-m", "sysresp"]
TICKS = os.sysconf("SC_CLK_TCK")
IDLE = '[services.s]\ncommand = ["/bin/sleep", "infinity"]\ninstances = 100\n'
HEALTHY = (
    '[services.well]\ncommand = ["/bin/sleep", "infinity"]\nrestart = { when = "always", delay = "100ms" }\n'
)
CRASH = '[services.c]\ncommand = ["/bin/false"]\ninstances = 100\nrollout = { parallel = 1000 }\nrestart = '
FAST = '{ when = "always", delay = "100ms" }\n'
GROWING = '{ when = "always", delay = "100ms", max_delay = "1min", steps = 8 }\n'


class Bench:
    """A booted systemd with the controller in it."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        sandbox.run([*SYSRESP, "controller", "enable"], check=True)

    def show(self, unit: str, name: str) -> str:
        return self.sandbox.run(
            ["systemctl", "show", "--value", "-p", name, unit], check=True
        ).stdout.strip()

    def pid(self, unit: str = UNIT) -> int:
        """Return the main process of a unit, as this host numbers it."""
        inside = int(self.show(unit, "MainPID"))
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                found = re.search(r"^NSpid:\s+(\d+)(?:\s+\d+)*\s+(\d+)$", status.read_text(), re.MULTILINE)
            except OSError:
                continue
            if found and int(found[2]) == inside and self._is_here(int(found[1])):
                return int(found[1])
        raise LookupError(unit)

    def _is_here(self, pid: int) -> bool:
        namespaces = [Path(f"/proc/{one}/ns/pid").readlink() for one in (pid, self.sandbox.pid)]
        return namespaces[0] == namespaces[1]

    def apply(self, text: str) -> None:
        path = self.sandbox.path("/etc/sysresp/bench.toml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        self.sandbox.run(
            [*SYSRESP, "apply", "--settle", "0", "--no-rollback", "/etc/sysresp/bench.toml"], timeout=300
        )

    def down(self) -> None:
        self.sandbox.run([*SYSRESP, "down", "--project", "bench"], timeout=300)


def cpu(pid: int) -> float:
    """Return the CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def switches(pid: int) -> int:
    """Return how often a process has gone to sleep and woken up."""
    return int(
        re.search(r"^voluntary_ctxt_switches:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.M)[1]
    )  # type: ignore[index]


def pss_mb(pid: int) -> float:
    """Return the proportional set size of a process."""
    return int(re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)[1]) / 1024  # type: ignore[index]


def over(seconds: float, *what: Callable[[], float]) -> list[float]:
    """Return by how much each of these grows in that time."""
    before = [one() for one in what]
    time.sleep(seconds)  # a benchmark measures time: there is nothing to wait for
    return [one() - was for one, was in zip(what, before, strict=True)]


def idle(bench: Bench, seconds: float) -> None:
    bench.apply(IDLE)
    pid = bench.pid()
    over(5, lambda: 0)
    woken, used = over(seconds, lambda: switches(pid), lambda: cpu(pid))
    print(
        f"idle, 100 services: {woken:.0f} wake-ups and {used * 1000:.0f} ms CPU in {seconds:.0f}s; "
        f"PSS {pss_mb(pid):.1f} MB"
    )
    bench.down()


def respawn(bench: Bench) -> float:
    """Return how long a killed healthy service takes to run again, in seconds."""
    unit = "bench-well.service"
    before = bench.show(unit, "InvocationID")
    begin = time.monotonic()
    bench.sandbox.run(["systemctl", "kill", "-s", "KILL", unit], check=True)
    while bench.show(unit, "InvocationID") == before or bench.show(unit, "ActiveState") != "active":
        time.sleep(0.005)
    return time.monotonic() - begin


def status(bench: Bench) -> float:
    """Return how long `sysresp status` of one service takes, in seconds."""
    begin = time.monotonic()
    bench.sandbox.run([*SYSRESP, "status", "well"])
    return time.monotonic() - begin


def storm(bench: Bench, title: str, restart: str, seconds: float) -> None:
    bench.apply(HEALTHY)
    quiet = median(respawn(bench) for _ in range(5)), median(status(bench) for _ in range(5))
    pid, init = bench.pid(), bench.sandbox.pid
    bench.apply(HEALTHY + CRASH + restart)
    over(10, lambda: 0)
    used, by_init = over(seconds, lambda: cpu(pid), lambda: cpu(init))
    busy = median(respawn(bench) for _ in range(5)), median(status(bench) for _ in range(5))
    print(
        f"{title}: controller {100 * used / seconds:.1f} % of a core, "
        f"PID 1 {100 * by_init / seconds:.1f} %, ratio {used / by_init if by_init else 0:.2f}; "
        f"PSS {pss_mb(pid):.1f} MB; "
        f"respawn x{busy[0] / quiet[0]:.2f}, status x{busy[1] / quiet[1]:.2f} of quiet"
    )
    bench.down()


def latency(bench: Bench, count: int) -> None:
    """From the crash, by systemd's own stamp, to the row that a reader can see."""
    bench.apply(HEALTHY.replace("[services.well]", "[services.c]\ninstances = 20"))
    delays: list[float] = []
    db = sqlite3.connect(f"file:{bench.sandbox.path(LEDGER)}?mode=ro", uri=True)
    last = db.execute("SELECT max(id) FROM exit").fetchone()[0] or 0
    while len(delays) < count:
        bench.sandbox.run(
            ["systemctl", "kill", "-s", "KILL", f"bench-c@{len(delays) % 20 + 1}.service"], check=True
        )
        while not (rows := db.execute('SELECT id, "when" FROM exit WHERE id > ?', (last,)).fetchall()):
            time.sleep(0.001)
        now = time.time()
        delays += [now - when for _, when in rows]
        last = rows[-1][0]
    delays.sort()
    print(
        f"crash to row, {len(delays)} crashes: median {median(delays) * 1000:.0f} ms, "
        f"p99 {delays[int(len(delays) * 0.99) - 1] * 1000:.0f} ms, worst {delays[-1] * 1000:.0f} ms"
    )
    bench.down()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="a few seconds each")
    parser.add_argument("what", nargs="*", default=["idle", "storm", "backoff", "latency"])
    asked = parser.parse_args()
    with Sandbox() as sandbox:
        print(f"systemd {sandbox.version}")
        bench = Bench(sandbox)
        for name in asked.what:
            match name:
                case "idle":
                    idle(bench, 10 if asked.quick else 60)
                case "storm":
                    storm(bench, "storm, 100 services every 100 ms", FAST, 5 if asked.quick else 20)
                case "backoff":
                    storm(bench, "storm, growing pauses", GROWING, 5 if asked.quick else 20)
                case "latency":
                    latency(bench, 50 if asked.quick else 300)


if __name__ == "__main__":
    main()
