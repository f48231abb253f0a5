"""What the controller's own user may do, on real systemd with real polkit: little, and nothing of root's.

`guarded` has the account and the rule that a package installs. Every refusal is asked for over D-Bus as that
user, and then it is looked whether nothing has happened.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator

import pytest

from sysresp.cli import own_units
from sysresp.controller import own
from sysresp.errors import Exit
from sysresp.reconcile.manifest import Manifest, ManifestUnit, dumps
from tests.live.conftest import Box
from tests.live.installed import write_file

pytestmark = pytest.mark.live

ACCOUNT = own.ACCOUNT
RULE = "/etc/polkit-1/rules.d/50-sysresp.rules"
STATE = "/var/lib/sysresp-controller"
WEB = """
[services.web]
command = ["/bin/sleep", "infinity"]
reload = { signal = "CONT" }
[services.named]
command = ["/bin/sleep", "infinity"]
unit = "%s-has-its-own.service"
[services.many]
command = ["/bin/sleep", "infinity"]
instances = ["a-b", "c"]
[services.off]
command = ["/bin/sleep", "infinity"]
enabled = false
"""
FOREIGN = "[Service]\nExecStart=/bin/sleep infinity\n"
MARK = "/run/was-root"
AS_ROOT = ["1", "ExecStart", "a(sasb)", "1", "/usr/bin/touch", "2", "touch", MARK, "false", "0"]
"""Properties and no auxiliary units of a StartTransientUnit that leaves a mark."""


@pytest.fixture
def guarded(box: Box) -> Iterator[Box]:
    """A box with the account, polkit and the rule, one project applied, and units of somebody else's."""
    box.write("/etc/sysusers.d/sysresp.conf", own_units.SYSUSERS_TEXT)
    box.run(["systemd-sysusers", "/etc/sysusers.d/sysresp.conf"], check=True)
    box.write(RULE, own_units.rule().read_text())
    box.systemctl("reset-failed", "polkit.service", check=False)  # many tests, many starts
    box.systemctl("restart", "polkit.service")
    box.run(["install", "-d", "-o", ACCOUNT, "-m", "755", STATE], check=True)
    for name in (f"{box.project}-foreign.service", f"x{box.project}-web.service"):
        box.write(f"/etc/systemd/system/{name}", FOREIGN)
    box.systemctl("start", f"{box.project}-foreign.service", f"x{box.project}-web.service")
    box.sysresp("apply", write_file(box, WEB % box.project), check=True)
    yield box
    box.systemctl("stop", "polkit.service")
    box.run(["rm", "-f", RULE, "/etc/sysusers.d/sysresp.conf", MARK], check=True)


def ask(
    box: Box, method: str, signature: str, *values: str, user: str = ACCOUNT
) -> subprocess.CompletedProcess[str]:
    """Call a method of the manager as the controller's user."""
    where = ["org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"]
    return box.run(["busctl", "call", *where, method, signature, *values], user=user)


def is_denied(done: subprocess.CompletedProcess[str]) -> bool:
    return done.returncode != 0 and ("denied" in done.stderr.lower() or "authentication" in done.stderr)


VERBS = (
    *(("StopUnit", "ss", ["replace"]), ("RestartUnit", "ss", ["replace"])),
    *(("TryRestartUnit", "ss", ["replace"]), ("ReloadUnit", "ss", ["replace"])),
    *(("KillUnit", "ssi", ["all", "18"]), ("ResetFailedUnit", "s", [])),
)


@pytest.mark.parametrize("unit", ["{}-web", "{}-has-its-own", "{}-many@a-b"])
def test_it_may_do_its_work_on_what_was_applied(guarded: Box, unit: str) -> None:
    unit = unit.format(guarded.project) + ".service"
    for method, signature, values in VERBS:
        if method != "ReloadUnit" or "web" in unit:  # only that one can be reloaded
            done = ask(guarded, method, signature, unit, *values)
            assert done.returncode == 0, (method, done.stderr)
    before = guarded.show(unit, "InvocationID")
    assert ask(guarded, "RestartUnit", "ss", unit, "replace").returncode == 0
    guarded.systemctl("start", unit)  # waits for the job
    assert guarded.show(unit, "ActiveState") == "active"
    assert guarded.show(unit, "InvocationID") != before


