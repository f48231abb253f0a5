"""Directives by name: conditions, raw sections, and what may be left out of a hardening profile.

Owns which directives of unit files a user may name, and how their values become text. Never decides what a
unit contains. Rule: a value that would end its line, or the unit file, is refused.
"""

from __future__ import annotations

import re
from typing import Any

from sysresp.spec.report import At, near, show
from sysresp.spec.types import Bool, Choice, Converted, Int, Key, ListOf, MapOf, Schema, Str, Table, Type

_CONDITIONS = (
    *(
        "Architecture",
        "Firmware",
        "Virtualization",
        "Host",
        "KernelCommandLine",
        "KernelVersion",
        "Credential",
    ),
    *("Environment", "Security", "Capability", "ACPower", "NeedsUpdate", "FirstBoot", "PathExists"),
    *("PathExistsGlob", "PathIsDirectory", "PathIsSymbolicLink", "PathIsMountPoint", "PathIsReadWrite"),
    *("PathIsEncrypted", "DirectoryNotEmpty", "FileNotEmpty", "FileIsExecutable", "User", "Group"),
    *(
        "ControlGroupController",
        "Memory",
        "CPUs",
        "CPUFeature",
        "OSRelease",
        "MemoryPressure",
        "CPUPressure",
    ),
    "IOPressure",
)


def snake(directive: str) -> str:
    """Return the key for a directive: PathExists -> path_exists, ACPower -> ac_power, CPUs -> cpus."""
    if directive == "CPUs":
        return "cpus"
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", directive).lower()


_RAW_TEXT = Choice(
    {
        str: Str(),
        bool: Converted(Bool(), lambda value, _at: "yes" if value else "no"),
        int: Converted(Int(-(1 << 63), (1 << 64) - 1), lambda number, _at: str(number)),
    },
    "a text, a number, or true or false",
)


def _any_of(item: Type) -> Choice:
    one = Converted(item, lambda value, _at: (value,))
    return Choice(
        {str: one, bool: one, int: one, list: ListOf(item, single=False, unique=False)},
        f"{item.text}, or an array of them",
    )


def _conditions(values: dict[str, Any], _at: At) -> Any:
    return values


_ON_PATHS = re.compile(r"Path|DirectoryNotEmpty|FileNotEmpty|FileIsExecutable|NeedsUpdate")


def _path_condition(text: str, at: At) -> Any:
    """Check a condition on a path: config_parse_unit_condition_path() ignores one that is not absolute."""
    if text and not text.removeprefix("|").removeprefix("!").startswith("/"):
        what = f'must be an absolute path, perhaps with "|" and "!" before it, got {show(text)}'
        return at.error(what, "begin it with /")
    return text


_PATH_CONDITION = Str('an absolute path, perhaps with "|" and "!" before it', _path_condition)

CONDITIONS = Table(
    [
        Key(
            snake(name),
            _any_of(_PATH_CONDITION if _ON_PATHS.search(name) else _RAW_TEXT),
            f"Condition{name}= of systemd.unit(5)",
            '"/etc/shop/enabled"' if "Path" in name else '"..."',
            field=f"Condition{name}",
        )
        for name in _CONDITIONS
    ],
    _conditions,
    'a table of conditions such as { path_exists = "/etc/shop" }',
)


SECTIONS = ("Unit", "Service", "Install", "Socket", "Timer", "Path")


class _Float(Type):
    text = "a number"

    def parse(self, value: object, at: At) -> Any:
        return repr(value) if isinstance(value, float) and abs(value) < 1e15 else self.wrong(value, at)

    def schema(self) -> Schema:
        return {"type": "number"}


_DIRECTIVE_VALUE = Choice({**_RAW_TEXT.choices, float: _Float()}, _RAW_TEXT.text)
DIRECTIVES = MapOf(
    Str(
        "a directive's name",
        pattern=r"[A-Z][A-Za-z0-9]*|X-[A-Za-z0-9-]+",
        fix='write it as in unit files, such as "LimitCORE"',
    ),
    Choice(
        {
            **{
                kind: Converted(_DIRECTIVE_VALUE, lambda value, _at: (value,))
                for kind in (str, bool, int, float)
            },
            list: ListOf(_DIRECTIVE_VALUE, single=False, unique=False),
        },
        f"{_DIRECTIVE_VALUE.text}, or an array of them",
    ),
    "a table of directives",
)


def _sections(values: dict[str, Any], _at: At) -> Any:
    return values


SYSTEMD = Table(
    [
        Key(
            name,
            DIRECTIVES,
            f"Directives for the [{name}] section, as in a unit file",
            '{ Directive = "value" }',
        )
        for name in SECTIONS
    ],
    _sections,
    "a table of sections",
)


HARDENING = (
    *(
        "NoNewPrivileges",
        "ProtectSystem",
        "ProtectHome",
        "PrivateTmp",
        "PrivateDevices",
        "PrivateUsers",
        "PrivateIPC",
    ),
    *(
        "ProtectHostname",
        "ProtectClock",
        "ProtectKernelTunables",
        "ProtectKernelModules",
        "ProtectKernelLogs",
    ),
    *("ProtectControlGroups", "ProtectProc", "ProcSubset", "RestrictAddressFamilies", "RestrictNamespaces"),
    *("RestrictRealtime", "RestrictSUIDSGID", "LockPersonality", "MemoryDenyWriteExecute"),
    *("SystemCallArchitectures", "SystemCallFilter", "SystemCallErrorNumber", "CapabilityBoundingSet"),
    *("AmbientCapabilities", "RemoveIPC", "UMask", "DevicePolicy", "KeyringMode", "SecureBits"),
)
"""Directives that a profile may set, so that `except` may leave them out."""


def _exception(text: str, at: At) -> Any:
    if text in HARDENING:
        return text
    return at.error(
        f"is no directive of a profile: {show(text)}",
        near(text, HARDENING) or "see the profiles in the manual",
    )


EXCEPTIONS = ListOf(Str("a directive of the profile, such as ProtectHome", _exception))
