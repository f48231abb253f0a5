"""What a unit is made of before it is text: groups of directives, and the problems met on the way.

Owns the plain parts that every kind of unit is composed from, the checks of a directive against the table,
and how the user's raw directives come in. Never decides which directive a key of the file means.

Rule: a directive that systemd would ignore silently is always reported, whoever wrote it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf

from sysresp.errors import Problem, Severity
from sysresp.model import Origin, Scope
from sysresp.units import quote
from sysresp.units.directives import TABLE


class Group(list[tuple[str, str]]):
    """Directives that belong together: prints as their lines, is false if there are none."""

    def __str__(self) -> str:
        return "\n".join([f"{name}={value}" for name, value in self])

    def add(self, name: str, *values: str | None) -> None:
        """Append a line for each value that is not None."""
        self += [(name, value) for value in values if value is not None]


Groups = dict[str, Group]

SECTIONS = {
    "about": "Unit", "order": "Unit", "conditions": "Unit", "limit": "Unit", "raw_unit": "Unit",
    "run": "Service", "who": "Service", "environment": "Service", "directories": "Service",
    "restart": "Service", "stop": "Service", "resources": "Service", "hardening": "Service",
    "raw_service": "Service",
    "install": "Install", "raw_install": "Install",
    "socket": "Socket", "raw_socket": "Socket",
    "timer": "Timer", "raw_timer": "Timer",
    "path": "Path", "raw_path": "Path",
}  # fmt: skip
"""Group, as templates know it -> the section it is in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a unit depends on besides its own service."""

    project: str
    version: int  # of systemd
    scope: Scope
    prober: Sequence[str]  # command line of the readiness prober
    units: Mapping[str, tuple[str, ...]]  # service -> what its name means in before, part_of, conflicts
    wanted: Mapping[str, tuple[str, ...]]  # service -> ... in after, requires, ...: the socket if on demand


class Report:
    """Collects the problems of one table of the file, such as "services.web"."""

    def __init__(self, table: str, origin: Origin, lines: Mapping[str, Origin]) -> None:
        self.table = table
        self.origin = origin
        self.lines = lines
        self.problems: list[Problem] = []

    def add(self, key: str, what: str, fix: str = "", severity: Severity = Severity.ERROR) -> None:
        """Add a problem at the line of the key, or of the nearest key above it."""
        at = key
        while at and at not in self.lines:
            at = at.rpartition(".")[0]
        origin = self.lines.get(at, self.origin)
        self.problems.append(Problem(origin, f"{self.table}.{key}", what, fix, severity))

    def warn(self, key: str, what: str, fix: str = "") -> None:
        """Add a warning."""
        self.add(key, what, fix, Severity.WARNING)

    def value(self, key: str, make: Callable[..., str], *args: object, **options: object) -> str | None:
        """Return make(...), or None after adding what cannot be represented."""
        try:
            return make(*args, **options)
        except quote.Unrepresentable as error:
            self.add(key, error.what, error.fix)
            return None


def span(sec: float) -> str:
    """Return a duration as systemd.time(7) writes it, exact to the microsecond."""
    if sec == inf:
        return "infinity"
    usec = round(sec * 1_000_000)
    for unit, size in (("h", 3_600_000_000), ("min", 60_000_000), ("s", 1_000_000), ("ms", 1000)):
        if usec and usec % size == 0:
            return f"{usec // size}{unit}"
    return f"{usec}us" if usec else "0"


_TO_BLANK = dict.fromkeys(map(ord, "\n\r\0"), " ")


def one_line(description: str) -> str:
    """Return a description that a unit file can hold: one line, no blank around it, no "\\" at its end."""
    return description.translate(_TO_BLANK).strip("\t ").rstrip("\\\t ")


def too_new(directive: str, version: int) -> str:
    """Say that the running systemd lacks a directive."""
    return f"needs {directive}=, which is new in systemd {TABLE[directive].since} (this is {version})"


def check_directive(section: str, name: str, key: str, report: Report, version: int) -> None:
    """Report a directive that systemd would ignore with no more than a line in its log."""
    row = TABLE.get(name)
    if row is None:
        if not name.startswith("X-") and name != "":
            from difflib import get_close_matches  # noqa: PLC0415 - only a mistake pays for it

            near = get_close_matches(name, TABLE, 1)
            fix = f"did you mean {near[0]}?" if near else "look it up in systemd.directives(7)"
            report.warn(
                key, f"{name}= is not a directive that sysresp knows, and systemd ignores unknown ones", fix
            )
    elif section not in row.sections:
        report.warn(key, f"{name}= has no meaning in [{section}]", f"write it in systemd.{row.sections[0]}")
    elif row.since > version:
        report.add(
            key,
            f"{name}= is new in systemd {row.since}, and this is {version}, which would ignore it silently",
            "remove it, or update systemd",
        )


def _verbatim(value: str) -> str:
    """Return a raw value as it is, if it stays in its line."""
    quote.loadable(value)
    if "\n" in value or "\r" in value or value.endswith("\\"):
        raise quote.Unrepresentable("holds a line break, or a backslash at its end", "write a list")
    return value


def apply_raw(
    groups: Groups, raw: Mapping[str, Mapping[str, tuple[str, ...]]], report: Report, version: int
) -> None:
    """Put the user's raw directives of the sections in `groups` into them.

    They replace ours of the same name where it stands, so that they appear where a reader looks for them;
    the others get a group of their own, "raw_unit" for [Unit] and so on.
    """
    for section in dict.fromkeys(SECTIONS[name] for name in groups):
        extra = groups[f"raw_{section.lower()}"] = Group()
        for name, values in raw.get(section, {}).items():
            key = f"systemd.{section}.{name}"
            check_directive(section, name, key, report, version)
            if None in [report.value(key, _verbatim, value) for value in values]:
                continue
            lines = [(name, value) for value in values]
            for group_name, group in groups.items():
                if SECTIONS[group_name] == section and any(ours == name for ours, _ in group):
                    at = next(i for i, line in enumerate(group) if line[0] == name)
                    rest = [line for line in group[at:] if line[0] != name]
                    group[at:] = [*lines, *rest]
                    lines = []
            extra += lines
