"""Benchmarks as ratios to systemd's own tools and to a peer, in one booted sandbox; prints tables.

Run as root: `python tests/bench/run.py [--rounds N] [--count N] [apply] [status]`. `apply` is of 1,000
services, for which the targets beside it are meant, `status` is of 20 programs and needs supervisord.
Asserts nothing: machines differ and are noisy, so the medians of paired runs are printed for a person to
read. Where the machine is shared, the CPU time of PID 1 ("pid1") says more than the clock on the wall.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT))

from sysresp.sandbox.boot import Sandbox  # noqa: E402 - the checkout's own

Figures = dict[str, list[dict[str, float]]]
DISTRIBUTION = ["/usr/bin/env", f"PYTHONPATH={CHECKOUT}", "/usr/bin/python3", "-m", "sysresp"]
VENV = ["/usr/bin/env", f"PYTHONPATH={CHECKOUT}", sys.executable, "-m", "sysresp"]
COUNTS = {"apply": 1000, "status": 20}


class Row(NamedTuple):
    """One line of the table: a command, what it is compared with, and what it should be at most."""

    title: str
    name: str
    base: str = ""
    ratio: float = 0.0  # at most this of the base; 0: no target
    seconds: float = 0.0  # at most so long


ROWS = {
    "apply": (
        Row("first apply", "first", "by hand", ratio=0.6),
        Row("... in slices of 32", "sliced", "by hand", ratio=0.6),
        Row("apply, nothing to do", "noop", seconds=0.8),
        Row("plan of one changed", "plan", seconds=0.8),
        Row("apply of one changed", "one", "one by hand"),
        Row("rollback of it", "rollback", "one by hand"),
        Row("status", "status", "show", ratio=0.3),
    ),
    "status": (
        Row("status", "status", "supervisorctl"),
        Row("systemctl show", "show", "supervisorctl"),
        Row("systemctl list-units", "list-units", "supervisorctl"),
    ),
}
MOST_MEMORY_MB = 120
KINDS = ("wall", "cpu", "pid1")


def middle(values: Sequence[dict[str, float]], kind: str) -> float:
    return median(value[kind] for value in values)


def ratio(figures: Figures, row: Row, kind: str) -> float | None:
    """Return the median of the ratios, pair by pair; None where the base used no time at all."""
    pairs = zip(figures[row.name], figures[row.base], strict=True)
    found = [one[kind] / other[kind] for one, other in pairs if other[kind]]
    return median(found) if found else None


def line(figures: Figures, row: Row) -> str:
    """Return what was measured, the ratio to the base, and the target with a word on it."""
    out = f"  {row.title:<22}"
    for kind in KINDS:
        share = ratio(figures, row, kind) if figures.get(row.base) else None
        out += f"{middle(figures[row.name], kind):8.2f}" + (
            "       " if share is None else f" {share:5.2f}x"
        )
    if row.ratio and figures.get(row.base):
        share = ratio(figures, row, "wall")
        out += verdict(share is not None and share <= row.ratio, f"{row.ratio:.1f}x of {row.base}")
    elif row.seconds:
        out += verdict(middle(figures[row.name], "wall") <= row.seconds, f"{row.seconds:.1f} s")
    elif figures.get(row.base):
        out += f"   beside {row.base}"
    return out


def verdict(is_met: bool, target: str) -> str:
    return f"   at most {target}: {'met' if is_met else 'MISSED'}"


def table(what: str, figures: Figures) -> str:
    """Return the lines of one table."""
    lines = [f"  {'seconds, x of base':<22}" + "".join(f"{kind:>8}       " for kind in KINDS)]
    lines += [line(figures, row) for row in ROWS[what]]
    bases = dict.fromkeys(row.base for row in ROWS[what] if figures.get(row.base))
    lines += [line(figures, Row(f"({base})", base)) for base in bases]
    if what == "apply":
        peaks = {row.name: max(v["rss"] for v in figures[row.name]) / 1e6 for row in ROWS[what]}
        listed = ", ".join(f"{name} {size:.0f}" for name, size in peaks.items())
        is_met = max(peaks.values()) <= MOST_MEMORY_MB
        lines.append(f"  peak memory, MB: {listed}{verdict(is_met, str(MOST_MEMORY_MB))}")
        reloads = sum(value["reloads"] for value in figures["noop"])
        lines.append(f"  reloads with nothing to do: {reloads:.0f}{verdict(not reloads, '0')}")
    return "\n".join(lines)


def main() -> None:
    """Boot, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--count", type=int, default=0, help="services; default: 1000 for apply, 20 for status"
    )
    parser.add_argument("what", nargs="*", default=["apply"], help="apply, status (default: apply)")
    args = parser.parse_args()
    with Sandbox() as box:
        for what in args.what:
            count = args.count or COUNTS[what]
            for label, command in (("venv", VENV), ("distribution's packages", DISTRIBUTION)):
                measure = str(Path(__file__).with_name("measure.py"))
                words = ["/usr/bin/python3", measure, what, str(args.rounds), str(count), *command]
                done = box.run(words, timeout=3600)
                if done.returncode:
                    sys.exit(done.stderr)
                print(f"{what}, {count} services, {args.rounds} rounds, systemd {box.version}, {label}")
                print(table(what, json.loads(done.stdout)), flush=True)


if __name__ == "__main__":
    main()
