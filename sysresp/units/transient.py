"""A unit's text -> the D-Bus properties of StartTransientUnit, or why they would not be the same.

Owns the second encoding of directives. It starts from the rendered text, so that a user's template and raw
directives take part like everything else. Never talks to D-Bus.

systemd turns the properties into text again (/run/systemd/transient) and reads that at the next
daemon-reload. Not everything survives the way there and back: `$`, `;` and backslashes in arguments come out
changed on 252 and 257, and ExecStartEx=, which the prefixes need, is lost. Such a unit would start well and
be wrong after the next reload, so it is refused with the way out: --runtime writes real unit files, which
are gone at the next boot just as well.

A .socket, .timer or .path refuses to start before the unit it triggers is loaded, and a transient unit is
only loaded by starting it; so these are refused as a whole.

Rule: a directive that has no encoding in `sysresp.units.directives` is a reason, never left out.
"""

from __future__ import annotations

import errno
import signal
from collections.abc import Callable
from typing import cast

from sysresp.units import quote
from sysresp.units.desired import Unit, UnitFile
from sysresp.units.directives import TABLE
from sysresp.units.text import owner, parse

Property = tuple[str, str, object]
"""(name, D-Bus signature, value)"""

WAY_OUT = "way out: --runtime"

INFINITY = 2**64 - 1

_UNSTABLE = frozenset("$\\;")  # change on the way to text and back (unit_concat_strv in src/core/unit.c)

_SPANS = {
    **dict.fromkeys(("us", "usec", "µs"), 1),
    **dict.fromkeys(("ms", "msec"), 1000),
    **dict.fromkeys(("", "s", "sec", "second", "seconds"), 10**6),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 60 * 10**6),
    **dict.fromkeys(("h", "hr", "hour", "hours"), 3600 * 10**6),
    **dict.fromkeys(("d", "day", "days"), 86400 * 10**6),
    **dict.fromkeys(("w", "week", "weeks"), 7 * 86400 * 10**6),
}

_SIZES = {"": 1, "B": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40, "P": 2**50, "E": 2**60}

# In the order of their numbers: linux/capability.h
_CAPABILITIES = (
    "chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid",
    "setpcap", "linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw",
    "ipc_lock", "ipc_owner", "sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct",
    "sys_admin", "sys_boot", "sys_nice", "sys_resource", "sys_time", "sys_tty_config", "mknod", "lease",
    "audit_write", "audit_control", "setfcap", "mac_override", "mac_admin", "syslog", "wake_alarm",
    "block_suspend", "audit_read", "perfmon", "bpf", "checkpoint_restore",
)  # fmt: skip

_NAMESPACES = {  # linux/sched.h
    **{"cgroup": 0x02000000, "ipc": 0x08000000, "net": 0x40000000, "mnt": 0x00020000},
    **{"pid": 0x20000000, "user": 0x10000000, "uts": 0x04000000},
}


class Unfaithful(ValueError):
    """A transient unit cannot be told this so that it stays told."""


def encode(unit: Unit, file: UnitFile) -> tuple[list[Property], list[str]]:
    """Return the properties of the transient unit, and the reasons why they are not the same as the text.

    Properties are only to be used if there are no reasons. Targets cannot be transient: leave them out.
    """
    kind = unit.name.rpartition(".")[2]
    if kind not in ("service", "slice"):
        return [], [f".{kind}: systemd starts it only when the unit it triggers is loaded; {WAY_OUT}"]
    properties: dict[str, list[Property]] = {}
    reasons: list[str] = []
    target = f"{owner(file.text)}.target"
    for section, name, value in parse(file.text):
        if section.startswith("X-") or name.startswith("X-"):
            continue
        if section == "Install":
            # A transient unit is gone at boot, so that being pulled in by the target means nothing.
            if value != target:
                reasons.append(f"{name}: a transient unit cannot be enabled; {WAY_OUT}")
            continue
        try:
            encoder = _encoder(name)
            if value:
                properties.setdefault(name, []).extend(encoder(name, value, unit.instance))
            else:
                properties[name] = [(name, "t", 0)] if encoder is _capabilities else []
        except ValueError as why:
            reasons.append(f"{name}: {why}; {WAY_OUT}")
    return [one for several in properties.values() for one in _merged(several)], list(dict.fromkeys(reasons))


