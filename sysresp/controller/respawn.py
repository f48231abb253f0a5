"""When the controller is to be replaced by a fresh copy of itself. Pure.

Owns the reasons, in order of weight, and the words for them. The controller never replaces itself by exec or
by a child: it asks PID 1 to restart its unit, which every supervisor's user knows how to read afterwards.
Never asks and never measures: `Vitals` are brought by the loop. The rule: a reason holds only against what
was there when this process began, so that its successor, which begins with what is there now, has none.
"""

from __future__ import annotations

from typing import NamedTuple

from sysresp.units.supervision import Settings

QUIET_SEC = 2.0
"""An upgrade writes many files: the code counts as changed when nothing has moved for so long."""

SPREAD = 0.1
"""Up to this share of `max_age` is added: hosts that were set up together do not restart together."""


class Vitals(NamedTuple):
    """What the loop knows of its own process."""

    started: float  # CLOCK_MONOTONIC seconds
    spread: float  # from 0 to 1, drawn once
    code: str  # fingerprint of the code when it began
    unit: str  # ... of its own unit, as systemd has loaded it
    rss: int = 0  # bytes; 0: not measured
    code_now: str = ""  # "": not looked at
    unit_now: str = ""
    asked: str = ""  # why somebody wants it, "" if nobody does


def reason(vitals: Vitals, settings: Settings, now: float) -> str:
    """Return why the controller should restart itself, "" if it should not."""
    if vitals.asked:
        return vitals.asked
    if vitals.code_now and vitals.code_now != vitals.code:
        return "its code on disk has changed"
    if vitals.unit_now and vitals.unit_now != vitals.unit:
        return "its unit has changed"
    if settings.max_memory and vitals.rss > settings.max_memory:
        return f"it uses {vitals.rss} bytes of memory, more than max_memory = {settings.max_memory}"
    if settings.max_age_sec and now >= due(vitals, settings):
        return f"it has run for longer than max_age = {settings.max_age_sec:g}s"
    return ""


def due(vitals: Vitals, settings: Settings) -> float:
    """Return the instant at which it is too old; 0 if that never comes."""
    if not settings.max_age_sec:
        return 0.0
    return vitals.started + settings.max_age_sec * (1 + SPREAD * vitals.spread)
