"""The commands on what happened: why a service is as it is, what ended, everything that was noticed.

Owns their options and help texts, as `main` does for the others; `main` registers them. Rule: the work of a
command is in the module it calls, imported when it is called.
"""

# ruff: noqa: PLC0415, PLR0917 - each command imports its own work; its parameters are its options
from __future__ import annotations

from collections.abc import Sequence

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
    exits: bool = typer.Option(False, "--exits", help="Each exit, and each start that was prevented."),
) -> int:
    """List incidents, or with 'show N' tell all about one: failures that belong together, the root first."""
    from sysresp.cli import incident_list
    from sysresp.cli import incidents as command

    number = _shown(names or ())
    asked = command.Asked(
        () if number else names or (),
        project,
        options.scope(user),
        since,
        lines,
        json=json,
        colour=not no_color,
    )
    if number:
        return incident_list.show(asked, number)
    return command.exits(asked) if exits else incident_list.run(asked)


def _shown(names: Sequence[str]) -> int:
    """Return the number in "show N", 0 if it is not that; a service may be called "show"."""
    is_shown = len(names) == 2 and names[0] == "show" and names[1].isascii() and names[1].isdecimal()
    return int(names[1]) if is_shown else 0


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
