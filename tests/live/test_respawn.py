"""The controller replaces itself through systemd: nothing is missed, and no service notices."""

from __future__ import annotations

import os
import random
import re
import time
from statistics import median

import pytest

from tests.live.conftest import CHECKOUT, Box
from tests.live.storms import UNIT, Storm, enable, is_up, query
from tests.live.until import until

pytestmark = [pytest.mark.live, pytest.mark.slow]

TIMES = 100 if os.environ.get("SYSRESP_FULL") else 8
CALM = '[services.calm]\ncommand = ["/bin/sleep", "infinity"]\ninstances = 50\n'
HEALTHY = [f"calm@{n}" for n in range(1, 51)]


def notes(box: Box, kind: str) -> list[str]:
    return [text for (text,) in query(box, "SELECT text FROM note WHERE kind = ? ORDER BY id", kind)]


def main_pids(box: Box, project: str) -> str:
    units = [f"{project}-{name}.service" for name in HEALTHY]
    return box.systemctl("show", "-p", "MainPID", "--value", *units).stdout


def test_restarts_of_itself_in_a_storm(arena: Box) -> None:
    storm = Storm(arena, 100 if TIMES == 100 else 40, (1.0, 2.0), random.randrange(2**32))
    storm.apply()
    path = arena.write("/etc/sysresp/healthy.toml", f'project = "healthy"\n{CALM}')
    arena.sysresp("apply", path, check=True)
    enable(arena)
    storm.begin()
    pids = main_pids(arena, "healthy")
    own: list[str] = []
    for _ in range(TIMES):
        arena.sysresp("controller", "restart", check=True)
        own.append(arena.show(UNIT, "MainPID"))
        assert main_pids(arena, "healthy") == pids
    truth = storm.settle()
    found = storm.compared(truth)
    assert len(set(own)) == TIMES
    assert not found.missing, storm.dump(found)
    assert not found.extra, storm.dump(found)
    gaps = [float(m[1]) for text in notes(arena, "gap") if (m := re.search(r"blind for ([0-9.]+) s", text))]
    assert len(gaps) >= TIMES
    print(
        f"\nsystemd {arena.version}, seed {storm.seed}: {TIMES} restarts, {found.runs} exits, "
        f"blind for {median(gaps):.3f}s (median), {max(gaps):.3f}s at most"
    )


def test_an_upgrade_of_its_code_is_followed_once(arena: Box) -> None:
    """It restarts itself when the code on disk has changed, after the last file, and then stays."""
    arena.run(["mkdir", "-p", "/opt/app"], check=True)
    arena.run(["cp", "-r", f"{CHECKOUT}/sysresp", f"{CHECKOUT}/templates", "/opt/app"], check=True)
    arena.write(f"/etc/systemd/system/{UNIT}.d/app.conf", "[Service]\nEnvironment=PYTHONPATH=/opt/app\n")
    arena.systemctl("daemon-reload")
    arena.sysresp("controller", "enable", check=True, env={"PYTHONPATH": "/opt/app"})
    before = arena.show(UNIT, "MainPID")
    modules = sorted(arena.path("/opt/app/sysresp").rglob("*.py"))
    assert len(modules) > 100
    for module in modules:  # as a package manager does: every file another one
        text = module.read_text()
        new = module.with_suffix(".new")
        new.write_text(f"{text}\n")
        new.rename(module)
    until(
        lambda: arena.show(UNIT, "MainPID") not in (before, "0") and is_up(arena), "it restarts itself", 15
    )
    after = arena.show(UNIT, "MainPID")
    until(lambda: notes(arena, "self-restart"), "its successor says so")
    # A restart that is not due would come within the time that the code must be quiet for.
    age = "ActiveEnterTimestampMonotonic"
    until(lambda: time.monotonic() - int(arena.show(UNIT, age)) / 1e6 > 5, "it has run for a while", 15)
    assert arena.show(UNIT, "MainPID") == after
    assert len(notes(arena, "self-restart")) == 1
    assert "code" in notes(arena, "self-restart")[0]
