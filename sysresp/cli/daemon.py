"""`sysresp controller run`: the daemon, put together.

Owns what the controller is made of and what it looks at of itself: manifests, code, unit, memory. It is the
only command that imports the controller's loop. Rule: the process lives for months and every import is paid
for in memory all that time: no typer, no Jinja, no tomllib, no ssl.
"""

# ruff: noqa: PLC0415 - what is imported depends on what was done before
# ruff: noqa: PTH116, PTH123 - pathlib is another half megabyte
from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from posixpath import dirname
from typing import Any

import sysresp
from sysresp.cli import boundary
from sysresp.cli.listening import Listening
from sysresp.controller.events import Member, Roster
from sysresp.errors import SysrespError
from sysresp.ports import Manager, UnitProblem
from sysresp.reconcile import layout
from sysresp.reconcile.disk import digest_of
from sysresp.reconcile.manifest import Manifest
from sysresp.reconcile.manifest import load as load_manifest
from sysresp.systemd.files import RealFiles
from sysresp.units import alerting
from sysresp.units.supervision import Settings, loads, loads_settings

CODE = dirname(sysresp.__file__)
UPGRADE = "/run/sysresp/upgrade"
"""There while our package is being upgraded: preinst of the .deb, and %pre of the .rpm, make it."""

_UPGRADE_SEC = 900.0
_CALL_SEC = "5s"  # sd-bus waits 25 s by default, and all the daemon waits with it


def run(scope: str, heard: Listening) -> int:
    """Be the controller until SIGTERM; return the exit status."""
    return boundary.guarded(lambda: _run(scope, heard))


def _run(scope: str, heard: Listening) -> int:
    os.environ.setdefault("SYSTEMD_BUS_TIMEOUT", _CALL_SEC)
    code = fingerprint(CODE)  # before the rest is imported: what changes after this is newer than we are
    from sysresp.controller.lean import import_asyncio

    import_asyncio()
    import asyncio

    return asyncio.run(_serve(scope, code, heard))


async def _serve(scope: str, code: str, heard: Listening) -> int:
    import asyncio

    from sysresp.controller.deliver import Post
    from sysresp.controller.ledger import FILE, Ledger, LedgerNewer, LedgerTrouble
    from sysresp.controller.loop import Loop, Ports
    from sysresp.controller.probes import Probes
    from sysresp.controller.respawn import Vitals
    from sysresp.controller.serve import REQUEST, SELF, Daemon, Own
    from sysresp.systemd.clock import RealClock
    from sysresp.systemd.inotify import DirectoryWatch
    from sysresp.systemd.manager import SystemManager
    from sysresp.systemd.notify import SystemNotify
    from sysresp.systemd.records import SystemRecords

    # What is here is here for good, and no garbage: the collector, off since the start, need not look at it.
    gc.freeze()
    gc.enable()
    signals, descriptor, since = heard
    user = scope == "user"
    manager, clock, changes, notify = SystemManager(user=user), RealClock(), DirectoryWatch(), SystemNotify()
    ledger = Ledger(f"{_state_directory(scope)}/{FILE}")
    trouble = ""
    try:
        stored = ledger.open()
    except LedgerNewer:
        raise
    except LedgerTrouble as error:
        stored, trouble = error.stored, error.why
    ports = Ports(
        manager=manager,
        signals=signals,
        records=SystemRecords(user=user),
        ledger=ledger,
        clock=clock,
        notify=notify,
        load_roster=rosters(scope, log, SELF),
        boot=boot_id(),
        log=log,
    )
    unit = _OwnUnit(manager, SELF)
    own = Own(
        state_dirs=layout.state_dirs(scope, os.environ),
        code_dirs=tuple(where for where, _ in _code(CODE)),
        unit_files=unit.files,
        code=lambda: fingerprint(CODE),
        unit=unit.fingerprint,
        rss=rss,
        blind_since=unit.left_active,
        is_service=lambda: bool(os.environ.get("INVOCATION_ID")) and unit.main_pid() == os.getpid(),
        watchdog_sec=notify.watchdog_sec,
        is_held=is_being_upgraded,
    )
    loop = Loop(ports, stored, descriptor=descriptor, since=since)
    if trouble:
        log(3, f"{trouble}; going on without it")
    loop.owed.facts |= {"version": sysresp.__version__, "pid": str(os.getpid()), "code": code}
    loop.owed.meta |= loop.owed.facts
    vitals = Vitals(clock.monotonic(), os.urandom(1)[0] / 256, code, unit.fingerprint())
    daemon = Daemon(loop, changes, own, vitals)
    probes = Probes(asyncio.get_running_loop(), daemon.health_turned)
    queued = ledger.alarm.queued if ledger.alarm else ()
    post = Post(
        asyncio.get_running_loop(),
        lambda: loop.memory.roster.alerts,
        clock.now,
        daemon.message_tried,
        queued,
    )
    loop.post = post
    _take_fallback(loop, _state_directory(scope))
    status = await daemon.run(probes, stored.meta.get(REQUEST, ""), post.begin)
    probes.close()
    post.close()
    if daemon.failure is not None:
        _record(ledger, daemon.failure, [repr(event)[:2000] for event in loop.last])
    ledger.close()
    return status


