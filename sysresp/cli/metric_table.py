"""Every metric, one row each, and what a snapshot of the host has to say in it.

Owns names, types, labels and meaning, by the conventions of OpenMetrics: base units, counters that end in
`_total`, a state as a state set. Pure: facts in, families out; no clock, no D-Bus, no library of any format.
The manual's table, the dashboard and the alert rules are checked against `METRICS`. Rule: a name or a label
that was released stays, since somebody's alert hangs on it; and no label takes values without a bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from sysresp.cli import rows
from sysresp.controller.counters import BEYOND, LAG_SEC, Count
from sysresp.controller.remarks import Probed, Vitals


class Kind(StrEnum):
    """The type of a metric, as OpenMetrics has it."""

    GAUGE = "gauge"
    COUNTER = "counter"
    STATES = "stateset"
    HISTOGRAM = "histogram"
    INFO = "info"


class Metric(NamedTuple):
    """One metric family."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str

    def unit(self) -> str:
        """Return the unit that its name ends with, "" for a plain number."""
        last = self.name.removesuffix("_total").rpartition("_")[2]
        return last if last in {"seconds", "bytes"} else ""


class Histogram(NamedTuple):
    """How many values were up to each bound, and their sum."""

    buckets: tuple[tuple[str, float], ...]
    sum: float


Value = float | str | Histogram | Mapping[str, str]
"""A number; the state that is the case; a distribution; words, of an info."""


class Family(NamedTuple):
    """A metric and its samples."""

    metric: Metric
    samples: tuple[tuple[tuple[str, ...], Value], ...]


class Queue(NamedTuple):
    """What waits to be delivered to one receiver."""

    messages: int = 0
    overdue_sec: float = 0.0  # the one that waits longest, since it was to go


class Snapshot(NamedTuple):
    """Everything that a scrape looks at, at one moment."""

    now: float  # seconds since the epoch
    version: str
    rows: tuple[rows.Row, ...] = ()  # of `status`, the controller's memory among them
    generations: Mapping[str, int] = {}  # by project
    receivers: tuple[str, ...] = ()  # PROJECT/NAME
    controller: Mapping[str, Any] = {}  # `own_report.unit`
    gave_up: bool = False  # systemd, on the controller
    counts: tuple[Count, ...] = ()
    open: Mapping[str, int] = {}  # root -> incidents that are not over
    queues: Mapping[str, Queue] = {}  # by receiver
    vitals: Vitals = Vitals()
    probes: Mapping[str, Probed] = {}  # by unit
    ledger_bytes: int = 0
    is_readable: bool = False  # the ledger


UNIT = ("project", "service", "service_instance", "unit")
"""Of a service; `instance` is what Prometheus calls the exporter itself."""
RECEIVER = ("project", "receiver")
STATES = (
    *("running", "starting", "waiting", "finished", "restarting"),
    *("cooldown", "blocked", "failed", "stopped"),
)
"""What `status` says, in few words: each of its states is one of these (`_STATE_OF`)."""

_STATE_OF = {
    **dict.fromkeys(("starting", "queued"), "starting"),
    **dict.fromkeys(("listening", "waiting"), "waiting"),
    **dict.fromkeys(("finished", "skipped"), "finished"),
    **dict.fromkeys(("waiting to restart", "waiting to start"), "restarting"),
    "cooling down": "cooldown",
    "blocked": "blocked",
    **dict.fromkeys(("failed", "missing", "broken"), "failed"),
    **dict.fromkeys(("stopped", "stopping", "masked"), "stopped"),
}
_GAUGE, _COUNTER = Kind.GAUGE, Kind.COUNTER

