"""Collecting problems: every check gets an `At`, a place in the file, and says there what is wrong.

Owns how a place is written (`services.web.command[2]`), how a value is quoted in a message, and that a
problem is told once even if many services inherit it. Never decides what is wrong.
Rule: nothing in sysresp.spec raises for bad input; it calls `At.error`, gets `BAD` and goes on, so that all
problems of a file are found in one run.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, NamedTuple, Protocol

from sysresp.errors import Problem, Severity
from sysresp.model import Origin

Path = tuple[str | int, ...]
"""Keys and array indexes from the top of the document: ("services", "web", "command", 2)."""


class Bad:
    """The type of `BAD`."""

    def __repr__(self) -> str:
        return "BAD"

    def __bool__(self) -> Literal[False]:
        return False


BAD: Final = Bad()
"""Stands for a value that was refused; whoever sees it says nothing more about it."""


class Place(NamedTuple):
    """Where a path of the document was written: `key` names the table it really comes from."""

    origin: Origin
    key: str
    source: str  # the text of that line


class Locator(Protocol):
    """Finds the place of a path; sysresp.spec.layers has the real one."""

    def place(self, path: Path) -> Place: ...


class Report:
    """The problems found so far."""

    def __init__(self, locator: Locator) -> None:
        self.locator = locator
        self._problems: dict[Problem, None] = {}  # a dict: each problem once, in order

    def add(self, path: Path, what: str, fix: str, severity: Severity) -> None:
        place = self.locator.place(path)
        self._problems[Problem(place.origin, place.key, what, fix, severity, place.source)] = None

    def problems(self) -> tuple[Problem, ...]:
        """Return them by file and line."""
        return tuple(sorted(self._problems))


class At:
    """A place in the document, to be told what is wrong there."""

    __slots__ = ("example", "path", "report")

    def __init__(self, report: Report, path: Path = (), example: tuple[str, str] = ("", "")) -> None:
        self.report = report
        self.path = path
        self.example = example  # key and value, offered where there is no better fix

    def __truediv__(self, key: str | int) -> At:
        return At(self.report, (*self.path, key), self.example)

    def error(self, what: str, fix: str = "") -> Bad:
        """Report an error here, and return BAD."""
        if not fix and self.example[1]:
            fix = "write it as in {} = {}".format(*self.example)
        self.report.add(self.path, what, fix, Severity.ERROR)
        return BAD

    def warn(self, what: str, fix: str = "") -> None:
        """Report something that is allowed but hardly meant."""
        self.report.add(self.path, what, fix, Severity.WARNING)

    def place(self) -> Place:
        return self.report.locator.place(self.path)


def dotted(path: Path) -> str:
    """Write a path as TOML would: `services."my web".command[2]`."""
    out = ""
    for part in path:
        if isinstance(part, int):
            out += f"[{part}]"
        else:
            bare = part.isascii() and part.replace("-", "").replace("_", "").isalnum()
            out += ("." if out else "") + (part if bare else quote(part))
    return out


def quote(text: str) -> str:
    """Return the text in double quotes, on one line, control characters escaped, at most 60 characters."""
    if len(text) > 60:
        text = text[:57] + "..."
    out = []
    for char in text:
        code = ord(char)
        if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8
            out.append(f"\\x{code - 0xDC00:02x}")
        elif char in '"\\':
            out.append("\\" + char)
        elif char.isprintable():
            out.append(char)
        else:
            out.append(f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}")
    return f'"{"".join(out)}"'


def show(value: object) -> str:
    """Describe a TOML value in a message: texts quoted, tables and arrays by their kind."""
    match value:
        case str():
            return quote(value)
        case bool():
            return "true" if value else "false"
        case int() if abs(value) > 10**20:  # printing digits of a huge number takes quadratic time
            return "a huge number"
        case int() | float():
            return str(value)
        case dict():
            return "a table" if value else "an empty table"
        case list():
            return "an array" if value else "an empty array"
    return "a date or time"


def near(word: str, known: Iterable[str]) -> str:
    """Return 'did you mean "x"' for a near match, else ""."""
    from difflib import get_close_matches  # noqa: PLC0415 - only a mistake pays for it

    folded = {name.lower(): name for name in known}
    found = get_close_matches(word.lower()[:100], folded, n=1, cutoff=0.6)
    return f"did you mean {quote(folded[found[0]])}" if found else ""


def either(words: Iterable[str]) -> str:
    """Join with commas and a final "or"."""
    *head, last = words
    return f"{', '.join(head)} or {last}" if head else last
