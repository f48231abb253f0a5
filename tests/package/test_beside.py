"""What README's table says of sysresp beside supervisord and plain unit files, tried on one machine.

Owns one test for each row that compares. supervisord is Debian 12's own; whoever adds a row adds its test.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.until import until
from tests.package.conftest import CONTROLLER, VERSION, Machine, booted

_SUPERVISORD = """\
[supervisord]
logfile=/tmp/supervisord.log
pidfile=/tmp/supervisord.pid
[unix_http_server]
file=/tmp/supervisor.sock
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix:///tmp/supervisor.sock
"""
# Fails four times, then works: what was down is up again, such as a database.
_FLAKY = """\
#!/bin/sh
echo x >>"$1"
test "$(wc -l <"$1")" -gt 4 && exec sleep infinity
exit 1
"""
_CONF = "/tmp/supervisord.conf"


@pytest.fixture(scope="module")
def both(debs: Path) -> Iterator[Machine]:
    """Debian 12 with both installed."""
    with booted("bookworm", debs) as machine:
        machine.apt("install with supervisor", "install", "supervisor", f"/debs/sysresp_{VERSION}_all.deb")
        machine.path("/usr/local/bin/flaky").write_text(_FLAKY)
        machine.sh("chmod 755 /usr/local/bin/flaky")
        yield machine
        machine.run(["supervisorctl", "-c", _CONF, "shutdown"])


def supervise(machine: Machine, programs: str) -> None:
    """Start supervisord anew with these programs."""
    machine.run(["supervisorctl", "-c", _CONF, "shutdown"])
    left = [machine.path(f"/tmp/{name}") for name in ("supervisord.pid", "supervisor.sock")]
    until(lambda: not any(path.exists() for path in left), "supervisord has gone")
    machine.path(_CONF).write_text(_SUPERVISORD + programs)
    machine.sh(f"supervisord -c {_CONF}")


def supervised(machine: Machine, name: str) -> str:
    return machine.run(["supervisorctl", "-c", _CONF, "status", name]).stdout.split()[1]


def apply(machine: Machine, text: str, *options: str) -> int:
    machine.path("/tmp/beside.toml").write_text(text)
    return machine.run(["sysresp", "apply", *options, "/tmp/beside.toml"]).returncode


def test_killed(both: Machine) -> None:
    """Killed, supervisord loses its programs, and starts each a second time; a controller's go on, once."""
    supervise(both, "[program:a]\ncommand=sleep 1111\n")
    until(lambda: supervised(both, "a") == "RUNNING", "it runs")
    both.sh(f"kill -KILL $(cat /tmp/supervisord.pid); rm /tmp/supervisord.pid; supervisord -c {_CONF}")
    until(lambda: supervised(both, "a") == "RUNNING", "it runs again")
    assert processes(both, "1111") == 2

    assert apply(both, '[services.a]\ncommand = ["/bin/sleep", "2222"]\n') == 0
    pid, run = both.show("beside-a.service", "MainPID"), both.show(CONTROLLER, "InvocationID")
    both.sh(f"systemctl kill --signal=KILL {CONTROLLER}")
    until(lambda: both.show(CONTROLLER, "InvocationID") != run, "the next controller")
    until(lambda: both.show(CONTROLLER, "ActiveState") == "active", "it is ready")
    assert both.show("beside-a.service", "MainPID") == pid
    assert processes(both, "2222") == 1


def processes(machine: Machine, argument: str) -> int:
    """Return how many processes run `sleep ARGUMENT`."""
    found = 0
    for path in machine.path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += path.read_bytes().endswith(f"sleep\0{argument}\0".encode())
        except OSError:
            continue
    return found


def test_down_for_a_while(both: Machine) -> None:
    """What fails too often stays down under supervisord and plain systemd; a cooldown brings it back."""
    supervise(both, "[program:f]\ncommand=flaky /tmp/supervised\nstartretries=2\nstartsecs=1\n")
    until(lambda: supervised(both, "f") == "FATAL", "supervisord gives up", 60)
    restart = "Restart=on-failure\nRestartSec=10ms\n"
    unit = f"[Unit]\nStartLimitBurst=2\n[Service]\nExecStart=/usr/local/bin/flaky /tmp/plain\n{restart}"
    both.path("/etc/systemd/system/plain.service").write_text(unit)
    both.sh("systemctl daemon-reload; systemctl start plain.service")
    until(lambda: both.show("plain.service", "ActiveState") == "failed", "systemd gives up")
    assert apply(
        both,
        '[services.f]\ncommand = ["/usr/local/bin/flaky", "/tmp/ours"]\nrestart = { when = "on-failure", '
        'delay = "10ms", attempts = 2, within = "1min", then = "cooldown 1s" }\n',
        "--no-rollback",
    )
    until(lambda: both.show("beside-f.service", "SubState") == "running", "it is up again", 60)
    assert supervised(both, "f") == "FATAL"
    assert both.show("plain.service", "ActiveState") == "failed"


def test_a_change_that_does_not_come_up(both: Machine) -> None:
    """A bad change stays, and is down, under supervisord; sysresp puts back what ran."""
    supervise(both, "[program:c]\ncommand=sleep 3333\n")
    until(lambda: supervised(both, "c") == "RUNNING", "it runs")
    bad = "[program:c]\ncommand=/bin/false\nstartretries=0\n"
    both.path(_CONF).write_text(_SUPERVISORD + bad)
    both.sh(f"supervisorctl -c {_CONF} update")
    until(lambda: supervised(both, "c") == "FATAL", "it is down")
    assert apply(both, '[services.c]\ncommand = ["/bin/sleep", "4444"]\n') == 0
    assert apply(both, '[services.c]\ncommand = ["/bin/false"]\n') == 7
    assert both.show("beside-c.service", "SubState") == "running"
    assert "4444" in both.show("beside-c.service", "ExecStart")
