"""What the controller costs: idle, in storms, and how long it is blind; prints figures, asserts nothing.

Run as root: `python tests/bench/controller.py [--root PATH] [--quick] [idle] [storm] [backoff] [latency]
[restart]`. It boots this host's systemd, or that of another root file system, puts a copy of sysresp into
it as a package would (compiled, run by the distribution's Python), and runs itself again in there: PID 1 is
that systemd, and the ledger is where a reader expects it.

CPU is the scheduler's account of the processes themselves (schedstat), not the machine's clock, and PID 1 in
the same seconds is the yardstick. A wake-up is a voluntary context switch. The clock's figures (respawn,
`status`, delays) are medians, and beside them is the same, quiet; "alone" is the same storm with the
controller stopped. A respawn is seen in the unit's cgroup and a row in the ledger by a look each
millisecond, so neither asks PID 1 or the controller anything.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median

CHECKOUT = Path(__file__).resolve().parents[2]
COPY = "/opt/sysresp"  # of the checkout, in the sandbox
PYTHON = "/usr/bin/python3"
UNIT = "sysresp.service"
LEDGER = "/var/lib/sysresp-controller/ledger.db"
WATCHDOG_SEC = 60.0  # of the controller's unit: it says that it is alive three times in that

IDLE = '[services.s]\ncommand = ["/bin/sleep", "infinity"]\ninstances = 100\nrollout = { parallel = 1000 }\n'
WELL = '[services.well]\ncommand = ["/bin/sleep", "infinity"]\n'
WELL += 'restart = { when = "always", delay = "100ms" }\n'
PROGRAM = Path("/run/bench-program")
"""What the 100 run: /bin/false, but not while they are applied, since that waits for their jobs to end."""

CRASH = (
    f'[services.c]\ncommand = ["{PROGRAM}", "infinity"]\ninstances = 100\nrollout = {{ parallel = 1000 }}\n'
)
CRASH += 'restart = { when = "always", delay = "100ms"'
FAST = f"{WELL}{CRASH} }}\n"
GROWING = f'{WELL}{CRASH}, max_delay = "1min", steps = 8 }}\n'
CRASHING = [f"bench-c@{n}.service" for n in range(1, 101)]


def inside(what: Sequence[str], scale: float) -> None:
    """Measure; this half runs in the sandbox."""
    sysresp("controller", "enable")
    print(f"systemd {systemd_version()}, Python {sys.version.split()[0]}, load {os.getloadavg()[0]:.1f}")
    for name in what:
        apply(IDLE if name in ("idle", "restart") else WELL)
        match name:
            case "idle":
                idle(60 * scale)
            case "storm":
                storm("storm, 100 services each 100 ms", FAST, 20 * scale)
            case "backoff":
                storm("storm, growing pauses", GROWING, 20 * scale)
            case "latency":
                latency(int(200 * scale))
            case "restart":
                restart(int(20 * scale))
        sysresp("down", "--project", "bench", check=False)


# What is measured


def idle(seconds: float) -> None:
    """Let 100 services run."""
    time.sleep(8)  # its last rows, and what the apply left for PID 1 to do
    pid = main_pid(UNIT)
    woken, used = over(seconds, lambda: switches(pid), lambda: cpu(pid))
    own = seconds / (WATCHDOG_SEC / 3)
    print(
        f"idle, 100 services, {seconds:.0f} s: {woken:.0f} wake-ups, of which its watchdog is {own:.0f}; "
        f"{used * 1000:.1f} ms CPU; {memory(pid)}"
    )


def storm(title: str, text: str, seconds: float) -> None:
    """Let 100 services crash beside one that is well, with the controller and without it."""
    pid = main_pid(UNIT)
    quiet = median(samples(respawn)), median(samples(status))
    run_program("/bin/sleep")
    apply(text)
    run_program("/bin/false")
    systemctl("kill", "-s", "KILL", *CRASHING)
    for by in ("controller", "alone"):
        if by == "alone":
            systemctl("stop", UNIT)
        time.sleep(10)
        before, begin, delays = last_row(), forks(), list[float]()
        wait = partial(watched, delays)
        used, by_init = over(seconds, lambda: cpu(pid), lambda: cpu(1), wait=wait)
        starts, rows = (forks() - begin) / seconds, (last_row() - before) / seconds
        again, shown = median(samples(respawn)), median(samples(status))
        print(
            f"{title}, {by}: {starts:.0f} starts/s; PID 1 {100 * by_init / seconds:.1f} % of a core; "
            f"respawn {again * 1000:.0f} ms = {again / quiet[0]:.2f} of quiet, "
            f"status {shown * 1000:.0f} ms = {shown / quiet[1]:.2f} of quiet"
        )
        if by == "controller":
            print(
                f"    controller {100 * used / seconds:.1f} % of a core = {used / by_init:.2f} of PID 1; "
                f"{rows:.0f} rows/s, crash to row {spread(delays)}; {memory(pid)}"
            )
    systemctl("start", UNIT)


def latency(count: int) -> None:
    """Kill one service at a time, and see how long its row takes."""
    delays, db, last = [], ledger(), last_row()
    for _ in range(count):
        pid = main_pid("bench-well.service")
        begin = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        while (now := last_row(db)) == last:
            time.sleep(0.001)
        delays.append(time.monotonic() - begin)
        last = now
        until(lambda gone=pid: main_pid("bench-well.service") not in (0, gone))
    print(f"crash to row, one at a time: {spread(delays)}")


def restart(count: int) -> None:
    """Let the controller restart itself, and read how long it says that nobody listened."""
    gaps, whole = [], []
    for _ in range(count):
        before = main_pid(UNIT)
        begin = time.monotonic()
        sysresp("controller", "restart")
        whole.append(time.monotonic() - begin)
        until(lambda old=before: main_pid(UNIT) not in (0, old))
        (text,) = ledger().execute("SELECT text FROM note WHERE kind = 'gap' ORDER BY id DESC").fetchone()
        found = re.search(r"blind for ([\d.]+)", text)
        gaps.append(float(found[1]) if found else 0.0)
    print(f"self-restart, 100 services: blind {spread(gaps)}; the whole command {spread(whole)}")


def respawn() -> float:
    """Return how long a killed healthy service takes to run again, in seconds."""
    pid = main_pid("bench-well.service")
    where = next(
        path
        for top in ("", "systemd", "unified")
        for path in (Path("/sys/fs/cgroup", top, "bench.slice/bench-well.service/cgroup.procs"),)
        if path.exists()
    )

    def is_back() -> bool:
        try:
            return bool(set(map(int, where.read_text().split())) - {pid})
        except OSError:
            return False

    begin = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    until(is_back)
    taken = time.monotonic() - begin
    until(lambda: main_pid("bench-well.service") not in (0, pid))
    return taken


def status() -> float:
    """Return how long `sysresp status` of one service takes, in seconds."""
    begin = time.monotonic()
    sysresp("status", "bench/well", check=False)
    return time.monotonic() - begin


def watched(delays: list[float], seconds: float) -> None:
    """Add, for each crash whose row comes in that time, how long that took by systemd's own stamp."""
    db, last, end = ledger(), last_row(), time.monotonic() + seconds
    while time.monotonic() < end:
        rows = db.execute('SELECT id, "when" FROM exit WHERE id > ? ORDER BY id', (last,)).fetchall()
        now = time.time()
        delays += [now - when for _, when in rows]
        last = rows[-1][0] if rows else last
        time.sleep(0.002)


