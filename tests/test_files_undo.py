"""`ports.Files` between `begin` and its end: any changes, any fault, any kill, on the fake and for real."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysresp.ports import Files
from sysresp.systemd.files import RealFiles
from sysresp.systemd.syscalls import Syscalls
from tests.fakes import FakeFiles
from tests.faults import Faults
from tests.file_scenes import ALL, Change, do, fake_tree, real_tree, scene

PATHS = ("/a", "/b", "/d/a", "/d/b", "/d/e/a", "/new/x", "/new/y/z", "/d", "/empty", "/new", "/d/e")
changes = st.lists(
    st.tuples(
        st.sampled_from(("write", "durable", "remove", "link", "rmdir")),
        st.sampled_from(PATHS),
        st.sampled_from((b"1", b"22")),
    ),
    max_size=12,
)


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Return a maker of empty directories: hypothesis needs one for each example."""
    top = tmp_path_factory.mktemp("room") / "root"

    def make() -> Path:
        shutil.rmtree(top, ignore_errors=True)
        top.mkdir()
        return top

    return make


@given(changes)
def test_undo_on_the_fake(wanted: list[Change]) -> None:
    files = FakeFiles()
    scene(files)
    before = fake_tree(files)
    files.begin()
    for change in wanted:
        with suppress(OSError):
            do(files, change)
    assert files.undo() == []
    assert fake_tree(files) == before


@given(changes)
def test_undo_for_real(room: Callable[[], Path], wanted: list[Change]) -> None:
    root = room()
    files = RealFiles(str(root))
    scene(files)
    before = real_tree(root)
    files.begin()
    for change in wanted:
        with suppress(OSError):
            do(files, change)
    assert files.undo() == []
    assert real_tree(root) == before


@given(changes)
def test_the_fake_does_what_the_real_one_does(room: Callable[[], Path], wanted: list[Change]) -> None:
    root = room()
    real, fake = RealFiles(str(root)), FakeFiles()
    for files in (real, fake):
        scene(files)
        files.begin()
    for change in wanted:
        codes = []
        for files in (real, fake):
            try:
                do(files, change)
                codes.append(0)
            except OSError as error:
                codes.append(error.errno or -1)
        assert codes[0] == codes[1], change
    for files in (real, fake):
        files.forget()
    for directory in ("/", "/d", "/d/e", "/new", "/new/y", "/empty"):
        assert real.listdir(directory) == fake.listdir(directory)
    for path in PATHS:
        assert real.readlink(path) == fake.readlink(path)
        if path not in fake.dirs:
            assert real.read(path) == fake.read(path)
    assert not list(root.rglob(".sysresp-*"))


def without_hard_links(code: int) -> Syscalls:
    def refuse(_path: str, _name: str) -> None:
        raise OSError(code, os.strerror(code))

    return Syscalls()._replace(link=refuse)


@given(wanted=changes, code=st.sampled_from((errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP)))
def test_undo_without_hard_links(room: Callable[[], Path], wanted: list[Change], code: int) -> None:
    root = room()
    scene(RealFiles(str(root)))
    before = {path: (about[0], *about[3:4]) for path, about in real_tree(root).items()}
    files = RealFiles(str(root), without_hard_links(code))
    files.begin()
    for change in wanted:
        with suppress(OSError):
            do(files, change)
    assert files.undo() == []
    assert {path: (about[0], *about[3:4]) for path, about in real_tree(root).items()} == before


