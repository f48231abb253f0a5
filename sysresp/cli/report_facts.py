"""What `report` says of each service: figures, causes, tracebacks, bursts, slow starts, limits.

Owns the arithmetic, and the tables that every form of the report shows. Pure: rows, lines of the journal and
systemd's properties in, values out. Rule: a figure that is not known is None and shown as a dash, never 0.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from sysresp.cli.incidents import exit_words
from sysresp.cli.words import NOT_SET, plural, size, span
from sysresp.controller import fingerprint
from sysresp.controller.availability import Figures, Hole, Live, Span, figures, is_failure, timeline
from sysresp.controller.events import Exit
from sysresp.controller.tables import Told
from sysresp.ports import Line
from sysresp.reconcile.lock import stamp

BURST_SEC = 600.0
FLAPS = 3  # failures within BURST_SEC: from then on it is told
NEAR = 0.8  # of a limit
MOST = 15  # rows of a table


class Cause(NamedTuple):
    """One way in which a service failed."""

    words: str
    times: int
    last: float  # seconds since the epoch
    fingerprint: str = ""  # of a traceback


class Most(NamedTuple):
    """The most, or longest, of something, and when that was."""

    value: float = 0.0
    at: float = 0.0


class Use(NamedTuple):
    """How much of a resource, at its peak, of how much."""

    peak: int = 0  # 0: unknown
    limit: int = 0  # 0: none

    @property
    def share(self) -> float | None:
        return self.peak / self.limit if self.peak and self.limit else None


class Heard(NamedTuple):
    """What the journal tells of one unit."""

    lines: int = 0
    traces: tuple[Cause, ...] = ()
    slowest: Most = Most()


class Named(NamedTuple):
    """A unit, and how it is now."""

    unit: str
    label: str  # for people: with the project if there are several
    name: str
    project: str
    state: str  # as in `status`
    is_well: bool
    live: Live
    memory: Use = Use()
    tasks: Use = Use()
    start: Most = Most()  # how long its present run took to start


class Service(NamedTuple):
    """All there is to say of one unit."""

    named: Named
    spans: tuple[Span, ...]
    figures: Figures
    ends: int  # runs that ended in the window
    lost: int  # ... of which only the count is known
    causes: tuple[Cause, ...]  # the most frequent first
    burst: Most  # most failures within BURST_SEC
    heard: Heard
    memory: Use

    @property
    def slowest(self) -> Most:
        return max(self.heard.slowest, self.named.start)


class Report(NamedTuple):
    """The whole."""

    since: float
    until: float
    services: tuple[Service, ...]  # the worst first
    remarks: tuple[str, ...] = ()  # what it could not look at


class Section(NamedTuple):
    """One table."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: frozenset[int] = frozenset()  # columns that are right-aligned


def service(  # noqa: PLR0917
    named: Named, rows: Sequence[Told], heard: Heard, since: float, until: float, holes: Sequence[Hole] = ()
) -> Service:
    """Return what these rows, those of the window and the last before it, say of the unit."""
    spans = tuple(timeline(rows, named.live, since, until, holes))
    ended = [one.what for one in rows if isinstance(one.what, Exit) and one.at >= since]
    failed = [one for one in ended if is_failure(one)]
    last: dict[tuple[str, int, int, str, str], Exit] = {}  # of each kind of failure
    times: Counter[tuple[str, int, int, str, str]] = Counter()
    for one in failed:
        because = one.because if one.result == "success" else ""
        kind = (one.result, one.exec_code, one.exec_status, because, one.source)
        times[kind] += 1
        last[kind] = one
    causes: dict[str, Cause] = {}
    for kind, one in last.items():
        words = kind[3] or exit_words(one)
        was = causes.get(words, Cause(words, 0, 0.0))
        causes[words] = was._replace(times=was.times + times[kind], last=max(was.last, one.when))
    lost = sum(not one.when for one in ended)
    peak = max((one.memory_peak for one in ended), default=0)
    memory = named.memory._replace(peak=max(peak, named.memory.peak))
    return Service(
        named,
        spans,
        figures(spans, len(failed)),
        len(ended),
        lost,
        _sorted(causes.values()),
        _burst(sorted(one.when for one in failed if one.when)),
        heard,
        memory,
    )


