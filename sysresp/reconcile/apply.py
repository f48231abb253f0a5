"""Doing what a plan says, step by step, and putting it back if a file cannot be written.

Owns the execution of steps: the undo of file steps, the window of jobs, Ctrl-C. It decides nothing that the
plan could have decided. Three rules. Until the first job is queued, any error or Ctrl-C leaves everything as
it was. From then on nothing is undone: the manifest says what is still owed, and the next apply goes on from
there. Jobs that are queued are never canceled by us, since systemd finishes them without us.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from posixpath import dirname
from typing import NamedTuple

from sysresp.errors import SysrespError
from sysresp.ports import Host, JobRemoved, UnitProblem
from sysresp.reconcile.manifest import Manifest, dumps
from sysresp.reconcile.outcome import Ledger, Outcome, outcome
from sysresp.reconcile.steps import (
    DaemonReload,
    InstallProber,
    Job,
    JobVerb,
    Link,
    Plan,
    RemoveDirectory,
    RemoveFile,
    ResetFailed,
    RunJobs,
    StartTransient,
    Step,
    Sync,
    Unlink,
    Verb,
    WriteFile,
    WriteManifest,
)

WINDOW = 256
"""Unfinished jobs at a time: above 510 PID 1 leaves the bus (systemd PR 35779, dbus match rule limit)."""

FOREVER_SEC = 86400.0
COUNT_SEC = 0.5  # the queue is counted so often for the progress: systemd does not announce its own jobs


class Event(NamedTuple):
    """Progress: a step begins, a job has ended, or (neither) the queue has become shorter."""

    step: Step | None  # the step that begins
    removed: JobRemoved | None  # the job that has ended
    finished: int  # units of the plan whose jobs have ended so far
    total: int  # units of the plan that get a job, systemd's own ones included


class _OutOfTimeError(Exception):
    """The deadline passed while jobs were unfinished."""


def apply(
    plan: Plan,
    host: Host,
    *,
    on_event: Callable[[Event], None] = lambda _: None,
    timeout_sec: float | None = None,
    now: Callable[[], float],
) -> Outcome:
    """Execute the plan and return what became of it; SysrespError if it could not be done at all."""
    run = _Run(plan, host, on_event, now, None if timeout_sec is None else now() + timeout_sec)
    interrupted = timed_out = False
    try:
        run.execute()
    except KeyboardInterrupt:
        interrupted = True
        if not run.queued:
            run.put_back()
            return Outcome(project=plan.project, interrupted=True, undone=True)
    except _OutOfTimeError:
        timed_out = True
    except OSError as error:
        raise run.give_up(error) from error
    except SysrespError as error:
        if run.begun:
            with suppress(OSError):
                run.remember(None)
            raise
        if run.put_back():
            raise
        raise SysrespError(error.message, hint=run.not_put_back(), exit=error.exit) from error
    seen = outcome(plan, host, run.ledger, interrupted=interrupted, timed_out=timed_out)
    try:
        run.remember(seen)
    except OSError as error:
        raise run.give_up(error) from error
    return seen


class _Run:
    """One execution of a plan."""

    def __init__(
        self,
        plan: Plan,
        host: Host,
        on_event: Callable[[Event], None],
        now: Callable[[], float],
        deadline: float | None,
    ) -> None:
        self.plan = plan
        self.host = host
        self.on_event = on_event
        self.now = now
        self.deadline = deadline
        self.ledger = Ledger()
        self.queued = False  # a job was queued, if only to stop something
        self.begun = False  # something was started, or the plan got past that point
        self._before: dict[str, tuple[str | None, bytes | None]] = {}  # path -> link or content
        self._made: list[str] = []  # directories that were empty or not there
        self._failed_undo: list[str] = []
        self._parents: set[str] = set()
        self._stopped: list[str] = []
        self._outstanding: dict[int, str] = {}
        self._total = len({awaited.unit for awaited in plan.awaited})
        self._watched: frozenset[str] = (
            frozenset()
        )  # units for which the jobs of this step are the ones meant
        self._ended: set[str] = set()
        self._doing: Step | None = None
        self._watching = False

    def execute(self) -> None:
        """Execute all steps but the manifest's confirmation."""
        steps = list(self.plan.steps)
        while steps:
            step = steps.pop(0)
            self._doing = step
            if isinstance(step, WriteManifest) and step.confirm:
                self.begun = True
                continue
            self.on_event(Event(step, None, len(self._ended), self._total))
            if isinstance(step, StartTransient):
                batch = [step]
                while steps and isinstance(steps[0], StartTransient):
                    batch.append(steps.pop(0))  # type: ignore[arg-type]
                self.begun = True
                self._run_jobs([(s.unit, (), partial(self._start_transient, s)) for s in batch])
            else:
                self._step(step)

    def remember(self, seen: Outcome | None) -> None:
        """Write the manifest with what is still owed; the first one stands if the files are not complete."""
        confirm = next((s for s in self.plan.steps if isinstance(s, WriteManifest) and s.confirm), None)
        if confirm is not None and self.begun:
            self._doing = confirm
            content = dumps(_owed(confirm.manifest, seen))
            if self.host.files.read(confirm.path) != content:
                self.host.files.write(confirm.path, content)

    def put_back(self) -> bool:
        """Undo the file steps, start again what was stopped; return whether all of it could be done."""
        for path, (link, content) in reversed(self._before.items()):
            try:
                self._restore(path, link, content)
            except OSError:
                self._failed_undo.append(path)
        for directory in reversed(self._made):
            with suppress(OSError):  # an empty directory harms nobody
                self.host.files.rmdir(directory)
        again = []
        for unit in reversed(self._stopped):
            with suppress(UnitProblem):
                again.append(self.host.manager.start(unit))
        if again:
            self.host.manager.wait(again, self._left(), lambda _: None)
        self._before.clear()
        self._stopped.clear()
        return not self._failed_undo

    def not_put_back(self) -> str:
        """Say which files could not be put back."""
        return f"these could not be put back as they were: {', '.join(self._failed_undo)}"

    def give_up(self, error: OSError) -> SysrespError:
        """Return the error that says which file, why, and how things stand."""
        doing = self._doing
        where = getattr(doing, "path", None) or error.filename or "a file"
        what = {RemoveFile: "remove", Unlink: "remove", RemoveDirectory: "remove", Link: "link"}
        message = f"cannot {what.get(type(doing), 'write')} {where}: {error.strerror}"
        if self.begun:
            return SysrespError(
                message, hint="all else was done; run the same command again when that is mended"
            )
        if not self.put_back():
            return SysrespError(message, hint=self.not_put_back())
        return SysrespError(f"{message}; nothing was changed", hint=_FILE_HINTS.get(error.errno or 0, ""))

    def _step(self, step: Step) -> None:
        files, manager = self.host.files, self.host.manager
        match step:
            case WriteManifest(path, manifest):
                self._write(path, dumps(manifest))
            case InstallProber(path, content) | WriteFile(path, content):
                self._write(path, content)
            case RemoveFile(path) | Unlink(path):
                self._save(path)
                files.remove(path)
            case Link(path, target):
                self._save(path)
                files.link(path, target)
            case RemoveDirectory(path):
                files.rmdir(path)
            case Sync(path):
                files.sync(path)
            case DaemonReload():
                manager.reload()
            case ResetFailed(unit):
                with suppress(UnitProblem):
                    manager.reset_failed(unit)
            case RunJobs(jobs):
                self.begun = self.begun or any(job.verb is not JobVerb.STOP for job in jobs)
                self._run_jobs([(job.unit, job.pulls, partial(self._queue, job)) for job in jobs])
            case StartTransient():
                raise AssertionError("is queued in batches")

    # files

    def _write(self, path: str, content: bytes) -> None:
        self._save(path)
        self.host.files.write(path, content)

    def _save(self, path: str) -> None:
        """Note how to put this path back, before it is touched."""
        files = self.host.files
        parent = dirname(path)
        if parent not in self._parents:
            self._parents.add(parent)
            if not files.listdir(parent):
                self._made.append(parent)
        if path not in self._before:
            link = files.readlink(path)
            self._before[path] = (link, files.read(path) if link is None else None)

    def _restore(self, path: str, link: str | None, content: bytes | None) -> None:
        files = self.host.files
        if link is not None:
            if files.readlink(path) != link:
                files.link(path, link)
        elif content is not None:
            if files.readlink(path) is not None or files.read(path) != content:
                files.write(path, content)
        elif files.readlink(path) is not None or files.read(path) is not None:
            files.remove(path)

    # jobs

    def _queue(self, job: Job) -> int:
        manager = self.host.manager
        match job.verb:
            case JobVerb.START:
                return manager.start(job.unit)
            case JobVerb.STOP:
                number = manager.stop(job.unit)
                self._stopped.append(job.unit)
                return number
            case JobVerb.RESTART:
                return manager.restart(job.unit)
            case JobVerb.RELOAD:
                return manager.reload_unit(job.unit)

    def _start_transient(self, step: StartTransient) -> int:
        manager = self.host.manager
        for _ in range(5):
            try:
                return manager.start_transient(step.unit, step.properties)
            except UnitProblem as problem:
                if problem.code != "UnitExists":
                    raise
                # The old one was stopped, and systemd forgets it when it next has nothing else to do.
                manager.reset_failed(step.unit)
                manager.units([step.unit])
        return manager.start_transient(step.unit, step.properties)

    def _run_jobs(self, calls: Iterable[tuple[str, tuple[str, ...], Callable[[], int]]]) -> None:
        if not self._watching:
            self.host.manager.watch_jobs()
            self._watching = True
        # A unit that is stopped only to be started later has not begun: its stop is not what was asked for.
        stops = self._is_stop()
        self._watched = frozenset(a.unit for a in self.plan.awaited if (a.verb is Verb.STOP) is stops)
        try:
            for unit, pulls, call in calls:
                while len(self._outstanding) >= WINDOW:
                    self._wait(sorted(self._outstanding)[: WINDOW // 4])
                self.queued = True
                try:
                    self._outstanding[call()] = unit
                    self.ledger.begun |= {unit, *pulls} & self._watched
                except UnitProblem as problem:
                    if problem.code == "NoSuchUnit" and stops:
                        continue  # gone since it was looked at
                    if self._before and not self.begun:  # its file must not be removed while it runs
                        raise SysrespError(f"cannot stop {unit}: {problem.message}") from problem
                    self.ledger.refused[unit] = problem
            self._wait(list(self._outstanding))
            # systemd makes jobs of its own: for what a target pulls in, for what requires a restarted unit.
            pending = self.host.manager.pending_jobs()
            self._outstanding = {job: unit for job, unit in pending.items() if unit in self._watched}
            self._wait(list(self._outstanding))
        except (KeyboardInterrupt, _OutOfTimeError):
            self.ledger.unfinished |= set(self._outstanding.values()) & self._watched
            with suppress(SysrespError):
                self.ledger.unfinished |= set(self.host.manager.pending_jobs().values()) & self._watched
            raise

    def _is_stop(self) -> bool:
        return isinstance(self._doing, RunJobs) and all(j.verb is JobVerb.STOP for j in self._doing.jobs)

    def _wait(self, jobs: list[int]) -> None:
        while jobs:
            left = self.host.manager.wait(jobs, min(self._left(), COUNT_SEC), self._removed)
            for job in set(jobs) - left:
                self._outstanding.pop(job, None)
            jobs = [job for job in jobs if job in left]
            if jobs and self.deadline is not None and self.now() >= self.deadline:
                raise _OutOfTimeError
            if jobs:
                self._count()

    def _count(self) -> None:
        """Tell how many have ended, by what is left in the queue."""
        ended = (self.ledger.begun & self._watched).difference(self.host.manager.pending_jobs().values())
        if not ended <= self._ended:
            self._ended |= ended
            self.on_event(Event(None, None, len(self._ended), self._total))

    def _left(self) -> float:
        return FOREVER_SEC if self.deadline is None else max(self.deadline - self.now(), 0.0)

    def _removed(self, removed: JobRemoved) -> None:
        self._outstanding.pop(removed.job_id, None)
        if removed.unit in self._watched:
            self.ledger.results[removed.unit] = removed.result
            self._ended.add(removed.unit)
            self.on_event(Event(None, removed, len(self._ended), self._total))


_FILE_HINTS = {
    13: "run it as root, or with --user for your own service manager",
    28: "make room on that file system, then run it again",
    30: "that file system is read-only; try --runtime, which writes to /run",
}


def _owed(manifest: Manifest, seen: Outcome | None) -> Manifest:
    """Return the manifest without what is confirmed; seen is None if nothing could be read."""
    if seen is None:
        return manifest
    cut = {*seen.unbegun, *seen.unfinished}
    failed = {f.unit for f in seen.failures if f.verb is not Verb.RELOAD}
    return manifest._replace(
        pending=tuple(name for name in manifest.pending if name in cut | failed),
        restarts=tuple(name for name in manifest.restarts if name in cut),
        reloads=tuple(name for name in manifest.reloads if name in cut),
    )
