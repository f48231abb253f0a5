"""Putting a whole file or link at a name, whenever the power goes.

Owns the hidden names: a file is made under one beside the final name, with its final mode, then renamed.
systemd ignores hidden names in its unit directories (hidden_or_backup_file in path-util.c), so a reload
never sees half a unit. Never follows a link at the final name. The rule: after any call the directory is as
a reader wants it.

A hidden name carries the number of the process that made it. Those of processes that are gone (killed, or
the power was) are removed when a name is next wanted in the same directory.
"""

# pathlib has neither open flags nor descriptors, and hides which call failed.
# ruff: noqa: PTH112, PTH120, PTH208

from __future__ import annotations

import contextlib
import errno
import itertools
import os

from sysresp.systemd.syscalls import Syscalls

_count = itertools.count(1)  # one for the process: two that write beside each other must not meet
_kept: set[str] = set()  # the hidden names of this process that are still wanted


class Whole:
    """Whole files and links, by these system calls."""

    def __init__(self, calls: Syscalls, prefix: str) -> None:
        self._calls = calls
        self._prefix = prefix  # of the hidden names
        self._swept: set[str] = set()
        self._fresh: set[str] = set()  # directories that we made and that a power cut may take away

    def put(
        self,
        final: str,
        content: bytes,
        mode: int,
        *,
        owner: tuple[int, int] | None = None,
        durable: bool = False,
    ) -> None:
        """Put the content there; the directory must exist."""
        calls = self._calls
        temporary = self.free_name(final)
        try:
            descriptor = calls.create(temporary, mode)
            try:
                calls.fchmod(descriptor, mode)  # whatever the umask
                if owner is not None:
                    calls.fchown(descriptor, *owner)
                view = memoryview(content)
                while view:
                    view = view[calls.write(descriptor, view) :]
                if durable:
                    calls.fsync(descriptor)
            finally:
                os.close(descriptor)
            calls.rename(temporary, final)
        except BaseException as error:
            raise self._without(temporary, final, error) from None
        if durable:
            self._keep_names(os.path.dirname(final))

    def point(self, final: str, target: str) -> None:
        """Put a symbolic link there; the directory must exist."""
        temporary = self.free_name(final)
        try:
            self._calls.symlink(target, temporary)
            self._calls.rename(temporary, final)
        except BaseException as error:
            raise self._without(temporary, final, error) from None

    def make(self, directory: str, made: list[str]) -> None:
        """Make the directory and its parents, 0755; each is in `made` before it is on the disk."""
        if directory in self._swept:
            return
        missing = []
        while not os.path.isdir(directory):
            missing.append(directory)
            directory = os.path.dirname(directory)
        for name in reversed(missing):
            made.append(name)
            try:
                self._calls.mkdir(name, 0o755)
            except FileExistsError:
                made.pop()
                if not os.path.isdir(name):
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), name) from None
            else:
                self._fresh.add(name)
                self._calls.chmod(name, 0o755)  # whatever the umask

    def remove_directory(self, directory: str) -> None:
        """Remove the directory if it is there and holds nothing but leftovers."""
        try:
            self._sweep(directory)
            self._calls.rmdir(directory)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            return
        self._swept.discard(directory)
        self._fresh.discard(directory)

    def free_name(self, final: str) -> str:
        """Return a hidden name in the same directory that nobody has."""
        directory = os.path.dirname(final)
        if directory not in self._swept:
            self._sweep(directory)
            self._swept.add(directory)
        return f"{directory}/{self._prefix}{os.getpid()}-{next(_count)}"

    def _keep_names(self, directory: str) -> None:
        """Make what this directory lists survive a power cut, and the directory too if we made it."""
        while True:
            descriptor = os.open(directory or "/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                self._calls.fsync(descriptor)
            except OSError as error:
                if error.errno != errno.EINVAL:  # a file system that cannot do this for a directory, as cifs
                    raise OSError(error.errno, error.strerror, directory) from None
            finally:
                os.close(descriptor)
            if directory not in self._fresh:
                return
            self._fresh.discard(directory)
            directory = os.path.dirname(directory)

    def sweep(self, directory: str) -> None:
        """Remove the hidden names of processes that are gone; no error if there is no such directory."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            self._sweep(directory)

    def _sweep(self, directory: str) -> None:
        for name in os.listdir(directory):
            if not name.startswith(self._prefix):
                continue
            path = f"{directory}/{name}"
            if path not in _kept and not _is_alive(name.removeprefix(self._prefix).partition("-")[0]):
                with contextlib.suppress(OSError):  # somebody else was quicker, or may; it does no harm
                    self._calls.unlink(path)

    def _without(self, temporary: str, final: str, error: BaseException) -> BaseException:
        """Take the temporary file away; return the error with the name that the caller knows."""
        with contextlib.suppress(OSError):
            self._calls.unlink(temporary)
        if isinstance(error, OSError):
            return OSError(error.errno, error.strerror, final)
        return error


def keep(name: str) -> None:
    """Let nobody in this process take the hidden name for a leftover."""
    _kept.add(name)


def release(name: str) -> None:
    """The hidden name is gone, or may go."""
    _kept.discard(name)


def _is_alive(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except PermissionError:
        return True
    return int(process) != os.getpid()
