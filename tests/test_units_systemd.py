"""Rendered units held against systemd's own tools; no service manager needs to run."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from sysresp.model import (
    Command,
    Credential,
    EnvironmentFile,
    Hardening,
    Kind,
    Limits,
    Listen,
    Ready,
    ReadyBy,
    Restart,
    Schedule,
    Socket,
    Stop,
    Watch,
)
from sysresp.units.desired import Desired
from tests.rendered import desired, service

ANALYZE = shutil.which("systemd-analyze")


@pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is missing")
class TestOnSystemd:
    """The text is held against systemd's own tools; no service manager needs to run."""

    def write(self, made: Desired, where: Path) -> list[str]:
        for file in made.files.values():
            (where / file.name).write_text(file.text)
        for unit in made.units.values():
            if unit.instance:
                (where / unit.name).symlink_to(unit.file)
        return [str(where / unit) for unit in made.units]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([str(ANALYZE), *words], capture_output=True, text=True, check=False)

    def test_verify_is_silent(self, tmp_path: Path) -> None:
        made = desired(
            service("db", ready=Ready(ReadyBy.TCP, "127.0.0.1:1"), state_directory=("shop/db", "a b")),
            service(
                requires=("db",),
                instances=("1", "2"),
                command=(Command(("/bin/true", '100% $HOME \\ "x" ; \n\x01\udce9')),),
                environment={"A": '100% "x" $HOME \\', "I": "{instance}"},
                environment_file=(EnvironmentFile("/etc/os-release", True),),
                socket=Socket((Listen("127.0.0.1:8000"), Listen("/run/a b.sock")), 5, 0o660, "root", "root"),
                hardening=Hardening("strict", read_write=("-/srv/a b",)),
                user="root",
                groups=("daemon", "root"),
                umask=0o27,
                directory="/",
                limits=Limits("512M", "10%", "0", "150%", 5, 6, "200", "65536", "100", "infinity", 100),
                conditions={"ConditionPathExists": ("/", "!/nonexistent a")},
                credentials={"k": Credential("/etc/machine-id")},
                restart=Restart("always", 0.2, None, None, 10, 600, ("1", "SIGTERM"), ("2",), ("3",), 1),
                reload_signal="HUP",
                stop=Stop((), "SIGINT", 5, "mixed"),
                documentation=("https://example.com/a%20b",),
            ),
            service("each", instances=("x",), socket=Socket((Listen("/run/{instance}.s", "sequential"),))),
            service(
                "pipe", on_demand=True, socket=Socket((Listen("/run/f", "fifo"), Listen("99", "datagram")))
            ),
            service("job", kind=Kind.ONESHOT, schedule=Schedule(("Mon..Fri 06:00",), 60, 60, True, 5, 1)),
            service("seen", watch=Watch(("/etc/hosts", "/a b "), "reload"), hardening=Hardening("web")),
            service(
                "many", watch=Watch(("/etc/hosts",)), instances=("1",), hardening=Hardening("strict-jit")
            ),
            service("once", kind=Kind.ONESHOT, watch=Watch(("/etc/hosts",))),
        )
        done = self.run("verify", "--recursive-errors=no", "--man=no", *self.write(made, tmp_path))
        assert (done.returncode, done.stderr, done.stdout) == (0, "", "")

    @pytest.mark.parametrize(("profile", "most"), [("strict", 1.5), ("strict-jit", 1.5), ("web", 2.5)])
    def test_exposure(self, tmp_path: Path, profile: str, most: float) -> None:
        made = desired(service(user="daemon", hardening=Hardening(profile)))
        self.write(made, tmp_path)
        done = self.run("security", "--offline=yes", "--no-pager", str(tmp_path / "shop-web.service"))
        words = done.stdout.rpartition("Overall exposure level for")[2].partition(":")[2].split()
        assert float(words[0]) <= most, done.stdout