def _take_fallback(loop: Any, state_dir: str) -> None:
    """Take the record of a time in which no controller could run into the ledger, and away."""
    from sysresp.controller.events import Note
    from sysresp.controller.fallback import read_fallback, take_fallback

    found = read_fallback(state_dir)
    if found is not None:
        text = "\n".join([found.summary(), *found.lines])
        loop.owed.notes.append(Note("fallback", text=text, when=found.when, key=str(found.when)))
        if loop.flush():
            take_fallback(state_dir)


def _record(ledger: Any, failure: BaseException, events: list[str]) -> None:
    """Write down what ended us, to the journal in any case."""
    import traceback

    text = "".join(traceback.format_exception(failure))
    log(2, f"a bug ends the controller, systemd starts it again: {text}")
    try:
        ledger.record_error(text, events, os.environ)
    except Exception as error:
        log(3, f"cannot record that: {error}")


def _state_directory(scope: str) -> str:
    """Return where the ledger is: where systemd says, or where the package has it."""
    where = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    return where or layout.controller_dirs(scope, os.environ)[0]


class _OwnUnit:
    """What systemd knows of the unit that we run in; nothing, if it does not answer."""

    def __init__(self, manager: Manager, name: str) -> None:
        self._manager = manager
        self._name = name
        self._files: tuple[str, ...] = ()

    def _get(self, interface: str, *names: str) -> dict[str, Any]:
        try:
            return dict(self._manager.properties(self._name, interface, names))
        except (SysrespError, UnitProblem):
            return {}

    def main_pid(self) -> int:
        return int(self._get("Service", "MainPID").get("MainPID", 0))

    def left_active(self) -> float:
        """Return when the process before this one ended, or was told to; 0 if systemd knows of none."""
        return (
            float(self._get("Unit", "ActiveExitTimestampMonotonic").get("ActiveExitTimestampMonotonic", 0))
            / 1e6
        )

    def files(self) -> tuple[str, ...]:
        """Return the unit file and its drop-ins, as of the last `fingerprint`."""
        return self._files

    def fingerprint(self) -> str:
        """Return a digest of the unit as systemd has it, "" while it has not read what is on the disk."""
        found = self._get("Unit", "FragmentPath", "DropInPaths", "NeedDaemonReload")
        if not found or found.get("NeedDaemonReload"):
            return ""
        self._files = tuple(filter(None, (found.get("FragmentPath"), *found.get("DropInPaths", ()))))
        return hash_of(repr([(path, _content(path)) for path in self._files]))


