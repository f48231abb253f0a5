"""The controller's own unit, installed by `sysresp controller enable`, on real systemd.

What runs in it is a stand-in (tests/live/standin.py) in a copy of this package: these tests are about the
unit, its sandbox, its account, and what happens if the code does not run.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sysresp.cli import own_units
from sysresp.controller import own
from sysresp.errors import Exit
from tests.live.conftest import TOP, USER, Box
from tests.live.installed import write_file
from tests.live.until import until

pytestmark = pytest.mark.live

COPY = "/srv/standin"
ENV = {"PYTHONPATH": COPY}
STATE = "/var/lib/sysresp-controller"
WEB = '[services.web]\ncommand = ["/bin/sh", "-c", "echo hello; exec sleep infinity"]\n'
FOREIGN = "[Service]\nExecStart=/bin/sleep infinity\n"


@pytest.fixture
def copied(box: Box) -> Iterator[Box]:
    """A box with a copy of the package whose daemon is the stand-in, and one project applied."""
    skip = shutil.ignore_patterns("__pycache__")
    for name in ("sysresp", "templates", "packaging/polkit"):
        shutil.copytree(TOP / name, box.path(f"{COPY}/{name}"), ignore=skip)
    box.run(["chmod", "-R", "go-w,a+rX", COPY], check=True)  # whatever the checkout's umask was
    standin = (Path(__file__).parent / "standin.py").read_text()
    box.write(f"{COPY}/sysresp/cli/daemon.py", standin)
    box.write(f"/etc/systemd/system/{box.project}-foreign.service", FOREIGN)
    box.systemctl("start", f"{box.project}-foreign.service")
    box.sysresp("apply", write_file(box, WEB), check=True)
    wishes = {"unit": f"{box.project}-web.service", "foreign": f"{box.project}-foreign.service"}
    box.write(f"{COPY}/wishes.json", json.dumps({**wishes, "state_dir": "/var/lib/sysresp"}))
    yield box
    controller(box, "disable")
    box.run(["systemctl", "stop", "polkit.service"])
    rule = f"/etc/polkit-1/rules.d/{own_units.RULE}"
    box.run(["rm", "-rf", COPY, rule, "/etc/sysusers.d/sysresp.conf"], check=True)
    box.run(["userdel", own.ACCOUNT])


def controller(box: Box, *args: str, user: str | None = None, check: bool = False) -> Any:
    return box.sysresp("controller", *args, env=ENV, user=user, check=check)


def status(box: Box, *args: str, user: str | None = None) -> dict[str, Any]:
    """Return what `controller status` says, by this checkout's code, whatever has become of the copy."""
    found: dict[str, Any] = json.loads(
        box.sysresp("controller", "status", "--json", *args, user=user).stdout
    )
    return found


def findings(box: Box) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(box.read(f"{STATE}/findings.json"))
    return found


@pytest.mark.parametrize("way", ["own user", "root"])
def test_the_unit_lets_it_work_and_no_more(copied: Box, way: str) -> None:
    words = ["--create-user"] if way == "own user" else []
    done = controller(copied, "enable", *words)
    assert done.returncode == 0, done.stderr
    found = findings(copied)
    is_root = way == "root"
    assert ("as root without capabilities" in done.stderr) is is_root
    assert (found["uid"] == 0) is is_root
    assert isinstance(found["restart"], int), found
    assert found["kill"] == found["reset_failed"] == found["internet"] == "done", found
    assert found["exec"] == found["inotify"] == 0, found
    assert "hello" in found["journal"], found
    assert len(found["boot_id"].strip()) == 36
    assert found["read_state"] == 2  # the project's manifest and its own
    for refused in ("write_etc", "write_state", "mount", "chown"):
        assert "Error" in str(found[refused]), (refused, found)
    if not is_root:  # uid 0 is all that systemd asks for, and what it is owner of it may read
        for refused in ("foreign", "transient", "reload", "shadow"):
            assert "Error" in str(found[refused]) or "Problem" in str(found[refused]), (refused, found)
        assert not copied.path("/run/was-root").exists()
    for unit in (own.UNIT, own.FALLBACK_UNIT):
        report = copied.run(["systemd-analyze", "security", "--no-pager", unit], check=True).stdout
        score = re.search(r"exposure level for \S+: ([0-9.]+)", report)
        assert score, report
        assert float(score[1]) <= 1.5, report
    copied.run(["rm", "-f", "/run/was-root"])


