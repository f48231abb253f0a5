"""Where in a TOML file each key stands.

tomllib tells no positions, so this runs a private second copy of its parser module whose three rules for
keys and headers are wrapped to note where they began. Owns decoding (UTF-8, byte order mark, line ends) and
the line of a syntax error. Never interprets a value.
Rule: positions are a convenience. If a future Python has no such rules, the file is read by tomllib itself
and every line is 0; nothing else changes.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from collections.abc import Callable, Sequence
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any

from sysresp.errors import Problem
from sysresp.model import Origin
from sysresp.spec.report import Path

MAX_BYTES = 4 << 20
"""A larger file is refused: tomllib needs seconds for each 10 MB, and no real file comes near."""

MAX_DEPTH = 32
"""Deeper tables and arrays are refused: no key nests so, and recursion must not run out of stack."""


class Source:
    """One file: its document, and the line of each key."""

    def __init__(self, path: str, text: str = "") -> None:
        self.path = path
        self.text = text  # with "\n" as its only line end
        self.data: dict[str, Any] = {}
        self.offsets: dict[Path, int] = {}  # key path -> index in `text`
        self._ends: list[int] = []  # index of each newline, made at the first question

    def line(self, offset: int) -> int:
        """Return the number of the line that holds this offset, from 1."""
        if not self._ends:
            self._ends = [found.start() for found in re.finditer("\n", self.text)] or [len(self.text)]
        return bisect_right(self._ends, offset - 1) + 1

    def source(self, line: int) -> str:
        """Return the text of a line, at most 200 characters; "" if there is no such line."""
        if line < 1:
            return ""
        self.line(0)
        begin = self._ends[line - 2] + 1 if 2 <= line <= len(self._ends) + 1 else 0
        end = self.text.find("\n", begin)
        return self.text[begin : end if end >= 0 else len(self.text)][:200] if line == 1 or begin else ""

    def problem(self, line: int, what: str, fix: str = "") -> Problem:
        """Return a problem with the file itself."""
        return Problem(Origin(self.path, line), "", what, fix, source=self.source(line))


def read(path: str, content: bytes) -> tuple[Source, Problem | None]:
    """Read one file; with a problem, the source has no document."""
    source = Source(path)
    if len(content) > MAX_BYTES:
        return source, source.problem(0, f"is larger than {MAX_BYTES >> 20} MiB", "split it, or remove junk")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        begin = content[: error.start]
        source.text = begin.decode("utf-8-sig", "replace").replace("\r\n", "\n")
        line = begin.count(b"\n") + 1
        what = f"is not UTF-8: byte 0x{content[error.start]:02x} at byte {error.start + 1} of the file"
        return source, source.problem(line, what, "save it as UTF-8")
    source.text = text.replace("\r\n", "\n")
    try:
        source.data, source.offsets = _loads(source.text)
    except RecursionError:
        return source, source.problem(0, "is nested too deeply", "use fewer nested tables and arrays")
    except (ValueError, OverflowError) as error:  # TOMLDecodeError is a ValueError; dates overflow
        return source, _syntax(source, str(error))
    if _too_deep(source.data):
        source.data = {}
        return source, source.problem(0, "is nested too deeply", "use fewer nested tables and arrays")
    return source, None


def _syntax(source: Source, message: str) -> Problem:
    """Make a problem of tomllib's message, which holds the place as text."""
    found = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)$", message)
    if not found:
        return source.problem(0, f"cannot be read as TOML: {message}", "correct it")
    line = int(found[1]) if found[1] else source.text.rstrip("\n").count("\n") + 1
    column = f" at column {found[2]}" if found[2] else " at the end of the file"
    what = message[: found.start()]
    return source.problem(
        line, f"cannot be read as TOML: {what[:1].lower()}{what[1:]}{column}", _syntax_fix(what)
    )


