"""`sysresp metrics` and `metrics serve | enable | disable`: what a monitoring system wants to know.

Owns their options and help texts, as `main` does for the others; `main` adds the group. Rule: the work of a
command is in the module it calls, imported when it is called.
"""

# ruff: noqa: PLC0415, PLR0917 - each command imports its own work; its parameters are its options
from __future__ import annotations

import typer

from sysresp.cli import options

group = typer.Typer(
    name="metrics",
    help="What a monitoring system wants to know: printed, in a file, or served.",
    rich_markup_mode=None,
)


@group.callback(invoke_without_command=True)
def metrics(
    context: typer.Context,
    format: str = typer.Option(
        "",
        "--format",
        metavar="FORMAT",
        help="openmetrics (the default), prometheus (with --textfile: the default), or json.",
        show_default=False,
    ),
    textfile: str = typer.Option(
        "",
        "--textfile",
        metavar="FILE",
        help="Write them to this file, at once, for node_exporter's textfile collector.",
        show_default=False,
    ),
    user: bool = options.USER,
) -> None:
    """Print metrics of all services, the incidents, the alerts and the controller."""
    if context.invoked_subcommand is None:
        options.guarded(_print)(format, textfile, user)


def _print(form: str, textfile: str, user: bool) -> int:
    from sysresp.cli import metrics as command

    return command.run(command.Asked(options.scope(user), form, textfile))


@group.command()
@options.guarded
def serve(
    idle: int = typer.Option(
        30, "--idle", metavar="SECONDS", min=1, help="End when nobody has asked for so long."
    ),
    user: bool = options.USER,
) -> int:
    """Be the exporter: what its socket starts."""
    from sysresp.cli import exporter

    return exporter.run(options.scope(user), idle)


@group.command()
@options.guarded
def enable(
    listen: str = typer.Option(
        "",
        "--listen",
        metavar="ADDRESS",
        help="Where the exporter is asked; 127.0.0.1:9917 if neither this nor --textfile is given.",
        show_default=False,
    ),
    textfile: str = typer.Option(
        "",
        "--textfile",
        metavar="DIR",
        help="Put a textfile into this directory of node_exporter's, twice a minute.",
        show_default=False,
    ),
    user: bool = options.USER,
    wait: str = options.WAIT,
    json: bool = options.JSON,
    no_color: bool = options.NO_COLOR,
) -> int:
    """Install the exporter's socket, or the timer of a textfile, or both, now and at boot."""
    from sysresp.cli import change, metrics_enable

    how = change.Options(wait=wait, as_json=json, colour=not no_color)
    return metrics_enable.enable(options.scope(user), how, listen=listen, textfile=textfile)


@group.command()
@options.guarded
def disable(
    user: bool = options.USER,
    wait: str = options.WAIT,
    json: bool = options.JSON,
    no_color: bool = options.NO_COLOR,
) -> int:
    """Stop and remove what `metrics enable` installed."""
    from sysresp.cli import change, metrics_enable

    how = change.Options(wait=wait, as_json=json, colour=not no_color)
    return metrics_enable.disable(options.scope(user), how)
