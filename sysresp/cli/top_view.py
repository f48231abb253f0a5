"""What `sysresp top` looks like: everything that is shown and a size in, lines out.

Pure: no terminal, no clock, no bus. Rules: as many lines as the terminal has, none wider than it, whatever
services and their reasons are called (`table` measures wide characters); the selected line is never out of
sight; what is left out where it is narrow is what one can do without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sysresp.cli import rows, status_table, table, terminal, words

COLUMNS = (
    table.Column("PROJECT", floor=6, drop=9),
    table.Column("SERVICE", floor=10),
    table.Column("STATE", floor=14),
    table.Column("PROBE", drop=4),
    table.Column("CPU%", drop=3, right=True),
    table.Column("MEMORY", drop=2, right=True),
    table.Column("RESTARTS", drop=1, right=True),
    table.Column("SINCE", drop=5),
    table.Column("PID", drop=7, right=True),
    table.Column("NEXT", drop=6, floor=8),
)
_STATE = 2
_EVENTS = (
    table.Column("TIME"),
    table.Column("SERVICE", floor=8),
    table.Column("WHAT", floor=10),
    table.Column("THEN", floor=8, drop=1),
)
_LEAST = 8  # lines of a body that is shared with events
_KEYS = "arrows select  r restart  l logs  w why  o order  q quit  ? help"
_PROBE = {True: "ok", False: "fails", None: ""}
HELP = (
    "up, down, j, k     select a service",
    "page up, page down a page at a time",
    "g, G, home, end    the first, the last",
    "r                  restart it (asks first), and wait until it is ready",
    "l                  its logs, followed; Ctrl-C comes back",
    "w, enter           why it is as it is",
    "o                  order: what is not well first, or as in the file",
    "q, Ctrl-C          quit",
    "",
    "CPU% is of one processor, over the last seconds. NEXT is when it is started",
    "again, when it runs next, or where it listens. Below are the last events of",
    "the controller's ledger; without one, what was seen since this began.",
)


class Use(NamedTuple):
    """What a service uses just now; None: unknown."""

    cpu: float | None = None  # percent of one processor
    memory: int | None = None


class Event(NamedTuple):
    """One thing that happened."""

    time: str
    who: str
    what: str
    then: str = ""
    is_bad: bool = False


class Overlay(NamedTuple):
    """A text in front of everything: help, why."""

    title: str
    lines: Sequence[str]
    first: int = 0  # the first line that is shown


class View(NamedTuple):
    """Everything that is shown."""

    shown: Sequence[rows.Row] = ()
    use: Mapping[str, Use] = {}  # by unit
    events: Sequence[Event] = ()  # the newest last
    now: float = 0.0
    selected: str = ""  # unit
    first: int = 0  # the first row that was shown last time
    message: str = ""  # a question, or what became of an order; instead of the keys
    trouble: str = ""  # what is wrong with this view itself
    overlay: Overlay | None = None


class Size(NamedTuple):
    """Of the terminal."""

    width: int
    height: int


class Form(NamedTuple):
    """What the terminal can show."""

    colour: bool = True
    mark: str = "…"


def room(view: View, size: Size) -> tuple[int, int]:
    """Return how many lines there are for services and for events (with their heading)."""
    body = max(1, size.height - 3)
    if body < _LEAST or not view.events:
        return body, 0
    events = min(len(view.events) + 1, max(body // 3, body - max(1, len(view.shown))))
    return body - events, events


def scrolled(view: View, height: int) -> int:
    """Return the first row to show, so that the selected one is in sight and little moves."""
    most = max(0, len(view.shown) - height)
    at = index(view)
    return max(
        0, min(view.first, at, most) if at < view.first else min(max(view.first, at - height + 1), most)
    )


def index(view: View) -> int:
    """Return the place of the selected row, 0 if it is gone."""
    names = [row.observed.name for row in view.shown]
    return names.index(view.selected) if view.selected in names else 0


def visible(view: View, size: Size) -> Sequence[rows.Row]:
    """Return the rows that are in sight."""
    height, _ = room(view, size)
    first = scrolled(view, height)
    return view.shown[first : first + height]


def draw(view: View, size: Size, form: Form) -> list[str]:
    """Return the whole screen, line by line, without newlines."""
    if view.overlay is not None:
        out = _overlay(view.overlay, size, form)
    else:
        height, below = room(view, size)
        services = _services(view, size, form)[: height + 1]
        services += [""] * (height + 1 - len(services))
        out = [
            _title(view, size, form),
            *services,
            *_events(view, below, size, form),
            _foot(view, size, form),
        ]
    out += [""] * (size.height - len(out))
    return out[: size.height]


def _title(view: View, size: Size, form: Form) -> str:
    bad = sum(not row.well for row in view.shown)
    text = f"sysresp: {words.plural(len(view.shown), 'service')}"
    text += f", {bad} not well" if bad else ", all well" if view.shown else ""
    if view.trouble:
        text += f"; {view.trouble}"
    text = table.shorten(table.clean(text), size.width, form.mark)
    colour = terminal.RED if bad or view.trouble else terminal.GREEN
    return terminal.paint(text, f"{terminal.BOLD};{colour}" if form.colour else terminal.BOLD, on=True)


def _services(view: View, size: Size, form: Form) -> list[str]:
    """Return the heading and the rows in sight."""
    seen = visible(view, size)
    if not seen:
        return [table.shorten("nothing is applied here: sysresp apply services.toml", size.width, form.mark)]
    several = len({row.project for row in view.shown}) > 1
    chosen = index(view) - scrolled(view, room(view, size)[0])

    def paint(row: int, column: int, text: str) -> str:
        if row == chosen:
            return text
        if row < 0:
            return terminal.paint(text, terminal.BOLD, on=True)
        colour = status_table.COLOURS[seen[row].level] if column == _STATE else ""
        return terminal.paint(text, colour, on=form.colour and bool(colour))

    cells = [_cells(row, view.use.get(row.observed.name, Use()), view.now, several) for row in seen]
    lines = table.lines(COLUMNS, cells, size.width, form.mark, paint)
    if 0 <= chosen < len(seen):
        line = lines[chosen + 1]
        line += " " * (size.width - table.width_of(line))
        lines[chosen + 1] = f"\033[7m{line}\033[0m"
    return lines


def _cells(row: rows.Row, use: Use, now: float, several: bool) -> tuple[str, ...]:
    is_up = row.observed.active in {"active", "activating", "deactivating", "reloading"}
    memory = use.memory if use.memory is not None else row.memory
    return (
        row.project if several else "",
        row.name,
        row.state + (f": {row.reason}" if row.reason else ""),
        _PROBE[row.healthy],
        f"{use.cpu:.1f}" if use.cpu is not None and is_up else "",
        words.size(memory) if memory is not None and is_up else "",
        str(row.restarts) if row.restarts is not None and (is_up or row.restarts) else "",
        words.span(now - row.since) if row.since else "",
        str(row.pid) if row.pid else "",
        status_table.note(row, now).removeprefix("start "),
    )


def _events(view: View, height: int, size: Size, form: Form) -> list[str]:
    """Return the heading and the newest events, so many lines in all."""
    if height <= 0:
        return []
    shown = view.events[max(0, len(view.events) - height + 1) :] if height > 1 else ()

    def paint(row: int, _column: int, text: str) -> str:
        if row < 0:
            return terminal.paint(text, terminal.BOLD, on=True)
        return terminal.paint(text, terminal.RED, on=form.colour and shown[row].is_bad)

    cells = [(one.time, one.who, one.what, one.then) for one in shown]
    lines = table.lines(_EVENTS, cells, size.width, form.mark, paint) if cells else [""]
    return lines + [""] * (height - len(lines))


def _foot(view: View, size: Size, form: Form) -> str:
    text = table.shorten(table.clean(view.message or _KEYS), size.width, form.mark)
    return terminal.paint(text, terminal.BOLD if view.message else terminal.DIM, on=True)


def last_first(overlay: Overlay, size: Size) -> int:
    """Return the first line that is shown at the overlay's end."""
    return max(0, len(_wrapped(overlay.lines, size.width)) - max(1, size.height - 2))


def _overlay(overlay: Overlay, size: Size, form: Form) -> list[str]:
    lines = _wrapped(overlay.lines, size.width)
    height = max(1, size.height - 2)
    first = min(overlay.first, last_first(overlay, size))
    shown = lines[first : first + height]
    more = len(lines) - first - height
    foot = f"q back  {more} more below" if more > 0 else "q back"
    return [
        terminal.paint(
            table.shorten(table.clean(overlay.title), size.width, form.mark), terminal.BOLD, on=True
        ),
        *shown,
        *[""] * (height - len(shown)),
        terminal.paint(table.shorten(foot, size.width, form.mark), terminal.DIM, on=True),
    ]


def _wrapped(lines: Sequence[str], width: int) -> list[str]:
    """Return the lines broken where the terminal ends."""
    out = []
    for line in lines:
        rest = table.clean(line.expandtabs())
        while table.width_of(rest) > width:
            head = table.shorten(rest, width, "") or rest[0]
            out.append(table.shorten(head, width, ""))
            rest = rest[len(head) :]
        out.append(rest)
    return out
