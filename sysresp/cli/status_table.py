"""The forms in which `sysresp status` shows its rows: a table and JSON.

Pure: rows, the time and a width in, text out. Rule: the JSON keys are documented in sysresp(1), JSON,
and are only ever added to; the table is for people and may change.
"""

from __future__ import annotations

import time

from sysresp.cli import rows, table, words

TYPE_CHECKING = False  # typing itself costs 5 ms to import
if TYPE_CHECKING:
    from collections.abc import Sequence

COLUMNS = (
    table.Column("PROJECT", floor=6),
    table.Column("SERVICE", floor=10),
    table.Column("STATE", floor=14),
    table.Column("DRIFT", floor=7),
    table.Column("SINCE", drop=2),
    table.Column("PID", drop=3, right=True),
    table.Column("RESTARTS", drop=5, right=True),
    table.Column("MEMORY", drop=4, right=True),
    table.Column("CPU", drop=6, right=True),
    table.Column("TASKS", drop=7, right=True),
    table.Column("LISTENING / NEXT RUN", drop=1, floor=12),
)
STATE = 2
COLOURS = {rows.OK: "32", rows.BUSY: "33", rows.OFF: "2", rows.BAD: "31"}


def render(
    shown: Sequence[rows.Row], now: float, width: int | None, *, colour: bool, mark: str = "…"
) -> str:
    """Return the table; the project is shown only where there are several."""
    several = len({row.project for row in shown}) > 1
    cells = [_cells(row, now, several) for row in shown]

    def paint(row: int, column: int, text: str) -> str:
        if row < 0:
            return f"\033[1m{text}\033[0m"
        return f"\033[{COLOURS[shown[row].level]}m{text}\033[0m" if column == STATE else text

    out = (
        table.lines(COLUMNS, cells, width, mark, paint)
        if colour
        else table.lines(COLUMNS, cells, width, mark)
    )
    return "\n".join(out) + "\n"


def _cells(row: rows.Row, now: float, several: bool) -> tuple[str, ...]:
    running = row.observed.active in {"active", "activating", "deactivating", "reloading"}
    state = f"{row.state} {row.count}" if row.count else row.state
    if row.reason:
        state += f": {row.reason}"
    return (
        row.project if several else "",
        row.name,
        state,
        ", ".join(row.drift),
        words.span(now - row.since) if row.since else "",
        str(row.pid) if row.pid else "",
        str(row.restarts) if row.restarts is not None and (running or row.restarts) else "",
        words.size(row.memory) if row.memory is not None and running else "",
        words.cpu_time(row.cpu) if row.cpu is not None and running else "",
        str(row.tasks) if row.tasks is not None and running else "",
        note(row, now),
    )


def note(row: rows.Row, now: float) -> str:
    """Return what it waits for, until when: its next start, its next run; else where it listens."""
    if row.next_start is not None:
        ahead = row.next_start - now
        return f"start in {words.span(ahead)}" if ahead >= 1 else "start is due"
    if row.next_run is not None:
        ahead = row.next_run - now
        return f"in {words.span(ahead)}" if ahead >= 1 else "due"
    return ", ".join(row.listen)


def as_objects(shown: Sequence[rows.Row]) -> list[dict[str, object]]:
    """Return what `--json` prints: one object for each unit, never folded."""
    return [_object(row) for row in shown]


def _object(row: rows.Row) -> dict[str, object]:
    seen = row.observed
    code, status = seen.number("ExecMainCode"), seen.number("ExecMainStatus")
    ended = row.state in {"failed", "waiting to restart", "stopped", "finished"}
    return {
        "version": 1,
        "project": row.project,
        "service": seen.service,
        "instance": seen.instance or None,
        "unit": seen.name,
        "scope": row.scope,
        "mode": row.mode,
        "generation": row.generation or None,
        "state": row.state,
        "reason": row.reason or None,
        "well": row.well,
        "drift": list(row.drift),
        "load_state": seen.load,
        "active_state": seen.active,
        "sub_state": seen.sub,
        "since": stamp(row.since),
        "pid": row.pid,
        "restarts": row.restarts,
        "memory_bytes": row.memory,
        "cpu_sec": round(row.cpu / 1e9, 6) if row.cpu is not None else None,
        "tasks": row.tasks,
        "result": seen.text("Result") or None,
        "exit_code": status if ended and code == words.EXITED else None,
        "signal": words.signal_name(status)
        if ended and status is not None and code in {words.KILLED, words.DUMPED}
        else None,
        "listen": list(row.listen),
        "next_run": stamp(row.next_run),
        "last_run": stamp(row.last_run),
        "healthy": row.healthy,
        "wait": row.wait or None,
        "next_start": stamp(row.next_start),
        "waits_for": list(row.waits_for),
    }


def stamp(seconds: float | None) -> str | None:
    """Return an instant as RFC 3339 in UTC, such as "2025-03-01T06:00:00Z"."""
    return None if seconds is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
