"""A change of 20 services out of 25, killed again and again on real systemd, and two changes at once.

tests/live/rounds.py does it, inside the sandbox.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from sysresp.errors import Exit
from tests.live.conftest import Box
from tests.live.installed import snapshot, write_file

pytestmark = pytest.mark.live


def rounds(box: Box, *words: str) -> dict[str, Any]:
    try:
        done = box.run([box.python, "-m", "tests.live.rounds", *words], timeout=600.0)
    finally:
        box.clean()
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    print(json.dumps(found))
    assert found["problems"] == []
    return found


@pytest.mark.slow
def test_killed_at_200_points_and_40_instants(host_box: Box) -> None:
    found = rounds(host_box, "kill", "200", "40")
    assert found["points"] >= 200, "each point is another one"
    assert found["killed"] >= 200
    assert min(found["applied"], found["rolled_back"]) >= 60
    assert found["found"] >= 60
    assert found["reads"] > 10_000


@pytest.mark.slow
@pytest.mark.trixie
def test_killed_on_debian_13(trixie_box: Box) -> None:
    found = rounds(trixie_box, "kill", "50", "10")
    assert found["killed"] >= 50
    assert min(found["applied"], found["rolled_back"]) >= 15


@pytest.mark.slow
def test_two_at_once_50_times(host_box: Box) -> None:
    found = rounds(host_box, "meet", "50")
    assert found["refused"] >= 15
    assert found["waited"] >= 15


TWO = """
[services.a]
command = ["/bin/sleep", "infinity"]
[services.b]
command = ["/bin/sleep", "infinity"]
"""
THREE = TWO.replace('"]', '"]\nnice = 3', 1) + '[services.c]\ncommand = ["/bin/sleep", "infinity"]\n'
PLACES = ("/etc/systemd/system", "/var/lib/sysresp")


@pytest.fixture
def disk(box: Box) -> Iterator[Box]:
    """A small disk of its own for the unit files, and one for the state."""
    box.sysresp("apply", "--settle", "0", write_file(box, TWO), check=True)
    for number, place in enumerate(PLACES):
        box.run(["cp", "-a", place, f"/run/copy{number}"], check=True)
        box.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=755", "tmpfs", place], check=True)
        box.run(["cp", "-a", f"/run/copy{number}/.", place], check=True)
    yield box
    box.systemctl("stop", f"{box.project}.target")
    for number, place in enumerate(PLACES):
        box.run(["umount", place], check=True)
        box.run(["rm", "-r", f"/run/copy{number}"], check=True)


def pids(box: Box) -> list[str]:
    return [box.show(f"{box.project}-{name}.service", "MainPID") for name in "ab"]


FILL = """
import sys
free = int(sys.argv[2])
with open(sys.argv[1] + "/fill", "wb", buffering=0) as file:
    try:
        while True:
            file.write(bytes(4096))
    except OSError:
        pass
    file.truncate(file.tell() // 4096 * 4096 - free * 4096)
"""


@pytest.mark.parametrize("place", PLACES)
def test_a_disk_that_is_full(disk: Box, place: str) -> None:
    running, before = pids(disk), snapshot(disk)
    refused = 0
    for free in (0, 1, 2, 3, 4):
        disk.run([disk.python, "-c", FILL, place, str(free)], check=True)
        filled = snapshot(disk)
        done = disk.sysresp("apply", "--settle", "0", write_file(disk, THREE))
        assert pids(disk)[1] == running[1]
        if done.returncode != Exit.OK:
            refused += 1
            assert done.returncode == Exit.FAILED
            assert f"cannot write {place}/" in done.stderr
            assert "No space left on device; nothing was changed" in done.stderr
            assert "make room on that file system" in done.stderr
            assert pids(disk) == running
            assert snapshot(disk) == filled
        disk.run(["rm", f"{place}/fill"], check=True)
    assert refused >= 2
    disk.sysresp("apply", "--settle", "0", write_file(disk, THREE), check=True)
    assert disk.show(f"{disk.project}-c.service", "ActiveState") == "active"
    assert snapshot(disk) != before


@pytest.mark.parametrize("place", PLACES)
def test_a_disk_that_is_read_only(disk: Box, place: str) -> None:
    running, before = pids(disk), snapshot(disk)
    disk.run(["mount", "-o", "remount,ro", place], check=True)
    done = disk.sysresp("apply", "--settle", "0", write_file(disk, THREE))
    assert done.returncode == Exit.FAILED
    assert f"cannot write {place}/" in done.stderr
    assert "Read-only file system; nothing was changed" in done.stderr
    assert (pids(disk), snapshot(disk)) == (running, before)
    disk.run(["mount", "-o", "remount,rw", place], check=True)
    disk.sysresp("apply", "--settle", "0", write_file(disk, THREE), check=True)
    assert disk.show(f"{disk.project}-c.service", "ActiveState") == "active"
