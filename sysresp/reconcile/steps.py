"""The plan as a value: the steps that apply executes in order, and the changes that a person reads.

Owns the shape of `Plan`. Nothing here decides or acts. Rule: a plan is complete: `plan` prints it and
`apply` executes it, and neither asks anyone for more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from sysresp.errors import Problem, Severity
from sysresp.model import NOWHERE, Origin
from sysresp.reconcile.drift import Drift
from sysresp.reconcile.manifest import Manifest


class Verb(StrEnum):
    """What happens to a unit or its file; the order is the order in which plans are printed."""

    CREATE = "create"  # the unit file is new
    CHANGE = "change"  # the unit file or its links get another content
    RESTART = "restart"
    RELOAD = "reload"
    START = "start"
    STOP = "stop"
    REMOVE = "remove"  # the unit file goes
    KEEP = "keep"  # left as it is although the file asks for something else; the reason says why


class JobVerb(StrEnum):
    """The jobs that are asked of systemd."""

    START = "start"
    STOP = "stop"
    RESTART = "restart"
    RELOAD = "reload"


@dataclass(frozen=True, slots=True)
class Job:
    """One call of StartUnit, StopUnit, RestartUnit or ReloadUnit."""

    verb: JobVerb
    unit: str
    pulls: tuple[str, ...] = ()  # for a target: the units of the plan whose own jobs systemd makes of it


@dataclass(frozen=True, slots=True)
class WriteManifest:
    """Put the manifest there. `confirm`: the last step, which leaves out of it what has been confirmed."""

    path: str
    manifest: Manifest
    confirm: bool = False


@dataclass(frozen=True, slots=True)
class WriteState:
    """Put a file of sysresp's own there, durably: the record of a generation, the history."""

    path: str
    content: bytes = field(repr=False)
    mode: int = 0o644


@dataclass(frozen=True, slots=True)
class InstallProber:
    """Put the readiness prober there."""

    path: str
    content: bytes


@dataclass(frozen=True, slots=True)
class WriteFile:
    """Write one unit file by rename."""

    path: str
    content: bytes


@dataclass(frozen=True, slots=True)
class RemoveFile:
    """Remove one file of ours: a unit file whose units were stopped, or a manifest."""

    path: str


@dataclass(frozen=True, slots=True)
class Link:
    """Make one symbolic link."""

    path: str
    target: str


@dataclass(frozen=True, slots=True)
class Unlink:
    """Remove one symbolic link."""

    path: str


@dataclass(frozen=True, slots=True)
class RemoveDirectory:
    """Remove a directory if it is empty."""

    path: str


@dataclass(frozen=True, slots=True)
class Sync:
    """Make what was written durable before anything is started from it."""

    path: str


@dataclass(frozen=True, slots=True)
class DaemonReload:
    """Let systemd read its unit files again; at most one in a plan."""


@dataclass(frozen=True, slots=True)
class ResetFailed:
    """Forget the failed state of a unit, and its start counters, so that it can be started or go."""

    unit: str


@dataclass(frozen=True, slots=True)
class RunJobs:
    """Queue these jobs in this order, and wait until all are finished.

    Where the only job is the start of the project's target, systemd makes one of its own for each unit that
    the target pulls in, and the target's job ends last (systemd.target(5): After= is implied by Wants=).
    """

    jobs: tuple[Job, ...]


@dataclass(frozen=True, slots=True)
class StartTransient:
    """Start one transient unit; consecutive ones are queued together and awaited together."""

    unit: str
    properties: tuple[tuple[str, str, object], ...]


