"""The sandbox profiles: off, web, strict-jit and strict, as lists of directives.

Owns which directives a profile consists of and what of it the running systemd and scope can do. Never asks
whether a program survives under a profile.

What breaks under which line, so that the exception to make is known:

    MemoryDenyWriteExecute       just-in-time compilers (Node, Java, PostgreSQL's JIT)
    ProcSubset                   /proc/meminfo, /proc/cpuinfo
    SystemCallFilter             chown, setuid, nice, CPU affinity (with strict)
    CapabilityBoundingSet        root's access to others' files, setuid, ports below 1024 (with strict)
    PrivateUsers                 files of others, ports below 1024
    RestrictAddressFamilies      listing of network interfaces needs AF_NETLINK (web and strict-jit have it)
    ProtectSystem, ProtectHome   writing outside of the service's own directories; programs below /home

Rule: `systemd-analyze security` must say at most 1.5 for strict and 2.5 for web.
"""

from __future__ import annotations

from sysresp.model import Hardening, Scope, Service
from sysresp.units.directives import TABLE

_STRICT = (
    ("NoNewPrivileges", "yes"),
    ("ProtectSystem", "strict"),
    ("ProtectHome", "yes"),
    ("PrivateTmp", "yes"),
    ("PrivateDevices", "yes"),
    ("DevicePolicy", "closed"),
    ("PrivateUsers", "yes"),
    ("PrivateIPC", "yes"),
    ("ProtectHostname", "yes"),
    ("ProtectClock", "yes"),
    ("ProtectKernelTunables", "yes"),
    ("ProtectKernelModules", "yes"),
    ("ProtectKernelLogs", "yes"),
    ("ProtectControlGroups", "yes"),
    ("ProtectProc", "invisible"),
    ("ProcSubset", "pid"),
    ("RestrictAddressFamilies", "AF_INET AF_INET6 AF_UNIX"),
    ("RestrictNamespaces", "yes"),
    ("RestrictRealtime", "yes"),
    ("RestrictSUIDSGID", "yes"),
    ("LockPersonality", "yes"),
    ("MemoryDenyWriteExecute", "yes"),
    ("RemoveIPC", "yes"),
    ("KeyringMode", "private"),
    ("UMask", "0077"),
    ("CapabilityBoundingSet", ""),
    ("AmbientCapabilities", ""),
    ("SystemCallArchitectures", "native"),
    ("SystemCallFilter", "@system-service"),
    ("SystemCallFilter", "~@privileged @resources"),
    ("SystemCallErrorNumber", "EPERM"),  # without it a forbidden call kills the process (Node does some)
)


def _derived(without: tuple[str, ...], **instead: str) -> tuple[tuple[str, str], ...]:
    """Return strict without some directives and with other values for some."""
    return tuple((name, instead.get(name, value)) for name, value in _STRICT if name not in without)


_NETLINK = "AF_INET AF_INET6 AF_UNIX AF_NETLINK"

_WEB_OPEN = (
    "PrivateUsers",
    "PrivateIPC",
    "ProcSubset",
    "MemoryDenyWriteExecute",
    "RemoveIPC",
    "UMask",
    "KeyringMode",
)

PROFILES: dict[str, tuple[tuple[str, str], ...]] = {
    "off": (),
    "web": tuple(
        line
        for line in _derived(
            _WEB_OPEN,
            ProtectSystem="full",
            ProtectHome="read-only",
            RestrictAddressFamilies=_NETLINK,
            CapabilityBoundingSet="CAP_NET_BIND_SERVICE",
            AmbientCapabilities="CAP_NET_BIND_SERVICE",
        )
        if line != ("SystemCallFilter", "~@privileged @resources")
    ),
    "strict-jit": _derived(("MemoryDenyWriteExecute", "ProcSubset"), RestrictAddressFamilies=_NETLINK),
    "strict": _STRICT,
}
"""Profile -> its directives, in the order in which they are written."""

PROFILES["standard"] = PROFILES["web"]

UNPRIVILEGED = frozenset(
    (
        *("NoNewPrivileges", "RestrictAddressFamilies", "RestrictNamespaces", "RestrictRealtime"),
        *("RestrictSUIDSGID", "LockPersonality", "MemoryDenyWriteExecute", "KeyringMode", "UMask"),
        *("SystemCallArchitectures", "SystemCallFilter", "SystemCallErrorNumber"),
    )
)
"""What a user manager can do without privileges: the rest needs mount namespaces or capabilities."""

_HOMES = ("/home/", "/root/", "/run/user/")


def lines(hardening: Hardening, version: int, scope: Scope) -> list[tuple[str, str]]:
    """Return the profile's directives, without exceptions and what this systemd or scope cannot do."""
    return [
        (name, value)
        for name, value in PROFILES[hardening.profile]
        if name not in hardening.exceptions
        and TABLE[name].since <= version
        and (scope is Scope.SYSTEM or name in UNPRIVILEGED)
    ]


def hidden_home(service: Service) -> str:
    """Return the path below a home directory that the profile keeps from the service, "" if there is none.

    With web the homes are only read-only: a program there runs, but its directory cannot be written to.
    """
    protect = dict(PROFILES[service.hardening.profile]).get("ProtectHome", "no")
    if protect == "no" or "ProtectHome" in service.hardening.exceptions:
        return ""
    used = [service.directory or ""]
    opened = service.hardening.read_write
    if protect == "yes":
        used += [command.words[0] for command in service.command]
        opened = ()  # ReadWritePaths= cannot open what is below an inaccessible directory
    return next(
        (
            path
            for path in used
            if f"{path}/".startswith(_HOMES)
            and not any(f"{path}/".startswith(f"{open}/") for open in opened)
        ),
        "",
    )
