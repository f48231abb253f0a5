"""A look at many units (`controller.observe`): what changes while it is read is read again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sysresp.controller import observe
from sysresp.ports import Question
from tests.fake_systemd import FakeSystemd
from tests.fake_units import FakeUnit

WEB = "web.service"


class Hasty(FakeSystemd):
    """Something happens to the unit while its properties are read, once: after the first question."""

    meanwhile: Callable[[FakeUnit], None] | None = None

    def many_properties(self, questions: Sequence[Question]) -> list[dict[str, object]]:
        answers = []
        for question in questions:
            answers.append(self.properties(*question))
            meanwhile, self.meanwhile = self.meanwhile, None
            if meanwhile is not None:
                meanwhile(self.loaded[WEB])
        return answers


def crashed() -> Hasty:
    """Return a systemd whose only service has crashed and waits for its restart."""
    systemd = Hasty()
    text = b"[Service]\nExecStart=/bin/web\nRestart=always\nRestartSec=10s\n"
    systemd.files.write(f"/etc/systemd/system/{WEB}", text)
    systemd.start(WEB)
    systemd.step()
    systemd.end_process(WEB)
    systemd.step()
    return systemd


def test_a_restart_that_is_queued_meanwhile_belongs_to_its_count() -> None:
    """Else a count that is one ahead would pass for a run that nobody saw."""
    systemd = crashed()

    def is_queued(unit: FakeUnit) -> None:
        unit.restarts += 1
        unit.job = (77, "restart")

    (before,) = observe.seen(systemd, [WEB])
    systemd.meanwhile = is_queued
    (found,) = observe.seen(systemd, [WEB])
    assert (before.sub, before.job, before.n_restarts) == ("auto-restart", 0, 0)
    assert (found.sub, found.job, found.n_restarts) == ("auto-restart", 77, 1)
    assert found.changed == before.changed


def test_of_a_unit_that_never_rests_the_last_look_counts() -> None:
    systemd = crashed()

    def again(unit: FakeUnit) -> None:
        unit.job = (unit.job[0] + 1, "restart")
        systemd.meanwhile = again

    systemd.meanwhile = again
    (found,) = observe.seen(systemd, [WEB])
    assert found.job > 0
