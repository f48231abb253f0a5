"""What is missing or limiting on a host, decided from facts: `diagnose(facts) -> findings`.

Owns the facts that matter, the checks on them, and the words of each finding with its mend. Pure: nothing is
asked of the host here (`doctor_facts` does that), so every host can be told about in a test. Rule: a finding
says what is so, what follows from it for sysresp, and a command that mends it; what is taken care of is a
note, and does not make the host unwell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from typing import NamedTuple

from sysresp.units.directives import TABLE

OLDEST_SYSTEMD, NEWEST_SYSTEMD = 247, 259  # what sysresp is written for; 252 and 257 are tested
OLDEST_PYTHON = (3, 11)
_NEEDED = {"jinja2": (3, 0), "pystemd": (0, 11), "tomli-w": (1, 0), "typer": (0, 7)}
_RULES_IN_JAVASCRIPT = 106  # before, polkit took no rules of this kind; Debian's did so from 121 on

# What keys of services.toml need, and what becomes of them on an older systemd.
LACKS = (
    ("PrivateIPC", "hardening leaves PrivateIPC= out"),
    ("LoadCredentialEncrypted", "encrypted credentials are refused"),
    ("RestartMaxDelaySec", "restart delays do not grow by themselves (max_delay)"),
)


class Level(StrEnum):
    """How much it matters; the last two make `doctor` end with status 3."""

    OK = "ok"
    NOTE = "note"  # worth knowing; taken care of
    LIMIT = "limit"  # something that sysresp can do does not work here
    MISSING = "missing"  # without this hardly anything works


class Finding(NamedTuple):
    """One line of the report, part of `doctor --json`."""

    check: str  # stable name, such as "journal"
    level: Level
    what: str
    why: str = ""  # what follows from it
    fix: str = ""  # a command, or what to do


class Directory(NamedTuple):
    """One directory of ours, or of systemd's for our units."""

    path: str
    exists: bool = True
    owner: int = 0
    mode: int = 0o755
    is_read_only: bool = False  # its file system is


class Controller(NamedTuple):
    """What systemd says of the controller's unit."""

    load: str = "not-found"  # LoadState
    active: str = "inactive"  # ActiveState
    result: str = "success"
    is_enabled: bool = False
    account: str = ""  # User=


class Facts(NamedTuple):
    """A host, as far as it matters."""

    python: tuple[int, ...] = (3, 11)
    packages: Mapping[str, str] = {}  # name on PyPI -> version; "" for one that cannot be imported
    is_user: bool = False  # the user's own manager is meant
    uid: int = 0
    account: str = "root"
    pid1: str = "systemd"
    is_booted: bool = True  # sd_booted(3)
    version: int = 257  # 0: unknown
    manager_trouble: tuple[str, str] = ("", "")  # why it does not answer, and a hint
    has_bus: bool = True
    polkit: str = "126"  # "" none, "?" there, of a version that is not known
    has_rule: bool = True
    has_account: bool = True
    journal: str = "persistent"  # volatile | none
    can_read_journal: bool = True
    cgroup: str = "unified"  # hybrid | legacy
    lingers: bool = True
    has_session: bool = True  # XDG_RUNTIME_DIR, and a user manager behind it
    directories: tuple[Directory, ...] = ()
    controller: Controller = Controller("loaded", "active", is_enabled=True, account="sysresp")


def diagnose(facts: Facts) -> list[Finding]:
    """Return one finding for each check that means something on this host, in reading order."""
    return [found for check in CHECKS for found in check(facts)]


def is_well(findings: list[Finding]) -> bool:
    return all(found.level in {Level.OK, Level.NOTE} for found in findings)


def _python(facts: Facts) -> Iterator[Finding]:
    version = ".".join(map(str, facts.python))
    if facts.python < OLDEST_PYTHON:
        yield Finding(
            "python",
            Level.MISSING,
            f"Python {version} is too old",
            "sysresp is written for Python 3.11 and newer",
            "run sysresp with a newer Python, such as one in a virtual environment",
        )
    else:
        yield Finding("python", Level.OK, f"Python {version}")


def _packages(facts: Facts) -> Iterator[Finding]:
    fine = []
    for name, oldest in _NEEDED.items():
        version = facts.packages.get(name, "")
        if not version:
            why = "nothing can be asked of systemd" if name == "pystemd" else "most commands need it"
            fix = f"apt install python3-{name}, or dnf install python3-{name}"
            if name == "pystemd":
                fix += "; pip compiles it: apt install gcc pkg-config libsystemd-dev python3-dev"
            yield Finding(name, Level.MISSING, f"{name} cannot be imported", why, fix)
        elif _number(version) < oldest:
            least = ".".join(map(str, oldest))
            yield Finding(
                name,
                Level.LIMIT,
                f"{name} {version} is older than {least}",
                "sysresp is tested with that and newer",
                f"pip install '{name}>={least}' in sysresp's environment",
            )
        else:
            fine.append(f"{name} {version}")
    if fine:
        yield Finding("packages", Level.OK, ", ".join(fine))


