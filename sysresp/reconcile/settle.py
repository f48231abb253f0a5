"""Watching what was changed, for as long as its settle time, and saying what did not stay up.

Owns the looks: the states of all units in one call, again and again, and the InvocationID of each service at
the beginning and at the end, since a crash and a restart fit between two looks. Reads, waits, changes
nothing. Rule: one that fell ends the watch at once, because there is nothing to wait for any more, unless it
is one that may fall.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from typing import Final, NamedTuple

from sysresp.ports import Host, UnitState
from sysresp.reconcile.manifest import patterns
from sysresp.reconcile.observe import invocations

LOOK_SEC: Final = 0.25

_UP = ("active", "reloading", "refreshing")


class Fall(NamedTuple):
    """A unit that did not stay up."""

    after_sec: float  # since the watch began; 0: it was not up then
    settle_sec: float
    invocation_id: str = ""  # of the run that ended, if there is another by now
    ended: bool = False  # a program that is meant to go on ended, and well


def watch(
    host: Host,
    project: str,
    units: Sequence[tuple[str, float]],
    excused: Set[str] = frozenset(),
    on_look: Callable[[float], None] = lambda _: None,
) -> dict[str, Fall]:
    """Watch these units, each for its seconds, and return those that fell.

    Those that are excused end nothing when they fall. `on_look` is told how many seconds are left.
    """
    clock, manager = host.clock, host.manager
    began = clock.monotonic()
    names = [name for name, _ in units]
    rows = _rows(host, project, names)
    fallen = {name: fall for name, sec in units if (fall := _judge(host, rows.get(name), 0.0, sec))}
    left = {name: sec for name, sec in units if _is_up(rows.get(name))}
    runs = invocations(host, (name for name in left if name.endswith(".service")))
    while left and fallen.keys() <= excused:
        passed = clock.monotonic() - began
        on_look(max(left.values()) - passed)
        due = min(left.values()) - passed
        if due > 0:
            clock.sleep(min(due, LOOK_SEC))
            passed = clock.monotonic() - began
        rows = {row.name: row for row in manager.units(patterns(project, left))}
        over = {name for name, sec in left.items() if passed >= sec}
        now = invocations(host, (name for name in runs if name in over))
        for name, sec in left.items():
            fall = _judge(host, rows.get(name), passed, sec)
            if fall is None and name in now and runs[name] != now[name]:
                fall = Fall(passed, sec, invocation_id=runs[name])
            if fall is not None:
                fallen[name] = fall
        for name in (*over, *fallen):
            left.pop(name, None)
    return fallen


def _rows(host: Host, project: str, names: Sequence[str]) -> dict[str, UnitState]:
    return {row.name: row for row in host.manager.units(patterns(project, names))}


def _is_up(row: UnitState | None) -> bool:
    return row is not None and row.active_state in _UP


def _judge(host: Host, row: UnitState | None, passed: float, sec: float) -> Fall | None:
    """Return how the unit fell by what its state says, None if it did not."""
    if row is None or _is_up(row):
        return None if row is not None or not passed else Fall(passed, sec, ended=True)
    if row.active_state == "failed" or row.sub_state.startswith(("auto-restart", "failed-", "dead-")):
        return Fall(passed, sec)
    if row.active_state == "inactive" and _is_to_go_on(host, row.name):
        return Fall(passed, sec, ended=True)
    return None


def _is_to_go_on(host: Host, name: str) -> bool:
    """Say whether a unit that ended well has run and is of a type that does not end by itself."""
    if not name.endswith(".service"):
        return True
    found = host.manager.properties(name, "Service", ("Type", "ExecMainCode"))
    return found.get("Type") != "oneshot" and bool(found.get("ExecMainCode"))
