"""What `check` says of a good file: the curves of its restarts, and what needs the controller."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sysresp.cli import main, preview
from sysresp.model import Health, ReadyBy, Restart
from sysresp.units.desired import Desired
from sysresp.units.render import render
from sysresp.units.supervision import delay
from tests.rendered import service, spec

# typer 0.7 knows only `autocompletion`, and warns that Click has renamed it.
pytestmark = pytest.mark.filterwarnings("ignore:'autocompletion' is renamed:DeprecationWarning")

GROWS = Restart(delay_sec=0.2, max_delay_sec=60, steps=8, attempts=9, cooldown_sec=900, reset_after_sec=120)


def made(version: int, restart: Restart, **keys: object) -> Desired:
    return render(spec(service(restart=restart, **keys)), version=version).desired


def said(version: int, restart: Restart, **keys: object) -> list[str]:
    return list(preview.lines(made(version, restart, **keys)))


def test_systemd_itself() -> None:
    assert said(257, GROWS) == [
        "web: restarts after 200ms, 408ms, 832ms, ... 1min (8 steps), then every 1min; "
        "reset after 2min of running; by systemd itself",
        "web: needs the controller for restart.then, restart.reset_after",
    ]


def test_the_controller() -> None:
    assert said(252, Restart(max_delay_sec=150, steps=1), health=Health(ReadyBy.TCP, "x:1")) == [
        "web: restarts after 1s, 2min 30s (1 step), then every 2min 30s; by the controller",
        "web: needs the controller for restart.max_delay, health; without it every restart waits 2min 30s",
    ]


def test_instances() -> None:
    curve, need = said(257, Restart(delay_sec=2, max_delay_sec=7200, jitter_sec=10), instances=("1", "2"))
    assert curve.startswith("shop-web@1.service: restarts after ")
    assert curve.endswith("then every 2h; by systemd itself; its other instances differ by their jitter")
    assert need == "web: needs the controller for restart.jitter; without it the first restart waits 12s"
    assert said(257, Restart(max_delay_sec=60), instances=("1", "2"))[0].startswith(
        "web: restarts after 1s,"
    )
    assert said(257, Restart(jitter_sec=10), instances=("1", "2")) == [
        "web: needs the controller for restart.jitter; without it every restart waits 11s"
    ]


def test_nothing_to_say() -> None:
    assert said(252, Restart()) == []
    assert said(257, Restart("no", max_delay_sec=60)) == []


@pytest.mark.parametrize("version", [252, 257])
def test_the_numbers(version: int) -> None:
    (found,) = preview.as_objects(made(version, GROWS))
    supervision = made(version, GROWS).supervision["shop-web.service"]
    assert found["restarts_after_sec"] == [round(delay(supervision, n), 6) for n in range(1, 10)]
    assert found["by"] == ("systemd" if version == 257 else "controller")
    assert (found["service"], found["unit"], found["reset_after_sec"]) == ("web", "shop-web.service", 120)


@pytest.mark.parametrize("strict", [[], ["--strict"]])
def test_they_are_notes(tmp_path: Path, strict: list[str]) -> None:
    file = tmp_path / "shop.toml"
    file.write_text(
        '[services.web]\ncommand = ["/bin/sleep", "9"]\n'
        'restart = { max_delay = "1min", attempts = 9, then = "cooldown 5min" }\n'
    )
    words = ["check", str(file), "--systemd-version", "252", *strict]
    done = CliRunner().invoke(main.app, words, prog_name="sysresp")
    assert done.exit_code == 0
    *_, need, last = done.output.splitlines()
    assert need.startswith("web: needs the controller for restart.max_delay, restart.then")
    assert last == "ok: 1 service, 3 units"
    found = json.loads(CliRunner().invoke(main.app, [*words, "--json"], prog_name="sysresp").stdout)
    assert found["backoff"][0]["restarts_after_sec"][-1] == 60
    assert found["needs_controller"] == {"web": ["restart.max_delay", "restart.then"]}
