"""From the user's files to what should be on the host: read, parse, ask the host, render.

Owns the order of these, and `Source`, what the command line says about it. All problems of all stages come
out together, sorted by line; only an error of the file itself keeps the later stages from running. Reads the
host, never changes it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NamedTuple

from sysresp.cli import answers, problems, sources, terminal
from sysresp.controller import own
from sysresp.errors import Exit, Problem, Severity, SpecError, SysrespError
from sysresp.model import Mode, Scope, Spec
from sysresp.ports import Manager
from sysresp.reconcile import layout
from sysresp.spec.parse import Layer, parse, quoted
from sysresp.systemd.manager import SystemManager
from sysresp.units.desired import Desired
from sysresp.units.render import TEMPLATE_DIRS, render

PYTHON = "/usr/bin/python3"
"""What runs the readiness prober: it needs nothing but the standard library, and outlives any venv."""

_RESERVED = "this is the project of sysresp's own units"


class Source(NamedTuple):
    """Which files are meant, and for which manager."""

    files: Sequence[str]
    project: str = ""
    scope: Scope = Scope.SYSTEM
    mode: Mode = Mode.PERSISTENT
    systemd_version: int = 0  # 0: the running one
    layers: Sequence[Layer] = ()  # what sysresp itself asks for, instead of files


class Built(NamedTuple):
    """What came out; `desired` is None if there is an error in the files themselves."""

    files: tuple[str, ...]
    texts: tuple[tuple[str, str], ...]
    spec: Spec | None
    desired: Desired | None
    problems: tuple[Problem, ...]


class Wanted(NamedTuple):
    """What came out without any error."""

    files: tuple[str, ...]
    texts: tuple[tuple[str, str], ...]  # (path, content) of each
    spec: Spec
    desired: Desired
    problems: tuple[Problem, ...]  # warnings


def build(source: Source, manager: Manager | None = None) -> Built:
    """Read and render; `manager` is asked for the version of systemd if the source does not say it.

    Without a manager nothing will be applied, and files that the caller may not read are passed over.
    """
    files = [] if source.layers else sources.find(source.files)
    layers = list(source.layers) or sources.read(files, project=source.project)
    texts = tuple((layer.path, layer.text.decode(errors="surrogateescape")) for layer in layers)
    parsed = parse(layers, scope=source.scope)
    if parsed.spec is None:
        return Built(tuple(files), texts, None, None, parsed.problems)
    spec = parsed.spec
    release = source.systemd_version or version(source.scope, manager)
    rendered = render(
        spec,
        version=release,
        scope=source.scope,
        prober=prober(layout.paths(source.scope, source.mode, os.environ).prober),
        template_dirs=TEMPLATE_DIRS,
        digests=answers.digests(spec, exact=manager is not None),
    )
    found = {*parsed.problems, *answers.problems(spec), *rendered.problems}
    if source.layers:  # what is ours has been thought about: there is nobody to warn
        found = {problem for problem in found if problem.severity is Severity.ERROR}
    elif spec.project in own.PROJECTS:
        found.add(Problem(spec.origin, "project", _RESERVED, 'choose another name, such as "services"'))
    return Built(tuple(files), texts, spec, rendered.desired, tuple(quoted(sorted(found), layers)))


def wanted(source: Source, manager: Manager | None = None) -> Wanted:
    """Build, print warnings, and raise SpecError if there is any error."""
    built = build(source, manager)
    if built.spec is None or built.desired is None or problems.errors_in(built.problems):
        raise SpecError(built.problems)
    show_problems(built.problems)
    return Wanted(built.files, built.texts, built.spec, built.desired, built.problems)


def prober(path: str) -> tuple[str, ...]:
    """Return the command line of the readiness prober at this path."""
    return (PYTHON if os.access(PYTHON, os.X_OK) else sys.executable, "-I", "-S", path)


def version(scope: Scope, manager: Manager | None) -> int:
    """Return the running systemd's version, or that of the installed one if none answers."""
    try:
        return (manager or SystemManager(user=scope is Scope.USER)).version()
    except SysrespError:
        if manager is not None:
            raise
    import subprocess  # noqa: PLC0415 - only where no systemd runs

    try:
        done = subprocess.run(["systemctl", "--version"], capture_output=True, text=True, check=True)
        return int(done.stdout.split()[1].split("~")[0])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        raise SysrespError(
            "cannot tell the version of systemd: there is none here",
            hint="name one: --systemd-version 252",
            exit=Exit.UNREACHABLE,
        ) from error


def show_problems(found: Sequence[Problem]) -> None:
    """Print problems to standard error."""
    colour = terminal.has_colour(sys.stderr)
    for problem in found:
        print(problems.text(problem, colour=colour), file=sys.stderr)
    errors = sum(problem.severity is Severity.ERROR for problem in found)
    if errors:
        print(f"{errors} error{'s' * (errors != 1)}", file=sys.stderr)
