"""A booted systemd for each test: `box`, once on this host's copy and once on Debian 13.

`box` is one of two sandboxes that are booted once a session. What a test adds to it (units, state) is
stopped and removed after the test, whatever its name. `box.project` is a fresh name for each test.
"""

from __future__ import annotations

import atexit
import functools
import itertools
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from sysresp.sandbox.boot import Bind, Sandbox
from tests.conftest import of_session, prometheus, trixie_root

TOP = Path(__file__).parent.parent.parent
USER = "tester"
UID = 4711
_STATE = ["/var/lib/sysresp", "/var/lib/sysresp-controller", "/run/sysresp"]
_STATE += [f"/home/{USER}/.config", f"/home/{USER}/.local"]
_UNIT_DIRS = ["/etc/systemd/system", "/run/systemd/system", "/etc/sysresp"]
# The checkout and its virtual environment may be where only root can go, such as below /root: the test user
# sees them here. They are at their own paths, too, for tests that run pytest inside.
CHECKOUT = "/srv/checkout"
VENV = "/srv/venv"
_CHECKOUT_BINDS = [Bind(str(TOP), CHECKOUT), Bind(str(TOP), str(TOP))]
PROMETHEUS = "/srv/prometheus"
if (_found := prometheus()) is not None:
    _CHECKOUT_BINDS.append(Bind(str(_found), PROMETHEUS))
# One for all boxes of a session: else in each of them the first command compiles everything.
BYTECODE = "/srv/bytecode"
_ENV = {"PYTHONPATH": CHECKOUT, "PYTHONPYCACHEPREFIX": BYTECODE}
_numbers = itertools.count(1)