def _number(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: (0, 15) for "0.15.3rc1"."""
    numbers = []
    for part in version.split(".")[:2]:
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
    return tuple(numbers)


def _systemd(facts: Facts) -> Iterator[Finding]:
    if not facts.is_booted:
        yield Finding(
            "systemd",
            Level.MISSING,
            f"PID 1 is {facts.pid1}, not systemd",
            "there is no service manager to apply anything to; check and render work",
            "boot with systemd as PID 1; `sysresp rehearse FILE` boots a throwaway copy of this host",
        )
        return
    trouble, hint = facts.manager_trouble
    if trouble and (facts.has_session or not facts.is_user):  # else `_session` has the reason
        yield Finding("systemd", Level.MISSING, trouble, "nothing can be asked of systemd", hint)
    if not facts.version:
        return
    if facts.version < OLDEST_SYSTEMD:
        yield Finding(
            "systemd",
            Level.LIMIT,
            f"systemd {facts.version} is older than {OLDEST_SYSTEMD}",
            "sysresp is not written for it, and nothing is known to work",
            "upgrade the distribution",
        )
        return
    yield _lacks(facts)
    if facts.version > NEWEST_SYSTEMD:
        yield Finding(
            "systemd-new",
            Level.NOTE,
            f"systemd {facts.version} is newer than {NEWEST_SYSTEMD}",
            "sysresp has not been tried with it",
        )


def _lacks(facts: Facts) -> Finding:
    """Tell what this systemd cannot do of what keys of services.toml ask for."""
    version = facts.version
    lacks = [words for name, words in LACKS if TABLE[name].since > version]
    later = sum(row.since > version for row in TABLE.values())
    if not lacks:
        return Finding("systemd", Level.OK, f"systemd {version}")
    what = f"systemd {version}: " + "; ".join(lacks)
    why = f"{later} directives are newer; `check` tells the line of each that a file uses"
    if facts.controller.active == "active" or TABLE["RestartMaxDelaySec"].since <= version:
        helped = "" if TABLE["RestartMaxDelaySec"].since <= version else "the controller makes delays grow; "
        return Finding("systemd", Level.NOTE, what, helped + why)
    return Finding("systemd", Level.LIMIT, what, why, "run the controller, which makes delays grow")


def _bus(facts: Facts) -> Iterator[Finding]:
    if facts.is_booted and not facts.has_bus:
        name = "dbus-user-session" if facts.is_user else "dbus"
        scope = "--user " if facts.is_user else ""
        yield Finding(
            "dbus",
            Level.LIMIT,
            "there is no D-Bus",
            "only root's commands reach systemd, and the controller hears nothing"
            if not facts.is_user
            else "the controller hears nothing of your services",
            f"apt install {name}; systemctl {scope}start dbus.socket",
        )


def _session(facts: Facts) -> Iterator[Finding]:
    if not facts.is_user or not facts.is_booted:
        return
    linger = f"loginctl enable-linger {facts.account}"
    if not facts.has_session:
        yield Finding(
            "session",
            Level.MISSING,
            f"{facts.account} has no session here, and so no service manager",
            "su and sudo make none; --user needs it",
            f"{linger}; then export XDG_RUNTIME_DIR=/run/user/{facts.uid}"
            if not facts.lingers
            else f"export XDG_RUNTIME_DIR=/run/user/{facts.uid}, or log in by ssh or machinectl",
        )
    if not facts.lingers:
        yield Finding(
            "linger",
            Level.LIMIT,
            f"{facts.account} does not linger",
            "services of --user end with the last session, and do not start at boot",
            linger,
        )
    elif facts.has_session:
        yield Finding("linger", Level.OK, f"{facts.account} lingers: services start at boot")


def _polkit(facts: Facts) -> Iterator[Finding]:
    if facts.is_user or not facts.is_booted:
        return
    mine = facts.controller.account not in {"", "root"}
    level = Level.LIMIT if mine else Level.NOTE
    why = (
        f'the controller runs as "{facts.controller.account}", and may not restart anything'
        if mine
        else "the controller can only run as root (without capabilities)"
    )
    if not facts.polkit:
        again = "systemctl restart sysresp" if mine else "sysresp controller enable --create-user"
        fix = f"apt install polkitd, or dnf install polkit; {again}"
        yield Finding("polkit", level, "there is no polkit", why, fix)
    elif facts.polkit != "?" and 0 < _polkit_number(facts.polkit) < _RULES_IN_JAVASCRIPT:
        what = f"polkit {facts.polkit} takes no rules in JavaScript"
        yield Finding("polkit", level, what, why, "upgrade polkit to 106 or newer (Debian: 121)")
    elif not (facts.has_rule and facts.has_account):
        what = "there is no polkit rule of sysresp's" if facts.has_account else 'there is no user "sysresp"'
        yield Finding("polkit", level, what, why, "sysresp controller enable --create-user")
    else:
        yield Finding("polkit", Level.OK, f"polkit {facts.polkit}".removesuffix(" ?"))


def _polkit_number(version: str) -> int:
    """Return 105 for "0.105", and 126 for "126": the 0 went at 121."""
    first, _, rest = version.partition(".")
    digits = rest.partition(".")[0] if first == "0" else first
    return int(digits) if digits.isdigit() else 0


def _journal(facts: Facts) -> Iterator[Finding]:
    if not facts.is_booted:
        return
    if facts.journal == "none":
        yield Finding(
            "journal",
            Level.LIMIT,
            "there is no journal",
            "no last words of what fails, and no ready = { log = ... }",
            "systemctl start systemd-journald.service",
        )
        return
    volatile = facts.journal == "volatile"
    if volatile:
        yield Finding(
            "journal",
            Level.LIMIT,
            "the journal is only in memory",
            "what services said is gone after a boot, and so is what the controller missed before it",
            "mkdir -p /var/log/journal && systemctl restart systemd-journald; "
            "and no Storage=volatile in journald.conf(5)",
        )
    if not facts.can_read_journal:
        group = f"usermod --append --groups systemd-journal {facts.account}"
        yield Finding(
            "journal-access",
            Level.LIMIT,
            f"{facts.account} cannot read the journal",
            "status and why show no last words, logs shows nothing",
            f"{group}, and log in again",
        )
    elif not volatile:
        yield Finding("journal", Level.OK, "the journal is on disk and can be read")


def _cgroup(facts: Facts) -> Iterator[Finding]:
    if facts.cgroup == "unified":
        yield Finding("cgroup", Level.OK, "cgroup version 2")
    elif facts.is_booted:
        yield Finding(
            "cgroup",
            Level.LIMIT,
            f"cgroup version 1 ({facts.cgroup})",
            "limits do not hold for services of --user, nor do those that only version 2 has; "
            "systemd 258 does not boot with it",
            "boot with systemd.unified_cgroup_hierarchy=1 on the kernel's command line",
        )


def _directories(facts: Facts) -> Iterator[Finding]:
    trusted = {0, facts.uid} if facts.is_user else {0}
    wrong = False
    for one in facts.directories:
        if not one.exists:
            continue
        what = fix = ""
        if one.is_read_only:
            what = f"{one.path} is on a read-only file system"
            fix = "apply with --runtime, which writes to /run, or make it writable"
        elif one.owner not in trusted:
            what = f"{one.path} belongs to UID {one.owner}"
            fix = f"chown {facts.account if facts.is_user else 'root'} {one.path}"
        elif one.mode & 0o022:
            what = f"{one.path} can be written by others (mode {one.mode:o})"
            fix = f"chmod go-w {one.path}"
        if what:
            wrong = True
            why = "nothing can be applied" if one.is_read_only else "whoever may write there rules services"
            yield Finding("directories", Level.LIMIT, what, why, fix)
    if not wrong:
        yield Finding(
            "directories", Level.OK, "the directories of units and of our memory are as they should be"
        )


def _controller(facts: Facts) -> Iterator[Finding]:
    if not facts.is_booted or facts.manager_trouble[0]:
        return
    found, user = facts.controller, " --user" if facts.is_user else ""
    enable = f"sysresp controller enable{user}"
    why = "nothing keeps the ledger, brings back what systemd has given up, or probes health"
    if found.load != "loaded":
        what = "the controller is not installed"
        if found.load == "masked":
            what, enable = "the controller is masked", f"systemctl{user} unmask sysresp; {enable}"
        yield Finding("controller", Level.LIMIT, what, why, enable)
    elif found.active not in {"active", "reloading", "activating"}:
        what = f"the controller is {found.active}"
        if found.result not in {"", "success"}:
            what += f" ({found.result})"
            enable = f"sysresp controller status{user} tells why; {enable}"
        yield Finding("controller", Level.LIMIT, what, why, enable)
    elif not found.is_enabled:
        what = "the controller is not started at boot"
        yield Finding("controller", Level.LIMIT, what, f"after the next boot {why}", enable)
    else:
        yield Finding("controller", Level.OK, f"the controller is {found.active}")


CHECKS: tuple[Callable[[Facts], Iterator[Finding]], ...] = (
    _python,
    _packages,
    _systemd,
    _bus,
    _session,
    _polkit,
    _journal,
    _cgroup,
    _directories,
    _controller,
)
