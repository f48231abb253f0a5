"""What `status` says about a service: its state in a word, the reason, and whether that is well.

Owns the reading of ActiveState, SubState, Result and of companions: socket, timer, path of a service. Pure:
facts in, rows out; no clock, no D-Bus, no terminal. Rule: the words are those of sysresp(1), STATES; they
are part of `--json` and only ever added to.

On the path of `sysresp status`: plain classes instead of dataclasses, which cost 10 ms to import.
"""

from __future__ import annotations

from sysresp.cli import words

TYPE_CHECKING = False  # typing itself costs 5 ms to import
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Facts = Mapping[str, object]  # D-Bus properties of one unit, by name

OK, BUSY, OFF, BAD = "ok", "busy", "off", "bad"
"""Levels of a state: as wanted; on the way; not running and nobody says it should; something is wrong."""

MEASURES = ("MainPID", "NRestarts", "MemoryCurrent", "CPUUsageNSec", "TasksCurrent")
VERDICT = ("Type", "Result", "ExecMainCode", "ExecMainStatus", "NRestarts")

_STARTING = {
    # SubState while ActiveState=activating (src/basic/unit-def.c)
    "condition": "its condition command runs",
    "start-pre": "pre-start commands run",
    "start": "",
    "start-post": "not ready yet",
    "auto-restart-queued": "",
}
_LOAD_PROBLEMS = {
    "bad-setting": "its unit file has a bad setting",
    "error": "its unit file cannot be loaded",
}


class Observed:
    """One unit of a project: what its manifest and the service manager say."""

    __slots__ = ("active", "facts", "instance", "job", "load", "main", "name", "service", "start", "sub")

    def __init__(  # noqa: PLR0917
        self,
        name: str,
        service: str,
        instance: str,
        start: bool,
        main: bool,
        load: str = "not-found",
        active: str = "inactive",
        sub: str = "dead",
        job: str = "",
        facts: Facts | None = None,
    ) -> None:
        self.name = name
        self.service = service
        self.instance = instance
        self.start = start  # apply starts it
        self.main = main
        self.load = load
        self.active = active
        self.sub = sub
        self.job = job  # type of the queued job, "" if there is none
        self.facts: Facts = facts or {}

    def number(self, name: str) -> int | None:
        """Return a numeric property; None if systemd has no value for it."""
        value = self.facts.get(name)
        return value if isinstance(value, int) and value != words.NOT_SET else None

    def text(self, name: str) -> str:
        """Return a property that is a string, "" if it is not there."""
        value = self.facts.get(name)
        return value if isinstance(value, str) else ""


class Row:
    """One line of the table, one object of `--json`."""

    __slots__ = (
        "count",
        "cpu",
        "drift",
        "generation",
        "healthy",
        "last_run",
        "level",
        "listen",
        "memory",
        "mode",
        "next_run",
        "next_start",
        "observed",
        "pid",
        "project",
        "reason",
        "restarts",
        "scope",
        "since",
        "state",
        "tasks",
        "wait",
        "waits_for",
        "well",
    )

    def __init__(self, project: str, observed: Observed) -> None:
        self.project = project
        self.observed = observed
        self.scope = ""
        self.mode = ""
        self.generation = 0  # of the project; 0: applied before there were any
        self.drift: tuple[str, ...] = ()  # kinds (reconcile.drift)
        self.state = ""
        self.reason = ""
        self.level = OK
        self.well = True
        self.count = ""  # "3/4" in a row that stands for several instances
        self.since: float | None = None  # seconds since the epoch
        self.pid = observed.number("MainPID") or None
        self.restarts = observed.number("NRestarts")
        self.memory = observed.number("MemoryCurrent")
        self.cpu = observed.number("CPUUsageNSec")
        self.tasks = observed.number("TasksCurrent")
        self.listen: tuple[str, ...] = ()
        self.next_run: float | None = None
        self.last_run: float | None = None
        # What the controller remembers (`remembered`)
        self.healthy: bool | None = None  # None: no probe, or no verdict yet
        self.wait = ""  # what it waits for (controller.events.Wait), "" if it does not
        self.next_start: float | None = None
        self.waits_for: tuple[str, ...] = ()  # units

    @property
    def name(self) -> str:
        """The name a person gives to select this row: "web" or "web@2"."""
        seen = self.observed
        return f"{seen.service}@{seen.instance}" if seen.instance and not self.count else seen.service

    def set(self, state: str, level: str, reason: str = "", *, well: bool | None = None) -> None:
        """Say the state; what is bad or off is not well unless said otherwise."""
        self.state = state
        self.level = level
        self.reason = reason
        self.well = level in {OK, BUSY} if well is None else well


