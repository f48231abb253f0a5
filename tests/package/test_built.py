"""What comes out of packaging/build: the same bytes wherever it is built, past the gates."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from tests.package.conftest import VERSION, build, copy_source, timed

_KINDS = (".deb", ".dsc", ".tar.xz", ".rpm", ".json")


def digests(directory: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.iterdir())
        if path.name.endswith(_KINDS)
    }


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build everything, with lintian and rpmlint as gates, and piuparts."""
    out = tmp_path_factory.mktemp("first")
    with timed("build, lintian, rpmlint, piuparts"):
        build("all", out, "--piuparts")
    return out


def test_the_same_bytes_anywhere(first: Path, tmp_path: Path) -> None:
    """Other paths, time zone, language, umask and time stamps: a copy of the sources, built elsewhere."""
    old = os.umask(0o077)
    try:
        source = copy_source(tmp_path / "elsewhere" / "with a blank")
        env = {"TZ": "Pacific/Kiritimati", "LC_ALL": "C", "LANGUAGE": "de"}
        options = ("--no-gates", "--source", str(source), "--at", "/somewhere/else")
        with timed("build, elsewhere"):
            build("all", tmp_path / "second", *options, env=env)
    finally:
        os.umask(old)
    found = digests(first)
    assert len(found) == 7, "two packages, their two sources (one of two files), two lists of components"
    assert digests(tmp_path / "second") == found


def test_components(first: Path) -> None:
    from cyclonedx.schema import SchemaVersion  # noqa: PLC0415 - the rest runs without it
    from cyclonedx.validation.json import JsonStrictValidator  # noqa: PLC0415

    validator = JsonStrictValidator(SchemaVersion.V1_5)
    for package in (f"sysresp_{VERSION}_all.deb", f"sysresp-{VERSION}-1.noarch.rpm"):
        text = (first / f"{package}.cdx.json").read_text()
        assert validator.validate_str(text) is None
        told = json.loads(text)
        digest = hashlib.sha256((first / package).read_bytes()).hexdigest()
        assert told["metadata"]["component"]["hashes"] == [{"alg": "SHA-256", "content": digest}]
        names = {component["name"] for component in told["components"]}
        assert {"python3-jinja2", "python3-pystemd", "python3-tomli-w", "python3-typer"} <= names


def test_the_source_builds_on_debian_12_too(tmp_path: Path) -> None:
    """With the tests that a package build runs, by Debian 12's own tools."""
    with timed("build on Debian 12, with its tests"):
        build("deb", tmp_path, "--no-gates", "--suite", "bookworm", env={"DEB_BUILD_OPTIONS": ""})
    assert (tmp_path / f"sysresp_{VERSION}_all.deb").exists()
