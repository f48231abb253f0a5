"""What a change replaces, kept so that it can be put back on a disk that is full.

Owns the second names: before the first change of a path the file (or the link itself) gets a hard link
under a hidden name beside it, and undo renames that back. No content is written and none is read, and the
file that comes back is the very same one, with its owner, times and attributes. Only where the file system
has no hard links, or fs.protected_hardlinks forbids this one (proc_sys_fs(5)), is the content kept in
memory; then undo needs the room that it takes. Never decides whether to undo. The rule: what a path needs to
be put back is complete before the path is touched.

A directory is removed only when the changes are to stand: to make it again would need room. An empty one
means nothing to systemd.
"""

# pathlib hides which call failed.
# ruff: noqa: PTH115

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable

from sysresp.systemd.syscalls import Syscalls
from sysresp.systemd.whole import Whole, keep, release

_NO_HARD_LINKS = (errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV)


class Backups:
    """The changes since `begin`; before that, and after `undo` or `forget`, nothing is kept."""

    def __init__(self, calls: Syscalls, whole: Whole) -> None:
        self._calls = calls
        self._whole = whole
        self._begun = False
        self._restores: dict[str, Callable[[], None]] = {}  # by path, in the order of the first changes
        self._names: list[str] = []  # hidden names given out
        self._made: list[str] = []
        self._emptied: dict[str, None] = {}

    def begin(self) -> None:
        """Keep what is replaced from here on."""
        if self._begun:
            raise AssertionError("changes are begun already")
        self._begun = True

    def made(self) -> list[str]:
        """Return the list in which a directory must be before it is made."""
        return self._made if self._begun else []

    def postpone(self, directory: str) -> bool:
        """Remember to remove the directory; return whether it has to wait."""
        if self._begun:
            self._emptied[directory] = None
        return self._begun

    def save(self, path: str) -> None:
        """Get ready for a change of this path."""
        if not self._begun or path in self._restores:
            return
        try:
            self._restores[path] = self._second_name(path)
        except (FileNotFoundError, NotADirectoryError):
            self._restores[path] = lambda: self._remove(path)
        except IsADirectoryError:
            return  # the change will fail on it
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from None

    def undo(self) -> list[str]:
        """Put everything back, newest first; return what could not be. Goes on where a Ctrl-C cut it."""
        lost = []
        while self._restores:
            path, restore = next(reversed(self._restores.items()))
            try:
                restore()
            except OSError:
                lost.append(path)
            del self._restores[path]
        while self._made:
            try:
                self._whole.remove_directory(self._made[-1])
            except OSError:
                lost.append(self._made[-1])
            self._made.pop()
        self._emptied.clear()
        # What could not be put back keeps its second name, for whoever mends it by hand.
        self._end(keep_names=bool(lost))
        return lost

    def forget(self) -> None:
        """Let the changes stand."""
        self._restores.clear()
        self._made.clear()
        self._end(keep_names=False)
        for directory in self._emptied:
            with contextlib.suppress(OSError):
                self._whole.remove_directory(directory)
        self._emptied.clear()

    def _end(self, *, keep_names: bool) -> None:
        while self._names:
            name = self._names[-1]
            if not keep_names:
                with contextlib.suppress(OSError):
                    self._calls.unlink(name)
            release(name)
            self._names.pop()
        self._begun = False

    def _second_name(self, path: str) -> Callable[[], None]:
        name = self._whole.free_name(path)
        keep(name)
        self._names.append(name)
        try:
            self._calls.link(path, name)
        except OSError as error:
            self._names.pop()
            release(name)
            if error.errno in _NO_HARD_LINKS:
                return self._in_memory(path, error)
            raise
        inode = os.lstat(name).st_ino
        return lambda: self._rename_back(name, path, inode)

    def _rename_back(self, name: str, path: str, inode: int) -> None:
        try:
            self._calls.rename(name, path)
            # rename(2) does nothing if both names are the same file: the change itself was not done.
            self._calls.unlink(name)
        except FileNotFoundError:
            if os.lstat(path).st_ino != inode:  # not put back by this call, and not by one that was cut
                raise

    def _in_memory(self, path: str, error: OSError) -> Callable[[], None]:
        seen = os.lstat(path)
        if stat.S_ISDIR(seen.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if stat.S_ISLNK(seen.st_mode):
            target = os.readlink(path)
            return lambda: self._whole.point(path, target)
        if not stat.S_ISREG(seen.st_mode):
            raise error
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            content = file.read()
        mode, owner = stat.S_IMODE(seen.st_mode), (seen.st_uid, seen.st_gid)
        if owner == (os.geteuid(), os.getegid()):
            return lambda: self._whole.put(path, content, mode)
        return lambda: self._whole.put(path, content, mode, owner=owner)

    def _remove(self, path: str) -> None:
        if not os.path.lexists(path):
            return  # a read-only file system refuses even to remove what is not there
        # By now it may be a directory that was made for a file below: that one goes later.
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
            self._calls.unlink(path)
