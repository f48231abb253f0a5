"""`sysresp status`: the words it uses, the table that fits, and what its fast path may import."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from sysresp.cli import main, rows, status, status_table, table, words

# typer 0.7 knows only `autocompletion`, and warns that Click has renamed it.
pytestmark = pytest.mark.filterwarnings("ignore:'autocompletion' is renamed:DeprecationWarning")
TOP = Path(__file__).parent.parent

ESCAPES = re.compile(r"\033\[[0-9;]*m")

any_text = st.text(st.characters(exclude_categories=[]), max_size=40)


def observed(name: str = "shop-web.service", **fields: object) -> rows.Observed:
    base: dict[str, object] = {
        "service": "web",
        "instance": "",
        "start": True,
        "main": name.endswith(".service"),
        "load": "loaded",
    }
    return rows.Observed(name, **{**base, **fields})  # type: ignore[arg-type]


def row(*units: rows.Observed) -> rows.Row:
    found = rows.rows("shop", units, boot_time=1000.0)
    assert len(found) == 1
    return found[0]


RUNNING = {"active": "active", "sub": "running"}
FACTS = {
    "MainPID": 77,
    "NRestarts": 2,
    "MemoryCurrent": 5 << 20,
    "CPUUsageNSec": 3_400_000_000,
    "TasksCurrent": 4,
    "ActiveEnterTimestamp": 1_700_000_000_000_000,
}
FAILED = {"active": "failed", "sub": "failed"}


def verdict(result: str, code: int = 0, status: int = 0, **more: object) -> dict[str, object]:
    return {"Result": result, "ExecMainCode": code, "ExecMainStatus": status, **more}


@pytest.mark.parametrize(
    ("fields", "state", "reason", "well"),
    [
        (RUNNING, "running", "", True),
        ({"active": "active", "sub": "exited"}, "finished", "", True),
        ({**RUNNING, "load": "masked"}, "running", "but masked: it will not be restarted", False),
        ({"active": "activating", "sub": "start-post"}, "starting", "not ready yet", True),
        ({"active": "activating", "sub": "start"}, "starting", "", True),
        ({"active": "activating", "sub": "start-pre"}, "starting", "pre-start commands run", True),
        (
            {"active": "activating", "sub": "auto-restart", "facts": verdict("signal", 2, 11)},
            "waiting to restart",
            "killed by SIGSEGV",
            False,
        ),
        ({"active": "deactivating", "sub": "stop-sigterm"}, "stopping", "", False),
        ({"active": "reloading", "sub": "reload"}, "reloading", "", True),
        ({**FAILED, "facts": verdict("exit-code", 1, 3)}, "failed", "exit status 3", False),
        (
            {**FAILED, "facts": verdict("exit-code", 1, 203)},
            "failed",
            "the program could not be executed (203/EXEC)",
            False,
        ),
        ({**FAILED, "facts": verdict("core-dump", 3, 6)}, "failed", "killed by SIGABRT, core dumped", False),
        (
            {**FAILED, "facts": verdict("watchdog", 3, 6)},
            "failed",
            "it did not answer the watchdog in time",
            False,
        ),
        ({**FAILED, "facts": verdict("timeout", 2, 15)}, "failed", "it took too long", False),
        (
            {**FAILED, "facts": verdict("oom-kill", 2, 9)},
            "failed",
            "the kernel killed it for want of memory",
            False,
        ),
        ({**FAILED, "facts": verdict("new-in-300", 0, 0)}, "failed", "new-in-300", False),
        ({"load": "masked"}, "masked", "", False),
        ({"load": "not-found"}, "missing", "its unit file is gone", False),
        ({"load": "bad-setting"}, "broken", "its unit file has a bad setting", False),
        ({"load": "error"}, "broken", "its unit file cannot be loaded", False),
        ({"job": "start"}, "queued", "waits for other units", True),
        ({}, "stopped", "", False),
        ({"start": False}, "stopped", "", True),
        ({"facts": verdict("success", 1, 0)}, "stopped", "exit status 0", False),
        ({"facts": verdict("success", 1, 0, Type="oneshot")}, "finished", "", True),
        ({"facts": verdict("success", 2, 15)}, "stopped", "", False),
        (
            {"facts": verdict("success", ConditionResult=False, ConditionTimestamp=5)},
            "skipped",
            "a condition of its unit is not met",
            True,
        ),
    ],
)
def test_states_in_words(fields: dict[str, object], state: str, reason: str, well: bool) -> None:
    said = row(observed(**fields))
    assert (said.state, said.reason, said.well) == (state, reason, well)


def test_on_demand_service_is_listening() -> None:
    socket = observed(
        "shop-web.socket", active="active", sub="listening", facts={"Listen": [("Stream", "127.0.0.1:80")]}
    )
    said = row(observed(start=False), socket)
    assert (said.state, said.well, said.listen) == ("listening", True, ("127.0.0.1:80",))


def test_scheduled_service_waits_and_says_when() -> None:
    timer = observed(
        "shop-web.timer",
        active="active",
        sub="waiting",
        facts={
            "NextElapseUSecRealtime": 0,
            "NextElapseUSecMonotonic": 60_000_000,
            "LastTriggerUSec": 5_000_000,
        },
    )
    said = row(observed(start=False), timer)
    assert (said.state, said.next_run, said.last_run) == ("waiting", 1060.0, 5.0)
    failed = row(observed(start=False, **FAILED, facts=verdict("exit-code", 1, 1)), timer)
    assert (failed.state, failed.well, failed.next_run) == ("failed", False, 1060.0)


def test_a_dead_companion_is_not_well() -> None:
    said = row(observed(**RUNNING), observed("shop-web.socket", active="failed", sub="failed"))
    assert (said.state, said.reason, said.well) == ("running", "but shop-web.socket is failed", False)
    gone = row(observed(**RUNNING), observed("shop-web.socket", load="not-found"))
    assert gone.reason == "but shop-web.socket is missing"


def instances(*fields: dict[str, object]) -> list[rows.Row]:
    units = [
        observed(f"shop-web@{n}.service", instance=str(n), **{"facts": FACTS, **each})
        for n, each in enumerate(fields, start=1)
    ]
    return rows.rows("shop", units, 0.0)


def test_instances_fold_into_one_row() -> None:
    (one,) = rows.fold(instances(RUNNING, RUNNING, RUNNING, RUNNING))
    assert (one.name, one.state, one.count, one.well) == ("web", "running", "4/4", True)
    assert (one.memory, one.tasks, one.restarts, one.pid) == (20 << 20, 16, 8, None)


def test_folded_row_names_the_first_that_is_not_well() -> None:
    (one,) = rows.fold(instances(RUNNING, {**FAILED, "facts": verdict("exit-code", 1, 3)}, RUNNING))
    assert (one.state, one.count, one.reason) == ("running", "2/3", "web@2 failed: exit status 3")
    assert not one.well


def test_a_named_instance_stays_a_row() -> None:
    found = rows.fold(instances(RUNNING, RUNNING, RUNNING), frozenset({"web@2"}))
    assert [(r.name, r.count) for r in found] == [("web", "2/2"), ("web@2", "")]


@st.composite
def some_rows(draw: st.DrawFn) -> list[rows.Row]:
    units = []
    for number in range(draw(st.integers(0, 5))):
        units.append(
            rows.Observed(
                f"shop-{number}.service",
                draw(any_text) or "x",
                draw(st.sampled_from(["", "1", "2"])),
                draw(st.booleans()),
                True,
                draw(st.sampled_from(["loaded", "masked", "not-found", "bad-setting", "odd"])),
                draw(st.sampled_from(["active", "inactive", "failed", "activating", "deactivating", "odd"])),
                draw(st.sampled_from(["running", "dead", "failed", "auto-restart", "exited", "odd"])),
                draw(st.sampled_from(["", "start"])),
                draw(
                    st.dictionaries(
                        st.sampled_from([*rows.MEASURES, *rows.VERDICT, "ActiveEnterTimestamp"]),
                        st.integers(0, 2**64 - 1) | any_text,
                    )
                ),
            )
        )
    return rows.rows("shop", units, draw(st.floats(0, 2e9)))


@given(some_rows(), st.integers(1, 200), st.booleans())
def test_table_is_never_wider_than_the_terminal(found: list[rows.Row], width: int, colour: bool) -> None:
    text = status_table.render(rows.fold(found), 1.7e9, width, colour=colour)
    for line in text.splitlines():
        assert table.width_of(ESCAPES.sub("", line)) <= width
    assert len(text.splitlines()) == 1 + len(rows.fold(found))


@given(some_rows())
def test_every_row_that_is_not_well_can_be_told(found: list[rows.Row]) -> None:
    for each in found:
        assert each.state
        if each.level == rows.OK:
            assert each.well


@given(some_rows())
def test_json_objects_hold_no_python_only_values(found: list[rows.Row]) -> None:
    objects = status_table.as_objects(found)
    assert json.loads(json.dumps(objects)) == objects


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_state_survives_narrow_terminals(width: int) -> None:
    found = rows.fold(instances({**FAILED, "facts": verdict("exit-code", 1, 3)}))
    text = status_table.render(found, 1.7e9, width, colour=False)
    assert "web" in text
    assert "failed 1/1: exit status 3" in text


def test_table_without_a_terminal_has_no_limit_and_no_colour() -> None:
    found = instances({**RUNNING, "facts": FACTS})
    head, line = status_table.render(found, 1_700_000_065, None, colour=False).splitlines()
    assert head.split() == ["SERVICE", "STATE", "SINCE", "PID", "RESTARTS", "MEMORY", "CPU", "TASKS"]
    assert line.split() == ["web@1", "running", "1min", "5s", "77", "2", "5.0M", "3.4s", "4"]


@given(any_text, st.integers(0, 60))
def test_shortened_text_fits(text: str, width: int) -> None:
    assert table.width_of(table.shorten(table.clean(text), width)) <= width


@given(any_text)
def test_clean_text_moves_no_cursor(text: str) -> None:
    assert table.clean(text).isprintable()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0s"),
        (0, "0s"),
        (59.9, "59s"),
        (60, "1min"),
        (125, "2min 5s"),
        (660, "11min"),
        (11_520, "3h 12min"),
        (86_400 * 5 + 7300, "5d 2h"),
        (86_400 * 400, "400d"),
    ],
)
def test_spans(seconds: float, text: str) -> None:
    assert words.span(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0B"),
        (1023, "1023B"),
        (1024, "1.0K"),
        (10_240, "10K"),
        (1_047_552, "1023K"),
        (1_048_500, "1.0M"),
        (5 << 30, "5.0G"),
        (2**63, "8.0E"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert words.size(count) == text


@given(st.integers(0, 2**64))
def test_sizes_are_short(count: int) -> None:
    assert len(words.size(count)) <= 5


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0ms"),
        (12_000_000, "12ms"),
        (3_400_000_000, "3.4s"),
        (999_700_000, "1.0s"),
        (61_000_000_000, "1min 1s"),
    ],
)
def test_cpu_times(nanoseconds: int, text: str) -> None:
    assert words.cpu_time(nanoseconds) == text


@given(st.text(max_size=12), st.integers(0, 5), st.integers(0, 300))
def test_every_ending_has_words(result: str, code: int, status: int) -> None:
    said = words.ending(result, code, status)
    assert bool(said) == (result not in {"", "success"})


FORBIDDEN = {
    *("typer", "click", "jinja2", "rich", "tomllib", "dataclasses", "inspect", "logging", "pathlib"),
    *("subprocess", "asyncio", "sysresp.model", "sysresp.errors", "sysresp.spec", "sysresp.cli.main"),
}


def test_fast_path_imports_little() -> None:
    """Everything a good run imports; pystemd itself is measured in the live tests."""
    program = (
        "import sys; sys.argv = ['sysresp', 'status']\n"
        "import sysresp.__main__, sysresp.cli.status, sysresp.systemd.manager, sysresp.systemd.files\n"
        "from sysresp.reconcile import disk, drift, layout, manifest, names\n"
        "assert 'sqlite3' not in sys.modules, 'only who has a ledger pays for it'\n"
        "import sysresp.controller.reader\n"
        "print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(TOP)!r})\n{program}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not FORBIDDEN & set(done.stdout.split())


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ([], ()),
        (["web", "--all", "db"], ("web", "db")),
        (["--json", "-a", "--user", "--no-color", "--project", "shop"], ()),
    ],
)
def test_simple_options_take_the_fast_path(words: list[str], names: tuple[str, ...]) -> None:
    asked = status.parse(words)
    assert asked is not None
    assert asked.names == names
    assert asked.all == (bool({"--all", "-a"} & set(words)))
    assert asked.json == asked.user == (not asked.colour) == ("--json" in words)
    assert asked.project == ("shop" if "--project" in words else "")


@pytest.mark.parametrize(
    "words", [["--help"], ["-h"], ["--al"], ["--project"], ["--project", ""], ["--"], [""]]
)
def test_all_else_is_left_to_typer(words: list[str]) -> None:
    assert status.parse(words) is None
    assert status.fast(["sysresp", "status", *words]) is None
    assert status.fast(["sysresp", "plan", *words]) is None


def test_completion_is_left_to_typer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_SYSRESP_COMPLETE", "complete_bash")
    assert status.fast(["sysresp", "status"]) is None


@given(
    st.lists(st.sampled_from(["--all", "-a", "--json", "--user", "--project", "shop", "--no-color", "web"]))
)
def test_fast_path_and_typer_understand_the_same(words: list[str]) -> None:
    asked = status.parse(words)
    if asked is None:
        return
    seen: list[status.Asked] = []
    probe = typer.Typer(context_settings={"help_option_names": []})
    probe.command()(main.status.__wrapped__)  # type: ignore[attr-defined]
    params = typer.main.get_command(probe).make_context("status", list(words)).params
    seen.append(
        status.Asked(
            params["names"] or (),
            all=params["show_all"],
            json=params["json"],
            user=params["user"],
            project=params["project"],
        )
    )
    seen[0].colour = not params["no_color"]
    assert [getattr(seen[0], slot) for slot in status.Asked.__slots__] == [
        getattr(asked, slot) for slot in status.Asked.__slots__
    ]
