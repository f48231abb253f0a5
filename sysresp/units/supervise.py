"""A service of the spec -> how each of its units is to be kept alive.

Owns what its keys mean to whoever keeps it alive: systemd by RestartSec= (which `compose` writes), and the
controller by `Supervision`. Pure. Rule: what is told of systemd's own part is what the unit's text says, so
raw directives and the user's own templates are read back from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from zlib import crc32

from sysresp.model import Alert, Controller, Health, Restart, Service
from sysresp.spec.quantities import span
from sysresp.spec.values import filled
from sysresp.units.alerting import Receiver
from sysresp.units.directives import TABLE
from sysresp.units.supervision import DEFAULT, Probe, Settings, Supervision, delay
from sysresp.units.text import parse

_READ_BACK = frozenset(
    (
        *("Restart", "RestartSec", "RestartSteps", "RestartMaxDelaySec", "StartLimitIntervalSec"),
        *("StartLimitBurst", "SuccessExitStatus", "RestartPreventExitStatus", "RestartForceExitStatus"),
    )
)
_WHEN = frozenset(("no", "always", "on-success", "on-failure", "on-abnormal", "on-abort", "on-watchdog"))


def grows_by_itself(version: int) -> bool:
    """Say whether this systemd can let the delay grow."""
    return version >= TABLE["RestartMaxDelaySec"].since


def restart_sec(service: Service, unit: str, version: int) -> float:
    """Return RestartSec= for the unit file of this name.

    One unit file is that of all instances, so it has to hold the longest of their delays.
    """
    restart = service.restart
    shared = service.instances is not None
    longest = restart.delay_sec + (restart.jitter_sec if shared else _share(restart, unit))
    if restart.max_delay_sec is not None and not grows_by_itself(version):
        return max(longest, restart.max_delay_sec)
    return longest


def _share(restart: Restart, unit: str) -> float:
    """Return the unit's own share of the jitter, the same at every render."""
    return round(restart.jitter_sec * crc32(unit.encode(errors="surrogateescape")) / 2**32, 3)


def least_sec(restart: Restart) -> float:
    """Return how long the starts up to the last attempt take at least: what its delays add up to."""
    steps, attempts = restart.steps or DEFAULT.steps, restart.attempts or 0
    curve = Supervision(delay_sec=restart.delay_sec, max_delay_sec=restart.max_delay_sec or 0.0, steps=steps)
    grown = sum(delay(curve, n) for n in range(1, min(attempts, steps) + 1))
    return grown + max(0, attempts - steps) * delay(curve, steps + 1)


def supervise(
    service: Service, file: str, text: str, loaded: Mapping[str, str], version: int
) -> dict[str, Supervision]:
    """Return the supervision of each unit that this text defines; `loaded` is unit -> instance."""
    raw = {name for section in service.systemd.values() for name in section}
    is_ours = service.template is None and raw.isdisjoint(_READ_BACK)
    rest = restart_sec(service, file, version)
    found = {}
    for unit, instance in loaded.items():
        known = _supervision(service, unit, rest, version)
        if not is_ours or known.force_exit:
            known = of_text(text, known)
        if known.when == "no" and not known.force_exit:
            # Nothing starts it again: there is no delay, and no last attempt after which something follows.
            known = DEFAULT._replace(
                when="no",
                attempts=known.attempts,
                within_sec=known.within_sec,
                success_exit=known.success_exit,
            )
        found[unit] = known._replace(probe=_probe(service.health, instance), alerts=service.alerts)
    return found


