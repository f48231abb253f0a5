"""Which sockets open anew, and what has to be stopped for that.

Owns the ties between a .socket and the units behind it, as far as an apply meets them. Pure. Rule: a socket
that is open stays open if that is possible at all, because whoever connects meanwhile is turned away.
"""

from __future__ import annotations

from collections.abc import Container, Mapping

from sysresp.reconcile.decide import MASKED, Verdict, is_running
from sysresp.reconcile.observe import Observed
from sysresp.reconcile.steps import Verb
from sysresp.units.desired import Desired, Unit
from sysresp.units.text import parse


def opens_anew(unit: Unit, desired: Desired, observed: Observed) -> bool:
    """Say whether a running socket must open anew because of the unit that it starts.

    Service= is read again at a daemon-reload, but a connection before that would start what is on its way
    out, unless another instance runs and stays (socket_enter_running in src/core/socket.c).
    """
    old, new = observed.files.get(unit.file), desired.files[unit.file].text
    if old is None or old == new or _starts(old) == _starts(new):
        return False
    stays = [u.name for u in desired.units.values() if _is_behind(u, {(unit.service, "")}) and u.instance]
    return _starts(new) not in stays or not any(is_running(observed.units.get(name)) for name in stays)


def cycled(desired: Desired, observed: Observed, verdicts: Mapping[str, Verdict]) -> tuple[str, ...]:
    """Return the units to stop first because of sockets that open, the sockets before what is behind them.

    systemd refuses to start a socket whose service runs (socket_start in src/core/socket.c), and the kernel
    refuses the address as long as one of several instances holds it. A socket is closed while they run if it
    is new, or if one of them was started too often: systemd then fails the socket as well.
    """
    sockets = [unit for unit in desired.units.values() if unit.name.endswith(".socket")]
    opening = [unit for unit in sockets if verdicts[unit.name].verb in (Verb.START, Verb.RESTART)]
    found = [unit.name for unit in opening if verdicts[unit.name].verb is Verb.RESTART]
    behind = {(unit.service, unit.instance) for unit in opening}
    for unit in reversed(list(desired.units.values()) if opening else []):
        is_free = _is_behind(unit, behind) and verdicts[unit.name].reason != MASKED
        if is_free and is_running(observed.units.get(unit.name)):
            found.append(unit.name)
    return tuple(found)


def _is_behind(unit: Unit, sockets: Container[tuple[str, str]]) -> bool:
    """Say whether the unit gets one of these sockets (service, instance): its service's, or its own."""
    return unit.main and ((unit.service, "") in sockets or (unit.service, unit.instance) in sockets)


def _starts(text: str) -> str:
    """Return the unit that a socket starts by this text, "" if it does not say."""
    said = [value for section, name, value in parse(text) if (section, name) == ("Socket", "Service")]
    return said[-1] if said else ""
