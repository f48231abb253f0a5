"""history, diff, rollback, resume, plan files and locks, on a host in memory: words and exit statuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from sysresp.cli import hosts
from sysresp.errors import Exit
from sysresp.reconcile.lock import Holder, locked
from tests.test_cli import World

pytestmark = pytest.mark.filterwarnings("ignore:'autocompletion' is renamed:DeprecationWarning")

ONE = '[services.web]\ncommand = ["/bin/sh"]\n'
TWO = f'{ONE}nice = 5\n[services.db]\ncommand = ["/bin/sh"]\n'


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SUDO_USER", "ann")
    one = World()
    token = hosts.open_host.set(lambda _scope, _mode: one.host)
    yield one
    hosts.open_host.reset(token)


@pytest.fixture
def shop(world: World) -> World:
    """Two generations."""
    for text in (ONE, TWO):
        Path("shop.toml").write_text(text)
        world.run("apply", "shop.toml")
    return world


def generation(world: World) -> int:
    raw = world.manager.files.files["/var/lib/sysresp/shop.json"]
    return int(json.loads(raw)["generation"])


def test_the_last_line_names_the_generation(shop: World) -> None:
    assert (
        shop.run("apply", "shop.toml").rstrip().endswith("nothing to do, 4 unchanged (0.0s), generation 2")
    )


def test_history(shop: World) -> None:
    lines = shop.run("history").splitlines()
    assert lines[0].startswith("*   2  ")
    assert lines[1].startswith("    1  ")
    assert all(" ann " in line and " apply " in line and " ok " in line for line in lines)
    (found,) = json.loads(shop.run("history", "--json"))["projects"]
    assert (found["project"], found["generation"]) == ("shop", 2)
    assert [one["number"] for one in found["generations"]] == [1, 2]
    assert found["generations"][0]["when"].endswith("Z")


def test_no_history(world: World) -> None:
    assert "there is no history here" in world.run("history")
    assert json.loads(world.run("history", "--json")) == {"version": 1, "projects": []}
    world.run("history", "--project", "none", status=Exit.UNKNOWN)
    world.run("diff", status=Exit.UNKNOWN)
    world.run("rollback", status=Exit.UNKNOWN)
    world.run("resume", status=Exit.UNKNOWN)


def test_diff(shop: World) -> None:
    for words in ((), ("1",), ("1", "2")):
        text = shop.run("diff", *words)
        assert "+nice = 5" in text
        assert "+Nice=5" in text
        assert "shop-db.service (generation 2)" in text
    assert "-Nice=5" in shop.run("diff", "2", "1")
    assert "no difference between 2 and 2" in shop.run("diff", "2", "2")
    assert "has no generation 9" in shop.run("diff", "9", status=Exit.UNKNOWN)
    shop.run("diff", "1", "2", "3", status=Exit.USAGE)
    Path("forum.toml").write_text(ONE)
    shop.run("apply", "forum.toml")
    assert "say which project: forum, shop" in shop.run("diff", status=Exit.USAGE)
    assert "--- /dev/null" in shop.run("diff", "--project", "forum")


def test_the_first_generation_differs_from_nothing(world: World) -> None:
    Path("shop.toml").write_text(ONE)
    world.run("apply", "shop.toml")
    text = world.run("diff")
    assert "--- /dev/null" in text
    assert "+command" in text


def test_rollback_shows_and_does(shop: World) -> None:
    text = shop.run("rollback", "--dry-run")
    assert "shop-db.service" in text
    assert generation(shop) == 2
    text = shop.run("rollback")
    assert "plan: " in text
    assert "-Nice=5" in text
    assert text.rstrip().endswith("generation 3")
    assert "/etc/systemd/system/shop-db.service" not in shop.manager.files.files
    assert "rollback 1" in shop.run("history").splitlines()[0]
    assert "no earlier generation" in shop.run("rollback", status=Exit.UNKNOWN)
    found = json.loads(shop.run("rollback", "2", "--json"))
    assert (found["generation"], found["end"], found["ok"]) == (4, "ok", True)


def test_what_was_stopped_when_it_was_left_stays_so(shop: World) -> None:
    shop.manager.set_state("shop-db.service", "inactive")
    Path("shop.toml").write_text(ONE)
    shop.run("apply", "shop.toml")
    shop.run("rollback", "2")
    assert "shop-db.service" not in [
        name for name, unit in shop.manager.loaded.items() if unit.active == "active"
    ]


def test_rolled_back_exit_status_and_words(shop: World) -> None:
    shop.manager.fail["shop-web.service"] = "failed"
    Path("shop.toml").write_text(TWO.replace("5", "6"))
    text = shop.run("apply", "shop.toml", status=Exit.FAILED)  # the old one does not start either
    assert "rolled back to generation 2, because of shop-web.service" in text
    assert "generation 3 failed, generation 2 is back, but not all of it is well" in text


def test_resume_after_ctrl_c(shop: World) -> None:
    shop.manager.raises["wait"] = KeyboardInterrupt()
    Path("shop.toml").write_text(ONE)
    text = shop.run("apply", "shop.toml", status=Exit.INTERRUPTED)
    assert "to go on: sysresp apply shop.toml" in text
    del shop.manager.raises["wait"]
    Path("shop.toml").unlink()
    text = shop.run("resume")
    assert "was interrupted; going on from there" in text
    assert " ok " in shop.run("history").splitlines()[0]
    assert "nothing to do" in shop.run("resume")


def test_down_and_back(shop: World) -> None:
    shop.run("down")
    assert shop.run("history").splitlines()[0].split()[:1] == ["3"]
    assert "nothing to go on with" in shop.run("resume", status=Exit.OK)
    shop.run("rollback")
    assert generation(shop) == 4
    assert "/etc/systemd/system/shop-db.service" in shop.manager.files.files


class TestPlanFile:
    def saved(self, world: World) -> None:
        Path("shop.toml").write_text(ONE)
        world.run("plan", "shop.toml", "--out", "/tmp/p")
        Path("p").write_bytes(world.manager.files.files["/tmp/p"])
        assert world.manager.files.modes["/tmp/p"] == 0o600

    def test_it_is_done(self, shop: World) -> None:
        self.saved(shop)
        Path("shop.toml").unlink()
        assert shop.run("apply", "--plan", "p").rstrip().endswith("generation 3")

    def test_the_generation_has_moved(self, shop: World) -> None:
        self.saved(shop)
        shop.run("apply", "shop.toml")
        text = shop.run("apply", "--plan", "p", status=Exit.REFUSED)
        assert "it was made at generation 2, and the host is at 3; nothing was changed" in text

    @pytest.mark.parametrize(
        ("path", "words"),
        [
            ("shop-web.service", "shop-web.service has changed on disk"),
            ("shop-new.service", "shop-new.service is new on disk"),
        ],
    )
    def test_a_file_has_moved(self, shop: World, path: str, words: str) -> None:
        self.saved(shop)
        shop.manager.files.files[f"/etc/systemd/system/{path}"] = b"[Service]\nExecStart=/bin/x\n"
        assert words in shop.run("apply", "--plan", "p", status=Exit.REFUSED)

    def test_a_file_is_gone(self, shop: World) -> None:
        self.saved(shop)
        del shop.manager.files.files["/etc/systemd/system/shop-db.service"]
        assert "shop-db.service is gone on disk" in shop.run("apply", "--plan", "p", status=Exit.REFUSED)

    def test_a_link_has_moved(self, shop: World) -> None:
        self.saved(shop)
        del shop.manager.files.links["/etc/systemd/system/shop.target.wants/shop-web.service"]
        text = shop.run("apply", "--plan", "p", status=Exit.REFUSED)
        assert "what is enabled has changed" in text

    def test_a_unit_has_moved(self, shop: World) -> None:
        self.saved(shop)
        shop.manager.set_state("shop-web.service", "failed")
        text = shop.run("apply", "--plan", "p", status=Exit.REFUSED)
        assert "units have changed their state" in text

    @pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 9}'])
    def test_it_is_none(self, shop: World, content: str) -> None:
        Path("p").write_text(content)
        assert "is no plan that can be applied" in shop.run("apply", "--plan", "p", status=Exit.USAGE)

    def test_it_says_it_all(self, shop: World) -> None:
        self.saved(shop)
        shop.run("apply", "--plan", "p", "shop.toml", status=Exit.USAGE)
        shop.run("apply", "--plan", "gone", status=Exit.USAGE)


def test_another_one_is_at_work(shop: World) -> None:
    other = shop.host._replace(files=shop.manager.files.process())
    with locked(other, "shop", Holder(99, "bob", "apply")):
        for words in (("apply", "shop.toml"), ("rollback",), ("down",), ("restart", "web")):
            text = shop.run(*words, status=Exit.LOCKED)
            assert "apply by bob (pid 99), since 20" in text
        began = shop.host.clock.monotonic()
        shop.run("apply", "shop.toml", "--wait", "30s", status=Exit.LOCKED)
        assert shop.host.clock.monotonic() - began >= 30
    shop.run("apply", "shop.toml", "--wait", "soon", status=Exit.USAGE)
    shop.run("apply", "shop.toml", "--settle", "ever", status=Exit.USAGE)
