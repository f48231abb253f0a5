"""`sysresp alerts` and `alerts test`: what is to be told, what was, and whether a receiver can be reached.

Owns their options, and the list; the test is `alert_test`'s. Rule: the queue is the controller's, and
nothing here changes it.
"""

# ruff: noqa: PLC0415 - each command imports its own work
from __future__ import annotations

import typer

from sysresp.cli import options

LINES = typer.Option(20, "--lines", "-n", metavar="N", min=0, help="How many, the newest; 0 is all.")

group = typer.Typer(
    name="alerts",
    help="Who is told of incidents: the queue, and a test of each way.",
    rich_markup_mode=None,
)


@group.callback(invoke_without_command=True)
def alerts(
    context: typer.Context,
    lines: int = typer.Option(
        20, "--lines", "-n", metavar="N", min=0, help="How many, the newest; 0 is all."
    ),
    user: bool = options.USER,
    json: bool = options.JSON,
) -> None:
    """List what waits to be delivered, and what became of the last messages."""
    if context.invoked_subcommand is None:
        options.guarded(_list)(lines, user, json)


def _list(lines: int, user: bool, as_json: bool) -> int:
    import json
    import os
    import sys

    from sysresp.cli import incident_list, remembered
    from sysresp.cli.incidents import NO_LEDGER
    from sysresp.controller.reader import Reader
    from sysresp.controller.tables import LedgerTrouble
    from sysresp.errors import Exit, SysrespError

    path = remembered.ledger(options.scope(user).value, os.environ)
    found = []
    if path:
        try:
            with Reader(path) as reader:
                queued = reader.messages("WHERE state = 'queued' ORDER BY id")
                over = reader.messages("WHERE state != 'queued' ORDER BY id DESC LIMIT ?", (lines or -1,))
                found = [*reversed(over), *queued]
        except LedgerTrouble as trouble:
            raise SysrespError(trouble.why) from trouble
    if as_json:
        objects = [incident_list.message_object(one) for one in found]
        print(json.dumps({"version": 1, "messages": objects}, indent=2))
        return Exit.OK
    for one in found:
        print(incident_list.message_line(one))
    if not found:
        print("nobody was told anything" if path else NO_LEDGER, file=sys.stderr)
    return Exit.OK


@group.command("test")
@options.guarded
def send_test(
    name: str = typer.Argument(..., metavar="NAME", help="Of an [alerts] table that was applied."),
    project: str = options.OF_PROJECT,
    user: bool = options.USER,
) -> int:
    """Send a test message now, and say what became of it."""
    from sysresp.cli import alert_test

    return alert_test.run(name, project, options.scope(user))
