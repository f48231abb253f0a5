"""The report as one HTML page that needs nothing else: no network, no script, no font, no other file.

Owns the bars of the timelines; their look is in report.html.j2 beside this, which is no template of a unit
and so not in templates/. Everything that is shown goes through Jinja's escaping. Rule: the page's own
Content-Security-Policy forbids whatever is not in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jinja2

from sysresp.cli import report_facts, report_forms, table
from sysresp.cli.report_facts import Report, Service
from sysresp.cli.words import plural, span
from sysresp.controller.availability import Span, State
from sysresp.reconcile.lock import stamp

BARS = 60
BAD = 0.05  # a bar with a larger part down is red


class Bar(NamedTuple):
    """One part of a timeline."""

    level: str  # up | some | down | off | unknown: a class of the style sheet
    title: str


class Line(NamedTuple):
    """One service on the page."""

    service: Service
    available: str
    bars: tuple[Bar, ...]
    facts: str


def page(report: Report) -> str:
    """Return the page."""
    jinja = jinja2.Environment(
        loader=jinja2.FileSystemLoader(str(Path(__file__).parent)),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    share, failures = report_forms.totals(report)
    well = sum(one.named.is_well for one in report.services)
    days = [stamp(at)[:10] for at in (report.since, report.until)]
    tiles = (
        ("available", report_facts.percent(share)),
        ("failures", str(failures)),
        ("well now", f"{well} of {len(report.services)}"),
        ("each bar", span((report.until - report.since) / BARS)),
    )
    return jinja.get_template("report.html.j2").render(
        title=f"{plural(len(report.services), 'service')}, {' to '.join(days)}",
        since=stamp(report.since),
        until=stamp(report.until),
        tiles=tiles,
        lines=[_line(one, report) for one in report.services],
        sections=report_facts.sections(report),
        remarks=report.remarks,
        clean=table.clean,
        width=BARS * 10,
    )


def _line(one: Service, report: Report) -> Line:
    sums = one.figures
    facts = [plural(sums.failures, "failure")] if sums.failures else []
    facts += [f"MTBF {span(sums.mtbf_sec)}"] if sums.mtbf_sec else []
    facts += [f"MTTR {report_facts.length(sums.mttr_sec)}"] if sums.mttr_sec else []
    facts += [f"{report_facts.length(sums.unknown_sec)} unknown"] if sums.unknown_sec >= 1 else []
    bars = tuple(_bars(one.spans, report.since, report.until))
    return Line(one, report_facts.percent(sums.availability), bars, ", ".join(facts))


def _bars(spans: Sequence[Span], since: float, until: float) -> list[Bar]:
    """Return the window in BARS parts, each with what it mostly was; any time down shows."""
    step = (until - since) / BARS
    place = 0
    found = []
    for number in range(BARS):
        begin, end = since + number * step, since + (number + 1) * step
        parts = dict.fromkeys(State, 0.0)
        while place < len(spans) and spans[place].end <= begin:
            place += 1
        at = place
        while at < len(spans) and spans[at].begin < end:
            parts[spans[at].state] += max(0.0, min(end, spans[at].end) - max(begin, spans[at].begin))
            at += 1
        found.append(Bar(_level(parts), _title(begin, parts)))
    return found


def _level(parts: dict[State, float]) -> str:
    up, down = parts[State.UP], parts[State.DOWN]
    if down > 0:
        return "down" if down > BAD * (up + down) else "some"
    if up > 0:
        return "up"
    return "off" if parts[State.OFF] >= parts[State.UNKNOWN] else "unknown"


def _title(begin: float, parts: dict[State, float]) -> str:
    shown = [f"{report_facts.length(sec)} {state.value}" for state, sec in parts.items() if sec > 0.0005]
    return f"{stamp(begin)[:16]}: {', '.join(shown)}"
