"""The exporter under the real Prometheus: nothing runs until it asks, the shipped rules fire and resolve."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus_text

from sysresp.cli.exporter_units import ACCOUNT, LISTEN, SOCKET, TEXTFILE_UNIT, TIMER, UNIT
from tests.live.conftest import PROMETHEUS, TOP, USER, Box
from tests.live.storms import enable
from tests.live.until import until

pytestmark = pytest.mark.live

RULES = TOP / "packaging/prometheus/sysresp.rules.yml"
NODE = "/var/lib/node"
WEB = "127.0.0.1:9919"
CONFIG = f"""
global: {{ scrape_interval: 250ms, evaluation_interval: 250ms }}
rule_files: [/run/prom/rules.yml]
scrape_configs:
  - job_name: sysresp
    static_configs: [{{ targets: ["{LISTEN}"] }}]
"""
SERVICES = """
[services.web]
command = ["/bin/sleep", "infinity"]
health = { exec = ["/bin/true"], interval = "1s", timeout = "1s" }
[services.broken]
command = ["/bin/sh", "-c", "test -e /run/mended && exec sleep infinity; exit 3"]
restart = { when = "on-failure", delay = "50ms", attempts = 2, within = "1min" }
settle = "0s"
ignore_start_failure = true
"""
GET = """
import http.client, sys
asked = http.client.HTTPConnection(sys.argv[1], timeout=30)
asked.request(sys.argv[2], sys.argv[3], headers=dict([sys.argv[4:6]] if sys.argv[4:] else []))
answer = asked.getresponse()
print(answer.status, answer.getheader("Content-Type"))
sys.stdout.write(answer.read().decode())
"""


def get(box: Box, address: str, path: str, method: str = "GET", *header: str) -> tuple[int, str, str]:
    """Ask inside, and return status, content type and body."""
    done = box.run(["/usr/bin/python3", "-I", "-c", GET, address, method, path, *header])
    if done.returncode:
        return 0, "", done.stderr
    first, _, body = done.stdout.partition("\n")
    status, _, kind = first.partition(" ")
    return int(status), kind, body


def firing(box: Box) -> set[tuple[str, str]]:
    """Return the alerts that Prometheus has firing: rule and unit."""
    _, _, body = get(box, WEB, "/api/v1/alerts")
    try:
        found: list[Any] = json.loads(body)["data"]["alerts"]
    except (ValueError, KeyError):
        return set()
    return {
        (one["labels"]["alertname"], one["labels"].get("unit", ""))
        for one in found
        if one["state"] == "firing"
    }


def processes(box: Box) -> list[str]:
    """Return the processes of the exporter's unit, by its control group."""
    group = box.show(UNIT, "ControlGroup")
    done = box.run(["cat", f"/sys/fs/cgroup{group}/cgroup.procs"]) if group else None
    return done.stdout.split() if done is not None and done.returncode == 0 else []


def look_at_what_is_served(box: Box) -> None:
    """Ask as a client may, and as it may not."""
    status, kind, body = get(box, LISTEN, "/metrics", "GET", "Accept", "application/openmetrics-text")
    assert status == 200, body
    assert kind.startswith("application/openmetrics-text")
    found = {one.name: one for one in openmetrics(body)}
    states = {
        (sample.labels["service"], sample.labels["sysresp_service_state"])
        for sample in found["sysresp_service_state"].samples
        if sample.value
    }
    assert states == {("web", "running"), ("broken", "failed")}
    assert found["sysresp_controller_up"].samples[0].value == 1
    assert found["sysresp_ledger_readable"].samples[0].value == 1
    values = {sample.name: sample.value for one in found.values() for sample in one.samples}
    failed = values["sysresp_service_failures_total"]
    assert values["sysresp_controller_event_lag_seconds_count"] == failed >= 2
    assert values["sysresp_controller_event_lag_seconds_sum"] < 2 * failed
    until(lambda: "\nsysresp_probe_latency_seconds{" in get(box, LISTEN, "/metrics")[2], "the probe")
    assert get(box, LISTEN, "/metrics", "HEAD")[::2] == (200, "")
    assert get(box, LISTEN, "/")[0] == 404
    assert get(box, LISTEN, "/metrics", "POST")[0] == 405
    report = box.run(["systemd-analyze", "security", "--no-pager", UNIT], check=True).stdout
    score = re.search(r"exposure level for \S+: ([0-9.]+)", report)
    assert score, report
    assert float(score[1]) <= 1.5, report


