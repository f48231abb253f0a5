"""One change of a project at a time.

Owns the content of the lock file, which tells others who is at work, and the waiting. The lock itself is the
kernel's (flock(2)): it goes with its process, so one that was killed leaves none behind. Rule: nothing that
changes a project looks at the host before it has the lock, since what it sees might be half of a change.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from sysresp.errors import Exit, SysrespError
from sysresp.ports import Host

TRY_SEC: Final = 0.1


class Holder(NamedTuple):
    """Who has the lock."""

    pid: int
    who: str  # name of the user
    command: str  # "apply"
    since: float = 0.0  # seconds since the epoch

    def __str__(self) -> str:
        return f"{self.command} by {self.who} (pid {self.pid}), since {stamp(self.since)}"


NOBODY = Holder(0, "", "")


def stamp(when: float) -> str:
    """Return a time as people write it, in the local time zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))


@contextmanager
def locked(
    host: Host,
    project: str,
    holder: Holder,
    *,
    wait_sec: float | None = 0.0,
    on_wait: Callable[[str], None] = lambda _: None,
) -> Iterator[None]:
    """Hold the project's lock, waiting for it so long; SysrespError (Exit.LOCKED) says who has it.

    None as wait_sec: not at all, and there is no option for it.
    """
    where = f"{host.paths.lock_dir}/{project}.lock"
    content = json.dumps(holder._replace(since=host.clock.now())._asdict()).encode()
    deadline = host.clock.monotonic() + (wait_sec or 0.0)
    told = False
    while (other := host.files.lock(where, content)) is not None:
        who = f'another sysresp is changing the project "{project}"{_named(other)}'
        if host.clock.monotonic() >= deadline:
            raise SysrespError(
                f"{who}; nothing was changed",
                hint="let it wait: --wait 60s" if wait_sec == 0 else "run it again when that has ended",
                exit=Exit.LOCKED,
            )
        if not told:
            on_wait(who)
            told = True
        host.clock.sleep(TRY_SEC)
    try:
        yield
    finally:
        host.files.unlock(where)


def _named(content: bytes) -> str:
    """Return ": apply by root ...", "" if it is just being written."""
    try:
        raw = json.loads(content)
        return f": {Holder(**raw)}"
    except (ValueError, TypeError):
        return ""
