"""What `check` says of a good file: when services come back, and what of it the controller does.

Owns the words for the curve of the restart delays and for the keys that need the controller. These are
notes, no warnings: a file that needs the controller is right, and `check --strict` must not refuse it. Pure.
Rule: the numbers are those by which the controller acts and that are in the units (units.supervision).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from sysresp.cli.words import plural
from sysresp.units.desired import Desired
from sysresp.units.supervision import DEFAULT, Supervision, delay, needs_controller, rest

MOST_PAUSES = 3
"""So many are written out, and the last."""


class Curve(NamedTuple):
    """How the restart delays of one unit grow."""

    service: str
    unit: str
    supervision: Supervision

    @property
    def pauses(self) -> tuple[float, ...]:
        """Return the pause before each restart, until it grows no more."""
        return tuple(delay(self.supervision, n) for n in range(1, self.supervision.steps + 2))


def curves(desired: Desired) -> list[Curve]:
    """Return those of all units whose delay grows."""
    found = ((name, desired.supervision.get(name, DEFAULT)) for name in desired.units)
    return [
        Curve(desired.units[name].service, name, supervision)
        for name, supervision in found
        if supervision.max_delay_sec > supervision.delay_sec > 0
    ]


def needed(desired: Desired) -> dict[str, tuple[str, ...]]:
    """Return which keys of each service do nothing without the controller, where there are any."""
    found: dict[str, tuple[str, ...]] = {}
    for name, supervision in desired.supervision.items():
        if keys := needs_controller(supervision):
            found.setdefault(desired.units[name].service, keys)
    return found


def lines(desired: Desired) -> Iterator[str]:
    """Yield what a person is told."""
    by_service: dict[str, list[Curve]] = {}
    for curve in curves(desired):
        by_service.setdefault(curve.service, []).append(curve)
    for service, found in by_service.items():
        yield _line(service, found)
    longest: dict[str, Supervision] = {}
    for name, supervision in desired.supervision.items():
        if supervision.rest_sec:
            longest.setdefault(desired.units[name].service, supervision)
    for service, keys in needed(desired).items():
        yield f"{service}: needs the controller for {', '.join(keys)}{_without(longest.get(service))}"


def _line(service: str, found: Sequence[Curve]) -> str:
    """Return "web: restarts after 200ms, 408ms, 832ms, ... 1min (8 steps), then every 1min; ..."."""
    differ = any(one.supervision.delay_sec != found[0].supervision.delay_sec for one in found)
    curve, supervision = found[0], found[0].supervision
    last = _span(supervision.max_delay_sec)
    first = [_span(pause) for pause in curve.pauses[:-1]]
    dots = "... " if len(first) > MOST_PAUSES else ""
    text = (
        f"{curve.unit if differ else service}: restarts after {', '.join(first[:MOST_PAUSES])}, {dots}{last}"
    )
    text += f" ({plural(supervision.steps, 'step')}), then every {last}"
    if supervision.reset_after_sec:
        text += f"; reset after {_span(supervision.reset_after_sec)} of running"
    text += f"; by {'systemd itself' if supervision.is_native else 'the controller'}"
    return text + ("; its other instances differ by their jitter" if differ else "")


def _without(supervision: Supervision | None) -> str:
    """Say how long systemd itself waits where the controller is to make it less."""
    if supervision is None:
        return ""
    grows = supervision.is_native and supervision.max_delay_sec
    which = "the first restart" if grows else "every restart"
    return f"; without it {which} waits {_span(rest(supervision, 1))}"


def _span(seconds: float) -> str:
    """Return a pause to three digits, such as "408ms", "2.5s" or "1min 20s"."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.3g}ms"
    if seconds < 59.95:
        return f"{seconds:.3g}s"
    whole = round(seconds)
    parts = []
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        count, whole = divmod(whole, size)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2])


def as_objects(desired: Desired) -> list[Mapping[str, object]]:
    """Return what `check --json` says of each unit whose delay grows."""
    return [
        {
            "service": curve.service,
            "unit": curve.unit,
            "by": "systemd" if curve.supervision.is_native else "controller",
            "restarts_after_sec": [round(pause, 6) for pause in curve.pauses],
            "reset_after_sec": curve.supervision.reset_after_sec or None,
        }
        for curve in curves(desired)
    ]
