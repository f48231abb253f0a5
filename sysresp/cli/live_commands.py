"""The commands that show what happens while it happens: what services print, and how they are.

Owns their options and help texts, as `main` does for the others; `main` registers them. Rule: the work of a
command is in the module it calls, imported when it is called.
"""

# ruff: noqa: PLC0415, PLR0917 - each command imports its own work; its parameters are its options
from __future__ import annotations

import typer

from sysresp.cli import options
from sysresp.cli.ledger_commands import SINCE


@options.guarded
def logs(
    names: list[str] = options.NAMES,
    follow: bool = typer.Option(False, "--follow", "-f", help="Go on showing what comes."),
    since: str = SINCE,
    lines: int = typer.Option(
        -1,
        "--lines",
        "-n",
        metavar="N",
        min=-1,
        help="How many of the last lines; 50, or all with --since.",
        show_default=False,
    ),
    grep: str = typer.Option(
        "", "--grep", "-g", metavar="REGEX", help="Only what matches.", show_default=False
    ),
    project: str = options.OF_PROJECT,
    user: bool = options.USER,
    json: bool = options.JSON,
    no_color: bool = options.NO_COLOR,
) -> int:
    """Show what services printed, and their exits and restarts among it: of those named, or of all."""
    from sysresp.cli import logs as command

    asked = command.Asked(
        names or (), project, options.scope(user), follow, since, lines, grep, json=json, colour=not no_color
    )
    return command.run(asked)


@options.guarded
def top(
    names: list[str] = options.NAMES,
    project: str = options.OF_PROJECT,
    user: bool = options.USER,
    no_color: bool = options.NO_COLOR,
) -> int:
    """Show what runs and what happens, live; keys restart a service, show its logs, say why (? for help)."""
    from sysresp.cli import top as command

    return command.run(command.Asked(tuple(names or ()), project, options.scope(user), colour=not no_color))


COMMANDS = (logs, top)