@pytest.mark.slow
def test_the_life_of_an_installed_controller(copied: Box) -> None:
    web = f"{copied.project}-web.service"
    assert controller(copied, "status").returncode == Exit.NOT_WELL
    assert controller(copied, "restart").returncode == Exit.UNKNOWN
    assert controller(copied, "disable").returncode == Exit.UNKNOWN
    assert controller(copied, "enable").returncode == 0
    now = status(copied)
    assert (now["active"], now["enabled"], now["mode"]) == ("active", True, "root without capabilities")
    assert now["says"] == "stand-in"
    assert now["fallback"] is None
    # It is a project like any other: nothing to do, a history, and no drift.
    again = controller(copied, "enable")
    assert "nothing to do" in again.stdout, again.stdout
    assert status(copied)["pid"] == now["pid"]
    assert copied.sysresp("drift", "--project", own.PROJECT).returncode == 0
    assert "apply" in copied.sysresp("history", "--project", own.PROJECT).stdout
    # ... and yet none that a command without --project could mean.
    for words in (["diff"], ["down"], ["rollback", "1"]):
        assert copied.sysresp(*words).returncode == 0, words
    assert status(copied)["pid"] == now["pid"]
    copied.write(f"/run/systemd/system/{own.UNIT}.d/t.conf", "[Unit]\nStartLimitBurst=2\n")
    copied.systemctl("daemon-reload")
    for _ in range(3):  # more than its start limit
        done = controller(copied, "restart", "--json")
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert told["old_pid"] == now["pid"]
        assert told["new_pid"] == int(copied.show(own.UNIT, "MainPID")) != now["pid"]
        now["pid"] = told["new_pid"]
    copied.run(["rm", "-r", f"/run/systemd/system/{own.UNIT}.d"], check=True)
    copied.systemctl("daemon-reload")
    # Another way of being run is a change of the unit, and takes effect at once.
    assert controller(copied, "enable", "--create-user").returncode == 0
    now = status(copied)
    assert (now["mode"], now["account"]) == ("unprivileged", own.ACCOUNT)
    assert now["lacks"] == []
    assert findings(copied)["uid"] > 0
    assert copied.path(f"{STATE}/findings.json").stat().st_uid == findings(copied)["uid"]
    pid = copied.show(web, "MainPID")
    assert controller(copied, "disable").returncode == 0
    assert controller(copied, "status").returncode == Exit.NOT_WELL
    assert copied.show(own.UNIT, "LoadState") == "not-found"
    assert not copied.path("/var/lib/sysresp/fallback.py").exists()
    assert (copied.show(web, "ActiveState"), copied.show(web, "MainPID")) == ("active", pid)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["raises", "hangs"])