def _syntax_fix(what: str) -> str:
    if "overwrite" in what or "declare" in what or "mutate" in what:
        return "a key or table may be there once: remove one, or put the keys under one header"
    if "Invalid value" in what:
        return 'write texts in quotes ("..."), and true and false in lower case'
    if "escape" in what:
        return r"""double the backslash ("\\"), or use single quotes ('...'), which leave it alone"""
    return "correct the syntax (https://toml.io/en/v1.0.0)"


def _too_deep(data: dict[str, Any]) -> bool:
    level: list[Any] = [data]
    for _ in range(MAX_DEPTH):
        deeper: list[Any] = []
        for item in level:
            children = item.values() if isinstance(item, dict) else item
            deeper += [child for child in children if isinstance(child, dict | list)]
        if not deeper:
            return False
        level = deeper
    return True


def _private_copy(name: str) -> ModuleType | None:
    """Return a second copy of a module, so that changing it changes nothing for others."""
    spec = find_spec(name)
    if spec is None or spec.loader is None:
        return None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


Loads = Callable[[str], tuple[dict[str, Any], dict[Path, int]]]


def _with_positions(parser: Any) -> Loads:
    """Wrap the rules of this copy of tomllib._parser (of Python 3.11 to 3.13), or raise AttributeError."""
    offsets: dict[Path, int] = {}
    counts: dict[Path, int] = {}  # array of tables -> how many elements it has by now
    last: list[tuple[str, ...]] = [()]
    pair, keyed = parser.parse_key_value_pair, parser.key_value_rule
    table, array = parser.create_dict_rule, parser.create_list_rule

    def full(header: Sequence[str]) -> Path:
        """Put the index of the current element behind each array of tables."""
        if not counts:
            return tuple(header)
        path: Path = ()
        for key in header:
            path += (key,)
            if path in counts:
                path += (counts[path] - 1,)
        return path

    def parse_key_value_pair(*args: Any) -> Any:
        found = pair(*args)
        last[0] = found[1]  # inline tables come here too, but the outermost key comes last
        return found

    def key_value_rule(src: str, at: int, out: Any, header: tuple[str, ...], parse_float: Any) -> Any:
        end = keyed(src, at, out, header, parse_float)
        base = full(header)
        for length in range(1, len(last[0])):  # a.b.c = 1 makes a and a.b too
            offsets.setdefault(base + last[0][:length], at)
        offsets[base + last[0]] = at
        return end

    def create_dict_rule(src: str, at: int, out: Any) -> Any:
        found = table(src, at, out)
        path = full(found[1])
        for length in range(1, len(path)):  # [a.b.c] makes a and a.b too
            offsets.setdefault(path[:length], at)
        offsets[path] = at
        return found

    def create_list_rule(src: str, at: int, out: Any) -> Any:
        found = array(src, at, out)
        path = (*full(found[1][:-1]), found[1][-1])
        counts[path] = counts.get(path, 0) + 1
        for length in range(1, len(path)):  # [[a.b.c]] makes a and a.b too
            offsets.setdefault(path[:length], at)
        offsets.setdefault(path, at)
        offsets[full(found[1])] = at
        return found

    parser.parse_key_value_pair, parser.key_value_rule = parse_key_value_pair, key_value_rule
    parser.create_dict_rule, parser.create_list_rule = create_dict_rule, create_list_rule

    def loads(text: str) -> tuple[dict[str, Any], dict[Path, int]]:
        offsets.clear()
        counts.clear()
        return parser.loads(text), dict(offsets)

    return loads


def _without_positions(text: str) -> tuple[dict[str, Any], dict[Path, int]]:
    return tomllib.loads(text), {}


def _choose(parser: Any) -> Loads:
    """Return the reader with positions if this Python's parser has the rules and they work as known."""
    try:
        loads = _with_positions(parser)
        if loads("a.b = 1\n[[c]]\n[c.d]\n")[1] == {
            ("a",): 0,
            ("a", "b"): 0,
            ("c",): 8,
            ("c", 0): 8,
            ("c", 0, "d"): 14,
        }:
            return loads
    except (AttributeError, TypeError, LookupError):
        pass
    return _without_positions


_loads = _choose(_private_copy("tomllib._parser"))
