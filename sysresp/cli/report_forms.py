"""The forms in which `report` is printed: text for a terminal, Markdown, JSON.

Pure: a report in, text out; the HTML page is in `report_html`. Rule: text and Markdown show the same tables;
the JSON keys are documented in sysresp(1) and only ever added to.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Iterator

from sysresp.cli import report_facts, table, terminal
from sysresp.cli.report_facts import Cause, Most, Report, Section, Service, Use
from sysresp.cli.status_table import stamp as instant
from sysresp.cli.words import plural
from sysresp.controller.availability import Span, State
from sysresp.reconcile.lock import stamp

MOST_OUTAGES = 50  # of one service, in JSON: the longest
_DROPPED = {"OFF": 5, "UNKNOWN": 4, "UP": 6, "MTTR": 2, "MTBF": 2, "WORST": 3, "STATE": 3, "FINGERPRINT": 3}
_WIDE = frozenset({"SERVICE", "CAUSE", "WHAT"})  # columns that are cut where it is narrow


def text(report: Report, width: int | None, mark: str, *, colour: bool) -> Iterator[str]:
    """Yield the lines."""
    yield terminal.paint(headline(report), terminal.BOLD, on=colour)
    for section in report_facts.sections(report):
        yield ""
        yield terminal.paint(section.title, terminal.BOLD, on=colour)
        columns = [
            table.Column(
                head, drop=_DROPPED.get(head, 0), floor=10 * (head in _WIDE), right=number in section.numbers
            )
            for number, head in enumerate(section.heads)
        ]
        yield from table.lines(columns, section.rows, width, mark)
    for remark in report.remarks:
        yield ""
        yield table.clean(remark)


def headline(report: Report) -> str:
    """Return what the report is about, in one line."""
    total = totals(report)
    share = report_facts.percent(total[0])
    return (
        f"{plural(len(report.services), 'service')} from {stamp(report.since)} to {stamp(report.until)}: "
        f"{share} available, {plural(total[1], 'failure')}"
    )


def totals(report: Report) -> tuple[float | None, int]:
    """Return the availability and the failures of all together."""
    up = sum(one.figures.up_sec for one in report.services)
    known = up + sum(one.figures.down_sec for one in report.services)
    return up / known if known else None, sum(one.figures.failures for one in report.services)


def markdown(report: Report) -> str:
    """Return a Markdown document (tables as GitHub and pandoc have them)."""
    lines = ["# Services", "", _marked(headline(report)), ""]
    for section in report_facts.sections(report):
        lines += [f"## {_marked(section.title)}", "", *_marked_table(section), ""]
    lines += [_marked(remark) for remark in report.remarks]
    return "\n".join(lines).rstrip() + "\n"


def _marked_table(section: Section) -> Iterator[str]:
    yield _cells(section.heads)
    yield _cells("--:" if number in section.numbers else ":--" for number, _ in enumerate(section.heads))
    for row in section.rows:
        yield _cells(map(_marked, row))


def _cells(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _marked(words: str) -> str:
    """Return words of anybody's as Markdown that shows them as they are."""
    plain = table.clean(words)
    return "".join(f"\\{char}" if char in "\\`*_[]<>|#&~$" else char for char in plain)


def as_json(report: Report) -> str:
    """Return what `--json` prints."""
    share, failures = totals(report)
    found = {
        "version": 1,
        "since": instant(report.since),
        "until": instant(report.until),
        "availability": share,
        "failures": failures,
        "services": [_service(one) for one in report.services],
        "remarks": list(report.remarks),
    }
    return json.dumps(found, indent=2)


def _service(one: Service) -> dict[str, object]:
    sums = one.figures
    return {
        "unit": one.named.unit,
        "project": one.named.project,
        "name": one.named.name,
        "state": one.named.state,
        "well": one.named.is_well,
        "availability": sums.availability,
        "up_sec": _rounded(sums.up_sec),
        "down_sec": _rounded(sums.down_sec),
        "off_sec": _rounded(sums.off_sec),
        "unknown_sec": _rounded(sums.unknown_sec),
        "failures": sums.failures,
        "ends": one.ends,
        "ends_unknown": one.lost,
        "mtbf_sec": _rounded(sums.mtbf_sec),
        "mttr_sec": _rounded(sums.mttr_sec),
        "outages": [
            {"begin": instant(span.begin), "sec": _rounded(span.length)}
            for span in sorted(_longest(one.spans))
        ],
        "causes": [_cause(cause) for cause in one.causes],
        "tracebacks": [_cause(cause) for cause in one.heard.traces],
        "burst": _most(one.burst, "failures"),
        "slowest_start": _most(one.slowest, "sec"),
        "log_lines": one.heard.lines,
        "memory": _use(one.memory),
        "tasks": _use(one.named.tasks),
    }


def _longest(spans: Iterable[Span]) -> list[Span]:
    """Return the longest outages."""
    down = [span for span in spans if span.state is State.DOWN]
    return heapq.nlargest(MOST_OUTAGES, down, key=lambda span: span.length)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _cause(one: Cause) -> dict[str, object]:
    found: dict[str, object] = {"what": one.words, "count": one.times, "last": instant(one.last or None)}
    return found | ({"fingerprint": one.fingerprint} if one.fingerprint else {})


def _most(one: Most, name: str) -> dict[str, object] | None:
    return {name: _rounded(one.value), "at": instant(one.at)} if one.value else None


def _use(one: Use) -> dict[str, int | None]:
    return {"peak": one.peak or None, "limit": one.limit or None}