def wanted_facts(seen: Observed) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return which properties of a unit its row needs, as (interface, names): each costs a call."""
    if seen.load in {"masked", "not-found", "bad-setting", "error"} and seen.active == "inactive":
        return ()
    kind = seen.name.rpartition(".")[2]
    if kind == "socket":
        return (("Socket", ("Listen",)),)
    if kind == "timer":
        names = ("NextElapseUSecRealtime", "NextElapseUSecMonotonic", "LastTriggerUSec")
        return (("Timer", names),) if seen.active == "active" else ()
    if kind != "service" or not seen.main:
        return ()
    if seen.active in {"active", "reloading", "deactivating"}:
        return (("Service", MEASURES), ("Unit", ("ActiveEnterTimestamp",)))
    if seen.active == "activating" and not seen.sub.endswith("auto-restart"):
        return (("Service", MEASURES), ("Unit", ("StateChangeTimestamp",)))
    if seen.active == "inactive":
        return (
            ("Service", VERDICT),
            ("Unit", ("StateChangeTimestamp", "ConditionResult", "ConditionTimestamp")),
        )
    return (("Service", VERDICT), ("Unit", ("StateChangeTimestamp",)))


def rows(project: str, units: Iterable[Observed], boot_time: float) -> list[Row]:
    """Return one row for each .service that a person means by a name, in the order of the manifest.

    `boot_time` is the epoch second at which the monotonic clock was 0: timers count from there.
    """
    mains: list[Observed] = []
    companions: dict[str, list[Observed]] = {}
    for seen in units:
        if not seen.service:
            continue
        if seen.main:
            mains.append(seen)
        else:
            companions.setdefault(seen.service, []).append(seen)
    return [_row(project, seen, companions.get(seen.service, ()), boot_time) for seen in mains]


def _row(project: str, seen: Observed, companions: Sequence[Observed], boot_time: float) -> Row:
    row = Row(project, seen)
    stamp = seen.number("ActiveEnterTimestamp") or seen.number("StateChangeTimestamp")
    row.since = stamp / 1e6 if stamp else None
    mine = [c for c in companions if c.instance in {"", seen.instance}]
    trigger = ""
    for unit in mine:
        kind = unit.name.rpartition(".")[2]
        if kind == "socket":
            row.listen += _addresses(unit.facts.get("Listen"))
        if kind == "timer":
            row.next_run, row.last_run = _times(unit, boot_time)
        if unit.active == "active" and kind in {"socket", "timer"}:
            trigger = kind
    _judge(row, seen, trigger)
    if row.level in {OK, BUSY}:
        for unit in mine:
            if unit.start and unit.active not in {"active", "activating"}:
                word = "missing" if unit.load == "not-found" else unit.active
                row.set(row.state, BAD, f"but {unit.name} is {word}")
                break
    return row


def _judge(row: Row, seen: Observed, trigger: str) -> None:
    """Say the state of the .service itself; `trigger` is the active unit that will start it."""
    verdict = words.ending(
        seen.text("Result"), seen.number("ExecMainCode") or 0, seen.number("ExecMainStatus") or 0
    )
    if seen.active == "active":
        if seen.load == "masked":
            row.set("running", BAD, "but masked: it will not be restarted")
        elif seen.sub == "exited":
            row.set("finished", OK)
        else:
            row.set(seen.sub, OK)
    elif seen.active == "activating" and "auto-restart" in seen.sub:
        row.set("waiting to restart", BAD, verdict)
    elif seen.active == "activating":
        row.set("starting", BUSY, _STARTING.get(seen.sub, seen.sub))
    elif seen.active == "deactivating":
        row.set("stopping", BUSY, well=not seen.start)
    elif seen.active == "failed":
        row.set("failed", BAD, verdict)
    elif seen.active != "inactive":
        row.set(seen.active, BUSY)  # reloading, maintenance, refreshing
    elif seen.load == "masked":
        row.set("masked", OFF)
    elif seen.load == "not-found":
        row.set("missing", BAD, "its unit file is gone")
    elif seen.load in _LOAD_PROBLEMS:
        row.set("broken", BAD, _LOAD_PROBLEMS[seen.load])
    elif seen.job in {"start", "restart"}:
        row.set("queued", BUSY, "waits for other units")
    elif trigger:
        row.set("listening" if trigger == "socket" else "waiting", OK)
        row.since = None  # of the last run, if that: nobody means it
    else:
        _judge_stopped(row, seen, verdict)


def _judge_stopped(row: Row, seen: Observed, verdict: str) -> None:
    """Say what an inactive service that nothing will start is."""
    has_run = seen.number("ExecMainCode") or 0
    if seen.facts.get("ConditionResult") is False and seen.number("ConditionTimestamp"):
        row.set("skipped", OFF, "a condition of its unit is not met", well=True)
    elif seen.text("Type") == "oneshot" and has_run and not verdict:
        row.set("finished", OK)
    elif has_run == words.EXITED and not verdict:
        row.set("stopped", OFF, "exit status 0", well=not seen.start)
    else:
        row.set("stopped", OFF, verdict, well=not seen.start)


def _addresses(value: object) -> tuple[str, ...]:
    """Return the addresses of a socket's Listen property, a list of (type, address)."""
    if not isinstance(value, (list, tuple)):
        return ()
    return tuple(str(pair[1]) for pair in value if isinstance(pair, (list, tuple)) and len(pair) == 2)


