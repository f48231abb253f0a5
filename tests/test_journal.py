"""What a unit said: the parsing of journalctl's JSON; real units are in tests/live/test_contract_live.py."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sysresp.systemd.journal import RealJournal

JSON = st.recursive(
    st.none() | st.integers() | st.text() | st.lists(st.integers(0, 255)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@pytest.fixture
def journalctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A journalctl of our own: prints `out`, and writes its arguments down in `args`."""
    program = tmp_path / "journalctl"
    program.write_text(f'#!/bin/sh\necho "$*" >>{tmp_path}/args\ncat {tmp_path}/out\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


def entries(*messages: object) -> str:
    return "".join(json.dumps({"MESSAGE": message, "__CURSOR": "x"}) + "\n" for message in messages)


def test_messages_in_order(journalctl: Path) -> None:
    (journalctl / "out").write_text(entries("one", "two ", "", None, list(b"caf\xe9 \x1b[31m"), ["a", "b"]))
    assert RealJournal().tail("a.service", 5) == ["one", "two", "caf\ufffd \ufffd[31m", "a b"]
    assert "--lines=5 --unit a.service" in (journalctl / "args").read_text()


def test_one_run(journalctl: Path) -> None:
    (journalctl / "out").write_text(entries("hello"))
    assert RealJournal().tail("a.service", 3, "abc") == ["hello"]
    asked = (journalctl / "args").read_text()
    assert "_SYSTEMD_INVOCATION_ID=abc + _PID=1 INVOCATION_ID=abc UNIT=a.service" in asked
    RealJournal(user=True).tail("a.service", 3, "abc")
    assert "USER_INVOCATION_ID=abc USER_UNIT=a.service" in (journalctl / "args").read_text()


def test_what_came_when_its_process_had_gone_is_of_the_run_too(journalctl: Path) -> None:
    said = [
        {"MESSAGE": "of the run before", "_SYSTEMD_INVOCATION_ID": "x"},
        {"MESSAGE": "late, of the run before"},
        {"MESSAGE": "Starting", "INVOCATION_ID": "abc", "_SYSTEMD_INVOCATION_ID": "of the manager"},
        {"MESSAGE": "no such option"},
        {"MESSAGE": "of the next run", "_SYSTEMD_INVOCATION_ID": "y"},
    ]
    (journalctl / "out").write_text("".join(json.dumps(one) + "\n" for one in said))
    assert RealJournal().tail("a.service", 3, "abc") == ["Starting", "no such option"]
    assert RealJournal().tail("a.service", 1, "abc") == ["no such option"]


def test_a_run_that_said_nothing_falls_back_to_the_unit(journalctl: Path) -> None:
    (journalctl / "out").write_text("")
    assert RealJournal(user=True).tail("a.service", 3, "abc") == []
    assert "--user-unit a.service" in (journalctl / "args").read_text().splitlines()[-1]


def test_it_never_raises(journalctl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (journalctl / "out").write_text('not json\n[1]\n{"MESSAGE": 5}\n{"MESSAGE": {"a": 1}}\n')
    assert RealJournal().tail("a.service", 3) == []
    assert RealJournal().tail("a\0b", 3) == []
    assert RealJournal().tail("a.service", 0) == []
    monkeypatch.setenv("PATH", "/nonexistent")
    assert RealJournal().tail("a.service", 3) == []


@given(message=JSON)
def test_any_message(message: object) -> None:
    from sysresp.systemd.journal import _message  # noqa: PLC0415 - the one door that hypothesis needs

    text = _message(message)
    assert all(char.isprintable() or char == "\t" for char in text)
    assert len(text) < 2100


def test_a_scan_tells_whose_each_line_is(journalctl: Path) -> None:
    def said(at: int, message: object, **fields: object) -> dict[str, object]:
        return {"__REALTIME_TIMESTAMP": str(at * 1_000_000), "MESSAGE": message, **fields}

    own = {"_SYSTEMD_UNIT": "a.service", "_SYSTEMD_INVOCATION_ID": "x"}
    about = {"UNIT": "a.service", "INVOCATION_ID": "x", "_SYSTEMD_UNIT": "init.scope"}
    lines = [
        said(1, "Starting", MESSAGE_ID="7d4958e842da4a758f6c1cdc7b36dcc5", **about),
        said(2, "hello", **own),
        said(3, "forged", MESSAGE_ID="39f53479d3a045ac8e11786248231fbf", UNIT="c.service", **own),
        said(4, "Started", MESSAGE_ID="39f53479d3a045ac8e11786248231fbf", **about),
        said(5, "of another", _SYSTEMD_UNIT="b.service"),
        said(6, list(b"a\x1b["), _SYSTEMD_UNIT="a.service"),
        {"MESSAGE": "no time", **own},
    ]
    (journalctl / "out").write_text("".join(json.dumps(one) + "\n" for one in lines) + '[1]\n{"cut')
    found, is_whole = RealJournal().scan(["a.service", "c.service"], 12.5, 5)
    assert is_whole
    assert [(one.at, one.text, one.kind, one.invocation) for one in found if one.unit == "a.service"] == [
        (1, "Starting", "starting", "x"),
        (2, "hello", "", "x"),
        (3, "forged", "", "x"),
        (4, "Started", "started", "x"),
        (6, "a\ufffd[", "", ""),
    ]
    asked = (journalctl / "args").read_text()
    assert (
        "--lines=6 --since=@12 _SYSTEMD_UNIT=a.service _SYSTEMD_UNIT=c.service + _PID=1 UNIT=a.service"
        in asked
    )
    found, is_whole = RealJournal().scan(["a.service"], 0, 2)
    assert ([one.at for one in found], is_whole) == ([4, 6], False)
    assert RealJournal().scan([], 0, 5) == ([], True)


def test_a_scan_that_takes_too_long_is_cut(journalctl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sysresp.systemd.journal._LIMIT_SEC", 0.3)
    line = json.dumps({"__REALTIME_TIMESTAMP": "1000000", "MESSAGE": "x", "_SYSTEMD_UNIT": "a.service"})
    (journalctl / "journalctl").write_text(f"#!/bin/sh\necho '{line}'\nexec sleep 30\n")
    found, is_whole = RealJournal().scan(["a.service"], 0, 5)
    assert ([one.text for one in found], is_whole) == (["x"], False)
    assert RealJournal().tail("a.service", 5) == []


@settings(max_examples=25)
@given(st.lists(JSON))
def test_a_scan_never_raises(values: list[object]) -> None:
    program = Path(tempfile.mkdtemp()) / "journalctl"
    try:
        program.write_text(f"#!/bin/sh\ncat {program.parent}/out\n")
        program.chmod(0o755)
        (program.parent / "out").write_text("".join(json.dumps(value) + "\n" for value in values))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
            assert RealJournal().scan(["a.service"], 0, 5) == ([], True)
    finally:
        shutil.rmtree(program.parent)
