"""The daemon around the loop, in virtual time: how it begins, replaces itself, waits and ends."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sysresp.cli.daemon import is_being_upgraded
from sysresp.controller.events import Member, Roster
from sysresp.controller.ledger import Ledger
from sysresp.controller.loop import Loop, Ports
from sysresp.controller.probes import ProbeState
from sysresp.controller.reader import Reader
from sysresp.controller.respawn import QUIET_SEC, Vitals
from sysresp.controller.serve import REQUEST, SELF, Daemon, Own
from sysresp.errors import Exit as Status
from sysresp.errors import SysrespError
from sysresp.ports import Signal
from sysresp.units.supervision import Settings, Supervision
from tests.fake_systemd import FakeRecords, FakeSignals, FakeSystemd
from tests.virtual_loop import Pipe, VirtualLoop

WEB = "shop-web.service"
UNIT = f"/etc/systemd/system/{SELF}"


class Heard(FakeSignals):
    """Signals on a real descriptor."""

    def __init__(self, systemd: FakeSystemd) -> None:
        super().__init__(systemd)
        self.pipe = Pipe()

    def open(self) -> int:
        super().open()
        return self.pipe.read

    def drain(self) -> list[Signal]:
        self.pipe.lower_it()
        return super().drain()


class Disk:
    """`ports.Watch` that is told what has changed."""

    def __init__(self) -> None:
        self.pipe = Pipe()
        self.watched: list[str] = []
        self._paths: set[str] = set()

    def touch(self, *paths: str) -> None:
        self._paths |= set(paths)
        self.pipe.raise_it()

    def fileno(self) -> int:
        return self.pipe.read

    def add(self, path: str) -> None:
        self.watched.append(path)

    def changed(self) -> set[str]:
        self.pipe.lower_it()
        found, self._paths = self._paths, set()
        return found


class Told:
    """`ports.Notify` that keeps what it was told."""

    watchdog_sec = 0.0

    def __init__(self) -> None:
        self.words: list[str] = []
        self.extended = 0.0

    def ready(self, status: str = "") -> None:
        self.words.append("ready" if status else "ready without a word")

    def status(self, status: str) -> None: ...

    def alive(self) -> None:
        self.words.append("alive")

    def extend(self, sec: float) -> None:
        self.extended += sec

    def stopping(self, status: str = "") -> None:
        self.words.append(f"stopping{status}")


class NoProbes:
    def __init__(self) -> None:
        self.known: dict[str, ProbeState] = {}

    def watch(self, unit: str, invocation: str, probe: Any, started: float) -> None: ...

    def forget(self, unit: str) -> None: ...

    def latest(self) -> dict[str, ProbeState]:
        return self.known


class Scene:
    """A controller's process, but for the process."""

    def __init__(self, path: Path) -> None:
        self.io = VirtualLoop()
        self.systemd = FakeSystemd()
        self.signals, self.disk, self.notify = Heard(self.systemd), Disk(), Told()
        self.path = str(path / "ledger.db")
        self.roster = Roster({})
        self.said: list[str] = []
        self.code = self.unit = "old"
        self.rss = 0
        self.is_held = False
        self.is_service = True
        self.watchdog_sec = 0.0
        self.daemon: Daemon | None = None
        self.task: asyncio.Task[int] | None = None
        self.probes = NoProbes()

    def begin(self, previous: str = "") -> Daemon:
        ledger = Ledger(self.path)
        ports = Ports(
            self.systemd,
            self.signals,
            FakeRecords(self.systemd),
            ledger,
            self.systemd.clock,
            self.notify,
            lambda: self.roster,
            self.systemd.boot,
            lambda _level, text: self.said.append(text),
        )
        own = Own(
            state_dirs=("/var/lib/sysresp",),
            code_dirs=("/code",),
            unit_files=lambda: (UNIT,),
            code=lambda: self.code,
            unit=lambda: self.unit,
            rss=lambda: self.rss,
            blind_since=lambda: 0.0,
            is_service=lambda: self.is_service,
            watchdog_sec=self.watchdog_sec,
            is_held=lambda: self.is_held,
        )
        vitals = Vitals(self.systemd.clock.monotonic(), 0.0, "old", "old")
        stored = ledger.open()

        async def run() -> int:
            self.daemon = Daemon(Loop(ports, stored), self.disk, own, vitals)
            return await self.daemon.run(self.probes, previous)

        self.task = self.io.create_task(run())
        self.live(0.1)
        assert self.daemon is not None
        return self.daemon

    def live(self, seconds: float) -> None:
        """Let time pass for both, in steps."""
        left = seconds
        while left > 0 and self.task is not None and not self.task.done():
            step = min(left, 0.25)
            self.systemd.pass_time(step)
            self.signals.pipe.raise_it()
            self.io.advance(step)
            left -= step

    def restarts(self) -> int:
        return [call for call in self.systemd.changes() if call[0] == "restart"].count(("restart", SELF))

    def notes(self, kind: str) -> list[str]:
        with Reader(self.path) as reader:
            return [told.what.text for told in reader.events(kinds=[kind])[0] if hasattr(told.what, "text")]


