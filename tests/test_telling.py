"""Who is told what of an incident, and when; and that each is told once."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sysresp.controller.events import Member, Roster
from sysresp.controller.incidents import Incident, Part
from sysresp.controller.telling import (
    GATHER_SEC,
    HOUR_SEC,
    Message,
    Moment,
    quiet_until,
    sent_key,
    summary,
    tell,
)
from sysresp.units.alerting import Receiver
from sysresp.units.supervision import Supervision

OPENED = 1e9
NOON = 12 * 60.0


def roster(**fields: Any) -> Roster:
    members = {
        name: Member(name, "shop", name.partition(".")[0], supervision=Supervision(alerts=("ops",)))
        for name in ("db.service", "web.service")
    }
    return Roster(members, alerts={"shop/ops": Receiver(**fields)})


class Life:
    """One incident, in time."""

    def __init__(self, *reasons: str, minute: float = NOON, **fields: Any) -> None:
        self.roster = roster(**fields)
        parts = (
            Part("db.service", reasons or ("gave-up",), "too many starts", OPENED, exit="exit status 3"),
            Part("web.service", ("blocked",), "down", OPENED, ("db.service",)),
        )
        self.incident = Incident(7, "db.service", OPENED, parts)
        self.minute = minute
        self.sent: dict[str, tuple[float, ...]] = {}
        self.messages: list[Message] = []
        self.due = 0.0

    def at(self, after: float) -> list[str]:
        """Ask at that time, and return the kinds of messages that are made then."""
        when = OPENED + after
        telling = tell(
            self.incident, self.roster, Moment(when, (self.minute + after / 60) % 1440, "host"), self.sent
        )
        self.incident, self.due = telling.incident, telling.due and telling.due - OPENED
        self.messages += telling.messages
        for one in telling.messages:
            key = sent_key(one.receiver, one.root)
            self.sent[key] = (*self.sent.get(key, ()), when)
        return [one.kind for one in telling.messages]

    def over(self, after: float) -> None:
        self.incident = self.incident._replace(resolved=OPENED + after)


def test_it_is_told_once_and_its_end_once() -> None:
    life = Life()
    assert life.at(0) == []
    assert life.due == GATHER_SEC
    assert life.at(GATHER_SEC) == ["opened"]
    assert life.due == 0
    assert life.at(GATHER_SEC) == life.at(1e6) == []
    life.over(300)
    assert life.at(305) == ["resolved"]
    assert life.at(306) == []
    opened, resolved = (json.loads(one.body) for one in life.messages)
    assert opened["summary"] == "db is down for good (too many starts; exit status 3), with it web"
    assert resolved["summary"] == "db is well again after 5min, with it web"
    assert (opened["service"], opened["unit"], opened["project"]) == ("db", "db.service", "shop")
    assert [one["unit"] for one in opened["units"]] == ["db.service", "web.service"]
    assert resolved["duration_sec"] == 300
    assert [one.key for one in life.messages] == [
        "host-7-1000000000000-opened",
        "host-7-1000000000000-resolved",
    ]


def test_what_ends_before_it_was_told_is_never_told() -> None:
    life = Life()
    life.over(1)
    assert life.at(10) == []


def test_no_end_is_told_if_nobody_wants_it() -> None:
    life = Life(resolve=False)
    life.at(2)
    life.over(5)
    assert life.at(10) == []


@pytest.mark.parametrize(
    ("on", "is_told"),
    [
        (("gave-up",), True),
        (("blocked",), True),
        (("flapping", "probe", "every-exit"), False),
    ],
)
def test_only_on(on: tuple[str, ...], is_told: bool) -> None:
    assert bool(Life(on=on).at(10)) is is_told


def test_again_and_escalated() -> None:
    life = Life(repeat_sec=600.0, escalate_sec=900.0)
    told = {after: kinds for after in range(0, 2400, 60) if (kinds := life.at(after))}
    assert told == {60: ["opened"], 660: ["again"], 900: ["escalated"], 1500: ["again"], 2100: ["again"]}
    assert len({one.key for one in life.messages}) == 5


def test_quiet_hours_hold_it_back_until_they_end() -> None:
    life = Life(quiet=("22:00", "07:00"), minute=23 * 60.0)
    assert life.at(10) == []
    assert life.due == 8 * HOUR_SEC
    assert life.at(8 * HOUR_SEC) == ["opened"]
    resolved_at_night = Life(quiet=("22:00", "07:00"), minute=21 * 60.0)
    assert resolved_at_night.at(10) == ["opened"]
    resolved_at_night.over(2 * HOUR_SEC)
    assert resolved_at_night.at(2 * HOUR_SEC) == ["resolved"]
    assert resolved_at_night.messages[1].due == OPENED + 10 * HOUR_SEC


@pytest.mark.parametrize(
    ("minute", "left"), [(22 * 60, 9 * 60), (6 * 60 + 59, 1), (7 * 60, 0), (12 * 60, 0), (21 * 60 + 59, 0)]
)
def test_when_quiet_hours_end(minute: int, left: int) -> None:
    receiver = Receiver(quiet=("22:00", "07:00"))
    assert quiet_until(receiver, Moment(OPENED, minute), OPENED) == OPENED + left * 60


@pytest.mark.parametrize("most", [1, 2, 3, 10])
def test_at_most_so_many_an_hour_about_one_service(most: int) -> None:
    """A service that fails every ten seconds, each time an incident of its own."""
    sent: dict[str, tuple[float, ...]] = {}
    times = []
    for number in range(1000):
        life = Life("every-exit", on=("every-exit",), most=most)
        life.incident = life.incident._replace(id=number, opened=OPENED + number * 10)
        life.sent = sent
        for after in (2, 8):
            if after == 8:
                life.over(number * 10 + 8)
            times += [number * 10 + after] * len(life.at(number * 10 + after))
    limit = most + (most == 1)  # who is told of the beginning is told of the end
    assert len(times) > 2
    assert all(sum(0 <= t - begin < HOUR_SEC for t in times) <= limit for begin in times)


def test_a_receiver_that_is_gone_is_told_nothing() -> None:
    life = Life()
    life.at(2)
    life.roster = life.roster._replace(alerts={})
    life.over(5)
    assert life.at(10) == []


def test_a_merged_incident_says_where_it_went() -> None:
    life = Life()
    life.at(2)
    life.incident = life.incident._replace(into=3, resolved=OPENED + 4)
    assert life.at(5) == ["resolved"]
    assert summary(life.incident, life.roster, "resolved").startswith("db is a consequence of incident 3")
