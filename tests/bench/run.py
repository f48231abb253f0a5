"""Benchmarks as ratios to systemd's own tools and to a peer, in one booted sandbox; prints a table.

Run as root: `python tests/bench/run.py [--rounds N] [--count N] [apply] [status]`. Asserts nothing: machines
differ and are noisy, so the medians of paired runs are printed for a person to read.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from statistics import median

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT))

from sysresp.sandbox.boot import Sandbox  # noqa: E402 - the checkout's own

Figures = dict[str, list[dict[str, float]]]
DISTRIBUTION = ["/usr/bin/env", f"PYTHONPATH={CHECKOUT}", "/usr/bin/python3", "-m", "sysresp"]
VENV = ["/usr/bin/env", f"PYTHONPATH={CHECKOUT}", sys.executable, "-m", "sysresp"]


def row(figures: Figures, name: str, base: str, unit: str) -> str:
    """Return one line: median of a figure and of its ratio to a base, pair by pair."""
    values = [f[unit] for f in figures[name]]
    ratio = (
        ""
        if name == base
        else f"{median(v / b[unit] for v, b in zip(values, figures[base], strict=True)):6.2f}x"
    )
    return f"  {name:<14} {unit:<5} {1000 * median(values):9.1f} ms  {min(values) * 1000:9.1f} min  {ratio}"


def main() -> None:
    """Boot, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("what", nargs="*", default=["apply", "status"])
    args = parser.parse_args()
    with Sandbox() as box:
        for what in args.what:
            count = args.count or {"apply": 200, "status": 20}[what]
            for label, command in (("venv", VENV), ("distribution's packages", DISTRIBUTION)):
                measure = str(Path(__file__).with_name("measure.py"))
                done = box.run(
                    ["/usr/bin/python3", measure, what, str(args.rounds), str(count), *command], timeout=1800
                )
                if done.returncode:
                    sys.exit(done.stderr)
                figures: Figures = json.loads(done.stdout)
                print(f"{what}, {count} services, {args.rounds} rounds, systemd {box.version}, {label}")
                base = {"apply": "by_hand", "status": "supervisorctl"}[what]
                for name, values in figures.items():
                    if values:
                        print(row(figures, name, base, "wall"))
                        print(row(figures, name, base, "cpu"))
                print(f"  peak memory    {max(f['rss'] for v in figures.values() for f in v) / 1e6:9.1f} MB")


if __name__ == "__main__":
    main()
