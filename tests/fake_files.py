"""In-memory twins of `ports.Files`, `ports.Journal` and `ports.Processes` that tests can steer and question.

`FakeFiles` records every operation and can fail at a chosen change or below a chosen path, so that a test
can cut an apply at any step. tests/test_files*.py run the same suite on it and on the real one.
"""

from __future__ import annotations

import errno
import itertools
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from posixpath import dirname, join
from typing import NamedTuple

from sysresp.ports import FileStat, Line

FILE_CHANGES = ("write", "remove", "link", "rmdir")


class Inode(NamedTuple):
    """What stat(2) knows of a file beyond its content."""

    number: int
    mtime: float
    ctime: float


class Before(NamedTuple):
    """What was at a path before the first change."""

    content: bytes | None
    target: str | None
    mode: int | None
    inode: Inode


class FakeFiles:
    """Files, links and modes in memory, as one process sees them; `process` makes another one."""

    def __init__(self, files: dict[str, bytes] | None = None) -> None:
        self.files: dict[str, bytes] = dict(files or {})
        self.links: dict[str, str] = {}
        self.modes: dict[str, int] = {}
        self.dirs: set[str] = {"/"}
        self.operations: list[tuple[str, ...]] = []  # every call: ("write", path), ("link", path, target)
        self._fail_at: dict[int, int] = {}
        self._fail_on: dict[str, int] = {}
        self._changes = 0
        self.now: Callable[[], float] = lambda: 1_700_000_000.0
        self.durable: set[str] = set()  # would survive a power cut
        self.locks: dict[str, FakeFiles] = {}
        self._inodes: dict[str, Inode] = {}
        self._numbers = itertools.count(1)
        self._before: dict[str, Before] | None = None  # since `begin`
        self._made: list[str] = []
        self._emptied: list[str] = []
        for path in self.files:
            self._parents(path)

    def process(self) -> FakeFiles:
        """Return the same files as another process sees them: its locks and its undo are its own."""
        other = FakeFiles()
        other.files, other.links, other.modes, other.dirs = self.files, self.links, self.modes, self.dirs
        other.now, other.durable, other.locks = self.now, self.durable, self.locks
        other._inodes, other._numbers = self._inodes, self._numbers
        return other

    def die(self) -> None:
        """End this process as SIGKILL does: its locks are gone, and its way back."""
        for path in [path for path, owner in self.locks.items() if owner is self]:
            del self.locks[path]
        self._before = None
        self._made.clear()
        self._emptied.clear()

    def fail_at(self, change: int, error: int = errno.ENOSPC) -> None:
        """Let the n-th change from now on (1 is the next) raise OSError; once."""
        self._fail_at[self._changes + change] = error

    def fail_on(self, path: str, error: int = errno.EACCES) -> None:
        """Let every change of this path, or of anything below it, raise OSError."""
        self._fail_on[path] = error

    def changes(self) -> list[tuple[str, ...]]:
        """Return the calls so far that change something."""
        return [operation for operation in self.operations if operation[0] in FILE_CHANGES]

    def mkdir(self, path: str) -> None:
        """Set the scene: an empty directory."""
        self._parents(join(path, "x"))

    def real(self, path: str) -> str:
        """Follow links, as open(2) does."""
        for _ in range(8):
            if path not in self.links:
                break
            path = join(dirname(path), self.links[path])
        return path

    def read(self, path: str) -> bytes | None:
        self.operations.append(("read", path))
        path = self.real(path)
        self._not_a_directory(path)
        return self.files.get(path)

    def write(self, path: str, content: bytes, mode: int = 0o644, *, durable: bool = False) -> None:
        self._change("write", path)
        self._not_a_directory(path)
        self._parents(path)
        self._replace(path)
        self.files[path] = bytes(content)
        self.modes[path] = mode
        if durable:
            self.durable.add(path)

    def remove(self, path: str) -> None:
        self._change("remove", path)
        self._not_a_directory(path)
        self._replace(path)

    def link(self, path: str, target: str) -> None:
        self._change("link", path, target)
        self._not_a_directory(path)
        self._parents(path)
        self._replace(path)
        self.links[path] = target

    def readlink(self, path: str) -> str | None:
        self.operations.append(("readlink", path))
        return self.links.get(path)

    def listdir(self, path: str) -> list[str]:
        self.operations.append(("listdir", path))
        return self.entries(path)

    def rmdir(self, path: str) -> None:
        self._change("rmdir", path)
        if self._before is not None:
            self._emptied.append(path)
        elif not self.entries(path):
            self.dirs.discard(path)

    def sweep(self, path: str) -> None:
        self.operations.append(("sweep", path))  # nothing here is ever half-done

    def sync(self, path: str) -> None:
        self.operations.append(("sync", path))
        self.durable |= {*self.files, *self.links}

    def stat(self, path: str) -> FileStat | None:
        self.operations.append(("stat", path))
        path = self.real(path)
        if path not in self.files and path not in self.dirs:
            return None
        inode = self._inode(path)
        return FileStat(1, inode.number, len(self.files.get(path, b"")), inode.mtime, inode.ctime)

    def begin(self) -> None:
        self.operations.append(("begin",))
        if self._before is not None:
            raise AssertionError("changes are begun already")
        self._before = {}

    def undo(self) -> list[str]:
        self.operations.append(("undo",))
        before, self._before = self._before or {}, None
        lost = []
        for path, was in reversed(before.items()):
            if self._error_of(path):
                lost.append(path)
            else:
                self._replace(path)
                self._put_back(path, was)
        for directory in reversed(self._made):
            if not self.entries(directory):
                self.dirs.discard(directory)
        self._made.clear()
        self._emptied.clear()
        return lost

    def forget(self) -> None:
        self.operations.append(("forget",))
        self._before = None
        self._made.clear()
        for directory in self._emptied:
            if not self.entries(directory):
                self.dirs.discard(directory)
        self._emptied.clear()

    def lock(self, path: str, holder: bytes) -> bytes | None:
        self.operations.append(("lock", path))
        self._raise(self._error_of(path), path)
        self._not_a_directory(path)
        made = len(self._made)
        self._parents(path)
        del self._made[made:]
        if path in self.locks:
            return self.files[path]
        self.locks[path] = self
        self.files[path], self.modes[path] = holder, 0o644
        return None

    def unlock(self, path: str) -> None:
        self.operations.append(("unlock", path))
        if self.locks.get(path) is self:
            del self.locks[path]
            self.files[path] = b""

    def entries(self, path: str) -> list[str]:
        """Return what `listdir` does, without a record of the call."""
        if path not in self.dirs:
            return []
        prefix = path.rstrip("/") + "/"
        everything = (*self.files, *self.links, *self.dirs)
        below = {name.removeprefix(prefix) for name in everything if name.startswith(prefix)}
        return sorted(name for name in below if name and "/" not in name)

    def _change(self, *operation: str) -> None:
        self.operations.append(operation)
        self._changes += 1
        path = operation[1]
        self._raise(self._fail_at.pop(self._changes, 0) or self._error_of(path), path)

    def _error_of(self, path: str) -> int:
        for prefix, error in self._fail_on.items():
            if path == prefix or path.startswith(prefix.rstrip("/") + "/"):
                return error
        return 0

    def _raise(self, number: int, path: str) -> None:
        if number:
            raise OSError(number, os.strerror(number), path)

    def _inode(self, path: str) -> Inode:
        if path not in self._inodes:
            self._inodes[path] = Inode(next(self._numbers), self.now(), self.now())
        return self._inodes[path]

    def _replace(self, path: str) -> None:
        """Take away what is there, after a note of it if changes are begun."""
        content, target, mode = self.files.get(path), self.links.get(path), self.modes.get(path)
        if self._before is not None and path not in self._before:
            self._before[path] = Before(content, target, mode, self._inode(path))
        self.files.pop(path, None)
        self.links.pop(path, None)
        self.modes.pop(path, None)
        self.durable.discard(path)
        self._inodes[path] = Inode(next(self._numbers), self.now(), self.now())

    def _put_back(self, path: str, was: Before) -> None:
        if was.content is not None:
            self.files[path] = was.content
        if was.target is not None:
            self.links[path] = was.target
        if was.mode is not None:
            self.modes[path] = was.mode
        self._inodes[path] = was.inode._replace(ctime=self.now())

    def _not_a_directory(self, path: str) -> None:
        if path in self.dirs:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)

    def _parents(self, path: str) -> None:
        parent, made = dirname(path), []
        while parent not in self.dirs:
            if parent in self.files or parent in self.links:
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
            made.append(parent)
            parent = dirname(parent)
        self.dirs |= {*made}
        if self._before is not None:
            self._made += reversed(made)


class FakeJournal:
    """Lines by unit, set by the test."""

    def __init__(self) -> None:
        self.lines: dict[str, list[str]] = defaultdict(list)
        self.calls: list[tuple[str, int, str]] = []
        self.dumps: dict[str, list[int]] = defaultdict(list)
        self.scanned: list[Line] = []

    def scan(self, units: Sequence[str], since: float, most: int) -> tuple[list[Line], bool]:
        found = [line for line in self.scanned if line.unit in units and line.at >= since]
        return (found[-most:] if most > 0 else []), len(found) <= most

    def tail(self, unit: str, lines: int, invocation_id: str = "") -> list[str]:
        self.calls.append((unit, lines, invocation_id))
        return self.lines[unit][-lines:] if lines > 0 else []

    def core_dumps(self, unit: str, since: float, until: float = 0.0) -> list[int]:
        self.dumps_asked = (since, until)
        return self.dumps[unit]


class FakeProcesses:
    """Which processes run replaced files, set by the test."""

    def __init__(self) -> None:
        self.old: dict[int, list[str]] = {}

    def replaced(self, pid: int) -> list[str]:
        return list(self.old.get(pid, []))