METRICS = {
    one.name: one
    for one in (
        Metric("sysresp_build", Kind.INFO, (), "The version of sysresp that answers."),
        Metric("sysresp_project_generation", _GAUGE, ("project",), "The generation that is applied."),
        Metric(
            "sysresp_service_state",
            Kind.STATES,
            UNIT,
            "What the service does: one of its states is 1. `failed` is down for good, `restarting` and "
            "`cooldown` come back by themselves, `blocked` when what it needs is up.",
        ),
        Metric(
            "sysresp_service_well", _GAUGE, UNIT, "1 if it is as it should be, as sysresp status judges."
        ),
        Metric(
            "sysresp_service_start_time_seconds",
            _GAUGE,
            UNIT,
            "When it came up, while it is up (Unix time).",
        ),
        Metric(
            "sysresp_service_next_start_seconds",
            _GAUGE,
            (*UNIT, "reason"),
            "Until its next start, while it waits for one: backoff, cooldown or slot (starts_per_second).",
        ),
        Metric(
            "sysresp_service_restarts_total",
            _COUNTER,
            UNIT,
            "Restarts by its Restart=, as systemd counts them (NRestarts).",
        ),
        Metric("sysresp_service_exits_total", _COUNTER, UNIT, "Ends of runs, by the ledger."),
        Metric(
            "sysresp_service_failures_total",
            _COUNTER,
            (*UNIT, "result"),
            "Ends of runs that were failures, by systemd's Result: exit-code, signal, core-dump, oom-kill, "
            "timeout, watchdog and others; unknown if only the count is known.",
        ),
        Metric(
            "sysresp_service_gave_up_total", _COUNTER, UNIT, "Failures after which nothing starts it again."
        ),
        Metric("sysresp_service_memory_bytes", _GAUGE, UNIT, "Memory of its control group (MemoryCurrent)."),
        Metric(
            "sysresp_service_cpu_seconds_total",
            _COUNTER,
            UNIT,
            "CPU time of its control group in this run (CPUUsageNSec).",
        ),
        Metric("sysresp_service_tasks", _GAUGE, UNIT, "Processes and threads (TasksCurrent)."),
        Metric("sysresp_probe_healthy", _GAUGE, UNIT, "The verdict of its health probe: 1 healthy, 0 not."),
        Metric("sysresp_probe_success", _GAUGE, UNIT, "The last try of the probe: 1 well, 0 not."),
        Metric("sysresp_probe_latency_seconds", _GAUGE, UNIT, "How long the last try of the probe took."),
        Metric(
            "sysresp_probe_last_timestamp_seconds",
            _GAUGE,
            UNIT,
            "When that try ended (Unix time); the controller tells of it once a minute.",
        ),
        Metric("sysresp_probe_tries_total", _COUNTER, UNIT, "Tries of the probe in this run."),
        Metric("sysresp_probe_failures_total", _COUNTER, UNIT, "Those of them that failed."),
        Metric(
            "sysresp_incidents_open",
            _GAUGE,
            ("project",),
            'Incidents that are not over, by the project of the root; "" for a root outside of sysresp.',
        ),
        Metric(
            "sysresp_incidents_total",
            _COUNTER,
            (*UNIT, "reason"),
            "Incidents of which this was the root, by reason: gave-up, flapping, probe, blocked. One with "
            "two reasons counts for both.",
        ),
        Metric("sysresp_alerts_queued", _GAUGE, RECEIVER, "Messages that are not delivered yet."),
        Metric(
            "sysresp_alerts_overdue_seconds",
            _GAUGE,
            RECEIVER,
            "For how long the oldest message that may go (quiet hours) has waited.",
        ),
        Metric(
            "sysresp_alerts_total",
            _COUNTER,
            (*RECEIVER, "state"),
            "Messages by what became of them: queued (all), delivered, failed (given up).",
        ),
        Metric("sysresp_controller_up", _GAUGE, (), "1 if the controller runs."),
        Metric("sysresp_controller_gave_up", _GAUGE, (), "1 if systemd has given up on the controller."),
        Metric("sysresp_controller_start_time_seconds", _GAUGE, (), "When it was started (Unix time)."),
        Metric("sysresp_controller_restarts_total", _COUNTER, (), "Restarts by its Restart= (NRestarts)."),
        Metric(
            "sysresp_controller_self_restarts_total",
            _COUNTER,
            (),
            "Restarts that it asked for itself: new code, age, memory.",
        ),
        Metric(
            "sysresp_controller_memory_bytes", _GAUGE, (), "Memory of its control group (MemoryCurrent)."
        ),
        Metric(
            "sysresp_controller_resident_memory_bytes",
            _GAUGE,
            (),
            "Its resident memory, when it last wrote to the ledger.",
        ),
        Metric("sysresp_controller_cpu_seconds_total", _COUNTER, (), "Its CPU time (CPUUsageNSec)."),
        Metric(
            "sysresp_controller_wakeups_total",
            _COUNTER,
            (),
            "How often it has slept and woken, when it last wrote to the ledger.",
        ),
        Metric(
            "sysresp_controller_event_lag_seconds",
            Kind.HISTOGRAM,
            (),
            "From the end of a run to its row in the ledger, for what was seen live.",
        ),
        Metric(
            "sysresp_controller_exits_total",
            _COUNTER,
            ("source",),
            "Ends of runs by who told: live, journal (found after a gap), count (known by number alone).",
        ),
        Metric("sysresp_controller_gaps_total", _COUNTER, (), "Times in which nobody listened to systemd."),
        Metric("sysresp_controller_blind_seconds_total", _COUNTER, (), "How long all of them were."),
        Metric(
            "sysresp_controller_troubled",
            _GAUGE,
            (),
            "1 while it cannot write the ledger: rows and messages wait in its memory.",
        ),
        Metric("sysresp_ledger_readable", _GAUGE, (), "1 if there is a ledger, and it can be read."),
        Metric("sysresp_ledger_size_bytes", _GAUGE, (), "Size of the ledger's files."),
    )
}
"""By name; a family that has nothing to say is left out."""


