"""`sysresp logs` on a booted systemd: exits and restarts among the lines, clean ends."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.live.conftest import Box
from tests.live.installed import write_file
from tests.live.until import until

pytestmark = pytest.mark.live

TEXT = """
[services.talk]
command = ["/bin/sh", "-c", "printf 'one\\\\n\\\\033[31mred\\\\033[0m \\\\033[2Jgone\\\\n'; exec sleep 9999"]
[services.dies]
command = ["/bin/sh", "-c", "echo dying; sleep .3; exit 3"]
restart = { when = "on-failure", delay = "10ms", attempts = 2 }
[services.many]
command = ["/bin/sh", "-c", "i=0; while [ $i -lt 500 ]; do echo $i; i=$((i+1)); done; exec sleep infinity"]
instances = 4
"""


@pytest.fixture
def shop(box: Box) -> Box:
    box.sysresp("apply", "--no-rollback", write_file(box, TEXT))
    until(lambda: box.show(f"{box.project}-dies.service", "ActiveState") == "failed", "dies has failed")
    return box


def lines(box: Box, *words: str) -> list[str]:
    """Return what is printed, without the times."""
    done = box.sysresp("logs", *words, check=True)
    return [line[16:] for line in done.stdout.splitlines()]


def test_exits_and_restarts_are_said_in_line(shop: Box) -> None:
    found = lines(shop, "dies")
    run = ["dies * started", "dies | dying", "dies * exit status 3"]
    # The order of what a process prints and of what systemd says of it is journald's.
    assert sorted(found[:3]) == sorted(run), found
    assert "dies * systemd starts it again (restart 1)" in found
    assert found.count("dies | dying") == 2
    assert any("repeated too quickly" in line for line in found if " * " in line), found


def test_all_services_in_one_stream(shop: Box) -> None:
    found = lines(shop, "-n", "0", "--since", "1h")
    assert found == []
    found = lines(shop, "--since", "1h")
    for n in range(1, 5):
        said = [line for line in found if line.startswith(f"many@{n} | ")]
        assert [line.partition(" | ")[2] for line in said] == [str(number) for number in range(500)]
    assert "talk   | red \\x1b[2Jgone" in found
    assert len(lines(shop, "many", "-n", "7")) == 7
    assert lines(shop, "many@2", "--grep", "^49[89]$", "-n", "1") == ["many@2 | 499"]


def test_json_has_the_facts(shop: Box) -> None:
    done = shop.sysresp("logs", "dies", "--json", check=True)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    ended = [one for one in found if one["kind"] == "exited"]
    assert [one["exit_code"] for one in ended] == [3, 3]
    said = [one for one in found if one["kind"] == "line"]
    assert {one["message"] for one in said} == {"dying"}
    assert len({one["invocation"] for one in ended}) == 2
    assert all(one["unit"] == f"{shop.project}-dies.service" for one in found)


def follow(box: Box, name: str, *words: str) -> str:
    """Start `logs -f NAME` as a service of its own, and return its unit."""
    unit = f"{box.project}-follow.service"
    env = ["-E", "PYTHONPATH=/srv/checkout", "-E", "PYTHONPYCACHEPREFIX=/tmp/pycache"]
    run = ["systemd-run", "--unit", unit, "-p", "RemainAfterExit=yes", *env, *words]
    box.run([*run, box.python, "-m", "sysresp", "logs", "-f", "-n", "0", name], check=True)
    until(lambda: any("--follow" in line for line in journalctls(box)), "journalctl follows")
    return unit


def journalctls(box: Box) -> list[str]:
    return box.run(["pgrep", "-a", "journalctl"]).stdout.split("\n")[:-1]


def test_following_tells_a_crash_and_ends_by_ctrl_c(shop: Box) -> None:
    out: Path = shop.path("/tmp/followed")
    unit = follow(shop, "talk", "-p", "StandardOutput=file:/tmp/followed")
    shop.systemctl("kill", "-s", "KILL", f"{shop.project}-talk.service")
    until(lambda: "killed by SIGKILL" in out.read_text(), "the crash is told")
    until(lambda: re.search(r"talk \| one\n", out.read_text()), "so is the new run")
    shop.systemctl("kill", "-s", "INT", unit)
    until(lambda: shop.show(unit, "SubState") == "exited", "it ends")
    assert shop.show(unit, "ExecMainStatus") == "0"
    assert journalctls(shop) == []


def test_following_loses_nothing(shop: Box) -> None:
    unit = follow(shop, "many", "-p", "StandardOutput=file:/tmp/all")
    names = [f"many@{n}" for n in range(1, 5)]
    shop.systemctl("restart", *(f"{shop.project}-{name}.service" for name in names))
    said = re.compile(r" (many@\d) \| (\d+)$", re.MULTILINE)

    def found() -> list[tuple[str, str]]:
        return said.findall(shop.read("/tmp/all"))

    until(lambda: len(found()) >= 2000, "all lines")
    for name in names:
        assert [number for who, number in found() if who == name] == [str(n) for n in range(500)]
    shop.systemctl("kill", "-s", "INT", unit)


def test_a_reader_that_goes_away_ends_it_at_once(shop: Box) -> None:
    """No line comes that could fail to be written."""
    unit = follow(shop, "many", "/bin/sh", "-c", '"$@" | read line', "sh")
    shop.systemctl("restart", f"{shop.project}-many@1.service")
    until(lambda: shop.show(unit, "SubState") == "exited", "it ends")
    assert journalctls(shop) == []
