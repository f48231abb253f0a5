"""The typer application: every command with its options, and nothing else.

Owns the commands' names, their own options and help texts; what several have in common is in `options`. The
work of a command is in the module it calls, imported when it is called, so that `--help` and completion do
not pay for Jinja and D-Bus. Rule: options must mean the same in every command.
"""

# ruff: noqa: PLC0415, PLR0917 - each command imports its own work; its parameters are its options
from __future__ import annotations

import sys

import typer

from sysresp import __version__
from sysresp.cli import (
    alert_commands,
    boundary,
    controller_commands,
    generation_commands,
    ledger_commands,
    live_commands,
    metrics_commands,
    options,
    report_commands,
)
from sysresp.model import Mode

app = typer.Typer(
    name="sysresp",
    help="One services.toml becomes real systemd units: plan, apply, status.",
    epilog="Exit status and files: sysresp(1). The file: services.toml(5).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # boundary.py owns what happens to exceptions
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", help="Print the version and leave."),
) -> None:
    if version:
        typer.echo(f"sysresp {__version__}")
        raise typer.Exit(0)
    if context.invoked_subcommand is None:
        raise typer.Exit(2)


@app.command()
@options.guarded
def check(
    files: list[str] = options.FILES,
    file: list[str] = options.FILE,
    project: str = options.PROJECT,
    user: bool = options.USER,
    runtime: bool = options.RUNTIME,
    transient: bool = options.TRANSIENT,
    json: bool = options.JSON,
    strict: bool = typer.Option(False, "--strict", help="Warnings are errors too."),
    systemd_version: int = options.SYSTEMD_VERSION,
) -> int:
    """Say everything that is wrong with a file; change nothing."""
    from sysresp.cli import build, show

    source = build.Source(
        options.all_files(files, file),
        project,
        options.scope(user),
        options.mode(runtime, transient),
        systemd_version=systemd_version,
    )
    return show.check(source, as_json=json, strict=strict)


@app.command()
@options.guarded
def render(
    files: list[str] = options.FILES,
    file: list[str] = options.FILE,
    project: str = options.PROJECT,
    user: bool = options.USER,
    runtime: bool = options.RUNTIME,
    output: str = typer.Option(
        "",
        "--output",
        "-o",
        metavar="DIR",
        help="Write unit files and links there instead.",
        show_default=False,
    ),
    systemd_version: int = options.SYSTEMD_VERSION,
) -> int:
    """Print the unit files, or write them to a directory."""
    from sysresp.cli import build, show

    source = build.Source(
        options.all_files(files, file),
        project,
        options.scope(user),
        options.mode(runtime, False),
        systemd_version=systemd_version,
    )
    return show.render(source, output=output)


@app.command()
@options.guarded
def config(
    files: list[str] = options.FILES, file: list[str] = options.FILE, project: str = options.PROJECT
) -> int:
    """Print the file with all its layers merged."""
    from sysresp.cli import show

    return show.config(options.all_files(files, file), project)


@app.command()
@options.guarded
def schema() -> int:
    """Print the JSON Schema of services.toml, for editors."""
    from sysresp.cli import show

    return show.schema()


@app.command()
@options.guarded
def plan(
    files: list[str] = options.FILES,
    file: list[str] = options.FILE,
    project: str = options.PROJECT,
    user: bool = options.USER,
    runtime: bool = options.RUNTIME,
    transient: bool = options.TRANSIENT,
    json: bool = options.JSON,
    detailed_exitcode: bool = typer.Option(
        False, "--detailed-exitcode", help="Exit status 2 if anything would change."
    ),
    out: str = typer.Option(
        "", "--out", metavar="FILE", help="Write the plan there, for apply --plan.", show_default=False
    ),
    settle: str = options.SETTLE,
    accept_drift: bool = options.ACCEPT_DRIFT,
    overwrite_drift: bool = options.OVERWRITE_DRIFT,
    no_color: bool = options.NO_COLOR,
) -> int:
    """Print what apply would do; change nothing."""
    from sysresp.cli import change

    source = change.Source(
        options.all_files(files, file), project, options.scope(user), options.mode(runtime, transient)
    )
    how = change.Options(
        settle=settle,
        as_json=json,
        colour=not no_color,
        drift=options.drift(accept_drift, overwrite_drift),
    )
    return change.plan(source, how, detailed=detailed_exitcode, out=out)


@app.command()
@options.guarded
def apply(
    files: list[str] = options.FILES,
    file: list[str] = options.FILE,
    project: str = options.PROJECT,
    user: bool = options.USER,
    runtime: bool = options.RUNTIME,
    transient: bool = options.TRANSIENT,
    plan: str = typer.Option(
        "",
        "--plan",
        metavar="FILE",
        help="Do the plan that `plan --out FILE` wrote, if the host is still as it was then.",
        show_default=False,
    ),
    settle: str = options.SETTLE,
    no_rollback: bool = options.NO_ROLLBACK,
    accept_drift: bool = options.ACCEPT_DRIFT,
    overwrite_drift: bool = options.OVERWRITE_DRIFT,
    wait: str = options.WAIT,
    json: bool = options.JSON,
    no_color: bool = options.NO_COLOR,
) -> int:
    """Make the host as the file says: write the units, start, restart, reload and stop what changed.

    If a changed service does not come up, or does not stay up for its settle time, the generation before is
    put back.
    """
    from sysresp.cli import change

    source = change.Source(
        options.all_files(files, file), project, options.scope(user), options.mode(runtime, transient)
    )
    how = change.Options(
        settle=settle,
        rollback=not no_rollback,
        wait=wait,
        as_json=json,
        colour=not no_color,
        drift=options.drift(accept_drift, overwrite_drift),
    )
    return change.apply(source, how, plan_path=plan)


