"""What a change of a unit file asks of a unit that runs.

Owns the comparison of two texts of one unit file. Never looks at the unit itself: whether it runs, and
whether it may be restarted, is for the plan to say. Pure.

Rule: the answer follows from `sysresp.units.directives` alone; a directive is never special here, except for
ConfigDigest=, which is ours and means that a file the service reads has changed.
"""

from __future__ import annotations

from enum import StrEnum

from sysresp.units.directives import needs_restart
from sysresp.units.text import OWNER_SECTION, parse

DIGEST = "ConfigDigest"
"""Directive of [X-Sysresp]: the digest of the service's `config_files`."""

_RUNS = frozenset(("Service", "Socket", "Timer", "Path"))  # sections of units that hold on to old settings


class Effect(StrEnum):
    """What is needed for a running unit to follow; each includes the ones above it."""

    NONE = "none"
    REFRESH = "refresh"  # write the file, daemon-reload
    RELOAD = "reload"  # and ReloadUnit
    RESTART = "restart"  # and RestartUnit


def effect(old_text: str, new_text: str) -> Effect:
    """Return what it takes to bring a running unit from the old text to the new one."""
    if old_text == new_text:
        return Effect.NONE
    old, new = _by_directive(old_text), _by_directive(new_text)
    changed = {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)}
    if _RUNS.isdisjoint(section for section, _ in old.keys() | new.keys()):
        return Effect.REFRESH  # a slice or a target: nothing of it runs
    if any(needs_restart(section, name) for section, name in changed):
        return Effect.RESTART
    if (OWNER_SECTION, DIGEST) in changed & new.keys():
        return Effect.RELOAD if ("Service", "ExecReload") in new else Effect.RESTART
    return Effect.REFRESH


def _by_directive(text: str) -> dict[tuple[str, str], list[str]]:
    values: dict[tuple[str, str], list[str]] = {}
    for section, name, value in parse(text):
        values.setdefault((section, name), []).append(value)
    return values
