"""Durations and amounts: values with a unit.

Owns systemd's syntax of time spans (systemd.time(7)), sizes and percentages (systemd.resource-control(5)).
Rule: what is accepted here is what systemd accepts, less what nobody means; a unit that systemd would take
for another one is refused rather than guessed.
"""

from __future__ import annotations

import re
from math import inf, isnan
from typing import Any

from sysresp.spec.report import At, show
from sysresp.spec.types import Schema, Type

# systemd.time(7), "Parsing time spans"
_UNITS: dict[str, float] = {
    **dict.fromkeys(("usec", "us", "µs", "μs"), 1e-6),
    **dict.fromkeys(("msec", "ms"), 1e-3),
    **dict.fromkeys(("seconds", "second", "sec", "s", ""), 1.0),
    **dict.fromkeys(("minutes", "minute", "min", "m"), 60.0),
    **dict.fromkeys(("hours", "hour", "hr", "h"), 3600.0),
    **dict.fromkeys(("days", "day", "d"), 86400.0),
    **dict.fromkeys(("weeks", "week", "w"), 604800.0),
    **dict.fromkeys(("months", "month", "M"), 2629800.0),
    **dict.fromkeys(("years", "year", "y"), 31557600.0),
}
_UNIT = "|".join(sorted(filter(None, _UNITS), key=len, reverse=True))
_SPAN = re.compile(rf"[ \t]*([0-9]+(?:\.[0-9]+)?)[ \t]*({_UNIT}|)")
_SPAN_PATTERN = rf"[ \t]*(?:[0-9]+(?:\.[0-9]+)?[ \t]*(?:{_UNIT}|)[ \t]*)+|infinity"
LONGEST_SEC = 100 * 31557600.0


class Duration(Type):
    """A time span of systemd.time(7), or a number of seconds."""

    def __init__(self, *, low: float = 0.0, infinity: bool = False) -> None:
        self.low = low
        self.infinity = infinity
        self.text = "a duration" + (' or "infinity"' if infinity else "")

    def parse(self, value: object, at: At) -> Any:
        seconds: float | None = None
        if isinstance(value, str):
            seconds = span(value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            seconds = min(value, 1e18) + 0.0
        if seconds is None or isnan(seconds) or seconds < 0:
            return self.wrong(value, at, 'write a number with a unit, such as "5s" or "1min 30s"')
        if seconds == inf and self.infinity:
            return seconds
        if seconds > LONGEST_SEC:
            fix = 'write "infinity" for no limit' if self.infinity else "write a shorter one"
            return at.error(f"must be a duration of at most 100 years, got {show(value)}", fix)
        if seconds < self.low:
            fix = 'write "infinity" for no limit' if self.infinity else "write a longer one"
            return at.error(f"must be at least {self.low:g} seconds, got {show(value)}", fix)
        return seconds

    def schema(self) -> Schema:
        pattern = _SPAN_PATTERN if self.infinity else _SPAN_PATTERN.removesuffix("|infinity")
        return {
            "anyOf": [{"type": "string", "pattern": f"^(?:{pattern})$"}, {"type": "number", "minimum": 0}]
        }


def span(text: str) -> float | None:
    """Return the seconds of a time span such as "1min 30s"; None if it is none."""
    if text == "infinity":
        return inf
    seconds, at = 0.0, 0
    text = text.rstrip(" \t")
    while found := _SPAN.match(text, at):
        if len(found[1]) > 30:
            return 1e18
        seconds += float(found[1]) * _UNITS[found[2]]
        at = found.end()
    return seconds if at == len(text) and at else None


_SIZE = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,20})?)[ \t]*([BKMGTPE]?)\Z")
_PERCENT = re.compile(r"([0-9]{1,7}(?:\.[0-9]{1,2})?)%\Z")
_FACTOR = {"": 1, "B": 1, **{unit: 1024**n for n, unit in enumerate("KMGTPE", 1)}}


class Amount(Type):
    """A limit: a size or a count, a percentage, or "infinity"; becomes the text that systemd takes."""

    def __init__(
        self,
        text: str,
        *,
        size: bool = False,
        count: bool = False,
        percent: float = 0.0,
        infinity: bool = True,
        pair: bool = False,
        low: int = 0,
        example: str = "",
    ) -> None:
        self.text = text
        self.size, self.count, self.percent = size, count, percent
        self.infinity, self.pair, self.low = infinity, pair, low
        self.fix = f"write {example}"

    def parse(self, value: object, at: At) -> Any:
        found = self._amount(value)
        if found is None and self.pair and isinstance(value, str) and value.count(":") == 1:
            soft, hard = (self._amount(part) for part in value.split(":"))
            if soft is not None and hard is not None:
                if hard != "infinity" and (soft == "infinity" or int(soft) > int(hard)):
                    return at.error(f"has a soft limit above its hard limit: {show(value)}", "swap the two")
                return f"{soft}:{hard}"
        return self.wrong(value, at, self.fix) if found is None else found

    def _amount(self, value: object) -> str | None:
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value) if (self.size or self.count) and self.low <= value < 1 << 63 else None
        if not isinstance(value, str):
            return None
        if value == "infinity":
            return value if self.infinity else None
        if self.percent and (found := _PERCENT.match(value)):
            return value if 0 < float(found[1]) <= self.percent else None
        if self.size and (found := _SIZE.match(value)):
            amount = (
                int(float(found[1]) * _FACTOR[found[2]])
                if "." in found[1]
                else int(found[1]) * _FACTOR[found[2]]
            )
            return str(amount) if self.low <= amount < 1 << 63 else None
        if self.count and value.isascii() and value.isdigit() and len(value) < 19 and int(value) >= self.low:
            return str(int(value))
        return None

    def schema(self) -> Schema:
        plain = [
            *([r"[0-9]+(?:\.[0-9]+)?[ \t]*[BKMGTPE]?"] if self.size else []),
            *(["[0-9]+"] if self.count and not self.size else []),
            *(["infinity"] if self.infinity else []),
        ]
        one = "|".join(plain)
        patterns = [*plain, *([r"[0-9]+(?:\.[0-9]+)?%"] if self.percent else [])]
        patterns += [f"(?:{one}):(?:{one})"] if self.pair else []
        text: Schema = {"type": "string", "pattern": f"^(?:{'|'.join(patterns)})$"}
        if not (self.size or self.count):
            return text
        return {"anyOf": [text, {"type": "integer", "minimum": self.low}]}
