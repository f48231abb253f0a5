"""The daemon around the loop: descriptors, timers, signals, and its own end.

Owns asyncio, the watchdog, and how the controller begins and ends: it says READY=1 only after it has looked
at everything, and it replaces itself by asking PID 1 to restart its unit, after the request is in the
ledger. It decides nothing about units. One timer for the policy, one for the watchdog, and descriptors: an
idle controller sleeps.
The rule: a callback either succeeds, or loses the connection (which is opened again, with growing pauses),
or has found a bug: then the process records it and ends, since PID 1 starts it afresh and its memory is
stored.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable
from posixpath import dirname
from typing import NamedTuple

from sysresp.controller import remarks, respawn
from sysresp.controller.events import Health, Note
from sysresp.controller.incident_rows import Verdict
from sysresp.controller.loop import Loop, Prober
from sysresp.errors import SysrespError
from sysresp.ports import UnitProblem, Watch

SELF = "sysresp.service"
"""The controller's own unit, whoever installed it."""

REQUEST = "self-restart"
"""Key of the ledger's meta table: the restart that was asked for and has no successor yet."""

_ATTEMPT_SEC = 120.0  # that one look at everything may take
_AWAY_SEC = (0.2, 0.5, 1.0, 2.0, 5.0)  # pauses while systemd does not answer; the last one goes on
_LEDGER_SEC = 5.0  # between tries to write what is owed
_REFUSED_SEC = 60.0  # until it asks again to be restarted
_TICK_SEC = 20.0  # between looks at itself without a watchdog; with one, a third of it
_PRUNE_SEC = 3600.0
_PRUNE_ROWS = 10_000  # rows and notes after which the ledger is looked at before that
_PRUNE_SOON_SEC = 0.1  # while there is more to take away: 5,000 rows a second, in 5 % of the time


class Own(NamedTuple):
    """How the daemon looks at itself; every function is cheap and never raises."""

    state_dirs: tuple[str, ...]  # where manifests are
    code_dirs: tuple[str, ...]
    unit_files: Callable[[], tuple[str, ...]]  # of its own unit
    code: Callable[[], str]  # fingerprint of what is on the disk now
    unit: Callable[[], str]  # ... of its unit as systemd has loaded it; "" if systemd has not read it yet
    rss: Callable[[], int]
    blind_since: Callable[[], float]  # when its predecessor ended, CLOCK_MONOTONIC; 0: unknown
    is_service: Callable[[], bool]  # it runs as SELF; asked when that matters: systemd may be away before
    watchdog_sec: float  # 0: none
    is_held: Callable[[], bool] = lambda: (
        False
    )  # a package manager is at work, and restarts us when it is done


