"""The half of the benchmark that runs inside the booted sandbox; prints one JSON object.

Stdlib only: it is run by the distribution's python. Every figure is of a whole command, started and reaped
here, with the kernel's own account of its CPU time and that of PID 1 meanwhile; the two sides of a pair take
turns in one boot.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

Figures = dict[str, list[dict[str, float]]]

UNIT_DIR = Path("/etc/systemd/system")
BY_HAND = """[Unit]
Description=hand {n}
PartOf=hand.target

[Service]
Type=exec
ExecStart=/usr/bin/sleep infinity
Restart=on-failure
RestartSec=1
{extra}
[Install]
WantedBy=multi-user.target
"""
SHOWN = "MainPID,NRestarts,MemoryCurrent,CPUUsageNSec,TasksCurrent,ActiveEnterTimestamp,ActiveState,SubState"
"""What `sysresp status` asks of a running service."""

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_of_manager() -> float:
    """Return the CPU seconds that PID 1 has used."""
    fields = Path("/proc/1/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def loads() -> str:
    """Return when PID 1 last read its unit files anew; a daemon-reload changes it."""
    words = ["systemctl", "show", "--property=UnitsLoadTimestampMonotonic"]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def timed(argv: list[str]) -> dict[str, float]:
    """Run a command; wall, its CPU and PID 1's in seconds, peak memory in bytes."""
    manager = cpu_of_manager()
    begin = time.perf_counter()
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        complaint = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - begin
    if process.returncode not in (0, 3):
        sys.exit(f"{argv[:8]}: exit status {process.returncode}\n{complaint.decode(errors='replace')}")
    return {
        "wall": wall,
        "cpu": usage.ru_utime + usage.ru_stime,
        "pid1": cpu_of_manager() - manager,
        "rss": usage.ru_maxrss * 1024,
    }


def shell(script: str) -> dict[str, float]:
    """Run a shell script, as `timed`."""
    return timed(["/bin/sh", "-e", "-c", script])


