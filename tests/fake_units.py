"""The units of the fake service manager: what one is, and what is said of it over D-Bus.

Plain values and functions of them; the jobs and the loading are FakeManager's. The rule of tests/fakes.py
holds here, too: what systemd does not know of a unit, this does not invent.
"""

from __future__ import annotations

from collections.abc import Sequence
from posixpath import join

from sysresp.ports import Seen, UnitState
from tests.fake_files import FakeFiles

TYPES = (
    "service",
    "socket",
    "timer",
    "path",
    "slice",
    "target",
    "mount",
    "swap",
    "scope",
    "automount",
    "device",
)
BUILT_IN = (
    "-.slice",
    "system.slice",
    "basic.target",
    "sysinit.target",
    "multi-user.target",
    "shutdown.target",
)
UP = ("active", "activating", "reloading")


class FakeUnit:
    """One loaded unit."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.text = ""  # as it was loaded: stays until a reload
        self.path = ""
        self.load = "not-found"
        self.active = "inactive"
        self.sub = "dead"
        self.result = "success"
        self.invocation = ""
        self.restarts = 0
        self.runs = ""  # the text with which it was started or last told to reload
        self.job = (0, "")
        self.transient = False
        self.exec_code = 0  # how the main process ended
        self.exec_status = 0
        self.started = self.ended = self.changed = 0.0  # CLOCK_MONOTONIC, see `Seen`
        self.told = ("", "")  # ActiveState and SubState that were last announced
        self.extra: dict[str, object] = {}  # properties set by the test: "MainPID", "StatusText", ...

    def begin(self, invocation: str, now: float) -> None:
        """Begin a new run."""
        self.invocation, self.started = invocation, now
        self.result, self.exec_code, self.exec_status, self.ended = "success", 0, 0, 0.0

    def values(self, *keys: str) -> list[str]:
        """Return the words of these directives, whatever the section; an empty one resets."""
        found: list[str] = []
        for line in self.text.splitlines():
            key, equals, value = line.partition("=")
            if equals and key.strip() in keys:
                found = found + value.split() if value.strip() else []
        return found


def find(files: FakeFiles, search: Sequence[str], name: str) -> tuple[str, str, str]:
    """Return load state, path and text of a unit as they are on disk."""
    stem, at, rest = name.partition("@")
    for file in [name, f"{stem}@.{rest.rpartition('.')[2]}"] if at else [name]:
        for directory in search:
            path = join(directory, file)
            content = files.files.get(files.real(path))
            if files.real(path) == "/dev/null" or content == b"":
                return "masked", path, ""
            if content is not None:
                text = content.decode()
                return ("bad-setting" if is_bad(name, text) else "loaded"), path, text
    return ("loaded" if name in BUILT_IN or name.endswith(".slice") else "not-found"), "", ""


def needs(files: FakeFiles, search: Sequence[str], unit: FakeUnit, *keys: str) -> list[str]:
    """Return the names in these directives and in the unit's .wants and .requires directories."""
    names = unit.values(*keys)
    for directory in search:
        for key in keys:
            names += files.entries(f"{directory}/{unit.name}.{key.lower()}")
    return list(dict.fromkeys(names))


def seen(unit: FakeUnit, epoch: float) -> Seen:
    """Return what a signal says of it; `epoch` is the time of the monotonic clock's beginning."""
    if not unit.name.endswith(".service"):
        return Seen(
            unit.name,
            unit.active,
            unit.sub,
            unit.invocation,
            job=unit.job[0],
            changed=round(unit.changed, 6),
        )
    return Seen(
        unit.name,
        unit.active,
        unit.sub,
        unit.invocation,
        unit.result,
        unit.job[0],
        unit.restarts,
        main_pid(unit),
        *exec_end(unit),
        round(unit.started, 6),  # systemd counts microseconds
        round(unit.ended, 6),
        round(epoch + unit.ended, 6) if unit.ended else 0.0,
        round(unit.changed, 6),
    )


def main_pid(unit: FakeUnit) -> int:
    return 1000 if unit.sub == "running" else 0


