"""Which files in some directories have changed (inotify(7)).

Owns one inotify descriptor. Never looks into a file and never wakes anybody for nothing. The rules:
- A directory that is not there is waited for in its next ancestor that is, and one that is replaced or
  removed is watched anew: what is in it by then counts as changed.
- A file is told when it came, went or was renamed, and when its writer has closed it; with `writes` also
  each time that it is written to, which is for files that stay open.
- If the kernel lost something, all is told as changed: every directory that is watched.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from posixpath import dirname, join

_MODIFY, _CLOSE_WRITE, _MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x2, 0x8, 0x40, 0x80, 0x100, 0x200
_DELETE_SELF, _MOVE_SELF, _OVERFLOW, _IGNORED = 0x400, 0x800, 0x4000, 0x8000
_ONLYDIR, _MASK_ADD = 0x01000000, 0x20000000
_COMING = _MOVED_TO | _CREATE | _DELETE_SELF | _MOVE_SELF | _ONLYDIR | _MASK_ADD  # of what is waited for
_ANY = _COMING | _CLOSE_WRITE | _MOVED_FROM | _DELETE
_NOT_THERE = frozenset((errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ELOOP))
_EVENT = struct.Struct("iIII")  # watch, mask, cookie, length of the name
_MOST = 1 << 16


class DirectoryWatch:
    """The files in some directories, none below; poll `fileno`, then ask for `changed`."""

    def __init__(self, *, writes: bool = False) -> None:
        self._any = _ANY | (_MODIFY if writes else 0)
        libc = ctypes.CDLL(None, use_errno=True)
        self._add, self._remove = libc.inotify_add_watch, libc.inotify_rm_watch
        self._fd = int(libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        self._refusal = ctypes.get_errno()  # such as max_user_instances; `add` tells it
        self._wanted: dict[str, int] = {}  # directory -> its watch, -1 while it is not there
        self._watched: dict[int, str] = {}  # watch -> directory, also those in which others are waited for

    def fileno(self) -> int:
        """Return the descriptor to poll."""
        return self._fd

    def add(self, path: str) -> None:
        """Watch this directory from now on, there or not; OSError if the kernel grants no more watches."""
        if self._fd < 0:
            raise OSError(self._refusal, os.strerror(self._refusal), "inotify")
        self._wanted.setdefault(path.rstrip("/") or "/", -1)
        self._renew()

    def changed(self) -> set[str]:
        """Return the paths of the files that have changed since; never waits.

        A directory's own path stands for everything in it.
        """
        found: set[str] = set()
        while self._read(found):
            found |= self._renew()  # watches that it ends are told as well: read again, or they wake us up
        return found

    def close(self) -> None:
        """End all watches; no error if that was done."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _read(self, found: set[str]) -> bool:
        """Take in what has come; false if that is nothing."""
        try:
            data = os.read(self._fd, _MOST)
        except BlockingIOError:
            return False
        at = 0
        while at < len(data):
            watch, mask, _cookie, size = _EVENT.unpack_from(data, at)
            at += _EVENT.size + size
            name = os.fsdecode(data[at - size : at].rstrip(b"\0"))
            self._event(watch, mask, name, found)
        return True

    def _event(self, watch: int, mask: int, name: str, found: set[str]) -> None:
        if mask & _OVERFLOW:
            found.update(self._wanted)
            return
        directory = self._watched.get(watch)
        if directory is None:
            return
        if mask & (_IGNORED | _DELETE_SELF | _MOVE_SELF):
            del self._watched[watch]
            if not mask & _IGNORED:  # it may live on elsewhere
                self._remove(self._fd, watch)
            if self._wanted.get(directory) == watch:
                self._wanted[directory] = -1
                found.add(directory)
        elif directory in self._wanted:
            found.add(join(directory, name))

    def _renew(self) -> set[str]:
        """Watch each directory, or else its next ancestor; return those that have come."""
        come: set[str] = set()
        needed: set[int] = set()
        for directory, watch in self._wanted.items():
            here = directory
            if watch in self._watched:
                needed.add(watch)
                continue
            while (
                found := self._watch(here, self._any if here == directory else _COMING)
            ) < 0 and here != "/":
                here = dirname(here)
            # What was made between the look at a directory and the watch of its ancestor is not told.
            while here != directory and (below := self._below(here, directory)):
                found, here = below
            needed.add(found)
            if here == directory:
                self._wanted[directory] = found
                come.add(directory)
        for watch in self._watched.keys() - needed:
            del self._watched[watch]
            self._remove(self._fd, watch)
        return come

    def _below(self, here: str, directory: str) -> tuple[int, str] | None:
        rest = directory[len(here.rstrip("/")) + 1 :]
        child = join(here, rest.partition("/")[0])
        watch = self._watch(child, self._any if child == directory else _COMING)
        return (watch, child) if watch >= 0 else None

    def _watch(self, directory: str, mask: int) -> int:
        """Watch a directory; -1 if it is not there."""
        watch = int(self._add(self._fd, os.fsencode(directory), mask))
        if watch >= 0:
            self._watched.setdefault(watch, directory)
        elif (number := ctypes.get_errno()) not in _NOT_THERE:  # such as max_user_watches
            raise OSError(number, os.strerror(number), directory)
        return watch
