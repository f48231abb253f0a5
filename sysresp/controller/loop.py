"""The controller's loop: what comes in becomes events, what is decided becomes rows and calls.

Owns the order in which things happen, which is what makes the ledger exact: signals are asked for before
anything is read; what a batch of events leads to is in the ledger, in one transaction, before systemd is
asked for anything; and whoever may have missed something looks at everything again (`resync`), at the start
as after a lost connection. Owns no decision about a unit (`policy` does) and none about its own restart
(`respawn`). Never waits for a job: what becomes of one is told by signals, like everything else.
The rule: nothing here may stop the daemon but SIGTERM and a bug. systemd that does not answer and a ledger
that cannot be written are waited out, and a bug ends the process with a record, for PID 1 to start afresh.
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from sysresp.controller import observe
from sysresp.controller.acting import act_all
from sysresp.controller.alarm import Alarm
from sysresp.controller.events import (
    Action,
    AskRequired,
    Event,
    Health,
    Look,
    Member,
    NewRoster,
    Note,
    Recount,
    Required,
    Resync,
    Roster,
    Row,
    UnitMemory,
    Wake,
)
from sysresp.controller.incident_rows import Verdict
from sysresp.controller.owed import Owed, Store, changes
from sysresp.controller.policy import decide
from sysresp.controller.tables import Stored
from sysresp.controller.telling import Message
from sysresp.controller.wall import WALL, WallClock, clock_note
from sysresp.ports import Clock, Lost, Manager, Notify, Question, Records, Signals

UP = frozenset({"active", "reloading", "refreshing"})
_MUCH = 1_000  # records: 0.4 MB
_MANY_PEAKS = 4  # runs that end at once: more are a storm, and each question is a round trip
_SLOW_SEC, _SLOW_PAUSE_SEC = 0.05, 300.0  # if systemd takes so long to answer, it is left alone so long
_SHOWN = 5  # of the units and records of a resync, in the record of a bug
_REQUIREMENTS = ("Requires", "Requisite", "BindsTo")


class Prober(Protocol):
    """What the loop needs of `probes.Probes`."""

    def watch(self, unit: str, invocation: str, probe: Any, started: float) -> None: ...

    def forget(self, unit: str) -> None: ...

    def latest(self) -> Mapping[str, Any]: ...


class Poster(Protocol):
    """What the loop needs of `deliver.Post`."""

    def add(self, messages: Sequence[Message]) -> None:
        """Deliver these, which are stored."""

    def clock_was_set(self, by: float) -> None: ...


class Ports(NamedTuple):
    """Everything that the loop can do to the host."""

    manager: Manager
    signals: Signals
    records: Records
    ledger: Store
    clock: Clock
    notify: Notify
    load_roster: Callable[[], Roster]
    boot: str  # boot id
    log: Callable[[int, str], None]  # level as in syslog(3), text


class Loop:
    """The controller at work, in one thread; `step` is the whole of it, the rest brings it events."""

    def __init__(self, ports: Ports, stored: Stored, *, descriptor: int = -1, since: float = 0.0) -> None:
        """`descriptor` is that of signals which are open already, `since` that instant."""
        self.ports = ports
        self.version = 0  # of systemd; known when it is connected to
        self.memory = stored.memory(ports.boot)
        self.cursor = stored.cursor
        self.owed = Owed(ports.ledger, {"boot": self.memory.boot}, ports.log)
        self.last: deque[Event] = deque(maxlen=50)  # for the record of a bug
        self.alarm = Alarm(ports.ledger.alarm)
        is_same_boot = stored.meta.get("boot") == ports.boot
        self.wall = WallClock(ports.clock, stored.meta.get(WALL, "") if is_same_boot else "")
        self.owed.facts[WALL] = self.owed.meta[WALL] = self.wall.text()
        self.probes: Prober | None = None
        self.post: Poster | None = None
        self.is_connected = False
        self.blind_sec = 0.0  # for how long nobody listened before the last `connect`
        self._descriptor = descriptor
        self._heard_since = since
        self._queue: list[Event] = []
        self._away_since = 0.0  # since when nobody has listened; 0: somebody does
        self._rows_since_cursor = 0
        self._next_cursor = ""  # of the journal's end a while ago; "" if something was missed since
        self._peaks_after = 0.0
        self.cursor_rows = 2_000  # after so many the journal's cursor is moved on: it bounds the next resync
        self._watched: frozenset[str] = frozenset()

    # What comes in

    def connect(self, cause: str, blind_since: float = 0.0) -> int:
        """Ask for the signals, then look at everything; return the descriptor to poll."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            self.ports.signals.close()
            descriptor = self.ports.signals.open()
            self._heard_since = self.ports.clock.monotonic()
        self.version = self.ports.manager.version()
        self._watch(force=True)
        self.is_connected = True
        blind_since = blind_since or self._away_since
        self.blind_sec = max(0.0, self._heard_since - blind_since) if blind_since else 0.0
        self.resync(cause, self.blind_sec)
        self._away_since = 0.0
        return descriptor

    def resync(self, cause: str, blind_sec: float = 0.0) -> None:
        """Look at everything again: all units as they are, and what the journal has since the last time."""
        self._next_cursor = ""
        roster = self._roster()
        if roster != self.memory.roster:
            self.step([NewRoster(roster)], looks=False)  # all are looked at, and the journal comes first
            self._watch()
        names = self._names()
        seen = observe.seen(self.ports.manager, names)
        records, cursor, is_whole = self.ports.records.since(self.cursor, names)
        # A signal that came meanwhile is handled afterwards; what it tells again is known by then.
        event = Resync(tuple(seen), tuple(records), is_whole, blind_sec, cause)
        self._queue.append(event._replace(boot=self.ports.boot, wall_offset=self.wall.offset()))
        self._run(cursor)
        is_much = len(records) > _MUCH
        del event, records
        if is_much:
            gc.collect()  # of all that, idle, nothing would be given back
        self._rows_since_cursor = 0

    def signals_came(self) -> bool:
        """Take in a batch of what systemd announced; return whether the connection is still good."""
        for one in self.ports.signals.drain():
            if not isinstance(one, Lost):
                self._queue.append(one)
                continue
            self._run()
            if one.why == "disconnected":
                self.disconnected()
                return False
            self.resync(one.why)
        self._run()
        return True

    def disconnected(self) -> None:
        """Remember since when nobody listens."""
        self.is_connected = False
        self.ports.signals.close()
        self._away_since = self._away_since or self.ports.clock.monotonic()

    def summary(self) -> str:
        """Return one line about what it does, for `systemctl status`."""
        trouble = f"; {self.owed.trouble}" if self.owed.trouble else ""
        return f"{len(self.memory.roster.members)} units are looked after{trouble}"

    def roster_changed(self) -> None:
        """Read the manifests again."""
        roster = self._roster()
        if roster == self.memory.roster:
            return
        self._queue.append(NewRoster(roster))
        self._watch(roster.members)  # before the new ones are looked at
        self._run()
        self._watch()

    def _roster(self) -> Roster:
        """Read the manifests; what one that cannot be read had is as it was."""
        roster = self.ports.load_roster()
        known = {} if roster.is_whole else self.memory.roster.members
        return roster._replace(members={**known, **roster.members})

    def health_turned(self, event: Health) -> None:
        """Take in the verdict of a probe."""
        self._queue.append(event)
        self._run()

    def woken(self) -> None:
        """Take in that time has passed."""
        self._queue.append(Wake(self.wall.offset()))
        self._run()

    # What follows

    def _run(self, cursor: str | None = None) -> None:
        """Decide on all events in the queue, and on those to which their actions lead."""
        while self._queue or cursor is not None:
            events, self._queue = self._queue, []
            self.step(events, cursor)
            cursor = None
        self.ports.manager.rest()

    def step(self, events: Sequence[Event], cursor: str | None = None, *, looks: bool = True) -> None:
        """Decide, store, do: in this order; without `looks` somebody else looks at everything."""
        if by := self.wall.was_set():
            self._clock_was_set(by)
        now = self.ports.clock.monotonic()
        before, memory = self.memory, self.memory
        actions: list[Action] = []
        for event in events:
            self.last.append(_short(event))
            decision = decide(memory, event, now)
            memory = decision.memory
            actions += decision.actions
        self.memory = memory
        if memory.boot != before.boot:  # with the times of that boot: see `Memory.boot`
            self.owed.facts["boot"] = self.owed.meta["boot"] = memory.boot
        changed = changes(before.units, memory.units)
        messages = self._store(actions, changed, cursor)
        if messages and self.post is not None:
            self.post.add(messages)
        self._probe(changed)
        self._queue += act_all(self.ports.manager, self.version, actions)
        if looks and (names := sorted({action.unit for action in actions if isinstance(action, Look)})):
            self._queue += observe.seen(self.ports.manager, names)
        if asked := sorted({action.unit for action in actions if isinstance(action, AskRequired)}):
            self._ask_required(asked)
        elif any(isinstance(event, Required) for event in events):
            self._watch()  # no longer those of the answer that nobody waits for
        if any(isinstance(action, Recount) for action in actions):
            self.resync("runs that no signal told of")

    def _clock_was_set(self, by: float) -> None:
        """Go on as if it had always been so; nothing that is measured is by that clock."""
        note = clock_note(by, self.ports.clock.now())
        self.owed.notes.append(note)
        self.ports.log(5, note.text)
        self.memory = self.memory._replace(wall_offset=self.wall.offset())
        self.owed.incidents |= self.alarm.clock_was_set(by)
        self.owed.facts[WALL] = self.owed.meta[WALL] = self.wall.text()
        if self.post is not None:
            self.post.clock_was_set(by)

    def _store(
        self, actions: Sequence[Action], changed: Mapping[str, UnitMemory | None], cursor: str | None
    ) -> Sequence[Message]:
        owed, peaks = self.owed, self._peaks(actions)
        for action in actions:
            if isinstance(action, Row):
                row = action.exit
                if peak := peaks.get(row.unit, 0) if row.source == "live" else 0:
                    row = row._replace(memory_peak=row.memory_peak or peak)
                (owed.late if action.is_late else owed.rows).append(row)
                self._rows_since_cursor += 1
            elif isinstance(action, Note):
                owed.notes.append(action)
                self.ports.log(6, f"{action.unit}: {action.text}" if action.unit else action.text)
        owed.units |= changed
        if cursor is not None:
            owed.cursor = self.cursor = cursor
        incidents, messages = self.alarm.take(actions, changed, self.memory, self.ports.clock.now())
        owed.incidents |= incidents
        owed.messages += messages
        self.flush()
        return messages

    def wake_at(self) -> float:
        """Return when `woken` is wanted next, for a unit or for an incident; 0: never."""
        due = self.alarm.due and max(1e-6, self.alarm.due - self.wall.offset())
        return min((at for at in (self.memory.wake_at(), due) if at), default=0.0)

    def verdict(self, verdict: Verdict) -> None:
        """Take in what became of a message."""
        self.owed.verdicts.append(verdict)
        self.flush()

    def flush(self) -> bool:
        """Write what is owed; return whether nothing is owed any more."""
        before = self.owed.trouble
        is_paid = self.owed.pay(self.memory, self.cursor, self.ports.clock.now(), self.alarm.known.incidents)
        if self.owed.trouble != before:
            self.ports.notify.status(self.summary())
        return is_paid

    def move_cursor(self) -> None:
        """Move the journal's cursor on, if much has happened, to where its end was at the call before.

        Everything up to the cursor must be in the ledger first. What systemd says now is still on its way to
        us in a storm; what it said some seconds ago, since when nothing was lost, has been taken in.
        """
        if self._rows_since_cursor < self.cursor_rows or not self.is_connected:
            return
        before = self._next_cursor
        _, cursor, is_whole = self.ports.records.since("", ())
        self._next_cursor = cursor if is_whole else ""
        if before and self.signals_came() and self._next_cursor:
            self._rows_since_cursor = 0
            self._run(before)

    def _peaks(self, actions: Sequence[Action]) -> Mapping[str, int]:
        """Ask for how much memory the runs used that have just ended, if systemd has the time to answer.

        In a storm it answers after a second (257), and no row is to be late for a detail.
        """
        begun = self.ports.clock.monotonic()
        if self.version < 256 or begun < self._peaks_after:
            return {}
        units = sorted({a.exit.unit for a in actions if isinstance(a, Row) and a.exit.source == "live"})
        if not units or len(units) > _MANY_PEAKS:
            return {}
        peaks = observe.memory_peaks(self.ports.manager, units)
        now = self.ports.clock.monotonic()
        if now - begun > _SLOW_SEC:
            self._peaks_after = now + _SLOW_PAUSE_SEC
        return peaks

    def _ask_required(self, units: Sequence[str]) -> None:
        """Read what these units require, all at once: a whole project may have been stopped."""
        manager, members = self.ports.manager, self.memory.roster.members
        answers = manager.many_properties([Question(unit, "Unit", _REQUIREMENTS) for unit in units])
        needs = [dict.fromkeys(n for value in found.values() for n in _items(value)) for found in answers]
        outside = sorted({name for names in needs for name in names if name not in members})
        self._watch(outside)  # before they are looked at
        seen = {one.unit: one for one in observe.seen(manager, outside)}
        for unit, found, names in zip(units, answers, needs, strict=True):
            others = tuple(seen[name] for name in names if name in seen)
            self._queue.append(Required(unit, tuple(names), _items(found.get("BindsTo")), others))

    def _probe(self, changed: Mapping[str, UnitMemory | None]) -> None:
        if self.probes is None:
            return
        for name, unit in changed.items():
            member = self.memory.roster.members.get(name, Member(name))
            probe = member.supervision.probe
            if probe is not None and unit is not None and not unit.is_ended and unit.active in UP:
                self.probes.watch(name, unit.invocation, probe, unit.started)
            else:
                self.probes.forget(name)

    def probe_all(self, probes: Prober) -> None:
        """Begin to probe what is up."""
        self.probes = probes
        self._probe(dict(self.memory.units))

    def _names(self) -> list[str]:
        """Return what to look at: all members, and what some of them wait for."""
        others = {name for unit in self.memory.units.values() for name in unit.on}
        return sorted({*self.memory.roster.members, *others, *self.memory.units})

    def _watch(self, more: Iterable[str] = (), *, force: bool = False) -> None:
        names = frozenset(self._names()).union(more)
        if force or names != self._watched:
            self._watched = names
            self.ports.signals.watch(names)


def _short(event: Event) -> Event:
    """Return what is worth keeping of the event: a gap in a storm has 20 MB of records."""
    if not isinstance(event, Resync):
        return event
    return event._replace(seen=event.seen[:_SHOWN], records=event.records[:_SHOWN])


def _items(value: object) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, (list, tuple)) else ()
