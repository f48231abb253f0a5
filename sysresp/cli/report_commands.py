"""The commands that look at services as a whole: the report, the graph.

Owns their options and help texts; `main` registers them. Rule: the work of a command is in the module it
calls, imported when it is called.
"""

# ruff: noqa: PLC0415, PLR0917 - each command imports its own work; its parameters are its options
from __future__ import annotations

import typer

from sysresp.cli import options

SINCE = typer.Option(
    "",
    "--since",
    metavar="TIME",
    help='From when on: "7d" if it is not given, "24h", "yesterday", "2025-03-01".',
    show_default=False,
)
HTML = typer.Option(
    "", "--html", metavar="FILE", help="Write one self-contained page; '-' prints it.", show_default=False
)


@options.guarded
def report(
    names: list[str] = options.NAMES,
    since: str = SINCE,
    html: str = HTML,
    markdown: bool = typer.Option(False, "--markdown", help="Print Markdown."),
    no_journal: bool = typer.Option(False, "--no-journal", help="Leave out what only the journal tells."),
    project: str = options.OF_PROJECT,
    user: bool = options.USER,
    json: bool = options.JSON,
    no_color: bool = options.NO_COLOR,
) -> int:
    """Report how services did: availability, failures, tracebacks, flapping, slow starts, limits."""
    from sysresp.cli import report as command

    asked = command.Asked(
        names or (),
        project,
        options.scope(user),
        since,
        html,
        json=json,
        markdown=markdown,
        journal=not no_journal,
        colour=not no_color,
    )
    return command.run(asked)


@options.guarded
def graph(
    names: list[str] = options.NAMES,
    dot: bool = typer.Option(False, "--dot", help="Print DOT, for graphviz."),
    mermaid: bool = typer.Option(False, "--mermaid", help="Print a Mermaid flowchart, for Markdown."),
    svg: bool = typer.Option(False, "--svg", help="Print a picture; needs graphviz."),
    project: str = options.OF_PROJECT,
    user: bool = options.USER,
    no_color: bool = options.NO_COLOR,
) -> int:
    """Show which service needs which, coloured by how each is now."""
    from sysresp.cli import graph as command

    form = command.form(dot=dot, mermaid=mermaid, svg=svg)
    asked = command.Asked(names or (), project, options.scope(user), form, colour=not no_color)
    return command.run(asked)


COMMANDS = (report, graph)
