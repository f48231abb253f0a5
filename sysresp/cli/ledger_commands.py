"""The commands on what happened: why a service is as it is, what ended, everything that was noticed.

Owns their options and help texts, as `main` does for the others; `main` registers them. Rule: the work of a
command is in the module it calls, imported when it is called.
"""

# ruff: noqa: PLC0415, PLR0917 - each command imports its own work; its parameters are its options
from __future__ import annotations

import typer

from sysresp.cli import options

SINCE = typer.Option(
    "",
    "--since",
    metavar="TIME",
    help='Only what happened since then: "2h", "yesterday", "14:00", "2025-03-01".',
    show_default=False,
)
LINES = typer.Option(50, "--lines", "-n", metavar="N", min=0, help="How many, the newest; 0 is all.")


@options.guarded
def why(
    names: list[str] = options.SOME_NAMES,
    project: str = options.OF_PROJECT,
    user: bool = options.USER,
    json: bool = options.JSON,
    no_color: bool = options.NO_COLOR,
) -> int:
    """Say why a service is as it is: what happened, what happens next and when, what to do."""
    from sysresp.cli import why_facts as command

    return command.run(names, project=project, scope=options.scope(user), as_json=json, colour=not no_color)


@options.guarded
def incidents(
    names: list[str] = options.NAMES,
    since: str = SINCE,
    lines: int = LINES,
    project: str = options.OF_PROJECT,
    user: bool = options.USER,
    json: bool = options.JSON,
    no_color: bool = options.NO_COLOR,
) -> int:
    """List what ended or could not start, with what followed; the newest last."""
    from sysresp.cli import incidents as command

    asked = command.Asked(
        names or (), project, options.scope(user), since, lines, json=json, colour=not no_color
    )
    return command.incidents(asked)


@options.guarded
def events(
    names: list[str] = options.NAMES,
    follow: bool = typer.Option(False, "--follow", "-f", help="Go on showing new ones."),
    since: str = SINCE,
    lines: int = LINES,
    project: str = options.OF_PROJECT,
    user: bool = options.USER,
    json: bool = options.JSON,
) -> int:
    """List everything that the controller saw and did; the newest last."""
    from sysresp.cli import incidents as command

    asked = command.Asked(names or (), project, options.scope(user), since, lines, json=json)
    return command.events(asked, follow=follow)


COMMANDS = (why, incidents, events)
