"""`report` and `graph` on a booted systemd: real programs that die with real tracebacks."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.live.conftest import Box
from tests.live.storms import enable, is_up, query
from tests.live.until import until

pytestmark = pytest.mark.live

PYTHON = """\
import os, sys, time
def take(items, n):
    return items[n]
while not os.path.exists("/run/crash"):
    time.sleep(0.05)
take([1, 2], os.getpid())
"""
NODE = """\
const fs = require("fs");
function take(items, n) { return items[n].name; }
setInterval(() => { if (fs.existsSync("/run/crash")) take([], process.pid); }, 50);
"""


def report(box: Box) -> dict[str, dict[str, Any]]:
    done = box.sysresp("report", "--json", "--since", "1h", check=True)
    return {one["name"]: one for one in json.loads(done.stdout)["services"]}


def test_tracebacks_of_real_programs(arena: Box) -> None:
    box = arena
    programs = {"python": ("/usr/bin/python3", PYTHON, "IndexError")}
    if box.run(["sh", "-c", "command -v node"]).returncode == 0:
        programs["node"] = ("node", NODE, "TypeError")
    text = 'project = "shop"\n[services.calm]\ncommand = ["/usr/bin/sleep", "infinity"]\n'
    for name, (program, source, _) in programs.items():
        box.write(f"/srv/{name}.src", source)
        text += f'[services.{name}]\ncommand = ["/usr/bin/env", "{program}", "/srv/{name}.src"]\n'
        text += 'requires = ["calm"]\nrestart = { when = "always", delay = "200ms" }\n'
    box.write("/srv/services.toml", text)
    enable(box)
    until(lambda: is_up(box), "the controller is ready")
    box.sysresp("apply", "/srv/services.toml", "--settle", "0", check=True)
    box.write("/run/crash", "")
    count = "SELECT count(*) FROM exit WHERE unit = ?"
    for name in programs:
        until(
            lambda name=name: query(box, count, f"shop-{name}.service")[0][0] >= 3,
            f"{name} has crashed 3 times",
        )
    box.path("/run/crash").unlink()

    def told() -> dict[str, dict[str, Any]]:
        """Return the report once journald has all of it."""
        found = report(box)
        is_whole = all(
            sum(one["count"] for one in found[name]["tracebacks"]) == found[name]["failures"]
            for name in programs
        )
        return found if is_whole else {}

    found = until(told, "each failure has its traceback")
    for name, (_, _, kind) in programs.items():
        one = found[name]
        assert len(one["tracebacks"]) == 1, one["tracebacks"]
        assert kind in one["tracebacks"][0]["what"]
        assert "in take" in one["tracebacks"][0]["what"]
        assert [cause["what"] for cause in one["causes"]] == ["exit status 1"]
        assert one["failures"] == one["ends"] >= 3
        assert 0 < one["availability"] < 1
        assert one["mttr_sec"] >= 0.2
        assert one["up_sec"] > 0 < one["down_sec"]
    calm = found["calm"]
    assert (calm["availability"], calm["failures"], calm["down_sec"]) == (1, 0, 0)
    assert calm["slowest_start"]["sec"] < 5
    tree = box.sysresp("graph", check=True).stdout.splitlines()
    assert [line.split(":")[0] for line in tree] == [
        word for name in sorted(programs, reverse=True) for word in (name, "  calm")
    ] or "  calm: running" in tree
    page = box.sysresp("report", "--html", "-", check=True).stdout
    assert page.count("<svg") == 1 + len(programs)