def _times(timer: Observed, boot_time: float) -> tuple[float | None, float | None]:
    """Return when the timer elapses next and when it did last, in epoch seconds."""
    ahead = []
    if realtime := timer.number("NextElapseUSecRealtime"):
        ahead.append(realtime / 1e6)
    if monotonic := timer.number("NextElapseUSecMonotonic"):
        ahead.append(boot_time + monotonic / 1e6)
    last = timer.number("LastTriggerUSec")
    return (min(ahead) if ahead else None), (last / 1e6 if last else None)


def fold(all_rows: Iterable[Row], keep: frozenset[str] = frozenset()) -> list[Row]:
    """Return the rows with the instances of a service made into one, but for names in `keep` ("web@1")."""
    out: list[Row] = []
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in all_rows:
        if not row.observed.instance or row.name in keep:
            out.append(row)
            continue
        group = groups.setdefault((row.project, row.observed.service), [])
        if not group:
            out.append(row)
        group.append(row)
    merged = {id(group[0]): _merge(group) for group in groups.values()}
    return [merged.get(id(row), row) for row in out]


def _merge(group: Sequence[Row]) -> Row:
    first = group[0]
    total = Row(first.project, first.observed)
    good = [row for row in group if row.state == first.state and row.well] if first.well else []
    good = good or [row for row in group if row.well]
    lead = good[0] if good else first
    bad = next((row for row in group if not row.well), None)
    same = [row for row in group if row.state == lead.state]
    total.count = f"{len(same)}/{len(group)}"
    reason = lead.reason
    if bad is not None and bad is not lead:
        reason = f"{bad.name} {bad.state}" + (f": {bad.reason}" if bad.reason else "")
    total.set(
        lead.state, BAD if any(r.level == BAD for r in group) else lead.level, reason, well=bad is None
    )
    total.drift = tuple(dict.fromkeys(kind for row in group for kind in row.drift))
    total.since = max((row.since for row in group if row.since is not None), default=None)
    total.pid = None
    total.restarts = _sum(row.restarts for row in group)
    total.memory = _sum(row.memory for row in group)
    total.cpu = _sum(row.cpu for row in group)
    total.tasks = _sum(row.tasks for row in group)
    total.listen = tuple(dict.fromkeys(address for row in group for address in row.listen))
    total.next_run = min((row.next_run for row in group if row.next_run is not None), default=None)
    total.last_run = max((row.last_run for row in group if row.last_run is not None), default=None)
    total.next_start = min((row.next_start for row in group if row.next_start is not None), default=None)
    return total


def _sum(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
