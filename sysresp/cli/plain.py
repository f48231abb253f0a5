"""`apply` and `plan` with nothing but file names, served without typer.

That is what people type and what scripts and timers run, and it costs 40 ms less: typer's import and the
making of all its commands. Owns no option: a word that begins with "-" is typer's. Rule: what is done here
is what `sysresp.cli.main` does for the same words, by the same functions.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from sysresp.cli import boundary

COMMANDS = ("apply", "plan")


def fast(argv: Sequence[str]) -> int | None:
    """Serve `sysresp apply [FILE...]` and `sysresp plan [FILE...]`; None if this is something else."""
    if argv[1] not in COMMANDS or "_SYSRESP_COMPLETE" in os.environ:
        return None
    if any(word.startswith("-") for word in argv[2:]):
        return None

    def call() -> int:
        from sysresp.cli import change  # noqa: PLC0415 - inside of the boundary

        source = change.Source(argv[2:])
        return change.plan(source) if argv[1] == "plan" else change.apply(source)

    return boundary.guarded(call)