def test_broken_code_ends_in_a_record_and_not_in_a_loop(copied: Box, how: str) -> None:
    web = f"{copied.project}-web.service"
    assert controller(copied, "enable", "--create-user").returncode == 0
    pid = copied.show(web, "MainPID")
    whole = copied.read(f"{COPY}/sysresp/__init__.py")
    began = time.time()
    broken = 'print("a broken upgrade", flush=True)\n'
    broken += "raise RuntimeError\n" if how == "raises" else "import time; time.sleep(1000)\n"
    copied.write(f"{COPY}/sysresp/__init__.py", broken)
    copied.write(
        f"/run/systemd/system/{own.UNIT}.d/t.conf", "[Service]\nTimeoutStartSec=1s\nRestartSec=50ms\n"
    )
    copied.systemctl("daemon-reload")
    copied.systemctl("restart", own.UNIT, check=False)
    until(copied.path(f"{STATE}/fallback.json").exists, "the record", 60)
    until(lambda: copied.show(own.FALLBACK_UNIT, "ActiveState") == "inactive", "its end")
    now = status(copied)
    assert now["active"] == "failed"
    assert now["fallback"]["result"] == ("exit-code" if how == "raises" else "timeout")
    assert now["fallback"]["when"] == pytest.approx(time.time(), abs=60)
    assert "a broken upgrade" in now["fallback"]["lines"]
    text = copied.sysresp("controller", "status")
    assert text.returncode == Exit.NOT_WELL
    assert "gave up" in text.stdout
    for words in (["status"], ["why", "web"]):
        assert "systemd gave up on it" in copied.sysresp(*words).stdout, words
    since = ["--output=cat", "--since", f"@{int(began)}"]
    log = copied.run(["journalctl", "-u", own.UNIT, *since], check=True)
    assert log.stdout.count("a broken upgrade") == 5
    words = ["journalctl", "-p", "alert", "-u", own.FALLBACK_UNIT, *since]
    alert = copied.run(words, check=True).stdout
    assert alert.count("systemd gave up on it") == 1, alert
    # No more starts of either, and the services have noticed nothing.
    assert copied.show(own.UNIT, "SubState") == "failed"
    assert copied.show(own.FALLBACK_UNIT, "Result") == "success"
    assert (copied.show(web, "MainPID"), copied.show(web, "ActiveState")) == (pid, "active")
    copied.run(["kill", "-9", pid], check=True)
    assert copied.show(web, "Restart") == "on-failure"
    until(lambda: copied.show(web, "MainPID") not in {"0", pid}, "its restart")
    # The way back, as `status` tells it.
    copied.write(f"{COPY}/sysresp/__init__.py", whole)
    assert controller(copied, "restart").returncode == 0
    assert status(copied)["active"] == "active"
    # What was stopped is up again after `enable`, too.
    copied.systemctl("stop", own.UNIT)
    assert controller(copied, "enable").returncode == 0
    assert status(copied)["active"] == "active"


def test_a_package_s_unit_is_enabled_as_it_is(copied: Box) -> None:
    path = f"/usr/lib/systemd/system/{own.UNIT}"
    text = own.packaged()[own.UNIT].replace("/usr/bin/sysresp", f"{copied.python} -P -m sysresp")
    text = text.replace("[Service]", f"[Service]\nEnvironment=PYTHONPATH={COPY}")
    copied.write(path, re.sub("(?m)^(User|SupplementaryGroups)=.*\n", "", text))
    done = controller(copied, "enable")
    assert done.returncode == 0, done.stderr
    assert f"{path} is the package's: enabled and started" in done.stdout
    link = copied.path(f"/etc/systemd/system/multi-user.target.wants/{own.UNIT}")
    assert str(link.readlink()) == path
    assert copied.systemctl("is-enabled", own.UNIT).stdout.strip() == "enabled"
    assert not copied.path("/var/lib/sysresp/sysresp.json").exists()
    assert status(copied)["active"] == "active"
    assert controller(copied, "disable").returncode == 0
    assert copied.systemctl("is-enabled", own.UNIT, check=False).stdout.strip() == "disabled"
    assert copied.show(own.UNIT, "ActiveState") == "inactive"
    copied.run(["rm", path], check=True)
    copied.systemctl("daemon-reload")


def test_code_that_others_can_change_is_not_run_by_root(copied: Box) -> None:
    copied.run(["chown", USER, f"{COPY}/sysresp/cli"], check=True)
    done = controller(copied, "enable")
    assert done.returncode == Exit.REFUSED
    assert f'sysresp/cli belongs to "{USER}"' in done.stderr
    copied.run(["chown", "root", f"{COPY}/sysresp/cli"], check=True)
    copied.run(["chmod", "o+w", f"{COPY}/sysresp/units/render.py"], check=True)
    done = controller(copied, "enable")
    assert done.returncode == Exit.REFUSED
    assert "can be written by others than root" in done.stderr
    assert not copied.path(f"/etc/systemd/system/{own.UNIT}").exists()


def test_in_a_user_s_own_service_manager(copied: Box) -> None:
    file = write_file(copied, WEB)
    copied.sysresp("apply", "--user", file, user=USER, check=True)
    done = controller(copied, "enable", "--user", user=USER)
    assert done.returncode == 0, done.stderr
    now = status(copied, "--user", user=USER)
    assert (now["active"], now["mode"]) == ("active", "user")
    assert controller(copied, "restart", "--user", user=USER).returncode == 0
    assert controller(copied, "disable", "--user", user=USER, check=True).returncode == 0
