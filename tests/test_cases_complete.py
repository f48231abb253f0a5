"""Holds the files of tests/cases to account: is everything that a user can write or be told in some case?

Every key, every word that a key takes, and every place in the source that makes a problem must be reached by
some case. Rule: a new key or a new message needs a file in tests/cases before it is let in.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import FrameType

import pytest

import sysresp
from sysresp.spec.keys import SERVICE_TABLE, TOP
from sysresp.spec.types import Choice, Converted, Enum, ListOf, MapOf, Table, Type
from tests.casefile import CASES, EXAMPLES, expected, result, run


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 120


@pytest.mark.parametrize("name", [name for name in CASES if name not in EXAMPLES])
def test_case_is_small_and_says_what_it_shows(name: str) -> None:
    lines = CASES[name].read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines()
    written = [line for line in lines if line.strip() and not line.startswith(b"##")]
    assert len(written) <= 30
    assert lines[0].startswith(b"# ")
    case = expected(name)
    assert case.directives or case.problems or case.units or case.no_directives or case.links, (
        "expects nothing"
    )


Path_ = tuple[str, ...]


def _documented(kind: Type, path: Path_) -> Iterator[tuple[Path_, Type]]:
    """Yield every key below a type: its path, without names and indexes, and its type."""
    match kind:
        case Table():
            for name, key in kind.keys.items():
                yield (*path, name), key.type
                yield from _documented(key.type, (*path, name))
        case Choice():
            for choice in kind.choices.values():
                yield from _documented(choice, path)
        case ListOf() | MapOf():
            yield from _documented(kind.item, path)
        case Converted():
            yield from _documented(kind.base, path)


def _written(value: object, kind: Type, path: Path_) -> Iterator[tuple[Path_, object]]:
    """Yield every key that a document uses, in the same way, with what is written there."""
    yield path, value
    match kind:
        case Table() if isinstance(value, dict):
            for name, item in value.items():
                if name in kind.keys:
                    yield from _written(item, kind.keys[name].type, (*path, name))
        case Table() if kind.short:
            yield from _written(value, kind.keys[kind.short].type, (*path, kind.short))
        case Choice() if type(value) in kind.choices:
            yield from _written(value, kind.choices[type(value)], path)
        case ListOf():
            for item in value if isinstance(value, list) else [value]:
                yield from _written(item, kind.item, path)
        case MapOf() if isinstance(value, dict):
            for item in value.values():
                yield from _written(item, kind.item, path)
        case Converted():
            yield from _written(value, kind.base, path)


@cache
def _uses() -> frozenset[tuple[Path_, object]]:
    """All keys that occur in the cases, with the plain values that they have."""
    found: set[tuple[Path_, object]] = set()
    for case in CASES.values():
        try:
            document = tomllib.loads(case.read_text("utf-8-sig"))
        except ValueError:
            continue
        found |= {((key,), None) for key in document}
        tables = document.get("services", {})
        services = list(tables.values()) if isinstance(tables, dict) else []
        for table in [*services, document.get("defaults", {})]:
            for path, value in _written(table, SERVICE_TABLE, ()):
                found.add((path, value if isinstance(value, str | int) else None))
    return frozenset(found)


def test_every_key_is_in_some_case() -> None:
    keys = {(key,) for key in TOP} | {path for path, _ in _documented(SERVICE_TABLE, ())}
    used = {path for path, _ in _uses()}
    assert sorted(".".join(path) for path in keys - used) == []


def test_every_word_is_in_some_case() -> None:
    words = {(path, word) for path, kind in _documented(SERVICE_TABLE, ()) for word in _words(kind)}
    assert sorted(f"{'.'.join(path)} = {word}" for path, word in words - _uses()) == []


def _words(kind: Type) -> list[str]:
    return list(kind.values) if isinstance(kind, Enum) else []


MAKERS = {"error", "warn", "wrong", "problem", "Problem", "Unrepresentable"}
"""Names of the functions that begin a problem; `add` counts where it is a report's."""

SECOND_LINE = {
    # `render` takes any Spec, so it refuses again what no services.toml gets past sysresp.spec
    ("companions.py", "cannot be combined with instances: a timer starts one unit"),
    ("compose.py", "has no meaning for a user's own service manager and is left out"),
    ("render.py", "has no place to go: no unit of this service has a section ["),
    # no key is one of a later version now
    # every array that one value cannot stand for is behind a choice by type
    ("types.py", "self.wrong(value, at)"),
}
"""(file, text): calls that no case can reach; those of units/quote.py are shown by tests/test_quote.py."""


def _problem_sites() -> Iterator[tuple[str, ast.Call]]:
    """Yield (file, call) for each call in the source that makes a problem."""
    root = Path(sysresp.__file__).parent
    for file in sorted((*root.glob("spec/*.py"), *root.glob("units/*.py"))):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and file.name != "quote.py":
                called = ast.unparse(node.func)
                adds = ("report.add", "self.report.add", "self.add")
                if called.rpartition(".")[2] in MAKERS or called in adds:
                    yield str(file), node


@cache
def _calls() -> frozenset[tuple[str, int]]:
    """Run all cases, and return the lines of the source from which functions were called."""
    seen: set[tuple[str, int]] = set()

    def note(frame: FrameType, event: str, _argument: object) -> None:
        upper = frame.f_back
        if event == "call" and upper is not None:
            seen.add((upper.f_code.co_filename, upper.f_lineno))

    before = sys.getprofile()
    try:
        for name in CASES:
            sys.setprofile(note)  # again each time: it is dropped where the stack runs out
            run(name)
    finally:
        sys.setprofile(before)
    return frozenset(seen)


def test_every_problem_is_in_some_case() -> None:
    reached = _calls()
    told = {problem.what for name in CASES for problem in result(name).problems}
    missing = []
    for file, node in _problem_sites():
        code = ast.unparse(node)
        texts = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)}
        lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
        if (
            told.isdisjoint(texts)
            and not any((file, line) in reached for line in lines)
            and not any(Path(file).name == where and text in code for where, text in SECOND_LINE)
        ):
            missing.append(f"{Path(file).name}:{node.lineno}: {code}")
    assert missing == []
