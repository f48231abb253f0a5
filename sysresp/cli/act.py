"""`start`, `stop`, `restart` and `reload`: commands on services by their names in the file.

They work from manifests, so services.toml need not be there. Names are looked up in all projects and modes;
one that several projects have must be told apart with --project.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from sysresp.cli import hosts, outcome_text, running
from sysresp.cli.boundary import usage
from sysresp.errors import Exit, SysrespError
from sysresp.model import Mode, Scope
from sysresp.ports import Host
from sysresp.reconcile.act import act
from sysresp.reconcile.lock import locked
from sysresp.reconcile.manifest import Manifest, ManifestUnit
from sysresp.reconcile.names import matches, select
from sysresp.reconcile.outcome import Outcome
from sysresp.reconcile.steps import JobVerb, Plan

_DONE = {
    JobVerb.START: "started",
    JobVerb.STOP: "stopped",
    JobVerb.RESTART: "restarted",
    JobVerb.RELOAD: "reloaded",
}


def run(verb: str, names: Sequence[str], *, project: str, scope: Scope, colour: bool) -> int:
    """Run the jobs and tell what became of them."""
    began = time.monotonic()
    wanted = JobVerb(verb)
    user = scope is Scope.USER
    status: int = Exit.OK
    for manifest, own, _ in chosen(names, project, scope):
        with running.progress() as show:
            host = hosts.host(scope, Mode(manifest.mode))
            with _alone(host, manifest.project, verb):
                outcome = act(wanted, manifest, own, host, on_event=show)
        running.report(
            Plan(project=manifest.project), outcome, spec=None, user=user, colour=colour, verb=verb
        )
        if not outcome.interrupted:
            print(_summary(wanted, outcome, own, time.monotonic() - began))
        again = " ".join(["sysresp", verb, *(["--user"] if user else []), *own])
        status = _finish(outcome, again) or status
        if outcome.interrupted:
            break
    return status


@contextmanager
def _alone(host: Host, project: str, verb: str) -> Iterator[None]:
    """Keep an apply away meanwhile; whoever may not take the lock goes on, and is told.

    The lock is root's, and who may start a unit is for polkit to say, as it is with systemctl(1).
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(host, project, hosts.holder(verb), wait_sec=None))
        except PermissionError as error:
            print(
                f"cannot take the lock ({error.filename}: {error.strerror}): goes on without it, "
                f"as systemctl does; an apply of {project} at the same time may undo this",
                file=sys.stderr,
            )
        yield


def _finish(outcome: Outcome, again: str) -> int:
    """Say where things stand if it was cut, and return the exit status."""
    if outcome.interrupted or outcome.timed_out:
        print(outcome_text.cut(outcome, again), file=sys.stderr)
        return Exit.INTERRUPTED if outcome.interrupted else Exit.FAILED
    return Exit.OK if outcome.ok else Exit.FAILED


def _summary(verb: JobVerb, outcome: Outcome, names: Sequence[str], seconds: float) -> str:
    done = sum(outcome.counts.values())
    parts = [f"{done} {_DONE[verb]}"] if done else []
    parts += [f"{len(outcome.failures)} failed"] if outcome.failures else []
    parts += [f"{len(outcome.skipped)} skipped"] if outcome.skipped else []
    return f"{', '.join(names)}: {', '.join(parts) or 'nothing to do'} ({seconds:.1f}s)"


def chosen(
    names: Sequence[str], project: str, scope: Scope
) -> list[tuple[Manifest, list[str], tuple[ManifestUnit, ...]]]:
    """Return the projects that the names mean, with their own names and units."""
    owned = hosts.manifests(scope, project)
    if not owned:
        raise SysrespError(
            "nothing is applied here" if not project else f'the project "{project}" is not applied here',
            hint="apply a file first, such as: sysresp apply services.toml",
            exit=Exit.UNKNOWN,
        )
    found = select(owned, names)
    for name in names:
        several = [m.project for m, _ in found if any(matches(unit, name) for unit in m.units)]
        if len(several) > 1:
            raise usage(
                f'"{name}" is in several projects: {", ".join(several)}', "say which: --project NAME"
            )
    return [(m, [n for n in names if any(matches(u, n) for u in m.units)], units) for m, units in found]
