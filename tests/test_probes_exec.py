"""Health probes by a program: what it sees, what is said of its end, and that nothing of it is left."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysresp.controller.events import Health
from sysresp.controller.probes import STUCK
from sysresp.controller.spawn import MOST_LINE, PATH, environment, last_line
from sysresp.units.supervision import Probe
from tests.test_probes import RUN, UNIT, Watched

Result = tuple[bool | None, str]


@pytest.fixture
def watched() -> Iterator[Watched]:
    made = Watched()
    yield made
    made.probes.close()
    made.loop.end()


def result(watched: Watched, *argv: str, is_hung: bool = False) -> Result:
    """Return what one try found."""
    if is_hung:
        watched.hanging.add(UNIT)
    watched.watch(Probe("exec", argv=argv, interval_sec=10.0, timeout_sec=2.0))
    watched.loop.until(lambda: bool(watched.state().at), 13.0)
    state = watched.state()
    watched.hanging.discard(UNIT)
    watched.probes.forget(UNIT)
    return state.is_ok, state.why


def shell(watched: Watched, script: str, is_hung: bool = False) -> Result:
    return result(watched, "/bin/sh", "-c", script, is_hung=is_hung)


ENDS: dict[str, tuple[str, Result]] = {
    "well": ("echo all is well; exit 0", (True, "")),
    "status": ("exit 3", (False, "exit status 3")),
    "last line": (
        "echo one; echo 'no primary' >&2; echo; echo '  '; exit 3",
        (False, "exit status 3: no primary"),
    ),
    "signal": ("echo late; kill -SEGV $$", (False, "killed by SIGSEGV: late")),
    "real-time signal": ("kill -40 $$", (False, "killed by signal 40")),
    "much output": (
        "head -c 300000 /dev/zero | tr '\\0' x; echo; echo end; exit 1",
        (False, "exit status 1: end"),
    ),
    "control": ("printf 'a\\033[31mb\\007\\n'; exit 1", (False, "exit status 1: a [31mb")),
    "closed output": ("exec >&- 2>&-; sleep 0.01; exit 4", (False, "exit status 4")),
    "input": ('read x; echo "got $?"; exit 5', (False, "exit status 5: got 1")),
}


@pytest.mark.parametrize("name", ENDS)
def test_how_it_ends(watched: Watched, name: str) -> None:
    script, wanted = ENDS[name]
    assert shell(watched, script) == wanted


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (("/no/such/program",), "cannot run /no/such/program: no such file or directory"),
        (("/etc/passwd",), "cannot run /etc/passwd: permission denied"),
        (("/bin/true", "a\0b"), "cannot run /bin/true: embedded null byte"),
        ((), "cannot run nothing: tuple index out of range"),
    ],
)
def test_what_cannot_be_run_is_no_failure(watched: Watched, argv: tuple[str, ...], why: str) -> None:
    assert result(watched, *argv) == (None, why)
    assert not watched.probes._children


def test_what_it_sees(watched: Watched, tmp_path: Path) -> None:
    out = tmp_path / "out"
    script = (
        f"exec > {out}; env; ps -o pid=,pgid=,sid= -p $$; grep SigIgn /proc/self/status; ls /proc/self/fd"
    )
    os.environ["NOTIFY_SOCKET"] = "/run/systemd/notify"
    try:
        assert shell(watched, script) == (True, "")
    finally:
        del os.environ["NOTIFY_SOCKET"]
    lines = out.read_text().split("\n")
    assert {f"UNIT={UNIT}", "INSTANCE=", f"INVOCATION_ID={RUN}", f"PATH={PATH}"} <= set(lines)
    assert not [line for line in lines if line.startswith(("NOTIFY_SOCKET", "PYTEST", "PYTHON"))]
    at = next(n for n, line in enumerate(lines) if line.startswith("SigIgn:"))
    assert len(set(lines[at - 1].split())) == 1  # it leads a session and a process group of its own
    ignored = int(lines[at].split()[1], 16)
    assert not ignored & (1 << (signal.SIGPIPE - 1))  # as Python does
    ours = {name for name in os.listdir("/proc/self/fd") if is_inherited(int(name))}  # noqa: PTH208
    assert set(lines[at + 1 : -1]) - ours == {"3"}  # the directory itself


def is_inherited(descriptor: int) -> bool:
    """Say whether children get it: none that Python opened, but what whoever runs the tests left open."""
    try:
        return os.get_inheritable(descriptor)
    except OSError:
        return False


@given(st.text("abc-@.", max_size=12))
def test_environment(stem: str) -> None:
    own = {"HOME": "/root", "LISTEN_FDS": "1", "PATH": "/tmp", "UNIT": "another"}
    seen = environment(f"{stem}.service", RUN, own)
    assert set(seen) == {"HOME", "PATH", "UNIT", "INSTANCE", "INVOCATION_ID"}
    assert (seen["PATH"], seen["UNIT"]) == (PATH, f"{stem}.service")
    assert seen["INSTANCE"] == stem.partition("@")[2]


@given(st.binary(max_size=400))
def test_the_last_line_can_be_shown(output: bytes) -> None:
    line = last_line(output)
    assert line.isprintable()
    assert line == line.strip()
    assert len(line) <= MOST_LINE


def test_one_that_hangs_is_killed_with_all_that_it_started(watched: Watched, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"trap '' TERM; sleep 1000 & echo $! > {pids}; echo waiting for the lock; wait"
    watched.watch(Probe("exec", argv=("/bin/sh", "-c", script), interval_sec=10.0, timeout_sec=2.0))
    watch = watched.probes._watches[UNIT]
    # It hangs once it has said so, and after the kill it is about to be reaped.
    watched.loop.is_settled = lambda: (
        watch.child is None or (watch.attempt is not None and b"lock" in watch.child._tail)
    )
    watched.loop.until(lambda: bool(watched.state().at) and watch.child is None, 13.0)
    assert watched.state().why == "timed out after 2s: waiting for the lock"
    assert is_gone(int(pids.read_text()))


def is_gone(pid: int) -> bool:
    """Say whether the process ends soon: it was killed, but that takes a moment."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    try:
        return bool(poll.poll(10_000))
    finally:
        os.close(descriptor)