def _merged(several: list[Property]) -> list[Property]:
    """Return the lists of several lines as one property."""
    if len(several) < 2 or several[0][1] != "as":
        return several
    name, signature, _ = several[0]
    return [(name, signature, [word for _, _, words in several for word in cast("list[str]", words)])]


Encoder = Callable[[str, str, str], list[Property]]
"""(directive, value, instance) -> properties"""


def _encoder(name: str) -> Encoder:
    row = TABLE.get(name)
    if row is None or row.encoding not in _ENCODERS:
        raise Unfaithful("a transient unit cannot be given it")
    return _ENCODERS[row.encoding]


def _string(name: str, value: str, instance: str) -> list[Property]:
    return [(name, "s", quote.unspecified(value, instance))]


def _boolean(name: str, value: str, _instance: str) -> list[Property]:
    return [(name, "b", _flag(value))]


def _flag(value: str) -> bool:
    """Read a boolean as parse_boolean in src/basic/parse-util.c does."""
    lower = value.lower()
    if lower not in ("1", "yes", "y", "true", "t", "on", "0", "no", "n", "false", "f", "off"):
        raise Unfaithful(f"{value!r} is no boolean")
    return lower in ("1", "yes", "y", "true", "t", "on")


def _unsigned(name: str, value: str, _instance: str) -> list[Property]:
    return [(name, "u", int(value))]


def _signed(name: str, value: str, _instance: str) -> list[Property]:
    return [(name, "i", int(value))]


def _octal(name: str, value: str, _instance: str) -> list[Property]:
    return [(name, "u", int(value, 8))]


def _words(name: str, value: str, instance: str) -> list[Property]:
    return [(name, "as", [quote.unspecified(word, instance) for word in quote.split(value)])]


def _pages(name: str, value: str, instance: str) -> list[Property]:
    words = _words(name, value, instance)
    if "%" in quote.unspecified(value, instance):
        raise Unfaithful("% is taken for a specifier at the next daemon-reload")
    return words


def _time(name: str, value: str, _instance: str) -> list[Property]:
    return [(name.removesuffix("Sec") + "USec", "t", _usec(value))]


def _usec(value: str) -> int:
    if value == "infinity":
        return INFINITY
    total = 0.0
    for word in _numbers_apart(value).split():
        number = word.rstrip("abcdefghijklmnopqrstuvwxyzµ")
        unit = word[len(number) :]
        if unit not in _SPANS:
            raise Unfaithful(f"{value!r} is a time span that sysresp cannot read")
        total += float(number) * _SPANS[unit]
    return round(total)


def _numbers_apart(value: str) -> str:
    """Return "1min 30s" for "1min30s" and "1 min 30 s"."""
    out = ""
    for char in value.replace(" ", ""):
        starts_number = (char.isdigit() or char == ".") and out and not (out[-1].isdigit() or out[-1] == ".")
        out += f" {char}" if starts_number else char
    return out


