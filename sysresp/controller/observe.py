"""What systemd says of the units now, as the same `Seen` that its signals make.

Owns the reading of many units at once. Decides nothing, changes nothing and remembers nothing: what comes
back is one moment of each unit, not one moment of all. Rule: properties are read one by one, and the unit
may die and rise between two of them. So the time of the last change of state is read before and after the
others, and if it differs all are read again: a Result must not be taken for that of another run. The same
holds for the job: up to systemd 253 one that waits for its restart has NRestarts counted up as the job is
queued, and no other state until the job runs (service_enter_restart in service.c).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sysresp.errors import SysrespError
from sysresp.ports import Manager, Question, Seen, UnitProblem

_FEW = 16
_ROUNDS = 4  # so often a unit that changes meanwhile is read; its next signal puts it right
_STAMP = "StateChangeTimestampMonotonic"
_FENCE = (_STAMP, "Job")
"""Read first and last: while these are the same, nothing else has changed that would not fit together."""
_UNIT = {"ActiveState": "active", "SubState": "sub", "InvocationID": "invocation", "Job": "job"}
_SERVICE = {  # of every run
    "NRestarts": "n_restarts",
    "MainPID": "main_pid",
    "ExecMainStartTimestampMonotonic": "started",
}
_ENDED = {  # only of one whose main process is not there: what the others are known to have
    "Result": "result",
    "ExecMainCode": "exec_code",
    "ExecMainStatus": "exec_status",
    "ExecMainExitTimestampMonotonic": "ended",
    "ExecMainExitTimestamp": "ended_at",
}
_FIELDS = {**_UNIT, **_SERVICE, **_ENDED, _STAMP: "changed"}
_TIMES = frozenset(("started", "ended", "ended_at", "changed"))
_UNKNOWN_BYTES = 2**64 - 1  # CGROUP_LIMIT_MAX: the cgroup does not count


def seen(manager: Manager, names: Sequence[str]) -> list[Seen]:
    """Return how each of these units is, in their order; LoadState "not-found" for one that is nowhere."""
    wanted = set(names)
    rows = {row.name: row for row in manager.units(_patterns(names)) if row.name in wanted}
    # What is not loaded has nothing to tell but that, and would be loaded anew for each property.
    others = manager.units_by_name([name for name in names if name not in rows])
    rows |= {row.name: row for row in others if row.active_state != "inactive" or row.job_id}
    loads = {row.name: row.load_state for row in (*others, *rows.values())}
    found = {name: Seen(name, load=loads.get(name, "not-found")) for name in names}
    runs = {name: row.active_state == "active" and row.sub_state == "running" for name, row in rows.items()}
    unread = list(rows)
    for left in reversed(range(_ROUNDS)):
        asked = [_questions(name, runs[name]) for name in unread]
        answers = iter(manager.many_properties([question for one in asked for question in one]))
        again = []
        for name, questions in zip(unread, asked, strict=True):
            parts = [next(answers) for _ in questions]
            fields = _fields({key: value for part in parts for key, value in part.items()})
            found[name] = found[name]._replace(**fields)
            is_whole = all(parts[0].get(part) == parts[-1].get(part) for part in _FENCE)
            if left and not (is_whole and (not runs[name] or fields.get("main_pid"))):
                runs[name] = False  # or not any more
                again.append(name)
        unread = again
        if not unread:
            break
    return list(found.values()) if len(found) == len(names) else [found[name] for name in names]


def memory_peaks(manager: Manager, units: Sequence[str]) -> dict[str, int]:
    """Return the most memory that each unit's processes used in this run, in bytes, where that is known.

    Never raises: what it is asked for is a detail of rows that must be written, whoever answers.
    """
    try:
        answers = manager.many_properties([Question(unit, "Service", ("MemoryPeak",)) for unit in units])
    except (SysrespError, UnitProblem):
        return {}
    peaks = {unit: found.get("MemoryPeak") for unit, found in zip(units, answers, strict=True)}  # since 256
    return {unit: peak for unit, peak in peaks.items() if isinstance(peak, int) and peak < _UNKNOWN_BYTES}


def _patterns(names: Sequence[str]) -> list[str]:
    """Return globs of these names; all units are a long answer for a few, and many globs a long search."""
    return ["*"] if len(names) > _FEW else [name.replace("\\", "\\\\") for name in names]


def _questions(name: str, runs: bool) -> list[Question]:
    first, last = Question(name, "Unit", (_STAMP, *_UNIT)), Question(name, "Unit", _FENCE)
    if not name.endswith(".service"):
        return [first, last]
    return [first, Question(name, "Service", (*_SERVICE, *({} if runs else _ENDED))), last]


def _fields(properties: Mapping[str, object]) -> dict[str, Any]:
    fields: dict[str, Any] = {_FIELDS[name]: value for name, value in properties.items()}
    for name in _TIMES & fields.keys():
        fields[name] /= 1e6
    if "job" in fields:
        fields["job"] = fields["job"][0]
    return fields
