"""`sysresp report`: how the services did in a time, from the ledger, systemd and the journal.

Owns the gathering, and where the report goes; changes nothing. Works for any user; what may not be read is
said to be missing. Rule: the journal is read once, and the ledger unit by unit, so that no more than one
unit's rows are in memory.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

from sysresp.cli import hosts, remembered, report_facts, report_forms, since, status, terminal
from sysresp.cli.boundary import usage
from sysresp.cli.incidents import NO_LEDGER
from sysresp.cli.report_facts import Most, Named, Report
from sysresp.controller.availability import Hole, Live
from sysresp.controller.events import Note, UnitMemory
from sysresp.controller.reader import Reader
from sysresp.controller.tables import LedgerTrouble, Told
from sysresp.controller.wall import hole
from sysresp.errors import Exit as Status
from sysresp.errors import SysrespError
from sysresp.model import Mode, Scope
from sysresp.ports import Host, Question
from sysresp.reconcile.lock import stamp
from sysresp.reconcile.manifest import Manifest
from sysresp.reconcile.names import select

USUAL = "7d"
MOST_LINES = 30_000  # of the journal: half a second
_UNIT = ("InvocationID", "ActiveState", "SubState", "InactiveExitTimestamp", "ActiveEnterTimestamp")
_SERVICE = (
    *("MainPID", "ExecMainStartTimestamp", "ExecMainStartTimestampMonotonic"),
    *("MemoryPeak", "MemoryCurrent", "MemoryMax", "TasksCurrent", "TasksMax"),
)


class Asked(NamedTuple):
    """What the command line asks for."""

    names: Sequence[str] = ()
    project: str = ""
    scope: Scope = Scope.SYSTEM
    since: str = ""
    html: str = ""  # a file
    json: bool = False
    markdown: bool = False
    journal: bool = True
    colour: bool = True


def run(asked: Asked) -> int:
    """Write the report."""
    if sum((bool(asked.html), asked.json, asked.markdown)) > 1:
        raise usage("--html, --json and --markdown exclude each other")
    gc.disable()  # 100,000 rows make no cycles, and looking for some takes longer than all the rest
    try:
        return _write(asked, gather(asked))
    finally:
        gc.enable()


def _write(asked: Asked, report: Report) -> int:
    if not report.services:
        print("there are no services here", file=sys.stderr)
    if asked.html:
        from sysresp.cli import report_html  # noqa: PLC0415 - Jinja, for those who want it

        page = report_html.page(report)
        if asked.html != "-":
            Path(asked.html).write_text(page, encoding="utf-8", errors="backslashreplace")
            return Status.OK
        sys.stdout.write(page)
    elif asked.json:
        print(report_forms.as_json(report))
    elif asked.markdown:
        sys.stdout.write(report_forms.markdown(report))
    elif report.services:
        out = sys.stdout
        colour = terminal.has_colour(out, wanted=asked.colour)
        for line in report_forms.text(report, terminal.width(out), terminal.cut_mark(out), colour=colour):
            print(line)
    return Status.OK


def gather(asked: Asked) -> Report:
    """Return the report; SysrespError for a name that no project has, or a ledger that cannot be read."""
    host = hosts.host(asked.scope, Mode.PERSISTENT)
    now = remembered.Now(host.clock.now(), host.clock.monotonic())
    begin = since.parse(asked.since or USUAL, now.when)
    if begin >= now.when:
        raise usage(f'--since: "{asked.since}" is not in the past')
    path = remembered.ledger(asked.scope.value, os.environ)
    units = _units(asked)
    remarks = [] if path else [NO_LEDGER]
    heard = {}
    if asked.journal and units:
        lines, is_whole = host.journal.scan(units, begin, MOST_LINES)
        heard = report_facts.hear(lines)
        if not lines:
            remarks.append("the journal tells nothing of them: perhaps you may not read it")
        elif not is_whole:
            begun = stamp(lines[0].at)
            remarks.append(f"of the journal only the last {len(lines)} lines were read, since {begun}")
    found = []
    try:
        with Reader(path) if path else nullcontext() as reader:
            known = reader.stored().units if reader is not None else {}
            holes = _holes(reader)
            if any(end > begin for _, end in holes):
                remarks.append("the clock was set: times that it never showed, or showed twice, are unknown")
            for one in _named(asked, host, now, known):
                told = _told(reader, one.unit, begin)
                of_unit = heard.get(one.unit, report_facts.Heard())
                found.append(report_facts.service(one, told, of_unit, begin, now.when, holes))
    except LedgerTrouble as trouble:
        raise SysrespError(trouble.why) from trouble
    return Report(begin, now.when, report_facts.in_order(found), tuple(remarks))


def _owned(asked: Asked) -> list[Manifest]:
    """Return the projects that are meant; the controller's own only by its name."""
    found = hosts.manifests(asked.scope, asked.project)
    return [one for one in found if hosts.can_mean(one.project, asked.project)]


