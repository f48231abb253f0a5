"""Scenes for the tests of the policy: a controller that is told things, and what systemd tells."""

from __future__ import annotations

from typing import Any

from sysresp.controller.events import (
    Action,
    Event,
    Exit,
    Health,
    Member,
    Memory,
    Note,
    Roster,
    Row,
    UnitMemory,
)
from sysresp.controller.policy import decide
from sysresp.ports import Seen
from sysresp.units.supervision import Settings, Supervision

WEB, DB = "web.service", "db.service"
EPOCH = 1e9
UNLIMITED = Settings(starts_per_second=0)


class Controller:
    """Memory, and what was asked for last."""

    def __init__(self, settings: Settings = UNLIMITED, **policies: Supervision) -> None:
        members = {f"{n}.service": Member(f"{n}.service", supervision=s) for n, s in policies.items()}
        self.memory = Memory(roster=Roster(members, settings), wall_offset=EPOCH)
        self.rows: dict[str, Exit] = {}
        self.actions: tuple[Action, ...] = ()

    def __call__(self, now: float, *events: Event) -> list[Action]:
        """Tell it these, and return what it wants done, rows and notes aside."""
        actions: list[Action] = []
        for event in events:
            decision = decide(self.memory, event, now)
            self.memory = decision.memory
            actions += decision.actions
        for action in actions:
            if isinstance(action, Row):
                old = self.rows.get(action.exit.invocation, action.exit)
                self.rows[action.exit.invocation] = old._replace(
                    fate=action.exit.fate,
                    retry_at=action.exit.retry_at,
                    because=action.exit.because or old.because,
                    when=old.when or action.exit.when,
                )
        self.actions = tuple(actions)
        return [action for action in actions if not isinstance(action, (Row, Note))]

    def notes(self) -> list[str]:
        return [action.kind for action in self.actions if isinstance(action, Note)]

    def of(self, unit: str = WEB) -> UnitMemory:
        return self.memory.units[unit]


def up(at: float, run: str = "A", n: int = 0, unit: str = WEB) -> Seen:
    return Seen(unit, "active", "running", run, main_pid=7, started=at, changed=at, n_restarts=n)


def ended(at: float, run: str = "A", sub: str = "failed", n: int = 0, **fields: Any) -> Seen:
    """Return a unit that has just failed with status 3; `sub` says what systemd makes of it."""
    active = "activating" if sub.startswith("auto-restart") else sub.partition("-")[0]
    seen = Seen(WEB, active, sub, run, "exit-code", 0, n, 0, 1, 3, at - 1, at, EPOCH + at, at + 0.001)
    return seen._replace(**fields)


FINAL = [Seen(WEB, "inactive", "dead", "A", "success", 0, 0, 0, 1, 0, 9.0, 10.0, EPOCH + 10, 10.0)]


def stopping(at: float, job: int = 5, run: str = "A", unit: str = WEB) -> list[Seen]:
    """Return what is seen of a stop."""
    first = Seen(unit, "deactivating", "stop-sigterm", run, job=job, main_pid=7, started=at - 1, changed=at)
    last = first._replace(
        active="inactive", sub="dead", main_pid=0, exec_code=1, ended=at + 0.01, changed=at + 0.01
    )
    return [first, last, last._replace(job=0)]


def limit_hit(told: Controller, at: float, run: str) -> None:
    told(
        at, up(at - 1, run, n=1), ended(at, run, "auto-restart", n=1), ended(at, run, n=2, changed=at + 0.2)
    )


def unhealthy(told: Controller, now: float, run: str = "A") -> list[Action]:
    return told(now, Health(WEB, run, False, "status 500"))
