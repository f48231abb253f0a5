"""Reads and runs a case of tests/cases: a services.toml that carries its own expectations as comments.

Owns what may stand in such a comment (tests/cases/README.md says it in words) and the way of a case through
the rooms: parsed, asked about a host on which all is well but for `## answers`, and rendered, as by
`sysresp check`. Never judges: tests/test_cases.py and tests/test_cases_complete.py do.
Rule: an expectation that this does not know is an error, so that a typo cannot make a case weaker.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from sysresp.errors import Problem, Severity
from sysresp.model import Scope
from sysresp.spec.host import Answers, host_problems
from sysresp.spec.parse import Layer, parse, quoted
from sysresp.units.render import render

HERE = Path(__file__).parent / "cases"
CASES = {path.stem: path for path in sorted(HERE.glob("*.toml"))}
EXAMPLES = {
    f"example {path.stem}": path for path in sorted(HERE.parent.parent.glob("packaging/examples/*.toml"))
}
"""The files that sysresp ships: valid, and silent in every way."""

CASES |= EXAMPLES
DIGEST = "0" * 64


class Expected(NamedTuple):
    """What the comments of a case say."""

    version: int
    scope: Scope
    layers: tuple[str, ...]
    fills: tuple[tuple[str, str], ...]
    answers: Mapping[str, Any]
    directives: Mapping[tuple[str, str, str], list[str]]
    no_directives: tuple[tuple[str, ...], ...]
    units: tuple[str, ...]
    no_units: tuple[str, ...]
    links: tuple[tuple[str, ...], ...]
    no_links: tuple[str, ...]
    problems: tuple[tuple[str, str, str], ...]
    verify: tuple[str, ...]

    @property
    def is_valid(self) -> bool:
        return all(severity != "error" for _, severity, _ in self.problems)


class Result(NamedTuple):
    """What became of a case."""

    problems: tuple[Problem, ...]
    files: Mapping[str, str]  # name -> text; empty with an error
    units: Mapping[str, str]  # name -> name of its file
    links: Mapping[str, str]


@cache
def expected(name: str) -> Expected:
    found: dict[str, list[str]] = {}
    for line in CASES[name].read_bytes().decode("utf-8-sig", "replace").splitlines():
        if line.startswith("## "):
            word, _, rest = line[3:].partition(" ")
            found.setdefault(word, []).append(rest)
    directives: dict[tuple[str, str, str], list[str]] = {}
    for line in found.pop("expect-directive", []):
        unit, section, directive, *value = line.split(" ", 3)
        directives.setdefault((unit, section, directive), []).append("".join(value))
    case = Expected(
        version=int(found.pop("systemd-version", ["252"])[0]),
        scope=Scope(found.pop("scope", ["system"])[0]),
        layers=tuple(found.pop("layer", [])),
        fills=tuple(_fill(line) for line in found.pop("fill", [])),
        answers=json.loads(found.pop("answers", ["{}"])[0]),
        directives=directives,
        no_directives=tuple(tuple(line.split(" ")) for line in found.pop("expect-no-directive", [])),
        units=tuple(found.pop("expect-unit", [])),
        no_units=tuple(found.pop("expect-no-unit", [])),
        links=tuple(tuple(line.split(" ")) for line in found.pop("expect-link", [])),
        no_links=tuple(found.pop("expect-no-link", [])),
        problems=tuple(_problem(line) for line in found.pop("expect-problem", [])),
        verify=tuple(found.pop("expect-verify", [])),
    )
    assert not found, f"{name}: no such expectation: {', '.join(found)}"
    return case


def _problem(line: str) -> tuple[str, str, str]:
    where, severity, text = line.split(" ", 2)
    return where, Severity(severity).value, text


def _fill(line: str) -> tuple[str, str]:
    word, count, text = line.split(" ", 2)
    return word, text * int(count)


def content(name: str) -> bytes:
    """Return the file, with the words of `## fill` replaced by what would make it large."""
    head, _, body = CASES[name].read_bytes().partition(b"\n[")
    for word, text in expected(name).fills:
        body = body.replace(word.encode(), text.encode())
    return head + _ + body


def _answers(case: Expected) -> Answers:
    said = {key: frozenset(value) for key, value in case.answers.items() if key != "bad_calendars"}
    calendars = case.answers.get("bad_calendars", {})
    return Answers(bad_calendars=calendars, **said)


def run(name: str, version: int = 0) -> Result:
    """Parse and render one case, as `sysresp check` and `sysresp render` do."""
    case = expected(name)
    layers = [Layer(CASES[name].name, content(name))]
    layers += [Layer(layer, (HERE / "layers" / layer).read_bytes()) for layer in case.layers]
    spec, problems = parse(layers, scope=case.scope)
    if spec is None:
        return Result(problems, {}, {}, {})
    digests = {service.name: DIGEST for service in spec.services.values() if service.config_files}
    desired, more = render(
        spec,
        version=version or case.version,
        scope=case.scope,
        template_dirs=[str(HERE / "templates")],
        digests=digests,
    )
    found = {*problems, *host_problems(spec, _answers(case)), *more}
    problems = tuple(quoted(sorted(found), layers))
    if any(problem.severity is Severity.ERROR for problem in problems):
        return Result(problems, {}, {}, {})
    files = {file.name: file.text for file in desired.files.values()}
    units = {unit.name: unit.file for unit in desired.units.values()}
    return Result(problems, files, units, desired.links)


result = cache(run)


def where(name: str, problem: Problem) -> str:
    origin = problem.origin
    return str(origin.line) if origin.path == CASES[name].name else str(origin)


def told(name: str, problem: Problem) -> str:
    return f"{where(name, problem)} {problem.severity} {problem.key}: {problem.what} / {problem.fix}"