def _sorted(causes: Iterable[Cause]) -> tuple[Cause, ...]:
    return tuple(sorted(causes, key=lambda cause: (-cause.times, cause.words)))


def _burst(times: Sequence[float]) -> Most:
    """Return the most of these instants within BURST_SEC, and the first of those."""
    best, first = Most(), 0
    for last, at in enumerate(times):
        while times[first] <= at - BURST_SEC:
            first += 1
        if last - first + 1 > best.value:
            best = Most(last - first + 1, times[first])
    return best


def hear(lines: Iterable[Line]) -> dict[str, Heard]:
    """Return what these lines tell of each unit."""
    said: dict[str, list[Line]] = defaultdict(list)
    begun: dict[tuple[str, str], float] = {}
    slowest: dict[str, Most] = {}
    for line in lines:
        if not line.kind:
            said[line.unit].append(line)
        elif line.kind == "starting":
            begun[line.unit, line.invocation] = line.at
        elif line.kind == "started" and (line.unit, line.invocation) in begun:
            took = line.at - begun[line.unit, line.invocation]
            slowest[line.unit] = max(slowest.get(line.unit, Most()), Most(took, line.at))
    found = {}
    for unit in {*said, *slowest}:
        own = said.get(unit, [])
        found[unit] = Heard(len(own), _traces(own), slowest.get(unit, Most()))
    return found


def _traces(lines: Sequence[Line]) -> tuple[Cause, ...]:
    """Return the tracebacks, over all runs: journald does not know of which a program's last words are."""
    counts: Counter[str] = Counter()
    latest: dict[str, tuple[float, str]] = {}
    for trace in fingerprint.find(line.text for line in lines):
        counts[trace.fingerprint] += 1
        here = (lines[trace.line].at, trace.title)
        latest[trace.fingerprint] = max(latest.get(trace.fingerprint, here), here)
    return _sorted(Cause(latest[print_][1], n, latest[print_][0], print_) for print_, n in counts.items())


def use(said: Mapping[str, object], peaks: Sequence[str], limit: str) -> Use:
    """Return the highest of these properties, and the limit of that name."""
    values = [_number(said.get(name)) for name in peaks]
    return Use(max(values, default=0), _number(said.get(limit)))


def _number(value: object) -> int:
    return value if isinstance(value, int) and 0 < value < NOT_SET else 0


def in_order(found: Iterable[Service]) -> tuple[Service, ...]:
    """Return the services with the worst first."""

    def key(one: Service) -> tuple[float, int, str, str]:
        share = one.figures.availability
        return 2.0 if share is None else share, -one.figures.failures, one.named.project, one.named.label

    return tuple(sorted(found, key=key))


def percent(share: float | None) -> str:
    """Return a share in per cent, rounded down: only what was never down is 100."""
    if share is None:
        return "-"
    if share >= 1:
        return "100%"
    return f"{int(share * 1e5) / 1e3:.3f}%" if share >= 0.99 else f"{int(share * 1e4) / 1e2:.2f}%"


def length(seconds: float | None) -> str:
    """Return a length of time, "-" if there is none."""
    if not seconds:
        return "-"
    return span(seconds) if seconds >= 1 else f"{seconds * 1000:.0f}ms"


def sections(report: Report) -> list[Section]:
    """Return the tables, those without a row left out; the first is the overview."""
    found = [
        _overview(report),
        _causes("Failures by cause", "CAUSE", report, lambda one: one.causes),
        _causes("Tracebacks and panics", "WHAT", report, lambda one: one.heard.traces),
        _flapping(report),
        _slow(report),
        _noisy(report),
        _near(report),
    ]
    return [section for section in found if section.rows]


