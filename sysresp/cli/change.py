"""`plan`, `apply`, `rollback`, `resume` and `down`: the commands that make a plan, and show it or do it.

Owns the order: connect, build or load what is wished, then print its plan or converge to it. `plan` and
`apply` make their plan by the same function, so what is printed is what is done.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from sysresp.cli import build, change_text, drift_text, hosts, plan_file, plan_text, running, terminal
from sysresp.cli.boundary import usage
from sysresp.cli.build import Source
from sysresp.errors import Exit, Severity, SpecError, SysrespError
from sysresp.model import NOWHERE, Mode, Scope, Spec
from sysresp.ports import Host
from sysresp.reconcile import generations, layout
from sysresp.reconcile.converge import Prepared, Wish, converge, prepare, take_down
from sysresp.reconcile.generations import Entry
from sysresp.reconcile.manifest import Manifest
from sysresp.reconcile.names import select
from sysresp.reconcile.resolve import DriftChoice, RefusedError
from sysresp.reconcile.steps import Plan
from sysresp.spec.quantities import span
from sysresp.units.desired import Desired

__all__ = ["Options", "Source", "apply", "down", "plan", "resume", "rollback"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line says about how, not what."""

    settle: str = ""  # "10s"; "": each service's own
    rollback: bool = True
    wait: str = ""  # "60s"; "": not at all
    as_json: bool = False
    colour: bool = True
    dry_run: bool = False
    drift: str = ""  # "accept", "overwrite"; "": neither
    again: str = ""  # the command with which to go on; "": that of apply


USUAL = Options()


def plan(source: Source, options: Options = USUAL, *, detailed: bool = False, out: str = "") -> int:
    """Print the plan; with `detailed`, the exit status says whether anything would change."""
    try:
        host = hosts.host(source.scope, source.mode)
        wish, _ = _wished(source, host, options, "plan")
        made = prepare(wish, host)
        _check(made)
    except SysrespError as error:
        if detailed:
            error.exit = Exit.FAILED  # 2 means changes here
        raise
    if out:
        plan_file.write(out, wish, made)
    _show(made.plan, _unchanged(wish.desired, made.plan), options)
    return Exit.USAGE if detailed and not made.plan.is_noop else Exit.OK


def apply(source: Source, options: Options = USUAL, *, plan_path: str = "") -> int:
    """Converge to the file, or to the plan that was written to one, and tell what became of it."""
    began = time.monotonic()
    if plan_path:
        if source.files or source.project or options.settle:
            raise usage("--plan says it all: leave out the files, --project and --settle")
        saved = plan_file.read(plan_path)
        host = hosts.host(saved.wish.scope, saved.wish.mode)
        wish = _with(saved.wish, "apply", options)
        return _converge(wish, host, options, began, f"sysresp plan --out {plan_path}", check=saved.check)
    host = hosts.host(source.scope, source.mode)
    wish, spec = _wished(source, host, options, "apply")
    again = options.again or _again("apply", wish, *source.files)
    return _converge(wish, host, options, began, again, spec=spec)


def rollback(number: int, *, project: str, scope: Scope, options: Options = USUAL) -> int:
    """Converge to an earlier generation, as a new one that is its copy."""
    began = time.monotonic()
    host, name = _project(project, scope)
    entries = generations.history(host.files, host.paths, name)
    manifest = next((m for m in hosts.manifests(scope, name)), None)
    at = manifest.generation if manifest is not None else 0
    number = number or generations.before(entries, at)
    if not number:
        raise SysrespError(
            f'the project "{name}" has no earlier generation to go back to',
            hint="see which there are: sysresp history",
            exit=Exit.UNKNOWN,
        )
    old = generations.load(host.files, host.paths, name, number)
    wish = _with(_of_generation(old, scope), "rollback", options)
    wish = replace(wish, restores=number, stopped=_stopped_since(number, entries, host, name))
    if options.dry_run:
        made = prepare(wish, host)
        _check(made)
        _show(made.plan, _unchanged(wish.desired, made.plan), options)
        return Exit.OK

    def check(made: Prepared) -> None:
        now = made.observed.manifest.generation if made.observed.manifest is not None else 0
        if now != at:
            raise SysrespError(
                f"meanwhile the host has gone from generation {at} to {now}; nothing was changed",
                hint=f"look again, or say which: sysresp rollback {number}",
                exit=Exit.REFUSED,
            )
        if not options.as_json:
            print(f"{name}: going back to generation {number}", file=sys.stderr)
            _show(made.plan, _unchanged(wish.desired, made.plan), options)

    return _converge(wish, host, options, began, _again("rollback", wish, str(number)), check=check)


def _stopped_since(number: int, entries: Sequence[Entry], host: Host, project: str) -> frozenset[str]:
    """Return the units that the administrator had stopped when this generation was left: they stay so."""
    left = next((e.number for e in entries if e.number > number and e.outcome != generations.DOWN), 0)
    if not left or host.files.stat(generations.record_path(host.paths, project, left)) is None:
        return frozenset()
    return frozenset(generations.load(host.files, host.paths, project, left).stopped)


def resume(*, project: str, scope: Scope, options: Options = USUAL) -> int:
    """Go on with an apply that was cut, from the generation's own record."""
    began = time.monotonic()
    host, name = _project(project, scope)
    manifest = next((m for m in hosts.manifests(scope, name)), None)
    if manifest is None or not manifest.generation:
        raise SysrespError(f'the project "{name}" has nothing to go on with', exit=Exit.OK)
    old = generations.load(host.files, host.paths, name, manifest.generation)
    wish = _with(_of_generation(old, scope), "resume", options)
    return _converge(wish, host, options, began, _again("resume", wish))


