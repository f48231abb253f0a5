"""`sysresp alerts test NAME`: one message by the very way that the controller's own would take.

Owns the message and where its sender runs: in a transient unit with every line of the controller's [Service]
that says who runs it, what it sees and what it may do, drop-ins and so credentials (LoadCredential=)
included; without such a unit, or for somebody who may not make units, as a child of ours. The queue is the
controller's, and not touched. Rule: what a real message would fail of has to fail here.
"""

from __future__ import annotations

import os
import pwd
import subprocess
import time
from collections.abc import Sequence
from typing import Any

from sysresp.cli import hosts, own_status
from sysresp.controller import own
from sysresp.controller.deliver import SENDER, given_for
from sysresp.controller.spawn import environment, last_line
from sysresp.controller.telling import iso
from sysresp.errors import Exit, SysrespError
from sysresp.model import Mode, Scope
from sysresp.units import alerting, text

_SPARE_SEC = 10.0  # beyond the receiver's own timeout
_VERDICTS = (65, 75)  # of send.py, which says why
_OF_ITS_LIFE = (
    *("Type", "Exec", "Restart", "Timeout", "Watchdog", "NotifyAccess", "RemainAfterExit", "RuntimeMax"),
    *("Standard", "TTY", "Sockets", "FileDescriptorStore", "PIDFile", "BusName", "SuccessExitStatus"),
)
"""How directives begin that say when a service starts and ends: a transient unit has its own."""


def properties(unit: str) -> list[str]:
    """Return the lines of a service unit that say as whom, with what and in which sandbox it runs."""
    lines = [(name, value) for section, name, value in text.parse(unit) if section == "Service" and name]
    return [f"{name}={value}" for name, value in lines if not name.startswith(_OF_ITS_LIFE)]


def run(name: str, project: str, scope: Scope) -> int:
    """Send it, and say what became of it."""
    of, receiver = _chosen(name, project, scope)
    given = given_for(receiver, _message(name, of))
    try:
        if os.geteuid() == 0 or scope is Scope.USER:
            done = _in_unit(given, receiver.timeout_sec, scope) or _here(given, receiver.timeout_sec, scope)
        else:
            done = _here(given, receiver.timeout_sec, scope)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SysrespError(f"cannot tell {name}: {error}") from error
    if done.returncode:
        why = last_line(done.stdout) or f"exit status {done.returncode}"
        if done.returncode not in _VERDICTS and not done.stdout:
            why = f"{why}: the sender could not be started as the controller's unit says (systemd.exec(5))"
        raise SysrespError(f"{name} did not take it: {why}")
    print(f"{name} has taken it")
    return Exit.OK


def _chosen(name: str, project: str, scope: Scope) -> tuple[str, alerting.Receiver]:
    """Return whose it is, and the receiver."""
    owned = hosts.manifests(scope, project)
    found = [(one.project, one.alerts[name]) for one in owned if name in one.alerts]
    if len(found) == 1:
        return found[0][0], alerting.loads(found[0][1])
    names = sorted({alert for one in owned for alert in one.alerts})
    projects = ", ".join(sorted(each for each, _ in found))
    raise SysrespError(
        f'several projects have an alert "{name}": {projects}'
        if found
        else f'no project that is applied here has an alert "{name}"',
        hint="--project NAME" if found else f"there are: {', '.join(names)}" if names else "",
        exit=Exit.USAGE if found else Exit.UNKNOWN,
    )


def _message(name: str, project: str) -> dict[str, Any]:
    host, now = os.uname().nodename, time.time()
    line = f"a test of the alert {name}"
    return {
        **{"version": 1, "key": f"{host}-test-{int(now * 1000)}", "kind": "test", "incident": 0},
        **{"host": host, "project": project, "service": "test", "unit": "", "summary": line},
        **{"text": f"{line} on {host}", "since": iso(now), "resolved": None, "duration_sec": 0.0},
        **{"failures": 0, "reasons": [], "units": []},
    }


def _in_unit(given: bytes, timeout_sec: float, scope: Scope) -> subprocess.CompletedProcess[bytes] | None:
    """Send it from a unit like the controller's; None if there is no such unit."""
    if own_status.unit(hosts.host(scope, Mode.PERSISTENT).manager)["load"] != "loaded":
        return None
    user = ["--user"] if scope is Scope.USER else []
    lines = subprocess.run(
        ["systemctl", *user, "cat", own.UNIT],
        capture_output=True,
        text=True,
        timeout=_SPARE_SEC,
        check=False,
    )
    if lines.returncode:
        return None
    words = ["systemd-run", *user, "--quiet", "--wait", "--pipe", "--collect", "--service-type=exec"]
    words += [f"--unit=sysresp-alerts-test-{os.getpid()}.service", "--description=a test of an alert"]
    limit = timeout_sec + _SPARE_SEC
    for line in (*properties(lines.stdout), f"RuntimeMaxSec={limit:g}"):
        words += ["--property", line]
    return _ran([*words, "--", *SENDER], given, limit + _SPARE_SEC)


def _here(given: bytes, timeout_sec: float, scope: Scope) -> subprocess.CompletedProcess[bytes]:
    """Send it from a child of ours, if possible with the rights of the controller's user."""
    rights: dict[str, Any] = {}
    if os.geteuid() == 0 and scope is Scope.SYSTEM:
        try:
            account = pwd.getpwnam(own.ACCOUNT)
            rights = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        except KeyError:
            pass  # the controller would be root, too, where there is no such account
    return _ran(
        SENDER, given, timeout_sec + _SPARE_SEC, env=environment("", "", os.environ), cwd="/", **rights
    )


def _ran(
    words: Sequence[str], given: bytes, limit: float, **more: Any
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        words,
        input=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=limit,
        check=False,
        **more,
    )