# How


def cpu(pid: int) -> float:
    """Return the CPU seconds that a process has used; 0 once it is gone."""
    return sum(
        int(task.read_text().split()[0]) / 1e9 for task in Path(f"/proc/{pid}/task").glob("*/schedstat")
    )


def switches(pid: int) -> float:
    """Return how often the threads of a process have gone to sleep and woken up."""
    return sum(
        int(line.split()[1])
        for task in Path(f"/proc/{pid}/task").glob("*/status")
        for line in task.read_text().splitlines()
        if line.startswith("voluntary_ctxt_switches:")
    )


def memory(pid: int) -> str:
    """Return how much memory a process has, also as if no other one ran the same Python."""
    pss = alone = 0
    is_python = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        key, *values = line.split()
        if not key.endswith(":"):
            is_python = any(mark in line for mark in ("/python3", ".cpython-", "/libsqlite3"))
        elif key == "Rss:":
            alone += int(values[0]) if is_python else 0
        elif key == "Pss:":
            pss += int(values[0])
            alone += 0 if is_python else int(values[0])
    return f"PSS {pss / 1024:.1f} MB, as the only Python {alone / 1024:.1f}"


def over(
    seconds: float, *what: Callable[[], float], wait: Callable[[float], object] = time.sleep
) -> list[float]:
    """Return by how much each of these grows in that time."""
    before = [one() for one in what]
    wait(seconds)
    return [one() - was if (now := one()) else now for one, was in zip(what, before, strict=True)]


