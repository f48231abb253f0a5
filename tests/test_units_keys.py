"""What each key of a service becomes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sysresp.errors import Problem, Severity
from sysresp.model import (
    Command,
    Credential,
    EnvironmentFile,
    Hardening,
    Kind,
    Limits,
    Origin,
    Ready,
    ReadyBy,
    Restart,
    Stop,
)
from sysresp.units import hardening
from sysresp.units.render import render
from sysresp.units.sheet import one_line, span
from sysresp.units.supervise import restart_sec
from tests.rendered import desired, only, problems, service, spec, values


class TestKeys:
    def test_dependencies(self) -> None:
        made = desired(
            service("a"),
            service("b"),
            service(
                requires=("a", "network-online.target"),
                wants=("b",),
                binds_to=("a",),
                before=("b", "a.target"),
                after=("x.mount",),
                part_of=("a",),
                conflicts=("b",),
            ),
        )
        file = "shop-web.service"
        assert only(made, file, "Requires") == "shop-a.service network-online.target"
        assert only(made, file, "Wants") == "shop-b.service"
        assert only(made, file, "BindsTo") == "shop-a.service"
        assert only(made, file, "After") == "x.mount shop-a.service network-online.target"
        assert only(made, file, "Before") == "shop-b.service a.target"
        assert only(made, file, "PartOf") == "shop.target shop-a.service"
        assert only(made, file, "Conflicts") == "shop-b.service"
        assert list(made.units).index("shop-b.service") > list(made.units).index(file)

    def test_commands(self) -> None:
        one = (Command(("/bin/x",)),)
        made = desired(
            service(
                kind=Kind.FORKING,
                pid_file="/run/x y.pid",
                pre_start=one,
                post_start=one,
                reload=one,
                reload_signal="SIGHUP",
                stop=Stop(one, "SIGINT", 5, "mixed"),
                post_stop=one,
            )
        )
        file = "shop-web.service"
        for name in ("ExecStartPre", "ExecStartPost", "ExecStop", "ExecStopPost"):
            assert only(made, file, name) == "/bin/x"
        assert values(made, file, "ExecReload") == ["/bin/x", '/bin/sh -c "kill -s HUP $$MAINPID"']
        assert only(made, file, "KillSignal") == "SIGINT"
        assert only(made, file, "KillMode") == "mixed"
        assert only(made, file, "TimeoutStopSec") == "5s"
        assert only(made, file, "PIDFile") == "/run/x y.pid"
        assert only(desired(service(kind=Kind.DBUS, bus_name="org.x")), file, "BusName") == "org.x"

    def test_who_and_where(self) -> None:
        made = desired(
            service(
                user="u",
                group="g",
                groups=("a", "b"),
                umask=0o27,
                nice=-5,
                directory="/srv/a b ",
                environment_file=(EnvironmentFile("/etc/a"), EnvironmentFile("/etc/b c", True)),
                credentials={"key": Credential("/etc/key"), "enc": Credential("/etc/enc", True)},
                state_directory=("a", "b c"),
                runtime_directory=("r",),
                hardening=Hardening("strict", ("ProcSubset",), ("/a b", "-/c"), ("/d",), ("/e",)),
                limits=Limits("1G", "2G", "0", "50%", 5, 6, "7", "8", "9", "0", 10),
                watchdog_sec=3,
            )
        )
        for name, value in {
            "User": "u",
            "Group": "g",
            "SupplementaryGroups": "a b",
            "UMask": "0027",
            "Nice": "-5",
            "WorkingDirectory": "/srv/a b /",
            "LoadCredential": "key:/etc/key",
            "LoadCredentialEncrypted": "enc:/etc/enc",
            "StateDirectory": 'a "b c"',
            "RuntimeDirectory": "r",
            "ReadWritePaths": '"/a b" -/c',
            "ReadOnlyPaths": "/d",
            "InaccessiblePaths": "/e",
            "ProcSubset": None,
            "ProtectProc": "invisible",
            "MemoryMax": "1G",
            "MemoryHigh": "2G",
            "MemorySwapMax": "0",
            "CPUQuota": "50%",
            "CPUWeight": "5",
            "IOWeight": "6",
            "TasksMax": "7",
            "LimitNOFILE": "8",
            "LimitNPROC": "9",
            "LimitCORE": "0",
            "RuntimeMaxSec": "10s",
            "WatchdogSec": "3s",
        }.items():
            assert only(made, "shop-web.service", name) == value, name
        assert values(made, "shop-web.service", "EnvironmentFile") == ["/etc/a", "-/etc/b c"]

    def test_ready(self) -> None:
        made = desired(
            service("slow", ready=Ready(ReadyBy.TCP, "db:1", None, 100, 0.5), start_timeout_sec=20),
            service("long", ready=Ready(ReadyBy.FILE, "/x"), start_timeout_sec=float("inf")),
            service("job", ready=Ready(ReadyBy.LOG, "up{1}"), kind=Kind.ONESHOT),
            service(
                "run",
                ready=Ready(ReadyBy.EXEC, command=Command(("pg", "$X"), expand=True, ignore_failure=True)),
            ),
        )
        prober = "/usr/bin/python3 -I -S /var/lib/sysresp/ready.py"
        assert made.needs_prober
        assert only(made, "shop-slow.service", "TimeoutStartSec") == "115s"
        assert only(made, "shop-long.service", "TimeoutStartSec") == "infinity"
        assert only(made, "shop-job.service", "TimeoutStartSec") is None
        assert only(made, "shop-run.service", "TimeoutStartSec") == "90s"
        assert (
            only(made, "shop-slow.service", "ExecStartPost")
            == f"{prober} --timeout 100 --interval 0.5 tcp db:1"
        )
        assert only(made, "shop-job.service", "ExecStartPost") == (
            f'+{prober} --timeout 30 --interval 0.1 log "up{{1}}"'
        )
        assert only(made, "shop-run.service", "ExecStartPost") == (
            f"-{prober} --timeout 30 --interval 0.1 exec -- pg $X"
        )
        assert only(made, "shop-job.service", "RemainAfterExit") == "yes"

    def test_restart(self) -> None:
        restart = Restart("always", 0.2, 60, None, 10, 600, ("1",), ("2", "SIGKILL"), ("3",), 1)
        made = desired(service(restart=restart), version=254)
        delay = restart_sec(service(restart=restart), "shop-web.service", 254)
        assert 0.2 < delay < 1.2
        for name, value in {
            "Restart": "always",
            "RestartSec": span(delay),
            "RestartSteps": "5",
            "RestartMaxDelaySec": "1min",
            "StartLimitIntervalSec": "10min",
            "StartLimitBurst": "10",
            "SuccessExitStatus": "1",
            "RestartPreventExitStatus": "2 SIGKILL",
            "RestartForceExitStatus": "3",
        }.items():
            assert only(made, "shop-web.service", name) == value
        assert only(desired(service(restart=Restart("no"))), "shop-web.service", "RestartSec") is None

    def test_backoff_before_254_rests_the_longest(self) -> None:
        made = desired(service(restart=Restart(max_delay_sec=60)), version=253)
        assert only(made, "shop-web.service", "RestartSteps") is None
        assert only(made, "shop-web.service", "RestartSec") == "1min"

    @pytest.mark.parametrize(("version", "text"), [(252, "1min"), (254, "12s")])
    def test_instances_rest_the_longest_of_theirs(self, version: int, text: str) -> None:
        restart = Restart(delay_sec=2, max_delay_sec=60, jitter_sec=10)
        made = desired(service(restart=restart, instances=("1", "2")), version=version)
        assert only(made, "shop-web@.service", "RestartSec") == text

    def test_credentials_need_a_new_enough_systemd(self) -> None:
        rendered = render(spec(service(credentials={"k": Credential("/x", encrypted=True)})), version=249)
        assert rendered.problems[0].severity is Severity.ERROR
        assert "250" in rendered.problems[0].what

    def test_config_digest(self) -> None:
        made = render(spec(service()), version=252, digests={"web": "abc"}).desired
        assert only(made, "shop-web.service", "ConfigDigest") == "abc"
        assert only(made, "shop.target", "ConfigDigest") is None

    def test_conditions(self) -> None:
        made = desired(service(conditions={"ConditionPathExists": ("/a b", "!/c")}))
        assert values(made, "shop-web.service", "ConditionPathExists") == ["/a b", "!/c"]

    def test_unrepresentable_values_are_problems_at_their_line(self) -> None:
        lines = {"environment.A": Origin("services.toml", 9), "state_directory": Origin("services.toml", 5)}
        rendered = render(
            spec(
                service(
                    lines=lines,
                    environment={"A": "\udce9"},
                    state_directory=("a\nb",),
                    command=(Command(("x/y",)),),
                    before=("a\nb.service",),
                )
            ),
            version=252,
        )
        assert [(problem.origin.line, problem.key) for problem in rendered.problems] == [
            (5, "services.web.state_directory"),
            (7, "services.web.before"),
            (7, "services.web.command"),
            (9, "services.web.environment.A"),
        ]

    def test_description_of_the_project(self) -> None:
        assert "Description=the shop\n" in (
            render(replace(spec(service()), description="the\nshop "), version=252)
            .desired.files["shop.target"]
            .text.replace("the shop ", "the shop")
        )
        broken = render(replace(spec(service()), description="\udce9"), version=252)
        assert problems(broken)[0][0] == "project.description"


class TestHardening:
    @pytest.mark.parametrize("profile", ["strict", "strict-jit"])
    def test_programs_in_a_home_are_pointed_out(self, profile: str) -> None:
        one = service(
            command=(Command(("/home/x/bin/y",)),), hardening=Hardening(profile, read_write=("/home/x",))
        )
        (problem,) = render(spec(one), version=252).problems
        assert problem.severity is Severity.WARNING
        assert "ProtectHome" in problem.fix
        left_out = replace(one, hardening=Hardening(profile, ("ProtectHome",)))
        assert not render(spec(left_out), version=252).problems

    def test_web_runs_programs_in_a_home_but_cannot_write_there(self) -> None:
        one = service(command=(Command(("/home/x/bin/y",)),), hardening=Hardening("web"))
        assert not hardening.hidden_home(one)
        assert hardening.hidden_home(replace(one, directory="/root")) == "/root"
        opened = Hardening("web", read_write=("/root",))
        assert not hardening.hidden_home(replace(one, directory="/root/x", hardening=opened))

    def test_old_systemd_gets_what_it_knows(self) -> None:
        made = desired(service(hardening=Hardening("strict")), version=246)
        assert only(made, "shop-web.service", "ProtectProc") is None
        assert only(made, "shop-web.service", "ProtectSystem") == "strict"


class TestWords:
    @pytest.mark.parametrize(
        ("sec", "text"),
        [
            (0, "0"),
            (0.0000001, "0"),
            (0.0005, "500us"),
            (0.2, "200ms"),
            (1.5, "1500ms"),
            (20, "20s"),
            (600, "10min"),
            (7200, "2h"),
            (float("inf"), "infinity"),
        ],
    )
    def test_span(self, sec: float, text: str) -> None:
        assert span(sec) == text

    def test_one_line(self) -> None:
        assert one_line(" a\nb  c \\ \\") == "a b  c"


def test_problems_are_sorted() -> None:
    rendered = render(spec(service("b", template="x"), service("a", command=(Command(("",)),))), version=252)
    assert list(rendered.problems) == sorted(rendered.problems)
    assert all(isinstance(problem, Problem) for problem in rendered.problems)
