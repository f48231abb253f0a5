"""What `doctor` asks of the host: every look is here, and each says nothing rather than something wrong.

Owns the gathering of `doctor_checks.Facts`. Changes nothing, needs no rights, and works where there is no
systemd, no D-Bus and no pystemd: that is what it is for. Rule: a look that fails leaves the fact at what
makes no finding, unless the failure is the finding.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from sysresp.cli import hosts, own_status, own_units
from sysresp.cli.doctor_checks import Controller, Directory, Facts
from sysresp.controller import own
from sysresp.errors import SysrespError
from sysresp.model import Mode, Scope
from sysresp.reconcile import layout

_MODULES = {"jinja2": "jinja2", "pystemd": "pystemd", "tomli-w": "tomli_w", "typer": "typer"}
_BUS = "/run/dbus/system_bus_socket"


class Manager(NamedTuple):
    """What the service manager answered."""

    version: int = 0
    trouble: tuple[str, str] = ("", "")
    controller: Controller = Controller()
    unit_dir: str = ""


def gather(scope: Scope, env: Mapping[str, str]) -> Facts:
    """Look at everything."""
    is_user = scope is Scope.USER
    uid = os.geteuid()
    account = _account(uid)
    manager = _manager(scope)
    runtime = env.get("XDG_RUNTIME_DIR", "")
    return Facts(
        python=sys.version_info[:3],
        packages={name: _version(name, module) for name, module in _MODULES.items()},
        is_user=is_user,
        uid=uid,
        account=account,
        pid1=_text("/proc/1/comm") or "unknown",
        is_booted=Path("/run/systemd/system").is_dir(),
        version=manager.version or _installed_version(),
        manager_trouble=manager.trouble,
        has_bus=_answers(_user_bus(env) if is_user else env.get("DBUS_SYSTEM_BUS_ADDRESS", _BUS)),
        polkit=_polkit(),
        has_rule=own_units.has_rule(),
        has_account=_exists(own.ACCOUNT),
        journal=_journal(),
        can_read_journal=_can_read_journal(uid),
        cgroup=cgroup(_text("/proc/self/mountinfo")),
        lingers=Path("/var/lib/systemd/linger", account).exists(),
        has_session=bool(runtime) and Path(runtime, "systemd").is_dir(),
        directories=_directories(manager.unit_dir, scope, env),
        controller=manager.controller,
    )


def _text(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return ""


def _account(uid: int) -> str:
    with suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return str(uid)


def _exists(account: str) -> bool:
    with suppress(KeyError):
        return bool(pwd.getpwnam(account))
    return False


def _version(name: str, module: str) -> str:
    """Return the version of a package that can be imported, "" if it cannot."""
    try:
        __import__(f"{module}.dbuslib" if module == "pystemd" else module)
    except Exception:  # whatever a broken installation raises, it cannot be imported
        return ""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return str(getattr(sys.modules[module], "__version__", "?"))


def _manager(scope: Scope) -> Manager:
    unit_dir = ""
    try:
        host = hosts.host(scope, Mode.PERSISTENT)
        unit_dir = host.paths.unit_dir
        version = host.manager.version()
        found = own_status.unit(host.manager)
    except SysrespError as error:
        return Manager(trouble=(error.message, error.hint), unit_dir=unit_dir)
    controller = Controller(
        found["load"], found["active"], found["result"], found["enabled"], found["account"]
    )
    return Manager(version, controller=controller, unit_dir=unit_dir)


def _installed_version() -> int:
    with suppress(OSError, subprocess.SubprocessError, ValueError, IndexError):
        words = ["systemctl", "--version"]
        done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=10)
        return int(re.split(r"\D", done.stdout.split()[1])[0])
    return 0


def _user_bus(env: Mapping[str, str]) -> str:
    return env.get("DBUS_SESSION_BUS_ADDRESS", f"{env.get('XDG_RUNTIME_DIR', '')}/bus")


def _answers(address: str) -> bool:
    """Say whether somebody listens at this address of D-Bus; any but a path is believed."""
    path = address.removeprefix("unix:path=").partition(",")[0]
    if not path.startswith("/"):
        return True
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(5)
        connection.connect(path)
        return True
    return False


def _polkit() -> str:
    """Return the version of polkit, "?" if it does not tell it, "" if there is none."""
    if not own_units.has_polkit():
        return ""
    with suppress(OSError, subprocess.SubprocessError):
        words = ["pkaction", "--version"]
        done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=10)
        return done.stdout.split()[-1] if done.stdout.split() else "?"
    return "?"


def _journal() -> str:
    machine = _text("/etc/machine-id")
    for kind, where in (("persistent", "/var/log/journal"), ("volatile", "/run/log/journal")):
        with suppress(OSError):  # one that may not be looked into is there
            if any(Path(where, machine).iterdir()):
                return kind
        if machine and Path(where, machine).is_dir() and not os.access(f"{where}/{machine}", os.R_OK):
            return kind
    return "none"


def _can_read_journal(uid: int) -> bool:
    """Say whether this user may read what services of the system said (systemd-journald.service(8))."""
    if uid == 0:
        return True
    mine = {*os.getgroups(), os.getegid()}
    for name in ("systemd-journal", "adm", "wheel"):
        with suppress(KeyError):
            if grp.getgrnam(name).gr_gid in mine:
                return True
    machine = _text("/etc/machine-id")
    places = [f"{where}/{machine}/system.journal" for where in ("/var/log/journal", "/run/log/journal")]
    return any(os.access(path, os.R_OK) for path in places)


def cgroup(mountinfo: str) -> str:
    """Return which hierarchy systemd uses, by what is mounted at /sys/fs/cgroup (proc(5))."""
    kinds = {}
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        if right:
            kinds[left.split()[4]] = right.split()[0]
    if kinds.get("/sys/fs/cgroup") == "cgroup2" or "/sys/fs/cgroup" not in kinds:
        return "unified"
    return "hybrid" if "cgroup2" in kinds.values() else "legacy"


def _directories(unit_dir: str, scope: Scope, env: Mapping[str, str]) -> tuple[Directory, ...]:
    """Look at where units and memories go; the controller's own directory is its user's, and not in here."""
    places = [unit_dir] if unit_dir else []
    with suppress(SysrespError):
        places += layout.state_dirs(scope, env)
    return tuple(map(_directory, places))


def _directory(path: str) -> Directory:
    try:
        found = os.stat(path)  # noqa: PTH116 - of a str
        read_only = bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    except OSError:
        return Directory(path, exists=False)
    return Directory(path, True, found.st_uid, found.st_mode & 0o7777, read_only)
