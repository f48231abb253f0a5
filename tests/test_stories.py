"""Stories that went wrong once, as the simulation told them: each ends with what must be so.

They are run by the simulation's steps and judged by its checks. The calls at which a mishap comes are
those of the day on which it was found; tests/test_kill.py and the simulation go through all the others.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.plan_scenes import Entry
from tests.test_simulation import NONE, Mishap, World

Step = tuple[str, dict[str, Any]]

CRON = Entry()
DB = Entry()
OPEN = Entry(socket=1, on_demand=True)
SOCK = Entry(socket=1)
SOCK_2 = Entry(socket=2, version=2)
MANY = Entry(instances=2)
MANY_2 = Entry(instances=3, version=2)
WEB = Entry(requires=("db",))
WEB_2 = Entry(version=2, requires=("db", "sock"))


def mishap(kind: str, point: int) -> Mishap:
    return Mishap(kind, point) if kind else NONE


def apply(kind: str = "", point: int = 0, drift: str = "overwrite", **entries: Entry) -> Step:
    return "apply", {"entries": entries, "mishap": mishap(kind, point), "drift": drift}


def again(kind: str = "", point: int = 0) -> Step:
    return "apply_again", {"mishap": mishap(kind, point), "drift": "overwrite"}


def rollback(kind: str = "", point: int = 0, drift: str = "overwrite") -> Step:
    return "rollback", {"mishap": mishap(kind, point), "drift": drift}


def resume() -> Step:
    return "resume", {"mishap": NONE, "drift": "refuse"}


def down(pick: int, kind: str = "", point: int = 0) -> Step:
    """All of it if the pick is a multiple of three."""
    return "down", {"pick": pick, "mishap": mishap(kind, point)}


def fails(pick: int) -> Step:
    return "fails_from_now_on", {"pick": pick}


def crash(pick: int) -> Step:
    return "crash", {"pick": pick, "again": False}


def systemctl(verb: str, pick: int) -> Step:
    return "systemctl", {"verb": verb, "pick": pick}


def mask(pick: int) -> Step:
    return "mask", {"pick": pick}


def removed_by_hand(pick: int) -> Step:
    return "by_hand", {"pick": pick, "how": "remove"}


UNMASK: Step = "unmask", {}
RELOAD: Step = "daemon_reload", {}
UNDISTURBED: Step = "undisturbed", {}

STORIES: dict[str, list[Step]] = {
    "a down of one service while starts of others are owed": [apply("killed", 19, cron=CRON), down(14)],
    "what stopped along with what was put back": [
        apply(db=Entry(config=2), web=WEB),
        apply("reload", 24, web=WEB_2),
    ],
    "a removal that was cut, of what was owed a start": [
        UNDISTURBED,
        apply("read-only", 9, "refuse", db=Entry(version=2), sock=OPEN),
        again("killed", 19),
        systemctl("start", 19),
        rollback("full", 25),
    ],
    "systemd went away while units stopped": [
        apply(db=DB, many=Entry(instances=2, config=2), web=WEB),
        fails(20),
        apply("systemd", 25, "refuse", db=Entry(config=2), sock=SOCK),
    ],
    "a rollback through instances beside one that fails": [
        apply(sock=SOCK),
        fails(7),
        apply(db=Entry(version=2), many=MANY, sock=SOCK_2),
        UNDISTURBED,
        apply("ctrl-c", 13, "refuse", db=Entry(config=2), many=MANY_2, web=WEB),
        mask(28),
    ],
    "a failure before a down that was undone": [
        apply(sock=SOCK_2, web=WEB_2),
        crash(12),
        down(16, "reload", 83),
    ],
    "a stopped unit and a target that starts": [
        apply(cron=CRON),
        mask(24),
        UNMASK,
        down(21, "read-only", 14),
        resume(),
    ],
    "a failure before a removal that was cut": [
        apply(db=Entry(oneshot=True), sock=SOCK),
        crash(15),
        mask(16),
        apply("read-only", 32, "refuse", db=Entry(description=2), web=WEB_2),
    ],
    "a file that is gone when it is to start again": [
        apply(),
        apply(sock=SOCK_2),
        apply(sock=SOCK_2, web=Entry()),
        removed_by_hand(25),
        rollback("killed", 10),
        rollback("reload", 60, "refuse"),
    ],
    "what requires a unit that cannot start again": [
        apply(db=Entry(config=2), many=MANY, web=WEB),
        removed_by_hand(25),
        apply("reload", 51, web=WEB),
    ],
    "a unit that runs without its file": [UNDISTURBED, removed_by_hand(19), RELOAD],
    "a stopped unit and a down that was undone": [
        apply(web=WEB_2),
        systemctl("stop", 29),
        down(24, "reload", 14),
    ],
    "a restart that was owed to what went, and comes back": [
        apply(db=Entry(config=2), many=MANY_2, web=WEB, cron=CRON),
        mask(16),
        apply("killed", 17, "refuse", many=Entry(instances=2, config=2)),
        apply("killed", 9, db=Entry(oneshot=True)),
        apply(many=Entry(instances=2, config=2)),
    ],
    "a full disk at the end of a down": [UNDISTURBED, down(2, "full", 17)],
}


@pytest.mark.parametrize("name", STORIES)
def test_it_ends_well(name: str) -> None:
    world = World()
    for step, how in [*STORIES[name], UNDISTURBED]:
        getattr(world, step)(**how)
        world.what_is_foreign_is_untouched()
        world.what_is_written_is_whole()
