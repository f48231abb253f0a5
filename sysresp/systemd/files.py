"""The file system: `ports.Files` with whole files only, whenever the power goes.

Owns the port's methods; `whole` puts things in their places, `backups` puts them back, `locks` keeps others
out. Never decides what to write, never follows a link at the final name. The rule: every method is one
step; after any of them the directory is as a reader wants it. What only a change needs is imported by the
first change: `sysresp status` reads, and must not pay for it.
"""

# pathlib has neither open flags nor descriptors, and hides which call failed.
# ruff: noqa: PTH112, PTH115, PTH116, PTH120, PTH208

from __future__ import annotations

import errno
import os
from functools import cached_property
from typing import TYPE_CHECKING

from sysresp.ports import FileStat

if TYPE_CHECKING:
    from sysresp.systemd.backups import Backups
    from sysresp.systemd.locks import Locks
    from sysresp.systemd.syscalls import Syscalls
    from sysresp.systemd.whole import Whole

PREFIX = ".sysresp-"  # of the names that `whole` and `backups` use
_ABSENT = (FileNotFoundError, NotADirectoryError)


class RealFiles:
    """The host's files; below `root` if one is given, changed by these system calls."""

    def __init__(self, root: str = "", calls: Syscalls | None = None) -> None:
        self._root = root.rstrip("/")
        self._given = calls

    def read(self, path: str) -> bytes | None:
        # Without O_NONBLOCK a FIFO under a unit's name would hang us.
        try:
            descriptor = os.open(self._root + path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except _ABSENT:
            return None
        try:  # not a file object: 15 us more for each, and a status of 1,000 services reads 1,000
            parts = []
            while part := os.read(descriptor, 1 << 20):
                parts.append(part)
            return b"".join(parts)
        finally:
            os.close(descriptor)

    def write(self, path: str, content: bytes, mode: int = 0o644, *, durable: bool = False) -> None:
        self._whole.put(self._ready(path), content, mode, durable=durable)

    def remove(self, path: str) -> None:
        final = self._root + path
        self._backups.save(final)
        try:
            self._calls.unlink(final)
        except _ABSENT:
            return

    def link(self, path: str, target: str) -> None:
        self._whole.point(self._ready(path), target)

    def readlink(self, path: str) -> str | None:
        try:
            return os.readlink(self._root + path)
        except _ABSENT:
            return None
        except OSError as error:
            if error.errno == errno.EINVAL:  # no link
                return None
            raise

    def listdir(self, path: str) -> list[str]:
        try:
            names = os.listdir(self._root + path)
        except _ABSENT:
            return []
        return sorted(name for name in names if not name.startswith(PREFIX))

    def rmdir(self, path: str) -> None:
        directory = self._root + path
        if not self._backups.postpone(directory):
            self._whole.remove_directory(directory)

    def sweep(self, path: str) -> None:
        self._whole.sweep(self._root + path)

    def sync(self, path: str) -> None:
        existing = self._root + path
        while not os.path.isdir(existing):
            existing = os.path.dirname(existing)
        descriptor = os.open(existing, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._calls.syncfs(descriptor)
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from None
        finally:
            os.close(descriptor)

    def stat(self, path: str) -> FileStat | None:
        try:
            seen = os.stat(self._root + path)
        except _ABSENT:
            return None
        return FileStat(seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime, seen.st_ctime)

    def begin(self) -> None:
        self._backups.begin()

    def undo(self) -> list[str]:
        return [path.removeprefix(self._root) for path in self._backups.undo()]

    def forget(self) -> None:
        self._backups.forget()

    def lock(self, path: str, holder: bytes) -> bytes | None:
        final = self._root + path
        return self._locks.take(final, holder, lambda: self._whole.make(os.path.dirname(final), []))

    def unlock(self, path: str) -> None:
        self._locks.let_go(self._root + path)

    def _ready(self, path: str) -> str:
        """Make the parents and the way back; return the final name."""
        final = self._root + path
        self._whole.make(os.path.dirname(final), self._backups.made())
        self._backups.save(final)
        return final

    @cached_property
    def _calls(self) -> Syscalls:
        from sysresp.systemd.syscalls import Syscalls  # noqa: PLC0415

        return self._given if self._given is not None else Syscalls()

    @cached_property
    def _whole(self) -> Whole:
        from sysresp.systemd.whole import Whole  # noqa: PLC0415

        return Whole(self._calls, PREFIX)

    @cached_property
    def _backups(self) -> Backups:
        from sysresp.systemd.backups import Backups  # noqa: PLC0415

        return Backups(self._calls, self._whole)

    @cached_property
    def _locks(self) -> Locks:
        from sysresp.systemd.locks import Locks  # noqa: PLC0415

        return Locks(self._calls)
