"""Reading journalctl's export format, whatever a hostile process puts into its messages."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysresp.ports import Record
from sysresp.systemd import records
from sysresp.systemd.export import parse
from sysresp.systemd.records import SystemRecords

NAMES = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ_", min_size=1, max_size=12).map(str.encode)
ENTRIES = st.lists(st.dictionaries(NAMES, st.binary(max_size=40), min_size=1, max_size=5), max_size=5)


def export(entries: list[dict[bytes, bytes]]) -> bytes:
    """Write as journalctl does (systemd.io/JOURNAL_EXPORT_FORMATS)."""
    out = b""
    for entry in entries:
        for name, value in entry.items():
            if all(32 <= byte < 127 for byte in value):
                out += name + b"=" + value + b"\n"
            else:
                out += name + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"
        out += b"\n"
    return out


@given(ENTRIES, st.integers(1, 80))
def test_what_was_written_is_read_in_any_pieces(entries: list[dict[bytes, bytes]], size: int) -> None:
    raw = export(entries)
    found, rest = [], b""
    for at in range(0, len(raw), size):
        more, rest = parse(rest + raw[at : at + size])
        found += more
    assert (found, rest) == (entries, b"")


def test_a_value_is_no_entry() -> None:
    forged = b"x\n\n__CURSOR=c\nMESSAGE_ID=d9b373ed55a64feb8242e02dbe79a49c\nUNIT=a.service\n\n"
    assert parse(export([{b"UNIT": forged}]))[0] == [{b"UNIT": forged}]


COMMON = {b"__REALTIME_TIMESTAMP": b"2500000", b"__MONOTONIC_TIMESTAMP": b"1500000", b"_BOOT_ID": b"b"}
EXITED = {b"MESSAGE_ID": b"98e322203f7a4ed290d09fe03c09fe15", b"INVOCATION_ID": b"i", **COMMON}


def test_an_exit_is_that_of_the_main_process() -> None:
    records = SystemRecords()
    exited = EXITED | {b"EXIT_CODE": b"dumped", b"EXIT_STATUS": b"11", b"COMMAND": b"ExecStart"}
    found = records._record(exited, "a.service", {})
    assert found == Record("exited", "a.service", "i", 2.5, 1.5, "b", exec_code=3, exec_status=11)
    assert records._record(exited | {b"COMMAND": b"ExecStartPre"}, "a.service", {}) is None
    assert records._record({b"MESSAGE_ID": b"0" * 32}, "a.service", {}) is None


def test_nothing_of_it_is_believed() -> None:
    odd = EXITED | {b"EXIT_CODE": b"\xff", b"EXIT_STATUS": b"-1", b"INVOCATION_ID": b"\xff"}
    found = SystemRecords()._record(odd, "a.service", {})
    assert found is not None
    assert (found.exec_code, found.exec_status, found.invocation) == (0, 0, "\ufffd")


def test_what_cannot_be_read_now_is_read_the_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cursor does not move on, although the journal can be read again a moment later."""
    tries = []

    def start(words: Iterable[str], _fields: str) -> subprocess.Popen[bytes]:
        tries.append(list(words))
        if len(tries) == 1:
            raise OSError(errno.ENOMEM, "no memory")
        return subprocess.Popen(["printf", "__CURSOR=end\\n\\n"], stdout=subprocess.PIPE, bufsize=0)

    monkeypatch.setattr(records, "journalctl", start)
    assert SystemRecords(user=True).since("here", ()) == ([], "here", False)
    assert len(tries) == 1
