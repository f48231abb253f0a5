"""Incidents as the loop has them: the correlator, who is told, and when to look again.

Owns what must be remembered between two steps, and nothing that decides: `correlate` says what belongs
together, `telling` who hears of it. It is called once for each step, before the transaction that stores
what it returns. Rule: a step in which no unit is in trouble costs a few comparisons; a crash storm makes
thousands of them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sysresp.controller.correlate import correlate, due
from sysresp.controller.events import Action, Memory, UnitMemory
from sysresp.controller.incidents import Batch, Incident, Open, failures_of, moved
from sysresp.controller.telling import HOUR_SEC, Message, Moment, Sent, sent_key, tell

if TYPE_CHECKING:
    from sysresp.controller.incident_rows import StoredAlarm


_NEVER = float("inf")


class Alarm:
    """What the loop remembers of incidents."""

    def __init__(self, stored: StoredAlarm | None, host: str = "") -> None:
        self.known = stored.known if stored else Open()
        self.sent: Sent = stored.sent if stored else {}
        self.due = 1.0 if self.known.incidents else 0.0  # seconds since the epoch; 0: nothing is due
        self.host = host or os.uname().nodename
        self._roster: object = None
        self._dues: dict[int, float] = {}  # when to ask again who is to be told of an open incident

    def take(
        self,
        actions: Sequence[Action],
        changed: Mapping[str, UnitMemory | None],
        memory: Memory,
        when: float,
    ) -> tuple[Mapping[int, Incident], Sequence[Message]]:
        """Return the incidents that are new, changed or over, and what is to be told, both to be stored."""
        failures = failures_of(actions)
        is_due = 0 < self.due <= when
        is_new = memory.roster is not self._roster
        if not (changed or failures or is_due or is_new):
            return {}, ()
        self._roster = memory.roster
        units = self.known.of if is_new else ()
        outcome = correlate(
            self.known, Batch(memory.roster, memory.units, {*changed, *units}, failures, when)
        )
        self.known = outcome.known
        touched = dict(outcome.touched)
        if not touched and not is_due and not is_new:
            return {}, ()
        moment = Moment(when, _minute(when), self.host)
        messages: list[Message] = []
        for number in [n for n, at in self._dues.items() if is_new or at <= when]:
            del self._dues[number]
        for number, incident in {**self.known.incidents, **touched}.items():
            if number in self._dues and number not in touched:
                continue
            telling = tell(incident, memory.roster, moment, self.sent)
            messages += telling.messages
            self._dues[number] = telling.due or _NEVER
            if telling.incident is not incident:
                touched[number] = telling.incident
            if incident.resolved:
                del self._dues[number]
        self._remember(touched, messages, when)
        waits = (*self._dues.values(), due(self.known) or _NEVER)
        self.due = min(waits) if min(waits) < _NEVER else 0.0
        return touched, messages

    def clock_was_set(self, by: float) -> Mapping[int, Incident]:
        """Take in that the clock was set by so many seconds; return the incidents, to be stored."""
        self.known = moved(self.known, by)
        self.sent = {key: tuple(at + by for at in times) for key, times in self.sent.items()}
        self._dues.clear()
        self.due = 1.0 if self.known.incidents else 0.0
        return self.known.incidents

    def _remember(self, touched: Mapping[int, Incident], messages: Sequence[Message], when: float) -> None:
        still = {number: one for number, one in touched.items() if not one.resolved}
        if still:
            self.known = self.known._replace(incidents={**self.known.incidents, **still})
        for message in messages:
            key = sent_key(message.receiver, message.root)
            recent = tuple(at for at in self.sent.get(key, ()) if at > when - HOUR_SEC)
            kept = {k: times for k, times in self.sent.items() if times[-1] > when - HOUR_SEC}
            self.sent = {**kept, key: (*recent, when)}


def _minute(when: float) -> float:
    local = time.localtime(when)
    return local.tm_hour * 60 + local.tm_min + local.tm_sec / 60