def _supervision(service: Service, unit: str, rest_sec: float, version: int) -> Supervision:
    restart = service.restart
    delay_sec = restart.delay_sec + _share(restart, unit)
    known = Supervision(
        when=restart.when,
        delay_sec=delay_sec,
        rest_sec=rest_sec if rest_sec > delay_sec else 0.0,
        attempts=restart.attempts or 0,
        success_exit=restart.success_exit,
        prevent_exit=restart.prevent_exit,
        force_exit=restart.force_exit,
        cooldown_sec=restart.cooldown_sec,
        cooldowns=restart.cooldowns,
        reset_after_sec=restart.reset_after_sec or 0.0,
        failures=restart.failures or 0,
    )
    if restart.attempts is not None:
        known = known._replace(within_sec=restart.within_sec)
    if restart.failures is not None:
        known = known._replace(per_sec=restart.per_sec)
    if restart.max_delay_sec is not None and restart.max_delay_sec > delay_sec:
        known = known._replace(
            max_delay_sec=restart.max_delay_sec,
            steps=restart.steps or DEFAULT.steps,
            is_native=grows_by_itself(version),
        )
    return known


def _probe(health: Health | None, instance: str) -> Probe | None:
    if health is None:
        return None

    def fill(text: str) -> str:
        return filled(text, instance) if instance else text

    return Probe(
        by=health.by.value,
        target=fill(health.target),
        argv=tuple(fill(word) for word in health.command.words) if health.command else (),
        interval_sec=health.interval_sec,
        timeout_sec=health.timeout_sec,
        failures=health.failures,
        successes=health.successes,
        grace_sec=health.grace_sec,
        action=health.action,
        restarts=health.restarts,
        within_sec=health.within_sec,
    )


def of_text(text: str, known: Supervision = DEFAULT) -> Supervision:
    """Return `known` with what the text of the unit says of systemd's own part."""
    said: dict[str, str] = {}
    lists: dict[str, list[str]] = {}
    for _, name, value in parse(text):
        if name in _READ_BACK:
            said[name] = value
            lists[name] = [*lists.get(name, []), *value.split()] if value else []
    when = said.get("Restart", "no")  # the defaults here are systemd's
    rest_sec = _seconds(said.get("RestartSec", "100ms"), known.rest_sec or known.delay_sec)
    if abs(rest_sec - (known.rest_sec or known.delay_sec)) > 2e-6:  # as text it is exact to 1us
        known = known._replace(delay_sec=rest_sec, rest_sec=0.0, max_delay_sec=0.0, is_native=True)
    if known.is_native:
        longest = _seconds(said.get("RestartMaxDelaySec", "0"), 0.0)
        steps = _count(said.get("RestartSteps", "0"), 0)
        grows = steps > 0 and longest > known.delay_sec
        known = known._replace(
            max_delay_sec=longest if grows else 0.0, steps=steps if grows else DEFAULT.steps
        )
    within_sec = _seconds(said.get("StartLimitIntervalSec", "10s"), known.within_sec)
    attempts = _count(said.get("StartLimitBurst", "5"), known.attempts) if within_sec else 0
    return known._replace(
        when=when if when in _WHEN else known.when,
        attempts=attempts,
        within_sec=within_sec if attempts else DEFAULT.within_sec,
        success_exit=tuple(lists.get("SuccessExitStatus", ())),
        prevent_exit=tuple(lists.get("RestartPreventExitStatus", ())),
        force_exit=tuple(lists.get("RestartForceExitStatus", ())),
    )


def _seconds(text: str, otherwise: float) -> float:
    found = span(text)
    return otherwise if found is None else min(found, 1e10)


def _count(text: str, otherwise: int) -> int:
    return int(text) if text.isascii() and text.isdigit() else otherwise


def settings(controller: Controller) -> Settings:
    """Return what the manifest tells the controller of itself."""
    return Settings(
        starts_per_second=controller.starts_per_second,
        max_age_sec=controller.max_age_sec,
        max_memory=controller.max_memory,
        keep_sec=controller.keep_sec,
        keep_bytes=controller.keep_bytes,
        flaps=controller.flaps,
        flaps_sec=controller.flaps_sec,
    )


def receiver(alert: Alert) -> Receiver:
    """Return what the manifest tells the controller of an [alerts] table."""
    return Receiver(**{name: getattr(alert, name) for name in Receiver._fields})
