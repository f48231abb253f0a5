"""`sysresp logs`: entries whole whatever is in them, lines that say who said them, and what matches."""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysresp.cli import log_text, logs
from sysresp.errors import Exit
from sysresp.systemd.export import Entry, parse
from sysresp.systemd.logs import CORE, LINE, SAID, LogEntry, Wanted
from tests.ledger_world import DB, WEB, World

# typer 0.7 knows only `autocompletion`, and warns that Click has renamed it.
pytestmark = pytest.mark.filterwarnings("ignore:'autocompletion' is renamed:DeprecationWarning")
AT = 1_700_000_000_123_456
NAMES = {WEB: log_text.Called("shop", "web", "", "web"), DB: log_text.Called("shop", "db", "", "db")}
names = st.sampled_from([b"MESSAGE", b"UNIT", b"_PID", b"PRIORITY", b"X"])
values = st.binary(max_size=30) | st.sampled_from([b"\n\n", b"\n", b"=", b"A=b\n\nMESSAGE=x", b""])


def exported(entry: Entry) -> bytes:
    """Write an entry as journalctl does."""
    out = b""
    for name, value in entry.items():
        is_text = all(byte >= 32 or byte == 9 for byte in value)
        size = len(value).to_bytes(8, "little")
        out += name + b"=" + value + b"\n" if is_text else name + b"\n" + size + value + b"\n"
    return out + b"\n"


@given(st.lists(st.dictionaries(names, values, min_size=1), max_size=6), st.integers(1, 50))
def test_entries_come_whole_from_any_pieces(entries: list[Entry], size: int) -> None:
    data = b"".join(map(exported, entries))
    found: list[Entry] = []
    rest = b""
    for begin in range(0, len(data), size):
        some, rest = parse(rest + data[begin : begin + size])
        found += some
    assert found == entries
    assert rest == b""


def entry(kind: str = LINE, text: str = "hello", unit: str = WEB, **more: object) -> LogEntry:
    return LogEntry(unit, kind, text, AT, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (entry("exited", exec_code=1, exec_status=3), "exit status 3"),
        (entry("exited", exec_code=2, exec_status=9), "killed by SIGKILL"),
        (entry("exited", exec_code=3, exec_status=11), "killed by SIGSEGV, core dumped"),
        (
            entry("exited", exec_code=1, exec_status=2, command="ExecStartPre"),
            "its pre_start command failed: exit status 2",
        ),
        (entry("failed", result="exit-code"), ""),
        (entry("failed", result="timeout"), "failed: it took too long"),
        (entry("failed", result="new-in-300"), "failed: new-in-300"),
        (entry("start-failed", result="failed"), "could not be started"),
        (
            entry("start-failed", result="dependency"),
            "could not be started: a unit that it requires could not be started",
        ),
        (entry("started", invocation="a" * 32), "started"),
        (entry("started"), "not started: a condition of its unit is not met"),
        (entry("restart", n_restarts=4), "systemd starts it again (restart 4)"),
        (entry("finished"), "ended well"),
        (entry("stopped", job_type="stop"), "stopped"),
        (entry("stopped", job_type="restart"), ""),
        (entry("oom"), "the kernel killed a process of it for want of memory"),
        (entry(SAID, "Start request repeated too quickly."), "Start request repeated too quickly."),
    ],
)
def test_what_systemd_did_is_said_as_elsewhere(given: LogEntry, words: str) -> None:
    assert log_text.what(given) == words


def test_lines_say_who_said_them() -> None:
    form = log_text.Lines(NAMES, colour=False).of
    assert form(entry(), "hello").endswith(" web | hello\n")
    assert form(entry(unit=DB), "one\ntwo\n").count(" db  | ") == 2
    assert form(entry("restart"), "again").endswith(" web * again\n")
    assert form(entry(CORE), "Process 7 dumped core.\n\nStack trace").endswith("* Process 7 dumped core.\n")
    assert form(entry(), "\033[31mred\033[0m\tx\033[2J\r").endswith(" web | red\tx\\x1b[2J\n")
    assert form(entry(), "").endswith(" web | \n")


def test_a_service_has_its_colour_always() -> None:
    few, many = log_text.Lines(NAMES, colour=True), log_text.Lines({WEB: NAMES[WEB]}, colour=True)
    codes = [re.findall(r"\033\[([0-9;]+)m", one.of(entry(), "x"))[0] for one in (few, many)]
    assert codes[0] == codes[1]
    assert log_text.Lines(NAMES, colour=True).of(entry("exited"), "died").count("\033[31m") == 1


