"""Tracebacks of five languages: recorded from real programs, and made anew where an interpreter is there.

Each program exists twice: `b` is `a` with unrelated lines added, in another directory, in another process.
tests/traces holds what they printed (Python 3.11, Node 20, Java 17, Go 1.19, Rust 1.95).
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysresp.controller import fingerprint
from sysresp.controller.fingerprint import find, last

TRACES = Path(__file__).parent / "traces"
EXPECTED = {
    "python": ("python", "Trouble", ("<module> app.py", "deep app.py", "load app.py")),
    "node": ("node", "Error", ("Object.<anonymous> app.js", "Shop.open app.js", "load app.js")),
    "java": (
        "java",
        "java.lang.NumberFormatException",
        ("App.main App.java", "App.lambda$main App.java", "App.open App.java", "App.parse App.java"),
    ),
    "go": ("go", "panic", ("main.main main.go", "main.main.func main.go", "main.(*shop).take main.go")),
    "rust": ("rust", "panic", ("main.rs",)),
    "rust-backtrace": ("rust", "panic", ("main.rs", "main::main", "main::Shop::take")),
}
NOISE = [
    "Starting shop web...",
    "GET / 200",
    "    at the counter",
    "Error: not one",
    "panic: at the disco",
    "",
]


def recorded(name: str) -> list[str]:
    return (TRACES / f"{name}.txt").read_text().splitlines()


@pytest.mark.parametrize("name", EXPECTED)
def test_recorded(name: str) -> None:
    one, other = (find(recorded(f"{name}-{which}")) for which in "ab")
    assert [(t.language, t.kind, t.frames) for t in one] == [EXPECTED[name]]
    assert [t.fingerprint for t in one] == [t.fingerprint for t in other]
    assert [t.message for t in one] != [""]


def test_fingerprints_tell_programs_apart() -> None:
    assert len({find(recorded(f"{name}-a"))[0].fingerprint for name in EXPECTED}) == len(EXPECTED)


@given(st.lists(st.sampled_from(sorted(EXPECTED)), max_size=4), st.lists(st.sampled_from(NOISE), max_size=3))
def test_found_among_other_lines(names: list[str], noise: list[str]) -> None:
    lines = list(noise)
    for name in names:
        lines += [*recorded(f"{name}-a"), "", *noise, "---"]
    assert [(t.language, t.kind, t.frames) for t in find(lines)] == [EXPECTED[name] for name in names]


@given(
    st.lists(st.sampled_from([line for n in EXPECTED for line in recorded(f"{n}-a")] + NOISE) | st.text())
)
def test_anything_has_an_answer(lines: list[str]) -> None:
    for trace in find(lines):
        assert re.fullmatch("[0-9a-f]{12}", trace.fingerprint)
        assert lines[trace.line] or trace.language
        assert trace.title


def test_the_time_it_takes_grows_as_the_lines_do() -> None:
    """Each line looks like a beginning, none is one: a reader that went on to the end would take hours."""
    lines = (
        "Traceback (most recent call last):",
        "panic: x",
        "\tat a.b.C.d(C.java:1)",
        "    at f (a.js:1:1)",
    )
    for line in lines:
        assert find([line] * 20_000) == []
    assert find(["a" * 100_000 + ".", "    at " + "(" * 100_000]) == []


def test_python_forms() -> None:
    told = last(
        [
            "ERROR:root:cannot go on",
            "Traceback (most recent call last):",
            '  File "/srv/a.py", line 3, in f',
            "    g()",
            '  File "/srv/a.py", line 9, in f',
            "  [Previous line repeated 975 more times]",
            "RecursionError",
            "  + Exception Group Traceback (most recent call last):",
            '  |   File "/srv/b.py", line 12, in <module>',
            "  |     main()",
            "  | ExceptionGroup: two things (2 sub-exceptions)",
            "  +-+---------------- 1 ----------------",
            "    | ValueError: 1",
            "    +------------------------------------",
        ]
    )
    assert told is not None
    assert (told.kind, told.message) == ("ExceptionGroup", "two things (2 sub-exceptions)")
    assert told.frames == ("<module> b.py",)
    assert told.title == "python: ExceptionGroup in <module>: two things (2 sub-exceptions)"


def test_the_cause_of_an_error_of_node_is_no_error_of_its_own() -> None:
    lines = ["TypeError: no 3", "    at load (/srv/a.js:1:51)", "    at async main (/srv/a.js:2:33) {"]
    lines += ["  [cause]: Error: it is gone", "      at load (/srv/a.js:1:90)", "  code: 7", "}", ""]
    (told, again) = find(lines * 2)
    assert told.fingerprint == again.fingerprint
    assert (told.kind, told.frames) == ("TypeError", ("main a.js", "load a.js"))


def test_an_event_of_node_that_nobody_listens_to() -> None:
    def of(words: str) -> list[fingerprint.Trace]:
        lines = [
            "node:events:495",
            "      throw er; // Unhandled 'error' event",
            "      ^",
            "",
            f"Error: {words}",
        ]
        lines += ["    at TCPConnectWrap.afterConnect [as oncomplete] (node:net:1611:16)"]
        lines += ["Emitted 'error' event on Socket instance at:"]
        lines += ["    at emitErrorNT (node:internal/streams/destroy:151:8) {", "  errno: -111,", "}", ""]
        return find(lines)

    (one,), (other,), (third,) = (
        of(f"{words} 127.0.0.1:{port}")
        for words, port in (
            ("connect ECONNREFUSED", 9),
            ("connect ECONNREFUSED", 8080),
            ("read ECONNRESET", 9),
        )
    )
    assert one.frames == ()  # so its message tells it from others
    assert one.fingerprint == other.fingerprint != third.fingerprint


def test_a_newer_python_is_no_other_fault() -> None:
    def of(library: str, *frames: str) -> fingerprint.Trace | None:
        lines = [f'  File "{library}/{frame}' for frame in frames]
        lines += ['  File "/srv/venv/lib/python3.11/site-packages/shop/a.py", line 3, in work']
        return last(["Traceback (most recent call last):", *lines, "KeyError: 3"])

    one = of("/usr/lib/python3.11", 'threading.py", line 975, in run')
    other = of("/usr/lib/python3.13", 'threading.py", line 994, in run', 'asyncio/x.py", line 1, in f')
    assert one is not None
    assert other is not None
    assert one.frames == other.frames == ("work a.py",)
    assert one.fingerprint == other.fingerprint


def test_old_rust_and_numbers_in_messages() -> None:
    def of(number: int) -> fingerprint.Trace | None:
        return last(
            [f"thread 'w-{number}' panicked at 'no slot {number} in \"{number}x\"', src/a.rs:{number}:5"]
        )

    one, other = of(7), of(88)
    assert one is not None
    assert other is not None
    assert one.fingerprint == other.fingerprint
    assert one.frames == ("a.rs",)
    third = last(["thread 'w' panicked at 'no room', src/a.rs:7:5"])
    assert third is not None
    assert third.fingerprint != one.fingerprint


PROGRAMS = {
    "python3": ("app.py", "def take(n):\n    return [1, 2][n + 5]\n\ntake(1)\n", "IndexError"),
    "node": ("app.js", "function take(n) { return n.x.y; }\ntake({});\n", "TypeError"),
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_real_programs(program: str, tmp_path: Path) -> None:
    """As this host's interpreter says it today."""
    found = sys.executable if program == "python3" else shutil.which(program)
    if found is None:
        pytest.skip(f"there is no {program} here")
    name, source, kind = PROGRAMS[program]
    prints = set()
    for version in ("one", "two"):
        place = tmp_path / version
        place.mkdir()
        (place / name).write_text("\n" * len(prints) * 7 + source)
        done = subprocess.run([found, place / name], capture_output=True, text=True, check=False)
        trace = last(done.stderr.splitlines())
        assert trace is not None
        assert trace.kind == kind
        assert f"take {name}" in trace.frames
        prints.add(trace.fingerprint)
    assert len(prints) == 1
