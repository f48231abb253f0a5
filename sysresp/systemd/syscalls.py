"""The system calls by which sysresp changes the file system, one row each.

Owns the list, and nothing of what they are used for. The rule: the file modules of this room change nothing
but through a `Syscalls` that they were given. So each field is one of the points at which a kill, a full
disk or a power cut can come between, and a test that replaces the functions (`_replace`) reaches them all.
Calls that only look (stat, readlink, listing) are not here.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

_WHOLE = os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


def _create(path: str, mode: int) -> int:
    """Open a file for writing that must not be there yet."""
    return os.open(path, os.O_WRONLY | os.O_EXCL | _WHOLE, mode)


def _open_lock(path: str, mode: int) -> int:
    """Open a file for reading and writing, new or not."""
    return os.open(path, os.O_RDWR | _WHOLE, mode)


def _link(path: str, name: str) -> None:
    """Give a file, or the symbolic link itself, a second name."""
    os.link(path, name, follow_symlinks=False)


def _flock(descriptor: int) -> None:
    """Take the lock, or raise BlockingIOError."""
    import fcntl  # noqa: PLC0415 - only a change pays for it

    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _syncfs(descriptor: int) -> None:
    # One syncfs(2) for 200 new files on ext4 takes 5 ms, an fsync(2) of each 80 ms.
    import ctypes  # noqa: PLC0415 - only a change pays for it

    if ctypes.CDLL(None, use_errno=True).syncfs(descriptor):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class Syscalls(NamedTuple):
    """What changes something; by default the calls of this system."""

    create: Callable[[str, int], int] = _create
    fchmod: Callable[[int, int], None] = os.fchmod
    fchown: Callable[[int, int, int], None] = os.fchown
    write: Callable[[int, memoryview], int] = os.write
    fsync: Callable[[int], None] = os.fsync
    rename: Callable[[str, str], None] = os.rename
    link: Callable[[str, str], None] = _link
    symlink: Callable[[str, str], None] = os.symlink
    unlink: Callable[[str], None] = os.unlink
    mkdir: Callable[[str, int], None] = os.mkdir
    chmod: Callable[[str, int], None] = os.chmod
    rmdir: Callable[[str], None] = os.rmdir
    syncfs: Callable[[int], None] = _syncfs
    open_lock: Callable[[str, int], int] = _open_lock
    flock: Callable[[int], None] = _flock
    ftruncate: Callable[[int, int], None] = os.ftruncate
