"""What `sysresp logs -f` costs and loses beside `journalctl -f -o json` of the same units; asserts nothing.

Run as root: `python tests/bench/logs.py [--services N] [--rate LINES] [--seconds S]`. In one booted sandbox,
services print numbered lines, RATE a second in all, while both follow them at once, each into a file. CPU is
that of each with its children (wait4(2)), the ratio is the figure to look at: at most 1.5, and no line lost.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT))

from sysresp.sandbox.boot import Sandbox  # noqa: E402 - the checkout's own

SYSRESP = ["/usr/bin/python3", "-m", "sysresp"]
WRITER = """
import sys, time
each, seconds = int(sys.argv[2]), int(sys.argv[3])
while not __import__("os").path.exists("/run/go"):
    time.sleep(0.05)
number, begin = 0, time.monotonic()
while number < each * seconds:
    due = min(each * seconds, int((time.monotonic() - begin) * each) + 1)
    sys.stdout.write("".join(f"line {n} of {sys.argv[1]}, as long as lines are: GET /index.html 200\\n"
                             for n in range(number, due)))
    sys.stdout.flush()
    number = due
    time.sleep(0.1)
time.sleep(1000)
"""
# Starts all followers, lets the writers go, and ends when the followers' files have every last line.
FOLLOW = """
import json, os, signal, subprocess, sys, time
from collections import Counter
commands, services, last, limit = json.load(sys.stdin)
children = []
for name, words in commands.items():
    out = open(f"/tmp/out-{name}", "wb")
    children.append((name, subprocess.Popen(words, stdout=out), time.monotonic()))
time.sleep(3)
open("/run/go", "w").close()
end = time.monotonic() + limit
sizes, still = {}, Counter()
while min(still[name] for name in commands) < 4 and time.monotonic() < end:
    time.sleep(0.5)
    for name in commands:
        size = os.stat(f"/tmp/out-{name}").st_size
        still[name] = still[name] + 1 if size == sizes.get(name) and size > services * last else 0
        sizes[name] = size
found = {}
for name, child, since in children:
    child.send_signal(signal.SIGINT)
    _, status, used = os.wait4(child.pid, 0)
    found[name] = {"cpu": used.ru_utime + used.ru_stime, "status": status, "rss": used.ru_maxrss}
json.dump(found, sys.stdout)
"""


def main() -> None:
    """Run it, and print one line for each follower."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--services", type=int, default=50)
    parser.add_argument("--rate", type=int, default=10_000)
    parser.add_argument("--seconds", type=int, default=10)
    options = parser.parse_args()
    each = options.rate // options.services
    with Sandbox(env={"PYTHONPATH": str(CHECKOUT)}) as sandbox:
        sandbox.path("/run/writer.py").write_text(WRITER)
        text = 'project = "bench"\n' + "".join(
            f'[services.s{n}]\ncommand = ["/usr/bin/python3", "-SE", "/run/writer.py", "s{n}", "{each}", '
            f'"{options.seconds}"]\n'
            for n in range(options.services)
        )
        path = sandbox.path("/run/bench.toml")
        path.write_text(text)
        sandbox.run([*SYSRESP, "apply", "--settle", "0", "/run/bench.toml"], check=True, timeout=300)
        units = [word for n in range(options.services) for word in ("-u", f"bench-s{n}.service")]
        commands = {
            "journalctl": ["journalctl", "-f", "-o", "json", "-n", "0", *units],
            "sysresp": [*SYSRESP, "logs", "-f", "-n", "0"],
            "sysresp-json": [*SYSRESP, "logs", "-f", "-n", "0", "--json"],
        }
        order = json.dumps([commands, options.services, each * options.seconds, options.seconds * 6 + 60])
        done = sandbox.run(["/usr/bin/python3", "-c", FOLLOW], check=True, timeout=600, input=order)
        found = json.loads(done.stdout)
        base = found["journalctl"]["cpu"]
        total = each * options.seconds * options.services
        print(f"{options.services} services, {options.rate} lines/s in all, {total} lines")
        for name, figures in found.items():
            lines = sandbox.path(f"/tmp/out-{name}").read_bytes().splitlines()
            seen = Counter(
                line.partition(b"line ")[2].partition(b",")[0] for line in lines if b"line " in line
            )
            lost = total - len(seen)
            print(
                f"  {name:<13} cpu {figures['cpu']:6.2f}s  {figures['cpu'] / base:5.2f}x  "
                f"lost {lost}  twice {sum(count > 1 for count in seen.values())}  "
                f"rss {figures['rss'] // 1024} MiB  status {figures['status']}"
            )


if __name__ == "__main__":
    main()
