"""System calls that are counted, and go wrong where a test says so: the points of the file system.

The rule: a call that goes wrong has done nothing, as a kill before it, or an error from the kernel.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from typing import Any, cast

from sysresp.systemd.syscalls import Syscalls

NEED_ROOM = ("create", "write", "fsync", "mkdir", "symlink", "link", "syncfs", "open_lock")
"""What a full disk refuses; to rename, to unlink and to change a mode needs no room."""


class Faults:
    """Hands out system calls, and asks `before(number, name)` before each; the first is number 1."""

    def __init__(self, before: Callable[[int, str], None] = lambda _number, _name: None) -> None:
        self.done: list[tuple[str, ...]] = []  # name and paths
        self._before = before

    def calls(self) -> Syscalls:
        """Return the counted calls."""
        made = {name: self._counted(name, call) for name, call in Syscalls()._asdict().items()}
        return Syscalls(**made)

    def _counted(self, name: str, call: Callable[..., Any]) -> Any:
        def counted(*args: object) -> object:
            self.done.append((name, *(word for word in args if isinstance(word, str))))
            self._before(len(self.done), name)
            return cast(object, call(*args))

        return counted


def error_at(number: int, code: int = errno.EIO) -> Callable[[int, str], None]:
    """Let one call fail."""
    return lambda at, _name: _fail(code) if at == number else None


def full_from(number: int) -> Callable[[int, str], None]:
    """Let the disk be full from that call on."""
    return lambda at, name: _fail(errno.ENOSPC) if at >= number and name in NEED_ROOM else None


def read_only_from(number: int) -> Callable[[int, str], None]:
    """Let the file system be read-only from that call on."""
    return lambda at, _name: _fail(errno.EROFS) if at >= number else None


def killed_at(number: int) -> Callable[[int, str], None]:
    """Let SIGKILL come before that call."""
    return lambda at, _name: os.kill(os.getpid(), signal.SIGKILL) if at == number else None


def _fail(code: int) -> None:
    raise OSError(code, os.strerror(code))
