"""How much memory a run used is a detail of its row (MemoryPeak, systemd 256), and no row waits for it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from sysresp.errors import Exit as Status
from sysresp.errors import SysrespError
from sysresp.ports import Question
from sysresp.units.supervision import Supervision
from tests.test_loop import WEB, Scene, scene

__all__ = ["scene"]


def test_a_row_does_not_wait_for_an_answer_of_systemd(scene: Scene) -> None:
    """A detail of it is asked for (MemoryPeak), and systemd may be about to re-execute itself."""
    scene.systemd.systemd = 257
    scene.loop.connect("start")
    scene.add(WEB, Supervision())
    for asking in ("properties", "many_properties"):
        scene.systemd.raises[asking] = SysrespError("no answer", exit=Status.UNREACHABLE)
    run = scene.crash()
    scene.loop.signals_came()
    assert scene.runs() == [run]
    scene.systemd.raises.clear()


def test_systemd_that_answers_slowly_is_not_asked_for_details(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.systemd.systemd = 257
    scene.loop.connect("start")
    scene.add(WEB, Supervision())
    answer, asked = scene.systemd.many_properties, []

    def slowly(questions: Sequence[Question]) -> list[dict[str, object]]:
        if not any("MemoryPeak" in question.names for question in questions):
            return answer(questions)
        asked.append(scene.systemd.clock.monotonic())
        scene.systemd.clock.wait(1.0, lambda: False)
        return [{"MemoryPeak": 4096} for _ in questions]

    monkeypatch.setattr(scene.systemd, "many_properties", slowly)
    for _ in range(5):
        scene.crash()
        scene.live(3)
    assert [row.memory_peak for row in scene.rows()] == [4096, 0, 0, 0, 0]
    scene.live(300)
    scene.crash()
    scene.live(3)
    assert len(asked) == 2
