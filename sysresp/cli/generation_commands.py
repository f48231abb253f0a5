"""The commands on generations and on drift: back, on, what was, what differs, what has moved.

Owns their options and help texts, as `main` does for the others; `main` registers them. Rule: the work of a
command is in the module it calls, imported when it is called.
"""

# ruff: noqa: PLC0415, PLR0917 - each command imports its own work; its parameters are its options
from __future__ import annotations

import typer

from sysresp.cli import boundary, options


@options.guarded
def rollback(
    generation: int = typer.Argument(
        0,
        metavar="[GENERATION]",
        help="See `history`. Default: the last good one before.",
        show_default=False,
    ),
    dry_run: bool = typer.Option(False, "--dry-run", help="Print the plan; change nothing."),
    project: str = options.OF_PROJECT,
    user: bool = options.USER,
    settle: str = options.SETTLE,
    no_rollback: bool = options.NO_ROLLBACK,
    accept_drift: bool = options.ACCEPT_DRIFT,
    overwrite_drift: bool = options.OVERWRITE_DRIFT,
    wait: str = options.WAIT,
    json: bool = options.JSON,
    no_color: bool = options.NO_COLOR,
) -> int:
    """Make the host as an earlier generation said; that becomes a new generation, its copy."""
    from sysresp.cli import change

    how = change.Options(
        settle=settle,
        rollback=not no_rollback,
        wait=wait,
        as_json=json,
        colour=not no_color,
        dry_run=dry_run,
        drift=options.drift(accept_drift, overwrite_drift),
    )
    return change.rollback(generation, project=project, scope=options.scope(user), options=how)


@options.guarded
def resume(
    project: str = options.OF_PROJECT,
    user: bool = options.USER,
    settle: str = options.SETTLE,
    no_rollback: bool = options.NO_ROLLBACK,
    accept_drift: bool = options.ACCEPT_DRIFT,
    overwrite_drift: bool = options.OVERWRITE_DRIFT,
    wait: str = options.WAIT,
    json: bool = options.JSON,
    no_color: bool = options.NO_COLOR,
) -> int:
    """Go on with an apply that was cut, without its file."""
    from sysresp.cli import change

    how = change.Options(
        settle=settle,
        rollback=not no_rollback,
        wait=wait,
        as_json=json,
        colour=not no_color,
        drift=options.drift(accept_drift, overwrite_drift),
    )
    return change.resume(project=project, scope=options.scope(user), options=how)


@options.guarded
def history(
    project: str = options.OF_PROJECT,
    user: bool = options.USER,
    json: bool = options.JSON,
    no_color: bool = options.NO_COLOR,
) -> int:
    """List the generations: when, by whom, with what end."""
    from sysresp.cli import history as command

    return command.history(project=project, scope=options.scope(user), as_json=json, colour=not no_color)


@options.guarded
def diff(
    generation: list[int] = options.GENERATIONS,
    project: str = options.OF_PROJECT,
    user: bool = options.USER,
    no_color: bool = options.NO_COLOR,
) -> int:
    """Print what differs between two generations: the file, and the units."""
    from sysresp.cli import history as command

    if len(generation or ()) > 2:
        raise boundary.usage("diff takes two generations at most")
    return command.diff(
        tuple(generation or ()), project=project, scope=options.scope(user), colour=not no_color
    )


@options.guarded
def drift(
    names: list[str] = options.NAMES,
    project: str = options.OF_PROJECT,
    user: bool = options.USER,
    json: bool = options.JSON,
    no_color: bool = options.NO_COLOR,
) -> int:
    """Show what is no longer as the last apply left it; exit status 3 if anything is."""
    from sysresp.cli import drift as command

    return command.run(
        names or [], project=project, scope=options.scope(user), as_json=json, colour=not no_color
    )


COMMANDS = (rollback, resume, history, diff, drift)
