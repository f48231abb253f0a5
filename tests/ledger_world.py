"""A host in memory with a controller's ledger, a real one, and the command line on it.

`living` gives one on which a file was applied, without a controller; `start_controller` adds it. Times are
those of the fake clock, in UTC.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from sysresp.cli import hosts, main, remembered
from sysresp.controller.events import Exit, Fate, UnitMemory, Wait
from sysresp.controller.ledger import Ledger
from tests.fakes import FakeClock, FakeFiles, FakeJournal, FakeManager, fake_host

SHOP = """\
project = "shop"

[services.disk]
command = ["/bin/sh"]

[services.db]
command = ["/bin/sh"]
requires = ["disk"]

[services.web]
command = ["/bin/sh"]
requires = ["db"]

[services.cron]
command = ["/bin/sh"]
instances = 2
"""
DISK, DB, WEB = (f"shop-{name}.service" for name in ("disk", "db", "web"))


class World:
    """A host in memory on which the file was applied, with a controller and its ledger."""

    def __init__(self, top: Path) -> None:
        Path("services.toml").write_text(SHOP)
        self.files = FakeFiles()
        self.manager = FakeManager(self.files)
        self.journal = FakeJournal()
        self.host = fake_host(manager=self.manager, journal=self.journal)
        self.ledger = Ledger(str(top / "ledger.db"))
        self.is_running = True

    @property
    def clock(self) -> FakeClock:
        return self.manager.clock

    def run(self, *words: str, status: int = 0) -> str:
        result = CliRunner().invoke(main.app, list(words), prog_name="sysresp")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == status, result.output
        return result.output

    def why(self, *names: str) -> dict[str, Any]:
        found = json.loads(self.run("why", "--json", *names))
        assert found["version"] == 1
        units = {unit["unit"]: unit for unit in found["units"]}
        return units if len(units) != 1 else next(iter(units.values()))

    def start_controller(self) -> None:
        self.files.write("/etc/systemd/system/sysresp.service", b"[Service]\nExecStart=/bin/true\n")
        self.manager.set_state("sysresp.service", "active", "running")
        self.ledger.open()
        self.ledger.commit(meta={"boot": "b"})

    def fail(self, unit: str, status: int = 1, **memory: Any) -> None:
        """Let the unit be down as after an exit with a failure, and the controller know it."""
        self.manager.set_state(unit, "failed", "failed", "exit-code")
        row = Exit(unit, "1" * 32, self.clock.now() - 60, "exit-code", 1, status, Fate.GAVE_UP, uptime_sec=4)
        self.ledger.commit([row], units={unit: UnitMemory("1" * 32, failures=3, **memory)})


@contextmanager
def living(top: Path) -> Iterator[World]:
    """Give a world without a controller, in which the file was applied 1000 s ago."""
    zone = os.environ.get("TZ")
    os.environ["TZ"] = "UTC"
    time.tzset()
    state = top / "state"
    state.mkdir()
    with chdir(top):
        one = World(state)
        token = hosts.open_host.set(lambda _scope, _mode: one.host)
        places = remembered.directories.set((str(state),))
        try:
            one.run("apply", "--settle", "0")
            one.clock.sleep(1000)
            yield one
        finally:
            one.ledger.close()
            remembered.directories.reset(places)
            hosts.open_host.reset(token)
            os.environ.pop("TZ")
            os.environ |= {} if zone is None else {"TZ": zone}
            time.tzset()


def block(world: World) -> None:
    """Let web wait for db, and db for disk, which cools down."""
    for unit, on in ((WEB, DB), (DB, DISK)):
        world.manager.set_state(unit, "inactive")
        # `on` is all that it requires; `why` is what was down of it.
        memory = UnitMemory(wait=Wait.BLOCKED, on=("shop-cron@1.service", on), why=on)
        world.ledger.commit(units={unit: memory})
    world.fail(DISK, wait=Wait.COOLDOWN, wake_at=world.clock.monotonic() + 860)
    world.journal.lines[DISK] = ["mount: no such device"]
