"""Watching directories, on a real file system."""

from __future__ import annotations

import os
import resource
import select
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from sysresp.systemd.inotify import DirectoryWatch


@pytest.fixture
def watch() -> Iterator[DirectoryWatch]:
    made = DirectoryWatch()
    yield made
    made.close()
    made.close()


def wakes(watch: DirectoryWatch) -> bool:
    poll = select.poll()
    poll.register(watch.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def test_files(watch: DirectoryWatch, tmp_path: Path) -> None:
    (tmp_path / "old").write_text("x")
    watch.add(str(tmp_path))
    assert not wakes(watch)
    assert watch.changed() == set()
    (tmp_path / "a").write_text("x")
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "old").rename(tmp_path / "new")
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "far").write_text("x")
    assert wakes(watch)
    assert watch.changed() == {str(tmp_path / name) for name in ("a", "link", "old", "new", "below")}
    (tmp_path / "a").read_text()
    (tmp_path / "a").chmod(0o600)
    assert not wakes(watch)
    (tmp_path / "a").unlink()
    assert watch.changed() == {str(tmp_path / "a")}


def test_a_directory_that_comes_later(watch: DirectoryWatch, tmp_path: Path) -> None:
    path = tmp_path / "x" / "y" / "z"
    watch.add(str(path))
    (tmp_path / "other").write_text("x")
    assert watch.changed() == set()
    (tmp_path / "x").mkdir()
    assert watch.changed() == set()
    path.mkdir(parents=True)
    (path / "early").write_text("x")
    assert watch.changed() == {str(path)}
    (tmp_path / "other").write_text("x")
    assert not wakes(watch)  # nobody waits for anything there any more
    (path / "late").write_text("x")
    assert watch.changed() == {str(path / "late")}


def test_all_of_it_comes_at_once(watch: DirectoryWatch, tmp_path: Path) -> None:
    path = tmp_path / "x" / "y"
    watch.add(str(path))
    path.mkdir(parents=True)
    assert watch.changed() == {str(path)}


@pytest.mark.parametrize("how", ["removed", "moved", "parent removed"])
def test_a_directory_that_is_replaced(watch: DirectoryWatch, tmp_path: Path, how: str) -> None:
    path = tmp_path / "x" / "y"
    path.mkdir(parents=True)
    watch.add(str(path))
    if how == "moved":
        path.rename(tmp_path / "away")
    else:
        path.rmdir()
        if how == "parent removed":
            path.parent.rmdir()
    assert watch.changed() == {str(path)}
    path.mkdir(parents=True)
    assert watch.changed() == {str(path)}
    (path / "a").write_text("x")
    assert watch.changed() == {str(path / "a")}
    if how == "moved":
        (tmp_path / "away" / "b").write_text("x")
        assert not wakes(watch)


def test_replaced_between_two_looks(watch: DirectoryWatch, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.mkdir()
    watch.add(str(path))
    path.rmdir()
    path.mkdir()
    (path / "a").write_text("x")
    assert watch.changed() == {str(path)}


def test_the_kernel_lost_something(watch: DirectoryWatch, tmp_path: Path) -> None:
    """As it says so: max_queued_events is the machine's own, and some never reach it."""
    watch.add(str(tmp_path))
    watch.add(str(tmp_path / "none"))
    descriptor = watch._fd
    watch._fd, told = os.pipe2(os.O_NONBLOCK)
    os.write(told, struct.pack("iIII", -1, 0x4000, 0, 0))  # IN_Q_OVERFLOW
    try:
        found: set[str] = set()
        assert watch._read(found)
        assert found == {str(tmp_path), str(tmp_path / "none")}
    finally:
        os.close(told)
        os.close(watch._fd)
        watch._fd = descriptor


def test_no_directory(watch: DirectoryWatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    watch.add(str(tmp_path / "file" / "below"))
    watch.add("/")
    assert watch.changed() == set()


def test_no_instance_left_is_told_by_add() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        watch = DirectoryWatch()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with pytest.raises(OSError, match="inotify"):
        watch.add("/")
    watch.close()
