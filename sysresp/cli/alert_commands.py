"""`sysresp alerts` and `alerts test`: what is to be told, what was, and whether a receiver can be reached.

Owns their options and their work. The queue is the controller's: nothing here changes it. Rule: a test takes
the very way of a message, the sender and the same rights, but for the sandbox of the controller's unit.
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
    import json
    import os
    import pwd
    import subprocess
    import time

    from sysresp.cli import hosts
    from sysresp.controller import own
    from sysresp.controller.deliver import SENDER, given_for
    from sysresp.controller.spawn import environment, last_line
    from sysresp.controller.telling import iso
    from sysresp.errors import Exit, SysrespError
    from sysresp.units import alerting

    owned = hosts.manifests(options.scope(user), project)
    found = [(one.project, one.alerts[name]) for one in owned if name in one.alerts]
    if len(found) != 1:
        names = sorted({alert for one in owned for alert in one.alerts})
        projects = ", ".join(sorted(each for each, _ in found))
        raise SysrespError(
            f'several projects have an alert "{name}": {projects}'
            if found
            else f'no project that is applied here has an alert "{name}"',
            hint="--project NAME" if found else f"there are: {', '.join(names)}" if names else "",
            exit=Exit.USAGE if found else Exit.UNKNOWN,
        )
    of, fields = found[0]
    receiver = alerting.loads(fields)
    host, now = os.uname().nodename, time.time()
    line = f"a test of the alert {name}"
    body = {
        **{"version": 1, "key": f"{host}-test-{int(now * 1000)}", "kind": "test", "incident": 0},
        **{"host": host, "project": of, "service": "test", "unit": "", "summary": line},
        **{"text": f"{line} on {host}", "since": iso(now), "resolved": None, "duration_sec": 0.0},
        **{"failures": 0, "reasons": [], "units": []},
    }
    rights: dict[str, object] = {}
    if os.geteuid() == 0 and not user:
        try:
            account = pwd.getpwnam(own.ACCOUNT)
            rights = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        except KeyError:
            pass  # the controller is root, too, where there is no such account
    try:
        done = subprocess.run(
            SENDER,
            input=given_for(receiver, body),
            env=environment("", "", os.environ),
            cwd="/",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=receiver.timeout_sec + 10,
            check=False,
            **rights,  # type: ignore[call-overload]
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SysrespError(f"cannot tell {name}: {error}") from error
    if done.returncode:
        raise SysrespError(f"{name} did not take it: {last_line(done.stdout) or done.returncode}")
    print(json.dumps(name)[1:-1] + " has taken it")
    return Exit.OK
