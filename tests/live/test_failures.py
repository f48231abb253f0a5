"""What goes wrong on real hosts: one clear message, the right exit status, nothing half-written.

Each test breaks one thing in a booted systemd and runs the command line in it. A message must name what
failed, where (the line of services.toml, the path or the unit) and the way out; a traceback is never one.
Where sysresp cannot begin, the host's files must be the same after as before; where a unit fails, the files
are whole and applying a mended file is enough.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sysresp.errors import Exit
from tests.live.conftest import USER, Box
from tests.live.installed import install_program, snapshot, write_file

pytestmark = pytest.mark.live

GOOD = """
[services.web]
command = ["/bin/sleep", "infinity"]
"""


def assert_says(done: subprocess.CompletedProcess[str], status: Exit, *words: str) -> None:
    """One clear message: the exit status, these words in it, no traceback and no bug report."""
    output = done.stdout + done.stderr
    assert done.returncode == status, output
    assert "Traceback" not in output
    assert "bug in sysresp" not in output
    for word in words:
        assert word in output, output


def assert_only_whole_files(box: Box) -> None:
    """Every file in the unit directory is a unit file or a link; temporary files are gone."""
    for path, content in snapshot(box).items():
        name = path.rpartition("/")[2]
        if name.startswith(box.project) and not content.startswith("->"):
            assert name.endswith((".service", ".socket", ".target", ".slice", ".json")), path
            assert content.endswith("\n"), path


def fails_then_mended(box: Box, text: str, line: int, *words: str) -> None:
    """Apply a file of which one unit fails and another does not, then a mended one."""
    file = write_file(box, text)
    done = box.sysresp("apply", file)
    assert_says(done, Exit.FAILED, f"{box.project}-bad.service", f"services.toml:{line}", *words)
    assert_only_whole_files(box)
    assert box.show(f"{box.project}-good.service", "ActiveState") == "active"
    assert box.sysresp("status", "--project", box.project).returncode == Exit.NOT_WELL
    write_file(box, GOOD.replace("web", "good") + GOOD.replace("web", "bad"))
    box.sysresp("apply", file, check=True)
    assert box.sysresp("status", "--project", box.project).returncode == Exit.OK
    assert box.show(f"{box.project}-bad.service", "ActiveState") == "active"


def beside_good(text: str) -> str:
    """Return a file with a good service before the bad one; the bad one's first key is on line 6."""
    return f'[services.good]\ncommand = ["/bin/sleep", "infinity"]\n\n[services.bad]\n{text.strip()}\n'


def test_bad_executable(box: Box) -> None:
    text = beside_good('command = ["/nonexistent/program"]')
    fails_then_mended(box, text, 6, "could not be executed", "/nonexistent/program", "journalctl")


def test_bad_user(box: Box) -> None:
    text = beside_good('user = "nosuchuser"\ncommand = ["/bin/sleep", "infinity"]')
    fails_then_mended(box, text, 6, "nosuchuser", "user")


def take_port(box: Box, port: int) -> None:
    """Let another unit listen on the port; systemd itself does, so it is taken when this returns."""
    listen = f"--socket-property=ListenStream=127.0.0.1:{port}"
    box.run(["systemd-run", "--unit", f"{box.project}taken", listen, "/bin/true"], check=True)


def test_port_already_taken(box: Box) -> None:
    take_port(box, 4901)
    late = install_program(box, "late")
    text = beside_good(
        f'command = ["{late}", "tcp", "4901", "0"]\nready = {{ log = "serving" }}\n'
        'runtime_directory = true\nrestart = "no"\n'
    )
    fails_then_mended(box, text, 6, "Address already in use")


def test_port_of_a_socket_unit_already_taken(box: Box) -> None:
    take_port(box, 4902)
    done = box.sysresp("apply", write_file(box, f'{GOOD}listen = ["127.0.0.1:4902"]\n'))
    assert_says(done, Exit.FAILED, f"{box.project}-web.socket", "services.toml:")
    assert_only_whole_files(box)


def test_crash_at_start(box: Box) -> None:
    text = beside_good(
        'command = ["/bin/sh", "-c", "echo the disk is gone >&2; exit 3"]\nkind = "notify"\nrestart = "no"'
    )
    fails_then_mended(box, text, 6, "the disk is gone", "3")


def test_readiness_timeout(box: Box) -> None:
    text = beside_good(
        'command = ["/bin/sleep", "infinity"]\n'
        'ready = { tcp = "127.0.0.1:4903", timeout = "1s" }\nrestart = "no"'
    )
    fails_then_mended(box, text, 7, "127.0.0.1:4903", "ready")


