"""`sysresp doctor`: what follows from the facts of a host, in words, and that every limit has its mend."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysresp.cli import doctor_facts, hosts
from sysresp.cli.doctor_checks import (
    LACKS,
    Controller,
    Directory,
    Facts,
    Finding,
    Level,
    diagnose,
    is_well,
)
from sysresp.errors import Exit
from sysresp.units.directives import TABLE
from tests.test_cli import World

PACKAGES = {"jinja2": "3.1.2", "pystemd": "0.11.0", "tomli-w": "1.0.0", "typer": "0.7.0"}
WELL = Facts(packages=PACKAGES)
BAD = {Level.LIMIT, Level.MISSING}


def bad(**changes: Any) -> list[Finding]:
    """Return what is wrong with a host that is well but for this."""
    return [found for found in diagnose(WELL._replace(**changes)) if found.level in BAD]


def test_a_host_that_is_well() -> None:
    findings = diagnose(WELL)
    assert is_well(findings)
    assert {found.level for found in findings} == {Level.OK}
    assert len({found.check for found in findings}) == len(findings)
    assert is_well(diagnose(WELL._replace(is_user=True, uid=1000, account="ann")))


@pytest.mark.parametrize(
    ("changes", "check", "what", "fix"),
    [
        ({"python": (3, 9, 2)}, "python", "Python 3.9.2 is too old", "newer Python"),
        ({"packages": PACKAGES | {"pystemd": ""}}, "pystemd", "cannot be imported", "libsystemd-dev"),
        ({"packages": PACKAGES | {"typer": "0.6.1"}}, "typer", "0.6.1 is older than 0.7", "typer>=0.7"),
        ({"is_booted": False, "pid1": "bash"}, "systemd", "PID 1 is bash, not systemd", "rehearse"),
        ({"version": 241}, "systemd", "241 is older than 247", "upgrade"),
        ({"version": 247, "controller": Controller()}, "systemd", "delays do not grow", "controller"),
        ({"manager_trouble": ("D-Bus cannot be reached", "start it")}, "systemd", "D-Bus", "start it"),
        ({"has_bus": False}, "dbus", "no D-Bus", "apt install dbus"),
        ({"polkit": ""}, "polkit", "no polkit", "apt install polkitd"),
        ({"polkit": "0.105"}, "polkit", "takes no rules", "upgrade polkit"),
        ({"has_rule": False}, "polkit", "no polkit rule", "--create-user"),
        ({"has_account": False}, "polkit", 'no user "sysresp"', "--create-user"),
        ({"journal": "volatile"}, "journal", "only in memory", "mkdir -p /var/log/journal"),
        ({"journal": "none"}, "journal", "no journal", "systemd-journald"),
        (
            {"can_read_journal": False, "account": "ann", "uid": 1000},
            "journal-access",
            "ann cannot read",
            "usermod --append --groups systemd-journal ann",
        ),
        ({"cgroup": "hybrid"}, "cgroup", "version 1 (hybrid)", "unified_cgroup_hierarchy"),
        (
            {"is_user": True, "account": "ann", "uid": 1000, "lingers": False, "has_session": False},
            "session",
            "ann has no session",
            "loginctl enable-linger ann; then export XDG_RUNTIME_DIR=/run/user/1000",
        ),
        ({"is_user": True, "account": "ann", "lingers": False}, "linger", "not linger", "enable-linger ann"),
        ({"directories": (Directory("/d", owner=7),)}, "directories", "UID 7", "chown root /d"),
        ({"directories": (Directory("/d", mode=0o775),)}, "directories", "mode 775", "chmod go-w /d"),
        ({"directories": (Directory("/d", is_read_only=True),)}, "directories", "read-only", "--runtime"),
        ({"controller": Controller()}, "controller", "not installed", "sysresp controller enable"),
        ({"controller": Controller("masked")}, "controller", "masked", "unmask"),
        (
            {"controller": Controller("loaded", "failed", "exit-code", is_enabled=True)},
            "controller",
            "failed (exit-code)",
            "sysresp controller status",
        ),
        ({"controller": Controller("loaded", "active")}, "controller", "not started at boot", "enable"),
    ],
)
def test_what_is_wrong_is_said_with_its_mend(
    changes: dict[str, Any], check: str, what: str, fix: str
) -> None:
    found = bad(**changes)
    assert check in {one.check for one in found}
    told = next(one for one in found if one.check == check)
    assert what in told.what
    assert fix in told.fix
    assert told.why
    others = {one.check for one in found} - {check}
    # What follows from the same cause is told as well; anything else would be made up.
    assert others <= {"session": {"linger"}, "systemd": {"controller"}}.get(check, set())


def test_what_is_taken_care_of_is_a_note() -> None:
    root = Controller("loaded", "active", is_enabled=True)
    for changes, check, words in (
        ({"version": 252}, "systemd", "the controller makes delays grow"),
        ({"polkit": "", "controller": root}, "polkit", "as root (without capabilities)"),
        ({"version": 300}, "systemd-new", "not been tried"),
    ):
        found = {one.check: one for one in diagnose(WELL._replace(**changes))}  # type: ignore[arg-type]
        assert found[check].level is Level.NOTE
        assert words in found[check].why
        assert not bad(**changes)  # type: ignore[arg-type]


def test_what_older_versions_lack_is_by_the_table() -> None:
    for name, words in LACKS:
        since = TABLE[name].since
        assert since > 247, "nothing that is written for lacks it"
        told = {v: next(f for f in diagnose(WELL._replace(version=v)) if f.check == "systemd") for v in
                (since - 1, since)}  # fmt: skip
        assert words in told[since - 1].what
        assert words not in told[since].what


facts = st.builds(
    Facts,
    python=st.sampled_from([(3, 9, 2), (3, 13, 5)]),
    packages=st.dictionaries(st.sampled_from(sorted(PACKAGES)), st.sampled_from(["", "?", "0.1", "9"])),
    is_user=st.booleans(),
    uid=st.sampled_from([0, 1000]),
    is_booted=st.booleans(),
    version=st.integers(0, 300),
    manager_trouble=st.sampled_from([("", ""), ("nobody answers", "wait")]),
    has_bus=st.booleans(),
    polkit=st.sampled_from(["", "?", "0.105", "0.120", "121", "126"]),
    has_rule=st.booleans(),
    has_account=st.booleans(),
    journal=st.sampled_from(["persistent", "volatile", "none"]),
    can_read_journal=st.booleans(),
    cgroup=st.sampled_from(["unified", "hybrid", "legacy"]),
    lingers=st.booleans(),
    has_session=st.booleans(),
    controller=st.builds(
        Controller,
        load=st.sampled_from(["loaded", "not-found", "masked"]),
        active=st.sampled_from(["active", "activating", "inactive", "failed"]),
        is_enabled=st.booleans(),
        account=st.sampled_from(["", "root", "sysresp"]),
    ),
)


@given(facts)
def test_no_finding_without_a_mend(drawn: Facts) -> None:
    for found in diagnose(drawn):
        assert found.what
        if found.level in BAD:
            assert found.why
            assert found.fix or found.check == "systemd", found


@pytest.mark.filterwarnings("ignore:'autocompletion' is renamed:DeprecationWarning")
def test_the_command() -> None:
    world = World()
    token = hosts.open_host.set(lambda _scope, _mode: world.host)
    try:
        told = json.loads(world.run("doctor", "--json", status=None))
        world.run("doctor", status=Exit.OK if told["well"] else Exit.NOT_WELL)
    finally:
        hosts.open_host.reset(token)
    assert {found["level"] for found in told["findings"]} <= set(Level)
    assert told["facts"]["packages"]["jinja2"]


@pytest.mark.parametrize(
    ("lines", "kind"),
    [
        (["/sys/fs/cgroup rw - cgroup2 cgroup rw"], "unified"),
        (["/sys/fs/cgroup rw - tmpfs tmpfs rw", "/sys/fs/cgroup/unified rw - cgroup2 cgroup rw"], "hybrid"),
        (["/sys/fs/cgroup rw - tmpfs tmpfs rw", "/sys/fs/cgroup/cpu rw - cgroup cgroup rw"], "legacy"),
    ],
)
def test_the_hierarchy_of_cgroups(lines: list[str], kind: str) -> None:
    assert doctor_facts.cgroup("\n".join(f"30 20 0:26 / {line}" for line in lines)) == kind
