"""In-memory twins of `ports.Files` and `ports.Journal` that tests can steer and question.

`FakeFiles` records every operation and can fail at a chosen change or below a chosen path, so that a test
can cut an apply at any step. tests/test_contract.py runs the same suite on it and on the real one.
"""

from __future__ import annotations

import errno
import os
from collections import defaultdict
from posixpath import basename, dirname, join

FILE_CHANGES = ("write", "remove", "link", "rmdir")


class FakeFiles:
    """Files, links and modes in memory."""

    def __init__(self, files: dict[str, bytes] | None = None) -> None:
        self.files: dict[str, bytes] = dict(files or {})
        self.links: dict[str, str] = {}
        self.modes: dict[str, int] = {}
        self.dirs: set[str] = {"/"}
        self.operations: list[tuple[str, ...]] = []  # every call: ("write", path), ("link", path, target)
        self._fail_at: dict[int, int] = {}
        self._fail_on: dict[str, int] = {}
        self._changes = 0
        for path in self.files:
            self._parents(path)

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

    def write(self, path: str, content: bytes, mode: int = 0o644) -> None:
        self._change("write", path)
        self._not_a_directory(path)
        self._parents(path)
        self.links.pop(path, None)
        self.files[path] = bytes(content)
        self.modes[path] = mode

    def remove(self, path: str) -> None:
        self._change("remove", path)
        self._not_a_directory(path)
        self.files.pop(path, None)
        self.links.pop(path, None)
        self.modes.pop(path, None)

    def link(self, path: str, target: str) -> None:
        self._change("link", path, target)
        self._not_a_directory(path)
        self._parents(path)
        self.files.pop(path, None)
        self.modes.pop(path, None)
        self.links[path] = target

    def readlink(self, path: str) -> str | None:
        self.operations.append(("readlink", path))
        return self.links.get(path)

    def listdir(self, path: str) -> list[str]:
        self.operations.append(("listdir", path))
        return self.entries(path)

    def rmdir(self, path: str) -> None:
        self._change("rmdir", path)
        if not self.entries(path):
            self.dirs.discard(path)

    def sync(self, path: str) -> None:
        self.operations.append(("sync", path))

    def entries(self, path: str) -> list[str]:
        """Return what `listdir` does, without a record of the call."""
        everything = (*self.files, *self.links, *self.dirs)
        return sorted({basename(name) for name in everything if dirname(name) == path and name != "/"})

    def _change(self, *operation: str) -> None:
        self.operations.append(operation)
        self._changes += 1
        path = operation[1]
        number = self._fail_at.pop(self._changes, 0)
        for prefix, error in self._fail_on.items():
            if path == prefix or path.startswith(prefix.rstrip("/") + "/"):
                number = error
        if number:
            raise OSError(number, os.strerror(number), path)

    def _not_a_directory(self, path: str) -> None:
        if path in self.dirs:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)

    def _parents(self, path: str) -> None:
        parent = dirname(path)
        while parent not in self.dirs:
            if parent in self.files:
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
            self.dirs.add(parent)
            parent = dirname(parent)


class FakeJournal:
    """Lines by unit, set by the test."""

    def __init__(self) -> None:
        self.lines: dict[str, list[str]] = defaultdict(list)
        self.calls: list[tuple[str, int, str]] = []

    def tail(self, unit: str, lines: int, invocation_id: str = "") -> list[str]:
        self.calls.append((unit, lines, invocation_id))
        return self.lines[unit][-lines:] if lines > 0 else []
