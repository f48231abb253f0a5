"""`ports.Processes`: which files of a process were replaced; on /proc, and on one written by hand."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysresp.systemd.processes import RealProcesses, executable_files


@contextmanager
def running(program: Path) -> Iterator[int]:
    """Run a copy of cat, loaded with its libraries: it has answered."""
    shutil.copy("/bin/cat", program)
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            os.write(process.stdin.fileno(), b"x")  # type: ignore[union-attr]
            assert os.read(process.stdout.fileno(), 1) == b"x"  # type: ignore[union-attr]
            yield process.pid
        finally:
            process.kill()


def test_a_program_that_is_replaced_removed_and_kept(tmp_path: Path) -> None:
    program = tmp_path / "program (deleted)"
    with running(program) as pid:
        processes = RealProcesses()
        assert processes.replaced(pid) == []
        program.touch()
        assert processes.replaced(pid) == []
        shutil.copy("/bin/cat", tmp_path / "new")
        (tmp_path / "new").rename(program)
        assert processes.replaced(pid) == [str(program)]
        program.unlink()
        assert processes.replaced(pid) == [str(program)]


def test_nobody_is_there(proc: Path) -> None:
    assert RealProcesses().replaced(2**22 + 1) == []
    assert RealProcesses(str(proc.parent)).replaced(7) == []  # no maps: not to be looked at


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """Return a /proc with one process, 7, whose root has a program and a library."""
    place = tmp_path / "proc" / "7"
    (place / "root" / "lib").mkdir(parents=True)
    for name in ("program", "lib/one.so"):
        (place / "root" / name).write_text("")
    (place / "exe").symlink_to("/program")
    return place


def maps(proc: Path, *rows: tuple[str, str, int, int]) -> list[str]:
    """Write the mappings (permissions, path, inode, device), and return what was replaced."""
    lines = [
        f"7f00-7f01 {permissions} 00002000 {os.major(device):02x}:{os.minor(device):02x} {inode}    {path}\n"
        for permissions, path, inode, device in rows
    ]
    lines += ["7fff-7fff rw-p 00000000 00:00 0 \n", "7fff-7fff r-xp 00000000 00:00 0    [vdso]\n"]
    (proc / "maps").write_text("".join(lines))
    return RealProcesses(str(proc.parent)).replaced(7)


def test_inodes_and_devices(proc: Path) -> None:
    seen = (proc / "root" / "lib" / "one.so").stat()
    inode, device = seen.st_ino, seen.st_dev
    assert maps(proc, ("r-xp", "/lib/one.so", inode, device)) == []
    assert maps(proc, ("r-xp", "/lib/one.so", inode + 1, device)) == ["/lib/one.so"]
    assert maps(proc, ("r--p", "/lib/one.so", inode + 1, device)) == []  # data
    assert maps(proc, ("r-xp", "/lib/one.so", inode, device + 1)) == []  # btrfs, overlayfs
    assert maps(proc, ("r-xp", "/lib/one.so", inode + 1, device + 1)) == ["/lib/one.so"]
    assert maps(proc, ("r-xp", "/lib/one.so", inode | 1 << 63, device + 1)) == []  # overlayfs with xino
    assert maps(proc, ("r-xp", "/lib/one.so", inode | 1 << 40, device)) == ["/lib/one.so"]
    assert maps(proc, ("r-xp", "/lib/other.so", inode, device)) == []  # not to be found, not deleted


def test_the_program_comes_first_and_each_once(proc: Path) -> None:
    deleted = [("r-xp", f"{path} (deleted)", 1, 1) for path in ("/lib/b", "/lib/a", "/program", "/lib/b")]
    assert maps(proc, *deleted) == ["/program", "/lib/a", "/lib/b"]


@pytest.mark.parametrize(
    "path",
    [
        "/memfd:jit",
        "/dev/zero",
        "/dev/shm/x",
        "/SYSV00000000",
        "/tmp/ffi1",
        "/run/user/1/orcexec.x",
        "/[aio]",
    ],
)
def test_code_that_is_made_in_passing(proc: Path, path: str) -> None:
    assert maps(proc, ("rwxp", f"{path} (deleted)", 1, 1)) == []


@pytest.mark.parametrize(("path", "found"), [("/run/program", ["/run/program"]), ("/memfd:program", [])])
def test_a_program_in_passing_is_still_the_program(proc: Path, path: str, found: list[str]) -> None:
    (proc / "exe").unlink()
    (proc / "exe").symlink_to(f"{path} (deleted)")
    assert maps(proc, ("r-xp", f"{path} (deleted)", 1, 1)) == found


def test_a_path_with_blanks_and_bytes(proc: Path) -> None:
    assert maps(proc, ("r-xp", "/lib/a b.so (deleted)", 1, 1)) == ["/lib/a b.so"]
    (proc / "maps").write_bytes(b"7f-80 r-xp 0 08:01 5 /lib/\xff.so (deleted)\n")
    assert RealProcesses(str(proc.parent)).replaced(7) == ["/lib/\ufffd.so"]


@given(st.binary(max_size=200))
def test_no_mapping_is_made_up(text: bytes) -> None:
    line = b"7f-80 r-xp 0 fe:00 5 /" + text.replace(b"\n", b"") + b"x\n"
    for mapping in executable_files(line):
        assert mapping.path in line
        assert (mapping.device, mapping.inode) == (os.makedev(0xFE, 0), 5)
