"""What there is to say of the controller itself: `sysresp controller status`.

Owns the gathering of it (systemd's view of the unit, the files of the controller, what it lacks) and its
text. Everything in the controller's StateDirectory was written by an account with few rights: it is read
with that account's own (`controller.reader`, `controller.fallback`), and shown, never believed. Rule:
whatever cannot be read is left out, since this is asked most when something is broken.
"""

from __future__ import annotations

import grp
import os
import pwd
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import sysresp
from sysresp import __version__
from sysresp.cli import table
from sysresp.cli.words import size, span
from sysresp.controller import own
from sysresp.controller.events import Note
from sysresp.controller.fallback import read_fallback
from sysresp.controller.reader import Reader
from sysresp.controller.tables import FILE, LedgerTrouble
from sysresp.model import Scope
from sysresp.ports import Host, Manager
from sysresp.reconcile import layout

_UNIT = ("LoadState", "ActiveState", "SubState", "UnitFileState", "FragmentPath", "InvocationID")
_SERVICE = (
    *("MainPID", "User", "SupplementaryGroups", "NRestarts", "Result", "StatusText"),
    *("ExecMainStartTimestamp", "ExecMainStartTimestampMonotonic", "MemoryCurrent", "CPUUsageNSec"),
)
_NOTES = 200  # of the newest: among them the last gap and the last self-restart


def unit(manager: Manager) -> dict[str, Any]:
    """Return what systemd says of the controller's unit."""
    of_unit = manager.properties(own.UNIT, "Unit", _UNIT)
    loaded = of_unit.get("LoadState") == "loaded"
    of_service = manager.properties(own.UNIT, "Service", _SERVICE) if loaded else {}

    def number(name: str) -> int:
        value = of_service.get(name)
        return value if isinstance(value, int) and value < 1 << 63 else 0

    groups = of_service.get("SupplementaryGroups")
    return {
        "unit": own.UNIT,
        "load": str(of_unit.get("LoadState", "")),
        "active": str(of_unit.get("ActiveState", "")),
        "sub": str(of_unit.get("SubState", "")),
        "enabled": str(of_unit.get("UnitFileState", "")) == "enabled",
        "fragment": str(of_unit.get("FragmentPath", "")),
        "pid": number("MainPID"),
        "since": number("ExecMainStartTimestamp") / 1e6,
        "memory": number("MemoryCurrent"),
        "cpu_sec": number("CPUUsageNSec") / 1e9,
        "account": str(of_service.get("User", "")),
        "groups": [str(name) for name in groups] if isinstance(groups, list) else [],
        "restarts": number("NRestarts"),
        "result": str(of_service.get("Result", "")),
        "says": str(of_service.get("StatusText", "")),
    }


def gather(host: Host, scope: Scope, env: Mapping[str, str]) -> dict[str, Any]:
    """Return everything, as `--json` prints it."""
    found = unit(host.manager)
    if scope is Scope.USER:
        found["mode"] = "user"
    else:
        found["mode"] = (
            "unprivileged" if found["account"] not in {"", "root"} else "root without capabilities"
        )
    found["version"] = __version__  # of what is installed
    found["is_code_newer"] = bool(found["pid"]) and _code_changed() > found["since"]
    directory = next((one for one in layout.controller_dirs(scope, env) if Path(one).is_dir()), "")
    found["ledger"] = _ledger(directory) if directory else None
    fallback = read_fallback(directory) if directory else None
    found["fallback"] = None if fallback is None else {**fallback._asdict(), "summary": fallback.summary()}
    found["lacks"] = list(_lacks(found, scope))
    return found


def last_note(directory: str, kind: str) -> dict[str, Any] | None:
    """Return the newest note of this kind about the controller itself."""
    with suppress(LedgerTrouble), Reader(f"{directory}/{FILE}") as reader:
        told, _ = reader.events(("",), limit=_NOTES)
        for one in reversed(told):
            if isinstance(one.what, Note) and one.what.kind == kind:
                return {"when": one.at, "text": one.what.text}
    return None


