"""Doing what a plan says, step by step, and putting it back if a file cannot be written.

Owns the execution of steps, and the point at which an undo becomes a going-on. It decides nothing that the
plan could have decided. Two rules. Until something is started, any error or Ctrl-C leaves everything as it
was. From then on nothing is undone here: the manifest says what is still owed, and the next apply, or a
rollback, which is another plan, goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial

from sysresp.errors import SysrespError
from sysresp.ports import Host, UnitProblem
from sysresp.reconcile import settle
from sysresp.reconcile.decide import is_running
from sysresp.reconcile.jobs import Call, Event, Jobs, OutOfTimeError
from sysresp.reconcile.manifest import Manifest, dumps, patterns
from sysresp.reconcile.manifest import path as manifest_path
from sysresp.reconcile.outcome import Ledger, Outcome, outcome
from sysresp.reconcile.steps import (
    DaemonReload,
    InstallProber,
    JobVerb,
    Link,
    Pause,
    Plan,
    RemoveDirectory,
    RemoveFile,
    ResetFailed,
    RunJobs,
    Settle,
    StartTransient,
    Step,
    Sync,
    Unlink,
    Verb,
    WriteFile,
    WriteManifest,
    WriteState,
)

__all__ = ["Event", "apply"]


def apply(
    plan: Plan,
    host: Host,
    *,
    on_event: Callable[[Event], None] = lambda _: None,
    timeout_sec: float | None = None,
) -> Outcome:
    """Execute the plan and return what became of it; SysrespError if it could not be done at all."""
    run = _Run(plan, host, on_event, timeout_sec)
    interrupted = timed_out = False
    host.files.begin()
    try:
        run.execute()
        host.files.forget()
    except KeyboardInterrupt:
        interrupted = True
        if not run.queued:
            run.put_back()
            return Outcome(project=plan.project, interrupted=True, undone=True)
        host.files.forget()
    except OutOfTimeError:
        timed_out = True
        host.files.forget()
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
        self, plan: Plan, host: Host, on_event: Callable[[Event], None], timeout_sec: float | None
    ) -> None:
        self.plan = plan
        self.host = host
        self.on_event = on_event
        self.ledger = Ledger()
        self.begun = False  # something was started, or the plan got past that point
        self._total = len({awaited.unit for awaited in plan.awaited})
        self._jobs = Jobs(
            host.manager, host.clock, self.ledger, on_event, total=self._total, timeout_sec=timeout_sec
        )
        self._failed_undo: list[str] = []
        self._again: list[str] = []  # started again for the undo
        self._down: list[str] = []  # could not be
        self._up: frozenset[str] = frozenset()  # what ran before the first stop
        self._touched = False  # a file was changed
        self._doing: Step | None = None

    @property
    def queued(self) -> bool:
        """Say whether a job was queued, if only to stop something."""
        return self._jobs.queued

    def execute(self) -> None:
        """Execute all steps but the manifest's confirmation, up to a failure that ends a rollout."""
        steps = list(self.plan.steps)
        while steps and not self.ledger.halted:
            step = steps.pop(0)
            self._doing = step
            if isinstance(step, WriteManifest) and step.confirm:
                continue
            self.on_event(Event(step, None, len(self._jobs.ended), self._total))
            if isinstance(step, StartTransient):
                batch = [step]
                while steps and isinstance(steps[0], StartTransient):
                    batch.append(steps.pop(0))  # type: ignore[arg-type]
                self._begin()
                self._run([Call(s.unit, (), partial(self._jobs.start_transient, s)) for s in batch])
            else:
                self._step(step)
        if self._confirmation() is not None:
            self._begin()

    def remember(self, seen: Outcome | None) -> None:
        """Write the manifest with what is still owed; the first one stands if the files are not complete."""
        confirm = self._confirmation()
        if confirm is not None and self.begun:
            self._doing = confirm
            content = dumps(_owed(confirm.manifest, seen, {a.unit for a in self.plan.awaited}))
            if self.host.files.read(confirm.path) != content:
                self.host.files.write(confirm.path, content, durable=True)

    def put_back(self) -> bool:
        """Undo the file steps, start again what was stopped; return whether all of it could be done."""
        self._failed_undo = self.host.files.undo()
        try:
            self._again = self._fell()
            self._jobs.start_again(self._again)
            up = self._running(self._again) if self._again else frozenset()
            self._down = [name for name in self._again if name not in up]
            self._owe(self._down)  # such as one whose file was removed by hand
        except SysrespError:  # systemd is out of reach: the next apply is to start them
            self._owe(self._jobs.stopped)
            raise
        return not self._failed_undo

    def _fell(self) -> list[str]:
        """Return what ran before the first stop and does not now, in an order in which starting works.

        What requires a unit that was stopped has stopped along (systemd.unit(5), Requires=). The target is
        not among them if it would start what the administrator had stopped, too.
        """
        stopped = self._jobs.stopped
        if not stopped:
            return []
        before = self.plan.previous or Manifest(self.plan.project)
        names = dict.fromkeys([*(unit.name for unit in before.units), *reversed(stopped)])
        up = self._running(names)
        fell = [name for name in names if name in self._up and name not in up]
        if not self._up.issuperset(unit.name for unit in before.units if unit.enabled):
            fell = [name for name in fell if name != before.target]
        return fell

    def _owe(self, units: Sequence[str]) -> None:
        """Note in the manifest that is back that these are to be started."""
        before = self.plan.previous
        if before is not None and units:
            owing = before._replace(pending=tuple(dict.fromkeys((*before.pending, *units))))
            with suppress(OSError):
                self.host.files.write(
                    manifest_path(self.host.paths.state_dir, before.project), dumps(owing), durable=True
                )

    def _running(self, names: Iterable[str]) -> frozenset[str]:
        rows = self.host.manager.units(patterns(self.plan.project, names))
        return frozenset(row.name for row in rows if is_running(row) and row.job_type != "stop")

    def not_put_back(self) -> str:
        """Say which files could not be put back."""
        named = ", ".join(self._failed_undo)
        return (
            f"these could not be put back as they were: {named}; "
            "systemd has not read them; run the same command again when that is mended"
        )

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
        hint = _FILE_HINTS.get(error.errno or 0, "")
        if self._down:
            names = ", ".join(self._down)
            return SysrespError(f"{message}; {names} had to stop, and could not be started again", hint=hint)
        again = f"{', '.join(self._again)} started again, and " if self._again else ""
        return SysrespError(f"{message}; {again}nothing was changed", hint=hint)

    def _confirmation(self) -> WriteManifest | None:
        return next((s for s in self.plan.steps if isinstance(s, WriteManifest) and s.confirm), None)

    def _begin(self) -> None:
        """Pass the point up to which everything is undone."""
        if not self.begun:
            self.begun = True
            self.host.files.forget()

    def _step(self, step: Step) -> None:
        files, manager = self.host.files, self.host.manager
        self._touched = self._touched or isinstance(step, _FILE_STEPS)
        match step:
            case WriteManifest(path, manifest):
                files.write(path, dumps(manifest), durable=True)
            case WriteState(path, content, mode):
                files.write(path, content, mode, durable=True)
            case InstallProber(path, content) | WriteFile(path, content):
                files.write(path, content)
            case RemoveFile(path) | Unlink(path):
                files.remove(path)
            case Link(path, target):
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
                if any(job.verb is not JobVerb.STOP for job in jobs):
                    self._begin()
                elif not self._jobs.stopped:
                    known = self.plan.previous.units if self.plan.previous is not None else ()
                    self._up = self._running([*(unit.name for unit in known), *(job.unit for job in jobs)])
                self._run([Call(job.unit, job.pulls, partial(self._jobs.queue, job)) for job in jobs])
            case Settle(units, excused):
                self._settle(units, excused)
            case Pause(seconds):
                self.host.clock.sleep(seconds)
            case StartTransient():
                raise AssertionError("is queued in batches")

    def _run(self, calls: list[Call]) -> None:
        # A unit that is stopped only to be started later has not begun: its stop is not what was asked for.
        stops = isinstance(self._doing, RunJobs) and all(j.verb is JobVerb.STOP for j in self._doing.jobs)
        watched = frozenset(a.unit for a in self.plan.awaited if (a.verb is Verb.STOP) is stops)

        def refused(problem: UnitProblem) -> None:
            if problem.code == "NoSuchUnit" and stops:
                return  # gone since it was looked at
            if self._touched and not self.begun:  # its file must not be removed while it runs
                raise SysrespError(f"cannot stop {problem.unit}: {problem.message}") from problem
            self.ledger.refused[problem.unit] = problem

        self._jobs.run(calls, watched, refused)

    def _settle(self, units: tuple[tuple[str, float], ...], excused: frozenset[str]) -> None:
        def on_look(left_sec: float) -> None:
            self.on_event(Event(None, None, len(self._jobs.ended), self._total, left_sec))

        refused = {name for name, _ in units if name in self.ledger.refused}
        watched = [(name, sec) for name, sec in units if name not in refused]
        fallen = settle.watch(self.host, self.plan.project, watched, excused, on_look)
        self.ledger.fallen |= fallen
        self.ledger.halted = not excused.issuperset(fallen.keys() | refused)


_FILE_STEPS = (WriteManifest, WriteState, InstallProber, WriteFile, RemoveFile, Link, Unlink)

_FILE_HINTS = {
    13: "run it as root, or with --user for your own service manager",
    28: "make room on that file system, then run it again",
    30: "that file system is read-only; try --runtime, which writes to /run",
}


def _owed(manifest: Manifest, seen: Outcome | None, meant: set[str]) -> Manifest:
    """Return the manifest without what is confirmed; seen is None if nothing could be read.

    What was owed to units that this plan did not mean, such as by an apply that was cut, is owed yet.
    """
    if seen is None:
        return manifest
    cut = {*seen.unbegun, *seen.unfinished}
    failed = {f.unit for f in seen.failures if f.verb is not Verb.RELOAD}
    restarts = tuple(name for name in manifest.restarts if name in cut or name not in meant)
    return manifest._replace(
        pending=tuple(name for name in manifest.pending if name in cut | failed or name not in meant),
        restarts=restarts,
        reloads=tuple(name for name in manifest.reloads if name in cut or name not in meant),
        runs=tuple(line for line in manifest.runs if line.partition(" ")[0] in restarts),
    )
