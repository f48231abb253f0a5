"""Manifests: what is written is read, damage is named, and the names of people find their units."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysresp.errors import Exit, SysrespError
from sysresp.model import Mode, Scope
from sysresp.reconcile.manifest import (
    FORMAT,
    Manifest,
    ManifestUnit,
    all_manifests,
    dumps,
    load,
    loads,
    path,
    patterns,
)
from sysresp.reconcile.names import select
from sysresp.reconcile.plan import manifest_of
from tests.fakes import FakeFiles
from tests.plan_scenes import Entry, desired_of, projects

SHOP = manifest_of(
    desired_of({"web": Entry(instances=2), "db": Entry()}), Scope.SYSTEM, Mode.PERSISTENT, ["services.toml"]
)


@given(projects(), st.booleans(), st.lists(st.text()))
def test_round_trip(entries: dict[str, Entry], unfinished: bool, pending: list[str]) -> None:
    manifest = manifest_of(desired_of(entries), Scope.USER, Mode.RUNTIME, ["a.toml", "b.toml"])
    manifest = manifest._replace(unfinished=unfinished, pending=tuple(pending))
    assert loads(dumps(manifest), "x") == manifest


def test_unknown_fields_are_left_aside() -> None:
    raw = json.loads(dumps(SHOP))
    raw["later"] = {"x": 1}
    raw["units"][0]["later"] = 1
    del raw["reloads"]
    assert loads(json.dumps(raw).encode(), "x") == SHOP


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "damaged"),
        (b"[]", "damaged"),
        (b"{}", "damaged"),
        (b"\xff", "damaged"),
        (b'{"format": 1, "project": 3, "units": []}', "is no str"),
        (b'{"format": 1, "project": "a", "units": [{"name": "b"}]}', "damaged"),
        (b'{"format": 1, "project": "a", "files": [1], "units": []}', "is no str"),
        (b'{"format": 1, "units": []}', "damaged"),
        (json.dumps({"format": FORMAT + 1}).encode(), "newer sysresp"),
    ],
)
def test_damage_is_named(content: bytes, why: str) -> None:
    with pytest.raises(SysrespError, match=why) as caught:
        loads(content, "/var/lib/sysresp/shop.json")
    assert caught.value.message.startswith("/var/lib/sysresp/shop.json: cannot use this manifest")
    assert "move it away" in caught.value.hint


def test_all_manifests() -> None:
    other = Manifest("eu")
    content = {path("/s", m.project): dumps(m) for m in (SHOP, other)}
    files = FakeFiles({**content, "/s/ready.py": b""})
    assert all_manifests(files, "/s") == [other, SHOP]
    assert load(files, "/s/none.json") is None
    assert all_manifests(files, "/none") == []


def test_patterns() -> None:
    names = ["shop-web.service", "api.service", "w@1.service", "w@2.service", r"a\x2db.service"]
    assert patterns("shop", names) == [
        "shop-*",
        "shop.*",
        "a?x2db.service",
        "api.service",
        "w@*.service",
    ]


def test_it_is_cheap_to_import() -> None:
    code = "import sys, sysresp.reconcile.manifest, sysresp.reconcile.names; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    heavy = {"dataclasses", "enum", "inspect", "hashlib", "difflib", "tomllib", "jinja2", "typer", "pystemd"}
    # enum comes with re, which json needs
    assert (heavy - {"enum"}).isdisjoint(loaded.split())
    assert "sysresp.model" not in loaded.split()


class TestNames:
    def names(self, *wanted: str) -> list[str]:
        return [unit.name for _, units in select([SHOP], wanted) for unit in units]

    def test_none_means_all(self) -> None:
        assert select([SHOP], []) == [(SHOP, SHOP.units)]

    def test_service_instance_and_unit(self) -> None:
        assert self.names("web") == ["shop-web@1.service", "shop-web@2.service"]
        assert self.names("web@2") == ["shop-web@2.service"]
        assert self.names("shop-db.service", "web@1") == ["shop-web@1.service", "shop-db.service"]
        assert self.names("shop.target") == ["shop.target"]

    def test_other_projects_are_left_out(self) -> None:
        assert [m.project for m, _ in select([Manifest("eu"), SHOP], ["db"])] == ["shop"]

    @pytest.mark.parametrize(
        ("wanted", "hint"),
        [("wob", "did you mean web?"), ("zzzz", "known: db, web"), ("web@7", "did you mean web?")],
    )
    def test_unknown(self, wanted: str, hint: str) -> None:
        with pytest.raises(SysrespError, match=wanted) as caught:
            self.names("web", wanted)
        assert caught.value.exit is Exit.UNKNOWN
        assert caught.value.hint == hint

    def test_nothing_is_applied(self) -> None:
        with pytest.raises(SysrespError) as caught:
            select([], ["web"])
        assert caught.value.hint == "nothing is applied here"

    def test_the_slice_has_no_service(self) -> None:
        unit = ManifestUnit("a.slice", "a.slice", "", "", False, True, False, "", 0, "")
        with pytest.raises(SysrespError):
            select([Manifest("a", units=(unit,))], [""])
