"""`sysresp rehearse`: the file is read here, so that its problems are told at once, and applied in the copy.

Owns nothing but the words that the sandbox's own `sysresp apply` is called with.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sysresp.cli import sources
from sysresp.errors import SpecError
from sysresp.model import Scope
from sysresp.sandbox.rehearse import rehearse
from sysresp.spec.parse import parse


def run(files: Sequence[str], *, keep: bool, shell: bool) -> int:
    """Rehearse; return the exit status of apply in the copy, or of status if that is worse."""
    found = sources.find(files)
    project = ""
    if sources.STANDARD_INPUT not in found:  # that can be read only once, by the copy's own apply
        parsed = parse(sources.read(found), scope=Scope.SYSTEM)
        if parsed.spec is None:
            raise SpecError(parsed.problems)
        project = parsed.spec.project
    return rehearse(found, project=project, keep=keep, shell=shell, tell=_tell)


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