def test_one_that_ends_well_leaves_no_process(watched: Watched, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    assert shell(watched, f"sleep 1000 & echo $! > {pids}") == (True, "")
    assert is_gone(int(pids.read_text()))


def test_endless_output_is_not_read_for_ever(watched: Watched) -> None:
    """The loop stops reading after a megabyte, and the child waits until it is killed."""
    before = watched.loop.turns
    watched.loop.is_settled = lambda: not watched.running() or not reads()

    def reads() -> bool:
        watch = watched.probes._watches[UNIT]
        return watch.child is not None and watch.child._read <= 1 << 20

    watched.watch(Probe("exec", argv=("/usr/bin/yes", "x" * 100), interval_sec=10.0, timeout_sec=2.0))
    watched.loop.until(lambda: bool(watched.state().at), 13.0)
    assert watched.state().why == "timed out after 2s: " + "x" * 100
    assert watched.loop.turns - before < 5000


@pytest.mark.parametrize("phase", [0.0, 0.5])
def test_one_that_begins_to_hang_is_found_out_in_time(
    watched: Watched, tmp_path: Path, phase: float
) -> None:
    flag = tmp_path / "flag"
    argv = ("/bin/sh", "-c", f"test ! -e {flag} || exec sleep 1000")
    watched.watch(Probe("exec", argv=argv, interval_sec=1.0, timeout_sec=1.0, failures=3))
    watched.loop.until(lambda: watched.turns == [Health(UNIT, RUN, True)], 2.0)
    watched.loop.advance(3.0 + phase)
    flag.touch()
    watched.hanging.add(UNIT)
    # A child that was killed is about to be reaped; while its program is the shell, it may still end well.
    watches = watched.probes._watches
    watched.loop.is_settled = lambda: watches[UNIT].attempt is not None or watches[UNIT].child is None
    watched.loop.until(lambda: len(watched.turns) > 1, 3 * 1.0 + 1.0 + 1.0)
    assert watched.turns[1:] == [Health(UNIT, RUN, False, "timed out after 1s")]


def test_a_child_that_cannot_be_reaped_counts_and_is_not_joined_by_another(watched: Watched) -> None:
    """As one in an uninterruptible sleep: its end is not heard, here because the loop is not told of it."""
    watched.watch(
        Probe("exec", argv=("/bin/sleep", "1000"), interval_sec=1.0, timeout_sec=1.0, grace_sec=0.0)
    )
    watched.hanging.add(UNIT)
    watched.loop.until(lambda: watched.running() == {UNIT}, 2.0)
    (child,) = watched.probes._children
    watched.loop.remove_reader(child._pidfd)
    watched.loop.until(lambda: bool(watched.turns), 10.0)
    assert watched.turns == [Health(UNIT, RUN, False, STUCK)]
    assert list(watched.probes._children) == [child]
    watched.loop.add_reader(child._pidfd, child._ended)
    watched.loop.is_settled = lambda: child not in watched.probes._children
    watched.loop.advance(0.1)
    assert list(watched.probes._children) not in ([], [child])


def test_closing_reaps_what_runs(watched: Watched) -> None:
    for n in range(5):
        probe = Probe("exec", argv=("/bin/sleep", "1000"), interval_sec=1.0, timeout_sec=60.0)
        watched.watch(probe, f"{n}.service")
    watched.hanging |= set(watched.probes.latest())
    watched.loop.until(lambda: len(watched.running()) == 5, 2.0)
    watched.probes.close()
    assert watched.probes.latest() == {}
    assert not watched.probes._children
    before = watched.loop.turns
    watched.loop.advance(1000.0)
    assert watched.loop.turns - before <= 10


def test_it_runs_without_a_shell(watched: Watched) -> None:
    code = "import sys; sys.exit(sys.argv[1] != '$HOME; exit 1' or 0)"
    assert result(watched, sys.executable, "-I", "-S", "-c", code, "$HOME; exit 1") == (True, "")
