"""What would happen here: apply a file in a booted copy of this host, and throw the copy away.

Owns the order of events of `sysresp rehearse`. The copy shows every file of the host as it is now, so
users, programs, certificates and unit files of others are the real ones; what it lacks is the network, and
the files below /tmp and /run, of which only the spec files themselves are copied in. Only the project of the
file runs: if the host has it applied already, it is started first as it is there, so that apply meets what
it would meet.

Rule: it is the real `apply` that runs, in a process of its own, with this very interpreter and package;
there is no second code path that pretends.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import sysresp
from sysresp.errors import Exit
from sysresp.sandbox.boot import Bind, Sandbox

_NOT_SHOWN = ("/tmp/", "/run/", "/dev/", "/proc/")
_TERMINAL = ("TERM", "COLUMNS", "LINES", "NO_COLOR", "LANG")  # what output depends on


def _is_hidden(path: Path) -> bool:
    """Say whether the sandbox has its own instead of this path."""
    return f"{path}/".startswith(_NOT_SHOWN)


def _program_binds(package: Path) -> list[Bind]:
    """Return what the interpreter and this package need, if a sandbox does not show it anyway."""
    needed = dict.fromkeys((package, Path(sys.prefix), Path(sys.base_prefix)))
    return [Bind(str(path), str(path)) for path in needed if _is_hidden(path)]


def _copy_in(sandbox: Sandbox, files: Sequence[str]) -> list[str]:
    """Make the named files visible inside, and return their names there."""
    names = []
    for number, name in enumerate(files):
        file = Path(name).absolute()
        if name != "-" and not file.is_file() and file.exists():  # such as /dev/fd/63, of a shell's <(...)
            inside = f"/run/rehearse/{number}.toml"
            sandbox.path(inside).parent.mkdir(exist_ok=True)
            sandbox.path(inside).write_bytes(file.read_bytes())
            names.append(inside)
            continue
        names.append(name)
        copy = sandbox.path(file)
        # What lies beside a package that runs from /tmp is there already.
        if name != "-" and _is_hidden(file) and file.exists() and not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, copy)
    return names


def rehearse(
    files: Sequence[str],
    *,
    project: str = "",
    keep: bool = False,
    shell: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> int:
    """Boot a sandbox, apply the files in it, show the status, tear down; return the exit status.

    Both commands write to our own standard output and error. `project` is the files' owner. `shell` opens a
    shell before the end, `keep` waits for Ctrl-C; `tell` gets what there is to say about that. The status is
    that of apply, or if it is 0, that of `status`.
    """
    package = Path(sysresp.__file__).parent.parent
    env = {"PYTHONPATH": str(package), "PYTHONDONTWRITEBYTECODE": "1"}
    env |= {name: os.environ[name] for name in _TERMINAL if name in os.environ}
    here = Path.cwd()
    text = sys.stdin.read() if "-" in files else None
    with Sandbox(binds=_program_binds(package), env=env) as sandbox:
        names = _copy_in(sandbox, files)
        directory = str(here) if sandbox.path(here).is_dir() else "/"
        if project and sandbox.path(f"/etc/systemd/system/{project}.target").exists():
            sandbox.run(["systemctl", "start", f"{project}.target"])

        def run(*words: str) -> int:
            # -P: what lies in the working directory is not ours (python(1)); the user may be in a clone.
            argv = [sys.executable, "-P", "-m", "sysresp", *words]
            return sandbox.run(argv, directory=directory, input=text, timeout=None, capture=False).returncode

        status = run("apply", *(f"--file={name}" for name in names))
        if status != Exit.USAGE:
            well = run("status")
            status = status or well
        if shell:
            tell("a shell in the sandbox, which is thrown away when you leave it")
            sandbox.shell()
        if keep:
            tell(f"the sandbox stays until Ctrl-C; enter it with: {sandbox.entry}")
            sandbox.wait()
    return status
