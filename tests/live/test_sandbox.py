"""The sandbox itself: what it shows, what it hides, and that it leaves nothing, however it ends."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from sysresp.errors import Exit, SysrespError
from sysresp.sandbox.boot import Bind, CommandFailed, Sandbox
from sysresp.sandbox.keeper import remove_stale
from tests.live.conftest import TOP, UID, USER, Box

pytestmark = pytest.mark.live

# Boots a sandbox and stays in it; the host name tells its keeper from everybody else's.
BOOTS = """
import sys
from sysresp.sandbox.boot import Sandbox
with Sandbox(hostname=sys.argv[1]) as sandbox:
    print("booted", flush=True)
    sandbox.run(["sleep", "1000"], timeout=None)
"""


def cgroup_top() -> Path | None:
    """Return where the cgroup2 hierarchy is mounted on this host, if it is."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return next((Path(x.split()[1]) for x in lines if x.split()[2] == "cgroup2"), None)


def cgroups(pid: int) -> list[Path]:
    """Return the cgroups that this keeper made."""
    top = cgroup_top()
    found = (Path(d, n) for d, names, _ in os.walk(top) for n in names) if top else ()  # others come and go
    return [p for p in found if p.name.startswith(f"sysresp-{pid}-")]


def keepers(hostname: str) -> list[int]:
    """Return the keepers of sandboxes with this host name."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if b"-I" in words and any(f'"{hostname}"'.encode() in word for word in words):
                found.append(int(process.name))
    return found


def wait_for_end(pid: int, timeout_sec: float = 20.0) -> bool:
    """Wait until the process is gone."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([pidfd], [], [], timeout_sec)[0])
    finally:
        os.close(pidfd)


