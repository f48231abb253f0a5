"""The contract suite, the journal and the prober on a booted systemd.

`test_contract` runs tests/test_contract.py inside, as root on PID 1 and as a user on his own manager; what
cannot be said without a real systemd follows, as scripts that run inside.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sysresp import ready
from tests.live.conftest import CHECKOUT, USER, Box

pytestmark = pytest.mark.live

PROBER = "/run/ready.py"
PORT = """
import os, socket, sys, time
print("main begins", flush=True)
time.sleep(1)
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("listening now", flush=True)
time.sleep(1000)
"""


LENT = (
    "pytest",
    "_pytest",
    "py",
    "pluggy",
    "iniconfig",
    "packaging",
    "pygments",
)


def lend_pytest(box: Box) -> str:
    """Copy this pytest into a root that has none (it is pure Python), and return where it is."""
    if not box.run([box.python, "-c", "import pytest"]).returncode:
        return ""
    lent = box.path("/srv/lent")
    lent.mkdir(exist_ok=True)
    site = Path(pytest.__file__).parents[1]
    for name in LENT:
        if (site / name).is_dir():
            shutil.copytree(site / name, lent / name, dirs_exist_ok=True)
        elif (site / f"{name}.py").exists():
            shutil.copy(site / f"{name}.py", lent)
    return "/srv/lent"


@pytest.mark.parametrize("scope", ["real", "user"])
def test_contract(box: Box, scope: str) -> None:
    user = USER if scope == "user" else None
    if user:
        box.need_user_manager()
    suite = [box.python, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "--noconftest"]
    script = f'cd {CHECKOUT} && PYTHONPATH={CHECKOUT}:{lend_pytest(box)} SYSRESP_CONTRACT={scope} "$@"'
    done = box.run(["sh", "-c", script, "-", *suite, "tests/test_contract.py"], user=user)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout


def probed(box: Box, name: str, probe: str, *, main: str = "", more: str = "") -> str:
    """Write a unit whose start waits for a probe."""
    box.write(PROBER, box_text(), 0o755)
    box.write("/run/port.py", PORT)
    main = main or f"/usr/bin/python3 -I -S /run/port.py 45{len(name):02}"
    lines = [
        "[Service]",
        "Type=exec",
        f"ExecStart={main}",
        f"ExecStartPost={probe}",
        "TimeoutStartSec=40",
        more,
    ]
    return box.write(f"/run/systemd/system/{box.project}-{name}.service", "\n".join(lines) + "\n")


def box_text() -> str:
    """Return the prober's own text."""
    return Path(ready.__file__).read_text()


STRICT = """User=tester
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
PrivateUsers=yes
ProtectProc=invisible
ProcSubset=pid
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM
CapabilityBoundingSet="""


@pytest.mark.parametrize("more", ["", STRICT], ids=["plain", "strict"])
@pytest.mark.parametrize("probe", ["tcp", "exec", "log"])
def test_the_start_waits_for_the_probe(box: Box, probe: str, more: str) -> None:
    begin = f"/usr/bin/python3 -I -S {PROBER} --timeout 20"
    line = {
        "tcp": f"{begin} tcp 127.0.0.1:4503",
        "exec": f"{begin} exec -- /usr/bin/python3 -I -S /run/connect.py",
        "log": f"+{begin} log '^listening [a-z]+$'",
    }[probe]
    if probe == "exec":
        box.write("/run/connect.py", 'import socket; socket.create_connection(("127.0.0.1", 4503))\n')
    probed(box, "abc", line, more=more)
    unit = f"{box.project}-abc.service"
    done = box.systemctl("start", unit, check=False)
    said = box.run(["journalctl", "-u", unit, "-o", "cat", "--no-pager"]).stdout
    assert done.returncode == 0, said
    assert box.show(unit, "ActiveState") == "active"
    begun = int(box.show(unit, "ExecMainStartTimestampMonotonic"))
    assert int(box.show(unit, "ActiveEnterTimestampMonotonic")) - begun > 900_000