@dataclass(frozen=True, slots=True)
class Settle:
    """Watch these units, each for so many seconds; one that is not up for all of that time has failed.

    That ends the watch, and the plan: what follows is for the instances that come next. But not if the unit
    is `excused`: it may fail, or it was not up before either; then the others are watched to their end.
    """

    units: tuple[tuple[str, float], ...]
    excused: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait before the next instances are changed."""

    seconds: float


Step = (
    WriteManifest
    | WriteState
    | InstallProber
    | WriteFile
    | RemoveFile
    | Link
    | Unlink
    | RemoveDirectory
    | Sync
    | DaemonReload
    | ResetFailed
    | RunJobs
    | StartTransient
    | Settle
    | Pause
)


@dataclass(frozen=True, slots=True)
class Change:
    """What happens to one unit file or unit, and why."""

    unit: str  # name of a unit, or of the unit file where that has instances ("shop-web@.service")
    verbs: tuple[Verb, ...]
    reason: str = ""
    origin: Origin = NOWHERE
    service: str = ""  # entry of services.toml; "" for the project's slice and target
    before: str | None = field(default=None, repr=False)  # unit text on disk, if it differs from `after`
    after: str | None = field(default=None, repr=False)  # unit text to be written; None: none is

    @property
    def diff(self) -> tuple[str, ...]:
        """Return the lines of a unified diff of the unit text; empty if the text stays as it is."""
        if self.before == self.after:
            return ()
        from difflib import unified_diff  # noqa: PLC0415 - only a change that is shown pays for it

        old, new = (text.splitlines() if text is not None else [] for text in (self.before, self.after))
        names = (
            "/dev/null" if self.before is None else self.unit,
            "/dev/null" if self.after is None else self.unit,
        )
        return tuple(unified_diff(old, new, *names, lineterm=""))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rolling:
    """How the instances of a service are restarted or reloaded, for those who read the plan."""

    service: str
    batches: tuple[tuple[str, ...], ...]  # units; each batch begins when the one before has settled
    settle_sec: float
    pause_sec: float
    stop_on_failure: bool
    reason: str = ""  # why they all go at once, if they do


@dataclass(frozen=True, slots=True)
class Awaited:
    """A unit whose state is read when the jobs are done, because apply meant to do something to it."""

    unit: str
    verb: Verb  # START, RESTART, RELOAD or STOP
    service: str = ""
    origin: Origin = NOWHERE


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that would be done, in order. With problems or refused there are no steps: nothing is done."""

    project: str
    steps: tuple[Step, ...] = ()
    changes: tuple[Change, ...] = ()
    keeps: tuple[Change, ...] = ()  # verb KEEP: left as it is, with the reason
    problems: tuple[Problem, ...] = ()
    awaited: tuple[Awaited, ...] = ()
    rollouts: tuple[Rolling, ...] = ()
    prober: str = ""  # path of the prober, to tell a readiness timeout from a failed post_start
    previous: Manifest | None = None  # the manifest that was there before
    drift: tuple[Drift, ...] = ()  # what is not as the last apply left it, and was not accepted so
    refused: tuple[Drift, ...] = ()  # drift that this plan would overwrite unasked: so it has no steps

    @property
    def errors(self) -> tuple[Problem, ...]:
        """Return the problems for which nothing is done."""
        return tuple(p for p in self.problems if p.severity is Severity.ERROR)

    @property
    def is_noop(self) -> bool:
        """Say whether nothing changes; lines that moved in the file may still be noted in the manifest."""
        return not self.changes and not any(not isinstance(step, WriteManifest) for step in self.steps)

    def counts(self) -> dict[Verb, int]:
        """Return how many units and files each verb concerns; verbs that concern none are left out."""
        counted = Counter(verb for change in self.changes for verb in change.verbs)
        return {verb: counted[verb] for verb in Verb if counted[verb]}

    def grouped(self) -> Iterator[tuple[Verb, list[Change]]]:
        """Yield the changes by their first verb, and the keeps last; no empty groups."""
        for verb in Verb:
            group = [change for change in (*self.changes, *self.keeps) if change.verbs[0] is verb]
            if group:
                yield verb, group

    def summary(self) -> str:
        """Return one line such as "3 to create, 1 to restart"."""
        words = [f"{n} to {verb}" for verb, n in self.counts().items()]
        return ", ".join(words) if words else "nothing to do"