def whole_scene(path: Path) -> Iterator[Scene]:
    made = Scene(path)
    made.systemd.files.write(UNIT, b"[Service]\nType=exec\nExecStart=/bin/controller\n")
    yield made
    if made.task is not None and not made.task.done():
        made.task.cancel()
        made.io.advance(0.1)
    made.io.close()
    made.signals.pipe.close()
    made.disk.pipe.close()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    yield from whole_scene(tmp_path)


def test_it_is_ready_after_it_has_looked(scene: Scene) -> None:
    scene.systemd.files.write(f"/etc/systemd/system/{WEB}", b"[Service]\nType=exec\nExecStart=/bin/web\n")
    scene.systemd.start(WEB)
    scene.systemd.step()
    scene.roster = Roster({WEB: Member(WEB, supervision=Supervision())})
    daemon = scene.begin()
    assert scene.notify.words == ["ready"]
    assert daemon.loop.memory.units[WEB].active == "active"


def test_it_waits_for_systemd_at_the_start(scene: Scene) -> None:
    scene.signals.refuse = SysrespError("no bus", exit=Status.UNREACHABLE)
    scene.begin()
    scene.live(20)
    assert scene.notify.words == []
    assert scene.notify.extended > 5 * 60  # with each try: the timeout of its start is for other troubles
    assert sum("cannot be reached" in line for line in scene.said) == 1
    scene.signals.refuse = None
    scene.live(6)
    assert scene.notify.words == ["ready"]


def test_code_that_changed_is_followed_once_and_when_it_is_quiet(scene: Scene) -> None:
    scene.begin()
    scene.code = "new"
    for _ in range(4):
        scene.disk.touch("/code/loop.py")
        scene.live(QUIET_SEC / 2)
    assert scene.restarts() == 0
    scene.live(QUIET_SEC)
    assert scene.restarts() == 1
    with Reader(scene.path) as reader:
        assert "code" in json.loads(reader.stored().meta[REQUEST])["why"]
    scene.disk.touch("/code/loop.py")
    scene.live(60)
    assert scene.restarts() == 1


def test_who_upgrades_the_package_restarts_it_himself(scene: Scene) -> None:
    scene.begin()
    scene.is_held, scene.code = True, "new"
    scene.disk.touch("/code/loop.py")
    scene.live(QUIET_SEC * 5)
    assert scene.restarts() == 0
    scene.is_held = False  # ... and has not, for whatever reason
    scene.live(QUIET_SEC + 1)
    assert scene.restarts() == 1


def test_an_upgrade_ends_or_is_given_up(tmp_path: Path) -> None:
    mark = tmp_path / "upgrade"
    assert not is_being_upgraded(str(mark))
    mark.touch()
    assert is_being_upgraded(str(mark))
    os.utime(mark, (1e9, 1e9))
    assert not is_being_upgraded(str(mark))


def test_the_request_is_stored_before_it_is_made(scene: Scene) -> None:
    seen: list[str] = []

    class Asked(FakeSystemd):
        def restart(self, unit: str) -> int:
            with Reader(scene.path) as reader:
                seen.append(reader.stored().meta[REQUEST])
            return super().restart(unit)

    scene.systemd.__class__ = Asked
    scene.begin()
    scene.code = "new"
    scene.disk.touch("/code/loop.py")
    scene.live(QUIET_SEC * 2)
    assert len(seen) == 1
    assert json.loads(seen[0])["why"]


