"""What people mean by --since: "2h", "14:00", "yesterday", "2025-03-01 14:00", "2025-03-01T14:00:00Z".

Pure: the text and the present in, an instant out. Without a zone a time is local. Rule: what is not
understood is an error that shows what would be.
"""

from __future__ import annotations

import re
import time
from datetime import datetime, timedelta

from sysresp.cli.boundary import usage

_UNITS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_PART = r"(\d+(?:\.\d+)?) *(s|sec|min|m|h|d|w)(?![a-z])"
_SPAN = re.compile(rf"(?:{_PART} *)+")
_CLOCK = re.compile(r"\d{1,2}:\d{2}(:\d{2})?")


def parse(text: str, now: float) -> float:
    """Return the instant in seconds since the epoch; 0 for ""."""
    words = text.strip().lower().removesuffix(" ago")
    if not words:
        return 0.0
    if _SPAN.fullmatch(words):
        return now - sum(float(count) * _UNITS[unit] for count, unit in re.findall(_PART, words))
    today = datetime.fromtimestamp(now).replace(hour=0, minute=0, second=0, microsecond=0)
    days = {"today": today, "yesterday": today - timedelta(days=1)}
    if words in days:
        return days[words].timestamp()
    try:
        if _CLOCK.fullmatch(words):
            clock = [int(part) for part in words.split(":")]
            found = today.replace(hour=clock[0], minute=clock[1], second=clock[2] if clock[2:] else 0)
            return (found if found.timestamp() <= now else found - timedelta(days=1)).timestamp()
        return datetime.fromisoformat(text.strip()).timestamp()
    except (ValueError, OverflowError, OSError):
        shown = time.strftime("%Y-%m-%d %H:%M", time.localtime(now))
        raise usage(
            f'--since: cannot understand "{text}"', f'write "2h", "yesterday", "14:00" or "{shown}"'
        ) from None
