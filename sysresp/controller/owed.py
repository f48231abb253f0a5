"""What belongs into the ledger and is not there yet.

Owns the trouble with a ledger that cannot be written: everything is kept, in order, until it can be, and
that is said once. Decides nothing. The rule: what is kept is bounded, the newest is kept, and what had to go
is told by its number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from sysresp.controller.events import Exit, Memory, Note, UnitMemory
from sysresp.controller.incident_rows import StoredAlarm, Verdict, statements
from sysresp.controller.incidents import Incident
from sysresp.controller.tables import LedgerTrouble, Rows
from sysresp.controller.telling import Message

MOST = 20_000  # rows, and notes, that are kept


class Store(Protocol):
    """What the loop needs of `ledger.Ledger`."""

    alarm: StoredAlarm | None  # what is known of incidents since it was opened; None: nothing

    def commit(  # noqa: PLR0917
        self,
        rows: Sequence[Exit],
        notes: Sequence[Note],
        units: Mapping[str, UnitMemory | None],
        meta: Mapping[str, str] = ...,
        cursor: str | None = ...,
        when: float = ...,
        late: Sequence[Exit] = ...,
        statements: Sequence[Rows] = ...,
    ) -> None: ...

    def prune(self, keep_sec: float, keep_bytes: int, when: float) -> bool: ...


class Owed:
    """A ledger, and what waits for it."""

    def __init__(self, ledger: Store, facts: Mapping[str, str], log: Callable[[int, str], None]) -> None:
        """`facts` are about this process, for `sysresp controller status`; they may be added to."""
        self._ledger = ledger
        self._log = log
        self.facts = dict(facts)
        self.trouble = ""  # why it cannot be written, "" while it can
        self.written = 0  # rows and notes so far; who lets some go sets it back
        self._begin()
        self.meta |= self.facts

    def _begin(self) -> None:
        self.rows: list[Exit] = []
        self.late: list[Exit] = []
        self.notes: list[Note] = []
        self.units: dict[str, UnitMemory | None] = {}
        self.meta: dict[str, str] = {}
        self.cursor: str | None = None
        self.incidents: dict[int, Incident] = {}
        self.messages: list[Message] = []
        self.verdicts: list[Verdict] = []

    def pay(self, memory: Memory, cursor: str, when: float, incidents: Mapping[int, Incident]) -> bool:
        """Write it all, and return whether nothing is owed any more.

        `memory`, `cursor` and the open `incidents` are for a ledger that turns out to be a new one.
        """
        alarm = (self.incidents, self.messages, self.verdicts)
        first = (self.rows, self.late, self.notes, self.units, self.meta, self.cursor is not None)
        if not any(first) and not any(alarm):
            return True
        try:
            self._ledger.commit(
                *(self.rows, self.notes, self.units, self.meta, self.cursor, when, self.late),
                statements(*alarm),
            )
        except LedgerTrouble as trouble:
            if trouble.is_new:  # what was in it is gone, but we know all that it is for
                self.units |= memory.units
                self.meta |= self.facts
                self.cursor = cursor
                self.incidents = {**incidents, **self.incidents}
            lost = self._trim()
            if str(trouble) != self.trouble or lost:
                gone = f"; {lost} exits could not be kept" if lost else ""
                self._log(3, f"{trouble}; going on without it{gone}")
            self.trouble = str(trouble)
            return False
        if self.trouble:
            self._log(5, "the ledger can be written again; nothing was lost meanwhile")
            self.trouble = ""
        self.written += len(self.rows) + len(self.late) + len(self.notes)
        self._begin()
        return True

    def prune(self, keep_sec: float, keep_bytes: int, when: float) -> bool:
        """Let go some of what the ledger is too old or too large for; return whether there is more."""
        try:
            return self._ledger.prune(keep_sec, keep_bytes, when)
        except LedgerTrouble as trouble:
            self._log(4, f"cannot shorten the ledger: {trouble}")
            return False

    def _trim(self) -> int:
        """Let the oldest rows go if there are too many; return how many went."""
        more = max(0, len(self.rows) - MOST)
        for kept in (self.rows, self.late, self.notes, self.messages, self.verdicts):
            del kept[: max(0, len(kept) - MOST)]
        return more


def changes(
    before: Mapping[str, UnitMemory], after: Mapping[str, UnitMemory]
) -> dict[str, UnitMemory | None]:
    """Return the units of which the memory is another one now, None for those that were forgotten."""
    if before is after:
        return {}
    found: dict[str, UnitMemory | None] = {
        name: unit for name, unit in after.items() if before.get(name) is not unit
    }
    found |= dict.fromkeys(before.keys() - after.keys())
    return found
