"""A booted, throwaway copy of this host (or of another root file system), and running programs in it.

Owns the caller's side: `Sandbox` starts a keeper (sysresp.sandbox.keeper), waits until systemd has booted,
and enters the namespaces for each command. Inside, every path of the host's own disks is there and writable,
but nothing written survives; /tmp, /run, /proc, /dev are its own, there is no network but the loopback, and
only what basic.target needs is started.

Rule: the caller never holds anything that needs cleaning up. The keeper does, and it acts when our end of
its pipe closes, by `close` or by our death.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import sysresp
from sysresp.errors import Exit, SysrespError
from sysresp.sandbox.rootfs import Bind

__all__ = ["Bind", "CommandFailed", "Sandbox"]

_KEEPER = "import sys; sys.path.insert(0, sys.argv[1]); from sysresp.sandbox.keeper import main; main()"
# Joins the cgroup of the sandbox before entering, so that systemd inside may move us (systemd-run --scope).
_JOIN = 'echo 0 >"$1" || exit 125; shift; exec "$@"'
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ENTER = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root")
_CLOSE_SEC = 20.0  # tearing down takes 0.1 s; more means a stuck kernel
_LAST_WORDS_SEC = 5.0  # for what Ctrl-C stops
_CONSOLE_LINES = 30


class CommandFailed(SysrespError):
    """A command in the sandbox ended with another status than 0, and the caller wanted to know."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.done = done
        output = "\n".join(text.rstrip() for text in (done.stdout, done.stderr) if text)
        super().__init__(f"{' '.join(done.args)}: exit status {done.returncode}\n{output}".rstrip())


class User(NamedTuple):
    """A line of the sandbox's /etc/passwd."""

    name: str
    uid: int
    gid: int
    home: str


