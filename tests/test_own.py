"""The controller's own units as text, and the record that it could not run."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sysresp.cli import build, own_units
from sysresp.controller import own
from sysresp.controller.fallback import NAME, Fallback, read_fallback, take_fallback
from sysresp.errors import Severity
from sysresp.model import Scope
from sysresp.reconcile.manifest import Manifest, ManifestUnit, dumps
from sysresp.spec.parse import parse
from sysresp.units.desired import Desired
from sysresp.units.render import render
from sysresp.units.text import parse as entries

TOP = Path(__file__).resolve().parent.parent
SYSTEMD = TOP / "packaging/systemd"
needs_packaging = pytest.mark.skipif(not SYSTEMD.is_dir(), reason="a package build has no packaging/")
ROOT = own.Way(("/opt/a b/$x%/python", "-m", "sysresp"), ("/usr/bin/python3", "/x/fallback.py"))
OWN_USER = ROOT._replace(account=own.ACCOUNT, environment={"PYTHONPATH": "/srv/a b"})


def rendered(way: own.Way, scope: Scope = Scope.SYSTEM, version: int = 252) -> Desired:
    spec, problems = parse(own.layers(way, scope), scope=scope)
    assert spec is not None, problems
    done = render(spec, version=version, scope=scope)
    assert not [p for p in done.problems if p.severity is Severity.ERROR]
    return done.desired


def lines(desired: Desired, unit: str) -> set[tuple[str, str]]:
    return {(name, value) for _, name, value in entries(desired.files[unit].text)}


@needs_packaging
@pytest.mark.parametrize("name", [own.UNIT, own.FALLBACK_UNIT])
def test_the_packages_units_are_made_of_the_same_definition(name: str) -> None:
    made = own.packaged()[name]
    assert (SYSTEMD / name).read_text() == made, (
        "write them again: python -c 'from sysresp.controller import own; from pathlib import Path; "
        '[Path("packaging/systemd", n).write_text(t) for n, t in own.packaged().items()]\''
    )
    assert "X-Sysresp" not in made
    assert ("WantedBy=multi-user.target" in made) is (name == own.UNIT)


@needs_packaging
def test_the_account_is_the_same_everywhere() -> None:
    assert (SYSTEMD / "sysresp.sysusers").read_text().startswith(own_units.SYSUSERS_TEXT)
    assert f'subject.user != "{own.ACCOUNT}"' in own_units.rule().read_text()
    assert f'unit == "{own.UNIT}"' in own_units.rule().read_text()


@needs_packaging
@pytest.mark.parametrize("way", [own.PACKAGED, ROOT], ids=["own user", "root"])
@pytest.mark.parametrize("name", [own.UNIT, own.FALLBACK_UNIT])
def test_the_exposure_is_low(way: own.Way, name: str, tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("there is no systemd-analyze here")
    file = tmp_path / name
    file.write_text(rendered(way).files[name].text)
    words = [program, "security", "--offline=yes", "--no-pager", "--threshold=15", str(file)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("version", [247, 252, 254, 257])
@pytest.mark.parametrize("scope", Scope)
def test_it_can_be_made_for_every_systemd(scope: Scope, version: int) -> None:
    for way in (ROOT, OWN_USER):
        found = lines(rendered(way, scope, version), own.UNIT)
        assert ("Type", "notify") in found
        assert ("Restart", "always") in found
        assert ("StartLimitBurst", "5") in found
        assert ("OnFailure", own.FALLBACK_UNIT) in found
        users = {value for name, value in found if name == "User"}
        assert users == ({own.ACCOUNT} if way.account and scope is Scope.SYSTEM else set())
        command = next(value for name, value in found if name == "ExecStart")
        assert command.endswith("controller run --user" if scope is Scope.USER else "controller run")


def test_the_fallback_is_started_by_nobody_else() -> None:
    desired = rendered(OWN_USER)
    unit = desired.units[own.FALLBACK_UNIT]
    assert (unit.start, unit.enabled) == (False, False)
    found = lines(desired, own.FALLBACK_UNIT)
    assert ("RemainAfterExit", "yes") not in found
    assert ("StartLimitIntervalSec", "0") in found
    assert ("User", own.ACCOUNT) in found


def test_no_file_of_a_user_may_be_the_controller_s_project(tmp_path: Path) -> None:
    file = tmp_path / "services.toml"
    file.write_text('\nproject = "sysresp"\n[services.web]\ncommand = ["/bin/sleep", "1"]\n')
    built = build.build(build.Source([str(file)], systemd_version=252))
    found = [p for p in built.problems if p.severity is Severity.ERROR]
    assert [p.key for p in found] == ["project"]
    ours = build.build(build.Source([], systemd_version=252, layers=own.layers(ROOT, Scope.USER)))
    assert ours.problems == ()


@needs_packaging
@pytest.mark.parametrize("name", ["shop-web.service", "shop-a\\x2db@1.service", "x:y_z.service"])
def test_the_polkit_rule_looks_for_what_manifests_say(name: str) -> None:
    row = ManifestUnit(name, "a.service", "web", "", True, True, True, "/x", 1, "0" * 64)
    string = r'((?:[^"\\]|\\.)*)'
    rule = own_units.rule().read_text()
    parts = re.search(rf'"--regexp={string}" \+ JSON\.stringify\(unit\) \+ "{string}"', rule)
    assert parts is not None
    before, after = (json.loads(f'"{part}"') for part in parts.groups())
    wanted = before + json.dumps(name) + after
    assert any(wanted in line for line in dumps(Manifest("shop", units=(row,))).decode().splitlines())


def test_the_fallback_is_for_old_pythons_too() -> None:
    tree = ast.parse(own.FALLBACK.read_text(), feature_version=(3, 9))
    names = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    names |= {str(n.module) for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names


def test_a_record_that_is_none_is_not_believed(tmp_path: Path) -> None:
    where = tmp_path / NAME
    assert read_fallback(str(tmp_path)) is None
    assert read_fallback(str(tmp_path / "nothing")) is None
    for text in (
        "",
        "{}",
        "[]",
        "null",
        '{"when": []}',
        '{"when": 1, "lines": 5}',
        "[" * 100_000,
        '{"when": 1e999}',
    ):
        where.write_text(text)
        assert read_fallback(str(tmp_path)) is None, text[:50]
    where.write_text('{"when": 1, "lines": [' + '"x",' * 100_000 + '"x"]}')
    assert read_fallback(str(tmp_path)) is None
    where.unlink()
    os.mkfifo(where)
    assert read_fallback(str(tmp_path)) is None
    where.unlink()
    (tmp_path / "real").write_text('{"when": 1}')
    where.symlink_to(tmp_path / "real")
    assert read_fallback(str(tmp_path)) is None
    where.unlink()
    where.write_text('{"when": 5, "more": true, "lines": ["a", 1]}')
    assert read_fallback(str(tmp_path)) == Fallback(5.0, unit="", lines=("a", "1"))
    assert take_fallback(str(tmp_path)) == Fallback(5.0, unit="", lines=("a", "1"))
    assert take_fallback(str(tmp_path)) is None


SHOW = "ActiveState={}\nSubState={}\nResult=exit-code\nExecMainCode=1\nExecMainStatus=7\nNRestarts=5"


def run_fallback(tmp_path: Path, *states: tuple[str, str]) -> tuple[Fallback | None, str]:
    """Run the program with a systemctl that tells one state after the other, the last one for ever."""
    bin_, state_dir = tmp_path / "bin", tmp_path / "state"
    bin_.mkdir()
    state_dir.mkdir()
    for number, state in enumerate(states):
        (tmp_path / f"{number}").write_text(SHOW.format(*state) + "\n")
    at = f"n=$(cat {tmp_path}/at 2>/dev/null || echo 0); [ $n -ge {len(states) - 1} ] || echo $((n+1)) >"
    (bin_ / "systemctl").write_text(f"#!/bin/sh\n{at}{tmp_path}/at; exec cat {tmp_path}/$n\n")
    (bin_ / "journalctl").write_text("#!/bin/sh\necho a last word\nprintf 'caf\\351\\n'\n")
    for file in bin_.iterdir():
        file.chmod(0o755)
    env = {"PATH": f"{bin_}:/usr/bin:/bin", "STATE_DIRECTORY": str(state_dir)}
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(own.FALLBACK)], env=env, capture_output=True, text=True, check=True
    )
    assert [p.name for p in state_dir.iterdir()] in ([], [NAME])
    return read_fallback(str(state_dir)), done.stdout


def test_what_is_down_for_good_is_recorded(tmp_path: Path) -> None:
    # Since 254 it is started at each failure: first it waits until systemd tries no more.
    found, said = run_fallback(
        tmp_path,
        ("failed", "failed-before-auto-restart"),
        ("activating", "auto-restart"),
        ("failed", "failed"),
    )
    assert found is not None
    assert (found.result, found.exec_code, found.exec_status, found.starts) == ("exit-code", 1, 7, 5)
    assert found.lines == ("a last word", "caf\ufffd")
    assert said.startswith("<1>")
    assert said.count("\n") == 1
    assert "exit status 7" in said


@pytest.mark.parametrize("state", [("active", "running"), ("inactive", "dead")])
def test_what_came_up_again_or_was_stopped_is_not(tmp_path: Path, state: tuple[str, str]) -> None:
    assert run_fallback(tmp_path, ("activating", "auto-restart"), state) == (None, "")


def test_the_daemon_starts_without_typer() -> None:
    program = (
        "import sys, sysresp.__main__ as main, sysresp.cli.daemon as daemon\n"
        "daemon.run = lambda scope, _heard: print(scope, *sys.modules, flush=True) or 7\n"
        "main.main()"
    )
    for words, scope in (([], "system"), (["--user"], "user")):
        argv = [sys.executable, "-c", program, "controller", "run", *words]
        done = subprocess.run(argv, cwd=TOP, capture_output=True, text=True, check=False)
        assert done.returncode == 7, done.stderr
        found = done.stdout.split()
        assert found[0] == scope
        assert {"typer", "click", "jinja2", "tomllib"}.isdisjoint(found)
