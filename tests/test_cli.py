"""The commands, on a host in memory: what they print, exit statuses, and never a traceback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from sysresp.cli import hosts, main, options
from sysresp.errors import Exit
from sysresp.ports import Host
from tests.fakes import FakeJournal, FakeManager, fake_host

# typer 0.7 knows only `autocompletion`, and warns that Click has renamed it.
pytestmark = pytest.mark.filterwarnings("ignore:'autocompletion' is renamed:DeprecationWarning")

SHOP = """\
project = "shop"

[services.db]
command = ["/bin/sh", "-c", "exec sleep 1000"]

[services.web]
command = ["/bin/sh", "-c", "exec sleep 1000"]
requires = ["db"]
instances = 2

[services.report]
command = ["/bin/sh"]
schedule = "daily"
"""


class World:
    """A fake host, and the command line on it."""

    def __init__(self) -> None:
        self.journal = FakeJournal()
        self.manager = FakeManager()
        self.host: Host = fake_host(manager=self.manager, journal=self.journal)
        self.runner = CliRunner()

    def run(self, *words: str, status: int | None = 0, stdin: str | None = None) -> str:
        """Run a command and return all that it printed."""
        result = self.runner.invoke(main.app, list(words), input=stdin, prog_name="sysresp")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        if status is not None:
            assert result.exit_code == status, result.output
        assert "Traceback" not in result.output
        return result.output


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.chdir(tmp_path)
    one = World()
    token = hosts.open_host.set(lambda _scope, _mode: one.host)
    yield one
    hosts.open_host.reset(token)


@pytest.fixture
def shop(world: World) -> World:
    Path("services.toml").write_text(SHOP)
    return world


def test_check_counts_what_it_found(shop: World) -> None:
    assert shop.run("check", "--systemd-version", "252") == "ok: 3 services, 7 units\n"


def test_check_shows_each_problem_with_its_line(world: World) -> None:
    Path("bad.toml").write_text('[services.web]\ncommand = ["/bin/sh"]\nuser = 7.5\ncomand = "x"\n')
    text = world.run("check", "bad.toml", "--systemd-version", "252", status=Exit.USAGE)
    assert 'bad.toml:3: service "web": user must be' in text
    assert "    4 | comand" in text
    assert "fix: did you mean" in text
    found = json.loads(world.run("check", "--json", "-f", "bad.toml", status=Exit.USAGE))
    assert (found["version"], found["ok"], [p["line"] for p in found["problems"]]) == (1, False, [3, 4])


def test_strict_makes_warnings_errors(world: World) -> None:
    Path("w.toml").write_text('[services.web]\ncommand = ["/nowhere/program"]\n')
    words = ("check", "w.toml", "--systemd-version", "252")
    assert "warning: service" in world.run(*words)
    world.run(*words, "--strict", status=Exit.USAGE)


def test_no_file_names_every_place(world: World) -> None:
    if Path("/etc/sysresp/services.toml").exists():
        pytest.skip("this host has a file of its own")
    text = world.run("check", status=Exit.USAGE)
    assert "services.toml" in text
    assert "/etc/sysresp" in text


def test_missing_file_directory_and_standard_input(world: World) -> None:
    assert "no such file" in world.run("check", "gone.toml", status=Exit.USAGE)
    assert "is a directory" in world.run("check", ".", status=Exit.USAGE)
    text = world.run("check", "-", "--project", "shop", "--systemd-version", "252", stdin=SHOP)
    assert text.startswith("ok")


def test_config_merges_layers(shop: World) -> None:
    Path("prod.toml").write_text("[services.web]\ninstances = 8\n")
    assert "instances = 8" in shop.run("config", "services.toml", "prod.toml", "--project", "mall")
    assert 'project = "mall"' in shop.run("config", "--project", "mall")


def test_schema_is_json(world: World) -> None:
    assert "services" in json.loads(world.run("schema"))["properties"]


def test_render_prints_or_writes(shop: World) -> None:
    assert "# shop-web@.service" in shop.run("render", "--systemd-version", "252")
    for _ in range(2):  # a second time over the first
        shop.run("render", "--systemd-version", "252", "--output", "out")
    assert "[X-Sysresp]" in Path("out/shop-db.service").read_text()
    link = Path("out/shop.target.wants/shop-web@2.service")
    assert str(link.readlink()) == "../shop-web@.service"
    assert link.exists()


def test_plan_then_apply_then_nothing(shop: World) -> None:
    text = shop.run("plan")
    assert "create:" in text
    assert "+ExecStart=" in text
    assert "6 to create" in text
    assert "\033" not in text
    shop.run("plan", "--detailed-exitcode", status=2)
    assert not shop.manager.changes()
    applied = shop.run("apply")
    assert "shop: 6 created" in applied
    assert "plan: nothing to do, 7 unchanged" in shop.run("plan", "--detailed-exitcode")
    before = len(shop.manager.changes())
    assert "nothing to do, 7 unchanged" in shop.run("apply")
    assert len(shop.manager.changes()) == before


def test_plan_as_json(shop: World) -> None:
    found = json.loads(shop.run("plan", "--json"))
    assert (found["version"], found["project"], found["changed"]) == (1, "shop", True)
    db = next(c for c in found["changes"] if c["unit"] == "shop-db.service")
    assert (db["verbs"], db["line"], db["before"]) == (["create", "start"], 3, None)


def test_detailed_exitcode_keeps_2_for_changes(world: World) -> None:
    Path("services.toml").write_text("nonsense")
    world.run("plan", "--detailed-exitcode", status=Exit.FAILED)
    world.run("plan", status=Exit.USAGE)


def test_foreign_unit_file_is_refused(shop: World) -> None:
    shop.host.files.write("/etc/systemd/system/shop-db.service", b"[Service]\nExecStart=/bin/true\n")
    text = shop.run("apply", status=Exit.FAILED)
    assert "services.toml:3:" in text
    assert "sysresp did not write it" in text
    assert not shop.manager.changes()


def test_failure_tells_all(shop: World) -> None:
    shop.manager.fail["shop-db.service"] = "failed"
    shop.journal.lines["shop-db.service"] = ["cannot open \033[31mthe books"]
    text = shop.run("apply", status=Exit.FAILED)
    assert "shop-db.service: " in text
    assert "services.toml:" in text
    assert "cannot open \\x1b[31mthe books" in text
    assert "next: journalctl -u shop-db.service -e" in text
    assert "sysresp restart db" in text
    assert "failed" in text.splitlines()[-1] or "failed" in text


def test_failure_as_json(shop: World) -> None:
    shop.manager.crash["shop-db.service"] = "exit-code"
    found = json.loads(shop.run("apply", "--json", status=Exit.FAILED))
    failed = found["failures"][0]
    assert (found["ok"], failed["unit"], failed["line"]) == (False, "shop-db.service", 4)
    assert failed["source"].startswith("command =")
    assert "sysresp restart db" in failed["next"]


def test_interrupted_apply_says_where_things_stand(shop: World) -> None:
    shop.manager.raises["wait"] = KeyboardInterrupt()
    text = shop.run("apply", status=Exit.INTERRUPTED)
    assert "interrupted:" in text
    assert "to go on: sysresp apply" in text
    assert "shop: " not in text


def test_interrupted_before_anything(shop: World) -> None:
    shop.manager.raises["version"] = KeyboardInterrupt()
    assert "interrupted" in shop.run("apply", status=Exit.INTERRUPTED)


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (PermissionError(13, "Permission denied", "/etc/systemd"), Exit.DENIED, "run it as root"),
        (OSError(28, "No space left on device", "/etc/systemd"), Exit.FAILED, "free some space"),
        (ZeroDivisionError("division by zero"), Exit.FAILED, "bug in sysresp"),
        (BrokenPipeError(32, "Broken pipe"), 141, ""),
    ],
)
def test_any_error_is_a_message(shop: World, error: BaseException, status: int, words: str) -> None:
    shop.manager.raises["version"] = error
    assert words in shop.run("plan", status=status)


def test_status_of_a_project(shop: World) -> None:
    shop.run("apply")
    text = shop.run("status")
    assert [line.split()[0] for line in text.splitlines()] == ["SERVICE", "db", "web", "report"]
    assert "running 2/2" in text
    assert "web@2" in shop.run("status", "--all", "web")
    found = json.loads(shop.run("status", "--json"))
    assert [(o["unit"], o["state"], o["version"]) for o in found] == [
        ("shop-db.service", "running", 1),
        ("shop-web@1.service", "running", 1),
        ("shop-web@2.service", "running", 1),
        ("shop-report.service", "waiting", 1),
    ]


def test_status_exit_statuses(shop: World) -> None:
    assert "no services here" in shop.run("status")
    shop.run("apply")
    assert "did you mean web" in shop.run("status", "wbe", status=Exit.UNKNOWN)
    shop.manager.set_state("shop-web@2.service", "failed", "failed", "exit-code")
    text = shop.run("status", status=Exit.NOT_WELL)
    assert "running 1/2: web@2 failed: exit status 1" in text


def test_status_of_a_project_that_is_not_there(shop: World) -> None:
    shop.run("apply")
    text = shop.run("status", "--project", "gone", status=Exit.UNKNOWN)
    assert 'the project "gone" is not applied here' in text


def test_actions_on_services(shop: World) -> None:
    shop.run("apply")
    assert "web: 2 stopped" in shop.run("stop", "web")
    assert "stopped 2/2" in shop.run("status", "web", status=Exit.NOT_WELL)
    assert "web@2: 1 started" in shop.run("start", "web@2")
    assert "db: 1 restarted" in shop.run("restart", "db")
    assert "did you mean db" in shop.run("restart", "dbb", status=Exit.UNKNOWN)
    shop.manager.refuse["shop-db.service"] = "UnitMasked"
    assert "masked" in shop.run("start", "db", status=Exit.FAILED)


def test_actions_where_nothing_is_applied(world: World) -> None:
    assert "apply a file first" in world.run("start", "web", status=Exit.UNKNOWN)
    assert "apply a file first" in world.run("logs", "web", status=Exit.UNKNOWN)
    world.run("down")
    world.run("down", "--project", "shop", status=Exit.UNKNOWN)


def test_down_takes_it_all_away(shop: World) -> None:
    shop.run("apply")
    assert "removed" in shop.run("down", "report")
    assert "report" not in shop.run("status")
    shop.run("down", "nothing-like-this", status=Exit.UNKNOWN)
    assert "removed" in shop.run("down")
    assert not [name for name in shop.host.files.listdir("/etc/systemd/system") if name.startswith("shop")]


def test_several_projects_must_be_told_apart(shop: World) -> None:
    shop.run("apply")
    shop.run("apply", "--project", "mall")
    assert "PROJECT" in shop.run("status").splitlines()[0]
    assert "several projects" in shop.run("down", status=Exit.USAGE)
    assert "several projects" in shop.run("stop", "db", status=Exit.USAGE)
    assert "db: 1 stopped" in shop.run("stop", "db", "--project", "mall")
    shop.run("down", "--project", "mall")
    assert "PROJECT" not in shop.run("status").splitlines()[0]


def test_modes_exclude_each_other(shop: World) -> None:
    assert "exclude each other" in shop.run("plan", "--runtime", "--transient", status=Exit.USAGE)


def test_a_project_in_another_mode_is_one_problem(shop: World) -> None:
    shop.run("apply", "--runtime")
    text = shop.run("apply", status=Exit.FAILED)
    assert "already applied in runtime mode" in text
    assert text.count("fix:") == 1
    assert "removed" in shop.run("down", "--runtime")


def test_no_rights_to_write(shop: World) -> None:
    shop.manager.files.fail_on("/etc/systemd/system")
    assert "ermission denied" in shop.run("apply", status=Exit.DENIED)


def test_names_are_completed(shop: World) -> None:
    assert options.known_names("") == []
    shop.run("apply")
    assert options.known_names("w") == ["web", "web@1", "web@2"]
    env = {
        "_SYSRESP_COMPLETE": "complete_bash",
        "COMP_WORDS": "sysresp status re",
        "COMP_CWORD": "2",
    }
    result = shop.runner.invoke(main.app, [], env=env, prog_name="sysresp")
    assert result.output.split() == ["report"]


def test_version(world: World) -> None:
    assert world.run("--version") == world.run("version")


COMMANDS = [
    *("check", "config", "plan", "apply", "down", "status", "start", "stop", "restart", "reload"),
    *("schema", "version", "render", "logs"),
]
OPTIONS = [
    *("--json", "--strict", "--user", "--runtime", "--transient", "--project", "--all", "-a", "-f", "-n"),
    *("--detailed-exitcode", "--no-color", "--systemd-version", "252", "--help", "-h", "--", "-", "-1"),
    *("services.toml", "prod.toml", "web", "web@1", "shop-db.service", "", "/", "..", "shop"),
]
anything = st.text(st.characters(exclude_categories=[]), max_size=12).filter(
    lambda t: not t.startswith("-o")
)


@given(st.lists(st.sampled_from(COMMANDS + OPTIONS) | anything, max_size=6), st.binary(max_size=60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
def test_no_arguments_end_in_a_traceback(world: World, words: list[str], content: bytes) -> None:
    Path("services.toml").write_text(SHOP)
    Path("prod.toml").write_bytes(content)
    world.run(*words, status=None)


@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda t: t.encode(errors="replace")))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_file_ends_in_a_traceback(world: World, content: bytes) -> None:
    Path("services.toml").write_bytes(content)
    text = world.run("check", "--systemd-version", "252", status=None)
    assert text.startswith("ok") or "services.toml" in text
