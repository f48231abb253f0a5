"""How the controller is to be run on this host: by which program, as whom, and whether that is safe.

Owns the looking at the host for that: the account, polkit and its rule, who may change the code that root
would run. `sysresp.controller.own` makes units of the answer. Rule: the system's controller never runs code
that anybody but root can change, for it may restart services.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import sysresp
from sysresp.cli import build
from sysresp.controller import own
from sysresp.errors import Exit, SysrespError
from sysresp.model import Scope
from sysresp.ports import Host
from sysresp.units.text import parse

RULE = "50-sysresp.rules"
_RULE_DIRS = ("/etc", "/run", "/usr/local/share", "/usr/share")  # + /polkit-1/rules.d, as polkit(8) has it
_OWN_RULE_DIR = "/etc/polkit-1/rules.d"
_POLKIT = ("/usr/share/dbus-1/system-services", "/usr/local/share/dbus-1/system-services")
_POLKIT_SERVICE = "org.freedesktop.PolicyKit1.service"
_SYSUSERS = "/etc/sysusers.d"
SYSUSERS_TEXT = f'u {own.ACCOUNT} - "sysresp controller"\n'
_HOMES = ("/home/", "/root/", "/run/user/")
_PACKAGE = Path(sysresp.__file__).parent


class Choice(NamedTuple):
    """The way, and in one sentence why."""

    way: own.Way
    why: str


def choose(host: Host, scope: Scope) -> Choice:
    """Return how the controller is to be run here; SysrespError if its code is no code to trust."""
    program, environment = code()
    fallback = build.prober(f"{host.paths.state_dir}/{own.FALLBACK.name}")
    if scope is Scope.USER:
        return Choice(own.Way(program, fallback, "", environment), "in your own service manager")
    lacks = account_lacks()
    account = "" if lacks else own.ACCOUNT
    demand_trust(account, "the system's controller")
    if lacks:
        why = f"as root without capabilities, because {lacks} (--create-user changes that)"
    else:
        why = f'as the user "{own.ACCOUNT}", who may restart what sysresp applied (polkit) and nothing else'
    return Choice(own.Way(program, fallback, account, environment), why)


def code() -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the command that runs this sysresp, and what of the environment it needs."""
    environment = {}
    if str(_PACKAGE.parent) in os.environ.get("PYTHONPATH", "").split(":"):
        environment["PYTHONPATH"] = str(_PACKAGE.parent)  # a checkout that is not installed
    return (sys.executable, "-P", "-m", "sysresp"), environment


def demand_trust(account: str, who: str) -> None:
    """SysrespError if a service of the system must not, or cannot, run this code; "" is root."""
    if problem := _untrusted(account):
        raise SysrespError(
            f"{who} cannot run this sysresp: {problem}",
            hint="install it where only root can write and everybody can read, such as a virtual "
            "environment in /opt, or use your own service manager: --user",
            exit=Exit.REFUSED,
        )


def account_lacks() -> str:
    """Return what keeps the controller from running as its own user, "" if nothing does."""
    if not has_polkit():
        return "there is no polkit"
    try:
        account = pwd.getpwnam(own.ACCOUNT)
    except KeyError:
        return f'there is no user "{own.ACCOUNT}"'
    if account.pw_uid == 0:
        return f'the user "{own.ACCOUNT}" is root'
    if not has_rule():
        return f"there is no polkit rule {RULE}"
    return ""


def create_account(host: Host) -> None:
    """Make the account and the polkit rule, as a package does; what is there already stays."""
    if not has_polkit():
        raise SysrespError(
            "a user of its own is of no use to the controller here: there is no polkit",
            hint="install polkit (Debian: polkitd, Fedora: polkit), or leave out --create-user",
            exit=Exit.REFUSED,
        )
    make_account(host, own.ACCOUNT, SYSUSERS_TEXT)
    if not has_rule():
        host.files.write(f"{_OWN_RULE_DIR}/{RULE}", rule().read_bytes())


def make_account(host: Host, name: str, text: str) -> None:
    """Make this account, as sysusers.d(5) has it, unless it is there."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        program = shutil.which("systemd-sysusers")
        if program is None:
            raise SysrespError(
                f'cannot make the user "{name}": there is no systemd-sysusers',
                hint=f"make it: useradd --system --shell /usr/sbin/nologin {name}",
            ) from None
        path = f"{_SYSUSERS}/{name}.conf"
        host.files.write(path, text.encode())
        done = subprocess.run([program, path], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SysrespError(f'cannot make the user "{name}": {done.stderr.strip()}') from None


def rule() -> Path:
    """Return where the polkit rule is: beside the controller in an installation, else in the source tree."""
    installed = _PACKAGE / "controller" / RULE
    return installed if installed.is_file() else _PACKAGE.parent / "packaging/polkit" / RULE


def packaged(host: Host, unit: str = own.UNIT) -> str:
    """Return the path of this unit as a package installed it, "" if none did."""
    for where in host.paths.search:
        path = f"{where}/{unit}"
        if where != host.paths.unit_dir and host.files.stat(path) is not None:
            return path
    return ""


def links(host: Host, path: str) -> list[str]:
    """Return the links that enable a packaged unit, by its own [Install]."""
    text = (host.files.read(path) or b"").decode(errors="replace")
    wanted = [v for section, name, v in parse(text) if (section, name) == ("Install", "WantedBy")]
    unit = path.rpartition("/")[2]
    return [f"{host.paths.unit_dir}/{word}.wants/{unit}" for value in wanted for word in value.split()]


def has_rule() -> bool:
    """Say whether there is a polkit rule of ours; where the caller may not look, it is believed."""
    for where in _RULE_DIRS:
        try:
            Path(where, "polkit-1/rules.d", RULE).stat()
        except PermissionError:  # polkit's directories are often its own
            return True
        except OSError:
            continue
        return True
    return False


def has_polkit() -> bool:
    """Say whether polkit is installed: D-Bus starts it when it is asked."""
    return any(Path(where, _POLKIT_SERVICE).is_file() for where in _POLKIT)


def _untrusted(account: str) -> str:
    """Return what is wrong with the code that would be run, "" if nothing is."""
    python = Path(sys.executable)
    for path in dict.fromkeys((python, python.resolve(), Path(sys.prefix), _PACKAGE)):
        if f"{path}/".startswith(_HOMES):
            return f"{path} is below a home directory, which its sandbox keeps from it"
    for path in _code(python):
        found = path.lstat()
        if stat.S_ISLNK(found.st_mode):
            continue  # what it leads to is in the list, and its own directory is
        sticky = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
        if found.st_uid != 0:
            return f"{path} belongs to {_name(found.st_uid)}"
        if found.st_mode & 0o022 and not sticky:
            return f"{path} can be written by others than root (mode {stat.S_IMODE(found.st_mode):04o})"
        needed = 0o005 if stat.S_ISDIR(found.st_mode) else 0o004
        if account and found.st_mode & needed != needed:
            return f'{path} cannot be read by the user "{account}"'
    return ""


def _code(python: Path) -> Iterator[Path]:
    """Yield the interpreter, the package, and all directories that lead to them."""
    real = [python.parent.resolve() / python.name, python.resolve(), _PACKAGE.resolve()]
    for path in dict.fromkeys(above for one in real for above in (one, *one.parents)):
        yield path
    for path in _PACKAGE.resolve().rglob("*"):
        if path.suffix in {".py", ".toml", ".j2"} or path.is_dir():
            yield path


def _name(uid: int) -> str:
    try:
        return f'"{pwd.getpwuid(uid).pw_name}"'
    except KeyError:
        return f"uid {uid}"
