"""Built packages, and new installations of Debian to put them on: `debs`, `rpms`, `machine`.

Owns what the tests of packages share: this version and the next, built once a session by packaging/build,
and a freshly made root file system of each release, booted, without network (what apt would download is in
its cache). Every step that is timed shows up in a table at the end. Rule: nothing here uses sysresp of the
checkout inside; what runs there came out of a package.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

import sysresp
from sysresp.controller.respawn import QUIET_SEC
from sysresp.sandbox.boot import Bind, Sandbox
from tests.conftest import no_live_reason, of_session
from tests.live.until import until

TOP = Path(__file__).parent.parent.parent
VERSION = sysresp.__version__
NEXT = "0.9.9"
EXAMPLE = "/usr/share/doc/sysresp/examples/services.toml"
CONTROLLER = "sysresp.service"
SERVICES = ("demo-db.service", "demo-web@1.service", "demo-web@2.service")
_LEDGER = """\
from sysresp.controller.reader import Reader
with Reader("/var/lib/sysresp-controller/ledger.db") as reader:
    for exit in reader.exits():
        print(exit.unit, exit.invocation, exit.exec_status)
"""
_times: list[tuple[str, float]] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything in this directory."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.package)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("package") and (reason := no_live_reason()):
        pytest.skip(reason)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how long each step took."""
    for name, seconds in _times:
        terminalreporter.write_line(f"package: {name:<50} {seconds:6.1f} s")


@contextmanager
def timed(name: str) -> Iterator[None]:
    """Note how long this takes, for the table at the end."""
    start = time.monotonic()
    yield
    _times.append((name, time.monotonic() - start))


def root_of(name: str) -> str:
    """Return the root file system of this name (packaging/roots.sh), making it if there is none."""
    words = [str(TOP / "packaging/dev"), "root", name]
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def build(kind: str, out: Path, *options: str, env: dict[str, str] | None = None) -> None:
    """Run packaging/build; a failure shows what it said."""
    words = [str(TOP / "packaging/build"), kind, "--out", str(out), *options]
    default = {"DEB_BUILD_OPTIONS": "nocheck"}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=default | (env or {}))
    assert done.returncode == 0, done.stdout + done.stderr


def copy_source(to: Path) -> Path:
    """Copy what git knows, with whatever permissions the umask leaves."""
    listed = subprocess.run(["git", "-C", TOP, "ls-files", "-z"], check=True, capture_output=True, text=True)
    for name in listed.stdout.split("\0")[:-1]:
        target = to / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((TOP / name).read_bytes())
        if os.access(TOP / name, os.X_OK):
            target.chmod(target.stat().st_mode | 0o100)
    return to


def next_source(to: Path) -> Path:
    """Copy the sources and make the next version of them, with a module that is not the same any more."""
    copy_source(to)
    for name in ("sysresp/__init__.py", "packaging/debian/changelog", "packaging/rpm/sysresp.spec"):
        text = (to / name).read_text()
        assert VERSION in text
        (to / name).write_text(text.replace(VERSION, NEXT))
    with (to / "sysresp/controller/serve.py").open("a") as module:
        module.write("# What comes next.\n")
    return to


@pytest.fixture(scope="session")
def debs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This version and the next as .deb, and one whose installation is refused by its own script."""
    out = tmp_path_factory.mktemp("debs")
    source = next_source(tmp_path_factory.mktemp("next"))
    with timed("build of two .debs"):
        build("deb", out, "--no-gates")
        build("deb", out, "--no-gates", "--source", str(source))
    unpacked = tmp_path_factory.mktemp("broken") / "sysresp"
    new = out / f"sysresp_{NEXT}_all.deb"
    subprocess.run(["dpkg-deb", "--raw-extract", new, unpacked], check=True)
    (unpacked / "DEBIAN/preinst").write_text("#!/bin/sh\necho refused by its preinst >&2\nexit 1\n")
    (unpacked / "DEBIAN/preinst").chmod(0o755)
    subprocess.run(["dpkg-deb", "--build", unpacked, out / "broken.deb"], check=True, capture_output=True)
    return out


@pytest.fixture(scope="session")
def rpms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This version and the next as .rpm."""
    out = tmp_path_factory.mktemp("rpms")
    source = next_source(tmp_path_factory.mktemp("next"))
    with timed("build of two .rpms"):
        build("rpm", out, "--no-gates")
        build("rpm", out, "--no-gates", "--source", str(source))
    return out


