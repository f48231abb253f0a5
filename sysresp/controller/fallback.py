"""The last word on a controller that cannot run: what OnFailure= of its unit starts.

Owns STATE_DIRECTORY/fallback.json, which says that systemd gave up on the controller, when, and what it said
last; and one line of priority "alert" in the journal. It starts nothing: the services go on under their own
Restart=, and a person has to look. The next controller that starts takes the record into its ledger.

It stands alone, like ready.py: a copy of this one file is run by the system's Python with -I -S, so that it
works although the package, or the environment that it is in, is broken. Rule: nothing but the standard
library, and nothing that Python 3.9 lacks, which is some systems' own where another runs sysresp.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

UNIT = "sysresp.service"
NAME = "fallback.json"
LINES = 40
MOST_BYTES = 256 * 1024
"""A record longer than this is none of ours."""

_PROPERTIES = ("ActiveState", "SubState", "Result", "ExecMainCode", "ExecMainStatus", "NRestarts")
_WAIT_SEC = 60.0
_LOOK_SEC = 0.25


class Fallback(NamedTuple):
    """What is known of the controller's end."""

    when: float  # seconds since the epoch
    unit: str = UNIT
    result: str = ""  # Result= of systemd: "exit-code", "watchdog", "timeout", ...; "" unknown
    exec_code: int = 0  # 1 exited, 2 killed, 3 dumped core; 0 unknown
    exec_status: int = 0  # exit status, or number of the signal
    starts: int = 0  # how often systemd had started it again
    lines: tuple[str, ...] = ()  # the last it said, oldest first

    def summary(self) -> str:
        """Return it in one line."""
        how = {1: f"exit status {self.exec_status}", 2: f"signal {self.exec_status}"}.get(self.exec_code, "")
        parts = [self.result or "for an unknown reason", *([how] if how else [])]
        return f"the controller cannot run, and systemd gave up on it ({', '.join(parts)})"


def read_fallback(state_dir: str) -> Fallback | None:
    """Return the record that is there, None if there is none.

    The directory belongs to an account with few rights, and root reads it: nothing is followed, waited for
    or believed.
    """
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(Path(state_dir, NAME), flags)
    except OSError:
        return None
    try:
        raw = json.loads(os.read(descriptor, MOST_BYTES))
        return _checked(raw)
    except (OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError):
        return None
    finally:
        os.close(descriptor)


def take_fallback(state_dir: str) -> Fallback | None:
    """Return the record and remove it: for a controller that has it in its ledger."""
    found = read_fallback(state_dir)
    try:
        Path(state_dir, NAME).unlink()
    except OSError:
        return found
    return found


def _checked(raw: Any) -> Fallback:
    when = float(raw["when"])
    if not 0 <= when < 1e11:
        raise ValueError(f"{when} is no instant")
    return Fallback(
        when=when,
        unit=str(raw.get("unit", ""))[:300],
        result=str(raw.get("result", ""))[:100],
        exec_code=int(raw.get("exec_code", 0)),
        exec_status=int(raw.get("exec_status", 0)),
        starts=int(raw.get("starts", 0)),
        lines=tuple(str(line) for line in raw.get("lines", ())[:LINES]),
    )


def main(arguments: Sequence[str]) -> int:
    """Record it, if the controller is really down for good."""
    manager = ["--user"] if "--user" in arguments else []
    state = _settled(manager)
    if state is not None and (state.get("ActiveState"), state.get("SubState")) != ("failed", "failed"):
        return 0  # since 254 systemd tells of each failure, also of those after which it tries again
    known = state or {"Result": os.environ.get("MONITOR_SERVICE_RESULT", "")}
    record = Fallback(
        when=time.time(),
        result=known.get("Result", ""),
        exec_code=_number(known.get("ExecMainCode", "")),
        exec_status=_number(known.get("ExecMainStatus", "")),
        starts=_number(known.get("NRestarts", "")),
        lines=_last_lines(manager),
    )
    # "<1>" is the priority alert (sd-daemon(3)).
    print(
        f"<1>sysresp: {record.summary()}; services go on without it: sysresp controller status", flush=True
    )
    _write(os.environ["STATE_DIRECTORY"].partition(":")[0], record)
    return 0


def _settled(manager: Sequence[str]) -> dict[str, str] | None:
    """Return the unit's properties when it is neither starting nor waiting for its restart; None: no answer.

    A second OnFailure= while this waits is merged into the first, so this looks until all is over.
    """
    end = time.monotonic() + _WAIT_SEC
    state = None
    while True:
        asked = _ask(["systemctl", *manager, "show", f"--property={','.join(_PROPERTIES)}", UNIT])
        state = dict(line.partition("=")[::2] for line in asked.splitlines()) or state
        over = state is not None and (
            state.get("ActiveState") in {"active", "inactive"} or state.get("SubState") == "failed"
        )
        if over or time.monotonic() >= end:
            return state
        time.sleep(_LOOK_SEC)


def _last_lines(manager: Sequence[str]) -> tuple[str, ...]:
    which = "--user-unit" if manager else "--unit"
    words = ["journalctl", f"{which}={UNIT}", f"--lines={LINES}", "--output=cat", "--no-pager", "--quiet"]
    return tuple(line[:2000] for line in _ask(words).splitlines()[-LINES:])


def _ask(words: Sequence[str]) -> str:
    try:
        done = subprocess.run(words, stdout=subprocess.PIPE, timeout=20, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode(errors="replace")


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0


def _write(state_dir: str, record: Fallback) -> None:
    """Put the record there at once and for good."""
    path = Path(state_dir, NAME)
    temporary = Path(f"{path}.{os.getpid()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o644)
    with os.fdopen(descriptor, "w") as file:
        json.dump(record._asdict(), file, indent=1)
        file.flush()
        os.fsync(descriptor)
    temporary.replace(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
