"""`report`: over a simulated month, on a fake host with a real ledger; its figures against brute force."""

from __future__ import annotations

import json
import re
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from sysresp.cli import hosts, remembered
from sysresp.controller.events import Exit, Fate, UnitMemory
from sysresp.ports import Line
from tests import report_scenes
from tests.fakes import FakeClock, FakeFiles, FakeJournal, FakeManager, fake_host
from tests.ledger_world import DB, WEB, World
from tests.report_scenes import DAY, Life

# typer 0.7 knows only `autocompletion`, and warns that Click has renamed it.
pytestmark = pytest.mark.filterwarnings("ignore:'autocompletion' is renamed:DeprecationWarning")

RUN = "5" * 32


def up(world: World, unit: str, began: float) -> None:
    """Let the unit run since then, and the ledger know it."""
    fake = world.manager.set_state(unit, "active", "running")
    fake.invocation = RUN
    fake.extra |= {"MainPID": 77, "ExecMainStartTimestamp": round(began * 1e6)}
    world.ledger.commit(units={unit: UnitMemory(RUN, is_ended=False)})


def by_name(world: World, *words: str) -> dict[str, dict[str, Any]]:
    found = json.loads(world.run("report", "--json", *words))
    assert found["version"] == 1
    return {one["name"]: one for one in found["services"]}


def scene(world: World) -> float:
    """Let web have failed twice and run again; let db be down."""
    now = world.clock.now()
    rows = [
        Exit(WEB, "1" * 32, now - 3000, "exit-code", 1, 3, Fate.RETRY, uptime_sec=1000, memory_peak=900),
        Exit(WEB, "2" * 32, now - 2500, "exit-code", 1, 3, Fate.RETRY, uptime_sec=400),
        Exit(WEB, "3" * 32, now - 2400, "signal", 2, 9, Fate.RETRY, uptime_sec=50),
        Exit(DB, "4" * 32, now - 600, "success", 1, 0, Fate.STOPPED, uptime_sec=600),
    ]
    world.ledger.commit(rows, units={DB: UnitMemory("4" * 32)})
    world.manager.set_state(DB, "inactive")
    up(world, WEB, now - 2350)
    trace = ["Traceback (most recent call last):", '  File "/srv/a.py", line 3, in take', "KeyError: 'x'"]
    lines = [Line(WEB, n * 32, now - 2900 + 500 * int(n), text) for n in "12" for text in trace]
    lines += [
        Line(DB, "4" * 32, now - 1200.5, "Starting", "starting"),
        Line(DB, "4" * 32, now - 1200, "Up", "started"),
    ]
    world.journal.scanned = lines
    world.manager.set_state(WEB, "active").extra |= {"MemoryMax": 1000, "MemoryCurrent": 100}
    return now


def test_figures(world: World) -> None:
    scene(world)
    web = by_name(world)["web"]
    assert (web["up_sec"], web["down_sec"]) == (1000 + 400 + 50 + 2350, 100 + 50 + 50)
    assert web["availability"] == 3800 / 4000
    assert (web["failures"], web["ends"], web["ends_unknown"]) == (3, 3, 0)
    assert (web["mtbf_sec"], web["mttr_sec"]) == (1266.667, 66.667)
    assert [one["sec"] for one in web["outages"]] == [100, 50, 50]
    assert [(one["what"], one["count"]) for one in web["causes"]] == [
        ("exit status 3", 2),
        ("killed by SIGKILL", 1),
    ]
    assert [(one["what"], one["count"]) for one in web["tracebacks"]] == [
        ("python: KeyError in take: 'x'", 2)
    ]
    assert web["burst"]["failures"] == 2
    assert (web["memory"], web["log_lines"]) == ({"peak": 900, "limit": 1000}, 6)
    db = by_name(world)["db"]
    assert (db["availability"], db["up_sec"], db["off_sec"], db["failures"]) == (1, 600, 600, 0)
    assert db["slowest_start"]["sec"] == 0.5
    short = by_name(world, "web", "--since", "1000s", "--no-journal")
    assert list(short) == ["web"]
    assert (short["web"]["up_sec"], short["web"]["failures"], short["web"]["tracebacks"]) == (1000, 0, [])


def test_what_the_ledger_does_not_know_is_unknown(world: World) -> None:
    now = scene(world)
    world.ledger.commit(units={WEB: UnitMemory("3" * 32)})  # it has not seen the run that goes on
    web = by_name(world, "web")["web"]
    assert (web["down_sec"], web["up_sec"]) == (150, 3800)
    assert by_name(world, "cron")["cron@1"]["availability"] == 1  # so far as is known: since it runs
    world.manager.set_state("shop-cron@1.service", "failed")
    cron = by_name(world, "cron")["cron@1"]
    assert (cron["availability"], cron["mtbf_sec"], cron["burst"]) == (None, None, None)
    assert "-" in world.run("report", "cron")
    assert now


def test_text_and_markdown(world: World) -> None:
    scene(world)
    text = world.run("report", "web", "db")
    assert text.startswith(
        "2 services from 2023-11-07 22:30:00 to 2023-11-14 22:30:00: 95.65% available, 3 fail"
    )
    for words in (
        "95.00%",
        "exit status 3",
        "KeyError in take",
        "Slowest starts",
        "500ms",
        "90% !",
        "2023-11-14",
    ):
        assert words in text
    table = world.run("report", "web", "db", "--markdown")
    assert "| web | running | 95.00% | " in table
    assert "\n## Tracebacks and panics\n\n| COUNT | SERVICE | WHAT | FINGERPRINT | LAST |\n| --: |" in table
    rows = [line for line in table.splitlines() if line.startswith("|")]
    assert all(line.count(" | ") >= 1 for line in rows)


