"""The desk on which one decision is made: memory as it becomes, and the actions so far.

Owns the copy-on-write: what `decide` is given is never changed, and a decision that changes no unit copies
nothing (a copy of 1,000 units takes some microseconds, a storm is thousands of events a second). Knows no
rule of the policy. Rule: every change of a unit goes through `put`, so that `blocked` is always in step.
"""

from __future__ import annotations

from sysresp.controller.events import Action, Decision, Exit, Member, Memory, Roster, Row, UnitMemory, Wait

NEW = UnitMemory()


class Draft:
    """Memory that is being changed, for the length of one call of `decide`."""

    __slots__ = ("actions", "changed", "gone", "memory", "now")

    def __init__(self, memory: Memory, now: float) -> None:
        self.memory = memory
        self.now = now
        self.changed: dict[str, UnitMemory] = {}
        self.gone: set[str] = set()
        self.actions: list[Action] = []

    @property
    def roster(self) -> Roster:
        """Return what there is to look after."""
        return self.memory.roster

    def member(self, unit: str) -> Member | None:
        """Return the member of this name, None for a unit that the roster does not have."""
        return self.memory.roster.members.get(unit)

    def get(self, unit: str) -> UnitMemory | None:
        """Return what is known of the unit so far."""
        found = self.changed.get(unit)
        if found is None and unit not in self.gone:
            found = self.memory.units.get(unit)
        return found

    def put(self, unit: str, known: UnitMemory) -> None:
        """Remember this of the unit from now on."""
        before = self.get(unit)
        if known == before:
            return
        self.gone.discard(unit)
        self.changed[unit] = known
        is_blocked = known.wait is Wait.BLOCKED
        if is_blocked != (unit in self.memory.blocked):
            blocked = self.memory.blocked | {unit} if is_blocked else self.memory.blocked - {unit}
            self.memory = self.memory._replace(blocked=blocked)

    def forget(self, unit: str) -> None:
        """Remember nothing of the unit."""
        self.changed.pop(unit, None)
        self.gone.add(unit)
        if unit in self.memory.blocked:
            self.memory = self.memory._replace(blocked=self.memory.blocked - {unit})

    def act(self, *actions: Action) -> None:
        """Have this done, after what was asked for before."""
        self.actions += actions

    def refate(self, unit: str, known: UnitMemory, because: str = "", due: float = 0.0) -> None:
        """Give the row of the last run, which is in the ledger, the fate that memory has for it now."""
        if known.invocation and known.is_ended:
            row = Exit(unit, known.invocation, fate=known.fate, because=because, retry_at=self.wall(due))
            self.act(Row(row))

    def wall(self, instant: float) -> float:
        """Return the seconds since the epoch of an instant; 0 if it is 0, or the offset is unknown."""
        offset = self.memory.wall_offset
        return instant + offset if instant and offset else 0.0

    def decision(self) -> Decision:
        """Return what has been decided."""
        memory = self.memory
        if self.changed or self.gone:
            units = dict(memory.units)
            units.update(self.changed)
            for unit in self.gone:
                units.pop(unit, None)
            memory = memory._replace(units=units)
        return Decision(memory, tuple(self.actions))
