"""Every fault at every system call that changes a file: nothing is lost, and the next run gets there."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from sysresp.systemd.files import RealFiles
from tests.faults import Faults, error_at, full_from, killed_at, read_only_from
from tests.file_scenes import ALL, change_all, do, real_tree, scene


def count() -> int:
    """Return how many system calls it takes to change all."""
    faults = Faults()
    with TemporaryDirectory() as root:
        scene(RealFiles(root))
        change_all(RealFiles(root, faults.calls()))
    return len(faults.done)


POINTS = range(1, count() + 1)


def test_there_are_points() -> None:
    assert len(POINTS) >= 40


@pytest.mark.parametrize("fault", [error_at, full_from])
def test_undo_after_a_fault_at_each_point(
    tmp_path: Path, fault: Callable[[int], Callable[[int, str], None]]
) -> None:
    refused = 0
    for point in POINTS:
        root = tmp_path / str(point)
        root.mkdir()
        scene(RealFiles(str(root)))
        before = real_tree(root)
        files = RealFiles(str(root), Faults(fault(point)).calls())
        files.begin()
        try:
            for change in ALL:
                do(files, change)
            files.sync("/")
        except OSError:
            refused += 1
            assert files.undo() == []
            assert real_tree(root) == before, f"point {point}"
        else:
            files.forget()
    assert refused > len(POINTS) / 3


def test_a_file_system_that_becomes_read_only_is_told(tmp_path: Path) -> None:
    told = 0
    for point in POINTS:
        root = tmp_path / str(point)
        root.mkdir()
        scene(RealFiles(str(root)))
        before = real_tree(root)
        files = RealFiles(str(root), Faults(read_only_from(point)).calls())
        files.begin()
        with suppress(OSError):
            for change in ALL:
                do(files, change)
        lost = files.undo()
        told += bool(lost)
        after = {path: about for path, about in real_tree(root).items() if "/.sysresp-" not in path}
        changed = {
            path for path in {*before, *after} if before.get(path, ())[3:4] != after.get(path, ())[3:4]
        }
        assert changed <= set(lost)
    assert told > 5


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at_each_point(tmp_path: Path, point: int) -> None:
    scene(RealFiles(str(tmp_path)))
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            change_all(RealFiles(str(tmp_path), Faults(killed_at(point)).calls()))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    contents = {
        p.name: p.read_bytes()
        for p in tmp_path.rglob("*")
        if p.is_file() and not p.name.startswith(".sysresp-")
    }
    assert set(contents.values()) <= {b"old", b"old in d", b"deep", b"new", b"was a link", b"made", b"again"}
    change_all(RealFiles(str(tmp_path)))
    tree = real_tree(tmp_path)
    assert {path: about[3] for path, about in tree.items() if len(about) > 3} == {
        "/a": b"new",
        "/b": b"was a link",
        "/d/a": b"again",
        "/new/link": "made",
        "/new/x": b"made",
        "/new/y/z": b"made",
    }
    assert [path for path in tree if "sysresp" in path or path in ("/d/e", "/empty")] == []


def test_what_could_not_be_written_is_no_loss(tmp_path: Path) -> None:
    """unlink(2) on a read-only file system fails whether the file is there or not."""
    files = RealFiles(str(tmp_path), Faults(read_only_from(1)).calls())
    files.begin()
    with pytest.raises(OSError, match="Read-only"):
        files.write("/new", b"x")
    assert files.undo() == []