def look_at_what_is_written(box: Box) -> None:
    """Read the textfile as its collector does."""
    text = box.run(["cat", f"{NODE}/sysresp.prom"], check=True).stdout
    found = {one.name: one for one in prometheus_text(text)}
    assert found["sysresp_controller_up"].samples[0].value == 1
    assert box.show(TIMER, "ActiveState") == "active"
    assert box.show(TEXTFILE_UNIT, "Result") == "success"
    mode = box.run(["stat", "-L", "-c", "%a %U", f"{NODE}/sysresp.prom"], check=True).stdout.strip()
    assert mode == f"644 {ACCOUNT}"


@pytest.fixture
def applied(box: Box) -> Iterator[Box]:
    """A box with a controller, the exporter, and two services, of which one fails."""
    enable(box, "WatchdogSec=3s\n")  # it tells of its probes when it tells that it is alive
    path = box.write(f"/etc/sysresp/{box.project}.toml", f'project = "{box.project}"\n{SERVICES}')
    box.sysresp("apply", path)
    box.run(["mkdir", "-p", NODE], check=True)
    done = box.sysresp("metrics", "enable", "--listen", LISTEN, "--textfile", NODE)
    assert done.returncode == 0, done.stderr
    yield box
    box.run(["rm", "-rf", "/run/prom", "/run/mended", NODE])


def idle_after(box: Box, seconds: int) -> None:
    """Let the exporter end sooner than it does by itself."""
    words = f"{box.python} -P -m sysresp metrics serve --idle {seconds}"
    box.write(f"/etc/systemd/system/{UNIT}.d/idle.conf", f"[Service]\nExecStart=\nExecStart={words}\n")
    box.systemctl("daemon-reload")


@pytest.mark.prometheus
def test_the_rules_fire_and_resolve_under_prometheus(applied: Box) -> None:
    box = applied
    idle_after(box, 1)
    broken = f"{box.project}-broken.service"
    until(lambda: box.show(broken, "ActiveState") == "failed", "it gives up")
    assert box.show(SOCKET, "ActiveState") == "active"
    assert (processes(box), box.show(UNIT, "MainPID")) == ([], "0")

    look_at_what_is_served(box)
    look_at_what_is_written(box)
    until(lambda: not processes(box), "the exporter ends by itself", 30)

    box.write("/run/prom/prometheus.yml", CONFIG)
    # The expressions are those that are shipped; only nobody waits for minutes.
    rules = re.sub(r"for: \d+[ms]", "for: 1s", RULES.read_text())
    box.write("/run/prom/rules.yml", rules)
    box.run(
        [
            *("systemd-run", "--unit=prom", "--collect", f"{PROMETHEUS}/prometheus"),
            *("--config.file=/run/prom/prometheus.yml", "--storage.tsdb.path=/run/prom/data"),
            f"--web.listen-address={WEB}",
        ],
        check=True,
    )
    alert = ("SysrespServiceFailed", broken)
    until(lambda: alert in firing(box), "the alert", 30)
    assert {unit for _, unit in firing(box)} == {broken}
    assert processes(box)
    box.write("/run/mended", "")
    box.systemctl("reset-failed", broken)
    box.systemctl("start", broken)
    until(lambda: alert not in firing(box), "its end", 30)
    box.systemctl("stop", "sysresp.service")
    until(lambda: ("SysrespControllerDown", "") in firing(box), "the controller is down", 30)
    box.systemctl("stop", "prom.service")
    until(lambda: not processes(box), "the exporter ends by itself", 30)
    assert box.show(SOCKET, "ActiveState") == "active"
    assert box.show(UNIT, "Result") == "success"

    assert box.sysresp("metrics", "disable").returncode == 0
    assert box.show(SOCKET, "LoadState") == box.show(TIMER, "LoadState") == "not-found"
    assert box.run(["ls", "-A", NODE]).stdout == ""


def test_ones_own_services(box: Box) -> None:
    done = box.sysresp("metrics", "enable", "--user", user=USER)
    assert done.returncode == 0, done.stderr
    status, _, body = get(box, LISTEN, "/metrics")
    assert status == 200, body
    assert "sysresp_controller_up 0.0" in body
    assert box.sysresp("metrics", "disable", "--user", user=USER).returncode == 0
