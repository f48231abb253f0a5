"""Eight instances behind one socket, under load: changed a few at a time, and nobody is turned away.

The program and the client are in tests/live/bin: the program notes the moments at which it is up and down,
the client counts answers and failures. What is claimed of time is read from those notes alone.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from sysresp.errors import Exit
from tests.live.conftest import Box
from tests.live.installed import install_program, write_file

pytestmark = pytest.mark.live

PORT = 18200
SETTLE = "600ms"
NUMBERS = tuple(str(number) for number in range(1, 9))


def served(
    box: Box, version: str, instances: object = 8, *, rollout: str = "parallel = 2", more: str = ""
) -> str:
    """Write a file of these instances of this version, and return its path."""
    return write_file(
        box,
        f"""
[services.web]
command = ["/usr/local/bin/serve", "/run/{box.project}/notes", "{{instance}}", "{version}"]
kind = "notify"
instances = {json.dumps(instances)}
listen = "127.0.0.1:{PORT}"
rollout = {{ {rollout} }}
settle = "{SETTLE}"
restart = {{ when = "on-failure", delay = "200ms" }}
{more}
""",
    )


def unit(box: Box, instance: str) -> str:
    return f"{box.project}-web@{instance}.service"


def prepare(box: Box) -> None:
    install_program(box, "serve")
    install_program(box, "hammer")
    box.run(["mkdir", "-p", f"/run/{box.project}"], check=True)


@contextmanager
def load(box: Box) -> Iterator[dict[str, Any]]:
    """Let the client ask all the time; the dict that is given is filled with its report at the end."""
    report, unit = f"/run/{box.project}/report", f"{box.project}-hammer.service"
    box.path(report).unlink(missing_ok=True)
    words = ["--quiet", "--collect", f"--unit={unit}", "/usr/local/bin/hammer", str(PORT), report]
    box.run(["systemd-run", *words], check=True)
    deadline = time.monotonic() + 30
    while not box.path(report).exists():
        assert time.monotonic() < deadline, box.run(["systemctl", "status", unit]).stdout
    found: dict[str, Any] = {}
    yield found
    box.systemctl("stop", unit)
    found |= json.loads(box.read(report))


def notes(box: Box) -> list[tuple[str, str, str, int]]:
    """Return (up or down, instance, version, moment in ns) in the order of time."""
    rows = [line.split() for line in box.read(f"/run/{box.project}/notes").splitlines()]
    return sorted(((what, one, version, int(at)) for what, one, version, at in rows), key=lambda r: r[3])


def most_down(rows: list[tuple[str, str, str, int]]) -> int:
    """Return how many of those that had been up were down at the same time, at most."""
    down: set[str] = set()
    most = 0
    for what, one, _, _ in rows:
        if what == "down":
            down.add(one)
        else:
            down.discard(one)
        most = max(most, len(down))
    return most


def pids(box: Box, instances: tuple[str, ...] = NUMBERS) -> dict[str, str]:
    units = [f"{box.project}-web@{one}.service" for one in instances]
    return dict(
        zip(instances, box.systemctl("show", "--value", "-p", "MainPID", *units).stdout.split(), strict=True)
    )


def socket_run(box: Box) -> str:
    assert box.show(f"{box.project}-web.socket", "ActiveState") == "active"
    return box.show(f"{box.project}-web.socket", "InvocationID")


@pytest.mark.parametrize(
    ("rollout", "parallel"), [("parallel = 1", 1), ('parallel = 3, pause = "200ms"', 3)]
)
def test_nobody_is_turned_away(box: Box, rollout: str, parallel: int) -> None:
    prepare(box)
    box.sysresp("apply", served(box, "one", rollout=rollout), check=True)
    before, socket = pids(box), socket_run(box)
    with load(box) as report:
        plan = box.sysresp("plan", served(box, "two", rollout=rollout), check=True)
        assert f"web  8 instances, {parallel} at a time; each batch settles for 0.6s" in plan.stdout
        done = box.sysresp("apply", "--settle", SETTLE, served(box, "two", rollout=rollout))
    assert done.returncode == Exit.OK, done.stdout + done.stderr
    assert report["failures"] == []
    assert sum(report["answers"].values()) > 200
    assert {said.split()[1] for said in report["answers"]} == {"one", "two"}
    assert {said.split()[0] for said in report["answers"]} == set(NUMBERS)
    rows = notes(box)
    assert 1 <= most_down(rows) <= parallel
    downs = [one for what, one, version, _ in rows if (what, version) == ("down", "one")]
    assert sorted(downs) == sorted(NUMBERS)
    assert sorted((what, one) for what, one, version, _ in rows if version == "two") == [
        ("up", one) for one in NUMBERS
    ]
    after = pids(box)
    assert all(after[one] not in {"0", before[one]} for one in NUMBERS)
    assert socket_run(box) == socket


@pytest.mark.parametrize("version", ["bad", "unready"])
def test_a_bad_release_gets_no_further_than_the_first_batch(box: Box, version: str) -> None:
    prepare(box)
    more = 'start_timeout = "2s"'
    box.sysresp("apply", served(box, "one", more=more), check=True)
    before, socket = pids(box), socket_run(box)
    with load(box) as report:
        done = box.sysresp("apply", "--settle", SETTLE, served(box, version, more=more))
    assert done.returncode == Exit.ROLLED_BACK, done.stdout + done.stderr
    assert f"{box.project}-web@1.service: " in done.stderr
    assert report["failures"] == []
    after = pids(box)
    for one in NUMBERS:
        if one in {"1", "2"}:
            assert after[one] not in {"0", before[one]}
        else:
            assert after[one] == before[one]
    assert socket_run(box) == socket
    assert {one for _, one, which, _ in notes(box) if which == version} <= {"1", "2"}
    again = box.sysresp("apply", served(box, "one", more=more), check=True)
    assert "nothing to do" in again.stdout


def test_scaling_touches_no_other_instance(box: Box) -> None:
    prepare(box)
    box.sysresp("apply", served(box, "one", 4), check=True)
    four = NUMBERS[:4]
    before, socket = pids(box, four), socket_run(box)
    with load(box) as report:
        box.sysresp("apply", served(box, "one", 8), check=True)
        assert pids(box, four) == before
        eight = pids(box)
        box.sysresp("apply", served(box, "one", 2), check=True)
    assert report["failures"] == []
    assert pids(box, NUMBERS[:2]) == {one: eight[one] for one in NUMBERS[:2]}
    assert box.show(f"{box.project}-web@3.service", "ActiveState") == "inactive"
    assert socket_run(box) == socket


def test_the_first_of_named_instances_may_go(box: Box) -> None:
    prepare(box)
    box.sysresp("apply", served(box, "one", ["eu", "us", "asia"]), check=True)
    before, socket = pids(box, ("us", "asia")), socket_run(box)
    with load(box) as report:
        box.sysresp("apply", served(box, "one", ["us", "asia"]), check=True)
    assert report["failures"] == []
    assert pids(box, ("us", "asia")) == before
    assert socket_run(box) == socket
    # The socket starts one of those that are left, if all of them are down.
    box.systemctl("stop", *(f"{box.project}-web@{one}.service" for one in ("us", "asia")))
    with load(box) as report:
        pass
    assert report["failures"] == []
    assert {said.split()[0] for said in report["answers"]} == {"us"}


def test_a_socket_that_one_instance_took_down_is_opened_again(box: Box) -> None:
    prepare(box)
    file = served(box, "one", 3)
    text = box.read(file).replace('delay = "200ms"', 'delay = "200ms", attempts = 1')
    box.sysresp("apply", box.write(file, text), check=True)
    box.run(["systemctl", "kill", "--signal=KILL", unit(box, "2")], check=True)
    deadline = time.monotonic() + 30
    while box.show(f"{box.project}-web.socket", "ActiveState") != "failed":
        assert time.monotonic() < deadline
    assert box.show(unit(box, "1"), "ActiveState") == "active"
    done = box.sysresp("apply", "--settle", SETTLE, file)
    assert done.returncode == Exit.OK, done.stdout + done.stderr
    assert socket_run(box)
    assert "0" not in pids(box, NUMBERS[:3]).values()
    with load(box) as report:
        pass
    assert report["failures"] == []


def test_a_socket_is_added_to_instances_that_run(box: Box) -> None:
    prepare(box)
    plain = '[services.web]\ncommand = ["/bin/sleep", "infinity"]\ninstances = 3\n'
    box.sysresp("apply", write_file(box, plain), check=True)
    done = box.sysresp("apply", "--settle", SETTLE, served(box, "one", 3))
    assert done.returncode == Exit.OK, done.stdout + done.stderr
    with load(box) as report:
        pass
    assert report["failures"] == []


def test_what_apply_restarts_is_no_attempt_of_the_service(box: Box) -> None:
    for version in range(4):
        file = write_file(
            box,
            f"""
[services.web]
command = ["/bin/sleep", "10000{version}"]
restart = {{ when = "on-failure", attempts = 2, within = "1h" }}
""",
        )
        done = box.sysresp("apply", "--settle", "200ms", file)
        assert done.returncode == Exit.OK, done.stdout + done.stderr