def _content(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def _code(top: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each directory of the code and its modules."""
    for directory, names, files in os.walk(top):
        names[:] = sorted(name for name in names if name != "__pycache__")
        if modules := sorted(file for file in files if file.endswith(".py")):
            yield directory, modules


def fingerprint(top: str) -> str:
    """Return what tells this code from another: path, size and time of every module."""
    facts = []
    for directory, names in _code(top):
        for name in names:
            with suppress(OSError):  # an upgrade has just taken it away
                stat = os.stat(f"{directory}/{name}")
                facts.append((directory, name, stat.st_size, stat.st_mtime_ns))
    return f"{sysresp.__version__}-{hash_of(repr(facts))}"


def is_being_upgraded(mark: str = UPGRADE) -> bool:
    """Say whether our package is being upgraded; one that takes so long has been given up."""
    try:
        return abs(time.time() - os.stat(mark).st_mtime) < _UPGRADE_SEC
    except OSError:
        return False


def hash_of(text: str) -> str:
    """Return a short digest."""
    return digest_of(text.encode(errors="surrogateescape"))[:16]


def rosters(scope: str, log: Callable[[int, str], None], own_unit: str) -> Callable[[], Roster]:
    """Return what reads the manifests; one that is damaged counts as it was when it last could be read."""
    files = RealFiles()
    last: dict[str, Roster] = {}

    def part(path: str) -> Roster | None:
        try:
            manifest = load_manifest(files, path)
            return None if manifest is None else of_project(manifest, own_unit)
        except (SysrespError, OSError, ValueError, TypeError) as error:
            log(3, f"cannot read what was applied, going on with what was known: {error}")
            return last.get(path, Roster(is_whole=False))

    def load() -> Roster:
        paths = []
        for where in layout.state_dirs(scope, os.environ):
            try:
                paths += [f"{where}/{name}" for name in files.listdir(where) if name.endswith(".json")]
            except OSError as error:
                log(3, f"cannot read what was applied, going on with what was known: {error}")
                paths += [path for path in last if dirname(path) == where]
        parts = {path: found for path in paths if (found := part(path)) is not None}
        last.clear()
        last.update(parts)
        return together(parts.values(), own_unit)

    return load


def together(parts: Iterable[Roster], own_unit: str) -> Roster:
    """Return everything that these projects want to be looked after, and the controller itself."""
    members = {own_unit: Member(own_unit, project="sysresp", service="controller")}
    settings, receivers, is_whole = Settings(), dict[str, alerting.Receiver](), True
    for one in parts:
        members |= one.members
        settings = strictest(settings, one.settings)
        receivers |= one.alerts
        is_whole &= one.is_whole
    return Roster(members, settings, receivers, is_whole)


def of_project(one: Manifest, own_unit: str) -> Roster:
    """Return what one project wants; TypeError or ValueError if the manifest makes no sense."""
    members = {}
    for unit in one.units:
        # The fallback and the exporter, which come and go by themselves, are no services.
        is_ours = one.project in {"sysresp", "sysresp-metrics"} and unit.name != own_unit
        if unit.main and unit.name.endswith(".service") and not is_ours:
            care = loads(dict((one.supervision or {}).get(unit.name, {})))
            members[unit.name] = Member(
                unit.name, one.project, unit.service, unit.instance, one.generation, care
            )
    settings = loads_settings(dict(one.controller)) if one.controller else Settings()
    receivers = {f"{one.project}/{name}": alerting.loads(alert) for name, alert in one.alerts.items()}
    return Roster(members, settings, receivers)


def strictest(one: Settings, other: Settings) -> Settings:
    """Return the smaller of each setting that is set: projects share one controller."""
    return Settings._make(
        b if a == usual else a if b == usual else min(a, b)
        for a, b, usual in zip(one, other, Settings(), strict=True)
    )


def rss() -> int:
    """Return how much memory this process has (proc(5), statm), in bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def boot_id() -> str:
    """Return which boot this is (random(4)); a soft reboot is none (systemd-soft-reboot.service(8))."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip().replace("-", "")


def log(level: int, text: str) -> None:
    """Say it to the journal (sd-daemon(3)); if journald has gone, to nobody: the caller goes on."""
    lines = f"<{level}>{text}\n".encode(errors="backslashreplace")
    with suppress(OSError):
        os.write(sys.stderr.fileno(), lines)
