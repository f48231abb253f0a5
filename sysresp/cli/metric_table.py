"""Every metric, one row each: its name, type, labels and meaning.

Owns what is promised to whoever watches, by the conventions of OpenMetrics: base units, counters that end in
`_total`, a state as a state set. The manual's table, the dashboard and the alert rules are checked against
`METRICS`; `metric_families` says them. Rule: a name or a label that was released stays, since somebody's
alert hangs on it; and no label takes values without a bound.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


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


UNIT = ("project", "service", "service_instance", "unit")
"""Of a service; `instance` is what Prometheus calls the exporter itself."""
RECEIVER = ("project", "receiver")
STATES = (
    *("running", "starting", "waiting", "finished", "restarting"),
    *("cooldown", "blocked", "failed", "stopped"),
)
"""What `status` says, in few words: each of its states is one of these (`metric_families.state`)."""

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
