"""The service manager over D-Bus: `ports.Manager` for PID 1 and for the user's own systemd.

Owns the calls, the waiting for jobs and the words for a refused job. Decides nothing about services, and
never reads or writes a file. The rule: a signal only says "look again". Signals are lost (systemd issue
5328), can be sent by any local user, and stop when D-Bus is restarted; so every wait is short, the sender is
compared with the owner of systemd's name, and the job queue itself has the last word.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from sysresp.ports import JobRemoved, Question, UnitProblem, UnitState
from sysresp.systemd.bus import (
    DBUS,
    DBUS_PATH,
    MANAGER,
    PROPERTIES,
    SYSTEMD,
    Bus,
    CallError,
    Disconnected,
    Interrupted,
    unreachable,
)
from sysresp.systemd.wire import unit_path

_INTERFACE = "org.freedesktop.systemd1."
_JOB_REMOVED = (
    "type='signal',sender='org.freedesktop.systemd1',path='/org/freedesktop/systemd1',"
    "interface='org.freedesktop.systemd1.Manager',member='JobRemoved'"
)
_LOOK_SEC = 1.0  # no wait is longer than this without a look at the queue itself
_LOOK_SOON_SEC = 0.02  # for jobs that nobody announces; doubles up to _LOOK_SEC
_RELOAD_SEC = 180  # as DAEMON_RELOAD_TIMEOUT_SEC in systemctl: generators may take their time
_PAUSE_MS = 50
_RETRIES = 5  # for calls cut short by a signal handler or by a restart of the bus
_MOST_UNREAD = 1_000  # messages that others have sent: more are let go with the connection
_MANY = 16  # questions from which on a connection of their own pays

T = TypeVar("T")


class SystemManager:
    """A systemd manager; connects at the first call."""

    def __init__(self, *, user: bool = False, private: bool | None = None) -> None:
        self._user = user
        self._bus = Bus(user=user, private=user if private is None else private)
        if private is None:
            self._bus.fall_back = True
        self._watching = False
        self._owner = ""  # unique bus name of the manager: signals of others are forged
        self._own: set[int] = set()  # jobs that we queued: their ends are announced
        self._gone: set[int] = set()  # jobs whose end was already told

    def close(self) -> None:
        """Close the connection; the next call opens it again."""
        self._bus.close()
        self._watching = False

    def rest(self) -> None:
        # A private connection is sent all signals, and what is not read piles up in PID 1; on the bus any
        # user may write to us, and sd-bus keeps for ever what nobody takes (80,000 signals: 106 MB).
        self._own.clear()
        self._gone.clear()
        if self._bus.private or not self._bus.is_drained(_MOST_UNREAD):
            self.close()

    def version(self) -> int:
        self._bus.open()
        digits = self._bus.version.lstrip("v")
        length = 0
        while digits[length : length + 1].isdigit():
            length += 1
        return int(digits[:length] or 0)

    def units(self, patterns: Sequence[str]) -> list[UnitState]:
        return self._rows("ListUnitsByPatterns", "asas", [], list(patterns)) if patterns else []

    def units_by_name(self, names: Sequence[str]) -> list[UnitState]:
        return self._rows("ListUnitsByNames", "as", list(names)) if names else []

    def properties(self, unit: str, interface: str, names: Sequence[str]) -> dict[str, object]:
        path, full = unit_path(unit), _INTERFACE + interface
        found: dict[str, object] = {}
        for name in names:
            try:
                value = self._read(PROPERTIES, "Get", "ss", full, name, path=path)
            except CallError as error:
                if error.code in ("UnknownProperty", "UnknownInterface"):
                    continue
                raise _problem(unit, error) from None
            found[name] = _hex(value) if name == "InvocationID" else value
        return found

    def many_properties(self, questions: Sequence[Question]) -> list[dict[str, object]]:
        asked = [(unit_path(q.unit), _INTERFACE + q.interface, name) for q in questions for name in q.names]
        answers = self._ask(asked) if len(asked) >= _MANY else None
        if answers is None:
            return [self.properties(*question) for question in questions]
        from sysresp.systemd.gets import MISSING  # noqa: PLC0415 - 3 ms that only many questions pay

        rest = iter(answers)
        return [
            {
                name: _hex(value) if name == "InvocationID" else value
                for name in question.names
                if (value := next(rest)) is not MISSING
            }
            for question in questions
        ]

    def _ask(self, asked: Sequence[tuple[str, str, str]]) -> list[object] | None:
        """Return the values of these (object path, interface, property), None if that cannot be done.

        On a connection of its own, since no signal must be lost. For root it is one without the broker, if
        that leads to the same manager for certain: it lives too short for the signals to pile up.
        """
        from sysresp.systemd import gets  # noqa: PLC0415 - see above

        private = os.geteuid() == 0 and "DBUS_SYSTEM_BUS_ADDRESS" not in os.environ
        bus = Bus(user=self._user, private=self._bus.private or private)
        try:
            bus.open()
            return gets.ask(bus.fd(), asked)
        except Exception:  # whatever is wrong: `properties`, one by one, has the words for it
            return None
        finally:
            bus.close()

    def reload(self) -> None:
        # A connection of its own: sd-bus knows one timeout for each, and 25 s are too few for a reload.
        self._bus.open()  # decides which way in

        def reload() -> None:
            bus = Bus(user=self._user, private=self._bus.private, timeout_sec=_RELOAD_SEC)
            try:
                bus.call(MANAGER, "Reload")
            finally:
                bus.close()

        try:
            _again(reload)
        except CallError as error:
            raise _problem("daemon-reload", error) from None

    def watch_jobs(self) -> None:
        if self._watching:
            return
        if not self._bus.private:  # a private connection gets every signal unasked
            self._read(DBUS.decode(), "AddMatch", "s", _JOB_REMOVED, path=DBUS_PATH, destination=DBUS)
            self._owner = self._find_owner()
        # Not Manager.Subscribe: PID 1 announces the end of a job to the bus while the client that queued it
        # is there (bus_foreach_bus in src/core/dbus.c), and with a subscriber it announces every change of
        # every unit, which nearly doubled the time of starting 200 (0.53 s and 0.99 s, systemd 252).
        self._watching = True

    def start(self, unit: str) -> int:
        return self._job("StartUnit", unit)

    def stop(self, unit: str) -> int:
        return self._job("StopUnit", unit)

    def restart(self, unit: str) -> int:
        return self._job("RestartUnit", unit)

    def reload_unit(self, unit: str) -> int:
        return self._job("ReloadUnit", unit)

    def try_restart(self, unit: str) -> int:
        return self._job("TryRestartUnit", unit)

    def kill(self, unit: str, signal: int) -> None:
        try:
            self._bus.call(MANAGER, "KillUnit", "ssi", unit, "all", signal)
        except CallError as error:
            raise _problem(unit, error) from None
        except (Disconnected, Interrupted):
            self.close()
            raise UnitProblem(
                unit, "Interrupted", "the call was cut short, so its effect is unknown"
            ) from None

    def start_transient(self, unit: str, properties: Sequence[tuple[str, str, object]]) -> int:
        pairs = [(name, (signature, value)) for name, signature, value in properties]
        return self._job("StartTransientUnit", unit, "ssa(sv)a(sa(sv))", "fail", pairs, [])

    def reset_failed(self, unit: str) -> None:
        try:
            self._read(MANAGER, "ResetFailedUnit", "s", unit)
        except CallError as error:
            if error.code != "NoSuchUnit":
                raise _problem(unit, error) from None

    def pending_jobs(self) -> dict[int, str]:
        return {int(row[0]): str(row[1]) for row in self._list("ListJobs")}

    def wait(
        self, jobs: Iterable[int], timeout_sec: float, on_removed: Callable[[JobRemoved], None]
    ) -> set[int]:
        pending = set(jobs) - self._gone
        deadline = time.monotonic() + timeout_sec
        soon = _LOOK_SEC if pending <= self._own else _LOOK_SOON_SEC
        look_at = 0.0 if not self._watching else time.monotonic() + soon
        while pending:
            try:
                self.watch_jobs()
                self._drain(pending, on_removed)
                now = time.monotonic()
                if pending and (now >= look_at or now >= deadline):
                    self._look(pending, on_removed)
                    soon = _LOOK_SEC if pending <= self._own else min(2 * soon, _LOOK_SEC)
                    look_at = time.monotonic() + soon
                if not pending or now >= deadline:
                    break
                poll = select.poll()
                poll.register(self._bus.fd(), select.POLLIN)
                poll.poll(max(0.0, min(deadline, look_at) - time.monotonic()) * 1000)
            except Disconnected:
                self._reconnect(deadline)
                look_at = 0.0
            except Interrupted:
                continue
        return pending

    def _drain(self, pending: set[int], on_removed: Callable[[JobRemoved], None]) -> None:
        """Take in all that has come, also what came during other calls (for that the fd is not readable)."""
        while (signal := self._bus.next_signal()) is not None:
            sender, _member, body = signal
            if sender != self._owner and (self._bus.private or not self._is_new_owner(sender)):
                continue
            removed = _removed(body)
            if removed is None or removed.job_id in self._gone:
                continue
            self._gone.add(removed.job_id)
            pending.discard(removed.job_id)
            if removed.job_id in self._own:  # a private connection hears of all, the bus of none but ours
                on_removed(removed)
        if self._bus.fd() < 0:
            raise Disconnected("the connection was closed")

    def _look(self, pending: set[int], on_removed: Callable[[JobRemoved], None]) -> None:
        """Ask for the queue: a job that is neither there nor announced by a signal has ended unheard."""
        queue = self.pending_jobs()
        self._drain(pending, on_removed)  # a signal sent before the answer has arrived before it
        lost = {job for job in pending if job not in queue}
        self._gone |= lost
        pending -= lost
        if lost and not self._bus.private:
            owner = self._find_owner()
            if owner != self._owner:  # PID 1 came back on the bus under a new name
                self._watching = False
                self.watch_jobs()

    def _is_new_owner(self, sender: str) -> bool:
        owner = self._find_owner()
        changed = owner != self._owner
        self._owner = owner
        return changed and sender == owner

    def _find_owner(self) -> str:
        name = SYSTEMD.decode()
        owner = self._read(DBUS.decode(), "GetNameOwner", "s", name, path=DBUS_PATH, destination=DBUS)
        return str(owner)

    def _reconnect(self, deadline: float) -> None:
        self.close()
        self._own.clear()  # a new manager counts its jobs from 1 again, and knows nothing of us
        self._gone.clear()
        while True:
            try:
                self._bus.open()
            except Exception:  # the bus may need a moment to come back; the last refusal is told
                if time.monotonic() >= deadline:
                    raise
                select.poll().poll(200)
            else:
                return

    def _job(self, method: str, unit: str, signature: str = "ss", *values: object) -> int:
        try:
            if values:  # not idempotent
                path = self._bus.call(MANAGER, method, signature, unit, *values)
            else:  # idempotent while the job is queued: systemd merges the second into the first
                path = self._read(MANAGER, method, signature, unit, "replace")
        except (CallError, ValueError) as error:
            raise _problem(unit, error) from None
        except (Disconnected, Interrupted):
            self.close()
            raise UnitProblem(
                unit, "Interrupted", "the call was cut short, so its effect is unknown"
            ) from None
        number = int(str(path).rpartition("/")[2])
        self._own.add(number)
        return number

    def _rows(self, method: str, signature: str, *values: object) -> list[UnitState]:
        rows = self._list(method, signature, *values)
        return [UnitState(row[0], row[1], row[2], row[3], row[4], row[7], row[8]) for row in rows]

    def _list(self, method: str, signature: str = "", *values: object) -> list[Any]:
        try:
            rows = self._read(MANAGER, method, signature, *values)
        except (CallError, ValueError) as error:
            raise _problem(method, error) from None
        return rows if isinstance(rows, list) else []

    def _read(self, *args: Any, **kwargs: Any) -> object:
        """Call something that may be called twice."""

        def call() -> object:
            try:
                return self._bus.call(*args, **kwargs)
            except Disconnected:
                self.close()
                raise

        return _again(call)


def _again(call: Callable[[], T]) -> T:
    """Call; again if a signal handler or a restart of the bus came between.

    For Ctrl-C this is the clean point: pystemd reports EINTR, and the KeyboardInterrupt is raised here.
    """
    for _ in range(_RETRIES):
        try:
            return call()
        except (Disconnected, Interrupted):
            select.poll().poll(_PAUSE_MS)
    try:
        return call()
    except (Disconnected, Interrupted) as error:
        raise unreachable(f"the connection to systemd is lost again and again: {error}") from None


def _problem(unit: str, error: CallError | ValueError) -> UnitProblem:
    if isinstance(error, CallError):
        return UnitProblem(unit, error.code, error.message)
    return UnitProblem(unit, "InvalidArgs", str(error))


def _removed(body: object) -> JobRemoved | None:
    match body:
        case [int(job_id), str(), str(unit), str(result)]:
            return JobRemoved(job_id, unit, result)
        case _:
            return None


def _hex(value: object) -> str:
    """Write an InvocationID as the journal and $INVOCATION_ID do; "" if the unit never ran."""
    return bytes(value).hex() if isinstance(value, list) else ""
