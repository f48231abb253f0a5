"""`plan`, `apply` and `down`: the commands that make a plan, and show it or do it.

Owns the order: connect, build, observe, plan, then print or execute. `plan` and `apply` make their plan in
the same function, so what is printed is what is done.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from sysresp.cli import build, hosts, outcome_text, plan_text, running, terminal
from sysresp.cli.boundary import usage
from sysresp.cli.build import Source
from sysresp.errors import Exit, Severity, SpecError, SysrespError
from sysresp.model import NOWHERE, Mode, Scope, Spec
from sysresp.ports import Host
from sysresp.reconcile import layout
from sysresp.reconcile.apply import apply as execute
from sysresp.reconcile.down import plan_down
from sysresp.reconcile.manifest import Manifest
from sysresp.reconcile.names import select
from sysresp.reconcile.observe import observe
from sysresp.reconcile.outcome import Outcome
from sysresp.reconcile.plan import plan as make_plan
from sysresp.reconcile.steps import Plan
from sysresp.units.desired import Desired

__all__ = ["Source", "apply", "down", "plan"]


class Made(NamedTuple):
    """A plan and what it was made from."""

    plan: Plan
    host: Host
    spec: Spec | None
    unchanged: int  # units that stay as they are


def _make(source: Source) -> Made:
    host = hosts.host(source.scope, source.mode)
    wanted = build.wanted(source, host.manager)
    desired = wanted.desired
    observed = observe(
        host, desired.project, desired, state_dirs=layout.state_dirs(source.scope, os.environ)
    )
    made = make_plan(
        desired,
        observed,
        paths=host.paths,
        mode=source.mode,
        scope=source.scope,
        source=[os.path.abspath(file) if file != "-" else file for file in wanted.files],  # noqa: PTH100
        prober=hosts.prober_program() if desired.needs_prober else b"",
    )
    # A clash of the whole project is a sentence of its own, not about a key of the file; where there is one
    # without any line (the project is applied in another mode), all others follow from it.
    found = tuple(replace(p, key="") if p.key == "project" else p for p in made.problems)
    found = tuple(p for p in found if p.origin == NOWHERE) or found
    if any(problem.severity is Severity.ERROR for problem in found):
        error = SpecError(found)
        error.exit = Exit.FAILED  # the file is good, the host is in its way
        error.message = "nothing was changed"
        raise error
    build.show_problems(found)
    return Made(made, host, wanted.spec, _unchanged(desired, made))


def _unchanged(desired: Desired, plan: Plan) -> int:
    touched = {change.unit for change in (*plan.changes, *plan.keeps)}
    return sum(unit.name not in touched and unit.file not in touched for unit in desired.units.values())


def plan(source: Source, *, as_json: bool, detailed: bool, colour: bool) -> int:
    """Print the plan; with `detailed`, the exit status says whether anything would change."""
    try:
        made = _make(source)
    except SysrespError as error:
        if detailed:
            error.exit = Exit.FAILED  # 2 means changes here
        raise
    if as_json:
        print(json.dumps(plan_text.as_object(made.plan, made.unchanged), indent=2))
    else:
        on = terminal.has_colour(sys.stdout, wanted=colour)
        sys.stdout.write(plan_text.text(made.plan, colour=on, unchanged=made.unchanged))
    return Exit.USAGE if detailed and not made.plan.is_noop else Exit.OK


def apply(source: Source, *, as_json: bool, colour: bool) -> int:
    """Execute the plan and tell what became of it."""
    began = time.monotonic()
    made = _make(source)
    words = "sysresp apply" + " --user" * (source.scope is Scope.USER)
    again = " ".join(
        [words, *(["--" + source.mode] if source.mode is not Mode.PERSISTENT else []), *source.files]
    )
    return _do(made, source.scope, began, again, as_json=as_json, colour=colour)


def down(
    names: Sequence[str],
    *,
    project: str,
    scope: Scope,
    modes: Sequence[Mode],
    as_json: bool,
    colour: bool,
) -> int:
    """Stop and remove a project, or services of it."""
    began = time.monotonic()
    owned = [one for one in hosts.manifests(scope, project) if not modes or one.mode in modes]
    one = _only(owned, names, project)
    host = hosts.host(scope, Mode(one.mode))
    observed = observe(host, one.project)
    made = Made(plan_down(one, observed, names, paths=host.paths), host, None, 0)
    again = " ".join(["sysresp down", *(["--user"] if scope is Scope.USER else []), *names])
    return _do(made, scope, began, again, as_json=as_json, colour=colour)


def _only(owned: Sequence[Manifest], names: Sequence[str], project: str) -> Manifest:
    """Return the one project that is meant; it must be named if there are several."""
    if not owned:
        whose = f'the project "{project}" is not applied here' if project else "nothing is applied here"
        raise SysrespError(whose, exit=Exit.UNKNOWN if project else Exit.OK)
    found = [manifest for manifest, _ in select(owned, names)]
    if len(found) > 1:
        listed = ", ".join(f"{one.project} ({one.mode})" for one in found)
        raise usage(f"that could mean several projects: {listed}", "say which: --project NAME")
    return found[0]


def _do(made: Made, scope: Scope, began: float, again: str, *, as_json: bool, colour: bool) -> int:
    with running.progress() as show:
        outcome = execute(made.plan, made.host, on_event=show, now=time.monotonic)
    seconds = time.monotonic() - began
    user = scope is Scope.USER
    if as_json:
        report = outcome_text.as_object(
            made.plan,
            outcome,
            unchanged=made.unchanged,
            seconds=seconds,
            spec=made.spec,
            user=user,
            verb="restart",
        )
        print(json.dumps(report, indent=2))
    else:
        running.report(made.plan, outcome, spec=made.spec, user=user, colour=colour)
        if not outcome.interrupted:
            print(outcome_text.summary(made.plan, outcome, made.unchanged, seconds))
    return finish(outcome, again)


def finish(outcome: Outcome, again: str) -> int:
    """Say where things stand if it was cut, and return the exit status."""
    if outcome.interrupted or outcome.timed_out:
        print(outcome_text.cut(outcome, again), file=sys.stderr)
        return Exit.INTERRUPTED if outcome.interrupted else Exit.FAILED
    return Exit.OK if outcome.ok else Exit.FAILED
