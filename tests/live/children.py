"""Children that change a project on a booted systemd, and can be ended at any point.

A child is forked from a process that has everything loaded, so it costs no start of an interpreter. The
points of a change are its system calls that change something (tests/faults.py) and its calls of systemd.
Rule: a child has its own connection to systemd; nothing that its parent has open is used in it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from sysresp.cli import build, change, hosts
from sysresp.errors import SysrespError
from sysresp.model import Mode, Scope
from sysresp.ports import Host, Manager
from sysresp.reconcile import generations
from sysresp.reconcile.converge import Wish, converge
from sysresp.reconcile.layout import state_dirs
from sysresp.reconcile.lock import Holder
from sysresp.systemd.files import RealFiles
from sysresp.systemd.manager import SystemManager
from tests.faults import Faults

PROJECT = "rounds"
SLEEP = 'command = ["/bin/sleep", "infinity"]\n'
CHILD_SEC = 30.0  # that a child may take


def text(new: bool) -> str:
    """Return the file of 25 services, of which 20 differ between the old one and the new one."""
    n = int(new)
    bodies: dict[str, str] = {}
    for number in range(2):
        bodies[f"restarts{number}"] = f"{SLEEP}environment = {{ N = '{n}' }}\n"
    for number in range(13):
        bodies[f"described{number}"] = f"{SLEEP}description = 'number {n}'\n"
    reload = 'reload = { command = ["/bin/true"] }\n'
    bodies["reloads"] = f"{SLEEP}{reload}config_files = ['/srv/rounds/config']\n"
    bodies["many"] = f"{SLEEP}instances = 2\nenvironment = {{ N = '{n}' }}\n"
    bodies["socket"] = f"{SLEEP}listen = ['/run/rounds-{n}.socket']\n"
    for number in range(2):
        bodies[f"{'new' if new else 'old'}{number}"] = SLEEP
    for number in range(5):
        bodies[f"outside{number}"] = SLEEP
    return f'project = "{PROJECT}"\n' + "".join(f"[services.{k}]\n{v}" for k, v in bodies.items())


def wish(new: bool) -> Wish:
    """Return what to converge to."""
    config = Path("/srv/rounds/config")
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(str(new))
    file = config.with_name("services.toml")
    file.write_text(text(new))
    manager = SystemManager()
    wanted = build.wanted(build.Source([str(file)]), manager)
    manager.close()
    return Wish(
        desired=wanted.desired,
        source=wanted.files,
        texts=wanted.texts,
        state_dirs=state_dirs(Scope.SYSTEM, os.environ),
        holder=Holder(os.getpid(), "root", "apply"),
        settle_sec=0.0,
    )


class Counted:
    """A manager, each call of which is a point."""

    def __init__(self, manager: Manager, point: Callable[[], None]) -> None:
        self._manager = manager
        self._point = point

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._manager, name)

        def call(*args: object, **kwargs: object) -> object:
            self._point()
            return cast(object, found(*args, **kwargs))

        return call


class Points:
    """Counts the points of one change, and ends it at one of them."""

    def __init__(self, last: int = 0, at: Callable[[], None] = lambda: None) -> None:
        self.count = 0
        self.began = 0.0  # its first call of systemd: the lock is had
        self.ended = 0.0  # its last point: the lock is let go
        self._last = last
        self._at = at

    def host(self) -> Host:
        """Return the real host, with points."""
        host = hosts.connect(Scope.SYSTEM, Mode.PERSISTENT)
        files = RealFiles(calls=Faults(lambda _number, _name: self._pass()).calls())
        return host._replace(manager=cast(Manager, Counted(host.manager, self._ask)), files=files)

    def _ask(self) -> None:
        self.began = self.began or time.monotonic()
        self._pass()

    def _pass(self) -> None:
        self.count += 1
        self.ended = time.monotonic()
        if self.count == self._last:
            self._at()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Child:
    """A process that does one thing, and tells what came of it as JSON."""

    def __init__(self, do: Callable[[], dict[str, Any]]) -> None:
        self.began = time.monotonic()
        self._read, write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            found: dict[str, Any]
            try:
                os.close(self._read)
                null = os.open("/dev/null", os.O_RDWR)
                os.dup2(null, 1)
                os.dup2(null, 2)
                found = do()
            except SysrespError as error:
                found = {"exit": int(error.exit), "message": f"{error.message}; {error.hint}"}
            except BaseException as error:
                found = {"exit": -1, "message": f"{type(error).__name__}: {error}"}
            os.write(write, json.dumps(found).encode())
            os._exit(0)
        os.close(write)

    def kill_after(self, seconds: float) -> None:
        """SIGKILL it then, if it has not ended."""
        select.select([self._read], [], [], seconds)
        os.kill(self.pid, signal.SIGKILL)

    def end(self) -> dict[str, Any]:
        """Wait for it; {} if it was killed."""
        content = b""
        while select.select([self._read], [], [], CHILD_SEC)[0]:
            chunk = os.read(self._read, 65536)
            if not chunk:
                break
            content += chunk
        else:
            os.kill(self.pid, signal.SIGKILL)
            content = b'{"exit": -1, "message": "it hung"}'
        os.close(self._read)
        os.waitpid(self.pid, 0)
        return cast(dict[str, Any], json.loads(content)) if content else {}


def applying(wanted: Wish, points: Points, *, wait_sec: float = 0.0) -> Child:
    """Begin to apply."""

    def do() -> dict[str, Any]:
        found: list[str] = []
        own = replace(wanted, holder=Holder(os.getpid(), "root", "apply"), wait_sec=wait_sec)
        done = converge(own, points.host(), check=lambda _: None, on_found=found.append)
        whole = done.outcome.ok and done.end == generations.OK
        return {
            "exit": 0 if whole else 1,
            "message": str(done.outcome.failures),
            "found": found,
            "count": points.count,
            "span": [points.began, points.ended],
        }

    return Child(do)


def rolling_back() -> Child:
    """Begin `sysresp rollback`."""

    def do() -> dict[str, Any]:
        hosts.open_host.set(hosts.connect)
        options = change.Options(settle="0")
        return {"exit": change.rollback(0, project=PROJECT, scope=Scope.SYSTEM, options=options)}

    return Child(do)
