"""Building the root file system of a sandbox, inside a mount namespace that nobody else sees.

Owns what is visible in there: an overlay over the host's root (or over another tree), its own /proc, /sys,
/dev, /run, /tmp and cgroup file system, and the few files by which the booted systemd starts nothing of the
host's own. Every write lands on the tmpfs `stage`, which goes when the last process of the namespace goes.

Rule: nothing here may touch the host. The caller has made its mounts private before; /proc/sys and /sys are
read-only, because sysctls and devices are not namespaced (systemd.exec(5) ProtectKernelTunables=).
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from sysresp.sandbox import linux


class Bind(NamedTuple):
    """A path of the host that is shown inside."""

    source: str
    target: str
    read_only: bool = True


# File systems that are not data: the sandbox has its own, or none.
_VIRTUAL = """
    autofs binfmt_misc bpf cgroup cgroup2 configfs debugfs devpts devtmpfs efivarfs fusectl hugetlbfs mqueue
    nsfs overlay proc pstore ramfs rootfs rpc_pipefs securityfs squashfs sysfs tmpfs tracefs
"""
_OWN = ("/proc", "/sys", "/dev", "/run", "/tmp")

# What the host has enabled below these must not start: only what apply starts should run in there. The links
# of multi-user.target stay, for the boot does not reach it.
_BOOT_TARGETS = """
    sysinit basic sockets timers paths slices swap local-fs local-fs-pre remote-fs remote-fs-pre network
    network-pre network-online time-sync time-set cryptsetup integritysetup veritysetup nss-lookup
    nss-user-lookup rpcbind
"""

# Parts of systemd's own boot that need real hardware, or only cost time in a copy that is thrown away.
_MASKED = """
    systemd-udevd.service systemd-udevd-kernel.socket systemd-udevd-control.socket
    systemd-udev-trigger.service systemd-udev-settle.service systemd-modules-load.service
    systemd-sysctl.service systemd-remount-fs.service systemd-firstboot.service
    systemd-machine-id-commit.service ldconfig.service systemd-hwdb-update.service
    systemd-update-done.service systemd-journal-catalog-update.service systemd-update-utmp.service
    systemd-update-utmp-runlevel.service systemd-timesyncd.service systemd-networkd.service
    systemd-networkd.socket systemd-resolved.service systemd-tmpfiles-clean.timer console-getty.service
    systemd-ask-password-wall.path systemd-ask-password-console.path