def test_a_probe_that_fails_and_a_main_process_that_dies(box: Box) -> None:
    begin = f"/usr/bin/python3 -I -S {PROBER}"
    probed(box, "a", f"{begin} --timeout 1 tcp 127.0.0.1:9")
    assert box.systemctl("start", f"{box.project}-a.service", check=False).returncode == 1
    said = box.run(["journalctl", "-u", f"{box.project}-a.service", "-o", "cat", "--no-pager"]).stdout
    assert "not ready after 1 s: connect to 127.0.0.1:9: connection refused" in said
    probed(box, "b", f"{begin} --timeout 30 tcp 127.0.0.1:9", main="/bin/sleep 0.5")
    assert box.systemctl("start", f"{box.project}-b.service", check=False).returncode == 1
    said = box.run(["journalctl", "-u", f"{box.project}-b.service", "-o", "cat", "--no-pager"]).stdout
    assert "ended before the service was ready" in said


JOURNAL = """
import sys
from sysresp.systemd.journal import RealJournal
from sysresp.systemd.manager import SystemManager
manager, unit = SystemManager(), sys.argv[1]
manager.watch_jobs()
for _ in range(2):
    assert not manager.wait([manager.start(unit)], 20, lambda removed: None)
run = str(manager.properties(unit, "Unit", ["InvocationID"])["InvocationID"])
print("\\n".join(RealJournal().tail(unit, 10, run)))
print("--")
print("\\n".join(RealJournal().tail(unit, 3)))
"""


def test_the_last_words_of_a_run(box: Box) -> None:
    unit = f"{box.project}-a.service"
    said = "printf 'caf\\\\351 \\\\033[1m\\\\n'; echo $$$$ >&2; journalctl --sync; exit 7"
    box.write(f"/run/systemd/system/{unit}", f'[Service]\nType=oneshot\nExecStart=/bin/sh -c "{said}"\n')
    done = box.run([box.python, "-c", JOURNAL, unit], check=True)
    run, _, unit_lines = done.stdout.partition("--\n")
    lines = run.splitlines()
    assert sum(line.startswith("caf\ufffd") for line in lines) == 1  # only the second run
    assert "\x1b" not in run
    assert any("status=7" in line for line in lines)  # what systemd said about it
    assert len(unit_lines.splitlines()) == 3


REFUSED = """
import sys
from sysresp.errors import SysrespError
from sysresp.systemd.manager import SystemManager
try:
    manager = SystemManager(user="--user" in sys.argv)
    print(len(manager.units(["dbus.*"])), manager.version())
    manager.start(sys.argv[1]) if sys.argv[1:2] != ["--user"] else None
except SysrespError as error:
    print(error.exit.name, "|", error.message, "|", error.hint)
"""


def test_an_unprivileged_caller_reads_and_is_refused_changes(box: Box) -> None:
    box.write(f"/run/systemd/system/{box.project}-a.service", "[Service]\nExecStart=/bin/sleep 9\n")
    done = box.run([box.python, "-c", REFUSED, f"{box.project}-a.service"], user=USER, check=True)
    counted, refused = done.stdout.splitlines()
    assert int(counted.split()[0]) >= 1
    assert refused.startswith("DENIED | systemd does not allow this: ")
    assert refused.endswith("| run this as root (sudo)")


def test_no_user_manager(box: Box) -> None:
    done = box.run(["env", "-u", "XDG_RUNTIME_DIR", box.python, "-c", REFUSED, "--user"], check=True)
    assert done.stdout.startswith(
        "UNREACHABLE | cannot find your own service manager: XDG_RUNTIME_DIR is not set"
    )


WITHOUT_DBUS = """
import os
from sysresp.errors import SysrespError
from sysresp.systemd.manager import SystemManager
manager = SystemManager()
print(manager.units(["dbus.service"]))
if os.fork() == 0:
    os.setuid(65534)
    try:
        SystemManager().version()
    except SysrespError as error:
        print(error.exit.name, error.message, flush=True)
    os._exit(0)
os.wait()
"""


def test_without_dbus_root_goes_on(box: Box) -> None:
    script = 'mount -t tmpfs none /run/dbus && exec "$@"'
    words = ["unshare", "--mount", "sh", "-c", script, "-", box.python, "-c", WITHOUT_DBUS]
    done = box.run(words, check=True)
    assert "dbus.service" in done.stdout
    assert "UNREACHABLE D-Bus cannot be reached at /run/dbus/system_bus_socket: no such file" in done.stdout


LOST = """
import subprocess, sys, threading, time
from sysresp.systemd.manager import SystemManager
unit = sys.argv[1]
manager = SystemManager(private=False)
manager.watch_jobs()
job = manager.start(unit)
# While we wait for the job: D-Bus is restarted, then PID 1 re-executes itself, then the unit is ready.
subprocess.Popen(["sh", "-c", sys.argv[2]])
print(manager.wait([job], 30, print), manager.units_by_name([unit])[0].active_state)
"""


