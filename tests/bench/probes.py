"""What health probes cost the controller: CPU time for each try and share of a core, and its memory.

Run: `python tests/bench/probes.py [--rounds N] [--seconds N] [--python PATH]`; no root is needed. The probes
run in a process of their own, as in the daemon (asyncio without ssl), whose whole CPU time is counted, event
loop and kernel included; the servers are another process. Programs are counted without the programs' own
time, which is shown beside it. Asserts nothing: the medians are printed for a person to read.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT))

from sysresp.controller.lean import import_asyncio  # noqa: E402 - the checkout's own

import_asyncio()
import asyncio  # noqa: E402 - after its lean import

from sysresp.controller.probes import Probes  # noqa: E402
from sysresp.units.supervision import Probe  # noqa: E402

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
COUNTS = (200, 500)
KINDS = ("http", "tcp", "unix", "exec", "hung http", "none")
MOST_SHARE = 0.1  # of a core, for the whole controller with 200 services


class _Http(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, _data: bytes) -> None:
        self.transport.write(ANSWER)
        self.transport.close()


async def serve(path: str) -> None:
    """Serve http, something that never answers, and a unix socket; print the ports."""
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(kind, "127.0.0.1", 0) for kind in (_Http, asyncio.Protocol)]
    servers.append(await loop.create_unix_server(asyncio.Protocol, path))
    print(*(server.sockets[0].getsockname()[1] for server in servers[:2]), flush=True)
    await asyncio.Event().wait()


def memory(name: str) -> float:
    """Return a line of smaps_rollup of this process, in MB."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


async def measure(kind: str, count: int, seconds: float, targets: dict[str, str]) -> dict[str, float]:
    """Probe `count` services once a second, and return what that cost."""
    loop = asyncio.get_running_loop()
    probes = Probes(loop, lambda _event: None)
    by = kind.rpartition(" ")[2]
    probe = Probe(by, targets.get(kind, ""), ("/bin/true",), interval_sec=1.0, timeout_sec=1.0)
    for n in range(0 if kind == "none" else count):
        probes.watch(f"bench@{n}.service", "0" * 32, probe, loop.time())
    await asyncio.sleep(1.5)  # until all have begun

    def now() -> tuple[float, float, float, int]:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        tries = sum(state.tries for state in probes.latest().values())
        return time.monotonic(), time.process_time(), children.ru_utime + children.ru_stime, tries

    before = now()
    await asyncio.sleep(seconds)
    wall, cpu, children, tries = (a - b for a, b in zip(now(), before, strict=True))
    states = probes.latest().values()
    pss = memory("Pss")
    probes.close()
    return {
        "share": cpu / wall,
        "us": cpu / tries * 1e6 if tries else 0.0,
        "children_us": children / tries * 1e6 if tries else 0.0,
        "rate": tries / wall,
        "failed": sum(state.failed for state in states),
        "pss": pss,
    }


def row(kind: str, count: int, rounds: list[dict[str, float]]) -> str:
    """Return one line of the table."""
    middle = {name: median(one[name] for one in rounds) for name in rounds[0]}
    out = f"  {kind:<10}{count:>5}{middle['rate']:>9.0f}{middle['us']:>9.0f}{middle['children_us']:>10.0f}"
    out += f"{middle['share'] * 100:>9.1f}{middle['pss']:>8.1f}{middle['failed']:>8.0f}"
    if count == COUNTS[0] and kind != "none":
        word = "met" if middle["share"] <= MOST_SHARE else "MISSED"
        out += f"   at most {MOST_SHARE:.0%} with the whole controller: {word}"
    return out


def main() -> None:
    """Start the servers, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--python", default=sys.executable, help="that the probes run in")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        path = f"{work}/socket"
        words = [sys.executable, __file__, "--serve", path]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            answering, hung = server.stdout.readline().split()
            targets = {
                "http": f"http://127.0.0.1:{answering}/health",
                "hung http": f"http://127.0.0.1:{hung}/health",
                "tcp": f"127.0.0.1:{hung}",
                "unix": path,
            }
            print(f"  {'probe':<10}{'of':>5}{'tries/s':>9}{'us each':>9}{'+ child':>10}", end="")
            print(f"{'% core':>9}{'PSS MB':>8}{'failed':>8}")
            for kind in KINDS:
                for count in COUNTS:
                    work_for = json.dumps([kind, count, args.seconds, targets])
                    found = [
                        json.loads(subprocess.check_output([args.python, __file__, "--measure", work_for]))
                        for _ in range(args.rounds)
                    ]
                    print(row(kind, count, found), flush=True)
            server.terminate()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        asyncio.run(serve(sys.argv[2]))
    elif sys.argv[1:2] == ["--measure"]:
        print(json.dumps(asyncio.run(measure(*json.loads(sys.argv[2])))))
    else:
        main()