class Machine:
    """A booted new installation, and what an administrator types on it."""

    def __init__(self, sandbox: Sandbox, suite: str) -> None:
        of_session.add(sandbox.keeper_pid)
        self.suite = suite
        self.python = ["python3"]  # with the installed sysresp in its path
        self.path = sandbox.path
        self.run = sandbox.run

    def sh(self, line: str, *, timeout: float = 300.0) -> str:
        """Run a line of shell, which has to succeed, and return what it printed."""
        env = {"DEBIAN_FRONTEND": "noninteractive"}
        return self.run(["sh", "-c", line], check=True, env=env, timeout=timeout).stdout.strip()

    def apt(self, step: str, *words: str) -> str:
        """Run apt-get without a terminal, as unattended upgrades do."""
        with timed(f"{self.suite}: {step}"):
            return self.sh(f"apt-get -y -q {' '.join(words)}")

    def show(self, unit: str, name: str) -> str:
        return self.sh(f"systemctl show --value -p {name} {unit}")

    def pids(self, units: Sequence[str]) -> dict[str, str]:
        """Return the main process of each."""
        return {unit: self.show(unit, "MainPID") for unit in units}

    def ledger(self) -> set[str]:
        """Return the rows of the ledger, read by the installed sysresp."""
        return set(self.run([*self.python, "-c", _LEDGER], check=True).stdout.splitlines())

    def crash(self, unit: str) -> str:
        """Kill its main process, wait until it runs again and the ledger knows; return the row."""
        run = self.show(unit, "InvocationID")
        self.sh(f"systemctl kill --signal=KILL {unit}")
        until(lambda: self.show(unit, "InvocationID") != run, "the next run")
        until(lambda: self.show(unit, "ActiveState") == "active", "it runs again")
        row = f"{unit} {run} 9"
        until(lambda: row in self.ledger(), "the row")
        return row

    def controller(self) -> str:
        """Return the controller's run, which must be well, at boot, too, and not root's."""
        self.sh("sysresp controller status")
        assert self.show(CONTROLLER, "UnitFileState") == "enabled"
        assert self.show(CONTROLLER, "NRestarts") == "0"
        status = self.path(f"/proc/{self.show(CONTROLLER, 'MainPID')}/status").read_text()
        assert re.findall(r"^Uid:\t(\d+)", status, re.MULTILINE) == [self.sh("id -u sysresp")]
        return self.show(CONTROLLER, "InvocationID")

    def starts(self) -> int:
        """Return how often the controller was started, once it has had the time to restart itself."""
        age = "ActiveEnterTimestampMonotonic"
        quiet = 2 * QUIET_SEC
        until(lambda: time.monotonic() - int(self.show(CONTROLLER, age)) / 1e6 > quiet, "it has run a while")
        return int(
            self.sh(f"journalctl -q -o json UNIT={CONTROLLER} JOB_TYPE=start JOB_RESULT=done | wc -l")
        )

    def installed(self) -> str:
        """Return dpkg's state and version of the package; "" if it knows none."""
        words = ["dpkg-query", "-W", "-f", "${db:Status-Abbrev}${Version}", "sysresp"]
        return re.sub(r"\s+", " ", self.run(words).stdout.strip())


@contextmanager
def booted(suite: str, debs: Path) -> Iterator[Machine]:
    """Boot a new installation with the packages at /debs."""
    with Sandbox(root_of(f"fresh-{suite}"), binds=[Bind(str(debs), "/debs")], hostname=suite) as sandbox:
        yield Machine(sandbox, suite)


@pytest.fixture(params=["bookworm", "trixie"])
def machine(request: pytest.FixtureRequest, debs: Path) -> Iterator[Machine]:
    """A new installation of each release, for one test."""
    with booted(request.param, debs) as found:
        yield found
