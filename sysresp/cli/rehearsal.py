"""`sysresp rehearse`: the file is read here, so that its problems are told at once, and applied in the copy.

Owns nothing but the words that the sandbox's own `sysresp apply` is called with.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sysresp.cli import sources
from sysresp.cli.boundary import usage
from sysresp.errors import Severity, SpecError
from sysresp.model import Scope
from sysresp.sandbox.rehearse import rehearse
from sysresp.spec.parse import parse


def run(files: Sequence[str], *, project: str, keep: bool, shell: bool) -> int:
    """Rehearse; return the exit status of apply in the copy, or of status if that is worse."""
    found = sources.find(files)
    if sources.STANDARD_INPUT in found:
        raise usage("cannot rehearse standard input", "save it to a file first")
    parsed = parse(sources.read(found, project=project), scope=Scope.SYSTEM)
    if parsed.spec is None or any(problem.severity is Severity.ERROR for problem in parsed.problems):
        raise SpecError(parsed.problems)
    words = ["apply", *(("--project", project) if project else ()), "--", *found]
    return rehearse(words, found, project=parsed.spec.project, keep=keep, shell=shell, tell=_tell)


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