def test_it_may_start_by_restart_what_is_down_and_not_loaded(guarded: Box) -> None:
    unit = f"{guarded.project}-off.service"
    assert ask(guarded, "RestartUnit", "ss", unit, "replace").returncode == 0
    guarded.systemctl("start", unit)
    assert guarded.show(unit, "ActiveState") == "active"


def test_the_command_does_what_polkit_allows(guarded: Box) -> None:
    """The project's lock is root's: who may not take it is told so, and asks all the same."""
    web = f"{guarded.project}-web.service"
    before = guarded.show(web, "MainPID")
    words = [guarded.python, "-m", "sysresp", "restart", "web", "--project", guarded.project]
    done = guarded.run(words, user="nobody")
    assert done.returncode == Exit.DENIED
    assert "does not allow" in done.stderr
    assert guarded.show(web, "MainPID") == before
    done = guarded.run(words, user=ACCOUNT)
    assert done.returncode == 0, done.stderr
    assert "goes on without it" in done.stderr
    assert guarded.show(web, "MainPID") not in ("0", before)


def test_units_of_others_are_out_of_reach(guarded: Box) -> None:
    names = [f"{guarded.project}-foreign.service", f"x{guarded.project}-web.service", "dbus.service"]
    # Also what is applied but no service, and names that nobody has.
    names += [f"{guarded.project}.target", f"{guarded.project}.slice", f"{guarded.project}-w.service"]
    pids = {name: guarded.show(name, "MainPID") for name in names[:3]}
    for name in names:
        for method, signature, values in VERBS:
            done = ask(guarded, method, signature, name, *values)
            assert done.returncode != 0, (method, name)
            assert is_denied(done) or "not loaded" in done.stderr or "not found" in done.stderr, done.stderr
    assert {name: guarded.show(name, "MainPID") for name in pids} == pids


def test_no_unit_of_its_own_making_runs(guarded: Box) -> None:
    mine = f"{guarded.project}-web.service"
    away = f"{guarded.project}-off.service"
    for name in (mine, away, "sysresp-evil.service", "sysresp.service", "sysresp-fallback.service"):
        for mode in ("replace", "fail"):
            done = ask(guarded, "StartTransientUnit", "ssa(sv)a(sa(sv))", name, mode, *AS_ROOT)
            assert done.returncode != 0, name
            if name != mine:  # that one exists
                assert is_denied(done), done.stderr
    for name in (mine, away):
        assert is_denied(ask(guarded, "StartUnit", "ss", name, "replace"))
        done = ask(guarded, "SetUnitProperties", "sba(sv)", name, "true", "1", "MemoryMax", "t", "1000000")
        assert is_denied(done), done.stderr
    assert not guarded.path(MARK).exists()


def test_systemd_itself_is_out_of_reach(guarded: Box) -> None:
    mine = f"{guarded.project}-web.service"
    for method, signature, *values in (
        ("Reload", ""),
        ("Reexecute", ""),
        ("ResetFailed", ""),
        ("EnableUnitFiles", "asbb", "1", mine, "false", "false"),
        ("DisableUnitFiles", "asb", "1", mine, "false"),
        ("MaskUnitFiles", "asbb", "1", mine, "false", "false"),
        ("LinkUnitFiles", "asbb", "1", f"{STATE}/evil.service", "false", "false"),
        ("AddDependencyUnitFiles", "asssbb", "1", mine, "multi-user.target", "Wants", "false", "false"),
        ("SetEnvironment", "as", "1", "LD_PRELOAD=/evil.so"),
        ("UnsetEnvironment", "as", "1", "PATH"),
        ("RefUnit", "s", mine),
        ("FreezeUnit", "s", mine),
        ("CleanUnit", "sas", mine, "1", "state"),
        ("CancelJob", "u", "1"),
        ("KillUnit", "ssi", "init.scope", "all", "9"),
        ("Exit", ""),
    ):
        done = ask(guarded, method, signature, *values)
        assert done.returncode != 0, method
        assert is_denied(done) or method in {"CancelJob", "Exit"}, (method, done.stderr)
    assert guarded.show(mine, "ActiveState") == "active"


