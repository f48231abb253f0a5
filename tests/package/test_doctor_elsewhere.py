"""`sysresp doctor` where sysresp hardly works: systemd 247, and no systemd at all.

Owns two odd hosts. Debian 11 has systemd 247, but Python 3.9: its systemd is booted, and sysresp runs beside
it with the libraries of Debian 12 (a root file system within, whose /run, /proc, /sys, /etc and /var are
those of the booted one), so what is asked over D-Bus is answered by the real 247. Without systemd: the
installed package in a plain chroot.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from sysresp.sandbox.boot import Bind, Sandbox
from tests.conftest import of_session
from tests.package.conftest import TOP, root_of, timed

_INSIDE = (
    "for d in run proc sys etc var tmp; do mount --rbind /$d /py/$d; done; "
    "exec chroot /py env PYTHONPATH=/srv python3 -m sysresp doctor --json"
)


def test_systemd_247() -> None:
    binds = [Bind(root_of("build-bookworm"), "/py"), Bind(str(TOP), "/py/srv")]
    with timed("doctor on systemd 247"), Sandbox(root_of("bare-bullseye"), binds=binds) as sandbox:
        of_session.add(sandbox.keeper_pid)
        assert sandbox.version == 247
        done = sandbox.run(["unshare", "--mount", "sh", "-euc", _INSIDE])
        assert done.stdout, done.stderr
        told = json.loads(done.stdout)
    assert done.returncode == 3
    assert told["facts"]["version"] == 247
    assert told["facts"]["manager_trouble"] == ["", ""]
    found = {one["check"]: one for one in told["findings"]}
    for words in ("PrivateIPC", "encrypted credentials", "delays do not grow"):
        assert words in found["systemd"]["what"]
    assert found["systemd"]["level"] == "limit"
    assert found["controller"]["what"] == "the controller is not installed"


def test_no_systemd_at_pid_1() -> None:
    root = root_of("build-trixie")
    script = f"mount --bind {TOP} {root}/srv; mount -t proc proc {root}/proc; exec chroot {root} env "
    script += "PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/srv python3 -m sysresp doctor"
    words = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-euc", script]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert "PID 1 is sh" in done.stdout or "PID 1 is python3" in done.stdout, done.stdout
    assert "fix: boot with systemd as PID 1; `sysresp rehearse FILE`" in done.stdout
    assert not Path(root, "srv/sysresp").exists()