def _units(asked: Asked) -> list[str]:
    owned = _owned(asked)
    if asked.project and not owned:
        raise SysrespError(f'the project "{asked.project}" is not applied here', exit=Status.UNKNOWN)
    return [unit.name for _, units in select(owned, asked.names) for unit in units if unit.main]


def _told(reader: Reader | None, unit: str, begin: float) -> list[Told]:
    """Return the exits of one unit since then, and the last before: all units' at once would be 100 MB."""
    if reader is None:
        return []
    return [*reader.told((unit,), until=begin, limit=1), *reader.told((unit,), since=begin)]


def _holes(reader: Reader | None) -> list[Hole]:
    """Return the times of which the clock knows nothing, for it was set."""
    notes = [one.what for one in reader.notes("clock")] if reader is not None else []
    return [hole(note) for note in notes if isinstance(note, Note)]


def _named(asked: Asked, host: Host, now: remembered.Now, known: Mapping[str, UnitMemory]) -> list[Named]:
    """Return the units as they are now."""
    owned = _owned(asked)
    several = len({manifest.project for manifest in owned}) > 1
    found: list[Named] = []
    for manifest, units in select(owned, asked.names):
        shown = status.look(manifest, units, host.manager, now.epoch(0.0))
        remembered.remember(shown, known, now)
        of_project = [row.observed.name for row in shown]
        questions = [Question(unit, "Unit", _UNIT) for unit in of_project]
        questions += [Question(unit, "Service", _SERVICE) for unit in of_project]
        said = host.manager.many_properties(questions)
        both = zip(shown, said[: len(shown)], said[len(shown) :], strict=True)
        found += [
            Named(
                row.observed.name,
                f"{row.project}: {row.name}" if several else row.name,
                row.name,
                row.project,
                row.state,
                row.well,
                _live(unit | service, known.get(row.observed.name), now),
                report_facts.use(service, ("MemoryPeak", "MemoryCurrent"), "MemoryMax"),
                report_facts.use(service, ("TasksCurrent",), "TasksMax"),
                _start(unit),
            )
            for row, unit, service in both
        ]
    return found


def _live(said: Mapping[str, object], memory: UnitMemory | None, now: remembered.Now) -> Live:
    """Return whether a run goes on, and whether the ledger is in step with that."""
    began = 0.0
    if said.get("MainPID"):
        monotonic = _seconds(said.get("ExecMainStartTimestampMonotonic"))
        began = _seconds(said.get("ExecMainStartTimestamp"))
        if not 0 < began <= now.when:  # the clock was set back since
            began = now.epoch(monotonic)
    elif (said.get("ActiveState"), said.get("SubState")) == ("active", "running"):
        began = _seconds(said.get("ActiveEnterTimestamp"))  # one of which systemd knows no main process
    if memory is None:
        return Live(began, is_known=False)
    if began:
        is_same = not memory.is_ended and memory.invocation == said.get("InvocationID")
        return Live(began, is_known=is_same)
    return Live(0.0, is_known=memory.is_ended)


def _start(said: Mapping[str, object]) -> Most:
    begin, end = (_seconds(said.get(name)) for name in ("InactiveExitTimestamp", "ActiveEnterTimestamp"))
    return Most(end - begin, end) if 0 < begin <= end else Most()


def _seconds(microseconds: object) -> float:
    is_set = isinstance(microseconds, int) and 0 < microseconds < 1 << 63
    return microseconds / 1e6 if is_set and isinstance(microseconds, int) else 0.0