def test_nobody_else_gains_anything(guarded: Box) -> None:
    for method, signature, values in VERBS:
        done = ask(guarded, method, signature, f"{guarded.project}-web.service", *values, user="nobody")
        assert is_denied(done), done.stderr


def test_roots_directories_are_out_of_reach(guarded: Box) -> None:
    for path in ("/etc/systemd/system", "/run/systemd/system", "/run/systemd/transient", "/var/lib/sysresp"):
        assert guarded.run(["touch", f"{path}/evil.service"], user=ACCOUNT).returncode != 0
        assert guarded.run(["ln", "-s", "/etc", f"{path}/evil"], user=ACCOUNT).returncode != 0
    for path in ("/run/sysresp", f"/var/lib/sysresp/{guarded.project}.json", "/run/sysresp/evil.json"):
        assert guarded.run(["sh", "-c", f": >> {path}"], user=ACCOUNT).returncode != 0
        assert guarded.run(["mv", path, f"{STATE}/"], user=ACCOUNT).returncode != 0
    assert guarded.run(["mv", STATE, "/var/lib/sysresp-moved"], user=ACCOUNT).returncode != 0


def fake_manifest(unit: str) -> str:
    """Return what would make this unit one of ours, if it were where manifests are."""
    row = ManifestUnit(unit, unit, "evil", "", True, True, True, "/x", 1, "0" * 64)
    return dumps(Manifest("evil", units=(row,))).decode()


def test_a_manifest_of_its_own_is_not_looked_at(guarded: Box) -> None:
    unit = f"{guarded.project}-foreign.service"
    for path in (f"{STATE}/evil.json", "/tmp/evil.json", "/var/tmp/evil.json"):
        guarded.run(["tee", path], user=ACCOUNT, input=fake_manifest(unit), check=True)
    assert is_denied(ask(guarded, "RestartUnit", "ss", unit, "replace"))
    # The same file where only root can put it makes the difference; one of a former generation does not.
    guarded.write("/var/lib/sysresp/generations/evil/1.json", fake_manifest(unit))
    guarded.write("/var/lib/sysresp/evil.json.part", fake_manifest(unit))
    assert is_denied(ask(guarded, "RestartUnit", "ss", unit, "replace"))
    guarded.run(["ln", "-s", f"{STATE}/evil.json", "/var/lib/sysresp/linked.json"], check=True)
    assert is_denied(ask(guarded, "RestartUnit", "ss", unit, "replace")), "a link is not followed"
    guarded.run(["rm", "/var/lib/sysresp/linked.json"], check=True)
    for state in ("/var/lib/sysresp", "/run/sysresp"):
        guarded.write(f"{state}/evil.json", fake_manifest(unit))
        assert ask(guarded, "RestartUnit", "ss", unit, "replace").returncode == 0
        guarded.run(["rm", f"{state}/evil.json"], check=True)


def test_a_unit_is_ours_by_its_whole_name(guarded: Box) -> None:
    """Nothing that a manifest says besides, and no pattern, makes a unit ours."""
    unit = f"{guarded.project}-foreign.service"
    quoted = json.dumps({"name": unit, "file": unit})
    row = ManifestUnit("a.service", "a.service", quoted, quoted, True, True, True, quoted, 1, "")
    manifest = Manifest("evil", source=(quoted,), units=(row,), files=(unit, quoted), accepted=(quoted,))
    guarded.write("/var/lib/sysresp/evil.json", dumps(manifest).decode())
    for name in (f"{guarded.project}.web.service", f"{guarded.project}-web\\x22.service"):
        guarded.write(f"/etc/systemd/system/{name}", FOREIGN)
        assert is_denied(ask(guarded, "RestartUnit", "ss", name, "replace"))
    assert is_denied(ask(guarded, "RestartUnit", "ss", unit, "replace"))


