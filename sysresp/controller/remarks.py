"""What only the controller knows of itself and of its probes, left in the ledger for whoever asks.

Owns two entries of the ledger's meta table, as JSON, and their way back. They go with transactions that
happen anyway; probes, which write nothing while all is well, are told of once in `PROBES_SEC`, and only if
there are any. An idle controller writes nothing, so both are as old as their `when` says. Rule: what is read
back is judged value by value, since the file is another user's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from sysresp.controller.probes import ProbeState

VITALS = "vitals"
PROBES = "probes"
PROBES_SEC = 60.0
MOST = 20_000  # probes that are read


class Vitals(NamedTuple):
    """The controller's own process (proc_pid_status(5))."""

    when: float = 0.0  # seconds since the epoch; 0: unknown
    rss: int = 0  # bytes
    wakeups: int = 0  # voluntary context switches


class Probed(NamedTuple):
    """What the probes of one run of a unit have shown."""

    is_ok: bool = True  # the last try
    latency_sec: float = 0.0  # how long that took
    when: float = 0.0  # when it ended, seconds since the epoch
    tries: int = 0  # in this run
    failed: int = 0


def vitals(now: float) -> str:
    """Return this process as it is now."""
    with open("/proc/self/status") as file:  # noqa: PTH123 - pathlib is another half megabyte
        fields = dict(line.split(":", 1) for line in file)
    rss = int(fields["VmRSS"].split()[0]) * 1024
    return json.dumps(Vitals(round(now, 3), rss, int(fields["voluntary_ctxt_switches"])))


def probes(latest: Mapping[str, ProbeState], wall_offset: float) -> str:
    """Return what is known of each unit that was probed; "" if none was."""
    found = {
        unit: Probed(
            state.is_ok,
            round(state.latency_sec, 6),
            round(state.at + wall_offset, 3),
            state.tries,
            state.failed,
        )
        for unit, state in latest.items()
        if state.tries and state.is_ok is not None
    }
    return json.dumps(found, separators=(",", ":")) if found else ""


def to_vitals(text: str) -> Vitals:
    """Return what `vitals` said; all unknown if this is something else."""
    try:
        found = _made(json.loads(text), Vitals())
    except (ValueError, RecursionError):
        return Vitals()
    return found or Vitals()


def to_probes(text: str) -> dict[str, Probed]:
    """Return what `probes` said, as far as it can be read."""
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(raw, dict):
        return {}
    made = {unit: _made(values, Probed()) for unit, values in [*raw.items()][:MOST]}
    return {unit: one for unit, one in made.items() if one is not None}


def _made(values: Any, usual: Any) -> Any:
    """Return a tuple of the kind of `usual`, None if one of the values is of another kind."""
    if not isinstance(values, list) or len(values) < len(usual):
        return None
    known = values[: len(usual)]
    for have, like in zip(known, usual, strict=True):
        kinds = (int, float) if isinstance(like, float) else (type(like),)
        if type(have) not in kinds or not 0 <= have < 2**63:
            return None
    return type(usual)._make(known)
