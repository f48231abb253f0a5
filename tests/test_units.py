"""Which units, files and links a project has."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sysresp.errors import Severity
from sysresp.model import (
    Command,
    Hardening,
    Kind,
    Listen,
    Ready,
    ReadyBy,
    Rollout,
    Schedule,
    Scope,
    Socket,
    Watch,
)
from sysresp.units.change import Effect, effect
from sysresp.units.desired import Policy
from sysresp.units.render import render
from tests.rendered import HERE, desired, only, problems, service, spec, values


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


def test_only_what_differs_from_the_usual_policy_is_said() -> None:
    rollout = Rollout(2, 5.0, stop_on_failure=False)
    made = render(
        replace(
            spec(
                service("a"),
                service("b", settle_sec=0.0),
                service("c", ignore_start_failure=True),
                service("d", instances=("1", "2"), rollout=rollout),
                service("e", settle_sec=3.0, rollout=Rollout()),
            ),
            keep_generations=7,
        ),
        version=252,
    ).desired
    assert made.policies == {
        "b": Policy(settle_sec=0.0),
        "c": Policy(ignore_start_failure=True),
        "d": Policy(rollout=rollout),
    }
    assert made.keep_generations == 7


def test_nothing_to_do_is_seen() -> None:
    made = desired(service())
    text = made.files["shop-web.service"].text
    assert effect(text, text) is Effect.NONE
