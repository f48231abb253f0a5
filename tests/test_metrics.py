"""`metrics`: what is said, in every format, by the strictest parsers there are; on a fake host."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus_text

from sysresp.cli import metric_families, metrics, rows
from sysresp.cli.metric_families import Queue, Snapshot, families
from sysresp.cli.metric_table import METRICS, STATES, Kind
from sysresp.controller import remarks
from sysresp.controller.counters import Count
from sysresp.controller.events import Exit, Fate, Note, UnitMemory, Wait
from sysresp.controller.incident_rows import statements
from sysresp.controller.incidents import Incident, Part
from sysresp.controller.probes import ProbeState
from sysresp.controller.telling import Message
from tests.conftest import prometheus
from tests.ledger_world import DB, DISK, WEB, World, living

TOP = Path(__file__).parent.parent
# typer 0.7 knows only `autocompletion`, and warns that Click has renamed it.
pytestmark = pytest.mark.filterwarnings("ignore:'autocompletion' is renamed:DeprecationWarning")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with living(tmp_path) as one:
        yield one


def parsed(text: str) -> dict[str, dict[tuple[str, ...], float]]:
    """Return sample name -> values of its labels, in the order of their names -> value."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in openmetrics(text):
        for sample in family.samples:
            labels = tuple(value for _, value in sorted(sample.labels.items()) if value)
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def said(world: World) -> dict[str, dict[tuple[str, ...], float]]:
    return parsed(world.run("metrics"))


def whole(world: World) -> None:
    """Let there be something to say of everything."""
    world.start_controller()
    now = world.clock.now()
    own = world.manager.set_state("sysresp.service", "active", "running")
    own.extra |= {"ExecMainStartTimestamp": round((now - 50) * 1e6), "CPUUsageNSec": 2_500_000_000}
    own.extra |= {"MemoryCurrent": 20 << 20, "StatusText": "5 units are looked after"}
    web = world.manager.set_state(WEB, "active", "running")
    web.extra |= {"ActiveEnterTimestamp": round((now - 40) * 1e6)}
    web.extra |= {"MemoryCurrent": 1 << 20, "CPUUsageNSec": 1_500_000_000, "TasksCurrent": 3}
    world.fail(DISK, wait=Wait.COOLDOWN, wake_at=world.clock.monotonic() + 860)
    state = ProbeState("1" * 32, 0.0, False, is_ok=False, at=5.0, latency_sec=0.125, tries=9, failed=4)
    probes = remarks.probes({WEB: state, DB: ProbeState()}, now - 10)
    world.ledger.commit(
        [Exit(WEB, "2" * 32, now - 3, "exit-code", 1, 3, Fate.RETRY, attempt=1)],
        [Note("gap", amount=0.75), Note("self-restart")],
        {WEB: UnitMemory("3" * 32, is_ended=False, is_healthy=False, why="refused")},
        {remarks.VITALS: json.dumps([now - 1, 14 << 20, 77]), remarks.PROBES: probes},
        statements=statements(
            {1: Incident(1, WEB, now, (Part(WEB, ("probe",)),)), 2: Incident(2, "x.mount", now)},
            [Message("k", "shop/ops", 1, "opened", WEB, now - 700, now - 650, "{}")],
            (),
        ),
    )


def test_every_metric_is_said_and_parses(world: World) -> None:
    whole(world)
    text = world.run("metrics")
    families = {one.name: one for one in openmetrics(text)}
    assert {name.removesuffix("_total") for name in METRICS} == set(families)
    for name, metric in METRICS.items():
        family = families[name.removesuffix("_total")]
        assert family.type == metric.kind.value
        assert family.documentation == metric.help
        for sample in family.samples:
            more = {"le"} if metric.kind is Kind.HISTOGRAM else set()
            more |= {"sysresp_service_state"} if metric.kind is Kind.STATES else set()
            more |= {"version"} if metric.kind is Kind.INFO else set()
            assert set(sample.labels) - more == set(metric.labels)
    assert text.endswith("# EOF\n")