@app.command()
@options.guarded
def down(
    names: list[str] = options.NAMES,
    project: str = options.OF_PROJECT,
    user: bool = options.USER,
    runtime: bool = typer.Option(False, "--runtime", help="Only a project that is applied in this mode."),
    transient: bool = typer.Option(
        False, "--transient", help="Only a project that is applied in this mode."
    ),
    wait: str = options.WAIT,
    json: bool = options.JSON,
    no_color: bool = options.NO_COLOR,
) -> int:
    """Stop services and remove their units: all of a project, or those named. `rollback` brings it back."""
    from sysresp.cli import change

    modes = [options.mode(runtime, transient)] if runtime or transient else []
    how = change.Options(wait=wait, as_json=json, colour=not no_color)
    return change.down(names or [], project=project, scope=options.scope(user), modes=modes, options=how)


@app.command()
@options.guarded
def status(
    names: list[str] = options.NAMES,
    show_all: bool = typer.Option(False, "--all", "-a", help="One line for each instance."),
    watch: bool = typer.Option(False, "--watch", help="Stay, and show each change: sysresp top."),
    project: str = options.OF_PROJECT,
    user: bool = options.USER,
    json: bool = options.JSON,
    no_color: bool = options.NO_COLOR,
) -> int:
    """Show what runs, and why what does not run does not."""
    from sysresp.cli import hosts
    from sysresp.cli import status as command

    if watch:
        return _watch(names, project, user, json, no_color)
    asked = command.Asked(names=tuple(names or ()), all=show_all, json=json, user=user, project=project)
    asked.colour = not no_color
    host = hosts.host(options.scope(user), Mode.PERSISTENT)
    return command.show(asked, host.files, host.manager)


@app.command()
@options.guarded
def start(
    names: list[str] = options.SOME_NAMES,
    project: str = options.OF_PROJECT,
    user: bool = options.USER,
    no_color: bool = options.NO_COLOR,
) -> int:
    """Start services, and wait until they are ready."""
    return _act("start", names, project, user, no_color)


@app.command()
@options.guarded
def stop(
    names: list[str] = options.SOME_NAMES,
    project: str = options.OF_PROJECT,
    user: bool = options.USER,
    no_color: bool = options.NO_COLOR,
) -> int:
    """Stop services; apply leaves them stopped."""
    return _act("stop", names, project, user, no_color)


@app.command()
@options.guarded
def restart(
    names: list[str] = options.SOME_NAMES,
    project: str = options.OF_PROJECT,
    user: bool = options.USER,
    no_color: bool = options.NO_COLOR,
) -> int:
    """Restart services, and wait until they are ready."""
    return _act("restart", names, project, user, no_color)


@app.command()
@options.guarded
def reload(
    names: list[str] = options.SOME_NAMES,
    project: str = options.OF_PROJECT,
    user: bool = options.USER,
    no_color: bool = options.NO_COLOR,
) -> int:
    """Let services read their configuration again."""
    return _act("reload", names, project, user, no_color)


@app.command()
@options.guarded
def rehearse(
    files: list[str] = options.FILES,
    file: list[str] = options.FILE,
    keep: bool = typer.Option(False, "--keep", help="Keep the copy until Ctrl-C, and say how to enter it."),
    shell: bool = typer.Option(False, "--shell", help="Open a shell in the copy before it is torn down."),
) -> int:
    """Apply a file in a throwaway booted copy of this host, show the outcome, tear it down."""
    from sysresp.cli import rehearsal

    return rehearsal.run(options.all_files(files, file), keep=keep, shell=shell)


@app.command()
@options.guarded
def doctor(user: bool = options.USER, json: bool = options.JSON, no_color: bool = options.NO_COLOR) -> int:
    """Say what is missing or limiting on this host, and how to mend it."""
    from sysresp.cli import doctor as command

    return command.run(options.scope(user), as_json=json, colour=not no_color)


@app.command()
@options.guarded
def version() -> int:
    """Print the version."""
    typer.echo(f"sysresp {__version__}")
    return 0


for _command in (
    *generation_commands.COMMANDS,
    *ledger_commands.COMMANDS,
    *live_commands.COMMANDS,
    *report_commands.COMMANDS,
):
    app.command()(_command)
app.add_typer(controller_commands.group)
app.add_typer(alert_commands.group)
app.add_typer(metrics_commands.group)


def _act(verb: str, names: list[str], project: str, user: bool, no_color: bool) -> int:
    from sysresp.cli import act

    return act.run(verb, names, project=project, scope=options.scope(user), colour=not no_color)


def _watch(names: list[str], project: str, user: bool, json: bool, no_color: bool) -> int:
    from sysresp.cli import top as command

    if json:
        raise boundary.usage("--watch and --json exclude each other", "sysresp events -f --json follows")
    return command.run(command.Asked(tuple(names or ()), project, options.scope(user), colour=not no_color))


def run() -> None:
    """Run the command line; whatever happens outside a command ends here."""

    def call() -> int:
        try:
            app(prog_name="sysresp")
        except SystemExit as leave:
            return leave.code if isinstance(leave.code, int) else int(leave.code is not None)
        return 0

    sys.exit(boundary.guarded(call))
