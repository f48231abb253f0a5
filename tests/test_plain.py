"""`apply` and `plan` without typer do and say what they do with it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sysresp.cli import hosts, main, plain
from tests.fakes import FakeManager, fake_host

pytestmark = pytest.mark.filterwarnings("ignore:'autocompletion' is renamed:DeprecationWarning")

TOP = Path(__file__).resolve().parent.parent
GOOD = 'project = "shop"\n[services.web]\ncommand = ["/bin/sleep", "1000"]\n'
BAD = "[services.web]\ncomand = 1\n"


@contextmanager
def host() -> Iterator[FakeManager]:
    manager = FakeManager()
    fake = fake_host(manager=manager)
    token = hosts.open_host.set(lambda _scope, _mode: fake)
    yield manager
    hosts.open_host.reset(token)


@pytest.mark.parametrize("verb", ["apply", "plan"])
@pytest.mark.parametrize(
    "files", [["services.toml"], [], ["bad.toml"], ["none.toml"], ["services.toml", "bad.toml"]]
)
def test_the_same_with_and_without_typer(
    verb: str,
    files: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("services.toml").write_text(GOOD)
    Path("bad.toml").write_text(BAD)
    with host() as manager:
        status = plain.fast(["sysresp", verb, *files])
        calls = manager.changes()
    out, err = capfd.readouterr()
    with host() as manager:
        done = CliRunner().invoke(main.app, [verb, *files], prog_name="sysresp")
        assert manager.changes() == calls
    assert status == done.exit_code
    assert sorted(_timeless(out + err)) == sorted(_timeless(done.output + _stderr(done)))


def _timeless(text: str) -> list[str]:
    return re.sub(r"\d+\.\d s", "N s", re.sub(r"\(\d+\.\d+s\)", "(N)", text)).splitlines()


def _stderr(done: object) -> str:
    try:
        text = str(getattr(done, "stderr", ""))
    except ValueError:  # old click: mixed into the output
        return ""
    return "" if text and text in str(getattr(done, "output", "")) else text


@pytest.mark.parametrize(
    "words", [["apply", "-"], ["plan", "--json"], ["apply", "x.toml", "--user"], ["check"]]
)
def test_options_are_left_to_typer(words: list[str]) -> None:
    assert plain.fast(["sysresp", *words]) is None


def test_typer_is_not_imported() -> None:
    program = "import sysresp.__main__, sysresp.cli.plain, sysresp.cli.change, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(TOP)!r}); {program}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not {"typer", "click", "rich"} & set(done.stdout.split())
