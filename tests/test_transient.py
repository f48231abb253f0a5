"""The D-Bus encoding of rendered units, and what it refuses."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from sysresp.model import Command, Hardening, Origin, Service, Spec
from sysresp.units.desired import Unit, UnitFile
from sysresp.units.render import render
from sysresp.units.transient import INFINITY, WAY_OUT, Property, encode
from tests.strategies import specs

SIGNATURES = {
    *("s", "b", "u", "i", "t", "as"),
    *("a(sasb)", "a(sb)", "a(ss)", "(bas)", "(aiai)", "a(sbbs)"),
}


def encoded(line: str, section: str = "Service", instance: str = "") -> tuple[list[Property], list[str]]:
    text = f"[{section}]\n{line}\n\n[X-Sysresp]\nProject=shop\n"
    name = "shop-x.service"
    return encode(Unit(name=name, file=name, instance=instance), UnitFile(name, text))


@pytest.mark.parametrize(
    ("line", "properties"),
    [
        ("Type=exec", [("Type", "s", "exec")]),
        ("User=u%i%%", [("User", "s", "u7%")]),
        ("WorkingDirectory=/a b", [("WorkingDirectory", "s", "/a b")]),
        ("RemainAfterExit=yes", [("RemainAfterExit", "b", True)]),
        ("RemainAfterExit=0", [("RemainAfterExit", "b", False)]),
        ("Nice=-5", [("Nice", "i", -5)]),
        ("StartLimitBurst=3", [("StartLimitBurst", "u", 3)]),
        ("UMask=0027", [("UMask", "u", 0o27)]),
        ('After=a.service "b.service"', [("After", "as", ["a.service", "b.service"])]),
        ("After=a\nAfter=b", [("After", "as", ["a", "b"])]),
        ("Documentation=man:x(8)", [("Documentation", "as", ["man:x(8)"])]),
        ("RestartSec=1min 30s", [("RestartUSec", "t", 90_000_000)]),
        ("RestartSec=1h1.5s20ms", [("RestartUSec", "t", 3_601_520_000)]),
        ("RestartSec=5", [("RestartUSec", "t", 5_000_000)]),
        ("StartLimitIntervalSec=0", [("StartLimitIntervalUSec", "t", 0)]),
        ("RuntimeMaxSec=infinity", [("RuntimeMaxUSec", "t", INFINITY)]),
        ("MemoryMax=10%", [("MemoryMaxScale", "u", 429496729)]),
        ("MemoryMax=512M", [("MemoryMax", "t", 2**29)]),
        ("MemoryMax=1.5K", [("MemoryMax", "t", 1536)]),
        ("TasksMax=infinity", [("TasksMax", "t", INFINITY)]),
        ("CPUWeight=50", [("CPUWeight", "t", 50)]),
        ("CPUWeight=idle", [("CPUWeight", "t", 0)]),
        ("CPUQuota=150%", [("CPUQuotaPerSecUSec", "t", 1_500_000)]),
        ("LimitNOFILE=1024:2048", [("LimitNOFILE", "t", 2048), ("LimitNOFILESoft", "t", 1024)]),
        ("LimitCORE=infinity", [("LimitCORE", "t", INFINITY), ("LimitCORESoft", "t", INFINITY)]),
        ('ExecStart=/a "b c" 5%%%i', [("ExecStart", "a(sasb)", [("/a", ["/a", "b c", "5%7"], False)])]),
        ("ExecStop=-/bin/x", [("ExecStop", "a(sasb)", [("/bin/x", ["/bin/x"], True)])]),
        ('Environment="A=\\n$x\\\\"', [("Environment", "as", ["A=\n$x\\"])]),
        ("EnvironmentFile=-/a b", [("EnvironmentFiles", "a(sb)", [("/a b", True)])]),
        ("LoadCredential=k:/a:b", [("LoadCredential", "a(ss)", [("k", "/a:b")])]),
        ("LoadCredential=k", [("LoadCredential", "a(ss)", [("k", "k")])]),
        ("CapabilityBoundingSet=", [("CapabilityBoundingSet", "t", 0)]),
        ("AmbientCapabilities=CAP_NET_BIND_SERVICE CAP_CHOWN", [("AmbientCapabilities", "t", 1025)]),
        ("SystemCallFilter=~@a @b", [("SystemCallFilter", "(bas)", (False, ["@a", "@b"]))]),
        ("RestrictAddressFamilies=AF_UNIX", [("RestrictAddressFamilies", "(bas)", (True, ["AF_UNIX"]))]),
        ("SystemCallErrorNumber=EPERM", [("SystemCallErrorNumber", "i", 1)]),
        ("RestrictNamespaces=yes", [("RestrictNamespaces", "t", 0)]),
        ("RestrictNamespaces=no", []),
        ("RestrictNamespaces=net pid", [("RestrictNamespaces", "t", 0x60000000)]),
        ("StandardOutput=null", [("StandardOutput", "s", "null")]),
        ("StandardError=append:/x y", [("StandardErrorFileToAppend", "s", "/x y")]),
        ("SuccessExitStatus=1 SIGTERM HUP", [("SuccessExitStatus", "(aiai)", ([1], [15, 1]))]),
        ("KillSignal=SIGINT", [("KillSignal", "i", 2)]),
        ("KillSignal=9", [("KillSignal", "i", 9)]),
        ("ConditionHost=|!a%%", [("Conditions", "a(sbbs)", [("ConditionHost", True, True, "a%")])]),
        ("AssertPathExists=/a", [("Asserts", "a(sbbs)", [("AssertPathExists", False, False, "/a")])]),
        ("X-Mine=1", []),
        ("Environment=A=1\nEnvironment=\nEnvironment=B=2", [("Environment", "as", ["B=2"])]),
    ],
)  # fmt: skip
def test_encoding(line: str, properties: list[Property]) -> None:
    assert encoded(line, instance="7") == (properties, [])


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("ExecStart=/bin/x $$HOME", "$ in the command"),
        ("ExecStart=/bin/x a\\\\b", "\\ in the command"),
        ('ExecStart=/bin/x ";"', "; in the command"),
        ('ExecStart=/bin/x "\\xe9"', "not UTF-8"),
        ("ExecStart=+/bin/x", "prefix '+'"),
        ('ExecStart=":/bin/$x"', "prefix ':'"),
        ("ExecStart=/bin/%n", "specifier %n"),
        ("Sockets=a.socket", "cannot be given"),
        ("NoSuchDirective=1", "cannot be given"),
        ("Documentation=https://x/a%%20b", "specifier"),
        ("RestartSec=soon", "time span"),
        ("RestartSec=5 fortnights", "time span"),
        ("MemoryMax=5X", "size"),
        ("Nice=high", "invalid literal"),
        ("RemainAfterExit=maybe", "no boolean"),
        ("CapabilityBoundingSet=~CAP_CHOWN", "inverted"),
        ("CapabilityBoundingSet=CAP_X", "does not know"),
        ("SystemCallErrorNumber=kill", "error number"),
        ("StandardOutput=fd:x", "file descriptors"),
        ("KillSignal=SIGFOO", "signal"),
        ("RestrictNamespaces=~net", "boolean"),
    ],
)
def test_reasons(line: str, why: str) -> None:
    _, reasons = encoded(line)
    assert len(reasons) == 1
    assert reasons[0].startswith(line.partition("=")[0] + ": ")
    assert why in reasons[0]
    assert reasons[0].endswith(WAY_OUT)


def test_install() -> None:
    assert encoded("WantedBy=shop.target", "Install") == ([], [])
    assert encoded("WantedBy=multi-user.target", "Install")[1] == [
        f"WantedBy: a transient unit cannot be enabled; {WAY_OUT}"
    ]


@pytest.mark.parametrize("kind", ["socket", "timer", "path"])
def test_triggering_units_are_refused(kind: str) -> None:
    name = f"shop-x.{kind}"
    properties, (reason,) = encode(Unit(name=name, file=name), UnitFile(name, ""))
    assert not properties
    assert reason.startswith(f".{kind}: ")
    assert reason.endswith(WAY_OUT)


@pytest.mark.parametrize("profile", ["off", "web", "strict", "strict-jit"])
def test_every_profile_can_be_encoded(profile: str) -> None:
    one = Service(
        name="x", origin=Origin(), command=(Command(("/bin/true",)),), hardening=Hardening(profile)
    )
    made = render(Spec(project="p", origin=Origin(), services={"x": one}), version=257).desired
    for unit in made.units.values():
        if not unit.name.endswith(".target"):
            assert encode(unit, made.files[unit.file])[1] == []


@settings(max_examples=20, deadline=None)
@given(specs())
def test_what_is_encoded_is_plain(what: Spec) -> None:
    made = render(what, version=252).desired
    for unit in made.units.values():
        properties, reasons = encode(unit, made.files[unit.file])
        assert all(reason.endswith(WAY_OUT) for reason in reasons)
        for name, signature, _ in properties:
            assert name.isalnum()
            assert signature in SIGNATURES
