"""What every test shares: hypothesis profiles, capability checks, and that no child process is left.

Tests marked `live` boot a real systemd and so need root and namespaces; those marked `trixie` also need the
root file system that `packaging/dev root trixie` makes (SYSRESP_TRIXIE_ROOT names another). Where that is
missing they are skipped with the reason, and the summary counts them: a run that skipped is no full run.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from tests.ledger_world import World

# No deadline in either: on a busy machine it would say only that the machine is busy.
hypothesis.settings.register_profile("dev", deadline=None)
# There a change is judged by the examples that its parent passed; elsewhere they are drawn anew.
hypothesis.settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")

CACHE = Path("/var/cache/sysresp-dev")
of_session: set[int] = set()  # processes that session fixtures started and will end
_skipped: dict[str, int] = {}


@functools.cache
def no_live_reason() -> str:
    """Say why a systemd cannot be booted here; "" if it can."""
    if os.geteuid() != 0:
        return "only root may boot a systemd"
    unshare = shutil.which("unshare")
    if unshare is None or shutil.which("nsenter") is None:
        return "util-linux is missing"
    words = [unshare, "--mount", "--propagation=unchanged", "--pid", "--ipc", "--uts", "--net", "--cgroup"]
    words += ["--fork", "true"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return f"namespaces are refused: {done.stderr.strip()}" if done.returncode else ""


@functools.cache
def trixie_root() -> Path | None:
    """Return a Debian 13 root file system, the newest if there are several."""
    if named := os.environ.get("SYSRESP_TRIXIE_ROOT"):
        return Path(named)
    roots = [p for p in CACHE.glob("trixie-*") if p.suffix != ".part" and p.is_dir()]
    return max(roots, key=lambda p: p.stat().st_mtime, default=None)


@functools.cache
def prometheus() -> Path | None:
    """Return the directory of Debian's prometheus and promtool, which `packaging/dev` unpacks."""
    found = [p for p in CACHE.glob("prometheus-*") if (p / "promtool").is_file()]
    return found[0] if found else None


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what this machine cannot run, and count it."""
    reason = ""
    if item.get_closest_marker("live"):
        reason = no_live_reason()
    if not reason and item.get_closest_marker("trixie") and trixie_root() is None:
        reason = "no Debian 13 root file system: run packaging/dev root trixie"
    if not reason and item.get_closest_marker("prometheus") and prometheus() is None:
        reason = "no Prometheus: run packaging/dev setup"
    if reason:
        _skipped[reason] = _skipped.get(reason, 0) + 1
        pytest.skip(reason)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many tests could not run here."""
    for reason, count in _skipped.items():
        terminalreporter.write_line(f"NOT RUN: {count} tests: {reason}", yellow=True)


def _children() -> set[int]:
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # a thread that has just ended
            found |= {int(pid) for pid in (task / "children").read_text().split()}
    return found


@pytest.fixture(autouse=True)
def no_child_left() -> Iterator[None]:
    """Fail the test that leaves a child process behind, running or not waited for."""
    if not Path("/proc/self/task", str(os.getpid()), "children").exists():
        yield  # a kernel without CONFIG_PROC_CHILDREN
        return
    before = _children()
    yield
    left = _children() - before - of_session
    assert not left, f"processes left behind: {left}"


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[World]:
    """A host in memory on which a file was applied, without a controller."""
    from tests.ledger_world import living  # noqa: PLC0415 - most tests do without

    with living(tmp_path) as one:
        yield one


@pytest.fixture
def world(bare: World) -> World:
    """The same with a controller, whose ledger is empty."""
    bare.start_controller()
    return bare