def down(
    names: Sequence[str],
    *,
    project: str,
    scope: Scope,
    modes: Sequence[Mode],
    options: Options = USUAL,
) -> int:
    """Stop and remove a project, or services of it."""
    began = time.monotonic()
    owned = [one for one in hosts.manifests(scope) if hosts.can_mean(one.project, project)]
    owned = [one for one in owned if not modes or one.mode in modes]
    one = _only(owned, names, project)
    host = hosts.host(scope, Mode(one.mode))
    with running.progress() as show:
        done = take_down(
            one.project,
            names,
            host,
            holder=hosts.holder("down"),
            wait_sec=_seconds("--wait", options.wait),
            on_event=show,
        )
    again = " ".join(["sysresp down", *(["--user"] if scope is Scope.USER else []), *names])
    told = change_text.Told(spec=None, user=scope is Scope.USER, again=again, began=began)
    return change_text.tell(done, told, as_json=options.as_json, colour=options.colour)


def _wished(source: Source, host: Host, options: Options, command: str) -> tuple[Wish, Spec]:
    wanted = build.wanted(source, host.manager)
    wish = Wish(
        desired=wanted.desired,
        mode=source.mode,
        scope=source.scope,
        source=tuple(os.path.abspath(file) if file != "-" else file for file in wanted.files),  # noqa: PTH100
        texts=wanted.texts,
    )
    return _with(wish, command, options), wanted.spec


def _of_generation(old: generations.Generation, scope: Scope) -> Wish:
    return Wish(desired=old.desired, mode=old.mode, scope=scope, source=old.source, texts=old.texts)


def _with(wish: Wish, command: str, options: Options) -> Wish:
    """Return the wish with what comes from the command line and from the caller."""
    settle = _seconds("--settle", options.settle) if options.settle else wish.settle_sec
    return replace(
        wish,
        holder=hosts.holder(command),
        state_dirs=layout.state_dirs(wish.scope, os.environ),
        prober=hosts.prober_program,
        settle_sec=settle,
        rollback=options.rollback,
        wait_sec=_seconds("--wait", options.wait),
        drift=DriftChoice(options.drift) if options.drift else wish.drift,
    )


def _seconds(option: str, text: str) -> float:
    seconds = span(text) if text else 0.0
    if seconds is None or seconds > 86400:
        raise usage(f"{option} must be a duration of at most a day, got {text!r}", "such as 10s or 2min")
    return seconds


def _again(command: str, wish: Wish, *words: str) -> str:
    """Return the command line with which to go on."""
    user = ["--user"] if wish.scope is Scope.USER else []
    mode = ["--" + wish.mode] if wish.mode is not Mode.PERSISTENT and command == "apply" else []
    return " ".join(["sysresp", command, *user, *mode, *words])


def _check(made: Prepared) -> None:
    """Raise if the plan must not be done, print its warnings."""
    # A clash of the whole project is a sentence of its own, not about a key of the file; where there is one
    # without any line (the project is applied in another mode), all others follow from it.
    found = tuple(replace(p, key="") if p.key == "project" else p for p in made.plan.problems)
    found = tuple(p for p in found if p.origin == NOWHERE) or found
    if any(problem.severity is Severity.ERROR for problem in found):
        error = SpecError(found)
        error.exit = Exit.FAILED  # the file is good, the host is in its way
        error.message = "nothing was changed"
        raise error
    build.show_problems(found)


def _converge(
    wish: Wish,
    host: Host,
    options: Options,
    began: float,
    again: str,
    *,
    spec: Spec | None = None,
    check: Callable[[Prepared], None] = lambda _: None,
) -> int:
    def checked(made: Prepared) -> None:
        check(made)
        _check(made)

    try:
        with running.progress() as show:
            done = converge(wish, host, check=checked, on_found=running.found, on_event=show)
    except RefusedError as error:
        on = terminal.has_colour(sys.stderr, wanted=options.colour)
        for line in drift_text.lines(error.drift, colour=on, fix=False):
            print(line, file=sys.stderr)
        raise
    told = change_text.Told(
        spec=spec,
        user=wish.scope is Scope.USER,
        again=again,
        began=began,
        unchanged=_unchanged(wish.desired, done.plan),
    )
    return change_text.tell(done, told, as_json=options.as_json, colour=options.colour)


def _unchanged(desired: Desired, plan: Plan) -> int:
    touched = {change.unit for change in (*plan.changes, *plan.keeps)}
    return sum(unit.name not in touched and unit.file not in touched for unit in desired.units.values())


def _show(plan: Plan, unchanged: int, options: Options) -> None:
    if options.as_json:
        print(json.dumps(plan_text.as_object(plan, unchanged), indent=2))
    else:
        on = terminal.has_colour(sys.stdout, wanted=options.colour)
        sys.stdout.write(plan_text.text(plan, colour=on, unchanged=unchanged))


def _project(project: str, scope: Scope) -> tuple[Host, str]:
    """Return the host of the one project that is meant, in the mode in which it is or was applied."""
    known = [one for one in hosts.projects(scope) if hosts.can_mean(one[0], project)]
    if not known:
        whose = f'the project "{project}"' if project else "any project"
        raise SysrespError(f"there is no history of {whose} here", exit=Exit.UNKNOWN)
    if len(known) > 1:
        listed = ", ".join(f"{name} ({mode})" for name, mode in known)
        raise usage(f"that could mean several projects: {listed}", "say which: --project NAME")
    name, mode = known[0]
    return hosts.host(scope, mode), name


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
