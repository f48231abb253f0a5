"""The typer application: every command with its options, and nothing else.

Owns names, options and help texts. The work of a command is in the module it calls, imported when it is
called, so that `--help` and completion do not pay for Jinja and D-Bus. Rule: options must mean the same in
every command; what is here must run on typer 0.7 to 0.28, which leaves `list[str]`, `str`, `int` and `bool`.
"""

# ruff: noqa: PLC0415, PLR0917 - each command imports its own work; its parameters are its options
from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec

import typer

from sysresp import __version__
from sysresp.cli import boundary
from sysresp.errors import SysrespError
from sysresp.model import Mode, Scope

app = typer.Typer(
    name="sysresp",
    help="One services.toml becomes real systemd units: plan, apply, status.",
    epilog="Exit status and files: sysresp(1). The file: services.toml(5).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # boundary.py owns what happens to exceptions
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def known_names(incomplete: str) -> list[str]:
    """Return the names that complete a word on the command line."""
    from sysresp.cli import hosts

    try:
        owned = hosts.manifests(Scope.SYSTEM)
    except (SysrespError, OSError):
        return []  # a shell that completes must not be disturbed
    names = {unit.service for one in owned for unit in one.units}
    names |= {f"{unit.service}@{unit.instance}" for one in owned for unit in one.units if unit.instance}
    return sorted(name for name in names if name and name.startswith(incomplete))


FILES = typer.Argument(
    None,
    metavar="[FILE]...",
    help="Files to read, later ones over earlier ones. Default: services.toml here, else "
    "/etc/sysresp/services.toml. '-' is standard input.",
    show_default=False,
)
FILE = typer.Option(None, "--file", "-f", metavar="FILE", help="The same as FILE.", show_default=False)
_NAMES_HELP = "Services, such as 'web', or one instance: 'web@2'."
NAMES = typer.Argument(
    None, metavar="[NAME]...", help=_NAMES_HELP, show_default=False, autocompletion=known_names
)
SOME_NAMES = typer.Argument(..., metavar="NAME...", help=_NAMES_HELP, autocompletion=known_names)
PROJECT = typer.Option(
    "", "--project", metavar="NAME", help="The project, instead of the file's.", show_default=False
)
OF_PROJECT = typer.Option("", "--project", metavar="NAME", help="Only this project.", show_default=False)
USER = typer.Option(False, "--user", help="Your own service manager instead of the system's.")
RUNTIME = typer.Option(False, "--runtime", help="Unit files in /run: gone at the next boot.")
TRANSIENT = typer.Option(False, "--transient", help="Transient units: no unit files at all.")
JSON = typer.Option(False, "--json", help="Print JSON, as documented in sysresp(1).")
NO_COLOR = typer.Option(False, "--no-color", help="Never colour the output.")
SYSTEMD_VERSION = typer.Option(
    0,
    "--systemd-version",
    metavar="N",
    help="Render for this systemd instead of the running one.",
    show_default=False,
)


P = ParamSpec("P")


def _guarded(function: Callable[P, int]) -> Callable[P, None]:
    """Make a function that returns an exit status a command of the application."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        raise typer.Exit(int(boundary.guarded(lambda: function(*args, **kwargs))))

    return wrapper


def _scope(user: bool) -> Scope:
    return Scope.USER if user else Scope.SYSTEM


def _mode(runtime: bool, transient: bool) -> Mode:
    if runtime and transient:
        raise boundary.usage("--runtime and --transient exclude each other")
    if runtime:
        return Mode.RUNTIME
    return Mode.TRANSIENT if transient else Mode.PERSISTENT


@app.callback(invoke_without_command=True)
def options(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", help="Print the version and leave."),
) -> None:
    if version:
        typer.echo(f"sysresp {__version__}")
        raise typer.Exit(0)
    if context.invoked_subcommand is None:
        raise typer.Exit(2)


@app.command()
@_guarded
def check(
    files: list[str] = FILES,
    file: list[str] = FILE,
    project: str = PROJECT,
    user: bool = USER,
    runtime: bool = RUNTIME,
    transient: bool = TRANSIENT,
    json: bool = JSON,
    strict: bool = typer.Option(False, "--strict", help="Warnings are errors too."),
    systemd_version: int = SYSTEMD_VERSION,
) -> int:
    """Say everything that is wrong with a file; change nothing."""
    from sysresp.cli import build, show

    source = build.Source(
        _all(files, file), project, _scope(user), _mode(runtime, transient), systemd_version=systemd_version
    )
    return show.check(source, as_json=json, strict=strict)


@app.command()
@_guarded
def render(
    files: list[str] = FILES,
    file: list[str] = FILE,
    project: str = PROJECT,
    user: bool = USER,
    runtime: bool = RUNTIME,
    output: str = typer.Option(
        "",
        "--output",
        "-o",
        metavar="DIR",
        help="Write unit files and links there instead.",
        show_default=False,
    ),
    systemd_version: int = SYSTEMD_VERSION,
) -> int:
    """Print the unit files, or write them to a directory."""
    from sysresp.cli import build, show

    source = build.Source(
        _all(files, file), project, _scope(user), _mode(runtime, False), systemd_version=systemd_version
    )
    return show.render(source, output=output)


@app.command()
@_guarded
def config(files: list[str] = FILES, file: list[str] = FILE, project: str = PROJECT) -> int:
    """Print the file with all its layers merged."""
    from sysresp.cli import show

    return show.config(_all(files, file), project)


@app.command()
@_guarded
def schema() -> int:
    """Print the JSON Schema of services.toml, for editors."""
    from sysresp.cli import show

    return show.schema()


@app.command()
@_guarded
def plan(
    files: list[str] = FILES,
    file: list[str] = FILE,
    project: str = PROJECT,
    user: bool = USER,
    runtime: bool = RUNTIME,
    transient: bool = TRANSIENT,
    json: bool = JSON,
    detailed_exitcode: bool = typer.Option(
        False, "--detailed-exitcode", help="Exit status 2 if anything would change."
    ),
    no_color: bool = NO_COLOR,
) -> int:
    """Print what apply would do; change nothing."""
    from sysresp.cli import change

    source = change.Source(_all(files, file), project, _scope(user), _mode(runtime, transient))
    return change.plan(source, as_json=json, detailed=detailed_exitcode, colour=not no_color)


@app.command()
@_guarded
def apply(
    files: list[str] = FILES,
    file: list[str] = FILE,
    project: str = PROJECT,
    user: bool = USER,
    runtime: bool = RUNTIME,
    transient: bool = TRANSIENT,
    json: bool = JSON,
    no_color: bool = NO_COLOR,
) -> int:
    """Make the host as the file says: write the units, start, restart, reload and stop what changed."""
    from sysresp.cli import change

    source = change.Source(_all(files, file), project, _scope(user), _mode(runtime, transient))
    return change.apply(source, as_json=json, colour=not no_color)


@app.command()
@_guarded
def down(
    names: list[str] = NAMES,
    project: str = OF_PROJECT,
    user: bool = USER,
    runtime: bool = typer.Option(False, "--runtime", help="Only a project that is applied in this mode."),
    transient: bool = typer.Option(
        False, "--transient", help="Only a project that is applied in this mode."
    ),
    json: bool = JSON,
    no_color: bool = NO_COLOR,
) -> int:
    """Stop services and remove their units: all of a project, or those named."""
    from sysresp.cli import change

    modes = [_mode(runtime, transient)] if runtime or transient else []
    return change.down(
        names or [], project=project, scope=_scope(user), modes=modes, as_json=json, colour=not no_color
    )


@app.command()
@_guarded
def status(
    names: list[str] = NAMES,
    show_all: bool = typer.Option(False, "--all", "-a", help="One line for each instance."),
    project: str = OF_PROJECT,
    user: bool = USER,
    json: bool = JSON,
    no_color: bool = NO_COLOR,
) -> int:
    """Show what runs, and why what does not run does not."""
    from sysresp.cli import hosts
    from sysresp.cli import status as command

    asked = command.Asked(names=tuple(names or ()), all=show_all, json=json, user=user, project=project)
    asked.colour = not no_color
    host = hosts.host(_scope(user), Mode.PERSISTENT)
    return command.show(asked, host.files, host.manager)


@app.command()
@_guarded
def start(
    names: list[str] = SOME_NAMES, project: str = OF_PROJECT, user: bool = USER, no_color: bool = NO_COLOR
) -> int:
    """Start services, and wait until they are ready."""
    return _act("start", names, project, user, no_color)


@app.command()
@_guarded
def stop(
    names: list[str] = SOME_NAMES, project: str = OF_PROJECT, user: bool = USER, no_color: bool = NO_COLOR
) -> int:
    """Stop services; apply leaves them stopped."""
    return _act("stop", names, project, user, no_color)


@app.command()
@_guarded
def restart(
    names: list[str] = SOME_NAMES, project: str = OF_PROJECT, user: bool = USER, no_color: bool = NO_COLOR
) -> int:
    """Restart services, and wait until they are ready."""
    return _act("restart", names, project, user, no_color)


@app.command()
@_guarded
def reload(
    names: list[str] = SOME_NAMES, project: str = OF_PROJECT, user: bool = USER, no_color: bool = NO_COLOR
) -> int:
    """Let services read their configuration again."""
    return _act("reload", names, project, user, no_color)


@app.command()
@_guarded
def logs(
    names: list[str] = SOME_NAMES,
    follow: bool = typer.Option(False, "--follow", "-f", help="Go on showing new lines."),
    lines: int = typer.Option(50, "--lines", "-n", metavar="N", min=0, help="How many lines to begin with."),
    project: str = OF_PROJECT,
    user: bool = USER,
) -> int:
    """Show what services printed (journalctl)."""
    from sysresp.cli import act

    return act.logs(names, project=project, user=user, follow=follow, lines=lines)


@app.command()
@_guarded
def rehearse(
    files: list[str] = FILES,
    file: list[str] = FILE,
    keep: bool = typer.Option(False, "--keep", help="Keep the copy until Ctrl-C, and say how to enter it."),
    shell: bool = typer.Option(False, "--shell", help="Open a shell in the copy before it is torn down."),
) -> int:
    """Apply a file in a throwaway booted copy of this host, show the outcome, tear it down."""
    from sysresp.cli import rehearsal

    return rehearsal.run(_all(files, file), keep=keep, shell=shell)


@app.command()
@_guarded
def version() -> int:
    """Print the version."""
    typer.echo(f"sysresp {__version__}")
    return 0


def _act(verb: str, names: list[str], project: str, user: bool, no_color: bool) -> int:
    from sysresp.cli import act

    return act.run(verb, names, project=project, scope=_scope(user), colour=not no_color)


def _all(files: list[str] | None, file: list[str] | None) -> list[str]:
    return [*(file or ()), *(files or ())]


def run() -> None:
    """Run the command line; whatever happens outside a command ends here."""

    def call() -> int:
        try:
            app(prog_name="sysresp")
        except SystemExit as leave:
            return leave.code if isinstance(leave.code, int) else int(leave.code is not None)
        return 0

    sys.exit(boundary.guarded(call))