@given(st.text(st.characters(exclude_categories=[]), max_size=60), st.sampled_from([LINE, SAID, CORE]))
def test_no_text_reaches_the_terminal_as_more_than_text(text: str, kind: str) -> None:
    for line in log_text.Lines(NAMES, colour=False).of(entry(kind), text).split("\n"):
        assert line.replace("\t", "").isprintable()
        # A line of a service is never one of systemd's
        assert not line or line[15:].startswith(" web | " if kind == LINE else " web * ")


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_an_object_a_line(text: str) -> None:
    line = log_text.Objects(NAMES).of(entry(pid=7, priority=3, invocation="a" * 32), text)
    assert line.count("\n") == 1
    found = json.loads(line)
    assert found["message"] == text
    assert found["at"] == "2023-11-14T22:13:20.123456Z"
    dead = json.loads(log_text.Objects(NAMES).of(entry("exited", exec_code=2, exec_status=9), "killed"))
    assert (dead["kind"], dead["signal"], dead["exit_code"]) == ("exited", "SIGKILL", None)
    assert (
        log_text.Objects(NAMES).of(entry("exited", exec_code=1, exec_status=3), "").count('"exit_code": 3')
    )


class Canned:
    """A journal in memory, which gives two entries at a time."""

    def __init__(self, entries: list[LogEntry]) -> None:
        self.entries = [one._replace(cursor=str(n)) for n, one in enumerate(entries)]
        self.later: list[LogEntry] = []
        self.asked: list[Wanted] = []
        self.taken = 0

    def is_readable(self) -> bool:
        return False

    def read(self, wanted: Wanted, _reader_of: int = -1, /) -> Generator[list[LogEntry], None, None]:
        self.asked.append(wanted)
        found = [one for one in self.entries if one.unit in wanted.units]
        found = found[int(wanted.after) + 1 :] if wanted.after else found
        found = found[::-1] if wanted.newest_first else found
        found = found[-wanted.lines :] if wanted.lines > 0 else [] if wanted.lines == 0 else found
        if wanted.follow:
            found = found + self.later
        for begin in range(0, len(found), 2):
            self.taken += 1
            yield found[begin : begin + 2]
        if wanted.follow:
            raise KeyboardInterrupt


@pytest.fixture
def canned() -> Iterator[Canned]:
    one = Canned([entry(text=f"line {n}", unit=(WEB, DB)[n % 2]) for n in range(200)])
    one.later = [entry(text="line 200"), entry(text="other")]
    token = logs.open_logs.set(lambda _scope: one)
    yield one
    logs.open_logs.reset(token)


def shown(text: str) -> list[str]:
    return [line.partition(" | ")[2] for line in text.splitlines() if " | " in line]


def test_of_no_names_it_is_all_services(bare: World, canned: Canned) -> None:
    assert shown(bare.run("logs")) == [f"line {n}" for n in range(150, 200)]
    assert len(canned.asked[0].units) == 5
    assert shown(bare.run("logs", "db", "-n", "2")) == ["line 197", "line 199"]
    assert len(shown(bare.run("logs", "--since", "2h"))) == 200  # all of that time
    assert canned.asked[-1].since > 0
    bare.run("logs", "nothing", status=Exit.UNKNOWN)


def test_following_ends_well_by_ctrl_c(bare: World, canned: Canned) -> None:
    text = bare.run("logs", "-f", "-n", "1")
    assert shown(text) == ["line 199", "line 200", "other"]
    assert logs.NOT_READABLE in text


def test_grep_means_the_last_that_match(bare: World, canned: Canned) -> None:
    assert shown(bare.run("logs", "--grep", "LINE", "-n", "3")) == []
    assert shown(bare.run("logs", "-g", "line .*7", "-n", "3")) == ["line 179", "line 187", "line 197"]
    assert canned.taken < 200
    assert shown(bare.run("logs", "-f", "-g", "line 2", "-n", "2")) == ["line 28", "line 29", "line 200"]
    assert canned.asked[-1].after == "199"
    assert "--grep" in bare.run("logs", "-g", "(", status=Exit.USAGE)


def test_json_is_for_programs(bare: World, canned: Canned) -> None:
    lines = [line for line in bare.run("logs", "--json", "-n", "2").splitlines() if line.startswith("{")]
    assert [json.loads(line)["service"] for line in lines] == ["web", "db"]