def test_words_of_programs_break_no_form(world: World, tmp_path: Path) -> None:
    scene(world)
    evil = "KeyError: </td><script>alert(1)</script> | `x` [a](b) \x1b[31m\"'{{ 7 * 7 }}"
    world.journal.scanned.append(
        Line(WEB, "9" * 32, world.clock.now() - 9, "Traceback (most recent call last):")
    )
    world.journal.scanned.append(Line(WEB, "9" * 32, world.clock.now() - 9, evil))
    text, table = world.run("report"), world.run("report", "--markdown")
    assert "\x1b" not in text + table
    assert "\\<script\\>alert(1)\\</script\\> \\| \\`x\\`" in table
    world.run("report", "--html", "out.html")
    page = (tmp_path / "out.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "{{ 7 * 7 }}" in page


def test_usage(world: World) -> None:
    world.run("report", "--json", "--markdown", status=2)
    world.run("report", "--since", "soon", status=2)
    world.run("report", "--since", "2030-01-01", status=2)
    world.run("report", "nothing", status=4)
    world.run("report", "--project", "nothing", status=4)


def test_without_a_ledger_it_says_so(bare: World) -> None:
    assert "sysresp controller enable" in bare.run("report")
    found = json.loads(bare.run("report", "--json"))["services"][0]
    assert found["unknown_sec"] > found["up_sec"] > 0


class Page(HTMLParser):
    """Whether each element is closed, and all that a browser would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.classes: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in {"meta", "link"}:
            self.open.append(tag)
        self.fetched += [
            str(value) for name, value in attrs if name in {"href", "src", "xlink:href", "action"}
        ]
        self.classes += [str(value) for name, value in attrs if name == "class" and tag == "rect"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_alone(world: World) -> None:
    scene(world)
    text = world.run("report", "web", "--since", "1h", "--html", "-")
    page = Page(text)
    assert page.fetched == ["data:,"]
    assert "url(" not in text
    assert "@import" not in text
    assert len(page.classes) == 60
    assert set(page.classes) == {"up", "down"}
    assert page.classes.count("down") == 5  # the outages of 100, 50 and 50 seconds touch 2, 2 and 1 minutes
    assert re.search(r"prefers-color-scheme: dark", text)


def living_month(tmp_path: Path, services: int, rows_each: int) -> tuple[list[Life], FakeClock]:
    """Give a host on which these services are applied, and their ledger, at the end of a month."""
    clock = FakeClock()
    begin = int(clock.now()) - 30 * DAY
    return report_scenes.month(tmp_path / "ledger.db", services, rows_each, begin), clock


@pytest.mark.parametrize(
    ("services", "rows_each"), [(5, 200), pytest.param(100, 850, marks=pytest.mark.slow)]
)
def test_a_month_equals_brute_force(
    services: int, rows_each: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each second of the month was painted as it went; the report, from the rows alone, counts the same."""
    monkeypatch.chdir(tmp_path)
    files = FakeFiles()
    manager, journal = FakeManager(files), FakeJournal()
    host = fake_host(manager=manager, journal=journal)
    lives, _ = living_month(tmp_path, services, rows_each)
    text = 'project = "shop"\n' + "".join(
        f'[services.svc{number:03}]\ncommand = ["/bin/sh"]\n' for number in range(services)
    )
    (tmp_path / "services.toml").write_text(text)
    token = hosts.open_host.set(lambda _scope, _mode: host)
    places = remembered.directories.set((str(tmp_path),))
    try:
        world = World.__new__(World)
        world.run("apply", "--settle", "0")
        for number, life in enumerate(lives):
            fake = manager.set_state(
                report_scenes.unit(number), "inactive" if life.running is None else "active"
            )
            if life.running:
                fake.invocation = life.running[0]
                fake.extra |= {"MainPID": 7, "ExecMainStartTimestamp": life.running[1] * 1_000_000}
        begun = time.process_time()
        found = json.loads(world.run("report", "--json", "--since", "30d"))
        took = time.process_time() - begun
        begun = time.process_time()
        world.run("report", "--html", "month.html", "--since", "30d")
        page_took = time.process_time() - begun
        print(f"{sum(life.rows for life in lives)} rows: JSON {took:.2f} s, HTML {page_took:.2f} s of CPU")
    finally:
        remembered.directories.reset(places)
        hosts.open_host.reset(token)
    assert took < 6, "of CPU time; it was 1.3 s for 101,000 rows when this was written"
    assert len(found["services"]) == services
    for one in found["services"]:
        life = lives[int(one["name"][3:])]
        painted = {
            name: life.truth.count(letter)
            for name, letter in zip("udo?", (b"u", b"d", b"o", b"?"), strict=True)
        }
        assert (one["up_sec"], one["down_sec"], one["off_sec"], one["unknown_sec"]) == pytest.approx(
            tuple(painted.values()), abs=0.01
        )
        assert one["failures"] == life.failures
        assert one["availability"] == pytest.approx(painted["u"] / (painted["u"] + painted["d"]), abs=1e-8)
