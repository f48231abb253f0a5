"""A bad release of one of ten services: all run again as before, nine never noticed, and why is said.

Each release changes one service so that it fails in its own way. What is looked at is what an operator has:
exit status, message, MainPIDs, unit files, and the history.
"""

from __future__ import annotations

import json

import pytest

from sysresp.errors import Exit
from tests.live.conftest import Box
from tests.live.installed import snapshot, write_file

pytestmark = pytest.mark.live

SLEEP = 'command = ["/bin/sleep", "infinity"]'
NEVER = 'ready = { file = "/run/never", timeout = "1s" }'
HANGS = "trap '' TERM; while :; do sleep 0.2; done"
RELEASES = {
    "crashes after 3 s": (
        'command = ["/bin/sh", "-c", "echo boom; sleep 3; exit 7"]',
        "5s",
        "exit status 7",
    ),
    "never ready": (
        f'{SLEEP}\nready = {{ file = "/run/never", timeout = "1s" }}',
        "1s",
        "not ready in time",
    ),
    "exits 0 at once": ('command = ["/bin/true"]', "2s", "ended with exit status 0"),
    "missing executable": ('command = ["/nonexistent/program"]', "1s", "could not be executed"),
    "hangs in stop": (
        f'command = ["/bin/sh", "-c", "{HANGS}"]\n{NEVER}\nstop = {{ timeout = "1s" }}',
        "1s",
        "not ready in time",
    ),
}


def ten(bad: str = SLEEP) -> str:
    """Return a file of ten services, of which the third one's release is given."""
    bodies = [bad if number == 3 else SLEEP for number in range(1, 11)]
    return "\n".join(f"[services.s{number}]\n{body}\n" for number, body in enumerate(bodies, 1))


def pids(box: Box) -> dict[str, str]:
    names = [f"{box.project}-s{number}.service" for number in range(1, 11)]
    lines = box.systemctl("show", "--value", "-p", "MainPID", *names).stdout.split()
    return dict(zip(names, lines, strict=True))


def units_on_disk(box: Box) -> dict[str, str]:
    return {path: text for path, text in snapshot(box).items() if path.startswith("/etc/systemd/system")}


@pytest.mark.parametrize("release", RELEASES)
def test_a_bad_release_is_rolled_back(box: Box, release: str) -> None:
    body, settle, why = RELEASES[release]
    box.sysresp("apply", "--settle", "0", write_file(box, ten()), check=True)
    before, files = pids(box), units_on_disk(box)
    done = box.sysresp("apply", "--settle", settle, write_file(box, ten(body)))
    assert done.returncode == Exit.ROLLED_BACK, done.stdout + done.stderr
    unit = f"{box.project}-s3.service"
    assert f"{unit}: " in done.stderr
    assert why in done.stderr
    assert f"/srv/{box.project}/services.toml:" in done.stderr
    assert f"rolled back to generation 1, because of {unit}" in done.stderr
    assert "generation 2 failed, generation 1 is back" in done.stdout
    after = pids(box)
    assert after.pop(unit) not in {"0", before.pop(unit)}
    assert after == before
    assert units_on_disk(box) == files
    assert box.show(unit, "NeedDaemonReload") == "no"
    assert box.sysresp("status", "--project", box.project).returncode == Exit.OK
    history = json.loads(box.sysresp("history", "--json", check=True).stdout)["projects"][0]
    assert history["generation"] == 1
    assert [one["outcome"] for one in history["generations"]] == ["ok", "rolled back"]
    again = box.sysresp("apply", write_file(box, ten()), check=True)
    assert "nothing to do" in again.stdout


BROKEN = 'command = ["/bin/false"]\nrestart = "no"\n'


def test_left_as_it_is_if_asked(box: Box) -> None:
    box.sysresp("apply", "--settle", "0", write_file(box, ten()), check=True)
    done = box.sysresp("apply", "--settle", "1s", "--no-rollback", write_file(box, ten(BROKEN)))
    assert done.returncode == Exit.FAILED
    assert "not rolled back: --no-rollback" in done.stderr
    assert box.show(f"{box.project}-s3.service", "ActiveState") == "failed"
    back = box.sysresp("rollback", "--settle", "0", "--project", box.project)
    assert back.returncode == Exit.OK, back.stderr
    assert box.show(f"{box.project}-s3.service", "ActiveState") == "active"


def test_what_had_failed_before_is_no_reason(box: Box) -> None:
    first = box.sysresp("apply", "--settle", "1s", write_file(box, ten(BROKEN)))
    assert first.returncode == Exit.FAILED
    assert "not rolled back: there is no earlier generation to go back to" in first.stderr
    running = pids(box)
    changed = ten(BROKEN + "nice = 5\n") + '\n[services.new]\ncommand = ["/bin/sleep", "infinity"]\n'
    second = box.sysresp("apply", "--settle", "1s", write_file(box, changed))
    assert second.returncode == Exit.FAILED
    assert f"{box.project}-s3.service: no reason to roll back: it had failed before, too" in second.stderr
    assert box.show(f"{box.project}-new.service", "ActiveState") == "active"
    assert pids(box) == running


def test_what_may_fail_is_no_reason(box: Box) -> None:
    box.sysresp("apply", "--settle", "0", write_file(box, ten()), check=True)
    done = box.sysresp(
        "apply", "--settle", "1s", write_file(box, ten(BROKEN + "ignore_start_failure = true\n"))
    )
    assert done.returncode == Exit.OK
    assert "no reason to roll back: ignore_start_failure" in done.stderr


def test_what_left_the_file_comes_back_and_what_was_stopped_stays_so(box: Box) -> None:
    text = (
        ten()
        + '\n[services.gone]\ncommand = ["/bin/sleep", "infinity"]\n'
        + ('\n[services.off]\ncommand = ["/bin/sleep", "infinity"]\n')
    )
    box.sysresp("apply", "--settle", "0", write_file(box, text), check=True)
    off, gone, stopped = (f"{box.project}-{name}.service" for name in ("off", "gone", "s5"))
    box.systemctl("stop", off, stopped)
    done = box.sysresp("apply", "--settle", "1s", write_file(box, ten(BROKEN)))
    assert done.returncode == Exit.ROLLED_BACK, done.stderr
    assert box.show(gone, "ActiveState") == "active"
    for unit in (off, stopped):
        assert box.show(unit, "ActiveState") == "inactive"
        assert box.show(unit, "LoadState") == "loaded"


@pytest.mark.parametrize("mode", ["--runtime", "--transient"])
def test_other_modes_are_rolled_back_too(box: Box, mode: str) -> None:
    box.sysresp("apply", mode, "--settle", "0", write_file(box, ten()), check=True)
    before = pids(box)
    done = box.sysresp("apply", mode, "--settle", "1s", write_file(box, ten(BROKEN)))
    assert done.returncode == Exit.ROLLED_BACK, done.stderr
    after = pids(box)
    unit = f"{box.project}-s3.service"
    assert after.pop(unit) not in {"0", before.pop(unit)}
    assert after == before


def test_a_project_that_was_taken_away_comes_back(box: Box) -> None:
    box.sysresp("apply", "--settle", "0", write_file(box, ten()), check=True)
    files = units_on_disk(box)
    box.sysresp("down", "--project", box.project, check=True)
    assert box.show(f"{box.project}-s1.service", "LoadState") == "not-found"
    done = box.sysresp("rollback", "--settle", "0", "--project", box.project)
    assert done.returncode == Exit.OK, done.stderr
    assert units_on_disk(box) == files
    assert "0" not in pids(box).values()
