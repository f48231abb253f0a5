"""Where every exception ends: a message, an exit status, never a traceback.

Owns the last `except` of the program. Rule: whatever a command raises leaves here as an exit status of
`sysresp.errors.Exit`; only SYSRESP_DEBUG=1 shows a traceback, for a report. A reader that went away
(BrokenPipeError) ends us quietly, with the status that a shell gives to SIGPIPE.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable

from sysresp import __version__
from sysresp.cli import problems, table, terminal
from sysresp.errors import Exit, Severity, SpecError, SysrespError

BROKEN_PIPE = 141  # 128 + SIGPIPE
REPORT = "please report it with the output of the same command under SYSRESP_DEBUG=1"


def guarded(call: Callable[[], int]) -> int:
    """Call, and return an exit status whatever happens."""
    try:
        status = call()
        sys.stdout.flush()
    except KeyboardInterrupt:
        _say("interrupted")
        return Exit.INTERRUPTED
    except SpecError as error:
        show_problems(error)
        return error.exit
    except SysrespError as error:
        _say(error.message, error.hint)
        # A file that could not be written is told in words; the cause still knows that rights were missing.
        return Exit.DENIED if isinstance(error.__cause__, PermissionError) else error.exit
    except BrokenPipeError:
        _drop_output()
        return BROKEN_PIPE
    except OSError as error:
        _say(*of_os(error))
        if error.filename is None:
            _drop_output()  # it may be standard output itself that is full
        return Exit.DENIED if error.errno in {errno.EACCES, errno.EPERM} else Exit.FAILED
    except Exception as error:  # the last boundary: anything else is our own bug
        if os.environ.get("SYSRESP_DEBUG"):
            raise
        _say(f"bug in sysresp {__version__}: {type(error).__name__}: {error}", REPORT)
        return Exit.FAILED
    return status


def usage(message: str, hint: str = "") -> SysrespError:
    """Return the error of a wrong call."""
    return SysrespError(message, hint=hint, exit=Exit.USAGE)


def show_problems(error: SpecError) -> None:
    """Print all problems of a file to standard error, and a count."""
    colour = terminal.has_colour(sys.stderr)
    for problem in error.problems:
        print(problems.text(problem, colour=colour), file=sys.stderr)
    warnings = sum(problem.severity is Severity.WARNING for problem in error.problems)
    print(f"{error.message}" + (f", {warnings} warnings" if warnings else ""), file=sys.stderr)


def of_os(error: OSError) -> tuple[str, str]:
    """Return message and hint for an error of the file system."""
    reason = error.strerror or str(error) or type(error).__name__
    message = f"{error.filename}: {reason}" if error.filename is not None else reason
    hints = {
        errno.EACCES: "run it as root, or with --user for your own services",
        errno.EPERM: "run it as root, or with --user for your own services",
        errno.EROFS: "the file system is read-only; --runtime writes to /run instead of /etc",
        errno.ENOSPC: "free some space and run the same command again",
        errno.EDQUOT: "free some space and run the same command again",
    }
    return message[:1].lower() + message[1:] if not error.filename else message, hints.get(
        error.errno or 0, ""
    )


def _say(message: str, hint: str = "") -> None:
    """Print one message, as `sysresp: cannot ...`, and what to do."""
    colour = terminal.has_colour(sys.stderr)
    first, *rest = message.splitlines() or [""]
    lines = [f"{terminal.paint('sysresp:', terminal.RED, on=colour)} {table.clean(first)}"]
    lines += [f"  {table.clean(line)}" for line in rest]
    lines += [
        f"  {'fix: ' if not number else '     '}{table.clean(line)}"
        for number, line in enumerate(hint.splitlines())
    ]
    try:
        print("\n".join(lines), file=sys.stderr, flush=True)
    except OSError:
        return  # nobody listens: the exit status still tells


def _drop_output() -> None:
    """Point standard output at /dev/null, so that the interpreter's own flush at exit does not complain."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        return  # not a file (a test): nothing is flushed at exit either
