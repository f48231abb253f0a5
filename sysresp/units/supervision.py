"""How one unit is to be kept alive: its Restart= policy and what only the controller can do about it.

Owns the values that travel from services.toml through the manifest to the controller, the curve of the
restart delays, and the reading of systemd.service(5)'s table of which exits Restart= follows. Pure, and
cheap to import: plain tuples, because the controller and `sysresp status` pay for every import. Rule: a
field is stored only where it differs from its default, and an unknown field is left aside, so that
manifests stay small and an older controller can read a newer one's.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any, NamedTuple


class Probe(NamedTuple):
    """A health probe: `health` of services.toml, for one unit, `{instance}` filled in."""

    by: str = "tcp"  # http | tcp | unix | exec
    target: str = ""  # URL, HOST:PORT or path; "" for exec
    argv: tuple[str, ...] = ()  # for exec
    interval_sec: float = 10.0  # from the begin of one probe to that of the next, if it has ended by then
    timeout_sec: float = 2.0  # of one probe
    failures: int = 3  # so many in a row make the service unhealthy
    successes: int = 1  # ... healthy again
    grace_sec: float = 30.0  # failures do not count so long after a start; ends at the first success
    action: str = "restart"  # restart | stop | none: what follows when it turns unhealthy
    restarts: int = 5  # probe-driven restarts within `within_sec`; one more would be: it is left as it is
    within_sec: float = 3600.0


class Supervision(NamedTuple):
    """What happens when the unit ends."""

    when: str = "on-failure"  # Restart=
    delay_sec: float = 1.0  # this unit's own share of the jitter is in it
    max_delay_sec: float = 0.0  # 0: the delay does not grow
    steps: int = 5
    is_native: bool = True  # systemd itself lets the delay grow (254); else the controller shortens the wait
    attempts: int = 0  # StartLimitBurst=; 0: systemd never gives up
    within_sec: float = 600.0  # StartLimitIntervalSec=
    success_exit: tuple[str, ...] = ()
    prevent_exit: tuple[str, ...] = ()
    force_exit: tuple[str, ...] = ()
    cooldown_sec: float = 0.0  # after systemd gave up, or `failures` were exceeded: start again; 0: never
    cooldowns: int = 0  # so many in a row, then it is given up; 0: for ever
    reset_after_sec: float = 0.0  # after a run of this length everything is counted anew; 0: never
    failures: int = 0  # more failures than this in `per_sec`, by the ledger, and the unit is stopped; 0: any
    per_sec: float = 3600.0
    probe: Probe | None = None
    alerts: tuple[str, ...] = ()  # names of [alerts] of the same file: who is told of its incidents
    rest_sec: float = 0.0  # RestartSec= where that is longer than `delay_sec`: the controller ends the wait


DEFAULT = Supervision()


class Settings(NamedTuple):
    """`[controller]` of services.toml."""

    starts_per_second: float = 5.0  # that the controller itself asks for, over all units
    max_age_sec: float = 0.0  # it restarts itself through systemd after so long; 0: never
    max_memory: int = 0  # ... above so many bytes (RSS); 0: never
    keep_sec: float = 90 * 86400.0  # exits older than this leave the ledger
    keep_bytes: int = 256 << 20  # a ledger larger than this loses its oldest rows
    flaps: int = 5  # so many failures within `flaps_sec` are an incident, whatever follows each of them
    flaps_sec: float = 600.0


def dumps(supervision: Supervision) -> dict[str, Any]:
    """Return the fields that differ from the default, as values of JSON."""
    fields = differing(supervision, DEFAULT)
    if supervision.probe is not None:
        fields["probe"] = differing(supervision.probe, Probe())
    return fields


def loads(fields: dict[str, Any]) -> Supervision:
    """Return the supervision of which `dumps` made this; TypeError or ValueError if it is none."""
    known = known_fields(fields, DEFAULT)
    if (probe := fields.get("probe")) is not None:
        known["probe"] = Probe(**known_fields(probe, Probe()))
    return Supervision(**known)


def dumps_settings(settings: Settings) -> dict[str, Any]:
    """Return the fields that differ from the default."""
    return differing(settings, Settings())


def loads_settings(fields: dict[str, Any]) -> Settings:
    """Return the settings of which `dumps_settings` made this; TypeError or ValueError if they are none."""
    return Settings(**known_fields(fields, Settings()))


def differing(value: Any, default: Any) -> dict[str, Any]:
    """Return the fields that differ from the default, as values of JSON; `probe` is the caller's."""
    return {
        name: list(have) if isinstance(have, tuple) else have  # as it is read back: JSON knows no tuples
        for name, have, usual in zip(value._fields, value, default, strict=True)
        if have != usual and name != "probe"
    }


