"""The locks of `ports.Files`: who has it, who is refused, and what a killed process leaves."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from sysresp.ports import Files
from sysresp.systemd.files import RealFiles
from sysresp.systemd.syscalls import Syscalls
from tests.fakes import FakeFiles
from tests.faults import Faults, full_from

PATH = "/run/sysresp/shop.lock"


@pytest.fixture(params=["fake", "real"])
def processes(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Files]:
    """Return a maker of processes that share the files."""
    if request.param == "fake":
        return FakeFiles().process
    return lambda: RealFiles(str(tmp_path))


def test_one_has_it_and_the_others_are_told_who(processes: Callable[[], Files]) -> None:
    one, two = processes(), processes()
    assert one.lock(PATH, b"one, pid 7") is None
    assert two.read(PATH) == b"one, pid 7"
    assert two.lock(PATH, b"two") == b"one, pid 7"
    assert one.lock(PATH, b"one again") == b"one, pid 7"
    two.unlock(PATH)  # not theirs
    assert two.lock(PATH, b"two") == b"one, pid 7"
    one.unlock(PATH)
    one.unlock(PATH)
    assert one.read(PATH) == b""
    assert two.lock(PATH, b"2") is None
    assert one.lock(PATH, b"one") == b"2"


def test_locks_of_two_projects(processes: Callable[[], Files]) -> None:
    one, two = processes(), processes()
    assert one.lock("/run/sysresp/a.lock", b"one") is None
    assert two.lock("/run/sysresp/b.lock", b"two") is None
    assert one.listdir("/run/sysresp") == ["a.lock", "b.lock"]


def test_undo_is_no_unlock(processes: Callable[[], Files]) -> None:
    one, two = processes(), processes()
    one.begin()
    assert one.lock(PATH, b"one") is None
    assert one.undo() == []
    assert two.lock(PATH, b"two") == b"one"


def test_what_a_killed_process_left_is_no_lock(tmp_path: Path) -> None:
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        RealFiles(str(tmp_path)).lock(PATH, b"the child")
        os.write(tell, b"x")
        signal.pause()
    os.close(tell)
    assert os.read(ready, 1) == b"x"
    os.close(ready)
    files = RealFiles(str(tmp_path))
    assert files.lock(PATH, b"us") == b"the child"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert files.read(PATH) == b"the child"
    assert files.lock(PATH, b"us") is None
    assert files.read(PATH) == b"us"


def test_the_fake_dies_like_a_process() -> None:
    one = FakeFiles()
    two = one.process()
    one.begin()
    one.write("/a", b"half done")
    assert one.lock(PATH, b"one") is None
    one.die()
    assert two.read(PATH) == b"one"
    assert two.lock(PATH, b"two") is None
    assert one.undo() == []
    assert one.read("/a") == b"half done"


def test_mode_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        RealFiles(str(tmp_path)).lock(PATH, b"")
    finally:
        os.umask(before)
    lock = tmp_path / PATH[1:]
    modes = [path.stat().st_mode & 0o777 for path in (lock, lock.parent)]
    assert modes == [0o600, 0o755]  # who can open it can hold it


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("keep")
    (tmp_path / "lock").symlink_to("precious")
    with pytest.raises(OSError, match="symbolic links") as caught:
        RealFiles(str(tmp_path)).lock("/lock", b"us")
    assert caught.value.errno == errno.ELOOP
    assert (tmp_path / "precious").read_text() == "keep"


def test_a_lock_that_is_removed_by_hand_while_it_is_taken(tmp_path: Path) -> None:
    removed: list[str] = []

    def flock(descriptor: int) -> None:
        if not removed:
            removed.append(PATH)
            (tmp_path / PATH[1:]).unlink()
            (tmp_path / PATH[1:]).parent.rmdir()
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    files = RealFiles(str(tmp_path), Syscalls()._replace(flock=flock))
    assert files.lock(PATH, b"us") is None
    assert RealFiles(str(tmp_path)).lock(PATH, b"them") == b"us"


def test_a_lock_that_cannot_be_signed_is_not_held(tmp_path: Path) -> None:
    files = RealFiles(str(tmp_path), Faults(full_from(5)).calls())
    with pytest.raises(OSError, match="No space left"):
        files.lock("/lock", b"us")
    assert RealFiles(str(tmp_path)).lock("/lock", b"them") is None


def test_never_two_at_once(tmp_path: Path) -> None:
    """Eight processes count to 25 each, and a step is a read and a write that nothing else guards."""
    files = RealFiles(str(tmp_path))
    files.write("/count", b"0")
    children = []
    for _ in range(8):
        child = os.fork()
        if child == 0:
            for _ in range(25):
                while files.lock(PATH, b"") is not None:
                    os.sched_yield()
                files.write("/count", str(int(files.read("/count") or b"0") + 1).encode())
                files.unlock(PATH)
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 8
    assert files.read("/count") == b"200"