def test_its_successor_confirms_it(scene: Scene) -> None:
    scene.begin(json.dumps({"why": "its code on disk has changed", "when": 1.0}))
    assert scene.notes("self-restart") == ["restarted itself: its code on disk has changed"]
    with Reader(scene.path) as reader:
        assert reader.stored().meta[REQUEST] == ""


def test_a_file_that_was_only_touched_is_no_reason(scene: Scene) -> None:
    scene.begin()
    scene.disk.touch("/code/loop.py", UNIT)
    scene.live(60)
    assert scene.restarts() == 0


def test_its_unit_is_followed_once_systemd_has_read_it(scene: Scene) -> None:
    scene.begin()
    scene.unit = ""  # changed on the disk, and no daemon-reload yet
    scene.disk.touch(UNIT)
    scene.live(30)
    assert scene.restarts() == 0
    scene.unit = "new"
    scene.live(30)
    assert scene.restarts() == 1


@pytest.mark.parametrize(
    ("settings", "rss"), [(Settings(max_age_sec=100), 0), (Settings(max_memory=1000), 2000)]
)
def test_age_and_memory(scene: Scene, settings: Settings, rss: int) -> None:
    scene.roster = Roster({}, settings)
    scene.begin()
    scene.live(90 if not rss else 1)
    assert scene.restarts() == 0
    scene.rss = rss
    scene.live(30)
    assert scene.restarts() == 1


def test_a_refusal_is_said_and_tried_again(scene: Scene) -> None:
    scene.begin()
    scene.systemd.raises["restart"] = SysrespError("not allowed", exit=Status.DENIED)
    scene.code = "new"
    scene.disk.touch("/code/loop.py")
    scene.live(QUIET_SEC * 2)
    assert any("not allowed" in line for line in scene.said)
    del scene.systemd.raises["restart"]
    scene.live(70)
    assert scene.restarts() >= 1


def test_without_systemd_around_it_only_says_so(scene: Scene) -> None:
    scene.is_service = False
    scene.begin()
    scene.code = "new"
    scene.disk.touch("/code/loop.py")
    scene.live(60)
    assert scene.restarts() == 0
    assert any("start it again yourself" in line for line in scene.said)


def test_the_watchdog_is_fed(scene: Scene) -> None:
    scene.watchdog_sec = 30.0
    scene.begin()
    scene.live(60)
    assert 6 <= scene.notify.words.count("alive") <= 8


def test_a_new_manifest_is_read(scene: Scene) -> None:
    daemon = scene.begin()
    scene.roster = Roster({WEB: Member(WEB, supervision=Supervision())})
    scene.disk.touch("/var/lib/sysresp/shop.json")
    scene.live(1)
    assert WEB in daemon.loop.memory.roster.members


def test_a_bug_ends_it(scene: Scene) -> None:
    daemon = scene.begin()
    scene.systemd.raises["units"] = RuntimeError("a bug")
    scene.roster = Roster({WEB: Member(WEB, supervision=Supervision())})
    scene.disk.touch("/var/lib/sysresp/shop.json")
    scene.live(5)
    assert scene.task is not None
    assert scene.task.done()
    assert scene.task.result() == 1
    assert str(daemon.failure) == "a bug"


def test_a_lost_connection_is_made_again(scene: Scene) -> None:
    daemon = scene.begin()
    scene.signals.break_off()
    scene.live(3)
    assert daemon.loop.is_connected
    assert scene.signals.opened == 2


def test_however_much_fails_it_connects_once(scene: Scene) -> None:
    """The second would get the number of the first, which epoll has let go and asyncio has not."""
    scene.begin()
    opened = scene.signals.opened
    scene.signals.break_off()
    scene.live(0.05)
    for name in ("units", "units_by_name", "many_properties"):
        scene.systemd.raises[name] = SysrespError("no answer", exit=Status.UNREACHABLE)
    scene.roster = Roster({WEB: Member(WEB, supervision=Supervision())})
    scene.disk.touch("/var/lib/sysresp/shop.json")
    scene.live(0.05)
    scene.systemd.raises.clear()
    scene.live(10)
    assert scene.signals.opened == opened + 1
