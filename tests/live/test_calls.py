"""What sysresp asks of PID 1, as the bus saw it: nothing that changes anything if nothing is to change."""

from __future__ import annotations

import pytest

from tests.live.conftest import Box
from tests.live.installed import write_file

pytestmark = pytest.mark.live

# Watches the calls to systemd while a command runs. The monitor is attached when the bus takes its name
# away; the GetUnit at the end is ours, and says that everything before it has been seen.
RECORD = """
import subprocess, sys
words = ["dbus-monitor", "--system", "type='method_call',destination='org.freedesktop.systemd1'"]
monitor = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
for line in monitor.stdout:
    if "member=NameLost" in line:
        break
status = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
end = ["busctl", "call", "org.freedesktop.systemd1", "/org/freedesktop/systemd1",
       "org.freedesktop.systemd1.Manager", "GetUnit", "s", "end-of-record.service"]
subprocess.run(end, capture_output=True)
members = []
for line in monitor.stdout:
    if "member=" in line:
        members.append(line.rpartition("member=")[2].strip())
    if "end-of-record" in line:
        break
monitor.kill()
monitor.wait()
print(status, *members[:-1])
"""
READS = {"Get", "GetAll", "ListUnitsByPatterns", "ListUnitsByNames", "ListJobs", "LoadUnit"}
TEXT = """
[services.db]
command = ["/bin/sleep", "infinity"]
[services.web]
command = ["/bin/sleep", "infinity"]
requires = ["db"]
instances = 3
[services.report]
command = ["/bin/true"]
schedule = "daily"
"""


def calls(box: Box, *words: str) -> tuple[int, list[str]]:
    """Run a command of sysresp, and return its exit status and the calls that systemd got meanwhile."""
    done = box.run([box.python, "-c", RECORD, box.python, "-P", "-m", "sysresp", *words], check=True)
    status, *members = done.stdout.split()
    return int(status), members


def test_nothing_to_do_is_nothing_done(box: Box) -> None:
    file = write_file(box, TEXT)
    status, first = calls(box, "apply", file)
    assert status == 0
    assert "StartUnit" in first, first
    assert "Subscribe" not in first
    for words in (["apply", file], ["plan", file], ["status", "--project", box.project]):
        status, members = calls(box, *words)
        assert status == 0
        assert members, "the monitor saw nothing"
        assert set(members) <= READS, members
