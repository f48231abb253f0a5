"""What systemd announces and remembers, on a booted systemd: `Signals` and `Records`.

`test_contract` runs tests/test_contract_signals.py inside. What cannot be said on the fakes follows, as
scripts that run inside: systemd and D-Bus that restart, hostile senders, a journal that is taken away.
"""

from __future__ import annotations

import pytest

from tests.live.conftest import CHECKOUT, USER, Box
from tests.live.test_contract_live import lend_pytest

pytestmark = pytest.mark.live

LISTEN = """
import select, subprocess, sys, time
from pathlib import Path
from sysresp.controller.observe import seen
from sysresp.ports import Gone, JobRemoved, Lost, Seen
from sysresp.systemd.manager import SystemManager
from sysresp.systemd.records import SystemRecords
from sysresp.systemd.signals import SystemSignals
unit = sys.argv[1]
manager, signals = SystemManager(), SystemSignals()
descriptor = signals.open()
signals.watch([unit])
def until(condition, sec=20.0):
    told, deadline = [], time.monotonic() + sec
    while not condition(told):
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            raise SystemExit(f"nothing more than {told}")
        told += signals.drain()
    return told
def is_up(after=""):
    def found(told):
        return any(x[2:3] == ("running",) and x.job == 0 and x.invocation != after for x in told)
    return found
def run(*words):
    subprocess.run(words, check=True)
manager.start(unit)
first = until(is_up())[-1]
"""


@pytest.mark.parametrize("scope", ["real", "user"])
def test_contract(box: Box, scope: str) -> None:
    user = USER if scope == "user" else None
    if user:
        box.need_user_manager()
    suite = [box.python, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "--noconftest"]
    script = f'cd {CHECKOUT} && PYTHONPATH={CHECKOUT}:{lend_pytest(box)} SYSRESP_CONTRACT={scope} "$@"'
    done = box.run(["sh", "-c", script, "-", *suite, "tests/test_contract_signals.py"], user=user)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout


def listening(box: Box, script: str, *args: str) -> list[str]:
    """Run a script that hears a unit which restarts 0.1 s after each death, and return what it prints."""
    text = "[Service]\nType=exec\nExecStart=/bin/sleep 1000\nRestart=always\nRestartSec=100ms\n"
    box.write(f"/run/systemd/system/{box.project}-a.service", text)
    words = [box.python, "-c", LISTEN + script, f"{box.project}-a.service", *args]
    return box.run(words, check=True, timeout=60).stdout.splitlines()


LOST = """
run("sh", "-c", sys.argv[2])
told = until(lambda told: any(isinstance(x, Lost) for x in told))
print([x.why for x in told if isinstance(x, Lost)], [x for x in told if isinstance(x, Gone)])
if sys.argv[3] == "open":
    assert signals.drain() == []  # it is told once
    deadline = time.monotonic() + 20
    while True:
        try:
            descriptor = signals.open()
            break
        except Exception as error:
            print(type(error).__name__)
            assert time.monotonic() < deadline
            select.poll().poll(100)
assert seen(manager, [unit]) == [first]
manager.kill(unit, 9)
again = until(is_up(first.invocation))
print(again[-1].n_restarts, signals.forged)
"""


def test_systemd_reexecutes_itself(box: Box) -> None:
    found = listening(box, LOST, "systemctl daemon-reexec", "stay")
    assert found == ["['systemd re-executed itself'] []", "1 0"]


@pytest.mark.parametrize(
    "what", ["systemctl restart dbus.service", "systemctl kill --signal=KILL dbus.service"]
)
def test_dbus_restarts(box: Box, what: str) -> None:
    found = listening(box, LOST, what, "open")
    assert [line for line in found if line != "SysrespError"] == ["['disconnected'] []", "1 0"]
