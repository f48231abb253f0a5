"""The keeper: the process that builds, boots and always removes one sandbox.

Owns everything of a sandbox that could outlive its caller: the namespaces, the cgroup, the mounts. It is a
process of its own (`python -I -S`, standard library only) in its own session, so that neither Ctrl-C nor a
kill of the caller reaches it. Its standard input is a pipe that the caller holds open: end of file, for
whatever reason, means tear down. Its standard output says, one JSON object a line: {"pid": N}, then
{"ready": true} or {"error": TEXT, "console": TEXT}.

Rule: what can outlive even a SIGKILL of the keeper must be found by the next one. Processes cannot (PID 1 of
the sandbox dies with the keeper, and its PID namespace with it); mounts and files cannot (they are on a
tmpfs in a mount namespace); so only the empty cgroup can: its name carries the keeper's pid and start time.
"""

from __future__ import annotations

import errno
import json
import os
import re
import select
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from sysresp.sandbox import linux
from sysresp.sandbox.rootfs import TARGET, Bind, build

_STAGE = Path("/dev/shm")  # covered by a tmpfs of our own, in our own mount namespace
_SYSTEMD = ("usr/lib/systemd/systemd", "lib/systemd/systemd")
_CONSOLE_KEPT = 32_768  # bytes; what a failed boot shows
_REMOVE_TRIES = 500  # of 10 ms each, until the kernel lets go of the cgroup

# Capabilities whose effect is not bound to a namespace: SYS_MODULE, SYS_RAWIO, SYS_TIME, AUDIT_CONTROL,
# MAC_OVERRIDE, MAC_ADMIN, SYSLOG, WAKE_ALARM, BLOCK_SUSPEND, AUDIT_READ (capabilities(7)).
_DROPPED = (16, 17, 25, 30, 32, 33, 34, 35, 36, 37)
_ESCAPE = re.compile(r"\x1b(\[[0-9;?]*[a-zA-Z]|\][^\x07\x1b]*(\x07|\x1b\\)|[()].|[=>78cM])")


