"""The few Linux calls that Python 3.11 does not offer, with errors that name the path.

Owns ctypes; nothing else in this room uses it. No policy and no state: each function is one system call, and
raises OSError with the operation and the path in it. glibc and musl both export all of these.
Python 3.12 has os.unshare; the rest stays.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_SHARED = 1 << 20
MNT_DETACH = 2

PR_SET_PDEATHSIG = 1
PR_CAPBSET_DROP = 24


def _checked(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def mount(source: str, target: str | Path, kind: str = "", flags: int = 0, options: str = "") -> None:
    """mount(2)."""
    _checked(
        _libc.mount(
            source.encode(),
            os.fsencode(target),
            kind.encode() or None,
            ctypes.c_ulong(flags),
            os.fsencode(options) or None,
        ),
        f"mount {kind or source} on {target}",
    )


def bind(source: str | Path, target: str | Path, *, read_only: bool = False) -> None:
    """Make source (with what is mounted below it) appear at target; read_only holds for source itself."""
    mount(str(source), target, "", MS_BIND | MS_REC)
    if read_only:
        mount("", target, "", MS_BIND | MS_REMOUNT | MS_RDONLY)


def pivot_root(new_root: str | Path) -> None:
    """Make new_root the root of this mount namespace and let go of the old one (pivot_root(2), NOTES)."""
    os.chdir(new_root)
    _checked(_libc.pivot_root(b".", b"."), f"pivot_root {new_root}")
    _checked(_libc.umount2(b".", MNT_DETACH), "umount of the old root")
    os.chdir("/")


def unshare(flags: int) -> None:
    """unshare(2)."""
    _checked(_libc.unshare(flags), "unshare")


def die_with_parent(signal: int) -> None:
    """Ask for this signal when the thread that forked us ends (prctl(2) PR_SET_PDEATHSIG)."""
    _checked(_libc.prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal), 0, 0, 0), "prctl PR_SET_PDEATHSIG")


def drop_from_bounding_set(capability: int) -> None:
    """Give a capability up for good, for this process and what it executes (prctl(2) PR_CAPBSET_DROP)."""
    _checked(_libc.prctl(PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0), "prctl PR_CAPBSET_DROP")
