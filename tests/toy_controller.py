"""A controller around the policy, on a small systemd: with a wire that loses, repeats and swaps signals.

Owns what `loop` does with a decision: rows into a ledger, memory, then the actions. Rule: a kill comes
between the two, where it hurts most, and what is left then is the ledger and the units' memory.
"""

from __future__ import annotations

from collections.abc import Iterator

from sysresp.controller.events import (
    Action,
    AskRequired,
    Event,
    Exit,
    Fate,
    Kill,
    Look,
    Member,
    Memory,
    Note,
    Recount,
    Required,
    ResetFailed,
    Resync,
    Roster,
    Row,
    Shorten,
    Start,
    Stop,
    Wake,
)
from sysresp.controller.policy import decide
from sysresp.ports import Gone, JobRemoved, Record, Seen, Signal
from sysresp.units.supervision import Settings
from tests.toy_systemd import BOOT, EPOCH, ToySystemd


class Ledger(dict[tuple[str, str], Exit]):
    """Rows by (unit, invocation)."""

    def write(self, row: Row) -> None:
        exit = row.exit
        key = (exit.unit, exit.invocation)
        have = self.get(key)
        if have is None:
            self[key] = exit
            return
        fate = have.fate if row.is_late and have.fate is not Fate.UNKNOWN else exit.fate
        filled = {
            name: value or getattr(exit, name) for name, value in have._asdict().items() if name != "fate"
        }
        self[key] = Exit(**filled)._replace(fate=fate)


class ToyController:
    """What a session of the controller has: memory, ledger, cursor; and ears that may fail."""

    def __init__(self, systemd: ToySystemd, settings: Settings, *, acts: bool = True) -> None:
        self.systemd = systemd
        members = {
            unit.name: Member(unit.name, "p", unit.name, supervision=unit.supervision)
            for unit in systemd.units.values()
        }
        self.roster = Roster(members, settings)
        self.acts = acts
        self.ledger = Ledger()
        self.memory = Memory(roster=self.roster)
        self.cursor = len(systemd.journal)
        self.wire: list[Seen | JobRemoved | Gone] = []
        self.asked: list[tuple[float, Action]] = []
        self.notes: list[Note] = []
        self.wrongs: list[str] = []
        self.is_killed_after = 0  # that many decisions from now it dies, before it acts; 0: it does not
        self.is_dead = False
        self.resync("start")

    # Ears

    def wire_in(self, signal: Signal) -> None:
        """Be told something."""
        self.wire.append(signal)

    def hear(self, noise: Iterator[int]) -> None:
        """Read what was announced, or what is left of it."""
        while self.wire:
            signals, self.wire = self.wire, []
            for signal in _perturbed(signals, noise):
                self.take(signal)

    def take(self, event: Event) -> None:
        """Decide, remember, act."""
        if self.is_dead:
            return
        now = self.systemd.now
        decision = decide(self.memory, event, now)
        for action in decision.actions:
            if isinstance(action, Row):
                self.ledger.write(action)
        self.memory = decision.memory
        if self.is_killed_after:
            self.is_killed_after -= 1
            if not self.is_killed_after:
                self.is_dead = True
                return
        for action in decision.actions:
            if not self.is_dead:
                self.do(action, now)

    def do(self, action: Action, decided: float) -> None:
        systemd = self.systemd
        match action:
            case Row():
                return
            case Note():
                self.notes.append(action)
                return
            case Look():
                self.take(systemd.seen(action.unit))
                return
            case AskRequired():
                unit = systemd.units[action.unit]
                self.take(Required(action.unit, unit.requires, unit.requires if unit.binds else ()))
                return
            case Recount():
                self.resync("recount", blind_sec=0.0)
                return
        self.asked.append((decided, action))
        if not self.acts:
            return
        match action:
            case Start():
                unit = systemd.units[action.unit]
                if unit.is_wanted_down or unit.is_up():
                    self.wrongs.append(f"{systemd.now}: {action} of a unit that is up, or was stopped")
                systemd.restart(action.unit)
            case Shorten():
                systemd.try_restart(action.unit)
            case Stop():
                systemd.stop(action.unit)
            case Kill():
                systemd.kill(action.unit)
            case ResetFailed():
                systemd.reset_failed(action.unit)

    # Life

    def resync(self, cause: str, records: list[Record] | None = None, blind_sec: float = 1.0) -> None:
        """Look at everything again; `records`: what the journal still has since the last time."""
        self.wire = []
        if records is None:
            records = self.systemd.journal[self.cursor :]
        self.cursor = len(self.systemd.journal)
        seen = tuple(self.systemd.seen(unit) for unit in self.systemd.units)
        self.take(Resync(seen, tuple(records), True, blind_sec, cause, BOOT, EPOCH))

    def killed(self) -> None:
        """Begin a new session with what the old one stored."""
        self.is_dead, self.is_killed_after = False, 0
        self.memory = Memory(boot=self.memory.boot, roster=self.roster, units=self.memory.units)

    def wake(self) -> None:
        """Let it know that an instant has come."""
        self.take(Wake())


def advance(systemd: ToySystemd, controllers: list[tuple[ToyController, Iterator[int]]], sec: float) -> None:
    """Let time pass, and everybody do what is due."""
    end = systemd.now + sec
    for _ in range(400):
        for controller, noise in controllers:
            controller.hear(noise)
        instants = [systemd.next_due()]
        instants += [c.memory.wake_at() for c, _ in controllers if not c.is_dead]
        due = min((at for at in instants if 0 < at <= end), default=0.0)
        systemd.advance(max(systemd.now, due) if due else max(systemd.now, end))
        for controller, noise in controllers:
            controller.hear(noise)
            if 0 < controller.memory.wake_at() <= systemd.now:
                controller.wake()
        if not due:
            return
    raise AssertionError("never comes to rest")


def _perturbed(signals: list[Signal], noise: Iterator[int]) -> list[Signal]:
    """Return what arrives: some are lost, told again, or swapped with the next."""
    arrive: list[Signal] = []
    late: Signal | None = None
    for signal in signals:
        chance = next(noise) % 16
        if chance == 1:
            continue
        if chance in (2, 3):
            arrive.append(signal)
        if chance == 4 and isinstance(signal, (Seen, JobRemoved, Gone)):
            late, signal = signal, late  # noqa: PLW2901
            if signal is None:
                continue
        arrive.append(signal)
        if late is not None and chance > 4:
            arrive.append(late)
            late = None
    return arrive if late is None else [*arrive, late]