def known_fields(fields: Any, default: Any) -> dict[str, Any]:
    """Return the fields that this version knows, each of the type of its default."""
    if not isinstance(fields, dict):
        raise TypeError(f"{fields!r:.40} is no table")
    known: dict[str, Any] = {}
    for name, usual in default._asdict().items():
        if name == "probe" or name not in fields:
            continue
        value = fields[name]
        if isinstance(usual, tuple):
            known[name] = tuple(str(item) for item in value)
        elif isinstance(usual, float) and isinstance(value, (int, float)):
            known[name] = float(value)
        elif isinstance(value, type(usual)):
            known[name] = value
        else:
            raise TypeError(f"{name} cannot be {value!r:.40}")
    return known


def delay(supervision: Supervision, restarts: int) -> float:
    """Return the pause before restart number `restarts` (from 1) since counting began, in seconds.

    The curve is systemd's own, which native backoff follows: from `delay_sec` to `max_delay_sec` in `steps`
    equal factors (service_restart_usec_next in systemd's src/core/service.c, since 254).
    """
    base, longest = supervision.delay_sec, supervision.max_delay_sec
    if longest <= base or base <= 0 or restarts <= 1:
        return base
    if restarts > supervision.steps:
        return longest
    return float(base * (longest / base) ** ((restarts - 1) / supervision.steps))


def rest(supervision: Supervision, restarts: int) -> float:
    """Return the pause that systemd itself makes there; the controller ends it after `delay`.

    It is longer where one unit file is that of several instances, each with a jitter of its own, and where
    systemd cannot let the delay grow: then it waits the longest, should the controller be away.
    """
    longest = 0.0 if supervision.is_native else supervision.max_delay_sec
    own = supervision.rest_sec or max(longest, supervision.delay_sec)
    return delay(supervision._replace(delay_sec=own), restarts) if supervision.is_native else own


def needs_controller(supervision: Supervision) -> tuple[str, ...]:
    """Return the keys of the service that do nothing unless the controller runs."""
    needed = {
        "restart.max_delay": supervision.max_delay_sec > 0 and not supervision.is_native,
        "restart.jitter": supervision.is_native and supervision.rest_sec > supervision.delay_sec,
        "restart.then": supervision.cooldown_sec > 0,
        "restart.failures": supervision.failures > 0,
        "restart.reset_after": supervision.reset_after_sec > 0,
        "health": supervision.probe is not None,
        "alerts": bool(supervision.alerts),
    }
    return tuple(key for key, is_so in needed.items() if is_so)


CLEAN_SIGNALS = ("SIGHUP", "SIGINT", "SIGTERM", "SIGPIPE")
"""Signals that end a service well (systemd.service(5), SuccessExitStatus=)."""

NEVER = frozenset({"exec-condition", "start-limit-hit"})
"""Results after which Restart= never acts: the start was skipped, or refused."""

# systemd.service(5), the table of Restart=, as service_shall_restart() in src/core/service.c reads it.
RESTARTED_AFTER: dict[str, Callable[[str], bool]] = {
    "no": lambda _: False,
    "always": lambda _: True,
    "on-success": lambda result: result == "success",
    "on-failure": lambda result: result != "success",
    "on-abnormal": lambda result: result not in ("success", "exit-code"),
    "on-abort": lambda result: result in ("signal", "core-dump"),
    "on-watchdog": lambda result: result == "watchdog",
}


def restarts_after(supervision: Supervision, result: str, exec_code: int, exec_status: int) -> bool:
    """Say whether systemd starts the unit again after a run that ended so, the start limit aside.

    `result` is Result=, "" if it is unknown and follows from the exit; `exec_code` 1 exited, 2 killed,
    3 dumped core, 0 without a main process.
    """
    result = result or result_of(supervision, exec_code, exec_status)
    if result in NEVER or _is_among(supervision.prevent_exit, exec_code, exec_status):
        return False
    if _is_among(supervision.force_exit, exec_code, exec_status):
        return True
    return RESTARTED_AFTER[supervision.when](result)


def result_of(supervision: Supervision, exec_code: int, exec_status: int) -> str:
    """Return the Result= that follows from the end of the main process, if nothing else went wrong."""
    clean = ("0", *supervision.success_exit)
    if exec_code == 0 or _is_among(clean, exec_code, exec_status):
        return "success"
    if exec_code == 2 and _is_among(CLEAN_SIGNALS, exec_code, exec_status):
        return "success"
    return {1: "exit-code", 2: "signal"}.get(exec_code, "core-dump")


def _is_among(statuses: tuple[str, ...], exec_code: int, exec_status: int) -> bool:
    """Say whether the exit is one of these, written as services.toml has them: "75", "SIGTERM"."""
    if exec_code == 0 or not statuses:
        return False
    if exec_code == 1:
        return str(exec_status) in statuses
    return any(_signal_number(status) == exec_status for status in statuses)


def _signal_number(name: str) -> int:
    """Return the number of "SIGTERM", "SIGRTMIN+3" or "SIGRTMAX-1"; 0 if it names no signal."""
    base, sign, offset = name.partition("+") if "+" in name else name.partition("-")
    number = int(getattr(signal, base, 0)) if base.startswith("SIG") else 0
    return number + int(f"{sign}{offset}") if sign and number else number