@pytest.mark.parametrize(
    "meanwhile", ["systemctl restart dbus.service", "systemctl daemon-reexec", "systemctl daemon-reload"]
)
def test_a_wait_survives(box: Box, meanwhile: str) -> None:
    unit = f"{box.project}-a.service"
    text = "[Service]\nType=oneshot\nRemainAfterExit=yes\n"
    text += "ExecStart=/bin/sh -c 'until test -e /run/go; do sleep 0.1; done'\n"
    box.write(f"/run/systemd/system/{unit}", text)
    box.run(["rm", "-f", "/run/go"], check=True)
    done = box.run([box.python, "-c", LOST, unit, f"{meanwhile}; sleep 0.5; touch /run/go"], check=True)
    assert done.stdout.splitlines()[-1] == "set() active", done.stdout


FORGED = """
import os, sys, threading
from sysresp.systemd.bus import Bus
from sysresp.systemd.manager import SystemManager
manager = SystemManager(private=False)
manager.watch_jobs()
job = manager.start(sys.argv[1])
name = manager._bus._bus.get_unique_name().decode()
busctl = "busctl emit --destination={} /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager JobRemoved"
words = f"{busctl.format(name)} uoss {job} /org/freedesktop/systemd1/job/{job} {sys.argv[1]} failed"
if os.fork() == 0:
    os.setuid(65534)
    os.execvp("sh", ["sh", "-c", f"{words}; {words}"])
assert os.wait()[1] == 0
print(manager.wait([job], 1.5, print) == {job}, manager._gone)
"""


def test_a_forged_signal_is_not_believed(box: Box) -> None:
    unit = f"{box.project}-a.service"
    box.write(f"/run/systemd/system/{unit}", "[Service]\nType=oneshot\nExecStart=/bin/sleep 100\n")
    done = box.run([box.python, "-c", FORGED, unit], check=True)
    assert done.stdout == "True set()\n"


INTERRUPTED = """
import os, signal, sys, threading, time
from sysresp.systemd.manager import SystemManager
manager = SystemManager()
manager.watch_jobs()
job = manager.start(sys.argv[1])
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGUSR1)).start()
threading.Timer(0.6, os.kill, (os.getpid(), signal.SIGINT)).start()
signal.signal(signal.SIGUSR1, lambda *_: None)  # a handler that returns, as a resized terminal has
begun = time.monotonic()
try:
    manager.wait([job], 30, print)
except KeyboardInterrupt:
    print("interrupted", 0.5 < time.monotonic() - begun < 5, manager.pending_jobs() == {job: sys.argv[1]})
"""


def test_ctrl_c_while_waiting(box: Box) -> None:
    unit = f"{box.project}-a.service"
    box.write(f"/run/systemd/system/{unit}", "[Service]\nType=oneshot\nExecStart=/bin/sleep 100\n")
    done = box.run([box.python, "-c", INTERRUPTED, unit], check=True)
    assert done.stdout == "interrupted True True\n"


MANY = """
import os, sys
from sysresp.ports import Question
from sysresp.systemd.manager import SystemManager
names = sys.argv[2:]
if sys.argv[1] == "nobody":
    os.setuid(65534)
manager = SystemManager()
rows = manager.units(["*"])
questions = [Question(row.name, "Unit", ("Id", *names)) for row in rows]
questions += [Question(row.name, "Service", ("KillMode",)) for row in rows]
slow = [manager.properties(*question) for question in questions]
manager.properties = None  # the quick way must not end in the slow one
found = manager.many_properties(questions)
print(len(found) > 100, [len(one) for one in found].count(len(names) + 1) == len(rows), found == slow)
"""


@pytest.mark.parametrize("way", ["private", "bus", "nobody"])
def test_many_properties_by_every_way(box: Box, way: str) -> None:
    """Root asks PID 1 itself, unless it was told of another bus; everybody else asks by the bus."""
    bus = {"DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/run/dbus/system_bus_socket"} if way == "bus" else {}
    names = [
        "Names",
        "Requires",
        "Conditions",
        "LoadError",
        "InactiveExitTimestamp",
        "CanStart",
        "InvocationID",
    ]
    done = box.run([box.python, "-c", MANY, way, *names], env=bus, check=True)
    assert done.stdout == "True True True\n"
