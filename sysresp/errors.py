"""Problems as values, and the few exceptions that carry them to the command line.

Owns the shape of everything sysresp says when it refuses or fails. Never prints and never exits: only
`sysresp.cli` does. Rule: a message says what, where, why and how to fix; it starts in lower case and has no
final stop. All problems of a file are collected and raised together as one `SpecError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the model's classes take 1.7 MB, and the daemon needs none of them
    from sysresp.model import Origin


class Exit(IntEnum):
    """Exit statuses of the command; documented in sysresp(1), never renumbered."""

    OK = 0  # done, or nothing to do
    FAILED = 1  # something failed at run time: a unit, a file operation
    USAGE = 2  # bad usage or a bad file (`plan --detailed-exitcode`: changes pending)
    NOT_WELL = 3  # `status`: something that should run does not; `drift`: there is some; `doctor`: a finding
    UNKNOWN = 4  # a name that no project has
    DENIED = 5  # the caller lacks the rights
    UNREACHABLE = 6  # no systemd, or no D-Bus, to talk to
    ROLLED_BACK = 7  # the new generation failed, and the previous one is back
    LOCKED = 8  # another sysresp is changing this project
    REFUSED = 9  # the host is not as the last apply left it, or not as the plan saw it; nothing was done
    INTERRUPTED = 130  # Ctrl-C


class Severity(StrEnum):
    """How bad a problem is; `check --strict` treats warnings as errors."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing wrong with the user's input: sorts by file and line."""

    origin: Origin
    key: str  # dotted path in the file, such as "services.web.restart.delay"; "" for the file itself
    what: str  # 'must be a duration, got "soon"'
    fix: str = ""  # 'write a number with a unit, such as "5s"'
    severity: Severity = Severity.ERROR
    source: str = ""  # the text of that line, without its newline; shown under the message


class SysrespError(Exception):
    """An operation that cannot go on: one message, one hint, one exit status."""

    def __init__(self, message: str, *, hint: str = "", exit: Exit = Exit.FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.exit = exit


class SpecError(SysrespError):
    """The file (or a layer of it) has problems; holds all of them, sorted by line, warnings included."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems))
        errors = sum(p.severity is Severity.ERROR for p in self.problems)
        super().__init__(f"{errors} error{'s' * (errors != 1)} in the file", exit=Exit.USAGE)
