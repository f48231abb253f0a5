"""What the policy wants done, as calls to systemd: each once, in order, and none is waited for.

Owns the translation of actions into calls, and of what is not done into `Refused`. Decides nothing and keeps
nothing. Rule: it never raises for what systemd says or does not say; what was not done is decided anew.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence

from sysresp.controller.events import (
    Action,
    AskRequired,
    Kill,
    Look,
    Note,
    Recount,
    Refused,
    ResetFailed,
    Row,
    Shorten,
    Start,
    Stop,
)
from sysresp.errors import Exit as Status
from sysresp.errors import SysrespError
from sysresp.ports import Manager, UnitProblem

_NOBODY = "Unreachable"
_TRIES_WAITING = 252  # since this version TryRestartUnit does something for a unit that waits


def act_all(manager: Manager, version: int, actions: Sequence[Action]) -> list[Refused]:
    """Have systemd do all of this, and return what it did not do."""
    refused = []
    for done, action in enumerate(actions, start=1):
        code = _code(manager, version, action)
        if code:
            refused.append(_refused(action, code))
        if code == _NOBODY:  # it would not answer the others, either, and each wait is of seconds
            return [*refused, *(_refused(one, _NOBODY) for one in actions[done:])]
    return refused


def _code(manager: Manager, version: int, action: Action) -> str:
    """Have systemd do it, and return why it did not, "" if it did."""
    try:
        match action:
            case Row() | Note() | Look() | AskRequired() | Recount():
                pass
            case Start(unit):
                manager.restart(unit)
            case Shorten(unit) if version < _TRIES_WAITING:
                (row,) = manager.units_by_name([unit])
                if row.sub_state == "auto-restart":
                    manager.restart(unit)
            case Shorten(unit):
                manager.try_restart(unit)
            case Stop(unit):
                manager.stop(unit)
            case Kill(unit):
                manager.kill(unit, signal.SIGKILL)
            case ResetFailed(unit):
                manager.reset_failed(unit)
    except UnitProblem as problem:
        return problem.code
    except SysrespError as error:
        return "AccessDenied" if error.exit is Status.DENIED else _NOBODY
    return ""


def _refused(action: Action, code: str) -> Refused:
    return Refused(getattr(action, "unit", ""), type(action).__name__, code)
