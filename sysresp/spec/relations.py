"""What services of one file are to each other: dependencies, order, unit names, addresses.

Owns every check that needs more than one service. Pure. Rule: each fault is told once, at the line that
could be changed: a cycle once for all who are in it, a duplicate at the later of the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sysresp.model import Service
from sysresp.spec.build import DEPENDENCIES, origin_of
from sysresp.spec.names import (
    INSTANCE,
    MAX_LENGTH,
    files,
    has_unit_suffix,
    service_units,
    socket_units,
    unit_name,
)
from sysresp.spec.report import At, near, quote
from sysresp.spec.values import filled

_IMPLY_AFTER = ("after", "requires", "wants", "binds_to")


def check(project: str, services: Mapping[str, Service], at: At) -> None:
    """Report everything wrong between these services; `at` is the table that holds them."""
    owner = {unit: name for name, service in services.items() for unit in service_units(project, service)}
    owner |= {unit_name(project, service): name for name, service in services.items()}
    _names(services, owner, at)
    _cycles(services, owner, at)
    _units(project, services, at)
    _addresses(services, at)


def check_alerts(services: Mapping[str, Service], tables: object, at: At) -> None:
    """Refuse names of [alerts] tables that are not there; one that was refused itself counts as there."""
    known = list(tables) if isinstance(tables, dict) else []
    for name, service in services.items():
        for index, alert in enumerate(service.alerts):
            if alert not in known:
                (at / name / "alerts" / index).error(
                    f"names {quote(alert)}, and there is no [alerts.{alert}]",
                    near(alert, known) or f"add [alerts.{alert}], or remove it",
                )


def _names(services: Mapping[str, Service], owner: Mapping[str, str], at: At) -> None:
    """Refuse dependencies on nothing and on oneself."""
    for name, service in services.items():
        for key in DEPENDENCIES:
            for other in getattr(service, key):
                here = at / name / key
                if owner.get(other, other) == name:
                    here.error(f"names the service itself: {quote(other)}", "remove it")
                elif key in ("requires", "binds_to") and other in service.conflicts:
                    here.error(
                        f"names {quote(other)}, and so does `conflicts`: systemd could never start both",
                        "remove it from one of the two",
                    )
                elif other not in services and not has_unit_suffix(other):
                    guess = near(other, services.keys() - {name})
                    unit = f"{quote(other + '.service')} if it is a unit that is not in this file"
                    here.error(
                        f"names {quote(other)}, which is no service of this file",
                        f"{guess or 'write'}{', or ' if guess else ' '}{unit}",
                    )


def _edges(service: Service, owner: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Return (first, second, key): `second` starts after `first`, because of this key of the service."""
    for key in _IMPLY_AFTER:
        for other in getattr(service, key):
            if key == "after" or other not in service.before:
                yield owner.get(other, other), service.name, key
    for other in service.before:
        yield service.name, owner.get(other, other), "before"


def _cycles(services: Mapping[str, Service], owner: Mapping[str, str], at: At) -> None:
    """Report each ordering cycle once; systemd would break it by dropping a job at random."""
    later: dict[str, dict[str, tuple[str, str]]] = {name: {} for name in services}
    for service in services.values():
        for first, second, key in _edges(service, owner):
            if first != second and first in services and second in services:
                later[first].setdefault(second, (service.name, key))
    done: set[str] = set()
    for start in services:
        if start in done:
            continue
        path = {start: None}  # a dict: ordered, and quick to ask
        stack = [(start, iter(later[start]))]
        while stack:
            name, rest = stack[-1]
            following = next(rest, None)
            if following is None:
                stack.pop()
                path.popitem()
                done.add(name)
            elif following in path:
                cycle = list(path)[list(path).index(following) :]
                if done.isdisjoint(cycle):
                    setter, key = later[name][following]
                    arrow = " -> ".join(quote(each) for each in (*cycle, following))
                    (at / setter / key).error(
                        f"closes a cycle of services that each start after the one before: {arrow}",
                        "remove one of these dependencies",
                    )
                done.update(cycle)
            elif following not in done:
                path[following] = None
                stack.append((following, iter(later[following])))


def _units(project: str, services: Mapping[str, Service], at: At) -> None:
    """Refuse two services with one unit, and names that are too long."""
    seen: dict[str, str] = {}
    for name, service in services.items():
        here = at / name / "unit" if service.unit else at / name
        for unit in files(project, service):
            first = seen.setdefault(unit, name)
            if first != name:
                line = origin_of(services[first], "unit")
                here.error(
                    f"has the unit {quote(unit)}, as service {quote(first)} has ({line})",
                    "give one of them another `unit` or name",
                )
        longest = max(
            (*service_units(project, service), *files(project, service), *socket_units(project, service)),
            key=len,
        )
        if len(longest) > MAX_LENGTH:
            what = f"has a unit name of {len(longest)} characters, at most {MAX_LENGTH} are possible"
            here.error(f"{what}: {quote(longest)}", "write a shorter name")


def _addresses(services: Mapping[str, Service], at: At) -> None:
    """Refuse one address that is listened on twice: bind(2) of the second would fail."""
    seen: dict[tuple[str, str], list[tuple[str, str, str]]] = {}
    for name, service in services.items():
        if service.socket is None:
            continue
        for listen in service.socket.listen:
            instances = service.instances or ("",)
            for instance in instances if INSTANCE in listen.address else ("",):
                address = filled(listen.address, instance or INSTANCE)
                host, where = _split(address)
                others = seen.setdefault(("" if address[0] in "/@" else listen.type, where), [])
                for other, there, first in others:
                    if not _overlap(host, there):
                        continue
                    line = origin_of(services[first], "listen")
                    same = f", as service {quote(first)} has ({line})"
                    within = f", which excludes {quote(other)} of service {quote(first)} ({line})"
                    (at / name / "listen").error(
                        f"has the address {quote(address)}{same if host == there else within}",
                        "give one of them another address",
                    )
                    break
                others.append((address, host, name))


def _split(address: str) -> tuple[str, str]:
    """Return host and port of an Internet address; of any other, nothing and the whole."""
    host, _, port = address.rpartition(":")
    port = port.partition("%")[0]
    if address[0] in "/@" or host.startswith("vsock") or not port.isdigit():
        return "", address
    return host or "[::]", port  # a port alone is on all addresses, of IPv4 too (BindIPv6Only=)


def _overlap(one: str, other: str) -> bool:
    """Say whether two sockets of one port on these hosts exclude each other."""
    if one == other or "[::]" in (one, other):
        return True
    return "0.0.0.0" in (one, other) and not one.startswith("[") and not other.startswith("[")