def test_what_is_said(world: World) -> None:
    whole(world)
    found = said(world)
    web = ("shop", "web", WEB)
    assert found["sysresp_service_state"]["shop", "web", "running", WEB] == 1
    assert found["sysresp_service_state"]["shop", "disk", "cooldown", DISK] == 1
    assert sum(found["sysresp_service_state"].values()) == len(found["sysresp_service_well"])
    assert found["sysresp_service_well"][web] == 0
    assert found["sysresp_service_next_start_seconds"]["shop", "cooldown", "disk", DISK] == pytest.approx(
        860
    )
    assert found["sysresp_service_failures_total"]["shop", "exit-code", "web", WEB] == 1
    assert found["sysresp_service_start_time_seconds"] == {web: pytest.approx(world.clock.now() - 40)}
    assert found["sysresp_service_exits_total"]["shop", "disk", DISK] == 1
    assert found["sysresp_service_exits_total"]["shop", "db", DB] == 0
    assert found["sysresp_service_gave_up_total"]["shop", "disk", DISK] == 1
    assert found["sysresp_service_memory_bytes"][web] == 1 << 20
    assert found["sysresp_service_cpu_seconds_total"][web] == 1.5
    assert found["sysresp_probe_healthy"] == {web: 0}
    assert found["sysresp_probe_latency_seconds"] == {web: 0.125}
    assert found["sysresp_probe_tries_total"] == {web: 9}
    assert found["sysresp_probe_failures_total"] == {web: 4}
    assert found["sysresp_incidents_open"] == {("shop",): 1, (): 1}
    assert found["sysresp_incidents_total"] == {("shop", "probe", "web", WEB): 1}
    assert found["sysresp_alerts_queued"] == {("shop", "ops"): 1}
    assert found["sysresp_alerts_overdue_seconds"]["shop", "ops"] == pytest.approx(650)
    assert found["sysresp_alerts_total"] == {("shop", "ops", "queued"): 1}
    assert found["sysresp_controller_up"][()] == 1
    assert found["sysresp_controller_cpu_seconds_total"][()] == 2.5
    assert found["sysresp_controller_resident_memory_bytes"][()] == 14 << 20
    assert found["sysresp_controller_wakeups_total"][()] == 77
    assert found["sysresp_controller_gaps_total"][()] == 1
    assert found["sysresp_controller_blind_seconds_total"][()] == 0.75
    assert found["sysresp_controller_self_restarts_total"][()] == 1
    assert found["sysresp_controller_exits_total"] == {("live",): 2, ("journal",): 0, ("count",): 0}
    assert found["sysresp_controller_event_lag_seconds_count"][()] == 2
    assert found["sysresp_controller_troubled"][()] == 0
    assert found["sysresp_ledger_readable"][()] == 1


def test_it_works_without_a_controller_and_says_so(world: World) -> None:
    found = said(world)
    assert found["sysresp_controller_up"] == {(): 0}
    assert found["sysresp_ledger_readable"] == {(): 0}
    assert "sysresp_service_exits_total" not in found
    assert found["sysresp_service_restarts_total"]["shop", "web", WEB] == 0
    whole(world)
    world.manager.set_state("sysresp.service", "inactive")
    found = said(world)
    assert found["sysresp_controller_up"] == {(): 0}
    assert found["sysresp_service_failures_total"]  # what was counted stays true
    assert found["sysresp_incidents_open"][("shop",)] == 1
    for name in ("sysresp_probe_healthy", "sysresp_probe_success", "sysresp_controller_wakeups_total"):
        assert name not in found


def test_a_controller_that_cannot_write_says_so(world: World) -> None:
    whole(world)
    own = world.manager.set_state("sysresp.service", "active", "running")
    own.extra["StatusText"] = "5 units are looked after; cannot write the ledger: disk full"
    assert said(world)["sysresp_controller_troubled"] == {(): 1}


def test_a_ledger_that_cannot_be_read_takes_only_its_part(world: World) -> None:
    whole(world)
    world.ledger.close()
    path = Path(world.ledger._path)
    path.write_bytes(b"nonsense" * 1000)
    found = said(world)
    assert found["sysresp_ledger_readable"] == {(): 0}
    assert found["sysresp_controller_up"] == {(): 1}
    assert "sysresp_incidents_open" not in found


def test_a_scrape_writes_nothing(world: World) -> None:
    whole(world)
    directory = Path(world.ledger._path).parent
    before = {p.name: p.stat().st_mtime_ns for p in directory.iterdir()}
    paths = set(world.files.files)
    world.run("metrics")
    assert {p.name: p.stat().st_mtime_ns for p in directory.iterdir()} == before
    assert set(world.files.files) == paths