def families(seen: Snapshot) -> list[Family]:
    """Return what there is to say, in the order of the table; no two samples have the same labels."""
    found: dict[str, dict[tuple[str, ...], Value]] = {name: {} for name in METRICS}
    for source in (_services, _counted, _told, _controller):
        for name, labels, value in source(seen):
            found[name].setdefault(tuple(map(printable, labels)), value)
    return [Family(metric, tuple(found[name].items())) for name, metric in METRICS.items() if found[name]]


def printable(text: str) -> str:
    """Return the text in a form that every format takes, whatever a unit or a ledger calls itself."""
    if text.isascii() and text.isprintable():
        return text[:_LONGEST]
    return "".join(c if c.isprintable() else c.encode("unicode-escape").decode() for c in text[:_LONGEST])


_LONGEST = 256

_Samples = Iterator[tuple[str, tuple[str, ...], Value]]


def state(row: rows.Row) -> str:
    """Return which of `STATES` the row of `status` is in."""
    if known := _STATE_OF.get(row.state):
        return known
    return {rows.OK: "running", rows.BUSY: "starting", rows.OFF: "stopped"}.get(row.level, "running")


def _labels(row: rows.Row) -> tuple[str, ...]:
    seen = row.observed
    return row.project, seen.service, seen.instance, seen.name


def _services(seen: Snapshot) -> _Samples:
    yield "sysresp_build", (), {"version": seen.version}
    for project, generation in seen.generations.items():
        yield "sysresp_project_generation", (project,), generation
    for row in seen.rows:
        unit = _labels(row)
        yield "sysresp_service_state", unit, state(row)
        yield "sysresp_service_well", unit, float(row.well)
        if row.since is not None and row.observed.active in {"active", "reloading"}:
            yield "sysresp_service_start_time_seconds", unit, row.since
        if row.next_start is not None:
            left = max(0.0, row.next_start - seen.now)
            yield "sysresp_service_next_start_seconds", (*unit, row.wait), left
        for name, value in (
            ("sysresp_service_restarts_total", row.restarts),
            ("sysresp_service_memory_bytes", row.memory),
            ("sysresp_service_cpu_seconds_total", None if row.cpu is None else row.cpu / 1e9),
            ("sysresp_service_tasks", row.tasks),
        ):
            if value is not None:
                yield name, unit, value
        if row.healthy is not None:
            yield "sysresp_probe_healthy", unit, float(row.healthy)
        probed = seen.probes.get(row.observed.name)
        if probed is not None and row.observed.active == "active":
            yield "sysresp_probe_success", unit, float(probed.is_ok)
            yield "sysresp_probe_latency_seconds", unit, probed.latency_sec
            yield "sysresp_probe_last_timestamp_seconds", unit, probed.when
            yield "sysresp_probe_tries_total", unit, probed.tries
            yield "sysresp_probe_failures_total", unit, probed.failed


_BY_UNIT: Mapping[str, tuple[str, bool]] = {  # counts -> metric, and whether it takes the label
    "exits": ("sysresp_service_exits_total", False),
    "failures": ("sysresp_service_failures_total", True),
    "gave-up": ("sysresp_service_gave_up_total", False),
}