def _ledger(directory: str) -> dict[str, Any]:
    names = (FILE, f"{FILE}-wal", f"{FILE}-shm")
    sizes = []
    for name in names:
        with suppress(OSError):
            sizes.append(Path(directory, name).lstat().st_size)
    return {
        "path": f"{directory}/{FILE}",
        "bytes": sum(sizes),
        "last_gap": last_note(directory, "gap"),
        "last_self_restart": last_note(directory, "self-restart"),
    }


def _lacks(found: Mapping[str, Any], scope: Scope) -> Sequence[str]:
    """Return what the controller cannot do here, each with how that is mended."""
    from sysresp.cli import own_units  # noqa: PLC0415 - a scrape asks for the unit alone

    out = []
    if found["load"] != "loaded":
        return []
    if not found["enabled"]:
        out.append("it is not started at boot")
    if found["mode"] == "unprivileged":
        if lacks := own_units.account_lacks():
            out.append(f"it cannot restart anything, because {lacks}")
        if "systemd-journal" not in found["groups"] and not _in_journal_group(found["account"]):
            out.append("it cannot read the journal: what happens while it is away is only counted")
    if scope is Scope.USER and not Path("/var/lib/systemd/linger", _me()).exists():
        out.append("it ends with your last session: loginctl enable-linger")
    return out


def _in_journal_group(account: str) -> bool:
    with suppress(KeyError):
        return account in grp.getgrnam("systemd-journal").gr_mem
    return False


def _me() -> str:
    with suppress(KeyError):
        return pwd.getpwuid(os.getuid()).pw_name
    return str(os.getuid())


def _code_changed() -> float:
    """Return when the newest file of the installed code was put there, in seconds since the epoch."""
    times = [0.0]
    for path in Path(sysresp.__file__).parent.rglob("*.py"):
        with suppress(OSError):
            times.append(path.stat().st_ctime)
    return max(times)


def lines(found: Mapping[str, Any], *, enable: str, restart: str) -> list[str]:
    """Return the report as lines of text; the commands are for the hints."""
    now = time.time()
    if found["load"] != "loaded":
        return [f"there is no controller here: {enable}"]
    state = found["active"] if found["active"] != "active" else "running"
    head = f"{found['unit']}: {state}"
    if found["pid"]:
        head += f" as PID {found['pid']}, for {span(now - found['since'])}"
    elif found["result"] not in {"", "success"}:
        head += f" ({found['result']})"
    rows = [("runs", _mode(found)), ("unit", found["fragment"])]
    if found["memory"]:
        rows.append(("memory", size(found["memory"])))
    newer = ", newer than what runs" if found["is_code_newer"] else ""
    rows.append(("code", f"sysresp {found['version']}{newer}"))
    if found["says"]:
        rows.append(("says", found["says"]))
    ledger = found["ledger"]
    if ledger:
        rows.append(("ledger", f"{ledger['path']}, {size(ledger['bytes'])}"))
        for title, name in (("blind", "last_gap"), ("restart", "last_self_restart")):
            if note := ledger[name]:
                rows.append((title, f"{span(now - note['when'])} ago: {note['text']}"))
    rows += [("lacks", text) for text in found["lacks"]]
    out = [head, *(f"  {title:<8} {table.clean(str(text))}" for title, text in rows)]
    if fallback := found["fallback"]:
        out.append(f"  gave up  {span(now - fallback['when'])} ago: {table.clean(fallback['summary'])}")
        out += [f"           {table.clean(line)}" for line in fallback["lines"][-10:]]
        out.append(f"           when it is mended: {restart}")
    return out


def _mode(found: Mapping[str, Any]) -> str:
    if found["mode"] == "unprivileged":
        return f"as {found['account']}"
    return "in your own service manager" if found["mode"] == "user" else "as root, without capabilities"
