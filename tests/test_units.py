"""Rendering: what the spec asks for is what the unit files say, nothing more and nothing less."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sysresp.errors import Problem, Severity
from sysresp.model import (
    Command,
    Credential,
    EnvironmentFile,
    Hardening,
    Kind,
    Limits,
    Listen,
    Origin,
    Ready,
    ReadyBy,
    Restart,
    Schedule,
    Scope,
    Service,
    Socket,
    Spec,
    Stop,
    Watch,
)
from sysresp.units import hardening, quote
from sysresp.units.change import Effect, effect
from sysresp.units.compose import restart_delay
from sysresp.units.desired import Desired
from sysresp.units.directives import TABLE
from sysresp.units.render import TEMPLATE_DIRS, Rendered, render
from sysresp.units.sheet import one_line, span
from sysresp.units.text import owner, parse
from tests.strategies import specs

HERE = Origin("services.toml", 7)
MARK = ("X-Sysresp", "Service")


def service(name: str = "web", **keys: object) -> Service:
    keys.setdefault("command", (Command(("/bin/true",)),))
    return Service(name=name, origin=HERE, **keys)  # type: ignore[arg-type]


def spec(*services: Service, project: str = "shop") -> Spec:
    return Spec(project=project, origin=Origin("services.toml"), services={s.name: s for s in services})


def desired(*services: Service, version: int = 252, scope: Scope = Scope.SYSTEM) -> Desired:
    rendered = render(spec(*services), version=version, scope=scope)
    assert not rendered.problems
    return rendered.desired


def values(what: Desired, file: str, directive: str) -> list[str]:
    entries = parse(what.files[file].text)
    return [value for section, name, value in entries if name == directive and (section, name) != MARK]


def only(what: Desired, file: str, directive: str) -> str | None:
    found = values(what, file, directive)
    assert len(found) < 2
    return found[0] if found else None


def problems(rendered: Rendered) -> list[tuple[str, str]]:
    return [(problem.key, problem.what) for problem in rendered.problems]


class TestProperties:
    @settings(max_examples=30, deadline=None)
    @given(specs(), st.sampled_from((247, 252, 257)), st.sampled_from(list(Scope)))
    def test_render_gives_unit_files_of_known_directives_only(
        self, what: Spec, version: int, scope: Scope
    ) -> None:
        rendered = render(what, version=version, scope=scope)
        for file in rendered.desired.files.values():
            assert owner(file.text) == what.project
            assert file.text.endswith("\n")
            assert not file.text.endswith("\n\n")
            quote.loadable(file.text)
            for section, name, _ in parse(file.text):
                if not section.startswith("X-"):
                    assert section in TABLE[name].sections
                    assert TABLE[name].since <= version
            # Nothing in a value can end its line, so that every line is one entry, a section or a remark.
            written = [line for line in file.text.split("\n") if line and line[0] not in "[#"]
            assert len(written) == len(parse(file.text))

    @settings(max_examples=30, deadline=None)
    @given(specs())
    def test_values_arrive_whole(self, what: Spec) -> None:
        made = render(what, version=257).desired
        for one in what.services.values():
            entries = parse(
                made.files[
                    next(u.file for u in made.units.values() if u.service == one.name and u.main)
                ].text
            )
            environment = [value for _, name, value in entries if name == "Environment"]
            read = [quote.literal(quote.split(line), command=False)[0] for line in environment]
            assert read == [f"{name}={value}" for name, value in one.environment.items()]
            commands = [value for _, name, value in entries if name == "ExecStart"]
            assert commands == [
                quote.command_line(c, instanced=one.instances is not None) for c in one.command
            ]

    @settings(max_examples=20, deadline=None)
    @given(specs(), st.randoms())
    def test_order_of_services_changes_no_file(self, what: Spec, random: object) -> None:
        items = list(what.services.items())
        random.shuffle(items)  # type: ignore[attr-defined]
        first = render(what, version=257).desired
        second = render(replace(what, services=dict(items)), version=257).desired
        assert first.files == second.files
        assert first.links == second.links
        assert first.units == second.units

    @settings(max_examples=20, deadline=None)
    @given(specs())
    def test_what_comes_first_is_listed_first(self, what: Spec) -> None:
        made = render(what, version=257).desired
        order = list(made.units)
        for unit in made.units.values():
            text = made.files[unit.file].text
            after = [word for _, name, value in parse(text) if name == "After" for word in value.split()]
            for other in after:
                assert order.index(other.replace("%i", unit.instance)) < order.index(unit.name)

    @settings(max_examples=20, deadline=None)
    @given(specs(), st.integers(1, 999))
    def test_moving_lines_changes_nothing(self, what: Spec, line: int) -> None:
        moved = {
            name: replace(one, origin=Origin("other.toml", line)) for name, one in what.services.items()
        }
        first = render(what, version=257).desired.files
        second = render(replace(what, services=moved), version=257).desired.files
        assert {n: f.text for n, f in first.items()} == {n: f.text for n, f in second.items()}

    @settings(max_examples=20, deadline=None)
    @given(specs())
    def test_every_unit_has_its_file_and_every_link_its_unit(self, what: Spec) -> None:
        made = render(what, version=257).desired
        assert {unit.file for unit in made.units.values()} == set(made.files)
        for link, file in made.links.items():
            assert link.partition("/")[2] in made.units
            assert file in made.files


class TestUnits:
    def test_plain_service(self) -> None:
        made = desired(service(description="a \\", documentation=("man:x(8)", "https://x/100%")))
        assert list(made.units) == ["shop.slice", "shop-web.service", "shop.target"]
        assert made.target == "shop.target"
        assert made.links == {
            "shop.target.wants/shop-web.service": "shop-web.service",
            "multi-user.target.wants/shop.target": "shop.target",
        }
        unit = made.units["shop-web.service"]
        assert (unit.start, unit.enabled, unit.main, unit.origin) == (True, True, True, HERE)
        assert not made.units["shop.slice"].start
        assert only(made, "shop-web.service", "Description") == "a"
        assert values(made, "shop-web.service", "Documentation") == ["man:x(8)", "https://x/100%%"]
        assert only(made, "shop-web.service", "Type") == "exec"
        assert only(made, "shop-web.service", "Restart") == "on-failure"
        assert only(made, "shop-web.service", "RestartSec") == "1s"
        assert only(made, "shop-web.service", "StartLimitIntervalSec") == "0"
        assert only(made, "shop-web.service", "Slice") == "shop.slice"
        assert only(made, "shop-web.service", "PartOf") == "shop.target"
        assert not made.needs_prober

    def test_disabled_service(self) -> None:
        made = desired(service(enabled=False, socket=Socket((Listen("1"),))))
        assert set(made.links) == {"multi-user.target.wants/shop.target"}
        assert not made.units["shop-web.service"].start
        assert not made.units["shop-web.socket"].start
        assert not made.units["shop-web.socket"].enabled

    def test_own_unit_name_and_links_of_raw_install(self) -> None:
        raw = {"Install": {"WantedBy": ("multi-user.target shop.target",), "Alias": ("front.service",)}}
        made = desired(service(unit="nginx.service", systemd=raw))
        assert set(made.links) == {
            "multi-user.target.wants/nginx.service",
            "shop.target.wants/nginx.service",
            "front.service",
            "multi-user.target.wants/shop.target",
        }

    def test_instances(self) -> None:
        made = desired(
            service(
                instances=("a", "b"),
                command=(Command(("/bin/true", "{instance} %i")),),
                environment={"N": "{instance}"},
                directory="/srv/{instance}",
                systemd={"Install": {"RequiredBy": ("x@%i.service",), "DefaultInstance": ("a",)}},
            ),
            service("db", requires=("web",)),
        )
        assert [u for u in made.units if "@" in u] == ["shop-web@a.service", "shop-web@b.service"]
        assert made.units["shop-web@b.service"].instance == "b"
        assert only(made, "shop-web@.service", "ExecStart") == '/bin/true "%i %%i"'
        assert only(made, "shop-web@.service", "Environment") == "N=%i"
        assert only(made, "shop-web@.service", "WorkingDirectory") == "/srv/%i"
        assert only(made, "shop-web@.service", "Description") == "shop web %i"
        assert only(made, "shop-db.service", "Requires") == "shop-web@a.service shop-web@b.service"
        assert only(made, "shop-db.service", "After") == "shop-web@a.service shop-web@b.service"
        assert made.links["shop.target.wants/shop-web@a.service"] == "shop-web@.service"
        assert made.links["x@a.service.requires/shop-web@a.service"] == "shop-web@.service"

    def test_socket_shared_by_instances(self) -> None:
        made = desired(
            service(instances=("1", "2"), socket=Socket((Listen("127.0.0.1:80"),), 5, 0o600, "u", "g"))
        )
        assert only(made, "shop-web.socket", "Service") == "shop-web@1.service"
        assert only(made, "shop-web.socket", "Backlog") == "5"
        assert only(made, "shop-web.socket", "SocketMode") == "0600"
        assert only(made, "shop-web.socket", "SocketUser") == "u"
        assert only(made, "shop-web@.service", "Sockets") == "shop-web.socket"
        assert only(made, "shop-web@.service", "Requires") == "shop-web.socket"
        assert only(made, "shop-web@.service", "After") == "shop-web.socket"

    def test_socket_for_each_instance(self) -> None:
        made = desired(service(instances=("1", "2"), socket=Socket((Listen("/run/{instance}", "fifo"),))))
        assert only(made, "shop-web@.socket", "ListenFIFO") == "/run/%i"
        assert only(made, "shop-web@.socket", "Service") is None
        assert only(made, "shop-web@.service", "Sockets") is None
        assert only(made, "shop-web@.service", "Requires") == "shop-web@%i.socket"
        assert list(made.units)[1:3] == ["shop-web@1.socket", "shop-web@2.socket"]

    def test_on_demand_service_is_reached_through_its_socket(self) -> None:
        made = desired(
            service(socket=Socket((Listen("80"),)), on_demand=True),
            service("db", requires=("web",), before=()),
            service("late", wants=("web",), before=("web",)),
        )
        assert not made.units["shop-web.service"].start
        assert not made.units["shop-web.service"].enabled
        assert made.units["shop-web.socket"].start
        assert only(made, "shop-db.service", "Requires") == "shop-web.socket"
        assert only(made, "shop-late.service", "Wants") == "shop-web.socket"
        assert only(made, "shop-late.service", "After") is None

    def test_scheduled_service(self) -> None:
        schedule = Schedule(("daily", "Mon 06:00"), 90, 30, jitter_sec=5, accuracy_sec=0.5)
        made = desired(service(kind=Kind.ONESHOT, schedule=schedule))
        assert values(made, "shop-web.timer", "OnCalendar") == ["daily", "Mon 06:00"]
        assert only(made, "shop-web.timer", "OnActiveSec") == "90s"
        assert only(made, "shop-web.timer", "OnUnitActiveSec") == "90s"
        assert only(made, "shop-web.timer", "OnBootSec") == "30s"
        assert only(made, "shop-web.timer", "Persistent") == "yes"
        assert only(made, "shop-web.timer", "RandomizedDelaySec") == "5s"
        assert only(made, "shop-web.timer", "AccuracySec") == "500ms"
        assert only(made, "shop-web.service", "RemainAfterExit") is None
        assert not made.units["shop-web.service"].start
        assert made.units["shop-web.timer"].start
        assert "shop.target.wants/shop-web.service" not in made.links

    def test_schedule_of_instances_is_refused(self) -> None:
        rendered = render(spec(service(instances=("1",), schedule=Schedule(("daily",)))), version=252)
        assert [key for key, _ in problems(rendered)] == ["services.web.schedule"]

    @pytest.mark.parametrize(
        ("keys", "scope", "command"),
        [
            ({}, Scope.SYSTEM, "systemctl --no-block try-restart shop-web.service"),
            ({}, Scope.USER, "systemctl --user --no-block try-restart shop-web.service"),
            (
                {"instances": ("1", "2")},
                Scope.SYSTEM,
                "systemctl --no-block try-restart shop-web@*.service",
            ),
            (
                {"instances": ("1", "2"), "kind": Kind.ONESHOT},
                Scope.SYSTEM,
                "systemctl --no-block start shop-web@1.service shop-web@2.service",
            ),
            (
                {"watch": Watch(("/etc/x",), "reload")},
                Scope.SYSTEM,
                "systemctl --no-block try-reload-or-restart shop-web.service",
            ),
            (
                {"kind": Kind.ONESHOT, "remain_after_exit": True},
                Scope.SYSTEM,
                "systemctl --no-block try-restart shop-web.service",
            ),
        ],
    )
    def test_watch(self, keys: dict[str, object], scope: Scope, command: str) -> None:
        made = desired(service(**{"watch": Watch(("/etc/a b ",)), **keys}), scope=scope)
        assert only(made, "shop-web-watch.path", "Unit") == "shop-web-watch.service"
        assert only(made, "shop-web-watch.service", "ExecStart") == command
        assert only(made, "shop-web-watch.service", "StartLimitIntervalSec") == "0"
        helper = made.units["shop-web-watch.service"]
        assert (helper.start, helper.enabled, helper.main) == (False, False, False)
        assert made.units["shop-web-watch.path"].start

    def test_watch_of_a_oneshot_starts_it(self) -> None:
        made = desired(service(kind=Kind.ONESHOT, watch=Watch(("/etc/a b ",))))
        assert only(made, "shop-web-watch.path", "PathChanged") == "/etc/a b /"
        assert only(made, "shop-web-watch.path", "Unit") == "shop-web.service"
        assert "shop-web-watch.service" not in made.files

    def test_user_scope(self) -> None:
        rendered = render(
            spec(service(user="x", hardening=Hardening("strict"), ready=Ready(ReadyBy.LOG, "up"))),
            version=252,
            scope=Scope.USER,
            prober=("/usr/bin/python3", "/p"),
        )
        made = rendered.desired
        assert [key for key, _ in problems(rendered)] == ["services.web.hardening", "services.web.user"]
        assert all(problem.severity is Severity.WARNING for problem in rendered.problems)
        assert "default.target.wants/shop.target" in made.links
        assert only(made, "shop-web.service", "User") is None
        assert only(made, "shop-web.service", "ProtectSystem") is None
        assert only(made, "shop-web.service", "NoNewPrivileges") == "yes"
        assert only(made, "shop-web.service", "ExecStartPost") == (
            "/usr/bin/python3 /p --timeout 30 --interval 0.1 --user log up"
        )

    def test_user_scope_without_sandbox(self) -> None:
        assert desired(service(), scope=Scope.USER)


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
        delay = restart_delay(restart, "shop-web.service")
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

    def test_backoff_needs_254(self) -> None:
        rendered = render(spec(service(restart=Restart(max_delay_sec=60))), version=253)
        assert problems(rendered)[0][0] == "services.web.restart.max_delay"
        assert rendered.problems[0].severity is Severity.WARNING
        assert only(rendered.desired, "shop-web.service", "RestartSteps") is None

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


class TestRaw:
    def test_raw_replaces_ours_in_place_and_adds_the_rest(self) -> None:
        made = desired(
            service(
                socket=Socket((Listen("80"),)),
                systemd={
                    "Service": {
                        "Restart": ("always",),
                        "LimitCORE": ("infinity",),
                        "ExecStart": ("", "/bin/%n"),
                    },
                    "Unit": {"OnFailure": ("x@%n.service",)},
                    "Socket": {"NoDelay": ("yes",)},
                },
            )
        )
        assert values(made, "shop-web.service", "ExecStart") == ["", "/bin/%n"]
        assert only(made, "shop-web.service", "Restart") == "always"
        assert only(made, "shop-web.service", "LimitCORE") == "infinity"
        assert only(made, "shop-web.service", "OnFailure") == "x@%n.service"
        assert only(made, "shop-web.socket", "NoDelay") == "yes"
        assert only(made, "shop-web.socket", "OnFailure") is None

    def test_raw_replaces_all_lines_of_ours(self) -> None:
        made = desired(
            service(
                environment={"A": "1", "B": "2"},
                environment_file=(EnvironmentFile("/x"),),
                reload=(Command(("/bin/r",)),),
                reload_signal="HUP",
                systemd={"Service": {"Environment": ("C=3",), "ExecReload": ("/bin/q", "/bin/r")}},
            )
        )
        assert values(made, "shop-web.service", "Environment") == ["C=3"]
        assert values(made, "shop-web.service", "ExecReload") == ["/bin/q", "/bin/r"]
        assert only(made, "shop-web.service", "EnvironmentFile") == "/x"

    @pytest.mark.parametrize(
        ("section", "name", "value", "severity", "what"),
        [
            ("Service", "RestartSteps", "3", Severity.ERROR, "new in systemd 254"),
            ("Service", "MemoryMx", "3", Severity.WARNING, "not a directive"),
            ("Service", "Zzzzzzzzzz", "3", Severity.WARNING, "not a directive"),
            ("Service", "After", "x", Severity.WARNING, "no meaning in"),
            ("Service", "LimitCORE", "a\nb", Severity.ERROR, "line break"),
            ("Service", "LimitCORE", "a\\", Severity.ERROR, "backslash"),
            ("Service", "LimitCORE", "\udce9", Severity.ERROR, "UTF-8"),
            ("Timer", "OnCalendar", "daily", Severity.ERROR, "no place"),
        ],
    )
    def test_wrong_raw(self, section: str, name: str, value: str, severity: Severity, what: str) -> None:
        rendered = render(spec(service(systemd={section: {name: (value,)}})), version=252)
        (problem,) = rendered.problems
        assert problem.severity is severity
        assert what in problem.what
        assert problem.fix

    def test_private_directives_are_let_through(self) -> None:
        made = desired(service(systemd={"Service": {"X-Mine": ("1",)}}))
        assert only(made, "shop-web.service", "X-Mine") == "1"


class TestTemplates:
    def make(
        self, tmp_path: Path, text: str, name: str = "mine.j2", template: str | None = "mine.j2"
    ) -> Rendered:
        (tmp_path / name).write_text(text)
        return render(spec(service(template=template)), version=252, template_dirs=(str(tmp_path),))

    def test_own_template(self, tmp_path: Path) -> None:
        text = (
            "{{ header }}\n[Unit]\n{{ about }}\n[Service]\n"
            "ExecStart=/bin/echo {{ ['a b', '$x'] | map('word') | join(' ') }}\n"
            "WorkingDirectory={{ '/50%' | path }}\n# {{ unit }} of {{ project }}, {{ service.name }}\n"
            "{% for name, value in restart %}{{ name }}={{ value }}\n{% endfor %}"
        )
        rendered = self.make(tmp_path, text)
        assert not rendered.problems
        made = rendered.desired
        assert only(made, "shop-web.service", "ExecStart") == '/bin/echo "a b" $$x'
        assert only(made, "shop-web.service", "WorkingDirectory") == "/50%%"
        assert only(made, "shop-web.service", "Restart") == "on-failure"
        assert owner(made.files["shop-web.service"].text) == "shop"
        assert "# shop-web.service of shop, web\n" in made.files["shop-web.service"].text

    @pytest.mark.parametrize(
        ("text", "what"),
        [
            ("[Service]\n\n{% if %}\n", "mine.j2:3: "),
            ("[Service]\n\n{{ nothing }}\n", "mine.j2:3: 'nothing' is undefined"),
            ("[Service]\nX={{ 'a\\0' | word }}\n", "mine.j2:2: holds a NUL"),
            ("{% include 'other.j2' %}", "no template other.j2"),
            ("[Unit]\nDescription=x\n", "no section [Service]"),
            ("[Service]\nfoo\n", "no assignment: 'foo'"),
            ("[Service]\n[X-Sysresp]\nProject=x\n", "sysresp's own"),
            ("[Service]\nX={{ '\\ufffe' }}\n", "noncharacter"),
        ],
    )
    def test_wrong_template(self, tmp_path: Path, text: str, what: str) -> None:
        (problem,) = self.make(tmp_path, text).problems
        assert problem.key == "services.web.template"
        assert problem.origin == HERE
        assert what in problem.what

    def test_missing_template(self, tmp_path: Path) -> None:
        (problem,) = self.make(tmp_path, "", template="none.j2").problems
        assert "none.j2" in problem.what
        assert TEMPLATE_DIRS[0] in problem.fix

    def test_users_version_of_a_shipped_template(self, tmp_path: Path) -> None:
        rendered = self.make(tmp_path, "[Unit]\n{{ about }}\n# mine\n", "slice.j2", None)
        assert not rendered.problems
        assert "# mine\n" in rendered.desired.files["shop.slice"].text

    @pytest.mark.parametrize(
        ("name", "text", "key", "what"),
        [
            ("slice.j2", "\n{{ x }}", "project.template", "slice.j2:2: 'x' is undefined"),
            ("service.j2", "[Unit]\n", "services.web.template", "no section [Service]"),
        ],
    )
    def test_wrong_version_of_a_shipped_template(
        self, tmp_path: Path, name: str, text: str, key: str, what: str
    ) -> None:
        (problem,) = self.make(tmp_path, text, name, None).problems
        assert problem.key == key
        assert what in problem.what

    def test_shipped_templates_are_short(self) -> None:
        for template in (Path(__file__).parent.parent / "templates").glob("*.j2"):
            assert len(template.read_text().splitlines()) <= 40


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


ANALYZE = shutil.which("systemd-analyze")


@pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is missing")
class TestOnSystemd:
    """The text is held against systemd's own tools; no service manager needs to run."""

    def write(self, made: Desired, where: Path) -> list[str]:
        for file in made.files.values():
            (where / file.name).write_text(file.text)
        for unit in made.units.values():
            if unit.instance:
                (where / unit.name).symlink_to(unit.file)
        return [str(where / unit) for unit in made.units]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([str(ANALYZE), *words], capture_output=True, text=True, check=False)

    def test_verify_is_silent(self, tmp_path: Path) -> None:
        made = desired(
            service("db", ready=Ready(ReadyBy.TCP, "127.0.0.1:1"), state_directory=("shop/db", "a b")),
            service(
                requires=("db",),
                instances=("1", "2"),
                command=(Command(("/bin/true", '100% $HOME \\ "x" ; \n\x01\udce9')),),
                environment={"A": '100% "x" $HOME \\', "I": "{instance}"},
                environment_file=(EnvironmentFile("/etc/os-release", True),),
                socket=Socket((Listen("127.0.0.1:8000"), Listen("/run/a b.sock")), 5, 0o660, "root", "root"),
                hardening=Hardening("strict", read_write=("-/srv/a b",)),
                user="root",
                groups=("daemon", "root"),
                umask=0o27,
                directory="/",
                limits=Limits("512M", "10%", "0", "150%", 5, 6, "200", "65536", "100", "infinity", 100),
                conditions={"ConditionPathExists": ("/", "!/nonexistent a")},
                credentials={"k": Credential("/etc/machine-id")},
                restart=Restart("always", 0.2, None, None, 10, 600, ("1", "SIGTERM"), ("2",), ("3",), 1),
                reload_signal="HUP",
                stop=Stop((), "SIGINT", 5, "mixed"),
                documentation=("https://example.com/a%20b",),
            ),
            service("each", instances=("x",), socket=Socket((Listen("/run/{instance}.s", "sequential"),))),
            service(
                "pipe", on_demand=True, socket=Socket((Listen("/run/f", "fifo"), Listen("99", "datagram")))
            ),
            service("job", kind=Kind.ONESHOT, schedule=Schedule(("Mon..Fri 06:00",), 60, 60, True, 5, 1)),
            service("seen", watch=Watch(("/etc/hosts", "/a b "), "reload"), hardening=Hardening("web")),
            service(
                "many", watch=Watch(("/etc/hosts",)), instances=("1",), hardening=Hardening("strict-jit")
            ),
            service("once", kind=Kind.ONESHOT, watch=Watch(("/etc/hosts",))),
        )
        done = self.run("verify", "--recursive-errors=no", "--man=no", *self.write(made, tmp_path))
        assert (done.returncode, done.stderr, done.stdout) == (0, "", "")

    @pytest.mark.parametrize(("profile", "most"), [("strict", 1.5), ("strict-jit", 1.5), ("web", 2.5)])
    def test_exposure(self, tmp_path: Path, profile: str, most: float) -> None:
        made = desired(service(user="daemon", hardening=Hardening(profile)))
        self.write(made, tmp_path)
        done = self.run("security", "--offline=yes", "--no-pager", str(tmp_path / "shop-web.service"))
        words = done.stdout.rpartition("Overall exposure level for")[2].partition(":")[2].split()
        assert float(words[0]) <= most, done.stdout


def test_problems_are_sorted() -> None:
    rendered = render(spec(service("b", template="x"), service("a", command=(Command(("",)),))), version=252)
    assert list(rendered.problems) == sorted(rendered.problems)
    assert all(isinstance(problem, Problem) for problem in rendered.problems)


def test_nothing_to_do_is_seen() -> None:
    made = desired(service())
    text = made.files["shop-web.service"].text
    assert effect(text, text) is Effect.NONE