def _size(name: str, value: str, _instance: str) -> list[Property]:
    if value.endswith("%"):
        permyriad = round(float(value[:-1]) * 100)
        return [(f"{name}Scale", "u", permyriad * (2**32 - 1) // 10000)]  # UINT32_SCALE_FROM_PERMYRIAD
    return [(name, "t", _bytes(value))]


def _bytes(value: str) -> int:
    if value == "infinity":
        return INFINITY
    unit = value[-1:] if value[-1:].isalpha() else ""
    if unit not in _SIZES:
        raise Unfaithful(f"{value!r} is a size that sysresp cannot read")
    return round(float(value.removesuffix(unit)) * _SIZES[unit])


def _weight(name: str, value: str, _instance: str) -> list[Property]:
    return [(name, "t", 0 if value == "idle" else int(value))]


def _quota(_name: str, value: str, _instance: str) -> list[Property]:
    return [("CPUQuotaPerSecUSec", "t", round(float(value.removesuffix("%")) * 10000))]


def _limit(name: str, value: str, _instance: str) -> list[Property]:
    soft, _, hard = value.partition(":")
    return [(name, "t", _bytes(hard or soft)), (f"{name}Soft", "t", _bytes(soft))]


def _exec(name: str, value: str, instance: str) -> list[Property]:
    program, *arguments = (quote.unspecified(word, instance) for word in quote.split(value))
    path = program.lstrip("-@:+!|")
    prefixes = program[: len(program) - len(path)]
    if prefixes.strip("-"):
        raise Unfaithful(f"the prefix {prefixes.strip('-')[0]!r} is lost at the next daemon-reload")
    for argument in (path, *arguments):
        if unstable := _UNSTABLE.intersection(argument):
            raise Unfaithful(
                f"{' '.join(sorted(unstable))} in the command {argument!r} changes at the next daemon-reload"
            )
        if not argument.isascii() and any("\ud800" <= char <= "\udfff" for char in argument):
            raise Unfaithful("an argument that is not UTF-8 cannot be sent over D-Bus")
    return [(name, "a(sasb)", [(path, [path, *arguments], "-" in prefixes)])]


def _files(name: str, value: str, instance: str) -> list[Property]:
    path = quote.unspecified(value, instance)
    return [(f"{name}s", "a(sb)", [(path.removeprefix("-"), path.startswith("-"))])]


def _credential(name: str, value: str, instance: str) -> list[Property]:
    ident, _, path = quote.unspecified(value, instance).partition(":")
    return [(name, "a(ss)", [(ident, path or ident)])]


def _capabilities(name: str, value: str, _instance: str) -> list[Property]:
    if value.startswith("~"):
        raise Unfaithful("an inverted set depends on the kernel's list of capabilities")
    return [(name, "t", sum(1 << _capability(word) for word in value.split()))]


def _capability(word: str) -> int:
    name = word.lower().removeprefix("cap_")
    if name not in _CAPABILITIES:
        raise Unfaithful(f"{word} is a capability that sysresp does not know")
    return _CAPABILITIES.index(name)


def _filter(name: str, value: str, _instance: str) -> list[Property]:
    return [(name, "(bas)", (not value.startswith("~"), value.removeprefix("~").split()))]


def _errno(name: str, value: str, _instance: str) -> list[Property]:
    number = getattr(errno, value, None)
    if number is None:
        raise Unfaithful(f"{value!r} is no error number that sysresp knows")
    return [(name, "i", number)]


def _namespaces(name: str, value: str, _instance: str) -> list[Property]:
    if set(value.split()) <= _NAMESPACES.keys():
        return [(name, "t", sum(_NAMESPACES[word] for word in value.split()))]
    if not _flag(value):
        return []  # the default
    return [(name, "t", 0)]


def _output(name: str, value: str, instance: str) -> list[Property]:
    kind, colon, path = quote.unspecified(value, instance).partition(":")
    suffixes = {"file": "File", "append": "FileToAppend", "truncate": "FileToTruncate"}
    if not colon:
        return [(name, "s", kind)]
    if kind not in suffixes:
        raise Unfaithful("a transient unit has no named file descriptors")
    return [(name + suffixes[kind], "s", path)]


def _status(name: str, value: str, _instance: str) -> list[Property]:
    codes: list[int] = []
    signals: list[int] = []
    for word in value.split():
        if word.isdigit():
            codes.append(int(word))
        else:
            signals.append(_signal_number(word))
    return [(name, "(aiai)", (codes, signals))]


def _signal(name: str, value: str, _instance: str) -> list[Property]:
    return [(name, "i", int(value) if value.isdigit() else _signal_number(value))]


def _signal_number(word: str) -> int:
    try:
        return int(signal.Signals[word if word.startswith("SIG") else f"SIG{word}"])
    except KeyError:
        raise Unfaithful(f"{word} is no signal that sysresp knows") from None


def _condition(name: str, value: str, instance: str) -> list[Property]:
    value = quote.unspecified(value, instance)
    trigger = value.startswith("|")
    value = value.removeprefix("|").lstrip()
    negate = value.startswith("!")
    kind = "Conditions" if name.startswith("Condition") else "Asserts"
    return [(kind, "a(sbbs)", [(name, trigger, negate, value.removeprefix("!").lstrip())])]


_ENCODERS: dict[str, Encoder] = {
    "s": _string,
    "directory": _string,
    "b": _boolean,
    "u": _unsigned,
    "i": _signed,
    "as": _words,
    "pages": _pages,
    "octal": _octal,
    "time": _time,
    "size": _size,
    "weight": _weight,
    "quota": _quota,
    "limit": _limit,
    "exec": _exec,
    "environment": _words,
    "files": _files,
    "credential": _credential,
    "capabilities": _capabilities,
    "filter": _filter,
    "errno": _errno,
    "namespaces": _namespaces,
    "output": _output,
    "status": _status,
    "signal": _signal,
    "condition": _condition,
}
