"""The exporter's units as text, and what is shipped for Prometheus and Grafana."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from sysresp.cli import exporter_units
from sysresp.cli.exporter_units import ACCOUNT, LISTEN, SOCKET, TEXTFILE_UNIT, TIMER, UNIT, Wish
from sysresp.cli.metric_table import METRICS, STATES, Kind
from sysresp.controller import own
from sysresp.errors import Severity
from sysresp.model import Scope
from sysresp.spec.parse import parse
from sysresp.units.desired import Desired
from sysresp.units.render import render
from sysresp.units.text import parse as entries
from tests.conftest import prometheus

PACKAGING = Path(__file__).parent.parent / "packaging"
needs_packaging = pytest.mark.skipif(not PACKAGING.is_dir(), reason="a package build has no packaging/")
BOTH = Wish(LISTEN, "/run/sysresp-metrics/sysresp.prom", "/var/lib/node/sysresp.prom")


def rendered(wish: Wish, scope: Scope = Scope.SYSTEM, version: int = 252) -> Desired:
    spec, problems = parse(
        exporter_units.layers(("/opt/py",), {"PYTHONPATH": "/srv/x"}, wish, scope), scope=scope
    )
    assert spec is not None, problems
    done = render(spec, version=version, scope=scope)
    assert not [p for p in done.problems if p.severity is Severity.ERROR]
    return done.desired


def lines(desired: Desired, unit: str) -> set[tuple[str, str]]:
    return {(name, value) for _, name, value in entries(desired.files[unit].text)}


@needs_packaging
@pytest.mark.parametrize("name", [UNIT, SOCKET])
def test_the_packages_units_are_made_of_the_same_definition(name: str) -> None:
    made = exporter_units.packaged()[name]
    assert (PACKAGING / "systemd" / name).read_text() == made, (
        "write them again: python -c 'from sysresp.cli import exporter_units; from pathlib import Path; "
        '[Path("packaging/systemd", n).write_text(t) for n, t in exporter_units.packaged().items()]\''
    )
    assert "X-Sysresp" not in made
    assert "sysresp-metrics.target" not in made
    assert ("WantedBy=sockets.target" in made) is (name == SOCKET)


@pytest.mark.parametrize("version", [247, 252, 254, 257])
@pytest.mark.parametrize("scope", Scope)
def test_only_what_is_asked_for_is_there(scope: Scope, version: int) -> None:
    both = rendered(BOTH, scope, version)
    assert {UNIT, SOCKET, TEXTFILE_UNIT, TIMER} <= set(both.files)
    served = rendered(Wish(LISTEN), scope, version)
    assert (SOCKET in served.files, TIMER in served.files) == (True, False)
    written = rendered(BOTH._replace(listen=""), scope, version)
    assert (SOCKET in written.files, TIMER in written.files) == (False, True)
    found = lines(both, UNIT)
    assert ("StartLimitIntervalSec", "0") in found  # each scrape may start it
    assert ("RestrictAddressFamilies", "AF_UNIX") in found
    users = {value for name, value in found if name == "User"}
    assert users == ({ACCOUNT} if scope is Scope.SYSTEM else set())
    assert (("PrivateNetwork", "yes") in found) is (scope is Scope.SYSTEM)
    assert ("ListenStream", LISTEN) in lines(both, SOCKET)
    assert ("RuntimeDirectory", "sysresp-metrics") in lines(both, TEXTFILE_UNIT)


@pytest.mark.parametrize("name", [UNIT, TEXTFILE_UNIT])
def test_the_exposure_is_low(name: str, tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("there is no systemd-analyze here")
    file = tmp_path / name
    file.write_text(rendered(BOTH).files[name].text)
    words = [program, "security", "--offline=yes", "--no-pager", "--threshold=15", str(file)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_its_project_is_nobody_else_s_and_never_looked_after() -> None:
    assert exporter_units.PROJECT in own.PROJECTS
    source = (Path(own.__file__).parent.parent / "cli/daemon.py").read_text()
    assert f'{{"{own.PROJECT}", "{exporter_units.PROJECT}"}}' in source  # spelt out: it does not import this


def metric_names(expr: str) -> set[str]:
    """Return the names in an expression that are metrics: what stands before labels, a range, or alone."""
    bare = re.sub(r"\{[^}]*\}|\"[^\"]*\"", "{}", expr)
    bare = re.sub(r"\b(?:by|without|on|ignoring|group_left|group_right) *\([^)]*\)", "", bare)
    return set(re.findall(r"\b[a-z]\w*\b(?! *\()", bare)) - {"bool", "and", "or", "unless", "m", "h", "d"}


def series() -> set[str]:
    """Return the names that samples have."""
    ends = {Kind.HISTOGRAM: ("_bucket", "_sum", "_count"), Kind.INFO: ("_info",)}
    return {f"{name}{end}" for name, metric in METRICS.items() for end in ends.get(metric.kind, ("",))}


def expressions() -> dict[str, str]:
    rules = (PACKAGING / "prometheus/sysresp.rules.yml").read_text()
    found = {f"rule {n}": one for n, one in enumerate(re.findall(r"^ +expr: (.+)$", rules, re.MULTILINE))}
    board = json.loads((PACKAGING / "grafana/sysresp.json").read_text())
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            found[f"{panel['title']} {panel['id']} {target['refId']}"] = target["expr"]
    for one in (*board["templating"]["list"], *board["annotations"]["list"]):
        query = one.get("definition") or one.get("expr", "")
        if query:
            found[one["name"]] = re.sub(r"label_values\((.+), \w+\)", r"\1", query)
    return found


@needs_packaging
def test_dashboard_and_rules_use_only_what_exists() -> None:
    asked = expressions()
    assert len(asked) > 40
    known = series()
    for where, expr in asked.items():
        names = {name for name in metric_names(expr) if not name.isdigit()}
        assert names, where
        assert names <= known, f"{where}: {names - known}"
        for states in re.findall(r'sysresp_service_state=~?"([^"$]+)"', expr):
            assert set(states.split("|")) <= set(STATES), where
        labels = set(re.findall(r'[{,] *(\w+)=~?"', expr))
        labels |= {w for m in re.findall(r"(?:by|without) *\(([^)]*)\)", expr) for w in m.split(", ")}
        has = {label for name in names for label in METRICS[_family(name)].labels}
        assert labels <= has | {"instance", "le", "sysresp_service_state"}, where


def _family(name: str) -> str:
    return name if name in METRICS else re.sub(r"_(bucket|sum|count|info)$", "", name)


@needs_packaging
def test_every_metric_is_on_the_dashboard() -> None:
    used = {_family(name) for expr in expressions().values() for name in metric_names(expr)}
    missing = set(METRICS) - used
    assert missing <= {"sysresp_probe_success", "sysresp_probe_last_timestamp_seconds"}


@needs_packaging
@pytest.mark.prometheus
@pytest.mark.parametrize(
    "words", [["check", "rules", "sysresp.rules.yml"], ["test", "rules", "sysresp.rules.test.yml"]]
)
def test_promtool_takes_the_rules(words: list[str]) -> None:
    program = prometheus()
    assert program is not None
    done = subprocess.run(
        [program / "promtool", *words],
        cwd=PACKAGING / "prometheus",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout


@needs_packaging
def test_every_rule_is_tested() -> None:
    rules = set(re.findall(r"alert: (\w+)", (PACKAGING / "prometheus/sysresp.rules.yml").read_text()))
    tests = (PACKAGING / "prometheus/sysresp.rules.test.yml").read_text()
    fired = set(re.findall(r"alertname: (\w+)\n +eval_time: \w+\n +exp_alerts:\n", tests))
    assert rules == fired
