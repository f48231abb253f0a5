"""The packages' own files agree with the program, with each other and with pyproject.toml."""

from __future__ import annotations

import re
import subprocess
import tomllib
from datetime import datetime
from pathlib import Path

import pytest

import sysresp
from sysresp.cli import exporter_units
from sysresp.cli.own_units import SYSUSERS_TEXT

TOP = Path(__file__).parent.parent
PACKAGING = TOP / "packaging"
if not PACKAGING.is_dir():
    pytest.skip("a package build has no packaging/", allow_module_level=True)

CHANGELOG = (PACKAGING / "debian/changelog").read_text()
SPEC = (PACKAGING / "rpm/sysresp.spec").read_text()
CONTROL = (PACKAGING / "debian/control").read_text()
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]


def test_one_version_everywhere() -> None:
    first = re.match(r"sysresp \((.+)\) unstable; urgency=\w+\n", CHANGELOG)
    assert first
    assert first[1] == sysresp.__version__
    assert re.search(r"^Version: +(.+)$", SPEC, re.MULTILINE)[1] == sysresp.__version__  # type: ignore[index]
    entry = re.search(r"^%changelog\n\* (.+?) <.*?> - (.+?)-1$", SPEC, re.MULTILINE | re.DOTALL)
    assert entry
    assert entry[2] == sysresp.__version__


def test_changelogs_say_the_same_on_the_same_day() -> None:
    debian = re.search(r"\n\n((?:  \*.*\n|    .*\n)+)\n -- (.+?)  (.+)\n", CHANGELOG)
    rpm = re.search(r"^%changelog\n\* (\w{3} \w{3} \d\d? \d{4}) (.+?) - .*\n((?:-.*\n|  .*\n)+)", SPEC, re.M)
    assert debian
    assert rpm
    when = datetime.strptime(debian[3], "%a, %d %b %Y %H:%M:%S %z")
    assert when.strftime("%a %b %d %Y") == rpm[1]
    assert debian[2] == rpm[2]
    items = [re.sub(r"\s+", " ", item).strip() for item in re.split(r"^  \*", debian[1], flags=re.M)[1:]]
    assert items == [re.sub(r"\s+", " ", item).strip() for item in re.split(r"^-", rpm[3], flags=re.M)[1:]]


def test_requirements_are_those_of_the_wheel() -> None:
    wanted = {}
    for line in PROJECT["dependencies"]:
        name, oldest = re.match(r"([\w-]+)>=([\d.]+)", line).groups()  # type: ignore[union-attr]
        wanted[f"python3-{name}"] = oldest
    found = dict(re.findall(r"^Requires: +(python3-[\w-]+) >= ([\d.]+)$", SPEC, re.MULTILINE))
    assert found == wanted
    python = PROJECT["requires-python"].removeprefix(">=")
    assert re.search(rf"^Requires: +python3 >= {re.escape(python)}$", SPEC, re.MULTILINE)
    assert f"python3:any (>= {python})" in CONTROL
    (optional,) = PROJECT["optional-dependencies"]["metrics"]
    oldest = optional.removeprefix("prometheus-client>=")
    assert f"python3-prometheus-client (>= {oldest})" in CONTROL
    assert re.search(rf"^Suggests: +python3-prometheus_client >= {re.escape(oldest)}$", SPEC, re.MULTILINE)
    wanted["python3-prometheus-client"] = oldest
    # debhelper takes the names from the wheel; a version stands here where Debian 12 might not have it.
    for name, oldest in re.findall(r"^ (python3-[\w-]+) \(>= ([\d.]+)\),$", CONTROL, re.MULTILINE):
        assert wanted[name] == oldest


def test_both_packages_make_the_same_account() -> None:
    both = SYSUSERS_TEXT + exporter_units.SYSUSERS_TEXT
    assert (PACKAGING / "systemd/sysresp.sysusers").read_text() == both
    for name, words in re.findall(r'^u (\S+) - "(.+)"$', both, re.MULTILINE):
        assert f"|| groupadd --system {name}\n" in SPEC
        assert f"useradd --system --gid {name} " in SPEC
        assert f'--comment "{words}" {name}\n' in SPEC


def test_both_packages_have_the_same_description() -> None:
    debian = CONTROL.partition("Description: ")[2].partition("\n")[2]
    debian = "\n".join(
        line[1:].replace(".", "", 1) if line == " ." else line[1:] for line in debian.splitlines()
    )
    rpm = SPEC.partition("%description\n")[2].partition("\n\n%prep")[0]
    assert debian.strip() == rpm.strip()


def test_what_the_build_copies_is_cleaned_and_not_in_git() -> None:
    rules = (PACKAGING / "debian/rules").read_text()
    copied = set(re.findall(r"^\tcp \S+ (debian/\S+)$", rules, re.MULTILINE))
    assert copied == set((PACKAGING / "debian/clean").read_text().split())
    assert not any((PACKAGING / name).exists() for name in copied)


def test_every_shared_file_is_in_both_packages() -> None:
    rules = (PACKAGING / "debian/rules").read_text()
    for path in (
        *PACKAGING.glob("systemd/*"),
        *PACKAGING.glob("polkit/*"),
        *PACKAGING.glob("completions/*"),
        PACKAGING / "prometheus/sysresp.rules.yml",
        *PACKAGING.glob("grafana/*"),
    ):
        name = f"packaging/{path.relative_to(PACKAGING)}"
        assert name in rules
        assert name in SPEC or f"packaging/systemd/*{path.suffix}" in SPEC


@pytest.mark.parametrize("script", ["dev", "build"])
def test_scripts_say_how_they_are_used(script: str) -> None:
    done = subprocess.run([PACKAGING / script, "--nonsense"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"packaging/{script}" in done.stderr
