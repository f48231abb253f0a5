"""What the daemon reads of the host, and what it says: damage and absence are no errors of its own."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from sysresp.cli import daemon
from sysresp.controller.events import Roster
from sysresp.reconcile import layout
from sysresp.reconcile.manifest import Manifest, ManifestUnit, dumps, path

OWN = "sysresp.service"


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(layout, "state_dirs", lambda _scope, _env: (str(tmp_path),))
    return tmp_path


def apply(state: Path, project: str) -> Path:
    """Write a manifest of one service, and return where it is."""
    name = f"{project}-web.service"
    unit = ManifestUnit(name, name, "web", "", True, True, True, f"{project}.toml", 1, "")
    file = Path(path(str(state), project))
    file.write_bytes(dumps(Manifest(project, units=(unit,))))
    return file


def members(roster: Roster) -> set[str]:
    return {name for name in roster.members if name != OWN}


DAMAGE = {
    "cut": b"{",
    "newer": b'{"format": 99}',
    "senseless": json.dumps(
        {"format": 1, "project": "shop", "units": [], "controller": {"keep_sec": "long"}}
    ).encode(),
}


@pytest.mark.parametrize("content", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_manifest_is_as_it_was_and_the_others_are_read(state: Path, content: bytes) -> None:
    said: list[str] = []
    shop = apply(state, "shop")
    load = daemon.rosters("system", lambda _level, text: said.append(text), OWN)
    assert members(load()) == {"shop-web.service"}
    shop.write_bytes(content)
    apply(state, "other")
    found = load()
    assert (members(found), found.is_whole) == ({"shop-web.service", "other-web.service"}, True)
    assert len(said) == 1
    again = daemon.rosters("system", lambda _level, _text: None, OWN)()
    assert (members(again), again.is_whole) == ({"other-web.service"}, False)
    shop.unlink()
    assert members(load()) == {"other-web.service"}


def test_a_journal_that_has_gone_is_not_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    with os.fdopen(write, "w") as stderr:
        monkeypatch.setattr("sys.stderr", stderr)
        daemon.log(5, "caf\udce9")
        assert os.read(read, 100) == b"<5>caf\\udce9\n"
        os.close(read)
        daemon.log(5, "to nobody")


def test_code_that_goes_while_it_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "a.py").symlink_to("nowhere")
    assert daemon.fingerprint(str(tmp_path))