"""

TARGET = "sysresp-sandbox.target"
_TARGET_TEXT = """\
[Unit]
Description=Sandbox of sysresp
Requires=basic.target
After=basic.target
Wants=dbus.socket dbus.service
AllowIsolate=yes
"""
_JOURNALD_TEXT = "[Journal]\nStorage=volatile\nForwardToSyslog=no\nForwardToConsole=no\nForwardToWall=no\n"


def host_mounts(mountinfo: str) -> list[str]:
    """Return the mount points below / that hold data of the host, outermost first (proc(5) mountinfo)."""
    found: dict[str, None] = {}
    virtual = _VIRTUAL.split()
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        point = left.split()[4].encode().decode("unicode_escape")
        own = any(point == p or point.startswith(p + "/") for p in _OWN)
        if point != "/" and not own and right.split()[0] not in virtual:
            found[point] = None
    return sorted(found)


def overlay_options(lower: str, upper: str | Path, work: str | Path) -> str:
    r"""Return the options of an overlay; lower may hold ":" and ",", which are written as "\:" and "\,"."""
    escaped = lower.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")
    return f"lowerdir={escaped},upperdir={upper},workdir={work}"


def _overlay(stage: Path, number: int, lower: str, target: str | Path) -> None:
    upper, work = stage / f"upper{number}", stage / f"work{number}"
    upper.mkdir()
    work.mkdir()
    shutil.copystat(lower, upper)  # the mode of the directory itself; its owner is set below
    at = Path(lower).stat()
    os.chown(upper, at.st_uid, at.st_gid)
    linux.mount("overlay", target, "overlay", 0, overlay_options(lower, upper, work))


def _show_mounts(stage: Path, new: Path, points: Iterable[str]) -> None:
    for number, point in enumerate(points, start=1):
        source, target = Path(point), new / point.lstrip("/")
        if source.is_file():  # container engines bind single files such as /etc/resolv.conf
            with suppress(OSError):
                shutil.copy2(source, target)
        elif source.is_dir():
            try:
                _overlay(stage, number, point, target)
            except OSError:  # some network file systems cannot be the lower layer
                linux.bind(source, target, read_only=True)


def _make_dev(new: Path, console: str) -> None:
    dev = new / "dev"
    linux.mount("tmpfs", dev, "tmpfs", linux.MS_NOSUID, "mode=755")
    for name in ("null", "zero", "full", "random", "urandom", "tty"):
        node = Path("/dev", name)
        os.mknod(dev / name, 0o020666, node.stat().st_rdev)
        (dev / name).chmod(0o666)
    for name, mode in (("pts", 0o755), ("shm", 0o1777), ("mqueue", 0o755)):
        (dev / name).mkdir()
        (dev / name).chmod(mode)
    options = "newinstance,ptmxmode=0666,mode=620,gid=5"
    linux.mount("devpts", dev / "pts", "devpts", linux.MS_NOSUID | linux.MS_NOEXEC, options)
    linux.mount("tmpfs", dev / "shm", "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=1777")
    (dev / "console").touch()
    linux.bind(console, dev / "console")
    for name, target in (
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ):
        (dev / name).symlink_to(target)


def _make_kernel_views(new: Path) -> None:
    quiet = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
    linux.mount("proc", new / "proc", "proc", quiet)
    linux.bind(new / "proc/sys", new / "proc/sys", read_only=True)
    linux.bind(new / "proc/sys/net", new / "proc/sys/net")
    linux.mount(
        "", new / "proc/sys/net", "", linux.MS_BIND | linux.MS_REMOUNT
    )  # its own, so it may be written
    if (new / "proc/sysrq-trigger").exists():
        linux.bind(new / "proc/sysrq-trigger", new / "proc/sysrq-trigger", read_only=True)
    linux.mount("sysfs", new / "sys", "sysfs", quiet | linux.MS_RDONLY)
    linux.mount("cgroup2", new / "sys/fs/cgroup", "cgroup2", quiet)


def _make_quiet_boot(new: Path, hostname: str | None) -> None:
    units = new / "run/systemd/system"
    units.mkdir(parents=True)
    (units / TARGET).write_text(_TARGET_TEXT)
    for name in _MASKED.split():
        (units / name).symlink_to("/dev/null")
    settings = new / "run/systemd/journald.conf.d"
    settings.mkdir()
    (settings / "50-sandbox.conf").write_text(_JOURNALD_TEXT)
    for target in _BOOT_TARGETS.split():
        for kind in ("wants", "requires"):
            with suppress(FileNotFoundError, NotADirectoryError):
                shutil.rmtree(new / f"etc/systemd/system/{target}.target.{kind}")
    etc = new / "etc"
    (etc / "fstab").write_text("")  # nothing of the host's fstab is mounted a second time
    machine_id = etc / "machine-id"
    if not machine_id.exists() or len(machine_id.read_text().strip()) != 32:
        machine_id.unlink(missing_ok=True)  # it would be a first boot, which enables every preset unit
        machine_id.write_text(uuid.uuid4().hex + "\n")
    if hostname:
        (etc / "hostname").unlink(missing_ok=True)
        (etc / "hostname").write_text(hostname + "\n")


def build(
    stage: Path, lower: str, binds: Sequence[Bind], *, console: str, notify: str, hostname: str | None
) -> Path:
    """Mount everything below `stage`, a tmpfs of our own, and return the new root."""
    new = stage / "root"
    new.mkdir()
    _overlay(stage, 0, lower, new)
    for name in _OWN:
        (new / name.lstrip("/")).mkdir(exist_ok=True)
    if lower == "/":
        _show_mounts(stage, new, host_mounts(Path("/proc/self/mountinfo").read_text()))
    _make_kernel_views(new)
    _make_dev(new, console)
    plain = linux.MS_NOSUID | linux.MS_NODEV
    linux.mount("tmpfs", new / "run", "tmpfs", plain, "mode=755")
    linux.mount("tmpfs", new / "tmp", "tmpfs", plain, "mode=1777")
    (new / "run/host").mkdir()
    (new / "run/host/notify").touch()
    linux.bind(notify, new / "run/host/notify")
    _make_quiet_boot(new, hostname)
    for item in binds:
        target = new / item.target.lstrip("/")
        if Path(item.source).is_dir():
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch()
        linux.bind(item.source, target, read_only=item.read_only)
    return new
