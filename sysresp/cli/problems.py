"""How problems of the user's file are shown: `path:line: subject: problem`, the line itself, the way out.

Owns their text and JSON form. The first line has the form that editors and readers of `grep -n` jump to.
Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from sysresp.cli import table, terminal
from sysresp.errors import Problem, Severity


def subject(key: str) -> str:
    """Return what a message is about: 'service "web": restart.delay' for "services.web.restart.delay"."""
    found = re.fullmatch(r'services\.("(?:[^"\\]|\\.)*"|[^."]+)(?:\.(.*))?', key, re.DOTALL)
    if found is None:
        return key
    name, rest = found[1], found[2] or ""
    return "service " + (name if name.startswith('"') else f'"{name}"') + ":" + (f" {rest}" if rest else "")


def text(problem: Problem, *, colour: bool = False) -> str:
    """Return a problem as it is printed, without a final newline."""
    is_error = problem.severity is Severity.ERROR
    place = str(problem.origin)
    head = [terminal.paint(f"{place}:", terminal.BOLD, on=colour)] if place else []
    if not is_error:
        head.append(terminal.paint("warning:", terminal.YELLOW, on=colour))
    if about := subject(problem.key):
        head.append(table.clean(about))
    what = "\n".join(table.clean(line) for line in problem.what.splitlines())
    head.append(terminal.paint(what, terminal.RED, on=colour and is_error))
    out = [" ".join(head)]
    if problem.source and problem.origin.line:
        out.append(f"{problem.origin.line:5d} | {table.clean(problem.source.expandtabs(4))}")
    if problem.fix:
        out.append(f"  fix: {table.clean(problem.fix)}")
    return "\n".join(out)


def as_objects(problems: Iterable[Problem]) -> list[dict[str, object]]:
    """Return problems as `check --json` prints them."""
    return [
        {
            "severity": str(problem.severity),
            "path": problem.origin.path or None,
            "line": problem.origin.line or None,
            "key": problem.key or None,
            "what": problem.what,
            "fix": problem.fix or None,
            "source": problem.source or None,
        }
        for problem in problems
    ]


def errors_in(problems: Sequence[Problem], *, strict: bool = False) -> int:
    """Count what stops us: errors, and with `strict` warnings too."""
    return sum(strict or problem.severity is Severity.ERROR for problem in problems)
