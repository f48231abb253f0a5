"""Runs of sysresp over a fake host that end, or meet an error, at a chosen one of their calls.

Every change of a file, every call of systemd and every sleep is a point. A run that was killed does nothing
any more, not even in its `finally`; systemd and the files live on, and the jobs that it had queued end
without it. The rule: what a run does goes through `Run.host`, else it would outlive its own death.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, cast

from sysresp.cli import hosts
from sysresp.errors import SysrespError
from sysresp.ports import Clock, Files, Host, Manager
from sysresp.reconcile.converge import Prepared, Report, Wish, converge
from sysresp.reconcile.lock import Holder
from sysresp.units.desired import Desired
from tests.fakes import FakeFiles, FakeManager, fake_host

Before = Callable[[int, tuple[str, ...]], None]
"""Is told the number of the point (1 is the first), and what is about to be called."""

_FILES = ("write", "remove", "link", "rmdir", "sync", "begin", "undo", "forget", "lock", "unlock")
NEED_ROOM = ("write", "link")
CHANGES = (*NEED_ROOM, "remove", "sync")
STATE_DIRS = ("/var/lib/sysresp", "/run/sysresp")


class Killed(BaseException):
    """SIGKILL: nothing that comes after it is done."""


class Run:
    """One run of sysresp; another one has its own locks and its own way back."""

    def __init__(self, manager: FakeManager, before: Before = lambda _number, _call: None) -> None:
        self.points: list[tuple[str, ...]] = []
        self.files: FakeFiles = manager.files.process()
        self.found: list[str] = []
        self.output = ""
        self._manager = manager
        self._before = before
        self._dead = False
        whole = fake_host(manager=manager)
        self.host = Host(
            cast(Manager, _Counted(manager, self._point, ())),
            cast(Files, _Counted(self.files, self._point, _FILES)),
            whole.journal,
            whole.paths,
            whole.processes,
            cast(Clock, _Counted(manager.clock, self._point, ("sleep",))),
        )

    def converge(self, desired: Desired, **how: Any) -> Report:
        """Apply as the command line does."""
        with self.mortal():
            return converge(
                Wish(desired=desired, state_dirs=STATE_DIRS, holder=Holder(1, "root", "apply"), **how),
                self.host,
                check=refuse_problems,
                on_found=self.found.append,
            )
        raise AssertionError("not reached")

    def attempt(self, desired: Desired, **how: Any) -> SysrespError | None:
        """Apply, and return the error for which that could not be done."""
        try:
            self.converge(desired, **how)
        except SysrespError as error:
            return error
        return None

    def read_only_from(self, number: int) -> None:
        """Let /etc and /var be read-only from that point on."""

        def before(at: int, _call: tuple[str, ...]) -> None:
            if at == number:
                self.files.fail_on("/etc", errno.EROFS)
                self.files.fail_on("/var", errno.EROFS)

        self._before = before

    def command(self, call: Callable[[], int]) -> int:
        """Run a command of the command line on this host, and keep what it printed."""
        out = io.StringIO()
        token = hosts.open_host.set(lambda _scope, _mode: self.host)
        try:
            with self.mortal(), redirect_stdout(out), redirect_stderr(out):
                return call()
            raise AssertionError("not reached")
        finally:
            hosts.open_host.reset(token)
            self.output += out.getvalue()

    @contextmanager
    def mortal(self) -> Iterator[None]:
        """Let systemd go on alone, however this ends."""
        try:
            yield
        finally:
            self.files.die()
            self._manager.lose_client()

    def _point(self, call: tuple[str, ...], *, counts: bool) -> None:
        if self._dead:
            raise Killed
        if counts:
            self.points.append(call)
            try:
                self._before(len(self.points), call)
            except Killed:
                self._dead = True
                raise


class _Counted:
    """A port, each call of which is told before it is done."""

    def __init__(self, port: object, point: Callable[..., None], counted: Container[str]) -> None:
        self._port = port
        self._point = point
        self._counted = counted  # () for all

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._port, name)

        def call(*args: object, **kwargs: object) -> object:
            words = (name, *(word for word in args if isinstance(word, str)))
            self._point(words, counts=not self._counted or name in self._counted)
            return cast(object, found(*args, **kwargs))

        return call


def refuse_problems(made: Prepared) -> None:
    """Refuse a plan with errors, as the command line does."""
    if made.plan.errors:
        raise SysrespError("; ".join(problem.what for problem in made.plan.errors))


def killed_at(number: int) -> Before:
    """Let SIGKILL come before that point."""

    def before(at: int, _call: tuple[str, ...]) -> None:
        if at == number:
            raise Killed

    return before


def error_at(number: int, code: int) -> Before:
    """Let that change of a file fail."""

    def before(at: int, call: tuple[str, ...]) -> None:
        if at == number and call[0] in CHANGES:
            raise OSError(code, os.strerror(code), call[1])

    return before


def raised_at(number: int, error: BaseException, *, of_systemd: bool = False) -> Before:
    """Let that point raise this; if it is an error of systemd's, the first call of systemd from there on."""
    left = [error]

    def before(at: int, call: tuple[str, ...]) -> None:
        if left and at >= number and not (of_systemd and call[0] in (*_FILES, "sleep")):
            raise left.pop()

    return before


def full_from(number: int) -> Before:
    """Let the disk be full from that point on; what needs no room goes on, and /run is another disk."""

    def before(at: int, call: tuple[str, ...]) -> None:
        if at >= number and call[0] in NEED_ROOM:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), call[1])

    return before