def test_formats(world: World) -> None:
    whole(world)
    found = json.loads(world.run("metrics", "--format", "json"))
    assert found["version"] == 1
    by_name = {one["name"]: one for one in found["metrics"]}
    assert set(by_name) == set(METRICS)
    assert {"labels": {"project": "shop"}, "value": 1} in by_name["sysresp_incidents_open"]["samples"]
    lag = by_name["sysresp_controller_event_lag_seconds"]["samples"][0]["value"]
    assert lag["buckets"]["+Inf"] == 2
    text = world.run("metrics", "--format", "prometheus")
    assert "# EOF" not in text
    names = {one.name for one in prometheus_text(text)}
    assert {"sysresp_controller_up", "sysresp_service_state", "sysresp_build_info"} <= names
    assert "no format" in world.run("metrics", "--format", "xml", status=2)


def test_a_textfile_is_put_there_at_once(world: World) -> None:
    whole(world)
    assert world.run("metrics", "--textfile", "/var/lib/node/sysresp.prom") == ""
    content = world.files.read("/var/lib/node/sysresp.prom")
    assert content is not None
    assert any(one.name == "sysresp_controller_up" for one in prometheus_text(content.decode()))


def test_without_the_library_it_says_how_to_get_it() -> None:
    program = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "from sysresp.cli import metrics\n"
        "from sysresp.errors import SysrespError\n"
        "try: metrics.encoder()\n"
        "except SysrespError as error: print(error.message, error.hint)\n"
        "print(metrics.encoded([], 'json').decode())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=TOP, capture_output=True, text=True, check=True
    )
    assert "not installed here" in done.stdout
    assert "apt install python3-prometheus-client" in done.stdout
    assert '"metrics": []' in done.stdout


def test_every_state_of_status_is_one_of_ours() -> None:
    source = Path(rows.__file__).read_text() + (TOP / "sysresp/cli/remembered.py").read_text()
    words = set(re.findall(r'row\.set\(\s*"([a-z ]+)"', source)) | {"listening", "waiting", "cooling down"}
    known = set(metric_families._STATE_OF)
    by_level = {"running"}  # and what systemd calls it, when it is up or on its way
    assert words - known - by_level == set()
    assert set(metric_families._STATE_OF.values()) | {"running"} == set(STATES)


WILD = st.text(min_size=0, max_size=20) | st.sampled_from(
    ['a"b', "a\\b", "a\nb", "a\rb", "a{b}", "\ud800", "é", "\x00", "# EOF", "a,b=c", "\u2028", "x" * 600]
)
NUMBER = st.floats(0, 1e12) | st.integers(0, 2**53)


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """Snapshots as nobody would want them."""
    found = []
    for _ in range(draw(st.integers(0, 4))):
        seen = rows.Observed(draw(WILD), draw(WILD), draw(WILD), True, True, active="active")
        row = rows.Row(draw(WILD), seen)
        row.set(draw(WILD), draw(st.sampled_from((rows.OK, rows.BUSY, rows.OFF, rows.BAD))))
        row.restarts, row.since, row.healthy = draw(st.integers(0, 9)), draw(NUMBER), draw(st.booleans())
        row.next_start, row.wait = draw(st.none() | NUMBER), draw(WILD)
        found.append(row)
    names = st.sampled_from(("exits", "failures", "gave-up", "sources", "incidents", "messages", "lag"))
    units = st.sampled_from([row.observed.name for row in found] or [""]) | WILD
    return Snapshot(
        draw(NUMBER),
        draw(WILD),
        tuple(found),
        draw(st.dictionaries(WILD, st.integers(0, 99), max_size=3)),
        tuple(draw(st.lists(WILD, max_size=3))),
        counts=tuple(draw(st.lists(st.builds(Count, names, units, WILD, NUMBER), max_size=8))),
        open=draw(st.dictionaries(units, st.integers(0, 9), max_size=3)),
        queues=draw(st.dictionaries(WILD, st.builds(Queue, st.integers(0, 9), NUMBER), max_size=3)),
        is_readable=draw(st.booleans()),
    )


@given(snapshots())
def test_hostile_names_break_no_format(seen: Snapshot) -> None:
    found = families(seen)
    text = metrics.encoded(found, "openmetrics").decode()
    assert list(openmetrics(text))
    assert list(prometheus_text(metrics.encoded(found, "prometheus").decode()))
    assert json.loads(metrics.encoded(found, "json"))
    samples = [line for line in text.splitlines() if not line.startswith("#")]
    assert len({line.rpartition(" ")[0] for line in samples}) == len(samples)
    assert all(len(label) <= 256 * 10 for one in found for labels, _ in one.samples for label in labels)


@pytest.mark.prometheus
def test_promtool_has_nothing_to_say(world: World) -> None:
    whole(world)
    program = prometheus()
    assert program is not None
    done = subprocess.run(
        [program / "promtool", "check", "metrics"],
        input=world.run("metrics", "--format", "prometheus"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
