"""`sysresp controller restart`, when somebody else restarts the controller at the same time."""

from __future__ import annotations

import json

import pytest

from sysresp.cli import controller, hosts
from sysresp.controller import own
from sysresp.errors import SysrespError
from sysresp.model import Scope
from tests.fakes import FakeManager, fake_host


class Hurried(FakeManager):
    """A restart is followed at once by one that another client asked for, as the code watch does."""

    is_broken = False

    def restart(self, unit: str) -> int:
        job = super().restart(unit)
        self._have_ended({job})
        self.set_state(unit, "activating", "start")
        return job

    def start(self, unit: str) -> int:
        if self.is_broken:
            self.fail[unit] = "failed"
        return super().start(unit)


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> Hurried:
    host = fake_host(manager=Hurried())
    assert isinstance(host.manager, Hurried)
    host.files.write(f"/etc/systemd/system/{own.UNIT}", b"[Service]\nExecStart=/bin/true\n")
    host.manager.reload()
    host.manager.set_state(own.UNIT, "active", "running")
    monkeypatch.setattr(hosts, "host", lambda *_: host)
    return host.manager


def test_the_next_restart_is_waited_for(manager: Hurried, capsys: pytest.CaptureFixture[str]) -> None:
    assert controller.restart(Scope.SYSTEM, as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["unit"] == own.UNIT
    assert manager.loaded[own.UNIT].active == "active"


def test_and_its_failure_is_told(manager: Hurried) -> None:
    manager.is_broken = True
    with pytest.raises(SysrespError, match=r"did not come up: it is (failed|inactive)"):
        controller.restart(Scope.SYSTEM, as_json=True)
