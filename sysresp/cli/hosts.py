"""The composition root: where the ports get their real ends.

Owns the one place at which `Host` is put together. Tests set `open_host` to one that returns fakes, so that
every command runs on both.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path

import sysresp
from sysresp.controller import own
from sysresp.model import Mode, Scope
from sysresp.ports import Host
from sysresp.reconcile import generations, layout
from sysresp.reconcile.lock import Holder
from sysresp.reconcile.manifest import Manifest, all_manifests
from sysresp.systemd.clock import RealClock
from sysresp.systemd.files import RealFiles
from sysresp.systemd.journal import RealJournal
from sysresp.systemd.manager import SystemManager
from sysresp.systemd.processes import RealProcesses


def connect(scope: Scope, mode: Mode) -> Host:
    """Return the real host; systemd is first spoken to when something is asked of it."""
    user = scope is Scope.USER
    return Host(
        manager=SystemManager(user=user),
        files=RealFiles(),
        journal=RealJournal(user=user),
        paths=layout.paths(scope, mode, os.environ),
        processes=RealProcesses(),
        clock=RealClock(),
    )


open_host: ContextVar[Callable[[Scope, Mode], Host]] = ContextVar("open_host", default=connect)


def host(scope: Scope, mode: Mode) -> Host:
    """Return the host of this scope and mode."""
    return open_host.get()(scope, mode)


def prober_program() -> bytes:
    """Return the readiness prober, which apply installs beside the manifests."""
    return (Path(sysresp.__file__).parent / "ready.py").read_bytes()


def manifests(scope: Scope, project: str = "") -> list[Manifest]:
    """Return the manifests of all projects and modes, or those of one project."""
    files = host(scope, Mode.PERSISTENT).files
    found = [one for where in layout.state_dirs(scope, os.environ) for one in all_manifests(files, where)]
    return [one for one in found if project in {"", one.project}]


def projects(scope: Scope) -> list[tuple[str, Mode]]:
    """Return the projects that have generations, with the mode of the latest; applied or taken away."""
    found = {}
    for mode in (Mode.PERSISTENT, Mode.RUNTIME):
        one = host(scope, mode)
        for name in one.files.listdir(f"{one.paths.state_dir}/generations"):
            entries = generations.history(one.files, one.paths, name)
            if entries:
                last = entries[-1]
                found[name, last.mode] = (last.when, name, Mode(last.mode))
    newest = sorted(found.values(), reverse=True)
    return sorted({name: mode for _, name, mode in reversed(newest)}.items())


def can_mean(project: str, asked: str) -> bool:
    """Say whether the project can be the one that was asked for; sysresp's own only by their names."""
    return asked == project or (not asked and project not in own.PROJECTS)


def holder(command: str) -> Holder:
    """Return who we are, for the lock and for the history."""
    return Holder(os.getpid(), os.environ.get("SUDO_USER") or _account(), command)


def _account() -> str:
    import pwd  # noqa: PLC0415 - loads nsswitch modules

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
