"""The rules of the house, as tests: lint, format, types, import contracts, sizes, docstrings.

Each tool runs as its own process, so that its message, not a traceback, is what a failure shows.
"""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
SOURCES = sorted(p for room in ("sysresp", "tests") for p in (TOP / room).rglob("*.py"))
TEMPLATES = sorted((TOP / "templates").rglob("*.j2"))
MOST_LINES = 400
MOST_TEMPLATE_LINES = 40

TOOLS = {
    "lint": ["ruff", "check", "."],
    "format": ["ruff", "format", "--check", "."],
    "types": ["mypy"],
    "imports": ["lint-imports", "--no-cache"],
}


@pytest.mark.parametrize("name", TOOLS)
def test_tool(name: str) -> None:
    words = TOOLS[name]
    program = shutil.which(words[0], path=str(Path(sys.executable).parent)) or shutil.which(words[0])
    if program is None:
        pytest.skip(f"{words[0]} is not installed: pip install -e .[test]")
    done = subprocess.run([program, *words[1:]], cwd=TOP, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.fail(f"{' '.join(words)}\n{done.stdout}{done.stderr}", pytrace=False)


def _lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def test_no_file_is_long() -> None:
    long = {str(p.relative_to(TOP)): n for p in SOURCES if (n := _lines(p)) > MOST_LINES}
    assert not long, "a file this long is asking to be two"


def test_no_template_decides() -> None:
    long = {p.name: n for p in TEMPLATES if (n := _lines(p)) > MOST_TEMPLATE_LINES}
    assert not long, "decisions belong in sysresp.units"


def test_every_module_says_what_it_is() -> None:
    silent = [
        str(p.relative_to(TOP))
        for p in SOURCES
        if p.read_text().strip() and not ast.get_docstring(ast.parse(p.read_text()))
    ]
    assert not silent