def exec_end(unit: FakeUnit) -> tuple[int, int]:
    """Return ExecMainCode and ExecMainStatus; a test may have set nothing but the Result."""
    is_bare = unit.result == "exit-code" and not unit.exec_code
    return (1, 1) if is_bare else (unit.exec_code, unit.exec_status)


def row(unit: FakeUnit) -> UnitState:
    """Return what ListUnits says of it."""
    description = unit.name
    for line in unit.text.splitlines():
        if line.startswith("Description="):
            description = line.removeprefix("Description=")
    return UnitState(unit.name, description, unit.load, unit.active, unit.sub, *unit.job)


def properties(
    unit: FakeUnit, interface: str, *, on_disk: tuple[str, str, str], skipped: bool
) -> dict[str, object]:
    """Return the properties of one D-Bus interface; `on_disk` is load state, path and text of now."""
    kind = unit.name.rpartition(".")[2]
    known: dict[str, object] = {}
    if interface == "Unit":
        job, unknown = unit.job[0], not unit.invocation
        known = {
            "Id": unit.name,
            "LoadState": unit.load,
            "LoadError": ("", ""),
            "ActiveState": unit.active,
            "SubState": unit.sub,
            "FragmentPath": unit.path,
            "SourcePath": "",
            "Requires": unit.values("Requires"),
            "BindsTo": unit.values("BindsTo"),
            "DropInPaths": [],
            "NeedDaemonReload": not unit.transient and (unit.load, unit.path, unit.text) != on_disk,
            "InvocationID": unit.invocation,
            "Job": (job, f"/org/freedesktop/systemd1/job/{job}" if job else "/"),
            "CanReload": bool(unit.values("ExecReload")),
            "ConditionResult": not skipped and not unknown,
            "AssertResult": not unknown,
            "Transient": unit.transient,
            "UnitFileState": "transient" if unit.transient else "",
            "StateChangeTimestamp": 0,
            "StateChangeTimestampMonotonic": round(unit.changed * 1e6),
            "ActiveEnterTimestamp": 0,
            "InactiveEnterTimestamp": 0,
        }
    elif interface == "Service" and kind == "service":
        nothing = 2**64 - 1
        known = {
            "Type": (unit.values("Type") or ["simple"])[-1],
            "Restart": (unit.values("Restart") or ["no"])[-1],
            "Result": unit.result,
            "NRestarts": unit.restarts,
            "MainPID": main_pid(unit),
            "ExecMainPID": 1000 if unit.invocation else 0,
            "ExecMainCode": exec_end(unit)[0],
            "ExecMainStatus": exec_end(unit)[1],
            "ExecMainStartTimestampMonotonic": round(unit.started * 1e6),
            "ExecMainExitTimestampMonotonic": round(unit.ended * 1e6),
            "StatusText": "",
            "MemoryCurrent": nothing,
            "CPUUsageNSec": nothing,
            "TasksCurrent": nothing,
            "ControlGroup": "",
        }
    elif interface.lower() == kind:
        known = {"Result": unit.result}
    return known | unit.extra


def is_valid(name: str) -> bool:
    """Say whether systemd takes this as the name of a unit."""
    stem, _, kind = name.rpartition(".")
    allowed = all(c.isascii() and (c.isalnum() or c in ":-_.\\@") for c in stem)
    return bool(stem) and len(name) < 256 and kind in TYPES and allowed and not stem.startswith("@")


def is_bad(name: str, text: str) -> bool:
    """Say whether a service has nothing to run, which is refused (service_verify in systemd's service.c)."""
    runs = ("ExecStart=", "ExecStop=", "SuccessAction=")
    return name.endswith(".service") and not any(line.startswith(runs) for line in text.splitlines())


def sub_state(unit: FakeUnit, active: str) -> str:
    """Return the SubState that goes with an ActiveState."""
    kind = unit.name.rpartition(".")[2]
    if active != "active":
        return {"inactive": "dead", "activating": "start"}.get(active, active)
    if kind == "service":
        return "exited" if unit.values("Type")[-1:] == ["oneshot"] else "running"
    return {"socket": "listening", "timer": "waiting", "path": "waiting"}.get(kind, "active")


def words(value: object) -> str:
    """Return a D-Bus value as one string."""
    return " ".join(words(item) for item in value) if isinstance(value, list | tuple) else str(value)
