"""Numbers in a person's words: durations, sizes, counts.

Owns every conversion from what systemd reports (microseconds, bytes) to the text of a table or a message;
the words for results and signals are those of `sysresp.reconcile.explain`. Never reads a clock and never
prints. Rule: this module is on the path of `sysresp status`, so it imports nothing at the top that python3
has not loaded already.
"""

from __future__ import annotations

NOT_SET = 2**64 - 1
"""How systemd says "no value" for MemoryCurrent, TasksCurrent, CPUUsageNSec and for times."""

EXITED, KILLED, DUMPED = 1, 2, 3  # si_code of SIGCHLD (sigaction(2)), as in ExecMainCode


def ending(result: str, code: int, status: int) -> str:
    """Say how a service ended, from Result, ExecMainCode and ExecMainStatus; "" if there is nothing."""
    if result in {"", "success"}:
        return ""
    from sysresp.reconcile.explain import result_words  # noqa: PLC0415 - only a failed service pays for it

    return result_words(result, code, status)


def signal_name(number: int) -> str:
    """Return "SIGSEGV" for 11."""
    from sysresp.reconcile.explain import signal_name as name  # noqa: PLC0415

    return name(number)


def span(seconds: float) -> str:
    """Return a length of time in one or two units: "4s", "2min 5s", "3h 12min", "5d 2h"."""
    left = max(0, int(seconds))
    for size, name, smaller, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if left >= size:
            whole, rest = divmod(left, size)
            part = rest // smaller
            return f"{whole}{name} {part}{small}" if part and whole < 10 else f"{whole}{name}"
    return f"{left}s"


def size(count: int) -> str:
    """Return a number of bytes as "812K", "1.2M" or "12G" (powers of 1024)."""
    value = float(count)
    unit = "B"
    for larger in "KMGTPE":
        if value < 1023.5:
            break
        value /= 1024
        unit = larger
    if unit == "B":
        return f"{count}B"
    return f"{value:.1f}{unit}" if value < 9.95 else f"{value:.0f}{unit}"


def cpu_time(nanoseconds: int) -> str:
    """Return used CPU time: "12ms", "3.4s", "2min 5s"."""
    seconds = nanoseconds / 1e9
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f}ms"
    return f"{seconds:.1f}s" if seconds < 59.95 else span(seconds)


def plural(count: int, noun: str) -> str:
    """Return "1 service", "2 services"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
