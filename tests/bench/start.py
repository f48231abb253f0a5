"""How fast the installed command starts: beside systemctl and supervisorctl, on both Debian releases.

Run as root: `python -m tests.bench.start [--rounds N]`. Builds the .deb, installs it in a new root file
system with the distribution's own Python packages, runs the same programs under systemd and supervisord, and
prints the medians of interleaved runs. Asserts nothing: machines differ, so the ratios are what to read.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from statistics import median

from tests.package.conftest import VERSION, booted, build

COUNT = 20
COMMANDS = {
    "systemctl --version": ["systemctl", "--version"],
    "sysresp --version": ["sysresp", "--version"],
    "systemctl list-units 'many-*'": ["systemctl", "list-units", "many-*"],
    "sysresp status": ["sysresp", "status"],
    "supervisorctl status": ["supervisorctl", "-c", "/tmp/supervisord.conf", "status"],
}
# Runs inside, under the distribution's Python: wall and CPU time of each command, in turn.
_MEASURE = """\
import json, resource, subprocess, sys, time
commands, rounds = json.loads(sys.argv[1]), int(sys.argv[2])
found = {name: [] for name in commands}
for number in range(rounds + 1):
    for name, words in commands.items():
        start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(words, stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        if number:  # the first only fills the caches
            found[name].append((time.monotonic() - start, cpu))
print(json.dumps(found))
"""
_PROGRAMS = "".join(f"[program:p{n}]\ncommand=/bin/sleep infinity\n" for n in range(COUNT))
_SUPERVISORD = (
    "[supervisord]\nlogfile=/tmp/supervisord.log\npidfile=/tmp/supervisord.pid\n"
    "[unix_http_server]\nfile=/tmp/supervisor.sock\n"
    "[rpcinterface:supervisor]\n"
    "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n"
    "[supervisorctl]\nserverurl=unix:///tmp/supervisor.sock\n" + _PROGRAMS
)
_SERVICES = 'project = "many"\n' + "".join(
    f'[services.p{n}]\ncommand = ["/bin/sleep", "infinity"]\n' for n in range(COUNT)
)


def measure(suite: str, debs: Path, rounds: int) -> dict[str, tuple[float, float]]:
    """Return the medians of wall and CPU time, in milliseconds."""
    with booted(suite, debs) as machine:
        machine.sh(f"apt-get install -y -q supervisor /debs/sysresp_{VERSION}_all.deb", timeout=600)
        machine.path("/tmp/many.toml").write_text(_SERVICES)
        machine.path("/tmp/supervisord.conf").write_text(_SUPERVISORD)
        machine.sh("supervisord -c /tmp/supervisord.conf && sysresp apply --settle 0 /tmp/many.toml")
        words = ["python3", "-c", _MEASURE, json.dumps(COMMANDS), str(rounds)]
        told = json.loads(machine.run(words, check=True, timeout=600).stdout)
        machine.sh("supervisorctl -c /tmp/supervisord.conf shutdown")
    return {
        name: (1000 * median(wall for wall, _ in runs), 1000 * median(cpu for _, cpu in runs))
        for name, runs in told.items()
    }


def main() -> None:
    """Build, install, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as directory:
        build("deb", Path(directory), "--no-gates")
        for suite in ("bookworm", "trixie"):
            print(f"{suite}: medians of {rounds} runs, {COUNT} services, milliseconds")
            print(f"  {'':<32}{'wall':>8}{'CPU':>8}")
            for name, (wall, cpu) in measure(suite, Path(directory), rounds).items():
                print(f"  {name:<32}{wall:8.0f}{cpu:8.0f}", flush=True)


if __name__ == "__main__":
    main()
