"""`incidents` and `incidents show N`: failures that belong together, and all there is to say of one.

Owns the words and the JSON for an incident; what it consists of is in the ledger, what its units said in the
journal, and what changed before it in the records of the generations. Changes nothing. Rule: each part that
cannot be read says so, and the others are shown: whoever asks this is in a hurry.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sysresp.cli import history, hosts, sightings, table, terminal
from sysresp.cli.incidents import NO_LEDGER, Asked, View, exit_object
from sysresp.cli.sightings import LEAD_SEC
from sysresp.cli.status_table import stamp as instant
from sysresp.cli.words import plural, span
from sysresp.controller import fingerprint
from sysresp.controller.events import Exit, Member, Roster
from sysresp.controller.fingerprint import Trace
from sysresp.controller.incident_rows import Queued
from sysresp.controller.incidents import Incident, Part
from sysresp.controller.reader import Reader
from sysresp.controller.tables import LedgerTrouble, Told
from sysresp.controller.telling import label, part_object, summary
from sysresp.errors import Exit as Status
from sysresp.errors import SysrespError
from sysresp.model import Mode
from sysresp.reconcile import generations
from sysresp.reconcile.lock import stamp

LINES = 50  # of the journal, for each run that failed
MOST_EXITS = 20
MOST_DIFF = 200


def run(asked: Asked) -> int:
    """Print the incidents, the newest last."""
    view = View(asked)
    roster = _roster(view)
    has_ledger = bool(view.path())
    found = [one for one in _all(view) if _is_meant(one, view)] if has_ledger else []
    shown = found[-asked.lines :] if asked.lines else found
    if asked.json:
        objects = [as_object(one, roster, view.clock.now()) for one in shown]
        print(json.dumps({"version": 1, "incidents": objects}, indent=2))
    for one in () if asked.json else shown:
        print(
            line(one, roster, view.clock.now(), colour=terminal.has_colour(sys.stdout, wanted=asked.colour))
        )
    if not has_ledger:
        print(NO_LEDGER, file=sys.stderr)
    elif not found and not asked.json:
        since = " since then" if asked.since else ""
        print(f"there was no incident{since}; --exits shows what has ended", file=sys.stderr)
    elif len(shown) < len(found) and not asked.json:
        print("there are earlier ones: -n 0 shows all", file=sys.stderr)
    return Status.OK


def _all(view: View) -> list[Incident]:
    """Return the incidents that were no part of another, oldest first."""
    try:
        with Reader(view.path()) as reader:
            found = reader.incidents("WHERE resolved = 0 OR resolved >= ? ORDER BY id", (view.since,))
    except LedgerTrouble as trouble:
        raise SysrespError(trouble.why) from trouble
    return [one for one in found if not one.into]


def _is_meant(one: Incident, view: View) -> bool:
    return not view.units or not set(view.units).isdisjoint(one.units())


def _roster(view: View) -> Roster:
    """Return the names of the units that are applied here."""
    members = {}
    for manifest in hosts.manifests(view.asked.scope):
        for unit in manifest.units:
            members[unit.name] = Member(unit.name, manifest.project, unit.service, unit.instance)
    return Roster(members)


def state(one: Incident) -> str:
    """Return the state of an incident in a word; part of `--json`."""
    if one.into:
        return "merged"
    return "resolved" if one.resolved else "open"


def line(one: Incident, roster: Roster, now: float, *, colour: bool) -> str:
    """Return an incident as a line."""
    lasted = span((one.resolved or now) - one.opened)
    how = f"over after {lasted}" if one.resolved else f"for {lasted} now"
    many = f", {plural(one.failures(), 'failure')}" if one.failures() else ""
    mark = terminal.GREEN if one.resolved else terminal.RED
    head = terminal.paint(f"{one.id:>4}  {state(one):<8}", mark, on=colour)
    return f"{head}  {stamp(one.opened)}  {table.clean(summary(one, roster))}; {how}{many}"


def as_object(one: Incident, roster: Roster, now: float) -> dict[str, object]:
    """Return what `--json` prints of an incident."""
    return {
        "incident": one.id,
        "state": state(one),
        "merged_into": one.into or None,
        "unit": one.root,
        "service": label(one.root, roster),
        "summary": summary(one, roster),
        "opened": instant(one.opened),
        "resolved": instant(one.resolved or None),
        "duration_sec": round((one.resolved or now) - one.opened, 3),
        "failures": one.failures(),
        "units": [part_object(part, roster) for part in one.parts],
        "told": [
            {
                "alert": name,
                "opened": instant(told.opened or None),
                "escalated": instant(told.escalated or None),
                "resolved": instant(told.resolved or None),
            }
            for name, told in one.told.items()
        ],
    }


def show(asked: Asked, number: int) -> int:
    """Print all about one incident."""
    view = View(asked)
    roster = _roster(view)
    if not view.path():
        raise SysrespError(NO_LEDGER, exit=Status.UNKNOWN)
    try:
        with Reader(view.path()) as reader:
            found = reader.incidents("WHERE id = ?", (number,))
            if not found:
                raise SysrespError(f"there is no incident {number}", exit=Status.UNKNOWN)
            one = found[0]
            until = one.resolved + 1 if one.resolved else 0.0
            exits = reader.exits(one.units(), since=one.opened - LEAD_SEC, until=until, limit=MOST_EXITS)
            messages = reader.messages("WHERE incident = ? ORDER BY id", (number,))
            all_ = reader.incidents("ORDER BY id")
    except LedgerTrouble as trouble:
        raise SysrespError(trouble.why) from trouble
    facts = _Facts(view, one, exits, messages, all_)
    if asked.json:
        print(json.dumps({"version": 1, **facts.as_object(roster)}, indent=2))
        return Status.OK
    on = terminal.has_colour(sys.stdout, wanted=asked.colour)
    for text in facts.lines(roster, colour=on):
        print(text)
    return Status.OK


class _Log(NamedTuple):
    """The last words of one run."""

    part: Part
    lines: list[str]
    trace: Trace | None  # of which the program died
    seen: sightings.Seen | None


class _Facts:
    """Everything about one incident; the journal and the records are read when they are asked for."""

    def __init__(
        self,
        view: View,
        one: Incident,
        exits: Sequence[Exit],
        messages: Sequence[Queued],
        incidents: Sequence[Incident],
    ) -> None:
        self.view, self.one, self.exits, self.messages = view, one, exits, messages
        self.incidents = incidents
        self.host = hosts.host(view.asked.scope, Mode.PERSISTENT)

    def logs(self) -> list[_Log]:
        """Return what each failing run said last."""
        tails = [
            (part, self.host.journal.tail(part.unit, LINES, part.run)) for part in self.one.parts if part.run
        ]
        said = None
        if any(fingerprint.last(lines) for _, lines in tails):  # reading all takes half a second
            said = sightings.Sightings(self.incidents, self.host.journal.scan)
        logs = []
        for part, lines in tails:
            trace = (said.of_run(part.unit, part.run) if said else None) or fingerprint.last(lines)
            seen = said.seen(trace.fingerprint, self.one) if said and trace else None
            logs += [_Log(part, lines, trace, seen)] if lines else []
        return logs

    def dumps(self) -> dict[str, list[int]]:
        """Return the processes that dumped core, by unit."""
        one = self.one
        units = {exit.unit for exit in self.exits if exit.exec_code == 3}
        found = {
            unit: self.host.journal.core_dumps(unit, one.opened - LEAD_SEC, one.resolved)
            for unit in sorted(units)
        }
        return {unit: pids for unit, pids in found.items() if pids}

    def change(self) -> tuple[str, list[str]]:
        """Return what was applied last before it began, in a line, and the difference that it made."""
        project = next(
            (n.project for part in self.one.parts if (n := self.view.name(part.unit)).project), ""
        )
        if not project:
            return "", []
        try:
            chosen = history.chosen(project, self.view.asked.scope)[0]
            before = [entry.number for entry in chosen.entries if entry.when <= self.one.opened]
            standing = generations.standing(chosen.entries, max(before, default=0))
            entry = next((entry for entry in chosen.entries if entry.number == standing), None)
            if entry is None:
                return "", []
            ago = span(self.one.opened - entry.when)
            words = f"generation {entry.number} was applied {ago} before, by {table.clean(entry.who)}"
            earlier = generations.standing(chosen.entries, standing - 1)
            if not earlier:
                return f"{words}; it is the first", []
            host = chosen.host
            pair = [generations.load(host.files, host.paths, project, n) for n in (earlier, standing)]
            return f"{words}; since generation {earlier}:", list(history.difference(pair[0], pair[1]))
        except (SysrespError, OSError) as error:
            return f"what was changed before cannot be told: {error}", []

    def lines(self, roster: Roster, *, colour: bool) -> Iterator[str]:
        """Yield what people read."""
        one, now = self.one, self.view.clock.now()
        yield line(one, roster, now, colour=colour)
        if one.into:
            yield f"  it turned out to be a consequence: sysresp incidents show {one.into}"
        yield from self._section("cause", colour=colour)
        for number, part in enumerate(one.parts):
            mark = "  " if number == 0 else "  `- "
            yield table.clean(f"{mark}{label(part.unit, roster)}: {_part(part, roster)}")
        if self.exits:
            yield from self._section("exits", colour=colour)
        for exit in self.exits:
            when, who, what, ran, then = self.view.cells(Told(0, exit.when, exit))
            yield table.clean(f"  {when}  {who}  {what}{f' after {ran}' if ran else ''}; {then}")
        for log in self.logs():
            yield from self._section(f"{label(log.part.unit, roster)}, run {log.part.run}", colour=colour)
            yield from (f"  {text}" for text in log.lines)
            if log.trace is not None:
                yield table.clean(f"  it died of {log.trace.title} (fingerprint {log.trace.fingerprint})")
            if log.seen is not None:
                yield f"  {log.seen.words()}"
        for unit, pids in self.dumps().items():
            yield from self._section(f"core dumps of {unit}", colour=colour)
            yield from (f"  coredumpctl info {pid}" for pid in pids)
        words, changed = self.change()
        if words:
            yield from self._section("last change", colour=colour)
            yield f"  {words}"
            yield from (f"  {table.clean(text)}" for text in changed[:MOST_DIFF])
        if self.messages:
            yield from self._section("told", colour=colour)
        for queued in self.messages:
            yield f"  {message_line(queued)}"

    @staticmethod
    def _section(title: str, *, colour: bool) -> Iterator[str]:
        yield ""
        yield terminal.paint(f"{table.clean(title)}:", terminal.BOLD, on=colour)

    def as_object(self, roster: Roster) -> dict[str, object]:
        """Return what `--json` prints."""
        words, changed = self.change()
        logs = self.logs()
        return {
            **as_object(self.one, roster, self.view.clock.now()),
            "exits": [exit_object(exit, self.view.name(exit.unit)) for exit in self.exits],
            "logs": [{**_run_object(log.part), "lines": log.lines} for log in logs],
            "fingerprints": [
                {**_run_object(log.part), **_trace_object(log.trace, log.seen)}
                for log in logs
                if log.trace is not None
            ],
            "core_dumps": [{"unit": unit, "pids": pids} for unit, pids in self.dumps().items()],
            "last_change": {"text": words, "diff": changed} if words else None,
            "messages": [message_object(queued) for queued in self.messages],
        }


def _run_object(part: Part) -> dict[str, object]:
    return {"unit": part.unit, "invocation": part.run}


def _trace_object(trace: Trace, seen: sightings.Seen | None) -> dict[str, object]:
    return {
        "times": seen.times if seen else None,
        "first": instant(seen.first if seen else None),
        "other_incidents": list(seen.others) if seen else [],
        "read_since": instant((seen.read_since if seen else None) or None),
        "fingerprint": trace.fingerprint,
        "language": trace.language,
        "kind": trace.kind,
        "message": trace.message,
    }


def _part(part: Part, roster: Roster) -> str:
    words = part.why or "down"
    if part.waits_for:
        words += f" ({', '.join(label(unit, roster) for unit in part.waits_for)})"
    if part.failures:
        words += f"; {plural(part.failures, 'failure')}, the last: {part.exit or 'unknown'}"
    return words


def message_line(queued: Queued) -> str:
    """Return a message and what has become of it, as a line."""
    message = queued.message
    end = f" {stamp(queued.tried)[11:]}" if queued.state == "delivered" else ""
    tries = f" after {queued.tries} tries" if queued.tries > 1 else ""
    why = f": {queued.why}" if queued.why else ""
    head = f"{stamp(message.at)}  {message.receiver}  {message.kind:<9} incident {message.incident}"
    return table.clean(f"{head}  {queued.state}{end}{tries}{why}")


def message_object(queued: Queued) -> dict[str, object]:
    """Return what `--json` prints of a message."""
    message = queued.message
    return {
        "alert": message.receiver,
        "incident": message.incident,
        "kind": message.kind,
        "key": message.key,
        "made": instant(message.at),
        "due": instant(message.due),
        "state": queued.state,
        "tries": queued.tries,
        "last_try": instant(queued.tried or None),
        "why": queued.why or None,
    }