def _overview(report: Report) -> Section:
    heads = (
        "SERVICE",
        "STATE",
        "AVAILABLE",
        "UP",
        "DOWN",
        "OFF",
        "UNKNOWN",
        "FAILURES",
        "MTBF",
        "MTTR",
        "WORST",
    )
    rows = []
    for one in report.services:
        sums = one.figures
        times = (sums.up_sec, sums.down_sec, sums.off_sec, sums.unknown_sec)
        rows.append(
            (
                one.named.label,
                one.named.state,
                percent(sums.availability),
                *map(length, times),
                str(sums.failures) + (f" (+{one.lost}?)" if one.lost else ""),
                length(sums.mtbf_sec),
                length(sums.mttr_sec),
                length(sums.longest_sec),
            )
        )
    return Section("Availability", heads, tuple(rows), frozenset(range(2, len(heads))))


def _causes(title: str, what: str, report: Report, of: Callable[[Service], tuple[Cause, ...]]) -> Section:
    found = [(cause, one.named.label) for one in report.services for cause in of(one)]
    found.sort(key=lambda pair: (-pair[0].times, pair[1], pair[0].words))
    rows = tuple(
        (
            str(cause.times),
            label,
            cause.words,
            cause.fingerprint or "-",
            stamp(cause.last) if cause.last else "-",
        )
        for cause, label in found[:MOST]
    )
    heads = ("COUNT", "SERVICE", what, "FINGERPRINT", "LAST")
    if any(cause.fingerprint for cause, _ in found):
        return Section(title, heads, rows, frozenset({0}))
    return Section(title, (*heads[:3], heads[4]), tuple((*row[:3], row[4]) for row in rows), frozenset({0}))


def _flapping(report: Report) -> Section:
    found = sorted(
        (one for one in report.services if one.burst.value >= FLAPS), key=lambda one: -one.burst.value
    )
    rows = tuple(
        (one.named.label, plural(int(one.burst.value), "failure"), stamp(one.burst.at))
        for one in found[:MOST]
    )
    return Section(f"Flapping: most failures within {span(BURST_SEC)}", ("SERVICE", "MOST", "FROM"), rows)


def _slow(report: Report) -> Section:
    found = sorted(
        (one for one in report.services if one.slowest.value > 0), key=lambda one: -one.slowest.value
    )
    rows = tuple(
        (one.named.label, _precise(one.slowest.value), stamp(one.slowest.at)) for one in found[:MOST]
    )
    return Section("Slowest starts", ("SERVICE", "TOOK", "WHEN"), rows, frozenset({1}))


def _precise(seconds: float) -> str:
    return f"{seconds:.2f}s" if 1 <= seconds < 60 else length(seconds)


def _noisy(report: Report) -> Section:
    found = sorted((one for one in report.services if one.heard.lines), key=lambda one: -one.heard.lines)
    rows = tuple((one.named.label, str(one.heard.lines)) for one in found[:MOST])
    return Section("Noisiest logs", ("SERVICE", "LINES"), rows, frozenset({1}))


def _near(report: Report) -> Section:
    found = [
        (use_.share or 0.0, one.named.label, what, show(use_.peak), show(use_.limit))
        for one in report.services
        for what, use_, show in (("memory", one.memory, size), ("tasks", one.named.tasks, str))
        if use_.peak and use_.limit
    ]
    found.sort(key=lambda row: (-row[0], row[1]))
    rows = tuple(
        (label, what, peak, limit, f"{100 * share:.0f}%" + (" !" if share >= NEAR else ""))
        for share, label, what, peak, limit in found[:MOST]
    )
    heads = ("SERVICE", "WHAT", "PEAK", "LIMIT", "SHARE")
    return Section("Peaks against limits", heads, rows, frozenset({2, 3, 4}))
