"""Incidents in the loop: stored with the rows, once, whatever happens to the controller and its ledger."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sysresp.controller import tables
from sysresp.controller.events import Member, Roster
from sysresp.controller.incident_rows import Verdict
from sysresp.controller.ledger import Ledger
from sysresp.controller.reader import Reader
from sysresp.controller.telling import Message
from sysresp.units.alerting import Receiver
from sysresp.units.supervision import Supervision
from tests.test_loop import DIRECTORY, FOREVER, TEXT, WEB, Scene, limit

OPS = "shop/ops"


class Told(Scene):
    """A controller with a receiver of alerts; what it would deliver is in `posted`."""

    def __init__(self, path: Path) -> None:
        self.posted: list[Message] = []
        self.set_by: list[float] = []
        super().__init__(path)

    def begin(self) -> None:
        super().begin()
        self.loop.post = self

    def add(self, messages: Sequence[Message]) -> None:
        """As the post does."""
        self.posted += messages

    def clock_was_set(self, by: float) -> None:
        self.set_by.append(by)

    def install(self, unit: str, supervision: Supervision, start_limit: str) -> None:
        text = TEXT.format(delay="1s", limit=start_limit)
        self.systemd.files.write(f"{DIRECTORY}/{unit}", text.encode())
        member = Member(unit, "shop", unit, supervision=supervision._replace(alerts=("ops",)))
        self.roster = Roster({**self.roster.members, unit: member}, alerts={OPS: Receiver()})
        self.loop.roster_changed()
        self.systemd.start(unit)
        self.live(0.1)

    def kill(self) -> None:
        """Kill the controller, and begin another."""
        self.ledger.close()
        self.signals.close()
        self.begin()

    def wait(self, seconds: float) -> None:
        """Let time pass, and wake the controller when it wants that."""
        end = self.systemd.clock.monotonic() + seconds
        while (now := self.systemd.clock.monotonic()) < end:
            due = self.loop.wake_at()
            self.live(min(end, due or end) - now + 1e-3)
            if due and due <= self.systemd.clock.monotonic():
                self.loop.woken()

    def rows(self, sql: str) -> list[Any]:
        db = sqlite3.connect(self.path)
        try:
            return db.execute(sql).fetchall()
        finally:
            db.close()

    def told(self) -> list[tuple[str, int]]:
        return self.rows("SELECT kind, incident FROM message ORDER BY id")


def story(scene: Told, between: Any) -> None:
    """A service fails for good, and somebody starts it again."""
    scene.install(WEB, Supervision(attempts=2, within_sec=3600), limit(2))
    for number in range(2):
        scene.systemd.end_process(WEB)
        between(number)
        scene.wait(2.5)
    between(2)
    scene.wait(10)
    between(3)
    scene.systemd.reset_failed(WEB)
    scene.systemd.start(WEB)
    between(4)
    scene.wait(3)
    between(5)
    scene.wait(30)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.sets(st.integers(0, 5)), st.sets(st.integers(0, 4)))
def test_a_controller_that_is_killed_tells_once(
    tmp_path_factory: pytest.TempPathFactory, kills: set[int], broken: set[int]
) -> None:
    """It is killed at some places, and at others the ledger cannot be written for a while."""
    scene = Told(tmp_path_factory.mktemp("told"))

    def between(number: int) -> None:
        scene.ledger.why = "no room" if number in broken else ""
        if number in kills and not scene.ledger.why and not scene.loop.owed.trouble:
            scene.kill()

    story(scene, between)
    scene.loop.flush()
    assert scene.told() == [("opened", 1), ("resolved", 1)]
    assert [(one.kind, one.incident) for one in scene.posted] == scene.told()
    assert scene.rows("SELECT id, root, resolved > 0 FROM incident") == [(1, WEB, 1)]
    assert scene.loop.wake_at() == 0  # nothing wakes it when all is well
    scene.ledger.close()


def test_what_is_queued_is_there_after_a_restart(tmp_path: Path) -> None:
    scene = Told(tmp_path)
    story(scene, lambda _number: None)
    opened, resolved = scene.posted
    scene.loop.verdict(Verdict("delivered", 1, 5.0, "", OPS, opened.key))
    scene.loop.verdict(Verdict("queued", 3, 6.0, "refused", OPS, resolved.key))
    scene.kill()
    alarm = scene.ledger.alarm
    assert alarm is not None
    assert [(one.message, one.tries, one.why) for one in alarm.queued] == [(resolved, 3, "refused")]
    assert alarm.known.next_id == 2
    with Reader(scene.path) as reader:
        assert [one.state for one in reader.messages("ORDER BY id")] == ["delivered", "queued"]
    scene.ledger.close()


def test_flapping_is_seen_across_restarts(tmp_path: Path) -> None:
    scene = Told(tmp_path)
    scene.install(WEB, Supervision(), FOREVER)
    for _ in range(5):
        scene.systemd.end_process(WEB)
        scene.wait(1.5)
        scene.kill()
    scene.wait(3)
    assert scene.told() == [("opened", 1)]
    assert json.loads(scene.posted[0].body)["reasons"] == ["flapping"]
    scene.wait(130)
    assert [kind for kind, _ in scene.told()] == ["opened", "resolved"]
    scene.ledger.close()


def test_a_ledger_that_is_gone_gets_the_open_incidents_again(tmp_path: Path) -> None:
    scene = Told(tmp_path)
    scene.install(WEB, Supervision(attempts=1, within_sec=3600), limit(1))
    scene.systemd.end_process(WEB)
    scene.wait(5)
    for file in tmp_path.iterdir():
        file.unlink()
    scene.loop.owed.meta["x"] = "y"
    assert not scene.loop.flush()
    assert scene.loop.flush()
    assert scene.rows("SELECT id, root FROM incident") == [(1, WEB)]
    scene.ledger.close()


def test_a_ledger_without_incidents_is_brought_on(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    db = sqlite3.connect(path)
    db.executescript(
        f"{tables.STEPS[0]}; PRAGMA user_version = 1; PRAGMA application_id = {tables.APPLICATION}"
    )
    db.execute(tables.PUT_META, (":cursor", "s=1"))
    db.commit()
    db.close()
    with Reader(str(path)) as reader:
        assert reader.incidents() == reader.messages() == []
    ledger = Ledger(str(path))
    assert ledger.open().cursor == "s=1"
    assert ledger.alarm is None
    ledger.close()


def test_a_damaged_incident_is_left_aside(tmp_path: Path) -> None:
    scene = Told(tmp_path)
    scene.install(WEB, Supervision(attempts=1, within_sec=3600), limit(1))
    scene.systemd.end_process(WEB)
    scene.wait(5)
    scene.ledger.close()
    db = sqlite3.connect(scene.path)
    db.execute("UPDATE incident SET fields = '{\"parts\": 5}'")
    db.commit()
    db.close()
    scene.begin()
    assert scene.ledger.alarm is not None
    assert scene.ledger.alarm.known.incidents == {}
    assert scene.ledger.alarm.known.next_id == 2
    scene.ledger.close()
