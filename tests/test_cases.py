"""Runs the files of tests/cases, each of which carries its own expectations as comments.

Every problem of a case must be one that was expected at that line, and every expected one must be told. The
units of a case without an error must be as expected, the JSON Schema for editors must accept the file, and
`systemd-analyze verify` must have nothing to say of the units.
Rule: what a user can write is shown by a case, not by a test that calls a function.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from sysresp.errors import Severity
from sysresp.model import Scope
from sysresp.spec.parse import Layer, merged
from sysresp.spec.schema import json_schema
from sysresp.units.directives import TABLE
from sysresp.units.text import parse as entries
from tests.casefile import CASES, content, expected, result, run, told, where

OLD = 247
"""The oldest systemd that is supported (Debian 11)."""

ANALYZE = shutil.which("systemd-analyze")


@pytest.mark.parametrize("name", CASES)
def test_case_problems(name: str) -> None:
    left = list(result(name).problems)
    missing = []
    for line, severity, text in expected(name).problems:
        for problem in left:
            if (
                where(name, problem) == line
                and problem.severity == severity
                and (text in problem.what or text in problem.fix)
            ):
                left.remove(problem)
                break
        else:
            missing.append(f"{line} {severity} {text}")
    unexpected = [told(name, problem) for problem in left]
    assert (missing, unexpected) == ([], [])


@pytest.mark.parametrize("name", CASES)
def test_case_problems_are_in_house_style(name: str) -> None:
    source = content(name).decode("utf-8-sig", "replace").replace("\r\n", "\n").split("\n")
    for problem in result(name).problems:
        line = told(name, problem)
        assert problem.what, line
        assert not problem.what.endswith((".", "!")), line
        assert "\n" not in problem.what + problem.fix, line
        assert "failed to" not in problem.what, line
        assert problem.severity is Severity.WARNING or problem.fix, line
        if problem.source and problem.origin.path == CASES[name].name:
            assert source[problem.origin.line - 1].startswith(problem.source), line


@pytest.mark.parametrize("name", [name for name in CASES if expected(name).is_valid])
def test_case_units(name: str) -> None:
    case, made = expected(name), result(name)
    assert made.files, [told(name, problem) for problem in made.problems]
    for (unit, section, directive), values in case.directives.items():
        assert unit in made.files, sorted(made.files)
        assert _values(made.files[unit], section, directive) == values, made.files[unit]
    for unit, section, directive in case.no_directives:
        assert _values(made.files[unit], section, directive) == [], made.files[unit]
    for unit in case.units:
        assert unit in made.units, sorted(made.units)
    for unit in case.no_units:
        assert unit not in made.units
        assert unit not in made.files
    for link, target in case.links:
        assert made.links.get(link) == target, dict(made.links)
    for link in case.no_links:
        assert link not in made.links


def _values(text: str, section: str, directive: str) -> list[str]:
    return [value for place, name, value in entries(text) if (place, name) == (section, directive)]


@pytest.mark.parametrize("name", [name for name in CASES if expected(name).is_valid])
def test_an_old_systemd_knows_every_directive(name: str) -> None:
    made = run(name, OLD)
    told = {problem.severity for problem in made.problems}
    assert made.files or Severity.ERROR in told
    for file, text in made.files.items():
        for _, directive, _ in entries(text):
            assert directive not in TABLE or TABLE[directive].since <= OLD, (file, directive)


@cache
def _validator() -> Any:
    return pytest.importorskip("jsonschema").Draft202012Validator(json_schema())


@pytest.mark.parametrize("name", [name for name in CASES if expected(name).is_valid])
def test_editors_accept_what_is_valid(name: str) -> None:
    document = merged([Layer(CASES[name].name, content(name))])
    assert [error.message for error in _validator().iter_errors(document)] == []


def _verify(folder: Path, names: list[str], scope: Scope) -> str:
    """Write the units of these cases below the folder, and return what systemd-analyze says of them.

    What systemd loads is an instance, so that is shown: for "web@.socket" it would make up an instance "i".
    """
    files = []
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for unit, file in result(name).units.items():
            path = folder / name / unit
            path.write_text(result(name).files[file], encoding="utf-8")
            files.append(str(path))
    command = [str(ANALYZE), f"--{scope.value}", "verify", "--recursive-errors=no", "--man=no", *files]
    # a user's manager needs a runtime directory
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(folder), "HOME": str(folder)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=environment)
    return done.stdout + done.stderr


def _host_version() -> int:
    done = subprocess.run([str(ANALYZE), "--version"], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[1])


@pytest.fixture(scope="module")
def verified(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """What systemd says of each valid case; all at once, and one by one only if it says something."""
    if ANALYZE is None:
        pytest.skip("there is no systemd-analyze")
    version = _host_version()
    said: dict[str, str] = {}
    for scope in Scope:
        names = [
            name
            for name in CASES
            if (case := expected(name)).scope is scope and case.version <= version and result(name).files
        ]
        silent = [name for name in names if not expected(name).verify]
        if not _verify(tmp_path_factory.mktemp("all"), silent, scope):
            said |= dict.fromkeys(silent, "")
        for name in names:
            if name not in said:
                said[name] = _verify(tmp_path_factory.mktemp("one"), [name], scope)
    return said


@pytest.mark.parametrize("name", [name for name in CASES if expected(name).is_valid])
def test_systemd_has_nothing_to_say(name: str, verified: Mapping[str, str]) -> None:
    if name not in verified:
        pytest.skip("is for a newer systemd than there is")
    case = expected(name)
    said = verified[name].splitlines()
    assert [line for line in said if not any(text in line for text in case.verify)] == []
    assert all(any(text in line for line in said) for text in case.verify), said
    assert case.problems or not case.verify, "systemd warns of what sysresp does not"
