"""`sysresp metrics`: one look at the host, as OpenMetrics, Prometheus text or JSON; printed or in a file.

Owns the meeting of `metric_families` and the client library of Prometheus, which is imported here, for who
asks for one of its formats, and nowhere else. What is served (`exporter`) and what is printed is the same.
Rule: a file is replaced as a whole; whoever reads it never sees half of it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from sysresp.cli import hosts, metric_facts, metric_families
from sysresp.cli.boundary import usage
from sysresp.cli.metric_families import Family, Histogram
from sysresp.cli.metric_table import STATES, Kind
from sysresp.errors import SysrespError
from sysresp.model import Mode, Scope

if TYPE_CHECKING:
    from prometheus_client.core import Metric as Core
    from prometheus_client.registry import CollectorRegistry

FORMS = ("openmetrics", "prometheus", "json")
FILE = "sysresp.prom"
"""Its name in the textfile collector's directory; that reads what ends in .prom."""


class Asked(NamedTuple):
    """What the command line asks for."""

    scope: Scope
    form: str = ""
    textfile: str = ""


def run(asked: Asked) -> int:
    """Print the metrics, or write them to a file."""
    form = asked.form or ("prometheus" if asked.textfile else FORMS[0])
    if form not in FORMS:
        raise usage(f'there is no format "{form}"', f"one of: {', '.join(FORMS)}")
    host = hosts.host(asked.scope, Mode.PERSISTENT)
    content = encoded(look(asked.scope), form)
    if not asked.textfile:
        sys.stdout.write(content.decode())
        return 0
    host.files.write(os.path.abspath(asked.textfile), content, 0o644)  # noqa: PTH100 - a plain path
    return 0


def look(scope: Scope) -> list[Family]:
    """Look at the host, now."""
    host = hosts.host(scope, Mode.PERSISTENT)
    return metric_families.families(metric_facts.snapshot(host, scope, os.environ))


def encoded(found: Iterable[Family], form: str) -> bytes:
    """Return the families in one of `FORMS`."""
    if form == "json":
        return (
            json.dumps({"version": 1, "metrics": metric_families.as_objects(found)}, indent=1) + "\n"
        ).encode()
    return encoder(form)[0](found)


def encoder(form: str = "", accept: str = "") -> tuple[Callable[[Iterable[Family]], bytes], str]:
    """Return what writes this format, or what the Accept header of a request wants, and its content type."""
    try:
        from prometheus_client import exposition, openmetrics  # noqa: F401, PLC0415 - optional
        from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST  # noqa: PLC0415
    except ImportError as error:
        raise SysrespError(
            "the formats of Prometheus need its client library for Python, which is not installed here",
            hint="apt install python3-prometheus-client, dnf install python3-prometheus_client, or "
            "pip install 'sysresp[metrics]'; --format json does without",
        ) from error
    if form:
        accept = CONTENT_TYPE_LATEST if form == "openmetrics" else "text/plain"
    write, kind = exposition.choose_encoder(accept)
    return lambda found: bytes(write(_registry(found))), str(kind)


def _registry(found: Iterable[Family]) -> CollectorRegistry:
    """Return the families as the library's registry of one collector."""
    from prometheus_client import registry  # noqa: PLC0415 - as above

    class Once(registry.Collector):
        def collect(self) -> Iterable[Core]:
            return [_core(family) for family in found]

    known = registry.CollectorRegistry(auto_describe=False)
    known.register(Once())
    return known


def _core(family: Family) -> Core:
    from prometheus_client import core  # noqa: PLC0415 - as above

    metric = family.metric
    kinds = {
        Kind.GAUGE: core.GaugeMetricFamily,
        Kind.COUNTER: core.CounterMetricFamily,
        Kind.STATES: core.StateSetMetricFamily,
        Kind.HISTOGRAM: core.HistogramMetricFamily,
        Kind.INFO: core.InfoMetricFamily,
    }
    unit = {"unit": metric.unit()} if metric.unit() else {}
    made: Any = kinds[metric.kind](metric.name, metric.help, labels=metric.labels, **unit)
    for labels, value in family.samples:
        if isinstance(value, Histogram):
            made.add_metric(labels, buckets=value.buckets, sum_value=value.sum)
        elif isinstance(value, str):
            made.add_metric(labels, {one: one == value for one in STATES})
        else:
            made.add_metric(labels, value)
    of: Core = made
    return of
