"""Unit names: what each service's units are called, and every file name that a project defines.

Owns the derivation from (project, Service) to unit names, so that the check for duplicates and the rendering
can never disagree. Pure: asks nobody what is on the host. Never decides what a unit contains.

    project shop, service web        shop-web.service
    instances = 2                    shop-web@.service, loaded as shop-web@1.service and shop-web@2.service
    listen                           shop-web.socket (shop-web@.socket if an address holds {instance})
    schedule                         shop-web.timer
    watch                            shop-web-watch.path and shop-web-watch.service
    unit = "front.service"           front.service, front.socket, front.timer, front-watch.path, ...
    the project                      shop.slice and shop.target

Rule: a name that is made here must be listed by `files`, else two services could write one file.
"""

from __future__ import annotations

from functools import lru_cache
from string import ascii_letters, digits

from sysresp.model import Service

INSTANCE = "{instance}"
"""The token that stands for an instance's name in any value of the file (becomes %i in a unit file)."""

UNIT_TYPES = (
    *("service", "socket", "target", "timer", "path", "slice"),
    *("mount", "automount", "swap", "device", "scope"),
)
"""Every unit type of systemd.unit(5): a name with such a suffix is a whole unit name."""

MAX_LENGTH = 255
"""Longest unit name, suffix included: UNIT_NAME_MAX (src/basic/unit-name.h) is 256 with the final NUL."""

UNIT_CHARS = frozenset(digits + ascii_letters + ":-_.\\")
"""VALID_CHARS of src/basic/unit-name.c; "@" is allowed besides these, once, before an instance."""


@lru_cache(maxsize=16)  # the project's slice is in every service
def escape(text: str) -> str:
    """Return the text as systemd-escape(1) does: "/" becomes "-", what is not [A-Za-z0-9:_.] \\xHH."""
    kept = digits + ascii_letters + ":_."
    out = []
    for at, byte in enumerate(text.encode(errors="surrogateescape")):
        char = chr(byte)
        if char == "/":
            out.append("-")
        elif char in kept and not (at == 0 and char == "."):
            out.append(char)
        else:
            out.append(f"\\x{byte:02x}")
    return "".join(out)


def is_unit_name(text: str) -> bool:
    """Say whether the text is a valid whole unit name, such as "web@1.service" or "web@.service"."""
    prefix, dot, suffix = text.rpartition(".")
    if not dot or suffix not in UNIT_TYPES or len(text) > MAX_LENGTH or not prefix:
        return False
    name, _, instance = prefix.partition("@")
    return bool(name) and UNIT_CHARS.issuperset(name) and (UNIT_CHARS | {"@"}).issuperset(instance)


def has_unit_suffix(text: str) -> bool:
    """Say whether the text ends in a unit type, so that it is meant as a unit, not as a service."""
    return "." in text and text.rpartition(".")[2] in UNIT_TYPES


def slice_unit(project: str) -> str:
    """Return the project's slice.

    A "-" in a slice's name means nesting (systemd.slice(5)): project "shop-eu" as plain "shop-eu.slice"
    would be inside of project "shop" and be stopped with it, so the dash is escaped.
    """
    return f"{escape(project)}.slice"


def target_unit(project: str) -> str:
    """Return the project's target."""
    return f"{project}.target"


def stem(project: str, service: Service) -> str:
    """Return the name that all units of the service begin with: "shop-web", without "@" and suffix."""
    return base(project, service.name, service.unit)


def base(project: str, name: str, unit: str | None) -> str:
    """Return the stem of a service that is still to be made."""
    return f"{project}-{name}" if unit is None else unit.removesuffix(".service").removesuffix("@")


def unit_name(project: str, service: Service) -> str:
    """Return the service's own unit file: "shop-web.service", with instances "shop-web@.service"."""
    at = "" if service.instances is None else "@"
    return f"{stem(project, service)}{at}.service"


def instance_unit(project: str, service: Service, instance: str) -> str:
    """Return the unit of one instance, such as "shop-web@1.service"."""
    return f"{stem(project, service)}@{instance}.service"


def service_units(project: str, service: Service) -> tuple[str, ...]:
    """Return what a person means by the service's name: its .service, or that of each instance."""
    if service.instances is None:
        return (unit_name(project, service),)
    return tuple(instance_unit(project, service, name) for name in service.instances)


def has_socket_per_instance(service: Service) -> bool:
    """Say whether each instance has a socket of its own, because {instance} is in an address."""
    return (
        service.socket is not None
        and service.instances is not None
        and any(INSTANCE in listen.address for listen in service.socket.listen)
    )


def socket_unit(project: str, service: Service) -> str:
    """Return the name of the socket's unit file: "shop-web.socket" or "shop-web@.socket"."""
    at = "@" if has_socket_per_instance(service) else ""
    return f"{stem(project, service)}{at}.socket"


def socket_units(project: str, service: Service) -> tuple[str, ...]:
    """Return the socket units that systemd loads; none without `listen`."""
    if service.socket is None:
        return ()
    if has_socket_per_instance(service):
        return tuple(f"{stem(project, service)}@{name}.socket" for name in service.instances or ())
    return (socket_unit(project, service),)


def timer_unit(project: str, service: Service) -> str:
    """Return the name of the timer."""
    return f"{stem(project, service)}.timer"


def watch_units(project: str, service: Service) -> tuple[str, str]:
    """Return the .path that watches files and the .service it starts, which restarts or reloads ours."""
    watch = f"{stem(project, service)}-watch"
    return f"{watch}.path", f"{watch}.service"


def files(project: str, service: Service) -> tuple[str, ...]:
    """Return the names of all unit files that the service defines."""
    names = [unit_name(project, service)]
    if service.socket is not None:
        names.append(socket_unit(project, service))
    if service.schedule is not None:
        names.append(timer_unit(project, service))
    if service.watch is not None:
        names += watch_units(project, service)
    return tuple(names)
