"""The half of the benchmark that runs inside the booted sandbox; prints one JSON object.

Stdlib only: it is run by the distribution's python. Every figure is of a whole command, started and reaped
here, with the kernel's own account of its CPU time; the two sides of a pair take turns in one boot.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

UNIT_DIR = Path("/etc/systemd/system")
BY_HAND = """[Unit]
Description=hand {n}
PartOf=hand.target

[Service]
Type=exec
ExecStart=/usr/bin/sleep infinity
Restart=on-failure
RestartSec=1

[Install]
WantedBy=multi-user.target
"""


def timed(argv: list[str]) -> dict[str, float]:
    """Run a command; wall and CPU seconds, peak memory in bytes."""
    begin = time.perf_counter()
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        complaint = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - begin
    if process.returncode not in (0, 3):
        sys.exit(f"{argv}: exit status {process.returncode}\n{complaint.decode(errors='replace')}")
    return {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "rss": usage.ru_maxrss * 1024}


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


def spec(count: int, changed: str = "") -> str:
    """Return a services.toml of `count` services; `changed` is put into the first one."""
    text = 'project = "bench"\n'
    for n in range(count):
        extra = changed if n == 0 else ""
        text += f'\n[services.s{n}]\ncommand = ["/usr/bin/sleep", "infinity"]\n{extra}'
    return text


def by_hand(count: int, work: Path) -> dict[str, float]:
    """Copy unit files, reload once, start all names: what a careful person would do."""
    files = work / "hand"
    files.mkdir(exist_ok=True)
    names = [f"hand-{n}.service" for n in range(count)]
    for n, name in enumerate(names):
        (files / name).write_text(BY_HAND.format(n=n))
    script = (
        f"cp {files}/*.service {UNIT_DIR}/ && systemctl daemon-reload && systemctl start {' '.join(names)}"
    )
    figures = timed(["/bin/sh", "-c", script])
    if active("hand-*.service") != count:
        sys.exit("by hand: not all units are running")
    quiet("systemctl", "stop", *names)
    for name in names:
        (UNIT_DIR / name).unlink()
    quiet("systemctl", "daemon-reload")
    quiet("systemctl", "reset-failed")
    return figures


def apply(sysresp: list[str], rounds: int, count: int, work: Path) -> dict[str, list[dict[str, float]]]:
    """First apply against by hand; then one with nothing to do, a plan and an apply of one change."""
    figures: dict[str, list[dict[str, float]]] = {
        k: [] for k in ("by_hand", "first", "noop", "plan_one", "one")
    }
    file, other = work / "services.toml", work / "other.toml"
    file.write_text(spec(count))
    other.write_text(spec(count, changed='environment = { A = "1" }\n'))
    for _ in range(rounds + 1):  # the first round warms the caches and is dropped
        figures["by_hand"].append(by_hand(count, work))
        figures["first"].append(timed([*sysresp, "apply", str(file)]))
        if active("bench-*.service") != count:
            sys.exit("apply: not all units are running")
        figures["noop"].append(timed([*sysresp, "apply", str(file)]))
        figures["plan_one"].append(timed([*sysresp, "plan", str(other)]))
        figures["one"].append(timed([*sysresp, "apply", str(other)]))
        quiet(*sysresp, "down", "--project", "bench")
        if active("bench-*.service") or list(UNIT_DIR.glob("bench-*")):
            sys.exit("down: something is left")
    return {name: values[1:] for name, values in figures.items()}


def status(sysresp: list[str], rounds: int, count: int, work: Path) -> dict[str, list[dict[str, float]]]:
    """`sysresp status` against `supervisorctl status` and systemctl, on as many programs."""
    figures: dict[str, list[dict[str, float]]] = {
        k: [] for k in ("supervisorctl", "status", "show", "list_units")
    }
    file = work / "services.toml"
    file.write_text(spec(count))
    quiet(*sysresp, "apply", str(file))
    supervisor = work / "supervisord.conf"
    supervisor.write_text(
        f"[unix_http_server]\nfile={work}/sup.sock\n[supervisord]\nlogfile={work}/sup.log\npidfile={work}/sup.pid\n"
        "[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n"
        f"[supervisorctl]\nserverurl=unix://{work}/sup.sock\n"
        + "".join(f"[program:s{n}]\ncommand=/usr/bin/sleep infinity\nstartsecs=0\n" for n in range(count))
    )
    names = [f"bench-s{n}.service" for n in range(count)]
    properties = (
        "ActiveState,SubState,MainPID,NRestarts,MemoryCurrent,CPUUsageNSec,TasksCurrent,ActiveEnterTimestamp"
    )
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
            figures["show"].append(timed(["systemctl", "show", "-p", properties, *names]))
            figures["list_units"].append(timed(["systemctl", "list-units", "--plain", "bench-*"]))
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
