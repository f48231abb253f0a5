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
    suite = [box.python, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "--noconftest"]
    words = ["env", f"SYSRESP_CONTRACT={scope}", *suite, "tests/test_contract_signals.py"]
    if scope == "user":
        box.need_user_manager()
        # Where the journal is not on disk a user may read not even his own but as a member of this group.
        uid = str(box.sandbox.user(USER).uid)
        runtime = f"XDG_RUNTIME_DIR=/run/user/{uid}"
        bus = f"DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/{uid}/bus"
        words[1:1] = [f"HOME=/home/{USER}", runtime, bus]
        words = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--groups=systemd-journal", *words]
        none = "from sysresp.systemd.records import SystemRecords as S; print(S(user=True).since('', []))"
        done = box.run([box.python, "-c", none], user=USER, check=True)
        assert done.stdout == "([], '', False)\n"
    script = f'cd {CHECKOUT} && PYTHONPATH={CHECKOUT}:{lend_pytest(box)} "$@"'
    done = box.run(["sh", "-c", script, "-", *words])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout


def listening(box: Box, script: str, *args: str) -> list[str]:
    """Run a script that hears a unit which restarts 0.1 s after each death, and return what it prints."""
    text = "[Unit]\nStartLimitIntervalSec=0\n[Service]\nType=exec\nExecStart=/bin/sleep 1000\n"
    text += "Restart=always\nRestartSec=100ms\n"
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


FORGE = """
import os, socket, struct, sys
from sysresp.systemd.bus import DBUS, MANAGER, PROPERTIES, SYSTEMD_PATH, Bus
from sysresp.systemd.messages import DESTINATION, ENDIAN, HEADER, INTERFACE, MEMBER, PATH, SIGNATURE, field
from sysresp.systemd.messages import string
whom, path = sys.argv[1:]
bus = Bus()
bus.open()
peer = socket.socket(fileno=socket.dup(bus.fd()))
peer.setblocking(True)
serial = 0x50000000
def send(kind, path, interface, member, signature, body):
    global serial
    serial += 1
    head = field(PATH, "o", path) + field(INTERFACE, "s", interface) + field(MEMBER, "s", member)
    head += field(SIGNATURE, "g", signature) if signature else b""
    head += bytes((DESTINATION, 1, ord("s"), 0)) + string(whom)
    message = HEADER.pack(ENDIAN, kind, 1, 1, len(body), serial, len(head)) + head
    peer.sendall(message + bytes(-len(message) % 8) + body)
def strings(*values):
    body = b""
    for value in values:
        body += bytes(-len(body) % 4) + string(value)
    return body
unit = path.rpartition("/")[2]
for n in range(4000):
    send(4, path, PROPERTIES, "PropertiesChanged", "s", strings("org.freedesktop.systemd1.Unit"))
    send(4, SYSTEMD_PATH, MANAGER, "UnitRemoved", "so", strings(f"u{n}.service", path))
    send(4, SYSTEMD_PATH, MANAGER, "Reloading", "b", struct.pack("=I", 1))
    bus_owner = strings("org.freedesktop.systemd1", ":1.2", f":1.{n}")
    send(4, "/org/freedesktop/DBus", DBUS.decode(), "NameOwnerChanged", "sss", bus_owner)
    send(4, SYSTEMD_PATH, MANAGER, "JobRemoved", "", b"")
send(4, path, PROPERTIES, "PropertiesChanged", "s", strings("x" * (4 << 20)))
peer.shutdown(socket.SHUT_WR)
while peer.recv(1 << 16):
    pass
"""

FORGED = """
import os, resource
from sysresp.systemd.wire import unit_path
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
names = SystemManager(private=False)
def ask(member, *args):
    bus = "org.freedesktop.DBus"
    path = "/org/freedesktop/DBus"
    return names._bus.call(bus, member, *args, path=path, destination=bus.encode())
def pid(name):
    return ask("GetConnectionUnixProcessID", "s", name)
rows = ask("ListNames")
mine = [n for n in rows if n.startswith(":") and pid(n) == os.getpid()]
words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-c", sys.argv[2]]
senders = [subprocess.Popen([*words, name, unit_path(unit)]) for name in mine]
told = []
while any(sender.poll() is None for sender in senders) or signals.forged < 20001:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.poll(1000)
    told += signals.drain()
assert [sender.returncode for sender in senders] == [0] * len(senders)
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(told, signals.forged, grown < 8192)
manager.kill(unit, 9)
print(until(is_up(first.invocation))[-1].n_restarts)
"""


def test_forged_messages_are_counted_and_no_more(box: Box) -> None:
    assert listening(box, FORGED, FORGE) == ["[] 20001 True", "1"]


RECORDS = """
records = SystemRecords()
_none, cursor, is_whole = records.since("", [])
assert is_whole
runs = [first.invocation]
def die():
    manager.kill(unit, 9)
    runs.append(until(is_up(runs[-1]))[-1].invocation)
def said():
    global cursor
    found, cursor, is_whole = records.since(cursor, [unit])
    return [runs.index(x.invocation) for x in found if x.kind == "failed"], is_whole
for _ in range(3):
    die()
print(*said())
print(*said())
die()
run("systemctl", "restart", "systemd-journald.service")
die()
run("journalctl", "--rotate")
die()
print(*said())
die()
run("journalctl", "--rotate")
run("journalctl", "--vacuum-files=1")
die()
found, is_whole = said()
print(found[-1] == 7, is_whole)
die()
print(*said())
lost = cursor.replace(";i=", ";i=f")
print(records.since(lost, [unit])[2], records.since("nonsense", [unit])[::2])
os.setgroups([])
os.setuid(65534)
print(records.since(cursor, [unit]) == ([], cursor, False))
"""


def test_records_once_each_whatever_happens_to_the_journal(box: Box) -> None:
    assert listening(box, "import os\n" + RECORDS) == [
        "[0, 1, 2] True",
        "[] True",
        "[3, 4, 5] True",
        "True False",
        "[8] True",
        "False ([], False)",
        "True",
    ]
