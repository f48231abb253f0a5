"""Tracebacks of real programs that run as services: recognised, and with one fingerprint for one fault.

Each program exists as `a` and `b`: the same fault in another directory, another process, on other lines.
Both Pythons are run each time, and Node where it is installed; with SYSRESP_FULL=1 Java, Go and Rust as
well, whose compilers have to be there then. What was built on this host runs on Debian 13, too, with this
host's runtimes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sysresp.sandbox.boot import Bind
from tests.live.conftest import Box, fresh_box
from tests.live.installed import write_file
from tests.live.storms import enable
from tests.live.until import until

FULL = bool(os.environ.get("SYSRESP_FULL"))
TRACES = Path(__file__).parent.parent / "traces"
PLACE = "/srv/traces"

pytestmark = pytest.mark.live


class Language(NamedTuple):
    """How its programs are built, and run where they were built."""

    name: str
    tool: str  # that has to be installed
    build: tuple[str, ...] = ()
    run: tuple[str, ...] = ()
    always_on: tuple[str, ...] = ()


LANGUAGES = {
    "app.py": Language("python", "", run=("/usr/bin/python3", "app.py"), always_on=("host", "trixie")),
    "app.js": Language("node", "node", run=("node", "app.js"), always_on=("host",)),
    "App.java": Language("java", "javac", ("javac", "App.java"), ("java", "-cp", ".", "App")),
    "main.go": Language("go", "go", ("go", "build", "-o", "main", "main.go"), ("main",)),
    "main.rs": Language("rust", "rustc", ("rustc", "-O", "-C", "debuginfo=1", "main.rs"), ("main",)),
}
KINDS = {
    "app.py": "Trouble",
    "thread/app.py": "KeyError",
    "group/app.py": "ExceptionGroup",
    "app.js": "Error",
    "promise/app.js": "TypeError",
    "code/app.js": "Error",
    "App.java": "java.lang.NumberFormatException",
    "future/App.java": "java.lang.NullPointerException",
    "main.go": "panic",
    "nil/main.go": "panic",
    "lock/main.go": "fatal error",
    "main.rs": "panic",
    "unwrap/main.rs": "panic",
    "join/main.rs": "panic",
}


class Program(NamedTuple):
    """One program in one version."""

    key: str  # of KINDS
    version: str
    text: str

    @property
    def service(self) -> str:
        return re.sub(r"\W+", "-", f"{self.key}-{self.version}").lower()

    @property
    def language(self) -> Language:
        return LANGUAGES[self.key.rpartition("/")[2]]


def programs() -> Iterator[Program]:
    for file in ("programs.txt", "more.txt"):
        for part in (TRACES / file).read_text().split("\n==== ")[1:]:
            name, _, text = part.partition("\n")
            version, _, base = name.partition("/")
            if file == "programs.txt":
                yield Program(base, version, text)
            else:
                yield Program(name, "a", text)
                yield Program(name, "b", "\n" * 7 + text)


def wanted(which: str) -> list[Program]:
    """Return the programs that are to be run; a compiler that is missing fails the test that asks for it."""
    found = [one for one in programs() if FULL or which in one.language.always_on]
    if FULL:
        lacks = {
            one.language.tool for one in found if one.language.tool and not shutil.which(one.language.tool)
        }
        assert not lacks, f"SYSRESP_FULL=1 needs {lacks}"
    return [one for one in found if not one.language.tool or shutil.which(one.language.tool)]


def build(one: Program, place: Path) -> list[str]:
    """Write and compile it, and return the command that runs it in the box."""
    place.mkdir(parents=True)
    name = one.key.rpartition("/")[2]
    (place / name).write_text(one.text)
    environment = {**os.environ, "GOFLAGS": "-mod=mod", "GO111MODULE": "off", "GOTELEMETRY": "off"}
    if one.language.build:
        subprocess.run(one.language.build, cwd=place, check=True, capture_output=True, env=environment)
    program, *words = one.language.run
    if not program.startswith("/"):
        found = shutil.which(program)
        program = str(Path(found).resolve()) if found else f"{PLACE}/{one.service}/{program}"
    return [program, *words]


def runtimes() -> list[Bind]:
    """Return what of this host a copy of Debian 13 needs to run Node and Java."""
    node, java = shutil.which("node"), shutil.which("java")
    places = [Path(node).resolve()] if node else []
    if java and FULL:
        places += [Path(java).resolve().parents[1], *Path("/etc").glob("java-*")]
    return [Bind(str(place), str(place)) for place in places]


@pytest.mark.parametrize("which", ["host", pytest.param("trixie", marks=pytest.mark.trixie)])
def test_the_tracebacks_of_real_programs(which: str, tmp_path: Path) -> None:
    chosen = wanted(which)
    text = "[defaults]\nrestart = { when = 'no' }\nenvironment = { RUST_BACKTRACE = '1' }\n"
    for one in chosen:
        words = build(one, tmp_path / one.service)
        text += f"[services.{one.service}]\ncommand = {json.dumps(words)}\n"
        text += f"directory = '{PLACE}/{one.service}'\n"
    with fresh_box(which, *(runtimes() if which == "trixie" else ())) as box:
        shutil.copytree(tmp_path, box.path(PLACE))
        enable(box)
        box.sysresp("apply", "--no-rollback", write_file(box, text))
        found = traces(box, {one.service for one in chosen})
        for key in {one.key: None for one in chosen}:
            name = Program(key, "a", "").service
            first, other = found[name], found[f"{name[:-1]}b"]
            print(f"systemd {box.version}: {key}: {first}")
            assert (first["language"], first["kind"]) == (Program(key, "", "").language.name, KINDS[key])
            assert first["fingerprint"] == other["fingerprint"], (first, other)
            assert (first["times"], first["other_incidents"]) == (2, [other["incident"]])
    prints = {one["fingerprint"] for one in found.values()}
    assert len(prints) == len(found) / 2


def traces(box: Box, services: set[str]) -> dict[str, dict[str, Any]]:
    """Return the traceback that `incidents show` tells of each service's incident."""

    def numbers() -> dict[str, str]:
        told = json.loads(box.sysresp("incidents", "--json", "-n", "0", check=True).stdout)["incidents"]
        return {one["service"]: str(one["incident"]) for one in told}

    until(lambda: numbers().keys() >= services, "an incident of each")
    found = {}
    for service, number in numbers().items():
        told = json.loads(box.sysresp("incidents", "show", number, "--json", check=True).stdout)
        assert len(told["fingerprints"]) == 1, told["logs"]
        found[service] = {**told["fingerprints"][0], "incident": int(number)}
    return found
