"""`sysresp logs`: what services printed, and what became of them, in one stream.

Owns which units are meant, how far back it goes, and the end: Ctrl-C, a reader that went away. Reads by
`systemd.logs`, shows by `log_text`. Rule: what has come is shown at once, a batch in one write.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from contextvars import ContextVar
from typing import NamedTuple, Protocol

from sysresp.cli import hosts, log_text, since, terminal
from sysresp.cli.act import chosen
from sysresp.cli.boundary import usage
from sysresp.errors import Exit
from sysresp.model import Scope
from sysresp.systemd.logs import LINE, JournalLogs, LogEntry, Wanted

LINES = 50
NOT_READABLE = "you may not read all of the journal: be root, or in the group systemd-journal"


class Logs(Protocol):
    """Where the entries come from; as in `JournalLogs`."""

    def is_readable(self) -> bool: ...

    def read(self, wanted: Wanted, reader_of: int = -1, /) -> Generator[list[LogEntry], None, None]: ...


class Asked(NamedTuple):
    """What the command line asks for."""

    names: Sequence[str] = ()
    project: str = ""
    scope: Scope = Scope.SYSTEM
    follow: bool = False
    since: str = ""
    lines: int = -1  # -1: not said
    grep: str = ""
    json: bool = False
    colour: bool = True


open_logs: ContextVar[Callable[[Scope], Logs]] = ContextVar(
    "open_logs", default=lambda scope: JournalLogs(user=scope is Scope.USER)
)


def run(asked: Asked) -> int:
    """Print the entries, and return the exit status."""
    names = _names(asked)
    matches = _pattern(asked.grep)
    logs = open_logs.get()(asked.scope)
    begin = since.parse(asked.since, time.time())
    # Who says since when wants all of it.
    lines = asked.lines if asked.lines >= 0 else (-1 if begin else LINES)
    colour = terminal.has_colour(sys.stdout, wanted=asked.colour and not asked.json)
    form = log_text.Objects(names).of if asked.json else log_text.Lines(names, colour=colour).of
    wanted = Wanted(tuple(names), lines, begin, follow=asked.follow)
    if not logs.is_readable():
        print(f"sysresp: {NOT_READABLE}", file=sys.stderr)
    try:
        if matches is not None and lines >= 0:
            wanted = _last(logs, wanted, form, matches)
        if matches is None or wanted.follow or lines < 0:
            _show(logs, wanted, form, matches)
    except KeyboardInterrupt:
        if not asked.follow:
            raise
    return Exit.OK  # Ctrl-C is how following ends


def _names(asked: Asked) -> Mapping[str, log_text.Called]:
    """Return how the units that are meant are called; of no names that is all but the controller's own."""
    found = chosen(asked.names, asked.project, asked.scope)
    if not asked.names:
        found = [one for one in found if hosts.can_mean(one[0].project, asked.project)]
    several = len({manifest.project for manifest, _, _ in found}) > 1
    names = {}
    for manifest, _, units in found:
        for unit in units:
            if not asked.names and not unit.main:
                continue  # a timer, the slice: who wants to hear of them names them
            label = f"{unit.service}@{unit.instance}" if unit.instance else unit.service or unit.name
            label = f"{manifest.project}: {label}" if several else label
            names[unit.name] = log_text.Called(manifest.project, unit.service, unit.instance, label)
    return names


def _pattern(text: str) -> Callable[[str], object] | None:
    """Return what tells whether a text matches; case matters if the pattern has an upper-case letter."""
    if not text:
        return None
    try:
        return re.compile(text, re.IGNORECASE if text == text.lower() else 0).search
    except re.error as error:
        raise usage(
            f"--grep: {error}", "it is a regular expression of Python's: escape what is meant"
        ) from error


def _show(
    logs: Logs,
    wanted: Wanted,
    form: Callable[[LogEntry, str], str],
    matches: Callable[[str], object] | None,
) -> None:
    out = sys.stdout
    with closing(logs.read(wanted, _descriptor() if wanted.follow else -1)) as batches:
        for batch in batches:
            if lines := log_text.select(batch, form, matches):
                out.write("".join(lines))
                out.flush()


def _last(
    logs: Logs, wanted: Wanted, form: Callable[[LogEntry, str], str], matches: Callable[[str], object]
) -> Wanted:
    """Show the last so many that match, and return from where to go on.

    The journal is read from its end, until there are enough.
    """
    found: list[LogEntry] = []
    newest = ""
    began = time.time()
    backwards = wanted._replace(lines=-1, follow=False, newest_first=True)
    with closing(logs.read(backwards)) as batches:
        for batch in batches if wanted.lines or wanted.follow else ():
            newest = newest or (batch[0].cursor if batch else "")
            for entry in batch:
                text = entry.text if entry.kind == LINE else log_text.what(entry)
                if len(found) < wanted.lines and (text or entry.kind == LINE) and matches(text):
                    found.append(entry)
            if len(found) >= wanted.lines and newest:
                break
    sys.stdout.write("".join(log_text.select(found[::-1], form)))
    sys.stdout.flush()
    return wanted._replace(lines=-1, after=newest, since=0.0 if newest else max(began, wanted.since))


def _descriptor() -> int:
    """Return the descriptor whose reader may go away, -1 if there is none."""
    try:
        return sys.stdout.fileno()
    except (OSError, ValueError):
        return -1  # a test's