class Sandbox:
    """Boots on entry, is gone on exit. One instance is one boot."""

    def __init__(
        self,
        root: str | Path = "/",
        *,
        binds: Sequence[Bind] = (),
        env: Mapping[str, str] | None = None,
        hostname: str | None = None,
        boot_timeout_sec: float = 60.0,
    ) -> None:
        self._root = str(root)
        self._binds = binds
        self._env = dict(env or {})  # added to the environment of every command
        self._hostname = hostname
        self._boot_timeout_sec = boot_timeout_sec
        self._keeper: subprocess.Popen[bytes] | None = None
        self._version = 0
        self.pid = 0  # of the sandbox's PID 1, as the caller sees it
        self.keeper_pid = 0

    def __enter__(self) -> Sandbox:
        _require_rights()
        order = {
            "root": self._root,
            "binds": [(str(Path(b.source).resolve()), b.target, b.read_only) for b in self._binds],
            "hostname": self._hostname,
            "boot_timeout_sec": self._boot_timeout_sec,
        }
        package = str(Path(sysresp.__file__).parent.parent)
        self._keeper = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", "-c", _KEEPER, package, json.dumps(order)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
            env={"PATH": _PATH},
        )
        self.keeper_pid = self._keeper.pid
        try:
            self._wait_for_boot(self._keeper)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _wait_for_boot(self, keeper: subprocess.Popen[bytes]) -> None:
        assert keeper.stdout is not None
        for line in keeper.stdout:
            message = json.loads(line)
            if "error" in message:
                console = "\n".join(message["console"].strip().splitlines()[-_CONSOLE_LINES:])
                shown = f"\nlast lines of its console:\n{console}" if console else ""
                raise SysrespError(f"cannot boot a sandbox of {self._root}: {message['error']}{shown}")
            self.pid = message.get("pid", self.pid)
            if "ready" in message:
                (self.path("/sys/fs/cgroup") / "caller").mkdir(exist_ok=True)
                return
        raise SysrespError(
            f"cannot boot a sandbox of {self._root}: its keeper ended with status {keeper.wait(_CLOSE_SEC)}"
        )

    def close(self) -> None:
        """Tear down, and return when nothing is left; safe to call twice."""
        keeper, self._keeper = self._keeper, None
        if keeper is None:
            return
        assert keeper.stdin is not None
        assert keeper.stdout is not None
        with suppress(OSError):
            keeper.stdin.close()
        try:
            keeper.wait(_CLOSE_SEC)
        except subprocess.TimeoutExpired:
            keeper.kill()  # PID 1 of the sandbox dies with it
            keeper.wait()
        finally:
            keeper.stdout.close()

    def path(self, inside: str | Path) -> Path:
        """Return a path of the host for one inside; an absolute symbolic link on the way leads outside."""
        return Path(f"/proc/{self.pid}/root", str(inside).lstrip("/"))

    def user(self, name: str) -> User:
        """Look a user up in the sandbox's own /etc/passwd."""
        for line in self.path("/etc/passwd").read_text().splitlines():
            fields = line.split(":")
            if fields[0] == name:
                return User(name, int(fields[2]), int(fields[3]), fields[5])
        raise SysrespError(f"cannot find the user {name} in the sandbox")

    def start_user_manager(self, name: str) -> None:
        """Start the service manager of a user, as lingering does (systemd-logind, user@.service(5))."""
        self.run(["systemctl", "start", f"user@{self.user(name).uid}.service"], check=True)

    @property
    def version(self) -> int:
        """The major version of the systemd inside."""
        if not self._version:
            self._version = int(self.run(["systemctl", "--version"], check=True).stdout.split()[1])
        return self._version

    def _entering(self, argv: Sequence[str], user: User | None, directory: str = "/") -> list[str]:
        nsenter = shutil.which("nsenter", path=_PATH)
        if nsenter is None:
            raise SysrespError("cannot enter the sandbox: no nsenter", hint="install util-linux")
        procs = self.path("/sys/fs/cgroup/caller/cgroup.procs")
        words = ["/bin/sh", "-c", _JOIN, "sh", str(procs), nsenter, f"--target={self.pid}"]
        words += [*_ENTER, "--"]
        if user is not None:
            words += ["setpriv", f"--reuid={user.uid}", f"--regid={user.gid}", "--init-groups", "--"]
        if directory != "/":
            words += ["env", f"--chdir={directory}"]
        return [*words, *argv]

    def _environment(self, user: User | None, env: Mapping[str, str] | None) -> dict[str, str]:
        mine = {"PATH": _PATH, "LANG": "C.UTF-8", "HOME": "/root", "USER": "root", "LOGNAME": "root"}
        if user is not None:
            mine |= {
                "HOME": user.home,
                "USER": user.name,
                "LOGNAME": user.name,
                "XDG_RUNTIME_DIR": f"/run/user/{user.uid}",
                "DBUS_SESSION_BUS_ADDRESS": f"unix:path=/run/user/{user.uid}/bus",
            }
        return mine | self._env | dict(env or {})

    def run(
        self,
        argv: Sequence[str],
        *,
        check: bool = False,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
        input: str | None = None,
        timeout: float | None = 120.0,
        capture: bool = True,
        directory: str = "/",
    ) -> subprocess.CompletedProcess[str]:
        """Run a program inside and wait for it; with `check`, a failure raises CommandFailed.

        After `timeout` seconds it is killed and subprocess.TimeoutExpired raised. `capture=False` leaves it
        our standard output and error, and so our terminal: Ctrl-C reaches it, and it may have a last word.
        """
        who = self.user(user) if user else None
        process = subprocess.Popen(
            self._entering(argv, who, directory),
            stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
            stdout=subprocess.PIPE if capture else None,
            stderr=subprocess.PIPE if capture else None,
            env=self._environment(who, env),
            cwd="/",
            text=True,
            encoding="utf-8",
            errors="surrogateescape",
            process_group=0 if capture else None,  # so that a timeout reaches what nsenter forked, too
        )
        with process:
            try:
                out, err = process.communicate(input, timeout)
            except BaseException as error:
                if capture:
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                elif isinstance(error, KeyboardInterrupt):
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(_LAST_WORDS_SEC)
                process.kill()
                process.communicate()  # to the end of its output: then what it forked is gone as well
                raise
        done = subprocess.CompletedProcess(list(argv), process.returncode, out or "", err or "")
        if check and done.returncode != 0:
            raise CommandFailed(done)
        return done

    @property
    def entry(self) -> str:
        """The command with which root on this host enters the sandbox."""
        return f"nsenter --target {self.pid} {' '.join(_ENTER)}"

    def wait(self) -> None:
        """Wait until the sandbox ends by itself (poweroff inside), or until Ctrl-C."""
        if self._keeper is not None:
            with suppress(KeyboardInterrupt):
                self._keeper.wait()

    def shell(self) -> int:
        """Give the caller's terminal to a shell inside, and return its exit status."""
        shell = next((s for s in ("/bin/bash", "/bin/sh") if self.path(s).exists()), "/bin/sh")
        # The caller's terminal is unknown in there: script(1) makes one that is known, for job control.
        words = (
            ["script", "-q", "-c", shell, "/dev/null"] if self.path("/usr/bin/script").exists() else [shell]
        )
        env = self._environment(None, {"TERM": os.environ.get("TERM", "dumb")})
        return subprocess.run(self._entering(words, None), env=env, cwd="/", check=False).returncode


def _require_rights() -> None:
    if os.geteuid() != 0:
        raise SysrespError(
            "cannot boot a sandbox: only root may make its namespaces",
            hint="run the same command with sudo",
            exit=Exit.DENIED,
        )
