"""`incidents --exits` and `events`: what is in the ledger, as lines and as JSON.

Owns the words for an exit and for what follows it, which `why` uses, too; changes nothing. Rule: what is not
known is said to be unknown, and a row whose details are gone says so: the count is exact even then.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sysresp.cli import hosts, remembered, since, table, terminal
from sysresp.cli.status_table import stamp as instant
from sysresp.cli.words import DUMPED, EXITED, KILLED, signal_name, span
from sysresp.controller.events import Exit, Fate, Note
from sysresp.controller.reader import BEGIN, Place, Reader
from sysresp.controller.tables import LedgerTrouble, Told
from sysresp.errors import Exit as Status
from sysresp.errors import SysrespError
from sysresp.model import Mode, Scope
from sysresp.reconcile.explain import result_words
from sysresp.reconcile.lock import stamp
from sysresp.reconcile.manifest import Manifest
from sysresp.reconcile.names import select

POLL_SEC = 0.25
BLOCKED = "blocked"  # the kind of the notes that are incidents: a start that another unit prevented
NO_LEDGER = "there is no ledger here: no controller has run (sysresp controller enable)"

_COLUMNS = (
    table.Column("WHEN", floor=8),
    table.Column("SERVICE", floor=8),
    table.Column("WHAT", floor=12),
    table.Column("AFTER", drop=2),
    table.Column("THEN", floor=10),
)
_COLOURS = {
    Fate.RETRY: terminal.YELLOW,
    Fate.GAVE_UP: terminal.RED,
    Fate.BLOCKED: terminal.RED,
    Fate.STOPPED_BY_US: terminal.RED,
}


class Asked(NamedTuple):
    """What the command line asks for."""

    names: Sequence[str] = ()
    project: str = ""
    scope: Scope = Scope.SYSTEM
    since: str = ""
    lines: int = 50  # 0: all
    json: bool = False
    colour: bool = True


class Named(NamedTuple):
    """How a person calls a unit."""

    project: str = ""
    service: str = ""
    instance: str = ""

    def __str__(self) -> str:
        return f"{self.service}@{self.instance}" if self.instance else self.service


def is_bare(one: Exit) -> bool:
    """Say whether nothing but the count is known of it."""
    return one.source == "count" and not one.result and not one.exec_code


def exit_words(one: Exit) -> str:
    """Return how the run ended."""
    if is_bare(one):
        return "it ended; the details are gone from the journal"
    how = result_words(one.result, one.exec_code, one.exec_status)
    if not how and one.exec_code == EXITED:
        how = f"exit status {one.exec_status}"
    if not how and one.exec_code in {KILLED, DUMPED}:
        how = f"killed by {signal_name(one.exec_status)}"
    return how or ("it ended" if one.invocation else "it did not start")


def fate_words(one: Exit, now: float) -> str:
    """Return what follows the exit, with the reason."""
    words = str(one.fate.value)
    if one.fate is Fate.UNKNOWN:
        return "what followed is unknown"
    if one.fate is Fate.RETRY and one.retry_at:
        words += (
            f" in {span(one.retry_at - now)}"
            if one.when <= now < one.retry_at - 1  # else the clock was set back since
            else f" at {stamp(one.retry_at)[11:]}"
        )
    if one.because:
        words += f" by {one.because}" if one.fate is Fate.BLOCKED else f": {one.because}"
    return words


def exit_object(one: Exit, name: Named) -> dict[str, object]:
    """Return what `--json` prints of an exit."""
    ended_by_signal = one.exec_code in {KILLED, DUMPED}
    return {
        "kind": "exit",
        "unit": one.unit,
        **_named(name),
        "invocation": one.invocation,
        "when": instant(one.when or None),
        "what": exit_words(one),
        "result": one.result or None,
        "exit_code": one.exec_status if one.exec_code == EXITED else None,
        "signal": signal_name(one.exec_status) if ended_by_signal else None,
        "core_dump": one.exec_code == DUMPED,
        "fate": one.fate.value,
        "retry_at": instant(one.retry_at or None),
        "because": one.because or None,
        "attempt": one.attempt or None,
        "uptime_sec": round(one.uptime_sec, 3) if one.uptime_sec else None,
        "memory_peak_bytes": one.memory_peak or None,
        "generation": one.generation or None,
        "source": one.source,
    }


def note_object(one: Note, name: Named) -> dict[str, object]:
    """Return what `--json` prints of a note."""
    return {
        "kind": one.kind,
        "unit": one.unit or None,
        **_named(name),
        "when": instant(one.when or None),
        "what": one.text,
    }


def _named(name: Named) -> dict[str, object]:
    return {
        "project": name.project or None,
        "service": name.service or None,
        "instance": name.instance or None,
    }


class View:
    """The ledger as one call sees it: which units, how they are called."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.clock = hosts.host(asked.scope, Mode.PERSISTENT).clock
        self.since = since.parse(asked.since, self.clock.now())
        owned = hosts.manifests(asked.scope, asked.project)
        self.units = _units(owned, asked)
        self._names = {
            unit.name: Named(one.project, unit.service, unit.instance) for one in owned for unit in one.units
        }
        self._has_projects = len({one.project for one in owned}) > 1

    def path(self) -> str:
        return remembered.ledger(self.asked.scope.value, os.environ)

    def name(self, unit: str) -> Named:
        return self._names.get(unit, Named())

    def label(self, unit: str) -> str:
        """Return how the unit is called in a line."""
        name = self.name(unit)
        if not name.service:
            return unit or "(controller)"
        return f"{name.project}: {name}" if self._has_projects else str(name)

    def as_object(self, told: Told) -> dict[str, object]:
        name = self.name(told.what.unit)
        return exit_object(told.what, name) if isinstance(told.what, Exit) else note_object(told.what, name)

    def cells(self, told: Told) -> tuple[str, ...]:
        """Return the columns of one line."""
        what, when = told.what, stamp(told.at)
        if isinstance(what, Note):
            return (
                when,
                self.label(what.unit),
                f"{what.kind}: {what.text}" if what.text else what.kind,
                "",
                "",
            )
        ran = span(what.uptime_sec) if what.uptime_sec else ""
        then = fate_words(what, self.clock.now())
        return when if what.when else f"before {when}", self.label(what.unit), exit_words(what), ran, then