def our_mounts() -> list[str]:
    """Return what a sandbox would add to the mounts of this host."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [x for x in lines if x.split()[4].startswith("/dev/shm/") or " - overlay " in x]


def start(hostname: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", BOOTS, hostname]
    return subprocess.Popen(
        words, stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": str(TOP)}, start_new_session=True
    )


def test_boots_and_starts_nothing_of_the_host(box: Box) -> None:
    assert box.systemctl("is-system-running", check=False).stdout.strip() == "running"
    assert box.systemctl("--failed", "--no-legend").stdout == ""
    running = box.systemctl(
        "list-units", "--type=service", "--state=running", "--no-legend", "--plain"
    ).stdout
    names = {line.split()[0] for line in running.splitlines()}
    mine = {"systemd-logind.service", f"user@{UID}.service"}  # of tests that ran before
    assert names - mine == {"dbus.service", "systemd-journald.service"}


def test_runs_a_unit_and_keeps_its_journal(box: Box) -> None:
    unit = f"{box.project}-hello.service"
    text = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/echo good day\nMemoryMax=64M\n"
    box.write(f"/etc/systemd/system/{unit}", text)
    box.systemctl("daemon-reload")
    box.systemctl("start", unit)
    assert box.show(unit, "ActiveState") == "active"
    box.run(["journalctl", "--sync"], check=True)
    assert "good day" in box.run(["journalctl", "-u", unit, "-o", "cat"], check=True).stdout


def test_runs_a_unit_of_a_user(box: Box) -> None:
    unit = f"{box.project}-mine"
    box.need_user_manager()
    box.run(["systemd-run", "--user", f"--unit={unit}", "sleep", "60"], user=USER, check=True)
    assert box.show(f"{unit}.service", "ActiveState", user=USER) == "active"
    assert box.run(["id", "-u"], user=USER).stdout.strip() == str(UID)


def test_a_command_may_become_a_scope(box: Box) -> None:
    words = ["systemd-run", "--scope", f"--unit={box.project}-scope", "cat", "/proc/self/cgroup"]
    assert f"{box.project}-scope.scope" in box.run(words, check=True).stdout


def test_has_only_the_loopback_and_it_is_up(box: Box) -> None:
    names = [
        line.split(":")[0].strip() for line in box.run(["cat", "/proc/net/dev"]).stdout.splitlines()[2:]
    ]
    assert set(names) <= {"lo", "sit0", "tunl0", "ip6tnl0"}  # the kernel's own, all down
    assert (
        box.run([box.python, "-c", "import socket; socket.create_server(('127.0.0.1', 80))"]).returncode == 0
    )


def test_cannot_change_the_kernel_of_the_host(box: Box) -> None:
    with pytest.raises(CommandFailed, match="Read-only"):
        box.run(["sh", "-c", "echo 1 > /proc/sys/vm/swappiness"], check=True)
    box.run(["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"], check=True)  # its own network's


def test_commands(box: Box) -> None:
    assert box.run(["cat"], input="caf\udce9\n").stdout == "caf\udce9\n"
    assert box.run(["sh", "-c", "exit 7"]).returncode == 7
    assert box.run(["pwd"], directory="/usr/bin").stdout == "/usr/bin\n"
    assert box.run(["env"], env={"A": "1"}).stdout.splitlines().count("A=1") == 1
    assert "SHELL" not in box.run(["env"]).stdout
    with pytest.raises(subprocess.TimeoutExpired):
        box.run(["sleep", "1000"], timeout=0.2)
    assert box.run(["pgrep", "--runstates", "RSD", "-f", "sleep 1000"]).stdout == ""


def test_nothing_written_survives(tmp_path: Path) -> None:
    mark = Path(f"/etc/sysresp-sandbox-test-{os.getpid()}")
    with Sandbox(
        binds=[Bind(str(tmp_path), "/srv/ro"), Bind(str(tmp_path), "/srv/rw", read_only=False)]
    ) as box:
        box.run(["touch", str(mark), "/tmp/here", "/srv/rw/kept"], check=True)
        assert box.run(["touch", "/srv/ro/refused"]).returncode != 0
        assert box.path(mark).exists()
        assert not mark.exists()
        assert not Path("/tmp/here").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]
    assert not mark.exists()


def test_leaves_no_mount_and_no_cgroup() -> None:
    before = our_mounts()
    with Sandbox() as box:
        keeper, init = box.keeper_pid, box.pid
        assert our_mounts() == before
        assert cgroups(keeper) or cgroup_top() is None
    assert our_mounts() == before
    assert cgroups(keeper) == []
    assert not Path(f"/proc/{init}").exists()
    assert not Path(f"/proc/{keeper}").exists()


def test_refuses_what_is_no_root(tmp_path: Path) -> None:
    with pytest.raises(SysrespError, match="no systemd in"), Sandbox(tmp_path):
        pass


def test_a_boot_that_does_not_end_shows_the_console() -> None:
    for timeout in (0.02, 0.05, 0.1, 0.2, 0.4):  # until it has said something, which depends on the machine
        with (
            pytest.raises(SysrespError, match="has not booted") as caught,
            Sandbox(boot_timeout_sec=timeout),
        ):
            pass
        if "console" in str(caught.value):
            return
    pytest.fail("what it said is not shown")


def test_needs_root() -> None:
    code = (
        "import os\nfrom sysresp.errors import SysrespError\nfrom sysresp.sandbox.boot import Sandbox\n"
        "os.setgid(65534); os.setuid(65534)\ntry:\n    Sandbox().__enter__()\n"
        "except SysrespError as e:\n    print(int(e.exit), e.message, e.hint)\n"
    )
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, env={"PYTHONPATH": str(TOP)}, check=True)
    assert done.stdout.startswith(f"{int(Exit.DENIED)} cannot boot a sandbox: only root")
    assert "sudo" in done.stdout


def end_and_check(process: subprocess.Popen[str], hostname: str, number: int, mounts: list[str]) -> None:
    """Kill the caller like this, and see that everything else goes by itself."""
    alive = keepers(hostname)
    os.killpg(process.pid, number)
    with process:
        process.wait(20)
    # One that was just being started may show its name only now, or later still: each ends by itself.
    while alive := [*alive, *keepers(hostname)]:
        for pid in alive:
            assert wait_for_end(pid)
            assert cgroups(pid) == []
        alive.clear()
    assert our_mounts() == mounts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_killed_caller_leaves_nothing(number: int) -> None:
    mounts = our_mounts()
    hostname = f"ended-{number}-{os.getpid()}"
    process = start(hostname)
    assert process.stdout is not None
    assert process.stdout.readline() == "booted\n"
    end_and_check(process, hostname, number, mounts)


@pytest.mark.slow
@pytest.mark.parametrize("instant", range(30))
def test_a_caller_killed_at_any_instant_leaves_nothing(instant: int) -> None:
    mounts = our_mounts()
    hostname = f"instant-{instant}-{os.getpid()}"
    process = start(hostname)
    with suppress(subprocess.TimeoutExpired):
        process.wait(instant * 0.02)  # start, imports, cgroup, mounts, boot, ready: 0.6 s in all
    end_and_check(process, hostname, signal.SIGKILL, mounts)


def test_a_killed_keeper_leaves_only_what_the_next_removes() -> None:
    with Sandbox() as box:
        keeper, init = box.keeper_pid, box.pid
        pidfd = os.pidfd_open(init)
        os.kill(keeper, signal.SIGKILL)
        assert select.select([pidfd], [], [], 20)[0]
        os.close(pidfd)
    with Sandbox() as box:
        assert cgroups(keeper) == []
        assert cgroups(box.keeper_pid) or cgroup_top() is None


def test_the_next_keeper_removes_only_what_is_stale(tmp_path: Path) -> None:
    own_start = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    alive = tmp_path / f"sysresp-{os.getpid()}-{own_start}"
    reused = tmp_path / f"sysresp-{os.getpid()}-1"  # our pid, but somebody else's start time
    for directory in (alive / "init.scope", reused / "system.slice/a.service", tmp_path / "sysresp-x-y"):
        directory.mkdir(parents=True)
    remove_stale(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([alive.name, "sysresp-x-y"])


def test_the_test_user_can_import_the_checkout(box: Box) -> None:
    words = [box.python, "-c", "import sysresp, typer, pystemd; print(sysresp.__file__)"]
    assert "/srv/checkout" in box.run(words, user=USER, check=True).stdout
