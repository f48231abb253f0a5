"""What `sysresp top` knows: the rows of `status`, kept up to date by looking only at what changed.

Owns the rows, what each service uses, and the last events. Never listens and never draws: it is told which
units to look at again. Rule: the words are those of `status` and `incidents`, made by the same functions.

Use is read from the control groups, which costs PID 1 nothing; that is the one thing that is looked at again
and again, and only for the rows in sight.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from math import inf

from sysresp.cli import hosts, incidents, remembered, rows, status, words
from sysresp.cli.incidents import Asked
from sysresp.cli.top_view import Event, Use
from sysresp.controller.events import Exit, Fate, Note, UnitMemory
from sysresp.controller.reader import Reader
from sysresp.controller.tables import LedgerTrouble, Told
from sysresp.model import Mode
from sysresp.ports import Question
from sysresp.reconcile.manifest import Manifest, ManifestUnit
from sysresp.reconcile.names import select

EVENTS = 60
_CGROUPS = "/sys/fs/cgroup"
_BAD_NOTES = frozenset(("blocked", "unhealthy", "gap", "limit"))
_UP = frozenset(("active", "activating", "reloading", "deactivating"))


class Picture:
    """All services that are meant, as they are."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._host = hosts.host(asked.scope, Mode.PERSISTENT)
        self._mine: dict[str, tuple[Manifest, tuple[ManifestUnit, ...]]] = {}  # unit -> those of its service
        self._rows: dict[str, rows.Row] = {}  # in the order of the manifests
        self._view: incidents.View | None = None
        self._reader: Reader | None = None
        self._path = ""  # of the ledger
        self._identity: tuple[int, int] | None = None
        self._is_unread = True
        self._known: Mapping[str, UnitMemory] = {}
        self._groups: dict[str, str] = {}  # unit -> ControlGroup
        self._used: dict[str, tuple[float, int]] = {}  # unit -> when, CPU microseconds until then
        self._retries: Mapping[str, float] = {}  # unit -> when systemd starts it again
        self._noticed: deque[Event] = deque(maxlen=EVENTS)
        self._events: Sequence[Event] = ()
        self.use: dict[str, Use] = {}

    @property
    def units(self) -> Iterable[str]:
        """All units to listen to."""
        return self._mine.keys()

    @property
    def services(self) -> Sequence[rows.Row]:
        """One row for each service or instance, in the order of the files."""
        return tuple(self._rows.values())

    @property
    def events(self) -> Sequence[Event]:
        """The last events of the ledger; without one, what was noticed."""
        return self._events or tuple(self._noticed)

    def load(self) -> None:
        """Find out which services there are, and look at all of them."""
        self._view = incidents.View(self._asked)
        owned = hosts.manifests(self._asked.scope, self._asked.project)
        owned = [
            one for one in owned if self._asked.names or hosts.can_mean(one.project, self._asked.project)
        ]
        self._mine = {}
        mains: list[str] = []
        for manifest, chosen in select(owned, self._asked.names):
            of_service: dict[str, list[ManifestUnit]] = {}
            for unit in manifest.units:
                of_service.setdefault(unit.service, []).append(unit)
            for unit in chosen:
                if not unit.service:
                    continue
                # Companions of one instance say nothing of the others
                near = {unit.instance, ""}
                family = [
                    one for one in of_service[unit.service] if one.instance in near or not unit.instance
                ]
                self._mine[unit.name] = manifest, tuple(family)
                if unit.main:
                    mains.append(unit.name)
        self._rows = {unit: self._rows[unit] for unit in mains if unit in self._rows}
        self._is_unread = True
        self._read_ledger()
        self.look(mains)
        self._rows = {unit: self._rows[unit] for unit in mains if unit in self._rows}

    def look(self, units: Iterable[str]) -> None:
        """Look at these units, and at what belongs to their services."""
        wanted: dict[str, tuple[Manifest, dict[str, ManifestUnit]]] = {}
        for unit in units:
            if found := self._mine.get(unit):
                manifest, family = found
                _, some = wanted.setdefault(f"{manifest.project} {manifest.mode}", (manifest, {}))
                some.update((one.name, one) for one in family)
        clock = self._host.clock
        now = remembered.Now(clock.now(), clock.monotonic())
        for manifest, some in wanted.values():
            found_rows = status.look(manifest, some.values(), self._host.manager, now.epoch(0.0))
            remembered.remember(found_rows, self._known, now)
            for row in found_rows:
                if row.observed.name in self._mine:
                    self._notice(row, now.when)
                    self._rows[row.observed.name] = row
            self._find_groups(found_rows)
        self._count_down()

    def _notice(self, row: rows.Row, now: float) -> None:
        """Remember a change of state, for hosts on which nobody keeps a ledger."""
        old = self._rows.get(row.observed.name)
        if old is None or (old.state, old.pid) == (row.state, row.pid):
            return
        what = row.state if old.state != row.state else "running again, as another process"
        what += f": {row.reason}" if row.reason else ""
        self._noticed.append(Event(_clock(now), row.name, what, "", row.level == rows.BAD))

    def _find_groups(self, found: Iterable[rows.Row]) -> None:
        up = [row.observed.name for row in found if row.observed.active in _UP]
        new = [unit for unit in up if not self._groups.get(unit)]
        questions = [Question(unit, "Service", ("ControlGroup",)) for unit in new]
        for unit, facts in zip(new, self._host.manager.many_properties(questions), strict=True):
            self._groups[unit] = str(facts.get("ControlGroup") or "")

    def measure(self, shown: Iterable[rows.Row]) -> None:
        """Read what these use; of the others the figures are dropped, since they grow old."""
        read = self._host.files.read
        now = self._host.clock.monotonic()
        used, use = {}, {}
        for row in shown:
            unit = row.observed.name
            group = self._groups.get(unit, "") if row.observed.active in _UP else ""
            if not group:
                continue
            place = f"{_CGROUPS}{group}"
            stat, memory = None, None
            with suppress(OSError, ValueError):
                stat, memory = read(f"{place}/cpu.stat"), read(f"{place}/memory.current")
            cpu = int(stat.split(b"usage_usec ")[1].split()[0]) if stat and b"usage_usec " in stat else -1
            before = self._used.get(unit)
            percent = None
            if cpu >= 0:
                used[unit] = now, cpu
                if before and now > before[0] and cpu >= before[1]:
                    percent = (cpu - before[1]) / (now - before[0]) / 1e4
            use[unit] = Use(percent, int(memory) if memory and memory.strip().isdigit() else None)
        self._used, self.use = used, use

    def remember(self) -> None:
        """The ledger may have changed: look at the units of which it says something else, and at its end."""
        known = self._known
        if self._read_ledger():
            units = known.keys() | self._known.keys()
            self.look([unit for unit in units if known.get(unit) != self._known.get(unit)])

    def _read_ledger(self) -> bool:
        """Read what is remembered and the last events; False if nothing has changed."""
        try:
            reader = self._opened()
            if reader is None:
                self._known, self._events, self._retries = {}, (), {}
                return True
            if not reader.has_changed() and not self._is_unread:
                return False
            self._is_unread = False
            is_alive = os.path.lexists(f"{self._path}-wal")  # else no controller is at work
            self._known = reader.remarkable() if is_alive else {}
            told, _ = reader.events(self._view.units if self._view else (), limit=EVENTS)
        except LedgerTrouble:
            self.close()
            return False  # it is being made, or may not be read by us
        self._events = [_event(one, self._label(one.what.unit)) for one in told]
        self._retries = {
            one.what.unit: one.what.retry_at
            for one in told
            if isinstance(one.what, Exit) and one.what.fate is Fate.RETRY
        }
        return True

    def _opened(self) -> Reader | None:
        """Return the ledger, which stays open: whoever opens and closes it makes inotify tell of that."""
        path = self._view.path() if self._view else ""
        try:
            found = os.stat(path, follow_symlinks=False) if path else None  # noqa: PTH116 - a link is no ledger
        except OSError:
            found = None
        identity = (found.st_dev, found.st_ino) if found else None
        if identity != self._identity:
            self.close()
            self._identity = identity
        if self._reader is None and identity is not None:
            self._path, self._reader, self._is_unread = path, Reader(path), True
        return self._reader

    def close(self) -> None:
        """Close the ledger."""
        reader, self._reader, self._identity = self._reader, None, None
        if reader is not None:
            reader.close()

    def _label(self, unit: str) -> str:
        """Return how a person calls the unit; with its project only where several are shown."""
        if self._view is None:
            return unit
        name = self._view.name(unit)
        several = len({manifest.project for manifest, _ in self._mine.values()}) > 1
        return str(name) if name.service and not several else self._view.label(unit)

    def _count_down(self) -> None:
        """Say when systemd starts what waits for that: the controller wrote it beside the exit."""
        for unit, row in self._rows.items():
            if row.next_start is None and row.observed.sub.startswith("auto-restart"):
                row.next_start = self._retries.get(unit) or None


def _event(told: Told, who: str) -> Event:
    """Return the line of an exit or a note; times are absolute, because it is not made anew."""
    what = told.what
    if isinstance(what, Note):
        text = f"{what.kind}: {what.text}" if what.text else what.kind
        return Event(_clock(told.at), who, text, "", what.kind in _BAD_NOTES)
    text = incidents.exit_words(what) + (
        f" after {words.span(what.uptime_sec)}" if what.uptime_sec >= 1 else ""
    )
    return Event(_clock(told.at), who, text, incidents.fate_words(what, inf), what.fate is not Fate.FINISHED)


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))


def trouble_of(error: Exception) -> str:
    """Return what went wrong, for a line of its own."""
    return str(error).splitlines()[0] if str(error) else words.plural(1, type(error).__name__)
