"""`plan` and `apply` on a host that was changed by hand: what is shown, refused, accepted, overwritten."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sysresp.cli import hosts, main
from sysresp.errors import Exit
from tests.fakes import FakeFiles, FakeManager, fake_host

# typer 0.7 knows only `autocompletion`, and warns that Click has renamed it.
pytestmark = pytest.mark.filterwarnings("ignore:'autocompletion' is renamed:DeprecationWarning")

SHOP = """\
project = "shop"

[services.db]
command = ["/bin/sh"]

[services.web]
command = ["/bin/sh"]
"""
PATH = "/etc/systemd/system/shop-web.service"


class World:
    """A host in memory on which the file was applied, and edited by hand since."""

    def __init__(self) -> None:
        Path("services.toml").write_text(SHOP)
        self.files = FakeFiles()
        self.manager = FakeManager(self.files)
        self.host = fake_host(manager=self.manager)

    def run(self, *words: str, status: int = 0) -> str:
        """Run a command and return all that it printed."""
        result = CliRunner().invoke(main.app, list(words), prog_name="sysresp")
        assert result.exit_code == status, result.output
        return result.output

    def edit(self) -> bytes:
        """Edit a unit file, and return what it holds then."""
        content = (self.files.read(PATH) or b"") + b"[Service]\nNice=5\n"
        self.files.write(PATH, content)
        return content


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.chdir(tmp_path)
    one = World()
    token = hosts.open_host.set(lambda _scope, _mode: one.host)
    one.run("apply", "--settle", "0")
    yield one
    hosts.open_host.reset(token)


def test_a_plan_shows_it_and_goes_on(world: World) -> None:
    world.edit()
    text = world.run("plan")
    assert text.startswith("drift:\n  shop-web.service  was edited: ")
    assert "    +Nice=5\n" in text
    assert "change:\n  shop-web.service  then restart" in text
    assert "apply refuses this, unless --accept-drift or --overwrite-drift" in text
    made = json.loads(world.run("plan", "--json"))
    assert made["refused"] is True
    assert [(drift["kind"], drift["service"]) for drift in made["drift"]] == [("edited", "web")]
    assert "refuses" not in world.run("plan", "--overwrite-drift")
    accepted = world.run("plan", "--accept-drift")
    assert "plan: nothing to do" in accepted


def test_an_apply_refuses_it(world: World) -> None:
    content = world.edit()
    changes = len(world.manager.changes())
    Path("services.toml").write_text(SHOP + '[services.new]\ncommand = ["/bin/sh"]\n')
    text = world.run("apply", "--settle", "0", status=Exit.REFUSED)
    assert "    +Nice=5\n" in text
    assert "this would overwrite 1 unit file edited by hand; nothing was changed" in text
    assert (world.files.read(PATH), len(world.manager.changes())) == (content, changes)
    world.run("rollback", "1", "--settle", "0", status=Exit.REFUSED)
    world.run("resume", status=Exit.REFUSED)
    assert "exclude each other" in world.run(
        "apply", "--accept-drift", "--overwrite-drift", status=Exit.USAGE
    )


def test_accepted_and_overwritten(world: World) -> None:
    content = world.edit()
    world.run("apply", "--settle", "0", "--accept-drift")
    world.run("apply", "--settle", "0")
    assert world.files.read(PATH) == content
    assert "drift: 1 not-loaded, 1 accepted" in world.run("drift", status=Exit.NOT_WELL)
    world.manager.reload()
    assert "no drift: 4 units as the last apply left them, 1 accepted" in world.run("drift")
    world.run("apply", "--settle", "0", "--overwrite-drift")
    assert world.files.read(PATH) != content
    assert "accepted" not in world.run("drift")


def test_a_failed_release_is_rolled_back_around_what_is_accepted(world: World) -> None:
    content = world.edit()
    world.run("apply", "--settle", "0", "--accept-drift")
    Path("services.toml").write_text(SHOP + 'nice = 3\n[services.bad]\ncommand = ["/bin/sh"]\n')
    world.manager.fail["shop-bad.service"] = "failed"
    world.run("apply", "--settle", "0", "--accept-drift", status=Exit.ROLLED_BACK)
    assert world.files.read(PATH) == content
    assert world.files.read("/etc/systemd/system/shop-bad.service") is None
    world.run(
        "apply", "--settle", "0", status=Exit.REFUSED
    )  # another text is wanted than was accepted against
    Path("services.toml").write_text(SHOP)
    world.run("apply", "--settle", "0")
    assert world.files.read(PATH) == content


def test_a_plan_in_a_file_keeps_the_choice(world: World) -> None:
    content = world.edit()
    world.run("plan", "--accept-drift", "--out", "plan")
    saved = world.files.read(str(Path("plan").absolute()))
    assert saved is not None
    Path("plan").write_bytes(saved)
    world.run("apply", "--plan", "plan")
    assert world.files.read(PATH) == content
