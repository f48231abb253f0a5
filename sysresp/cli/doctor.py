"""`sysresp doctor`: what is missing or limiting on this host, and how to mend it.

Owns the order: look (`doctor_facts`), decide (`doctor_checks`), print. Changes nothing, works for any user,
and without systemd. Exit status 3 if anything is missing or limits what sysresp can do, as `status` has it
for services that are not well.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from sysresp import __version__
from sysresp.cli import doctor_facts, table, terminal
from sysresp.cli.doctor_checks import Facts, Finding, Level, diagnose, is_well
from sysresp.cli.words import plural
from sysresp.errors import Exit
from sysresp.model import Scope

_COLOURS = {
    Level.OK: terminal.GREEN,
    Level.NOTE: terminal.DIM,
    Level.LIMIT: terminal.YELLOW,
    Level.MISSING: terminal.RED,
}
_WIDTH = max(map(len, Level))


def run(scope: Scope, *, as_json: bool, colour: bool) -> int:
    """Print what was found."""
    facts = doctor_facts.gather(scope, os.environ)
    found = diagnose(facts)
    if as_json:
        print(json.dumps(_object(facts, found), indent=2))
    else:
        on = terminal.has_colour(sys.stdout, wanted=colour)
        print("\n".join(line for finding in found for line in _lines(finding, on)))
        bad = sum(finding.level in {Level.LIMIT, Level.MISSING} for finding in found)
        print(f"{plural(bad, 'finding')} to mend" if bad else "all is well")
    return Exit.OK if is_well(found) else Exit.NOT_WELL


def _lines(finding: Finding, colour: bool) -> list[str]:
    level = terminal.paint(f"{finding.level:<{_WIDTH}}", _COLOURS[finding.level], on=colour)
    pad = " " * (_WIDTH + 2)
    lines = [f"{level}  {table.clean(finding.what)}"]
    if finding.why:
        lines.append(f"{pad}{table.clean(finding.why)}")
    if finding.fix:
        lines.append(f"{pad}fix: {table.clean(finding.fix)}")
    return lines


def _object(facts: Facts, found: list[Finding]) -> Mapping[str, Any]:
    return {
        "version": 1,
        "sysresp": __version__,
        "well": is_well(found),
        "findings": [finding._asdict() for finding in found],
        "facts": {
            **facts._asdict(),
            "python": ".".join(map(str, facts.python)),
            "directories": [one._asdict() for one in facts.directories],
            "controller": facts.controller._asdict(),
        },
    }
