"""The forms in which `logs` shows an entry: a line with a prefix, and JSON.

Pure: entries in, text out; ten thousand a second. Rules: what a service printed stands behind "|", what
systemd did to it behind "*", which no service can print; nothing that a terminal would act on comes through;
the JSON keys are documented in sysresp(1) and only ever added to.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from json.encoder import encode_basestring_ascii as quoted
from typing import NamedTuple
from zlib import crc32

from sysresp.cli import table, terminal
from sysresp.cli.words import DUMPED, EXITED, KILLED
from sysresp.reconcile.explain import exit_words, job_words, result_words, signal_name
from sysresp.systemd.logs import CORE, LINE, SAID, LogEntry

_PALETTE = ("32", "33", "34", "35", "36", "92", "93", "94", "95", "96", "38;5;208", "38;5;141", "38;5;79")
"""Of the services; red is for what went wrong."""

_COLOUR_CODES = re.compile(r"\033\[[0-9;:]*m")  # harmless, and noise once they are made visible
_OWN_EXIT = frozenset(("exit-code", "signal", "core-dump"))
_WIDEST = 24
_BAD = frozenset(("exited", "failed", "start-failed", "oom", CORE))
_CONTROL = {  # COMMAND of an exit -> the key of the service
    "ExecStartPre": "pre_start",
    "ExecStartPost": "post_start",
    "ExecReload": "reload",
    "ExecStop": "stop",
    "ExecStopPost": "post_stop",
    "ExecCondition": "conditions",
}


class Called(NamedTuple):
    """How a person calls a unit."""

    project: str
    service: str
    instance: str
    label: str  # "web@2", with the project where there are several


def what(entry: LogEntry) -> str:
    """Return in plain words what systemd did, or what became of the unit; "" if other lines say it."""
    match entry.kind:
        case "exited":
            control = _CONTROL.get(entry.command, "")
            if control:
                return result_words("exit-code", entry.exec_code, entry.exec_status, control=control)
            return exit_words(entry.exec_code, entry.exec_status) or "exit status 0"
        case "failed":
            told = result_words(entry.result, 0, 0)
            return "" if entry.result in _OWN_EXIT else f"failed: {told}" if told else "failed"
        case "start-failed":
            why = "" if entry.result == "failed" else job_words(entry.result)
            return f"could not be started: {why}" if why else "could not be started"
        case "started":
            # Of a condition that is not met systemd says the same, but there is no run.
            return "started" if entry.invocation else "not started: a condition of its unit is not met"
        case "restart":
            return f"systemd starts it again (restart {entry.n_restarts})"
        case "finished":
            return "ended well"
        case "stopped":
            return "" if entry.job_type == "restart" else "stopped"
        case "oom":
            return "the kernel killed a process of it for want of memory"
        case _:
            return entry.text


def plain(text: str) -> str:
    """Return one line of a service's text as it may go to a terminal; tabs stay."""
    if text.isprintable():
        return text
    return "\t".join(table.clean(part) for part in _COLOUR_CODES.sub("", text).rstrip("\r").split("\t"))


class Lines:
    """Makes the lines that people read."""

    def __init__(self, names: Mapping[str, Called], *, colour: bool) -> None:
        width = min(_WIDEST, max((table.width_of(name.label) for name in names.values()), default=0))
        self._heads: dict[str, tuple[str, str]] = {}
        for unit, name in names.items():
            label = table.shorten(name.label, _WIDEST)
            label += " " * (width - table.width_of(label))
            mine = _PALETTE[crc32(name.service.encode()) % len(_PALETTE)]
            said = terminal.paint(f"{label} |", mine, on=colour)
            self._heads[unit] = (said + " ", terminal.paint(label, mine, on=colour) + " * ")
        self._colour = colour
        self._second = -1
        self._stamp = ""

    def of(self, entry: LogEntry, text: str) -> str:
        """Return the lines of one entry, each with its newline."""
        second = entry.at // 1_000_000
        if second != self._second:
            self._second, self._stamp = second, time.strftime("%b %d %H:%M:%S ", time.localtime(second))
        if entry.kind == LINE:
            head = self._stamp + self._heads[entry.unit][0]
            if text.isprintable():
                return f"{head}{text}\n"
            return "".join(f"{head}{plain(line)}\n" for line in text.rstrip("\n").split("\n"))
        colour = (
            terminal.RED if entry.kind in _BAD else terminal.DIM if entry.kind == SAID else terminal.BOLD
        )
        first = text.partition("\n")[0]  # of a core dump's report, which has the stacks of all threads
        return (
            f"{self._stamp}{self._heads[entry.unit][1]}"
            f"{terminal.paint(table.clean(first), colour, on=self._colour)}\n"
        )


class Objects:
    """Makes the objects of `--json`, one a line."""

    def __init__(self, names: Mapping[str, Called]) -> None:
        self._heads = {
            unit: f'"project": {quoted(name.project)}, "service": {quoted(name.service)}, '
            f'"instance": {quoted(name.instance) if name.instance else "null"}, "unit": {quoted(unit)}, '
            for unit, name in names.items()
        }
        self._second = -1
        self._stamp = ""

    def of(self, entry: LogEntry, text: str) -> str:
        second, rest = divmod(entry.at, 1_000_000)
        if second != self._second:
            self._second, self._stamp = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        code = status = name = "null"
        if entry.exec_code == EXITED:
            code = str(entry.exec_status)
        elif entry.exec_code in {KILLED, DUMPED}:
            name = quoted(signal_name(entry.exec_status))
        status = quoted(entry.result) if entry.result else "null"
        run = quoted(entry.invocation) if entry.invocation else "null"
        return (
            f'{{"version": 1, "at": "{self._stamp}.{rest:06d}Z", {self._heads[entry.unit]}'
            f'"kind": "{entry.kind}", "message": {quoted(text)}, "priority": {entry.priority}, '
            f'"pid": {entry.pid or "null"}, "invocation": {run}, "result": {status}, "exit_code": {code}, '
            f'"signal": {name}, "restarts": {entry.n_restarts or "null"}}}\n'
        )


def select(
    batch: Sequence[LogEntry],
    form: Callable[[LogEntry, str], str],
    matches: Callable[[str], object] | None = None,
) -> list[str]:
    """Return the batch in this form; only what matches, if that is asked."""
    out: list[str] = []
    for entry in batch:
        text = entry.text if entry.kind == LINE else what(entry)
        if (text or entry.kind == LINE) and (matches is None or matches(text)):
            out.append(form(entry, text))
    return out
