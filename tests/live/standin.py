"""A daemon in the place of the controller's: it does, once, all that the controller needs rights for.

Owns `sysresp.cli.daemon` in a copy of the package (tests/live/test_own_unit.py), so that it shows what the
unit, its sandbox and its account allow, and nothing of what the controller decides. It writes what came of
each to findings.json in its StateDirectory=, says READY=1, and feeds the watchdog until SIGTERM.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from sysresp.ports import UnitProblem
from sysresp.systemd.journal import RealJournal
from sysresp.systemd.manager import SystemManager

WISHES = "/srv/standin/wishes.json"


def run(scope: str, _heard: object) -> int:
    """Look, tell, wait for the end."""
    wishes = json.loads(Path(WISHES).read_text())
    found = {name: tried(how) for name, how in attempts(str(scope), wishes).items()}
    # The last part, and not all: that must not hold more than one.
    state = Path(os.environ["STATE_DIRECTORY"], "findings.json")
    state.write_text(json.dumps(found))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    say("READY=1\nSTATUS=stand-in")
    every = int(os.environ.get("WATCHDOG_USEC", "0")) / 3e6
    while signal.sigtimedwait({signal.SIGTERM}, every or 60) is None:
        say("WATCHDOG=1")
    return 0


def attempts(scope: str, wishes: dict[str, str]) -> dict[str, Callable[[], object]]:
    """Return what is tried."""
    manager = SystemManager(user=scope == "user")
    unit, foreign = wishes["unit"], wishes["foreign"]
    touch = [("ExecStart", "a(sasb)", [("/usr/bin/touch", ["touch", "/run/was-root"], False)])]
    return {
        "uid": os.geteuid,
        "restart": lambda: manager.restart(unit),
        "kill": lambda: manager.kill(unit, signal.SIGCONT),
        "reset_failed": lambda: manager.reset_failed("sysresp.service"),
        "foreign": lambda: manager.restart(foreign),
        "transient": lambda: manager.start_transient("sysresp-evil.service", touch),
        "reload": manager.reload,
        "journal": lambda: RealJournal(user=scope == "user").tail(unit, 5),
        "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text,
        "inotify": inotify,
        "internet": lambda: socket.socket(socket.AF_INET).bind(("127.0.0.1", 0)),
        "exec": lambda: subprocess.run(["/bin/true"], check=True).returncode,
        "write_etc": lambda: Path("/etc/systemd/system/evil.service").write_text(""),
        "write_state": lambda: Path(wishes["state_dir"], "evil.json").write_text(""),
        "read_state": lambda: len(list(Path(wishes["state_dir"]).glob("*.json"))),
        "shadow": lambda: Path("/etc/shadow").read_text()[:1],
        "mount": lambda: subprocess.run(["mount", "-t", "tmpfs", "x", "/mnt"], check=True),
        "chown": lambda: os.chown(os.environ["STATE_DIRECTORY"], 65534, 65534),
    }


def inotify() -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_CLOEXEC)
    for place in (b"/var/lib", b"/run"):
        if libc.inotify_add_watch(descriptor, place, 0x100) < 0:
            raise OSError(ctypes.get_errno(), "inotify_add_watch")
    return 0


def tried(how: Callable[[], object]) -> object:
    try:
        value = how()
    except (OSError, UnitProblem, subprocess.SubprocessError, Exception) as error:  # the stand-in must go on
        return f"{type(error).__name__}: {error}"
    return value if isinstance(value, int | str | list) else "done"


def say(text: str) -> None:
    address = os.environ["NOTIFY_SOCKET"].replace("@", "\0", 1)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
        out.sendto(text.encode(), address)


if __name__ == "__main__":
    sys.exit(run())
