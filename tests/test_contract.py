"""One suite for the ports, on the fakes always and on a booted systemd when it is run inside one.

Outside, only the fakes are collected. tests/live/test_contract_live.py boots a systemd and runs this very
file in it with SYSRESP_CONTRACT=real, so that a fake which drifts from systemd fails there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sysresp.ports import Files, JobRemoved, Manager, Question, UnitProblem
from sysresp.systemd.files import RealFiles
from sysresp.systemd.manager import SystemManager
from tests.fakes import FakeFiles, FakeManager

RUNS = "[Service]\nType=exec\nExecStart=/bin/sleep 1000\n"
FAILS = "[Service]\nType=oneshot\nExecStart=/bin/false\n"
UNIT_DIR = "/run/systemd/system"
USER = os.environ.get("SYSRESP_CONTRACT") == "user"


class Ports:
    """The ports under test, and what only the fakes must be told."""

    def __init__(self, manager: Manager, files: Files, directory: str) -> None:
        self.manager = manager
        self.files = files
        self.directory = directory
        self.ended: list[JobRemoved] = []

    def unit(self, name: str, text: str = RUNS) -> str:
        """Write a unit file; on the fake, a unit that runs /bin/false fails because we say so."""
        self.files.write(f"{self.directory}/{name}", text.encode())
        if isinstance(self.manager, FakeManager):
            if "/bin/false" in text:
                self.manager.fail[name] = "failed"
            if "ConditionPathExists=/nowhere" in text:
                self.manager.skip.add(name)
            if "Type=notify" in text:
                self.manager.stuck.add(name)
        return name

    def finish(self, *jobs: int) -> dict[str, str]:
        """Wait for these jobs, and return the results told meanwhile by unit."""
        before = len(self.ended)
        assert self.manager.wait(jobs, 20, self.ended.append) == set()
        return {removed.unit: removed.result for removed in self.ended[before:]}

    def state(self, name: str) -> tuple[str, str]:
        (row,) = self.manager.units_by_name([name])
        return row.active_state, row.sub_state

    def get(self, name: str, prop: str, interface: str = "Unit") -> object:
        return self.manager.properties(name, interface, [prop]).get(prop)


@pytest.fixture(params=["real"] if os.environ.get("SYSRESP_CONTRACT") else ["fake"])
def ports(request: pytest.FixtureRequest) -> Iterator[Ports]:
    if request.param == "fake":
        files = FakeFiles()
        manager = FakeManager(files)
        manager.watch_jobs()
        yield Ports(manager, files, UNIT_DIR)
        return
    directory = f"{os.environ['XDG_RUNTIME_DIR']}/systemd/user" if USER else UNIT_DIR
    real = SystemManager(user=USER)
    real.watch_jobs()
    yield Ports(real, RealFiles(), directory)
    real.wait([real.stop(row.name) for row in real.units(["ct-*"])], 20, lambda _removed: None)
    for path in sorted(Path(directory).rglob("ct-*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    real.reload()
    for row in real.units(["ct-*"]):
        real.reset_failed(row.name)
    real.close()


def test_version(ports: Ports) -> None:
    assert ports.manager.version() >= 247


def test_a_unit_nobody_has(ports: Ports) -> None:
    (row,) = ports.manager.units_by_name(["ct-none.service"])
    assert (row.name, row.load_state, row.active_state) == ("ct-none.service", "not-found", "inactive")
    for method in (
        ports.manager.start,
        ports.manager.restart,
        ports.manager.stop,
        ports.manager.reload_unit,
    ):
        with pytest.raises(UnitProblem) as caught:
            method("ct-none.service")
        assert caught.value.code == "NoSuchUnit"
        assert caught.value.unit == "ct-none.service"
    ports.manager.reset_failed("ct-none.service")
    assert ports.manager.units(["ct-*"]) == []
    assert ports.get("ct-none.service", "LoadState") == "not-found"


@pytest.mark.parametrize("name", ["no suffix", "ct-a b.service", "ct-none", "@.service", ".service"])
def test_a_name_that_is_none(ports: Ports, name: str) -> None:
    with pytest.raises(UnitProblem) as caught:
        ports.manager.start(name)
    assert caught.value.code == "InvalidArgs"
    assert ports.manager.units_by_name([name]) == []


def test_a_new_unit_needs_no_reload(ports: Ports) -> None:
    name = ports.unit("ct-a.service", "[Unit]\nDescription=Some words\n" + RUNS)
    job = ports.manager.start(name)
    assert job > 0
    assert ports.finish(job) == {name: "done"}
    assert ports.state(name) == ("active", "running")
    assert ports.manager.pending_jobs() == {}
    (row,) = ports.manager.units(["ct-*.service"])
    assert row[:3] == (name, "Some words", "loaded")
    assert ports.get(name, "FragmentPath") == f"{ports.directory}/{name}"
    assert ports.get(name, "NeedDaemonReload") is False
    assert ports.get(name, "Result", "Service") == "success"
    assert ports.get(name, "Type", "Service") == "exec"


def test_a_stopped_unit_is_forgotten(ports: Ports) -> None:
    name = ports.unit("ct-a.service")
    ports.finish(ports.manager.start(name))
    assert ports.finish(ports.manager.stop(name)) == {name: "done"}
    assert ports.manager.units(["ct-*"]) == []
    assert ports.state(name) == ("inactive", "dead")
    assert ports.finish(ports.manager.stop(name)) == {name: "done"}


def test_a_loaded_unit_keeps_its_old_text(ports: Ports) -> None:
    name = ports.unit("ct-a.service", "[Unit]\nDescription=Old\n" + RUNS)
    ports.finish(ports.manager.start(name))
    # Its time of change is what systemd compares, in microseconds (unit_need_daemon_reload in unit.c).
    ports.unit(name, "[Unit]\nDescription=New\n" + RUNS)
    assert ports.get(name, "NeedDaemonReload") is True
    assert ports.manager.units_by_name([name])[0].description == "Old"
    ports.manager.reload()
    assert ports.get(name, "NeedDaemonReload") is False
    assert ports.manager.units_by_name([name])[0].description == "New"
    assert ports.state(name) == ("active", "running")


def test_a_new_invocation_only_with_a_new_run(ports: Ports) -> None:
    name = ports.unit("ct-a.service")
    assert ports.get(name, "InvocationID") == ""
    ports.finish(ports.manager.start(name))
    first = str(ports.get(name, "InvocationID"))
    assert len(first) == 32
    assert ports.finish(ports.manager.start(name)) == {name: "done"}
    assert ports.get(name, "InvocationID") == first
    assert ports.finish(ports.manager.restart(name)) == {name: "done"}
    assert ports.get(name, "InvocationID") not in (first, "")


def test_restart_starts_what_is_stopped(ports: Ports) -> None:
    name = ports.unit("ct-a.service")
    assert ports.finish(ports.manager.restart(name)) == {name: "done"}
    assert ports.state(name) == ("active", "running")


def test_masked(ports: Ports) -> None:
    ports.files.link(f"{ports.directory}/ct-a.service", "/dev/null")
    with pytest.raises(UnitProblem) as caught:
        ports.manager.start("ct-a.service")
    assert caught.value.code == "UnitMasked"
    assert ports.manager.units_by_name(["ct-a.service"])[0].load_state == "masked"


def test_a_bad_unit_file(ports: Ports) -> None:
    name = ports.unit("ct-a.service", "[Service]\nType=exec\n")
    with pytest.raises(UnitProblem) as caught:
        ports.manager.start(name)
    assert caught.value.code == "BadUnitSetting"
    assert ports.manager.units_by_name([name])[0].load_state == "bad-setting"


def test_a_failed_start_and_its_reset(ports: Ports) -> None:
    name = ports.unit("ct-a.service", FAILS)
    assert ports.finish(ports.manager.start(name)) == {name: "failed"}
    assert ports.state(name) == ("failed", "failed")
    wanted = ("Result", "ExecMainCode", "ExecMainStatus", "NRestarts")
    assert ports.manager.properties(name, "Service", wanted) == {
        "Result": "exit-code",
        "ExecMainCode": 1,
        "ExecMainStatus": 1,
        "NRestarts": 0,
    }
    assert [row.name for row in ports.manager.units(["ct-*"])] == [name]
    ports.manager.reset_failed(name)
    assert ports.manager.units(["ct-*"]) == []


def test_a_dependency_that_fails(ports: Ports) -> None:
    ports.unit("ct-a.service", FAILS)
    ports.unit("ct-b.service", "[Unit]\nRequires=ct-a.service\nAfter=ct-a.service\n" + RUNS)
    results = ports.finish(ports.manager.start("ct-b.service"))
    assert results == {"ct-b.service": "dependency"}
    assert ports.state("ct-a.service") == ("failed", "failed")
    assert ports.state("ct-b.service") == ("inactive", "dead")


def test_requires_pulls_in(ports: Ports) -> None:
    ports.unit("ct-a.service")
    ports.unit("ct-b.service", "[Unit]\nRequires=ct-a.service\nAfter=ct-a.service\n" + RUNS)
    ports.finish(ports.manager.start("ct-b.service"))
    assert ports.state("ct-a.service") == ("active", "running")
    job = ports.manager.stop("ct-a.service")
    jobs = ports.manager.pending_jobs()
    assert ports.finish(*jobs, job) == {"ct-a.service": "done"}
    assert ports.state("ct-b.service") == ("inactive", "dead")


def test_a_condition_that_is_not_met(ports: Ports) -> None:
    name = ports.unit("ct-a.service", "[Unit]\nConditionPathExists=/nowhere\n" + RUNS)
    assert ports.finish(ports.manager.start(name)) == {name: "done"}
    assert ports.state(name) == ("inactive", "dead")


def test_oneshots(ports: Ports) -> None:
    for name, more, state in (
        ("ct-a.service", "", ("inactive", "dead")),
        ("ct-b.service", "RemainAfterExit=yes\n", ("active", "exited")),
    ):
        ports.unit(name, "[Service]\nType=oneshot\nExecStart=/bin/true\n" + more)
        assert ports.finish(ports.manager.start(name)) == {name: "done"}
        assert ports.state(name) == state


def test_the_end_of_a_job_is_told_once(ports: Ports) -> None:
    first = ports.manager.start(ports.unit("ct-a.service"))
    second = ports.manager.start(ports.unit("ct-b.service"))
    assert first != second
    ports.finish(first, second)
    assert ports.finish(first, second) == {}
    assert sorted(ports.ended) == [
        JobRemoved(first, "ct-a.service", "done"),
        JobRemoved(second, "ct-b.service", "done"),
    ]
    assert ports.finish() == {}


def test_a_job_that_does_not_end(ports: Ports) -> None:
    name = ports.unit("ct-a.service", RUNS.replace("exec", "notify"))
    job = ports.manager.start(name)
    assert ports.manager.start(name) == job  # merged
    assert ports.manager.pending_jobs() == {job: name}
    assert ports.manager.wait([job], 0.3, ports.ended.append) == {job}
    assert ports.state(name)[0] == "activating"
    if isinstance(ports.manager, FakeManager):
        ports.manager.stuck.clear()
    results = [ports.manager.stop(name)]
    assert ports.manager.wait(results, 20, ports.ended.append) == set()
    assert [removed.result for removed in ports.ended] == ["canceled", "done"]
    assert ports.manager.wait([job], 0, ports.ended.append) == set()


def test_reload_of_a_unit(ports: Ports) -> None:
    plain = ports.unit("ct-a.service")
    able = ports.unit("ct-b.service", RUNS + "ExecReload=/bin/true\n")
    ports.finish(ports.manager.start(plain), ports.manager.start(able))
    with pytest.raises(UnitProblem) as caught:
        ports.manager.reload_unit(plain)
    assert caught.value.code == "JobTypeNotApplicable"
    assert (ports.get(plain, "CanReload"), ports.get(able, "CanReload")) == (False, True)
    before = ports.get(able, "InvocationID")
    assert ports.finish(ports.manager.reload_unit(able)) == {able: "done"}
    assert ports.get(able, "InvocationID") == before


def test_a_target_and_its_links(ports: Ports) -> None:
    target = ports.unit("ct-all.target", "[Unit]\nDescription=All\n")
    for name, file in (("ct-a.service", "ct-a.service"), ("ct-i@1.service", "ct-i@.service")):
        ports.unit(file, "[Unit]\nPartOf=ct-all.target\n" + RUNS)
        ports.files.link(f"{ports.directory}/{target}.wants/{name}", f"{ports.directory}/{file}")
    job = ports.manager.start(target)
    jobs = ports.manager.pending_jobs()
    assert ports.finish(*jobs, job) == {target: "done"}
    assert ports.state("ct-a.service") == ports.state("ct-i@1.service") == ("active", "running")
    assert ports.get("ct-i@1.service", "FragmentPath") == f"{ports.directory}/ct-i@.service"
    assert ports.state(target) == ("active", "active")
    job = ports.manager.stop(target)
    ports.finish(*ports.manager.pending_jobs(), job)
    assert ports.state("ct-i@1.service") == ("inactive", "dead")


def test_transient(ports: Ports) -> None:
    command = ("/bin/sleep", ["/bin/sleep", "1000"], False)
    properties = [
        ("Description", "s", "In passing"),
        ("ExecStart", "a(sasb)", [command]),
        ("Environment", "as", ["A=1", "B=é"]),
        ("TimeoutStopUSec", "t", 2**33),
    ]
    job = ports.manager.start_transient("ct-t.service", properties)
    assert ports.finish(job) == {"ct-t.service": "done"}
    assert ports.state("ct-t.service") == ("active", "running")
    assert ports.get("ct-t.service", "Environment", "Service") == ["A=1", "B=é"]
    assert ports.get("ct-t.service", "TimeoutStopUSec", "Service") == 2**33
    assert ports.get("ct-t.service", "Transient") is True
    with pytest.raises(UnitProblem) as caught:
        ports.manager.start_transient("ct-t.service", properties)
    assert caught.value.code == "UnitExists"
    ports.finish(ports.manager.stop("ct-t.service"))
    assert ports.manager.units_by_name(["ct-t.service"])[0].load_state == "not-found"


def test_a_property_nobody_has_is_left_out(ports: Ports) -> None:
    ports.finish(ports.manager.start(ports.unit("ct-a.service")))
    assert ports.manager.properties("ct-a.service", "Service", ["Result", "Bogus"]) == {"Result": "success"}
    assert ports.manager.properties("ct-a.service", "Timer", ["Result"]) == {}


def test_many_properties_are_the_same_as_one_by_one(ports: Ports) -> None:
    units = [f"ct-{n}.service" for n in range(12)]
    for name in units[:3]:
        ports.finish(ports.manager.start(ports.unit(name)))
    questions = [
        Question(name, interface, names)
        for name in [*units, "-.slice"]
        for interface, names in (
            ("Unit", ("InvocationID", "ActiveState", "NeedDaemonReload", "After", "Conditions", "Bogus")),
            ("Service", ("MainPID", "ExecStart", "NRestarts", "Environment", "KillMode")),
            ("Timer", ("Result",)),
        )
    ]
    assert ports.manager.many_properties([]) == []
    found = ports.manager.many_properties(questions)
    assert found == [ports.manager.properties(*question) for question in questions]
    assert found[0]["ActiveState"] == "active"
    assert len(str(found[0]["InvocationID"])) == 32
    few = questions[:2]
    assert ports.manager.many_properties(few) == found[:2]