def test_masked_unit_stays_masked(box: Box) -> None:
    unit = f"{box.project}-web.service"
    box.systemctl("mask", unit)
    file = write_file(box, GOOD + GOOD.replace("web", "other"))
    done = box.sysresp("apply", file)
    assert "Traceback" not in done.stderr
    assert "masked" in done.stdout + done.stderr
    assert snapshot(box)[f"/etc/systemd/system/{unit}"] == "-> /dev/null"
    assert box.show(unit, "ActiveState") == "inactive"


@pytest.mark.parametrize("directory", ["/etc/systemd/system", "/usr/local/lib/systemd/system"])
def test_foreign_unit_file_of_the_same_name(box: Box, directory: str) -> None:
    path = f"{directory}/{box.project}-web.service"
    box.write(path, "[Service]\nExecStart=/bin/true\n")
    before = snapshot(box)
    file = write_file(box, GOOD + GOOD.replace("web", "other"))
    try:
        done = box.sysresp("apply", file)
        assert_says(done, Exit.FAILED, path, "services.toml:2")
        assert snapshot(box) == before
        assert box.show(f"{box.project}-other.service", "LoadState") == "not-found"
    finally:
        box.run(["rm", path], check=True)


@contextmanager
def mounted(box: Box, place: str, *mount: list[str]) -> Iterator[None]:
    """Mount something over a place inside, for the length of the block."""
    for words in mount:
        box.run(["mount", *words, place], check=True)
    try:
        yield
    finally:
        box.run(["umount", place], check=True)
        box.systemctl("daemon-reload")


def test_read_only_etc(box: Box) -> None:
    file = write_file(box, GOOD)
    before = snapshot(box)
    with mounted(box, "/etc", ["--bind", "/etc"], ["-o", "remount,bind,ro"]):
        done = box.sysresp("apply", file)
    assert_says(done, Exit.FAILED, "/etc/systemd/system", "ead-only file system", "--runtime")
    assert snapshot(box) == before
    assert box.show(f"{box.project}-web.service", "LoadState") == "not-found"


@pytest.mark.parametrize("place", ["/etc/systemd/system", "/var/lib/sysresp"])
def test_full_disk(box: Box, place: str) -> None:
    file = write_file(box, GOOD)
    box.path(place).mkdir(parents=True, exist_ok=True)
    before = snapshot(box)
    with mounted(box, place, ["-t", "tmpfs", "-o", "size=8k", "tmpfs"]):
        box.write(f"{place}/ballast", "x" * 8192)
        done = box.sysresp("apply", file)
        assert_says(done, Exit.FAILED, place, "o space left on device")
        assert [p.name for p in box.path(place).rglob("*") if p.is_file() or p.is_symlink()] == ["ballast"]
    assert snapshot(box) == before
    assert box.show(f"{box.project}-web.service", "ActiveState") == "inactive"


NO_SYSTEMD = "mount -t tmpfs tmpfs /run"
NO_BUS = "mount -t tmpfs tmpfs /run/dbus && mount --bind /dev/null /run/systemd/private"


def elsewhere(box: Box, script: str, *args: str, new_pids: bool = False) -> subprocess.CompletedProcess[str]:
    """Run sysresp in a mount namespace made by the script; with `new_pids`, systemd is not PID 1 there."""
    pids = ["--pid", "--fork", "--mount-proc"] if new_pids else []
    shell = ["/bin/sh", "-c", f'{script} && exec "$@"', "sh"]
    return box.run(["unshare", "--mount", *pids, *shell, box.python, "-m", "sysresp", *args])


@pytest.mark.parametrize("verb", ["apply", "plan", "status", "stop"])
def test_no_systemd_and_no_dbus(box: Box, verb: str) -> None:
    file = write_file(box, GOOD)
    args = {"status": ["status"], "stop": ["stop", "web"]}.get(verb, [verb, file])
    box.sysresp("apply", file, check=True)
    before = snapshot(box)
    assert_says(elsewhere(box, NO_SYSTEMD, *args, new_pids=True), Exit.UNREACHABLE, "systemd")
    assert_says(elsewhere(box, NO_BUS, *args), Exit.UNREACHABLE, "D-Bus")
    assert snapshot(box) == before
    assert box.show(f"{box.project}-web.service", "ActiveState") == "active"


def test_unprivileged_user(box: Box) -> None:
    file = write_file(box, GOOD)
    before = snapshot(box)
    done = box.sysresp("apply", file, user=USER)
    assert_says(done, Exit.DENIED, "root", "--user")
    assert snapshot(box) == before
    box.sysresp("apply", file, check=True)
    before = snapshot(box)
    assert_says(box.sysresp("status", "--project", box.project, user=USER), Exit.OK, "web")
    assert_says(box.sysresp("plan", file, user=USER), Exit.OK)
    for verb in (["stop", "web"], ["down", "--project", box.project]):
        assert_says(box.sysresp(*verb, user=USER), Exit.DENIED)
    assert snapshot(box) == before
    assert box.show(f"{box.project}-web.service", "ActiveState") == "active"