def _counted(seen: Snapshot) -> _Samples:
    """What the ledger has counted; of units that were applied, and of roots, whatever they are."""
    if not seen.is_readable:
        return
    known = {row.observed.name: _labels(row) for row in seen.rows}
    for one in seen.counts:
        if one.name == "incidents":
            labels = known.get(one.of, ("", "", "", one.of))
            yield "sysresp_incidents_total", (*labels, one.label), one.value
        elif one.name in _BY_UNIT and one.of in known:
            metric, has_label = _BY_UNIT[one.name]
            yield metric, (*known[one.of], *((one.label,) if has_label else ())), one.value
        elif one.name == "messages" and one.label in _MESSAGES:
            yield "sysresp_alerts_total", (*_receiver(one.of), one.label), one.value
        elif one.name == "sources":
            yield "sysresp_controller_exits_total", (one.label,), one.value
    for labels in known.values():  # from the first scrape on, so that the first failure is an increase
        yield "sysresp_service_exits_total", labels, 0.0
        yield "sysresp_service_gave_up_total", labels, 0.0
    for receiver in seen.receivers:
        for word in _MESSAGES:
            yield "sysresp_alerts_total", (*_receiver(receiver), word), 0.0


_MESSAGES = ("queued", "delivered", "failed")


def _receiver(name: str) -> tuple[str, str]:
    project, _, receiver = name.partition("/")
    return project, receiver


def _told(seen: Snapshot) -> _Samples:
    """Incidents and messages, as they are now."""
    if not seen.is_readable:
        return
    project_of = {row.observed.name: row.project for row in seen.rows}
    of = dict.fromkeys(seen.generations, 0)
    for root, number in seen.open.items():
        project = project_of.get(root, "")
        of[project] = of.get(project, 0) + number
    for project, number in of.items():
        yield "sysresp_incidents_open", (project,), number
    for receiver in dict.fromkeys((*seen.receivers, *seen.queues)):
        queue = seen.queues.get(receiver, Queue())
        yield "sysresp_alerts_queued", _receiver(receiver), queue.messages
        yield "sysresp_alerts_overdue_seconds", _receiver(receiver), max(0.0, queue.overdue_sec)


def _controller(seen: Snapshot) -> _Samples:
    unit = seen.controller
    is_up = unit.get("active") in {"active", "reloading"}
    yield "sysresp_controller_up", (), float(is_up)
    yield "sysresp_controller_gave_up", (), float(seen.gave_up)
    yield "sysresp_ledger_readable", (), float(seen.is_readable)
    if unit.get("load") == "loaded":
        yield "sysresp_controller_restarts_total", (), unit["restarts"]
    if is_up:
        yield "sysresp_controller_start_time_seconds", (), unit["since"]
        yield "sysresp_controller_memory_bytes", (), unit["memory"]
        yield "sysresp_controller_cpu_seconds_total", (), unit["cpu_sec"]
        yield "sysresp_controller_troubled", (), float("cannot" in unit["says"])
        if seen.vitals.when >= unit["since"]:
            yield "sysresp_controller_resident_memory_bytes", (), seen.vitals.rss
            yield "sysresp_controller_wakeups_total", (), seen.vitals.wakeups
    if not seen.is_readable:
        return
    yield "sysresp_ledger_size_bytes", (), seen.ledger_bytes
    counts = {(one.name, one.label): one.value for one in seen.counts if not one.of}
    for source in ("live", "journal", "count"):
        yield "sysresp_controller_exits_total", (source,), 0.0
    for metric, key in (
        ("sysresp_controller_self_restarts_total", ("notes", "self-restart")),
        ("sysresp_controller_gaps_total", ("notes", "gap")),
        ("sysresp_controller_blind_seconds_total", ("amounts", "gap")),
    ):
        yield metric, (), counts.get(key, 0.0)
    yield "sysresp_controller_event_lag_seconds", (), _lag(lambda key: counts.get(key, 0.0))


def _lag(count: Callable[[tuple[str, str]], float]) -> Histogram:
    total = 0.0
    buckets = []
    for bound in (*map(str, LAG_SEC), BEYOND):
        total += count(("lag", bound))
        buckets.append((bound, total))
    return Histogram(tuple(buckets), count(("lag-sum", "")))


def as_objects(found: Iterable[Family]) -> list[dict[str, Any]]:
    """Return the families as `--format json` prints them."""
    return [
        {
            "name": family.metric.name,
            "type": family.metric.kind.value,
            "help": family.metric.help,
            "samples": [
                {"labels": dict(zip(family.metric.labels, labels, strict=True)), "value": _object(value)}
                for labels, value in family.samples
            ],
        }
        for family in found
    ]


def _object(value: Value) -> Any:
    return {"buckets": dict(value.buckets), "sum": value.sum} if isinstance(value, Histogram) else value
