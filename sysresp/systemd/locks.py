"""Locks between processes: flock(2) on a file that says who has it.

Owns the descriptors that hold the locks. The kernel lets a lock go when its process ends, however it ends,
so a file that was left behind is never a lock. Never waits, never removes the file: another may have it
open already, and would then hold a lock that nobody else sees. The rule: the content is written only by
who holds the lock. Who is refused reads it in between, and may find it empty, or still that of a killed
process: it is for people, never for a decision. Nobody else may even open it: flock(2) asks for no right to
write, so whoever can read a lock can hold it.
"""

# pathlib has neither open flags nor descriptors.

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from sysresp.systemd.syscalls import Syscalls

_MODE = 0o600
_MOST = 65536  # more than anybody has to say about himself


class Locks:
    """The locks of one `RealFiles`; a second one in the same process is somebody else."""

    def __init__(self, calls: Syscalls) -> None:
        self._calls = calls
        self._held: dict[str, int] = {}

    def take(self, path: str, holder: bytes, make_directory: Callable[[], None]) -> bytes | None:
        """Take the lock and return None, or return what its holder says."""
        make_directory()
        while True:
            descriptor = self._calls.open_lock(path, _MODE)
            try:
                self._calls.flock(descriptor)
                if not _is_at(path, descriptor):  # it was removed by hand and made anew meanwhile
                    os.close(descriptor)
                    make_directory()
                    continue
                self._calls.ftruncate(descriptor, 0)
                self._calls.fchmod(descriptor, _MODE)  # whatever the umask, or an older version, made of it
                view = memoryview(holder)
                while view:
                    view = view[self._calls.write(descriptor, view) :]
            except BlockingIOError:
                try:
                    return os.pread(descriptor, _MOST, 0)
                finally:
                    os.close(descriptor)
            except BaseException:
                os.close(descriptor)
                raise
            self._held[path] = descriptor
            return None

    def let_go(self, path: str) -> None:
        """Let the lock go, if it is held."""
        descriptor = self._held.pop(path, None)
        if descriptor is None:
            return
        try:
            with contextlib.suppress(OSError):  # what is written there then is of nobody, and no lock
                self._calls.ftruncate(descriptor, 0)
        finally:
            os.close(descriptor)


def _is_at(path: str, descriptor: int) -> bool:
    try:
        there = os.lstat(path)
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(descriptor))
