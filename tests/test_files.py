"""`ports.Files`: one suite for the real file system and the fake, then what only the real one can break."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysresp.ports import Files
from sysresp.systemd.files import RealFiles
from tests.fakes import FakeFiles


@pytest.fixture(params=["fake", "real"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    if request.param == "fake":
        return FakeFiles()
    return RealFiles(str(tmp_path))


def test_nothing_there(files: Files) -> None:
    assert files.read("/a/b") is None
    assert files.readlink("/a/b") is None
    assert files.listdir("/a") == []
    files.remove("/a/b")
    files.rmdir("/a")
    files.sync("/a/b")


def test_write_and_read(files: Files) -> None:
    files.write("/a/b/c.service", b"one")
    assert files.read("/a/b/c.service") == b"one"
    files.write("/a/b/c.service", b"")
    assert files.read("/a/b/c.service") == b""
    assert files.listdir("/a/b") == ["c.service"]
    assert files.listdir("/a") == ["b"]


def test_links(files: Files) -> None:
    files.write("/a/file", b"x")
    files.link("/a/wants/file", "/a/file")
    assert files.readlink("/a/wants/file") == "/a/file"
    assert files.readlink("/a/file") is None
    files.link("/a/wants/file", "elsewhere")
    assert files.readlink("/a/wants/file") == "elsewhere"
    assert files.listdir("/a/wants") == ["file"]
    files.remove("/a/wants/file")
    assert files.readlink("/a/wants/file") is None
    assert files.read("/a/file") == b"x"


def test_a_write_replaces_a_link_and_not_its_target(files: Files) -> None:
    files.write("/target", b"keep")
    files.link("/a", "target")
    assert files.read("/a") == b"keep"
    files.write("/a", b"new")
    assert files.readlink("/a") is None
    assert (files.read("/a"), files.read("/target")) == (b"new", b"keep")


def test_a_link_replaces_a_file(files: Files) -> None:
    files.write("/a", b"x")
    files.link("/a", "/dev/null")
    assert files.readlink("/a") == "/dev/null"


def test_remove_and_rmdir(files: Files) -> None:
    files.write("/a/b", b"x")
    files.rmdir("/a")
    assert files.read("/a/b") == b"x"
    files.remove("/a/b")
    assert files.read("/a/b") is None
    files.rmdir("/a")
    assert files.listdir("/") == []


def test_a_directory_is_no_file(files: Files) -> None:
    files.write("/a/b", b"x")
    for change in (files.read, lambda path: files.write(path, b"y"), lambda path: files.link(path, "z")):
        with pytest.raises(IsADirectoryError):
            change("/a")
    with pytest.raises(NotADirectoryError):
        files.write("/a/b/c", b"y")


def test_modes_whatever_the_umask(tmp_path: Path) -> None:
    files = RealFiles(str(tmp_path))
    before = os.umask(0o077)
    try:
        files.write("/d/e/open", b"", 0o644)
        files.write("/d/secret", b"", 0o600)
    finally:
        os.umask(before)
    modes = {
        name: (tmp_path / name).stat().st_mode & 0o7777 for name in ("d", "d/e", "d/e/open", "d/secret")
    }
    assert modes == {"d": 0o755, "d/e": 0o755, "d/e/open": 0o644, "d/secret": 0o600}


def write_a(files: RealFiles) -> None:
    files.write("/a", b"x")


def sweep(files: RealFiles) -> None:
    files.sweep("/nowhere")
    files.sweep("")


@pytest.mark.parametrize("call", [write_a, sweep])
def test_leftovers_of_a_killed_run_are_removed(tmp_path: Path, call: Callable[[RealFiles], None]) -> None:
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    mine = f".sysresp-{os.getpid()}-1"
    theirs = ".sysresp-1-1"  # PID 1 lives
    for name in (f".sysresp-{int(dead.stdout)}-7", ".sysresp-what", mine, theirs, ".other"):
        (tmp_path / name).write_text("half a file")
    files = RealFiles(str(tmp_path))
    assert files.listdir("/") == [".other"]
    call(files)
    left = sorted(os.listdir(tmp_path))  # noqa: PTH208 - names only
    assert left == [".other", theirs, *(["a"] if call is write_a else [])]


def test_a_killed_write_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    code = (
        "import os, signal, sys\n"
        "from sysresp.systemd.files import RealFiles\n"
        "from sysresp.systemd.syscalls import Syscalls\n"
        "calls = Syscalls()._replace(rename=lambda *_: os.kill(os.getpid(), signal.SIGKILL))\n"
        "RealFiles(sys.argv[1], calls).write('/a', b'new')\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -9
    assert (tmp_path / "a").read_text() == "old"
    RealFiles(str(tmp_path)).write("/b", b"")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


@pytest.fixture
def small_files() -> Iterator[None]:
    """Let every write beyond 64 KiB fail, as on a full disk."""
    import signal  # noqa: PLC0415

    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.usefixtures("small_files")
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    files = RealFiles(str(tmp_path))
    files.write("/a", b"old")
    with pytest.raises(OSError, match="File too large") as caught:
        files.write("/a", b"x" * 100_000)
    assert caught.value.errno == errno.EFBIG
    assert caught.value.filename == f"{tmp_path}/a"
    assert files.read("/a") == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_fifo_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a")
    assert RealFiles(str(tmp_path)).read("/a") == b""


def test_the_fake_fails_where_told() -> None:
    files = FakeFiles()
    files.fail_at(2, errno.ENOSPC)
    files.write("/a", b"1")
    with pytest.raises(OSError, match="No space left"):
        files.write("/a", b"2")
    files.write("/b", b"3")
    assert (files.read("/a"), files.read("/b")) == (b"1", b"3")
    files.fail_on("/etc", errno.EROFS)
    with pytest.raises(OSError, match="Read-only"):
        files.link("/etc/x", "y")
    assert [name for name, *_ in files.changes()] == ["write", "write", "write", "link"]


@given(content=st.binary(max_size=5000), mode=st.sampled_from([0o600, 0o640, 0o644, 0o755]))
def test_any_content_comes_back(tmp_path_factory: pytest.TempPathFactory, content: bytes, mode: int) -> None:
    root = tmp_path_factory.mktemp("any")
    files = RealFiles(str(root))
    files.write("/f", content, mode)
    assert files.read("/f") == content
    assert (root / "f").stat().st_mode & 0o7777 == mode