class Daemon:
    """The controller as a process."""

    def __init__(self, loop: Loop, changes: Watch, own: Own, vitals: respawn.Vitals) -> None:
        self.loop = loop
        self.changes = changes
        self.own = own
        self.vitals = vitals
        self.failure: BaseException | None = None
        self._io = asyncio.get_running_loop()
        self._end: asyncio.Future[int] = self._io.create_future()
        self._descriptor = -1
        self._away = 0  # tries to connect in a row
        self._again: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._quiet: asyncio.TimerHandle | None = None
        self._age: asyncio.TimerHandle | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._is_unit_old = False  # a file of its unit has changed and systemd has not read it yet
        self._is_blind = False  # no change of a file is told
        self._has_asked = False
        self._tick_sec = own.watchdog_sec / 3 or _TICK_SEC
        self._pruned = -_PRUNE_SEC
        self._pruning: asyncio.TimerHandle | None = None
        self._prober: Prober | None = None
        self._remarked = -remarks.PROBES_SEC  # when the probes were told of last

    async def run(self, probes: Prober, previous: str, begin: Callable[[], None] = lambda: None) -> int:
        """Serve until the end, and return the exit status; `previous` is the request of the predecessor.

        `begin` is called once everything has been looked at: from then on messages can be delivered.
        """
        self._io.set_exception_handler(self._bug)
        for number in (signal.SIGTERM, signal.SIGINT):
            self._io.add_signal_handler(number, self._stop)
        for path in (*self.own.state_dirs, *self.own.code_dirs, *self._unit_dirs()):
            self._watch(path)
        try:
            if await self._begin(previous):
                self._guarded(lambda: self._begun(probes, begin))
            return await self._end
        finally:
            self.loop.flush()

    def _begun(self, probes: Prober, begin: Callable[[], None]) -> None:
        """Go to work: everything has been looked at."""
        self.loop.ports.notify.ready(self.loop.summary())
        self.loop.probe_all(probes)
        self._prober = probes
        begin()
        if not self.vitals.unit:  # systemd did not answer before
            self.vitals = self.vitals._replace(unit=self.own.unit())
            for path in self._unit_dirs():
                self._watch(path)
        if not self._is_blind:
            # Not before: what a change leads to may lose the connection, and two would make it anew.
            self._io.add_reader(self.changes.fileno(), self._guarded, self._on_changes)
        self._settle()  # what changed before it was watched, and after this process had been read
        self._arm_age()
        self._tick()

    def _unit_dirs(self) -> list[str]:
        return sorted({dirname(path) for path in self.own.unit_files()})

    async def _begin(self, previous: str) -> bool:
        """Connect and look at everything; False if it was stopped before that."""
        since = self.own.blind_since() if self.loop.cursor or self.loop.memory.units else 0.0
        while not self._end.done():
            # To wait for a bus that is away, or a busy PID 1, is no failure to start.
            self.loop.ports.notify.extend(_ATTEMPT_SEC)
            try:
                self._connected(self.loop.connect("start", since))
            except (SysrespError, UnitProblem) as error:
                self._say_away(error)
                pause = _AWAY_SEC[min(self._away, len(_AWAY_SEC)) - 1]
                await asyncio.wait({self._end}, timeout=pause)
            except Exception as error:
                self._failed(error)
            else:
                self._confirm(previous)
                return True
        return False

    def _confirm(self, previous: str) -> None:
        """Say that the restart which the predecessor asked for has come about."""
        if not previous:
            return
        try:
            why = json.loads(previous)["why"]
        except (ValueError, TypeError, LookupError, RecursionError):  # a disk may have changed it
            why = "nobody knows why"
        gap = self.loop.blind_sec
        text = f"restarted itself: {why}" + (f"; nobody listened for {gap:.3f}s" if gap else "")
        self.loop.owed.notes.append(Note("self-restart", text=text))
        self.loop.owed.meta[REQUEST] = ""
        self.loop.flush()

    def health_turned(self, event: Health) -> None:
        """Take in the verdict of a probe."""
        self._guarded(lambda: self.loop.health_turned(event))

    def message_tried(self, verdict: Verdict) -> None:
        """Take in what became of a message."""
        self._guarded(lambda: self.loop.verdict(verdict))

    # Descriptors

    def _connected(self, descriptor: int) -> None:
        self._away = 0
        self._descriptor = descriptor
        self._io.add_reader(descriptor, self._guarded, self._on_signals)
        self._io.call_soon(self._guarded, self._on_signals)

    def _on_signals(self) -> None:
        if self.loop.is_connected and not self.loop.signals_came():
            self._lost()

    def _watch(self, path: str) -> None:
        try:
            self.changes.add(path)
        except OSError as error:
            self._go_blind(error)

    def _go_blind(self, error: OSError) -> None:
        """Look at all files with each tick from now on: the kernel tells of no change any more."""
        if not self._is_blind:
            self.loop.ports.log(4, f"cannot watch files, looking every {self._tick_sec:g}s: {error}")
        self._is_blind = True
        if self.changes.fileno() >= 0:
            self._io.remove_reader(self.changes.fileno())

    def _on_changes(self) -> None:
        try:
            paths = self.changes.changed()
        except OSError as error:  # a directory came back, and can be watched no more
            self._go_blind(error)
            return self._look_at_files()
        return self._changed(paths)

    def _look_at_files(self) -> None:
        self._changed({*self.own.state_dirs, *self.own.code_dirs, *self.own.unit_files()})

    def _changed(self, paths: set[str]) -> None:
        places = paths | {dirname(path) for path in paths if path.endswith((".json", ".py"))}
        files = self.own.unit_files()
        is_unit = not paths.isdisjoint({*files, *(dirname(path) for path in files)})
        self._is_unit_old |= is_unit
        if is_unit or not places.isdisjoint(self.own.code_dirs):
            self._settle()
        if not places.isdisjoint(self.own.state_dirs):  # at last: systemd is asked, and may not answer
            try:
                self.loop.roster_changed()
            finally:
                self._arm_age()

    def _lost(self) -> None:
        if self._descriptor >= 0:
            self._io.remove_reader(self._descriptor)
            self._descriptor = -1
        if self._again is None:  # two would put the second descriptor where epoll has the first
            pause = _AWAY_SEC[min(self._away, len(_AWAY_SEC) - 1)]
            self._again = self._io.call_later(pause, self._guarded, self._reconnect)

    def _reconnect(self) -> None:
        self._again = None
        self._connected(self.loop.connect("disconnected"))

    def _say_away(self, error: Exception) -> None:
        if not self._away:
            self.loop.ports.log(4, f"systemd cannot be reached, trying again: {error}")
        self._away += 1

    # Timers

    def _arm(self) -> None:
        """Set the timer for what the policy wants to be woken for."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self.loop.wake_at()
        if due and self.loop.is_connected:
            left = max(0.0, due - self.loop.ports.clock.monotonic())
            self._timer = self._io.call_later(left, self._guarded, self._on_time)
        if self.loop.owed.trouble and self._retry is None:
            self._retry = self._io.call_later(_LEDGER_SEC, self._guarded, self._write_again)

    def _on_time(self) -> None:
        """Do what is due, unless what has come meanwhile says otherwise."""
        self._on_signals()
        if self.loop.is_connected:
            self.loop.woken()

    def _write_again(self) -> None:
        self._retry = None
        self.loop.flush()

    def _tick(self) -> None:
        """Tell PID 1 that the loop turns, and look at ourselves."""
        if self.own.watchdog_sec:
            self.loop.ports.notify.alive()
        self._io.call_later(self._tick_sec, self._guarded, self._tick)
        now = self.loop.ports.clock.monotonic()
        self._remark(now)
        if self.loop.memory.roster.settings.max_memory:
            self.vitals = self.vitals._replace(rss=self.own.rss())
            self._consider()
        if self._is_blind:
            self._look_at_files()
        if self._is_unit_old and self._quiet is None:
            self._look_at_self()
        if self.loop.is_connected:
            self.loop.move_cursor()
        is_time = now - self._pruned >= _PRUNE_SEC or self.loop.owed.written >= _PRUNE_ROWS
        if is_time and self._pruning is None:
            self._pruned, self.loop.owed.written = now, 0
            self._prune()

    def _prune(self) -> None:
        self._pruning = None
        keep = self.loop.memory.roster.settings
        if self.loop.owed.prune(keep.keep_sec, keep.keep_bytes, self.loop.ports.clock.now()):
            self._pruning = self._io.call_later(_PRUNE_SOON_SEC, self._guarded, self._prune)

    def _remark(self, now: float) -> None:
        """Leave word of ourselves for the next transaction; of probes there may be none for long."""
        clock, meta = self.loop.ports.clock, self.loop.owed.meta
        meta[remarks.VITALS] = remarks.vitals(clock.now())
        if self._prober is None or now - self._remarked < remarks.PROBES_SEC:
            return
        if told := remarks.probes(self._prober.latest(), clock.now() - self._io.time()):
            meta[remarks.PROBES] = told
            self._remarked = now
            self.loop.flush()

    def _arm_age(self) -> None:
        if self._age is not None:
            self._age.cancel()
            self._age = None
        if due := respawn.due(self.vitals, self.loop.memory.roster.settings):
            left = max(0.0, due - self.loop.ports.clock.monotonic())
            self._age = self._io.call_later(left, self._guarded, self._aged)

    def _aged(self) -> None:
        self._age = None
        self._consider()
        if not self._has_asked:  # a timer may be a moment early
            self._arm_age()

    def _settle(self) -> None:
        """Wait until whoever writes there has finished."""
        if self._quiet is not None:
            self._quiet.cancel()
        self._quiet = self._io.call_later(respawn.QUIET_SEC, self._guarded, self._look_at_self)

    def _look_at_self(self) -> None:
        self._quiet = None
        if self.own.is_held():
            self._settle()
            return
        unit = self.own.unit() if self._is_unit_old else ""
        if unit:
            self._is_unit_old = False
        self.vitals = self.vitals._replace(code_now=self.own.code(), unit_now=unit)
        self._consider()

    # The end

    def _consider(self) -> None:
        """Ask PID 1 for a successor if there is a reason, once."""
        why = respawn.reason(
            self.vitals, self.loop.memory.roster.settings, self.loop.ports.clock.monotonic()
        )
        if not why or self._has_asked:
            return
        if not self.own.is_service():
            self.loop.ports.log(5, f"{why}, but it does not run as {SELF}: start it again yourself")
            self._has_asked = True
            return
        request = {"why": why, "when": self.loop.ports.clock.now()}
        self.loop.owed.meta[REQUEST] = json.dumps(request)
        self.loop.flush()  # before the call: SIGTERM may come before its answer
        self._has_asked = True
        self.loop.ports.log(5, f"{why}: restarting through systemd")
        try:
            # Else a few in a row would be too many for its start limit, which is there for failures.
            self.loop.ports.manager.reset_failed(SELF)
            self.loop.ports.manager.restart(SELF)
        except (UnitProblem, SysrespError) as error:
            self.loop.ports.log(3, f"cannot restart itself, going on: {error}")
            self.loop.owed.notes.append(Note("refused", text=f"cannot restart itself: {error}"))
            self.loop.owed.meta[REQUEST] = ""  # whoever comes next is no successor by it
            self.loop.flush()
            self._io.call_later(_REFUSED_SEC, self._ask_again)

    def _ask_again(self) -> None:
        self._has_asked = False
        self._guarded(self._consider)

    def _stop(self) -> None:
        """Take in what has come, store it, and end."""
        self.loop.ports.notify.stopping()
        if self.loop.is_connected:
            self._guarded(self._on_signals)
        if not self._end.done():
            self._end.set_result(0)

    def _guarded(self, callback: Callable[[], None]) -> None:
        """Call; systemd that is away is waited out, whatever else goes wrong is a bug."""
        try:
            callback()
        except (SysrespError, UnitProblem) as error:
            self._say_away(error)
            self.loop.disconnected()
            self._lost()
        except Exception as error:
            self._failed(error)
            return
        self._arm()

    def _bug(self, _loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        error = context.get("exception")
        self._failed(error if isinstance(error, BaseException) else RuntimeError(str(context["message"])))

    def _failed(self, error: BaseException) -> None:
        self.failure = self.failure or error
        if not self._end.done():
            self._end.set_result(1)
