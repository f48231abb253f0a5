"""Which files a process runs that an upgrade has replaced: `ports.Processes` over proc(5).

Owns the reading of /proc/PID/exe and /proc/PID/maps. Never sends a signal, never reads memory. The rule: say
"replaced" only when it is sure, since a person restarts a service for it.

The kernel writes " (deleted)" behind the path of a file that was unlinked or renamed over, which is how
packages and builds replace one; a library whose name holds its version is then just gone. Without that, the
file at the path may still be another one (a mount on top), so the inode is compared. overlayfs and btrfs
show another device in maps than stat(2) does, and overlayfs with xino may set the upper bits of the inode in
only one of them: then the lower 32 bits decide. The path is as the process sees it, so it is looked up below
/proc/PID/root. A file that cannot be found there, and is not said to be deleted, is not called replaced.
"""

# pathlib knows no paths that are bytes.
# ruff: noqa: PTH115, PTH116, PTH123

from __future__ import annotations

import os
from typing import NamedTuple

_DELETED = b" (deleted)"
# No files, though they look like one: memfd_create(2), shmget(2), shared anonymous memory, drivers.
_NO_FILES = (b"/memfd:", b"/SYSV", b"/dev/zero", b"/[", b"/anon_hugepage", b"/drm mm object", b"/i915")
# Where programs put code that they have just made and unlink it (libffi closures, orc, LLVM): no upgrade.
_PASSING = (b"/tmp/", b"/var/tmp/", b"/dev/", b"/run/", b"/var/run/")


class Mapping(NamedTuple):
    """A file that is mapped to be run, as the kernel writes it."""

    path: bytes  # perhaps with " (deleted)" behind it
    device: int
    inode: int


class RealProcesses:
    """The processes of this machine, below `proc`."""

    def __init__(self, proc: str = "/proc") -> None:
        self._proc = proc

    def replaced(self, pid: int) -> list[str]:
        place = os.fsencode(f"{self._proc}/{pid}")
        try:
            program = os.readlink(place + b"/exe").removesuffix(_DELETED)
            with open(place + b"/maps", "rb") as file:
                text = file.read()
        except OSError:  # gone, not ours, or a thread of the kernel
            return []
        found = {
            mapping.path.removesuffix(_DELETED)
            for mapping in executable_files(text)
            if _is_replaced(mapping, place + b"/root")
        }
        libraries = sorted(path for path in found - {program} if not path.startswith(_PASSING))
        return [path.decode(errors="replace") for path in (*({program} & found), *libraries)]


def executable_files(maps: bytes) -> list[Mapping]:
    """Return the files that are mapped to be run, each once, in order (proc_pid_maps(5))."""
    found: dict[Mapping, None] = {}
    for line in maps.split(b"\n"):
        fields = line.split(None, 5)
        if len(fields) < 6 or b"x" not in fields[1]:
            continue
        path = fields[5]
        if path.startswith(b"/") and not path.startswith(_NO_FILES):
            major, _, minor = fields[3].partition(b":")
            found[Mapping(path, os.makedev(int(major, 16), int(minor, 16)), int(fields[4]))] = None
    return list(found)


def _is_replaced(mapping: Mapping, root: bytes) -> bool:
    try:
        seen = os.stat(root + mapping.path)
    except OSError:
        return mapping.path.endswith(_DELETED)
    if seen.st_dev == mapping.device:
        return seen.st_ino != mapping.inode
    return (seen.st_ino ^ mapping.inode) & 0xFFFFFFFF != 0
