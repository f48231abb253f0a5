"""`sysresp rehearse` as the user runs it: the real apply, in a copy that is gone afterwards."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sysresp.errors import Exit
from tests.live.conftest import TOP

pytestmark = pytest.mark.live


def rehearse(
    *args: str, cwd: Path = TOP, text: str | None = None, top: Path = TOP
) -> subprocess.CompletedProcess[str]:
    """Run the checkout's `sysresp rehearse` on this host."""
    return subprocess.run(
        [sys.executable, "-m", "sysresp", "rehearse", *args],
        cwd=cwd,
        input=text,
        stdin=None if text is not None else subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(top), "PATH": "/usr/bin:/bin"},
        check=False,
    )


def test_the_example_runs() -> None:
    done = rehearse(str(TOP / "packaging/examples/services.toml"))
    assert done.returncode == Exit.OK, done.stdout + done.stderr
    states = {line.split()[0]: line.split()[1] for line in done.stdout.splitlines() if line.split()[1:]}
    wanted = {"db": "running", "web": "running", "front": "listening", "report": "waiting"}
    assert wanted.items() <= states.items()
    assert not Path("/etc/systemd/system/demo.target").exists()


def test_a_file_beside_a_package_that_only_the_host_sees(tmp_path: Path) -> None:
    """Such as a clone below /tmp: all of it is shown in the sandbox, and nothing is to be copied."""
    for part in ("sysresp", "templates"):
        shutil.copytree(TOP / part, tmp_path / part)
    text = 'project = "here"\n[services.a]\ncommand = ["/usr/bin/sleep", "1000"]\n'
    (tmp_path / "here.toml").write_text(text)
    done = rehearse("here.toml", cwd=tmp_path, top=tmp_path)
    assert done.returncode == Exit.OK, done.stderr
    assert "running" in done.stdout


def test_a_file_that_only_the_host_sees_is_copied_in(tmp_path: Path) -> None:
    text = 'project = "here"\n[services.a]\ncommand = ["/usr/bin/sleep", "1000"]\n'
    (tmp_path / "services.toml").write_text(text)
    for done in (
        rehearse("services.toml", cwd=tmp_path),
        rehearse(cwd=tmp_path),
        rehearse("-", cwd=tmp_path, text=text),
    ):
        assert done.returncode == Exit.OK, done.stderr
        assert "running" in done.stdout


def test_what_fails_there_fails_here(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(
        '[services.a]\ncommand = ["/usr/bin/sleep", "no number"]\nkind = "oneshot"\n'
    )
    done = rehearse("a.toml", cwd=tmp_path)
    assert done.returncode == Exit.FAILED
    assert "invalid time interval" in done.stdout + done.stderr


def test_a_bad_file_is_refused_before_anything_boots(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("[services.a]\ncomand = 1\n")
    done = rehearse("a.toml", cwd=tmp_path)
    assert done.returncode == Exit.USAGE
    assert "a.toml:2" in done.stdout + done.stderr