class Box:
    """A booted systemd, and this checkout's sysresp in it."""

    def __init__(self, sandbox: Sandbox, python: str) -> None:
        self.sandbox = sandbox
        self.python = python
        self.project = ""  # a fresh name for each test
        self.run = sandbox.run
        self.path = sandbox.path
        self.version = sandbox.version
        self._has_user_manager = False
        self._units = set(self._loaded())
        self._files = self._listing()

    def sysresp(
        self,
        *args: str,
        check: bool = False,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = 120.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run this checkout's sysresp inside; an apply does not settle unless the test says so."""
        if user:
            self.need_user_manager()
        words = [self.python, "-m", "sysresp", *args]
        if args[:1] == ("apply",) and not {"--settle", "--plan"} & set(args):
            words += ["--settle", "0"]
        return self.run(words, check=check, user=user, env=env, timeout=timeout)

    def systemctl(
        self, *args: str, check: bool = True, user: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run systemctl inside; as `user`, that user's own manager is meant."""
        if user:
            self.need_user_manager()
        return self.run(["systemctl", *(["--user"] if user else []), *args], check=check, user=user)

    def show(self, unit: str, name: str, *, user: str | None = None) -> str:
        """Return one property of a unit, as `systemctl show` prints it."""
        return self.systemctl("show", "--value", "-p", name, unit, user=user).stdout.strip()

    def write(self, path: str, text: str, mode: int = 0o644) -> str:
        """Write a file inside, making its parents, and return its path inside."""
        file = self.path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8", errors="surrogateescape")
        file.chmod(mode)
        return path

    def read(self, path: str) -> str:
        """Read a file inside."""
        return self.path(path).read_text(encoding="utf-8", errors="surrogateescape")

    def need_user_manager(self) -> None:
        """Start the service manager of `tester`, once."""
        if not self._has_user_manager:
            self.sandbox.start_user_manager(USER)
            self._has_user_manager = True
            self._units = set(self._loaded())

    def _loaded(self, user: str | None = None) -> list[str]:
        words = ["systemctl", *(["--user"] if user else []), "list-units", "--all", "--plain", "--no-legend"]
        lines = self.run(words, check=True, user=user).stdout.splitlines()
        return [x.split()[0] for x in lines if x.strip()]

    def _listing(self) -> set[Path]:
        return {p for d in _UNIT_DIRS for p in self.path(d).rglob("*")}

    def clean(self) -> None:
        """Stop and remove everything that the test added."""
        new = sorted(set(self._loaded()) - self._units)
        if ours := [u for u in new if not u.endswith((".device", ".mount", ".swap"))]:
            # Failed units and those that end meanwhile are no error of the test's.
            self.run(["systemctl", "stop", *ours])
        if self._has_user_manager:
            self.run(["systemctl", "--user", "stop", f"{self.project}*", "--all"], user=USER)
        self.run(["rm", "-rf", "--", *_STATE])
        if added := sorted(self._listing() - self._files, reverse=True):
            root = self.path("/")
            self.run(["rm", "-rf", "--", *(f"/{p.relative_to(root)}" for p in added)], check=True)
        if added or new:
            self.systemctl("daemon-reload")
            self.systemctl("reset-failed")
            if self._has_user_manager:
                self.systemctl("daemon-reload", user=USER)


def _furnish(sandbox: Sandbox) -> None:
    of_session.add(sandbox.keeper_pid)
    for file, line in (
        ("passwd", f"{USER}:x:{UID}:{UID}:Test user:/home/{USER}:/bin/sh"),
        ("group", f"{USER}:x:{UID}:"),
        ("shadow", f"{USER}:*:19000:0:99999:7:::"),
    ):
        with sandbox.path(f"/etc/{file}").open("a") as out:
            out.write(line + "\n")
    sandbox.run(["install", "-d", "-o", USER, "-g", USER, f"/home/{USER}"], check=True)


def _sandbox(which: str, *more: Bind) -> Sandbox:
    """Return a sandbox, not booted yet: a copy of this host, or Debian 13 with its own Python packages."""
    shared = [*_CHECKOUT_BINDS, _bytecode(), *more]
    if which == "trixie":
        root = trixie_root()
        assert root is not None
        return Sandbox(root, binds=shared, env=_ENV, hostname="trixie")
    binds = [Bind(sys.prefix, VENV), Bind(sys.prefix, sys.prefix)] if sys.prefix != sys.base_prefix else []
    return Sandbox(binds=[*shared, *binds], env=_ENV)


@functools.cache
def _bytecode() -> Bind:
    """Return the directory of the byte code."""
    top = Path(tempfile.mkdtemp(prefix="sysresp-bytecode-"))
    atexit.register(shutil.rmtree, top, ignore_errors=True)
    top.chmod(0o755)
    return Bind(str(top), BYTECODE, read_only=False)


def _python(which: str) -> str:
    if which == "trixie":
        return "/usr/bin/python3"
    return f"{VENV}/bin/{Path(sys.executable).name}" if sys.prefix != sys.base_prefix else sys.executable


@contextmanager
def fresh_box(which: str, *more: Bind) -> Iterator[Box]:
    """A systemd for one test alone, "host" or "trixie": what is done to it concerns nobody else."""
    with _sandbox(which, *more) as sandbox:
        _furnish(sandbox)
        box = Box(sandbox, _python(which))
        box.project = f"t{next(_numbers)}"
        yield box


@pytest.fixture(scope="session")
def sandbox252() -> Iterator[Sandbox]:
    """This host's own systemd (252 on Debian 12), over a copy of its files."""
    with _sandbox("host") as sandbox:
        _furnish(sandbox)
        yield sandbox


@pytest.fixture(scope="session")
def sandbox257() -> Iterator[Sandbox]:
    """Debian 13's systemd (257), with the distribution's Python packages."""
    with _sandbox("trixie") as sandbox:
        _furnish(sandbox)
        yield sandbox


@pytest.fixture(scope="session")
def host_box(sandbox252: Sandbox) -> Box:
    """The box of this host, for the whole session; tests ask for `box`."""
    return Box(sandbox252, _python("host"))


@pytest.fixture(scope="session")
def trixie_box(sandbox257: Sandbox) -> Box:
    """The box of Debian 13, for the whole session; tests ask for `box`."""
    return Box(sandbox257, _python("trixie"))


@pytest.fixture(params=["host", pytest.param("trixie", marks=pytest.mark.trixie)])
def box(request: pytest.FixtureRequest) -> Iterator[Box]:
    """A booted systemd to use at will; cleaned after the test."""
    found: Box = request.getfixturevalue(f"{request.param}_box")
    found.project = f"t{next(_numbers)}"
    yield found
    found.clean()


@pytest.fixture(params=["host", pytest.param("trixie", marks=pytest.mark.trixie)])
def arena(request: pytest.FixtureRequest) -> Iterator[Box]:
    """A systemd booted for this test alone."""
    with fresh_box(request.param) as box:
        yield box