def quiet(*argv: str) -> None:
    """Run a command that is not measured."""
    subprocess.run(argv, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def active(pattern: str) -> int:
    """Count the running units of a pattern."""
    listed = subprocess.run(
        ["systemctl", "list-units", "--no-legend", "--plain", "--state=active", pattern],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    return len(listed.stdout.splitlines())


def spec(count: int, changed: str = "", in_slice: int = 0) -> str:
    """Return a services.toml of `count` services, so many in one slice; `changed` is put into the first."""
    text = 'project = "bench"\n'
    for n in range(count):
        extra = changed if n == 0 else ""
        if in_slice:
            extra += f'systemd.Service.Slice = "bench-{n // in_slice}.slice"\n'
        text += f'\n[services.s{n}]\ncommand = ["/usr/bin/sleep", "infinity"]\n{extra}'
    return text


def by_hand(count: int, work: Path, figures: Figures) -> None:
    """Copy unit files, reload once, start all names: what a careful person would do; then change one."""
    files = work / "hand"
    files.mkdir(exist_ok=True)
    names = [f"hand-{n}.service" for n in range(count)]
    for n, name in enumerate(names):
        (files / name).write_text(BY_HAND.format(n=n, extra=""))
    reload = "systemctl daemon-reload"
    start = shell(f"cp {files}/*.service {UNIT_DIR}/; {reload}; systemctl start {' '.join(names)}")
    figures["by hand"].append(start)
    if active("hand-*.service") != count:
        sys.exit("by hand: not all units are running")
    other = work / names[0]
    other.write_text(BY_HAND.format(n=0, extra="Environment=A=1\n"))
    figures["one by hand"].append(shell(f"cp {other} {UNIT_DIR}/; {reload}; systemctl restart {names[0]}"))
    quiet("systemctl", "stop", *names)
    for name in names:
        (UNIT_DIR / name).unlink()
    quiet("systemctl", "daemon-reload")
    quiet("systemctl", "reset-failed")


def down(sysresp: list[str]) -> None:
    """Take the project away again."""
    quiet(*sysresp, "down", "--project", "bench")
    if active("bench-*.service") or list(UNIT_DIR.glob("bench-*")):
        sys.exit("down: something is left")


def apply(sysresp: list[str], rounds: int, count: int, work: Path) -> Figures:
    """First apply against by hand; then with nothing to do, one change, the way back, and status."""
    names = [
        "by hand",
        "one by hand",
        "first",
        "sliced",
        "noop",
        "plan",
        "one",
        "rollback",
        "show",
        "status",
    ]
    figures: Figures = {name: [] for name in names}
    file, other, sliced = work / "services.toml", work / "other.toml", work / "sliced.toml"
    file.write_text(spec(count))
    sliced.write_text(spec(count, in_slice=32))
    other.write_text(spec(count, changed='environment = { A = "1" }\n'))
    show = ["systemctl", "show", "-p", SHOWN, *(f"bench-s{n}.service" for n in range(count))]
    for _ in range(rounds + 1):  # the first round warms the caches and is dropped
        by_hand(count, work, figures)
        for name, one in (("sliced", sliced), ("first", file)):
            if name == "first":
                down(sysresp)
            figures[name].append(timed([*sysresp, "apply", "--settle", "0", str(one)]))
            if active("bench-*.service") != count:
                sys.exit("apply: not all units are running")
        before = loads()
        figures["noop"].append(timed([*sysresp, "apply", str(file)]))
        figures["noop"][-1]["reloads"] = before != loads()
        figures["plan"].append(timed([*sysresp, "plan", str(other)]))
        quiet(*show)  # the first one makes PID 1 look up whether each unit is enabled: seconds
        figures["show"].append(timed(show))
        figures["status"].append(timed([*sysresp, "status"]))
        figures["one"].append(timed([*sysresp, "apply", "--settle", "0", str(other)]))
        if before == loads():
            sys.exit("a daemon-reload cannot be seen")
        figures["rollback"].append(timed([*sysresp, "rollback", "--settle", "0"]))
        down(sysresp)
    return {name: values[1:] for name, values in figures.items()}


def status(sysresp: list[str], rounds: int, count: int, work: Path) -> Figures:
    """`sysresp status` against `supervisorctl status` and systemctl, on as many programs."""
    figures: Figures = {k: [] for k in ("supervisorctl", "status", "show", "list-units")}
    file = work / "services.toml"
    file.write_text(spec(count))
    quiet(*sysresp, "apply", "--settle", "0", str(file))
    supervisor = work / "supervisord.conf"
    supervisor.write_text(
        f"[unix_http_server]\nfile={work}/sup.sock\n[supervisord]\nlogfile={work}/sup.log\npidfile={work}/sup.pid\n"
        "[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n"
        f"[supervisorctl]\nserverurl=unix://{work}/sup.sock\n"
        + "".join(f"[program:s{n}]\ncommand=/usr/bin/sleep infinity\nstartsecs=0\n" for n in range(count))
    )
    names = [f"bench-s{n}.service" for n in range(count)]
    has_supervisor = shutil.which("supervisord") is not None
    peer = None
    if has_supervisor:
        peer = subprocess.Popen(
            ["supervisord", "--nodaemon", "-c", str(supervisor)], stdout=subprocess.PIPE, text=True
        )
        assert peer.stdout is not None
        for line in peer.stdout:  # until it says that the last program runs
            if f"'s{count - 1}'" in line or f"s{count - 1} entered RUNNING" in line:
                break
    try:
        for _ in range(rounds + 1):  # the first round warms the caches and is dropped
            if has_supervisor:
                figures["supervisorctl"].append(timed(["supervisorctl", "-c", str(supervisor), "status"]))
            figures["status"].append(timed([*sysresp, "status"]))
            figures["show"].append(timed(["systemctl", "show", "-p", SHOWN, *names]))
            figures["list-units"].append(timed(["systemctl", "list-units", "--plain", "bench-*"]))
    finally:
        if peer is not None:
            peer.terminate()
            peer.communicate()
        quiet(*sysresp, "down", "--project", "bench")
    return {name: values[1:] for name, values in figures.items()}


def main() -> None:
    """Arguments: apply|status ROUNDS COUNT SYSRESP-COMMAND..."""
    what, rounds, count, *sysresp = sys.argv[1:]
    work = Path("/run/bench")
    work.mkdir(exist_ok=True)
    measure = {"apply": apply, "status": status}[what]
    json.dump(measure(sysresp, int(rounds), int(count), work), sys.stdout)


if __name__ == "__main__":
    main()