def test_it_may_restart_itself_and_nothing_more(guarded: Box) -> None:
    guarded.write("/etc/systemd/system/sysresp.service", FOREIGN)
    guarded.systemctl("start", "sysresp.service")
    assert ask(guarded, "RestartUnit", "ss", "sysresp.service", "replace").returncode == 0
    assert ask(guarded, "ResetFailedUnit", "s", "sysresp.service").returncode == 0
    assert is_denied(ask(guarded, "StopUnit", "ss", "sysresp.service", "replace"))
    assert is_denied(ask(guarded, "KillUnit", "ssi", "sysresp.service", "all", "9"))


def test_what_a_decision_costs(guarded: Box) -> None:
    """A thousand units are looked through in milliseconds, and a refusal costs as much as a permission."""
    rows = tuple(
        ManifestUnit(f"big-{n}.service", f"big-{n}.service", f"{n}", "", True, True, True, "/x", n, "0" * 64)
        for n in range(1000)
    )
    guarded.write("/var/lib/sysresp/big.json", dumps(Manifest("big", units=rows)).decode())
    unit = f"{guarded.project}-web.service"

    def median_ms(user: str | None) -> float:
        took = []
        for _ in range(9):
            began = time.monotonic()
            done = ask(guarded, "ResetFailedUnit", "s", unit, user=user or "root")
            took.append(time.monotonic() - began)
            assert done.returncode == 0, done.stderr
        return sorted(took)[4] * 1000

    cost = median_ms(ACCOUNT) - median_ms(None)
    assert cost < 500, f"{cost:.1f} ms for each decision of polkit"
    print(f"{guarded.version}: {cost:.1f} ms for each decision of polkit")


@pytest.mark.slow
def test_what_it_leaves_in_its_directory_leads_root_nowhere(guarded: Box) -> None:
    """Links, pipes and rubbish where root's own commands look: nothing is followed, made or waited for."""
    guarded.write("/root/secret", '{"when": 1, "lines": ["a secret"]}', 0o600)
    make = "import sqlite3; d = sqlite3.connect('/root/a.db'); d.execute('PRAGMA journal_mode = WAL');"
    guarded.run(["python3", "-c", f"{make} d.execute('CREATE TABLE note (a)'); d.close()"], check=True)
    guarded.write("/etc/systemd/system/sysresp.service", FOREIGN)
    names = ("fallback.json", "ledger.db", "ledger.db-wal", "ledger.db-shm", "ledger.db-journal")
    tricks = (
        *("ln -s /root/secret @", "ln -s /root/a.db @", "ln -s /root/made @", "ln -s /dev/zero @"),
        *("mkfifo @", "mkdir @", "head -c 3000000 /dev/zero >@", 'printf \'{"when": "1e999"}\' >@'),
        "printf '%0100000d' 0 | tr 0 '[' >@",
    )
    listing = ["ls", "-la", "--time-style=full-iso", "/root", "/etc/systemd/system"]
    before = guarded.run(listing).stdout
    for trick in tricks:
        for name in names:
            script = f"rm -rf {STATE}/*; {trick.replace('@', f'{STATE}/{name}')}"
            guarded.run(["sh", "-c", script], user=ACCOUNT, check=True)
            both = name in names[:2]
            for words in (["controller", "status", "--json"], ["status"])[: 1 + both]:
                done = guarded.sysresp(*words, timeout=20)
                assert done.returncode in {0, 3}, (trick, name, done.stderr)
                assert "secret" not in done.stdout + done.stderr
                assert "Traceback" not in done.stderr
    assert guarded.run(listing).stdout == before
    guarded.run(["rm", "-rf", "/root/secret", "/root/a.db"], check=True)
