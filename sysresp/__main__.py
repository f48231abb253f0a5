"""Entry point of the `sysresp` command.

Owns one decision: the plain forms of what is run all the time are served without importing typer, and
`status` without Jinja, tomllib and dataclasses, too; those imports cost more than all the rest together.
Rule: nothing is imported at the top but what the interpreter has loaded already.

The garbage collector is off: a command lives for a second and frees everything by ending. With it on, the
imports and the parsing of a large file spend a third of their time in collections that find nothing. Only
the controller and the exporter live on.
"""

from __future__ import annotations

import gc
import os
import sys


def main() -> None:
    """Run the command line."""
    gc.disable()
    code = None
    if sys.argv[1:2] == ["status"]:
        from sysresp.cli import status  # noqa: PLC0415

        code = status.fast(sys.argv)
    elif sys.argv[1:] in (["--version"], ["version"]) and "_SYSRESP_COMPLETE" not in os.environ:
        code = _version()
    elif sys.argv[1:2] in (["apply"], ["plan"]):
        from sysresp.cli import plain  # noqa: PLC0415

        code = plain.fast(sys.argv)
    elif sys.argv[1:3] == ["controller", "run"] and sys.argv[3:] in ([], ["--user"]):
        from sysresp.cli import listening  # noqa: PLC0415

        heard = listening.listen("user" if sys.argv[3:] else "system")
        from sysresp.cli import daemon  # noqa: PLC0415

        code = daemon.run("user" if sys.argv[3:] else "system", heard)
    elif sys.argv[1:3] == ["metrics", "serve"] and sys.argv[3:] in ([], ["--user"]):
        from sysresp.cli import exporter  # noqa: PLC0415

        code = exporter.main("user" if sys.argv[3:] else "system")
    if code is not None:
        sys.stderr.flush()
        os._exit(code)  # standard output is flushed; freeing the interpreter's memory takes 3 ms and more
    from sysresp.cli.main import run  # noqa: PLC0415

    run()


def _version() -> int | None:
    """Print the version; None where nobody can take it, which the long way tells in words."""
    from sysresp import __version__  # noqa: PLC0415

    try:
        print(f"sysresp {__version__}", flush=True)
    except OSError:
        return None
    return 0


if __name__ == "__main__":
    main()
