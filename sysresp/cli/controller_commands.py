"""`sysresp controller ...`: the commands on the daemon that keeps alive what was applied.

Owns their options and help texts, as `main` does for the others; `main` adds the group. Rule: the work of a
command is in the module it calls, imported when it is called.
"""

# ruff: noqa: PLC0415 - each command imports its own work
from __future__ import annotations

import typer

from sysresp.cli import options

group = typer.Typer(
    name="controller",
    help="The daemon that keeps alive what was applied, and remembers every exit.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@group.command()
@options.guarded
def enable(
    user: bool = options.USER,
    create_user: bool = typer.Option(
        False,
        "--create-user",
        help="First make the account that it runs as, and the polkit rule that lets it restart services.",
    ),
    wait: str = options.WAIT,
    json: bool = options.JSON,
    no_color: bool = options.NO_COLOR,
) -> int:
    """Install the controller's own units, start it, now and at boot."""
    from sysresp.cli import change, controller

    how = change.Options(wait=wait, as_json=json, colour=not no_color)
    return controller.enable(options.scope(user), how, create_user=create_user)


@group.command()
@options.guarded
def disable(
    user: bool = options.USER,
    wait: str = options.WAIT,
    json: bool = options.JSON,
    no_color: bool = options.NO_COLOR,
) -> int:
    """Stop the controller and remove its units; services go on running."""
    from sysresp.cli import change, controller

    how = change.Options(wait=wait, as_json=json, colour=not no_color)
    return controller.disable(options.scope(user), how)


@group.command()
@options.guarded
def restart(user: bool = options.USER, json: bool = options.JSON) -> int:
    """Let systemd restart the controller, and wait until the new one is ready."""
    from sysresp.cli import controller

    return controller.restart(options.scope(user), as_json=json)


@group.command()
@options.guarded
def status(user: bool = options.USER, json: bool = options.JSON) -> int:
    """Show whether it runs, since when, as whom, and what it lacks; exit status 3 if it does not run."""
    from sysresp.cli import controller

    return controller.status(options.scope(user), as_json=json)


@group.command()
@options.guarded
def run(user: bool = options.USER) -> int:
    """Be the controller: what its unit runs."""
    from sysresp.cli import daemon, listening

    return daemon.run(options.scope(user), listening.listen(options.scope(user)))
