"""Numbers and codes in a person's words: durations, sizes, results, signals.

Owns every conversion from what systemd reports (microseconds, bytes, CLD_ codes) to the text of a table or a
message, so that `status`, `apply` and a failure report say the same thing the same way. Never reads a clock
and never prints. Rule: this module is on the path of `sysresp status`, so it imports nothing at the top that
python3 has not loaded already.
"""

from __future__ import annotations

NOT_SET = 2**64 - 1
"""How systemd says "no value" for MemoryCurrent, TasksCurrent, CPUUsageNSec and for times."""

RESULTS = {
    # Result= of a unit (systemd.exec(5), $SERVICE_RESULT; src/core/service.c, service_result_table)
    "success": "success",
    "resources": "cannot set it up (resources)",
    "protocol": "protocol error: it did not report as its type promises",
    "timeout": "timeout",
    "exit-code": "exit code",
    "signal": "signal",
    "core-dump": "signal, core dumped",
    "watchdog": "watchdog timeout",
    "exec-condition": "its condition said no",
    "start-limit-hit": "start limit hit",
    "oom-kill": "out of memory",
    "service-failed-permanent": "its service failed permanently",
    "unit-start-limit-hit": "start limit of its unit hit",
    "trigger-limit-hit": "trigger limit hit",
    "mount-start-limit-hit": "start limit of its mount hit",
}

JOB_RESULTS = {
    # how a job ended (src/core/job.h, JobResult)
    "done": "done",
    "canceled": "the job was canceled",
    "timeout": "the job timed out",
    "failed": "the job failed",
    "dependency": "a unit that it requires failed",
    "skipped": "the job was skipped",
    "invalid": "the job makes no sense for this unit",
    "assert": "an assertion of the unit failed",
    "unsupported": "the unit type is not supported here",
    "collected": "the unit was unloaded",
    "once": "the unit may run only once and already has",
    "frozen": "the unit is frozen",
    "concurrency": "a concurrency limit of its slice was reached",
}

EXEC_STEPS = {
    # exit codes with which PID 1 says that it could not get as far as the program (systemd.exec(5))
    200: "cannot change to its directory",
    201: "cannot set its niceness",
    202: "cannot set up its file descriptors",
    203: "cannot execute the program",
    204: "not enough memory to start",
    205: "cannot set a resource limit",
    206: "cannot set the OOM score",
    207: "cannot set the signal mask",
    208: "cannot set up standard input",
    209: "cannot set up standard output",
    214: "cannot set the CPU scheduling",
    216: "cannot become its group",
    217: "cannot become its user",
    218: "cannot set its capabilities",
    219: "cannot join its control group",
    222: "cannot set up standard error",
    224: "cannot open a PAM session",
    225: "cannot set up its network",
    226: "cannot set up its mount namespace",
    227: "cannot drop privileges",
    228: "cannot set its system call filter",
    233: "cannot make its runtime directory",
    238: "cannot make its state directory",
    239: "cannot make its cache directory",
    240: "cannot make its logs directory",
    241: "cannot make its configuration directory",
    243: "cannot load its credentials",
}

EXITED, KILLED, DUMPED = 1, 2, 3  # si_code of SIGCHLD (sigaction(2)), as in ExecMainCode


def signal_name(number: int) -> str:
    """Return "SEGV" for 11; the number itself if it has no name."""
    import signal  # noqa: PLC0415 - 1 ms that only a killed service costs

    try:
        return signal.Signals(number).name.removeprefix("SIG")
    except ValueError:
        first = int(signal.SIGRTMIN)
        return f"RTMIN+{number - first}" if first <= number <= int(signal.SIGRTMAX) else str(number)


def ending(result: str, code: int, status: int) -> str:
    """Say how a service ended, from Result, ExecMainCode and ExecMainStatus.

    "" if there is nothing to tell. The cause systemd names comes first: a service that the watchdog killed
    with ABRT is "watchdog timeout", not "signal ABRT".
    """
    if result == "exit-code" or (result == "start-limit-hit" and code == EXITED and status):
        step = EXEC_STEPS.get(status, "")
        return f"{step} (exit code {status})" if step else f"exit code {status}"
    if result in {"signal", "core-dump"}:
        return f"signal {signal_name(status)}" + (", core dumped" if result == "core-dump" else "")
    if result in {"", "success"}:
        return ""
    return RESULTS.get(result, result)


def job_result(result: str) -> str:
    """Say how a job ended; a word that is not known yet stands for itself."""
    return JOB_RESULTS.get(result, f"the job ended with {result!r}")


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
