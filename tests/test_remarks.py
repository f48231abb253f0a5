"""What the controller leaves in the ledger of itself and of its probes, and when it does not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sysresp.controller import remarks
from sysresp.controller.events import Note
from sysresp.controller.probes import ProbeState
from sysresp.controller.reader import Reader
from tests.test_serve import WEB, Scene, scene

__all__ = ["scene"]  # the fixture
PROBED = ProbeState("1" * 32, is_ok=True, at=1.0, latency_sec=0.25, tries=3, failed=1)


def meta(scene: Scene, name: str) -> str:
    with Reader(scene.path) as reader:
        return reader.meta(name)


def test_an_idle_controller_writes_nothing(scene: Scene) -> None:
    scene.begin()
    with Reader(scene.path) as reader:
        reader.has_changed()
        scene.live(600)
        assert not reader.has_changed()


def test_what_it_is_like_goes_with_the_next_transaction(scene: Scene) -> None:
    daemon = scene.begin()
    scene.live(60)
    assert remarks.to_vitals(meta(scene, remarks.VITALS)) == remarks.Vitals()
    daemon.loop.owed.notes.append(Note("x"))
    assert daemon.loop.flush()
    found = remarks.to_vitals(meta(scene, remarks.VITALS))
    assert 1 << 20 < found.rss < 1 << 32
    assert scene.systemd.clock.now() - found.when <= 20


def test_probes_are_told_of_once_a_minute_while_there_are_some(scene: Scene) -> None:
    scene.probes.known = {WEB: PROBED, "b.service": ProbeState()}
    daemon = scene.begin()
    first = remarks.to_probes(meta(scene, remarks.PROBES))
    assert first[WEB][:2] + first[WEB][3:] == (True, 0.25, 3, 1)
    assert list(first) == [WEB]
    with Reader(scene.path) as reader:
        reader.has_changed()
        scene.live(30)
        assert not reader.has_changed()
        scene.live(60)
        assert reader.has_changed()
        scene.probes.known = {}
        scene.live(300)
        reader.has_changed()
        scene.live(300)
        assert not reader.has_changed()
    assert daemon.failure is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "[1]",
        '["a", 1, 2]',
        "[1, -1, 2]",
        "[1, 1e400, 2]",
        "[" * 10_000,
        "[1, true, 2]",
        "[1, 2, 0.5]",
    ],
)
def test_vitals_are_judged_value_by_value(text: str) -> None:
    assert remarks.to_vitals(text) == remarks.Vitals()


def test_probes_are_judged_value_by_value() -> None:
    good: Any = {"a": [True, 0.5, 7.0, 3, 1]}
    for bad in ([], [1, 0.5, 7, 3, 1], [True, -1, 7, 3, 1], [True, "x", 7, 3, 1], None, 5):
        assert list(remarks.to_probes(json.dumps({**good, "b": bad}))) == ["a"]
    for text in ("", "[]", "5", "{" * 10_000):
        assert remarks.to_probes(text) == {}
