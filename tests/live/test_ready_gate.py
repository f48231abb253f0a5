"""The ready gate: `After=` and `systemctl start` really wait, with no sysresp running.

Each proof has a service A that opens something late and notes when (tests/live/bin/late), and a service B
that requires A. systemd alone starts them; B must not have been started before A's note. The failing side: a
probe that never succeeds, and a main process that dies first, end the start job in time; B is not started.
"""

from __future__ import annotations

import time

import pytest

from tests.live.conftest import USER, Box
from tests.live.installed import install_program, install_text

pytestmark = pytest.mark.live

SLACK_SEC = 2.0  # over the probe's own timeout
USEC = 1_000_000


def assert_gate_held(box: Box, a: str, b: str, delay_sec: float) -> None:
    """B runs, and was started after A had opened, which was no earlier than the delay."""
    opened = int(box.read(f"/run/{a.removesuffix('.service')}/opened"))
    a_start = int(box.show(a, "ExecMainStartTimestampMonotonic"))
    b_start = int(box.show(b, "ExecMainStartTimestampMonotonic"))
    assert box.show(b, "ActiveState") == "active"
    assert opened >= a_start + delay_sec * USEC
    assert b_start > opened


def test_requires_waits_until_the_port_is_open(box: Box) -> None:
    late = install_program(box, "late")
    project = box.project
    install_text(
        box,
        f"""
project = "{project}"
[services.a]
command = ["{late}", "tcp", "4801", "3"]
ready = {{ tcp = "127.0.0.1:4801" }}
runtime_directory = true
[services.b]
command = ["/bin/sleep", "infinity"]
requires = ["a"]
""",
    )
    box.systemctl("start", f"{project}.target")
    assert_gate_held(box, f"{project}-a.service", f"{project}-b.service", 3.0)


KINDS = {
    "unix": ("/run/@UNIT@/socket", 'unix = "/run/@UNIT@/socket"'),
    "http": ("@PORT@", 'http = "http://127.0.0.1:@PORT@/healthz?deep=1"'),
    "file": ("/run/@UNIT@/file", 'file = "/run/@UNIT@/file"'),
    "exec": ("/run/@UNIT@/file", 'exec = ["/usr/bin/test", "-e", "/run/@UNIT@/file"]'),
    "log": ("now serving 42% of requests", "log = 'serving [0-9]+% of'"),
    "tcp": ("@PORT@", 'tcp = "localhost:@PORT@"'),
}
RIGHTS = {"root": "", "user": f'user = "{USER}"', "strict": f'user = "{USER}"\nhardening = "strict"'}


def test_every_probe_waits_with_and_without_rights(box: Box) -> None:
    late = install_program(box, "late")
    project, delay, port = box.project, 0.8, 4810
    text = f'project = "{project}"\n'
    pairs = []
    for rights, lines in RIGHTS.items():
        for kind, (target, ready) in KINDS.items():
            a, port = f"a-{kind}-{rights}", port + 1
            arguments = f'"{late}", "{"file" if kind == "exec" else kind}", "{target}", "{delay}"'
            service = f"""
[services.{a}]
command = [{arguments}]
ready = {{ {ready} }}
runtime_directory = true
{lines}
[services.b-{kind}-{rights}]
command = ["/bin/sleep", "infinity"]
requires = ["{a}"]
"""
            text += service.replace("@UNIT@", f"{project}-{a}").replace("@PORT@", str(port))
            pairs.append((f"{project}-{a}.service", f"{project}-b-{kind}-{rights}.service"))
    install_text(box, text)
    box.systemctl("start", f"{project}.target")
    for a, b in pairs:
        assert_gate_held(box, a, b, delay)


def start_b(box: Box, a: str) -> tuple[float, str]:
    """Start B, which requires A, described by these lines; return the seconds it took and A's journal."""
    project = box.project
    late = install_program(box, "late")
    install_text(
        box,
        f"""
project = "{project}"
[services.a]
{a.replace("@LATE@", late)}
runtime_directory = true
[services.b]
command = ["/bin/sleep", "infinity"]
requires = ["a"]
""",
    )
    begin = time.monotonic()
    done = box.systemctl("start", f"{project}-b.service", check=False)
    seconds = time.monotonic() - begin
    assert done.returncode == 1
    assert "dependency" in done.stderr
    assert box.show(f"{project}-b.service", "ExecMainStartTimestampMonotonic") == "0"
    assert box.show(f"{project}-b.service", "ActiveState") == "inactive"
    box.run(["journalctl", "--sync"], check=True)
    return seconds, box.run(["journalctl", "-o", "cat", "-u", f"{project}-a.service"]).stdout


@pytest.mark.parametrize("restart", ['"no"', '{ when = "on-failure", delay = "1h" }'])
def test_never_ready_fails_the_start_in_time(box: Box, restart: str) -> None:
    seconds, journal = start_b(
        box,
        f"""
command = ["@LATE@", "never", "-", "0"]
ready = {{ tcp = "127.0.0.1:4850", timeout = "1s" }}
restart = {restart}
""",
    )
    assert 1.0 <= seconds < 1.0 + SLACK_SEC
    assert "127.0.0.1:4850" in journal


def test_a_main_process_that_dies_fails_the_start_at_once(box: Box) -> None:
    seconds, journal = start_b(
        box,
        """
command = ["@LATE@", "exit", "-", "0.2"]
ready = { tcp = "127.0.0.1:4851", timeout = "60s" }
restart = "no"
""",
    )
    assert seconds < 10.0
    assert box.show(f"{box.project}-a.service", "ExecMainStatus") == "7"
    assert journal
