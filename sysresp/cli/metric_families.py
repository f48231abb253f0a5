"""What a snapshot of the host has to say in each metric of `metric_table`.

Pure: facts in, families out; no clock, no D-Bus, no library of any format. Rule: whatever a unit, a receiver
or the ledger calls itself, every format takes it, and no two samples have the same labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from sysresp.cli import rows
from sysresp.cli.metric_table import METRICS, Metric
from sysresp.controller.counters import BEYOND, LAG_SEC, Count
from sysresp.controller.remarks import Probed, Vitals


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
    controller: Mapping[str, Any] = {}  # `own_status.unit`
    gave_up: bool = False  # systemd, on the controller
    counts: tuple[Count, ...] = ()
    open: Mapping[str, int] = {}  # root -> incidents that are not over
    queues: Mapping[str, Queue] = {}  # by receiver
    vitals: Vitals = Vitals()
    probes: Mapping[str, Probed] = {}  # by unit
    ledger_bytes: int = 0
    is_readable: bool = False  # the ledger


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
    yield "sysresp_build", (), {"version": printable(seen.version)}
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