def samples(one: Callable[[], float], count: int = 9) -> list[float]:
    """Measure it so often."""
    return [one() for _ in range(count)]


def spread(seconds: Sequence[float]) -> str:
    """Word these durations."""
    found = sorted(seconds)
    if not found:
        return "-"
    p99 = found[min(len(found) - 1, int(len(found) * 0.99))]
    return (
        f"median {median(found) * 1000:.0f} ms, p99 {p99 * 1000:.0f}, worst {found[-1] * 1000:.0f} "
        f"(n={len(found)})"
    )


def ledger() -> sqlite3.Connection:
    """Open the ledger for reading."""
    return sqlite3.connect(f"file:{LEDGER}?mode=ro", uri=True, timeout=10)


def last_row(db: sqlite3.Connection | None = None) -> int:
    """Return the number of the last exit in the ledger."""
    return int((db or ledger()).execute("SELECT coalesce(max(id), 0) FROM exit").fetchone()[0])


def forks() -> float:
    """Return the last process number: each start takes one. NRestarts of 100 units takes PID 1 a minute."""
    return int(Path("/proc/sys/kernel/ns_last_pid").read_text())


def run_program(path: str) -> None:
    """Let the services that crash run this from now on."""
    PROGRAM.unlink(missing_ok=True)
    PROGRAM.symlink_to(path)


def main_pid(unit: str) -> int:
    """Return the main process of a unit, 0 if there is none."""
    return int(systemctl("show", "--value", "-p", "MainPID", unit) or 0)


def systemd_version() -> str:
    """Return the number of systemd's version."""
    return systemctl("--version").split()[1]


def systemctl(*words: str) -> str:
    """Run systemctl and return what it prints."""
    done = subprocess.run(["systemctl", *words], stdout=subprocess.PIPE, text=True, check=False)
    return done.stdout.strip()


def sysresp(*words: str, check: bool = True) -> None:
    """Run the copy of sysresp."""
    done = subprocess.run(
        [PYTHON, "-P", "-m", "sysresp", *words], capture_output=True, text=True, check=False
    )
    if check and done.returncode:
        sys.exit(f"sysresp {words}: {done.returncode}\n{done.stdout}{done.stderr}")


def apply(text: str) -> None:
    """Apply a file of services."""
    path = Path("/etc/sysresp/bench.toml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    sysresp("apply", "--settle", "0", "--no-rollback", str(path), check=False)  # some crash: that is it


def until(look: Callable[[], object], deadline_sec: float = 60.0) -> None:
    """Wait until it is so."""
    end = time.monotonic() + deadline_sec
    while not look():
        if time.monotonic() > end:
            sys.exit("what is measured does not happen")
        time.sleep(0.001)


def main() -> None:
    """Boot a sandbox, and measure in it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", default="/", help="a root file system with another systemd")
    parser.add_argument("--quick", action="store_true", help="a quarter of the time")
    parser.add_argument("what", nargs="*", default=["idle", "storm", "backoff", "latency", "restart"])
    asked = parser.parse_args()
    sys.path.insert(0, str(CHECKOUT))
    from sysresp.sandbox.boot import Bind, Sandbox  # noqa: PLC0415 - the checkout's own

    order = json.dumps([asked.what, 0.25 if asked.quick else 1.0])
    binds = [Bind(str(CHECKOUT), "/srv/checkout")]
    with Sandbox(asked.root, binds=binds, env={"PYTHONPATH": COPY}) as sandbox:
        sandbox.run(["mkdir", "-p", COPY], check=True)
        parts = [f"/srv/checkout/{part}" for part in ("sysresp", "templates", "packaging", "tests/bench")]
        sandbox.run(["cp", "-r", *parts, COPY], check=True)
        sandbox.run(["find", COPY, "-name", "__pycache__", "-exec", "rm", "-r", "{}", "+"], check=True)
        sandbox.run([PYTHON, "-m", "compileall", "-q", COPY], check=True)
        sandbox.run(
            [PYTHON, "-u", f"{COPY}/bench/controller.py", "--inside", order], capture=False, timeout=None
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        inside(*json.loads(sys.argv[2]))
    else:
        main()
