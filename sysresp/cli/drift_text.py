"""The forms in which drift is shown: text with unified diffs, and JSON.

Pure. In a diff the "-" lines are sysresp's and the "+" lines are on the disk: what somebody did by hand.
Rule: the JSON keys and the kinds are documented in sysresp(1), DRIFT, and only ever added to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from difflib import unified_diff

from sysresp.cli import table, terminal
from sysresp.reconcile.drift import KINDS, Drift

_DIFF_COLOURS = {"+": terminal.GREEN, "-": terminal.RED, "@": terminal.CYAN}


def lines(found: Iterable[Drift], *, colour: bool, fix: bool = True) -> Iterator[str]:
    """Yield what is shown of each: unit, what, where it comes from, the diff, the way out."""
    for drift in found:
        origin = f"  [{drift.origin_path}:{drift.origin_line}]" if drift.origin_line else ""
        name = terminal.paint(table.clean(drift.unit), terminal.YELLOW, on=colour)
        where = f": {table.clean(drift.path)}" if drift.path and drift.path not in drift.what else ""
        yield f"  {name}  {table.clean(drift.what)}{where}{terminal.paint(origin, terminal.DIM, on=colour)}"
        yield from (f"    {line}" for line in _coloured(diff(drift), colour))
        if fix:
            yield f"    fix: {table.clean(drift.fix)}"


def diff(drift: Drift) -> Iterator[str]:
    """Yield a unified diff from sysresp's text to the one on disk; nothing if one of them is not known."""
    if drift.before is not None and drift.after is not None:
        old, new = drift.before.splitlines(), drift.after.splitlines()
        names = (f"{drift.unit} (sysresp)", f"{drift.unit} (on disk)")
        yield from unified_diff(old, new, *names, lineterm="")


def _coloured(found: Iterable[str], colour: bool) -> Iterator[str]:
    for line in found:
        shade = terminal.BOLD if line.startswith(("+++", "---")) else _DIFF_COLOURS.get(line[:1], "")
        yield terminal.paint(table.clean(line), shade, on=colour and bool(shade))


def summary(found: Sequence[Drift]) -> str:
    """Return the kinds with their numbers, such as "2 edited, 1 drop-in"."""
    counts = Counter(drift.kind for drift in found)
    return ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if counts[kind])


def as_objects(found: Iterable[Drift]) -> list[dict[str, object]]:
    """Return drift as `drift --json` and `plan --json` print it."""
    return [
        {
            "kind": drift.kind,
            "unit": drift.unit,
            "service": drift.service or None,
            "what": drift.what,
            "file": drift.path or None,
            "path": drift.origin_path or None,
            "line": drift.origin_line or None,
            "before": drift.before,
            "after": drift.after,
            "fix": drift.fix,
        }
        for drift in found
    ]