def start_time(pid: int) -> str:
    """Return when this process started, in clock ticks since boot; "" if there is none (proc(5) stat)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[19]


def cgroup_name(pid: int) -> str:
    """Return the name of the cgroup of the sandbox that this keeper keeps."""
    return f"sysresp-{pid}-{start_time(pid)}"


def remove_cgroup(top: Path) -> bool:
    """Remove an empty tree of cgroups, children first, and say whether it is gone; never kills anything."""
    for directory, _, _ in os.walk(top, topdown=False):
        try:
            Path(directory).rmdir()
        except FileNotFoundError:
            continue
        except OSError:
            return False
    return True


def remove_stale(base: Path) -> None:
    """Remove what keepers left that were killed themselves."""
    for left in base.glob("sysresp-*-*"):
        _, pid, started = left.name.split("-", 2)
        if pid.isdigit() and start_time(int(pid)) != started:
            remove_cgroup(left)


def _make_private() -> None:
    """Keep every mount that we make to ourselves."""
    try:
        linux.mount("", "/", "", linux.MS_REC | linux.MS_PRIVATE)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        # In a chroot, / is no mount point. Those below it are all that we will mount on.
        points = [x.split()[4] for x in Path("/proc/self/mountinfo").read_text().splitlines()]
        if not any(f"{_STAGE}/".startswith(f"{p}/") for p in points):
            raise OSError(error.errno, f"nothing is mounted on {_STAGE} or /dev in this chroot") from error
        for point in points:
            linux.mount("", point, "", linux.MS_PRIVATE)


def _kill_all(top: Path) -> None:
    """Kill what is still in the tree: processes that entered from outside, such as nsenter itself."""
    for directory, _, _ in os.walk(top, topdown=False):
        with suppress(OSError):
            for pid in (Path(directory) / "cgroup.procs").read_text().split():
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(int(pid), signal.SIGKILL)


class _Keeper:
    """One sandbox, from its cgroup to its end."""

    def __init__(self, order: dict[str, Any], control: int, status: int) -> None:
        self.order = order
        self.control = control
        self.status = status
        self.init = 0  # pid of the sandbox's PID 1, as we see it
        self.cgroup = Path()
        self.console = b""
        self.master, slave = os.openpty()
        self.console_path = os.ttyname(slave)
        self.slave = slave  # kept open: else the master reports a hangup until systemd opens the console
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def tell(self, **message: object) -> None:
        """Send one line to the caller, if it is still there."""
        with suppress(OSError):
            os.write(self.status, json.dumps(message).encode() + b"\n")

    def fail(self, what: str) -> None:
        """Tell the caller that there will be no sandbox, with what the console says."""
        text = self.console.decode(errors="replace").replace("\r", "")
        self.tell(error=what, console=_ESCAPE.sub("", text))

    def prepare(self) -> None:
        """Make the private mounts and the cgroup that the sandbox will live in."""
        linux.unshare(linux.CLONE_NEWNS)
        _make_private()
        linux.mount("tmpfs", _STAGE, "tmpfs", linux.MS_NOSUID, "mode=700")
        hierarchy = _STAGE / "cgroup"
        hierarchy.mkdir()
        # Our own mount of the one cgroup2 hierarchy: the host need not have it mounted (v1 only).
        linux.mount("cgroup2", hierarchy, "cgroup2")
        ours = next(
            (x[3:] for x in Path("/proc/self/cgroup").read_text().splitlines() if x.startswith("0::")), "/"
        )
        base = hierarchy if ".." in ours else hierarchy / ours.lstrip("/")
        remove_stale(base)
        self.cgroup = base / cgroup_name(os.getpid())
        self.cgroup.mkdir()
        self.notify.bind(str(_STAGE / "notify"))

    def start(self) -> None:
        """Fork PID 1 of the sandbox, and let it go on once it is sure to die with us."""
        linux.unshare(linux.CLONE_NEWPID)
        ours, theirs = os.pipe()
        self.init = os.fork()
        if self.init == 0:
            try:
                linux.die_with_parent(signal.SIGKILL)
                os.close(theirs)
                if os.read(ours, 1):  # else the keeper died before the line above took effect
                    self.become_systemd()
            except BaseException as error:  # this is a forked child: it must end here
                self.tell(error=f"{error}", console="")
            os._exit(1)
        os.close(ours)
        os.write(theirs, b"x")
        os.close(theirs)
        self.tell(pid=self.init)

    def become_systemd(self) -> None:
        """Enter the other namespaces, build the root, and execute systemd. Never returns."""
        lower = Path(self.order["root"])
        systemd = next((name for name in _SYSTEMD if (lower / name).is_file()), None)
        if systemd is None:
            raise FileNotFoundError(f"no systemd in {lower}")
        (self.cgroup / "cgroup.procs").write_text("0")
        linux.unshare(
            linux.CLONE_NEWNS
            | linux.CLONE_NEWIPC
            | linux.CLONE_NEWUTS
            | linux.CLONE_NEWNET
            | linux.CLONE_NEWCGROUP
        )
        root = build(
            _STAGE,
            str(lower),
            [Bind(*item) for item in self.order["binds"]],
            console=self.console_path,
            notify=str(_STAGE / "notify"),
            hostname=self.order["hostname"],
        )
        if self.order["hostname"]:
            socket.sethostname(self.order["hostname"])
        try:
            linux.pivot_root(root)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            os.chroot(root)  # we are in a chroot ourselves, which is no mount point
            os.chdir("/")
        # As systemd does where it is in no container. A service's credentials are mounted by a process with
        # a namespace of its own (setup_credentials() in src/core), and would not arrive in ours otherwise.
        linux.mount("", "/", "", linux.MS_REC | linux.MS_SHARED)
        for number in _DROPPED:
            linux.drop_from_bounding_set(number)
        os.umask(0o022)
        for number in range(1, signal.NSIG):
            with suppress(OSError, ValueError):
                signal.signal(number, signal.SIG_DFL)
        # "container" makes systemd leave hardware alone (systemd.io/CONTAINER_INTERFACE); in one, PID 1
        # reads its own arguments as the kernel command line.
        environment = {"container": "sysresp", "NOTIFY_SOCKET": "/run/host/notify", "TERM": "dumb"}
        os.execve(f"/{systemd}", [f"/{systemd}", f"--unit={TARGET}", "--log-level=info"], environment)

    def watch(self) -> None:
        """Report the end of the boot, keep the console, and return when the sandbox is to end."""
        deadline = time.monotonic() + self.order["boot_timeout_sec"]
        booted = False
        pidfd = os.pidfd_open(self.init)
        poll = select.poll()
        for fd in (self.control, self.notify.fileno(), self.master, pidfd):
            poll.register(fd, select.POLLIN)
        while True:
            left = None if booted else max(0.0, deadline - time.monotonic()) * 1000
            events = {fd for fd, _ in poll.poll(left)}
            if self.master in events:
                with suppress(OSError):
                    self.console = (self.console + os.read(self.master, 4096))[-_CONSOLE_KEPT:]
            if self.control in events:
                return
            if self.notify.fileno() in events and b"READY=1" in self.notify.recv(65536).split(b"\n"):
                booted = True
                self.tell(ready=True)
            if pidfd in events:
                self.fail("systemd ended")
                return
            if not events and not booted:
                self.fail(f"systemd has not booted after {self.order['boot_timeout_sec']:g} s")
                return

    def remove(self) -> None:
        """Kill every process of the sandbox and remove its cgroup; the mounts go with the namespaces."""
        if self.init:
            with suppress(ProcessLookupError):
                os.kill(self.init, signal.SIGKILL)
        if self.cgroup.name:
            _kill_all(self.cgroup)
        if self.init:
            with suppress(ChildProcessError):
                os.waitpid(self.init, 0)  # returns when every process of its PID namespace is gone
        if self.cgroup.name:
            for _ in range(_REMOVE_TRIES):
                if remove_cgroup(self.cgroup):
                    break
                _kill_all(self.cgroup)
                time.sleep(0.01)


def _end(_signal: int, _frame: object) -> None:
    raise SystemExit(0)


def main() -> None:
    """Keep one sandbox; the order is the last argument, as JSON."""
    control, status = os.dup(0), os.dup(1)  # dup: closed on exec
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end)
    keeper = _Keeper(json.loads(sys.argv[-1]), control, status)
    try:
        keeper.prepare()
        keeper.start()
        keeper.watch()
    except OSError as error:
        keeper.fail(str(error))
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        keeper.remove()
