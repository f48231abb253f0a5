"""The file system: `ports.Files` with whole files only, whenever the power goes.

Owns how a file gets onto the host: a hidden temporary file beside the final one, created with its final
mode, then renamed. systemd ignores hidden names in its unit directories (hidden_or_backup_file in
path-util.c), so a reload never sees half a unit. Never decides what to write, never follows a link at the
final name. The rule: every method is one step; after any of them the directory is as a reader wants it.

A temporary file carries the number of the process that made it. Those of processes that are gone (killed,
or the power was) are removed by the first change in the same directory.
"""

# pathlib has neither open flags nor descriptors, and hides which call failed.
# ruff: noqa: PTH101, PTH102, PTH104, PTH106, PTH108, PTH112, PTH115, PTH120, PTH208, PTH211

from __future__ import annotations

import contextlib
import errno
import os

_PREFIX = ".sysresp-"
_ABSENT = (FileNotFoundError, NotADirectoryError)


class RealFiles:
    """The host's files; below `root` if one is given."""

    def __init__(self, root: str = "") -> None:
        self._root = root.rstrip("/")
        self._swept: set[str] = set()
        self._count = 0

    def read(self, path: str) -> bytes | None:
        # Without O_NONBLOCK a FIFO under a unit's name would hang us.
        try:
            descriptor = os.open(self._root + path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except _ABSENT:
            return None
        with os.fdopen(descriptor, "rb") as file:
            return file.read()

    def write(self, path: str, content: bytes, mode: int = 0o644) -> None:
        final, temporary = self._beside(path)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(temporary, flags, mode)
            try:
                os.fchmod(descriptor, mode)  # whatever the umask
                view = memoryview(content)
                while view:
                    view = view[os.write(descriptor, view) :]
            finally:
                os.close(descriptor)
            os.rename(temporary, final)
        except BaseException as error:
            raise _without(temporary, final, error) from None

    def remove(self, path: str) -> None:
        try:
            os.unlink(self._root + path)
        except _ABSENT:
            return

    def link(self, path: str, target: str) -> None:
        final, temporary = self._beside(path)
        try:
            os.symlink(target, temporary)
            os.rename(temporary, final)
        except BaseException as error:
            raise _without(temporary, final, error) from None

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
        return sorted(name for name in names if not name.startswith(_PREFIX))

    def rmdir(self, path: str) -> None:
        directory = self._root + path
        try:
            self._sweep(directory)
            os.rmdir(directory)
        except _ABSENT:
            return
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return
            raise
        self._swept.discard(directory)

    def sync(self, path: str) -> None:
        # One syncfs(2) for 200 new files on ext4 takes 5 ms, an fsync(2) of each 80 ms.
        import ctypes  # noqa: PLC0415 - only a change pays for it

        descriptor = os.open(self._existing(self._root + path), os.O_RDONLY | os.O_CLOEXEC)
        try:
            if ctypes.CDLL(None, use_errno=True).syncfs(descriptor):
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), path)
        finally:
            os.close(descriptor)

    def _existing(self, path: str) -> str:
        while not os.path.isdir(path):
            path = os.path.dirname(path)
        return path

    def _beside(self, path: str) -> tuple[str, str]:
        """Make the parents; return the final name and a free temporary one in the same directory."""
        final = self._root + path
        directory = os.path.dirname(final)
        if directory not in self._swept:
            self._make(directory)
            self._sweep(directory)
            self._swept.add(directory)
        self._count += 1
        return final, f"{directory}/{_PREFIX}{os.getpid()}-{self._count}"

    def _make(self, directory: str) -> None:
        missing = []
        while not os.path.isdir(directory):
            missing.append(directory)
            directory = os.path.dirname(directory)
        for name in reversed(missing):
            try:
                os.mkdir(name, 0o755)
            except FileExistsError:
                if not os.path.isdir(name):
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), name) from None
            else:
                os.chmod(name, 0o755)  # whatever the umask

    def _sweep(self, directory: str) -> None:
        for name in os.listdir(directory):
            if name.startswith(_PREFIX) and not _is_alive(name.removeprefix(_PREFIX).partition("-")[0]):
                try:
                    os.unlink(f"{directory}/{name}")
                except OSError:  # somebody else was quicker, or may; it does no harm
                    continue


def _is_alive(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except PermissionError:
        return True
    return int(process) != os.getpid()


def _without(temporary: str, final: str, error: BaseException) -> BaseException:
    """Take the temporary file away; return the error with the name that the caller knows."""
    with contextlib.suppress(OSError):
        os.unlink(temporary)
    if isinstance(error, OSError):
        return OSError(error.errno, error.strerror, final)
    return error
