"""The last words of a unit, from the journal: `ports.Journal`.

Owns one call of journalctl(1), which knows rotation, corrupt files, namespaces and access rights better than
a reader of our own, and is always there. Never follows, never writes, never raises: what a unit said is an
addition to an error message, and its absence must not hide the error.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from sysresp.ports import Line

_LIMIT_SEC = 5  # a journal on a slow disk is not worth a longer wait
_CORE_DUMP = "fc2e22bc6ee647b6b90729ab34a250b1"  # SD_MESSAGE_COREDUMP of sd-messages.h
_LONGEST = 2000  # characters of one message
_RUNS = ("INVOCATION_ID", "USER_INVOCATION_ID", "_SYSTEMD_INVOCATION_ID")  # about which, then from which
_KINDS = {  # MESSAGE_ID, systemd's sd-messages.h
    "7d4958e842da4a758f6c1cdc7b36dcc5": "starting",
    "39f53479d3a045ac8e11786248231fbf": "started",
}


class RealJournal:
    """The journal of the system, or of the caller's own units."""

    def __init__(self, *, user: bool = False) -> None:
        self._user = user

    def tail(self, unit: str, lines: int, invocation_id: str = "") -> list[str]:
        if lines <= 0:
            return []
        if os.geteuid() == 0:  # what was printed a moment ago may still be on its way; 10 ms
            _journalctl(["--sync"])
        if invocation_id and (found := self._of_run(unit, lines, invocation_id)):
            return found
        return [text for text, _ in self._read(lines, ["--user-unit" if self._user else "--unit", unit])]

    def core_dumps(self, unit: str, since: float, until: float = 0.0) -> list[int]:
        import json  # noqa: PLC0415 - as below

        name = "COREDUMP_USER_UNIT" if self._user else "COREDUMP_UNIT"
        times = [f"--since=@{since:.6f}", *([f"--until=@{until:.6f}"] if until else [])]
        options = ["--quiet", "--no-pager", "--output=json", "--output-fields=COREDUMP_PID", *times]
        found = []
        for line in _journalctl([*options, f"MESSAGE_ID={_CORE_DUMP}", f"{name}={unit}"]).splitlines():
            try:
                found.append(int(json.loads(line)["COREDUMP_PID"]))
            except (ValueError, TypeError, KeyError):
                continue
        return found

    def scan(self, units: Sequence[str], since: float, most: int) -> tuple[list[Line], bool]:
        if not units or most <= 0:
            return [], True
        import json  # noqa: PLC0415 - as in `_read`

        wanted = frozenset(units)
        about, own = ("USER_UNIT", "_SYSTEMD_USER_UNIT") if self._user else ("UNIT", "_SYSTEMD_UNIT")
        fields = ",".join(("MESSAGE", "MESSAGE_ID", about, own, *_RUNS))
        options = ["--quiet", "--no-pager", "--output=json", f"--output-fields={fields}"]
        options += [f"--lines={most + 1}", f"--since=@{since:.0f}"]
        match = [f"{own}={unit}" for unit in units]
        match += ["+", f"_UID={os.getuid()}" if self._user else "_PID=1", *(f"{about}={u}" for u in units)]
        said, is_whole = _printed([*options, *match])
        found = []
        for line in said.splitlines():
            try:
                entry = json.loads(line)
                at = int(entry["__REALTIME_TIMESTAMP"]) / 1e6
            except (ValueError, KeyError, TypeError):
                continue
            # Any process may write a UNIT= into its own message; the manager's are of none of these units.
            is_own = (unit := str(entry.get(own))) in wanted
            unit = unit if is_own else str(entry.get(about))
            if unit in wanted and (text := _message(entry.get("MESSAGE"))):
                run = next((str(entry[name]) for name in _RUNS if name in entry), "")
                kind = "" if is_own else _KINDS.get(str(entry.get("MESSAGE_ID")), "said")
                found.append(Line(unit, run, at, text, kind))
        return found[-most:], is_whole and len(found) <= most

    def _of_run(self, unit: str, lines: int, run: str) -> list[str]:
        """Return what one run printed, and what its manager said about that run.

        What a process printed just before it ended may come to journald after it has gone: then journald
        knows the unit, by the stream, but not the run. It is of this run if it stands after its beginning.
        """
        found = self._read(4 * lines, _match(unit, run, user=self._user))
        own = [number for number, (_, of) in enumerate(found) if of == run]
        return [text for text, of in found[own[0] :] if of in ("", run)][-lines:] if own else []

    def _read(self, lines: int, match: list[str]) -> list[tuple[str, str]]:
        """Return the last messages, and the run that each is about or from, "" if it names none."""
        import json  # noqa: PLC0415 - only a failure, or `logs`, pays for it

        found = []
        fields = f"--output-fields=MESSAGE,{','.join(_RUNS)}"
        options = ["--quiet", "--no-pager", "--output=json", fields, f"--lines={lines}"]
        for line in _journalctl([*options, *match]).splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and (text := _message(entry.get("MESSAGE"))):
                found.append((text, next((str(entry[name]) for name in _RUNS if name in entry), "")))
        return found


def _match(unit: str, run: str, *, user: bool) -> list[str]:
    """Match what one run printed, what its manager said about it, and all else of the unit's processes.

    See systemd.journal-fields(7). What the manager said is told by the sender's identity: any process may
    put an INVOCATION_ID= into its own messages.
    """
    said = [f"_UID={os.getuid()}", f"USER_INVOCATION_ID={run}", f"USER_UNIT={unit}"]
    loose = [f"_UID={os.getuid()}", f"_SYSTEMD_USER_UNIT={unit}"]
    if not user:
        said = ["_PID=1", f"INVOCATION_ID={run}", f"UNIT={unit}"]
        loose = [f"_SYSTEMD_UNIT={unit}"]
    return [f"_SYSTEMD_INVOCATION_ID={run}", "+", *said, "+", *loose]


def _journalctl(arguments: list[str]) -> bytes:
    """Run journalctl and return what it printed, b"" if it cannot be run or takes too long."""
    said, is_whole = _printed(arguments)
    return said if is_whole else b""


def _printed(arguments: list[str]) -> tuple[bytes, bool]:
    """Run journalctl, and return what it printed in the time that it has, and whether that is all."""
    import subprocess  # noqa: PLC0415 - only a failure, or `logs`, pays for it

    try:
        done = subprocess.run(
            ["journalctl", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_LIMIT_SEC,
            check=False,
            cwd="/",  # the caller's own may be gone
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )
    except subprocess.TimeoutExpired as late:
        return late.stdout or b"", False
    except (OSError, subprocess.SubprocessError, ValueError):
        return b"", False
    return done.stdout, True


def _message(value: Any) -> str:
    """Return a message as text without control characters: it goes to a terminal.

    journalctl gives a message that is not UTF-8, or has control characters, as a list of bytes, one that is
    too long as null, and a field that occurs twice as a list of both.
    """
    if isinstance(value, list) and all(isinstance(byte, int) and 0 <= byte < 256 for byte in value):
        value = bytes(value).decode(errors="replace")
    elif isinstance(value, list):
        return " ".join(filter(None, map(_message, value)))
    if not isinstance(value, str):
        return ""
    text = "".join(char if char.isprintable() or char == "\t" else "\ufffd" for char in value.rstrip())
    return text if len(text) <= _LONGEST else text[:_LONGEST] + " ..."
