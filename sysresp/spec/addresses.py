"""Addresses: what a socket unit listens on, and what a probe looks at, at the start or while it runs.

Owns the forms of systemd.socket(5) addresses and of probe targets. Never connects to anything and resolves
no name. Rule: an address that systemd would refuse or take for something else is refused here, because
PID 1 only logs it and starts the unit without the socket.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from sysresp.model import Command, Health, Listen, Ready, ReadyBy, Socket
from sysresp.spec.commands import OneCommand
from sysresp.spec.quantities import Duration
from sysresp.spec.report import At, show
from sysresp.spec.types import Choice, Converted, Enum, Int, Key, ListOf, Str, Table
from sysresp.spec.values import ACCOUNT, MODE, PATH, filled

_BYTE = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_V4 = re.compile(rf"(?:{_BYTE}\.){{3}}{_BYTE}\Z")
_VSOCK = re.compile(r"vsock:[0-9]{0,10}:[0-9]{1,10}\Z")
_PORT_NUMBER = re.compile(
    r"[1-9][0-9]{0,4}\Z"
)  # inet_pton() and systemd take a leading 0 for octal, or not at all
SOCKET_PATH_MAX = 107  # sun_path of unix(7), without the final NUL


_ZONE = re.compile(r"[A-Za-z0-9_.-]{1,15}\Z")  # IFNAMSIZ is 16, with the final NUL


def port(text: str) -> bool:
    """Say whether this is a port number."""
    return _PORT_NUMBER.match(text) is not None and int(text) <= 65535


def is_v4(text: str) -> bool:
    """Say whether this is an IPv4 address."""
    return _V4.match(text) is not None


def is_v6(text: str) -> bool:
    """Say whether this is an IPv6 address, perhaps with a zone."""
    import socket  # noqa: PLC0415 - only the few files with IPv6 addresses need it

    try:
        socket.inet_pton(socket.AF_INET6, text.partition("%")[0])
    except (OSError, ValueError):
        return False
    return True


def address_trouble(address: str, kind: str) -> str:
    """Return how to fix a listening address of systemd.socket(5); "" if it is one."""
    if kind == "fifo" or address.startswith("/"):
        if not address.startswith("/") or ".." in address.split("/") or not address.strip("/"):
            return "write an absolute path"
        long = kind != "fifo" and len(address.encode(errors="replace")) > SOCKET_PATH_MAX
        return f"a socket's path has at most {SOCKET_PATH_MAX} bytes" if long else ""
    if address.startswith("@"):
        return (
            ""
            if 1 < len(address.encode(errors="replace")) <= SOCKET_PATH_MAX + 1
            else "write a name of 1 to 107 bytes"
        )
    if kind == "sequential":
        return "a sequential socket has a path or an abstract name"
    if address.startswith("vsock:"):
        good = _VSOCK.match(address) and all(int(n or 0) < 0xFFFFFFFF for n in address.split(":")[1:])
        return "" if good else 'write "vsock:CID:PORT"'
    host, colon, number = address.rpartition(":")
    if host.startswith("[") and "%" in host:
        host, _, zone = host[1:].removesuffix("]").partition("%")
        return f'write "[{host}]:{number}%{zone}": the zone stands after the port'
    if host.startswith("["):
        number, percent, zone = number.partition("%")
        if percent and not _ZONE.match(zone):
            return 'write the interface after the "%", such as "[fe80::1]:8000%eth0"'
    if not port(number):
        return 'write "127.0.0.1:8000", "[::1]:8000", "8000", "/run/x.sock" or "@name"; ports are 1 to 65535'
    if not colon or is_v4(host) or (host.startswith("[") and host.endswith("]") and is_v6(host[1:-1])):
        return ""
    wild = host in ("*", "", "0")
    local = {"localhost": f' such as "127.0.0.1:{number}"'}.get(host, "")
    return (
        f'write "{number}" for all addresses'
        if wild
        else f"systemd takes an IP address here, no name{local}"
    )


def _listen(kind: str) -> Any:
    def check(text: str, at: At) -> Any:
        trouble = address_trouble(filled(text), kind)
        if trouble:
            return at.error(f"is no {kind} address to listen on: {show(text)}", trouble)
        return Listen(text, kind)

    return Str("an address", check, fix='write "127.0.0.1:8000"')


def _typed(values: dict[str, Any], at: At) -> Any:
    if len(values) != 1:
        return at.error(
            f"must have exactly one of {', '.join(_TYPES)}, has {len(values)}", "split it into several"
        )
    return next(iter(values.values()))


_TYPES = {
    "stream": ("Connections, as TCP", '"127.0.0.1:8000"'),
    "datagram": ("Datagrams, as UDP", '"514"'),
    "sequential": ("Sequential packets on a path", '"/run/shop.seq"'),
    "fifo": ("A named pipe", '"/run/shop.fifo"'),
}
_STREAM = _listen("stream")
_PORT = Converted(Int(1, 65535, "a port from 1 to 65535"), lambda number, _at: Listen(str(number)))
LISTEN = Choice(
    {
        str: _STREAM,
        int: _PORT,
        dict: Table(
            [Key(name, _listen(name), doc, example) for name, (doc, example) in _TYPES.items()], _typed
        ),
    },
    "an address",
)


def _socket(values: dict[str, Any], at: At) -> Any:
    if not values.get("listen"):
        return at.error("has no address to listen on", 'write addresses = ["127.0.0.1:8000"]')
    return Socket(**values)


SOCKET = Table(
    [
        Key("addresses", ListOf(LISTEN), "Where it listens", '["127.0.0.1:8000"]', field="listen"),
        Key(
            "backlog", Int(1, 0x7FFFFFFF), "Connections that wait to be accepted", "512", "4096 (systemd's)"
        ),
        Key("mode", MODE, "Mode of a socket on a path", '"0660"', '"0666"'),
        Key("user", ACCOUNT, "Owner of a socket on a path", '"www-data"', "root"),
        Key("group", ACCOUNT, "Group of a socket on a path", '"www-data"', "root"),
    ],
    _socket,
    "a table of addresses, backlog, mode, user, group",
    short="addresses",
)


_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252})\Z")


def _is_host(text: str) -> bool:
    if text.startswith("["):
        return text.endswith("]") and is_v6(text[1:-1])
    return _HOST.match(text) is not None


def _tcp(text: str, at: At) -> Any:
    host, colon, number = filled(text).rpartition(":")
    if colon and port(number) and _is_host(host):
        return text
    example = (
        f'write "127.0.0.1:{number}"' if port(number) and host in ("", "*") else 'write "127.0.0.1:5432"'
    )
    return at.error(f"must be HOST:PORT, got {show(text)}", example)


def _tcp_port(number: int, _at: At) -> str:
    return f"127.0.0.1:{number}"


def _http(text: str, at: At) -> Any:
    plain = filled(text)
    if plain.startswith("https://"):
        return at.error(
            f"must begin with http://, got {show(text)}",
            "the prober does no TLS; ask a plain port, or use `exec` with a program that can",
        )
    found = re.match(r"http://([^/?#@\\\s]+)(?:[/?][!-~]*)?\Z", plain)
    host, _, number = found[1].rpartition(":") if found else ("", "", "")
    if found and (
        _is_host(host) and port(number) if ":" in found[1].rpartition("]")[2] else _is_host(found[1])
    ):
        return text
    return at.error(
        f"must be a URL such as http://127.0.0.1:8000/health, got {show(text)}", "write it out in full"
    )


def _log(text: str, at: At) -> Any:
    try:
        pattern = re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        return at.error(
            f"is no regular expression of Python: {error}", "double a backslash, or use '...' quotes"
        )
    if pattern.search(""):
        at.warn(
            "matches an empty line, so the first line of the log makes the service ready", "make it longer"
        )
    return text


def _unix(text: str, at: At) -> Any:
    if text.startswith("/") and not address_trouble(filled(text), "stream"):
        return text
    if text.startswith("@") and not address_trouble(filled(text), "stream"):
        return text
    return at.error(
        f"must be the path of a socket, got {show(text)}", 'write "/run/shop/db.sock" or "@name"'
    )


_BY = tuple(ReadyBy)
_HEALTH_BY = (ReadyBy.HTTP, ReadyBy.TCP, ReadyBy.UNIX, ReadyBy.EXEC)


def _probe(values: dict[str, Any], known: tuple[ReadyBy, ...], at: At) -> Any:
    """Return the one probe of the table: by what, the target, the command; the rest stays in `values`."""
    by = [kind for kind in known if kind in values]
    if len(by) != 1:
        what = "has no probe" if not by else f"has {len(by)} probes: {', '.join(by)}"
        return at.error(what, f"write exactly one of {', '.join(known)}")
    target = values.pop(by[0])
    return (by[0], "", target) if isinstance(target, Command) else (by[0], target, None)


def _ready(values: dict[str, Any], at: At) -> Any:
    probe = _probe(values, _BY, at)
    if not probe:
        return probe
    ready = Ready(*probe, **values)
    if ready.interval_sec > ready.timeout_sec:
        return (at / "interval").error("is longer than `timeout`", "write a shorter interval")
    return ready


_TCP = Choice(
    {str: Str("HOST:PORT", _tcp), int: Converted(Int(1, 65535), _tcp_port)}, "HOST:PORT, or a port"
)
READY = Table(
    [
        Key(
            "tcp",
            _TCP,
            "Ready when this accepts a connection",
            '"127.0.0.1:5432"',
        ),
        Key(
            "unix",
            Str("a socket's path", _unix),
            "Ready when this socket accepts a connection",
            '"/run/db.sock"',
        ),
        Key(
            "http",
            Str("a URL", _http),
            "Ready when this URL answers 200 to 399",
            '"http://127.0.0.1:8000/health"',
        ),
        Key("exec", OneCommand(), "Ready when this command exits with 0", '["/usr/bin/pg_isready"]'),
        Key("file", PATH, "Ready when this path exists", '"/run/shop/web.ready"'),
        Key(
            "log",
            Str("a regular expression", _log),
            "Ready when a line of its log matches",
            '"listening on"',
        ),
        Key(
            "timeout", Duration(low=0.1), "It has failed to start after this", '"1min"', "30s", "timeout_sec"
        ),
        Key("interval", Duration(low=0.01), "Pause between two probes", '"1s"', "100ms", "interval_sec"),
    ],
    _ready,
    "a table with one of tcp, unix, http, exec, file, log",
)


def _health(values: dict[str, Any], at: At) -> Any:
    probe = _probe(values, _HEALTH_BY, at)
    if not probe:
        return probe
    health = Health(*probe, **values)
    if "timeout_sec" not in values:
        health = replace(health, timeout_sec=min(health.timeout_sec, health.interval_sec))
    elif health.timeout_sec > health.interval_sec:
        # There are never two probes at once, so one that hangs would put off the next.
        what = "is longer than `interval`, so a service that hangs is found out late"
        return (at / "timeout").error(what, "write a longer interval, or a shorter timeout")
    command = health.command
    if command is not None and command.expand and any("$" in word for word in command.words):
        return (at / "exec").error(
            'holds a "$", and nothing expands it: the controller runs this, not systemd',
            'write an array, which is exact, or ["/bin/sh", "-c", "..."]',
        )
    for key, field in (("restarts", "restarts"), ("within", "within_sec")):
        if field in values and health.action != "restart":
            what = f"bounds the restarts by the probe, and `action` is {show(health.action)}"
            return (at / key).error(what, 'write action = "restart", or remove it')
    return health


HEALTH = Table(
    [
        Key(
            "http", Str("a URL", _http), "Healthy if this URL answers 200 to 399", '"http://127.0.0.1:8000/"'
        ),
        Key("tcp", _TCP, "Healthy if this accepts a connection", '"127.0.0.1:5432"'),
        Key("unix", Str("a socket's path", _unix), "Healthy if this accepts a connection", '"/run/db.sock"'),
        Key("exec", OneCommand(), "Healthy if this exits with 0", '["/usr/bin/pg_isready"]'),
        Key(
            "interval",
            Duration(low=0.1),
            "From the begin of one probe to that of the next",
            '"30s"',
            "10s",
            "interval_sec",
        ),
        Key(
            "timeout",
            Duration(low=0.1),
            "A probe has failed after this; no longer than `interval`",
            '"5s"',
            "2s, or `interval` if that is shorter",
            "timeout_sec",
        ),
        Key("failures", Int(1, 1000), "So many in a row, and it is unhealthy", "5", "3"),
        Key("successes", Int(1, 1000), "So many in a row, and it is healthy again", "2", "1"),
        Key(
            "grace",
            Duration(),
            "So long after a start failures do not count, or until the first success",
            '"2min"',
            "30s",
            "grace_sec",
        ),
        Key(
            "action",
            Enum(("restart", "stop", "none")),
            "What becomes of it when it is unhealthy",
            '"none"',
            '"restart"',
        ),
        Key("restarts", Int(1, 1000), "No more restarts by the probe than this in `within`", "3", "5"),
        Key("within", Duration(low=1), "The window of `restarts`", '"10min"', "1h", "within_sec"),
    ],
    _health,
    "a table with one of http, tcp, unix, exec",
)