def test_what_can_be_kept_in_no_way_is_not_touched(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a")
    files = RealFiles(str(tmp_path), without_hard_links(errno.EPERM))
    files.begin()
    with pytest.raises(PermissionError):
        files.remove("/a")
    files.undo()
    assert (tmp_path / "a").is_fifo()


@pytest.fixture(params=["fake", "real"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    return FakeFiles() if request.param == "fake" else RealFiles(str(tmp_path))


def test_begin_is_not_nested_and_its_ends_are_free(files: Files) -> None:
    assert files.undo() == []
    files.forget()
    files.begin()
    with pytest.raises(AssertionError):
        files.begin()
    files.forget()
    files.begin()
    files.write("/a", b"x")
    assert files.undo() == []
    assert files.undo() == []
    assert files.read("/a") is None


def test_nothing_is_kept_outside(files: Files) -> None:
    files.write("/a", b"1")
    files.begin()
    files.write("/a", b"2")
    files.forget()
    files.write("/a", b"3")
    assert files.undo() == []
    assert files.read("/a") == b"3"


def test_a_directory_goes_at_the_end(files: Files) -> None:
    files.write("/d/e/x", b"")
    files.begin()
    files.remove("/d/e/x")
    files.rmdir("/d/e")
    files.rmdir("/d")
    assert files.listdir("/d") == ["e"]
    files.forget()
    assert files.listdir("/") == []


def test_a_directory_that_got_something_stays(files: Files) -> None:
    files.write("/d/x", b"")
    files.begin()
    files.remove("/d/x")
    files.rmdir("/d")
    files.write("/d/y", b"")
    files.forget()
    assert files.listdir("/d") == ["y"]


def test_stat(files: Files) -> None:
    assert files.stat("/a") is None
    assert files.stat("/a/b") is None
    files.write("/a", b"four")
    first = files.stat("/a")
    assert first is not None
    assert first.size == 4
    assert files.stat("/a/b") is None
    assert files.stat("/") is not None
    files.link("/l", "a")
    assert files.stat("/l") == first
    files.link("/l", "nowhere")
    assert files.stat("/l") is None
    files.begin()
    files.write("/a", b"more than four")
    second = files.stat("/a")
    assert second is not None
    assert second.inode != first.inode
    assert second.size == 14
    files.undo()
    third = files.stat("/a")
    assert third is not None
    assert third.ctime >= first.ctime
    assert third == first._replace(ctime=third.ctime)


def test_the_change_of_another_process_beside_ours_stays(files: Files, tmp_path: Path) -> None:
    files.begin()
    files.write("/d/ours", b"")
    other = files.process() if isinstance(files, FakeFiles) else RealFiles(str(tmp_path))
    other.write("/d/theirs", b"kept")
    assert files.undo() == []
    assert files.listdir("/d") == ["theirs"]


def test_a_second_one_in_this_process_sweeps_no_backup(tmp_path: Path) -> None:
    files = RealFiles(str(tmp_path))
    files.write("/a", b"old")
    files.begin()
    files.write("/a", b"new")
    RealFiles(str(tmp_path)).write("/b", b"")
    assert files.undo() == []
    assert files.read("/a") == b"old"


def test_durable_writes_sync_the_file_and_every_new_directory(tmp_path: Path) -> None:
    faults = Faults()
    files = RealFiles(str(tmp_path), faults.calls())
    files.write("/a/b/first", b"")
    assert "fsync" not in [name for name, *_ in faults.done]
    files.write("/a/b/second", b"", durable=True)
    assert [name for name, *_ in faults.done].count("fsync") == 4  # the file, /a/b, /a, /
    files.write("/a/b/third", b"", durable=True)
    assert [name for name, *_ in faults.done].count("fsync") == 6
    assert [name for name, *_ in faults.done][-3:] == ["fsync", "rename", "fsync"]


def test_a_cut_undo_goes_on(tmp_path: Path) -> None:
    cut: list[int] = []

    def interrupt(number: int, _name: str) -> None:
        if number in cut:
            raise KeyboardInterrupt

    faults = Faults(interrupt)
    scene(RealFiles(str(tmp_path)))
    before = real_tree(tmp_path)
    files = RealFiles(str(tmp_path), faults.calls())
    files.begin()
    for change in ALL:
        do(files, change)
    interrupts = 0
    cut.append(len(faults.done) + 2)
    while True:
        try:
            assert files.undo() == []
        except KeyboardInterrupt:
            interrupts += 1
            cut.append(len(faults.done) + 2)
        else:
            break
    assert interrupts > 5
    assert real_tree(tmp_path) == before