def _units(owned: Sequence[Manifest], asked: Asked) -> tuple[str, ...]:
    """Return the units to look for, () for all that the ledger has; SysrespError for a name that is none."""
    if not asked.names and not asked.project:
        return ()
    found = [unit.name for _, units in select(owned, asked.names) for unit in units if unit.service]
    if not found:
        raise SysrespError(f'the project "{asked.project}" is not applied here', exit=Status.UNKNOWN)
    return tuple(found)


def exits(asked: Asked) -> int:
    """Print the exits and the starts that were prevented, the newest last."""
    view = View(asked)
    has_ledger = bool(view.path())
    one_more = asked.lines + bool(asked.lines)
    told = _read(view, BEGIN, kinds=(BLOCKED,), limit=one_more)[0] if has_ledger else []
    shown = told[-asked.lines :]
    if asked.json:
        print(json.dumps({"version": 1, "exits": [view.as_object(one) for one in shown]}, indent=2))
    elif shown:
        _table(view, shown)
    if not has_ledger:
        print(NO_LEDGER, file=sys.stderr)
    elif not told and not asked.json:
        print("nothing has ended" + (" since then" if asked.since else ""), file=sys.stderr)
    elif len(shown) < len(told) and not asked.json:
        print("there are earlier ones: -n 0 shows all", file=sys.stderr)
    return Status.OK


def _table(view: View, shown: Sequence[Told]) -> None:
    colour = terminal.has_colour(sys.stdout, wanted=view.asked.colour)

    def paint(row: int, column: int, padded: str) -> str:
        if row < 0:
            return terminal.paint(padded, terminal.BOLD, on=True)
        what = shown[row].what
        mine = _COLOURS.get(what.fate, "") if isinstance(what, Exit) else terminal.RED
        return terminal.paint(padded, mine, on=bool(mine)) if column == len(_COLUMNS) - 1 else padded

    cells = [view.cells(one) for one in shown]
    width, mark = terminal.width(sys.stdout), terminal.cut_mark(sys.stdout)
    lines = (
        table.lines(_COLUMNS, cells, width, mark, paint)
        if colour
        else table.lines(_COLUMNS, cells, width, mark)
    )
    print("\n".join(lines))


def events(asked: Asked, *, follow: bool) -> int:
    """Print everything that the ledger tells, the newest last; with `follow` go on until Ctrl-C."""
    view = View(asked)
    place = BEGIN
    if view.path():
        told, place = _read(view, BEGIN, limit=asked.lines)
        _say(view, told)
    elif not follow:
        print(NO_LEDGER, file=sys.stderr)
    if follow:
        try:
            _follow(view, place)
        except KeyboardInterrupt:  # how this ends
            return Status.OK
    return Status.OK


def _follow(view: View, place: Place) -> None:
    """Print what comes after that place, for ever: the ledger may come later, or be begun anew."""
    reader: Reader | None = None
    opened: tuple[int, int] | None = None
    while True:
        view.clock.sleep(POLL_SEC)
        found = _identity(view.path())
        if reader is not None and found != opened:
            reader.close()
            reader, place = None, BEGIN
        if reader is None and found is not None:
            place = place if opened in {None, found} else BEGIN
            reader, opened = Reader(view.path()), found
        if reader is not None and _changed(reader):
            told, place = _told(view, reader, place, limit=0)
            _say(view, told)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(path) if path else None
    except OSError:
        return None
    return None if found is None else (found.st_dev, found.st_ino)


def _changed(reader: Reader) -> bool:
    try:
        return reader.has_changed()
    except LedgerTrouble:
        return False  # it is being made, or moved aside


def _read(view: View, after: Place, *, kinds: Sequence[str] = (), limit: int) -> tuple[list[Told], Place]:
    with Reader(view.path()) as reader:
        return _told(view, reader, after, kinds=kinds, limit=limit)


def _told(
    view: View, reader: Reader, after: Place, *, kinds: Sequence[str] = (), limit: int
) -> tuple[list[Told], Place]:
    try:
        return reader.events(view.units, kinds=kinds, since=view.since, after=after, limit=limit)
    except LedgerTrouble as trouble:
        raise SysrespError(trouble.why) from trouble


def _say(view: View, told: Sequence[Told]) -> None:
    for line in _json_lines(view, told) if view.asked.json else _lines(view, told):
        print(line)
    sys.stdout.flush()


def _json_lines(view: View, told: Sequence[Told]) -> Iterator[str]:
    for one in told:
        yield json.dumps({"version": 1, **view.as_object(one)})


def _lines(view: View, told: Sequence[Told]) -> Iterator[str]:
    for one in told:
        when, who, what, ran, then = view.cells(one)
        if ran:
            what += f" after {ran}"
        yield table.clean(f"{when}  {who}  {what}" + (f"; {then}" if then else ""))
