"""What several commands have in common: their options and arguments, and how a function becomes a command.

Owns names and help texts of options that mean the same everywhere. Rule: what is here must run on typer 0.7
to 0.28, which leaves `list[str]`, `str`, `int` and `bool`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec

import typer

from sysresp.cli import boundary
from sysresp.errors import SysrespError
from sysresp.model import Mode, Scope


def known_names(incomplete: str) -> list[str]:
    """Return the names that complete a word on the command line."""
    from sysresp.cli import hosts  # noqa: PLC0415 - only a completion pays for it

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


SETTLE = typer.Option(
    "",
    "--settle",
    metavar="TIME",
    help="Watch every changed service so long, such as 10s; 0 is not at all. Default: its own `settle`.",
    show_default=False,
)
NO_ROLLBACK = typer.Option(False, "--no-rollback", help="Leave what failed as it is.")
WAIT = typer.Option(
    "",
    "--wait",
    metavar="TIME",
    help="Wait so long for another sysresp that changes the project.",
    show_default=False,
)
ACCEPT_DRIFT = typer.Option(
    False, "--accept-drift", help="Leave unit files that were edited or removed by hand as they are."
)
OVERWRITE_DRIFT = typer.Option(
    False, "--overwrite-drift", help="Overwrite what was edited, removed or disabled by hand."
)
GENERATIONS = typer.Argument(
    None,
    metavar="[GENERATION [GENERATION]]",
    help="From the first to the second; from the first to the host's; what the host's changed.",
    show_default=False,
)


P = ParamSpec("P")


def guarded(function: Callable[P, int]) -> Callable[P, None]:
    """Make a function that returns an exit status a command of the application."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        raise typer.Exit(int(boundary.guarded(lambda: function(*args, **kwargs))))

    return wrapper


def scope(user: bool) -> Scope:
    return Scope.USER if user else Scope.SYSTEM


def mode(runtime: bool, transient: bool) -> Mode:
    if runtime and transient:
        raise boundary.usage("--runtime and --transient exclude each other")
    if runtime:
        return Mode.RUNTIME
    return Mode.TRANSIENT if transient else Mode.PERSISTENT


def drift(accept: bool, overwrite: bool) -> str:
    if accept and overwrite:
        raise boundary.usage("--accept-drift and --overwrite-drift exclude each other")
    if accept:
        return "accept"
    return "overwrite" if overwrite else ""


def all_files(files: list[str] | None, file: list[str] | None) -> list[str]:
    return [*(file or ()), *(files or ())]
