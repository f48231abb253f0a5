"""What a spec asks of the host, what is said to the answers; and how units are named."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysresp.errors import Severity
from sysresp.model import NOWHERE, Listen, Schedule, Service, Socket, Spec, Watch
from sysresp.spec import names
from sysresp.spec.host import Answers, Questions, host_problems, questions
from sysresp.spec.parse import Layer, parse

FULL = """[defaults]
user = "shop"
[services.web]
command = ["/srv/web", "/not/asked"]
pre_start = "migrate --all"
stop.command = [["/bin/stop"]]
ready = { exec = ["/bin/probe"] }
directory = "/srv/shop"
group = "www"
groups = ["ssl", "5"]
environment_file = ["/etc/a", "-/etc/b", "/etc/c*.env"]
config_files = "/etc/web.conf"
listen = { addresses = "/run/x", user = "sock", group = "sockg" }
[services.web.credentials]
key = "/etc/key"
[services.each]
command = ["/srv/{instance}/bin"]
instances = ["eu", "us"]
directory = "/srv/{instance}"
user = "app-{instance}"
[services.job]
command = ["/srv/job"]
schedule = ["daily", "Mon 25:00"]
directory = "/var/lib/shop-job/x"
state_directory = true
user = 1000
[services.night]
command = ["/srv/job"]
schedule = { calendar = "nightly" }
directory = "~"
[services.other]
command = ["/x"]
systemd.Service.RootDirectory = "/image"
[services.dynamic]
command = ["/srv/d"]
systemd.Service.DynamicUser = true
"""


def full() -> Spec:
    spec, problems = parse([Layer("shop.toml", FULL.encode())])
    assert spec is not None, problems
    return spec


def test_everything_is_asked_once_and_sorted() -> None:
    assert questions(full()) == Questions(
        calendars=("Mon 25:00", "daily", "nightly"),
        users=("app-eu", "app-us", "shop", "sock"),
        groups=("sockg", "ssl", "www"),
        executables=(
            *("/bin/probe", "/bin/stop", "/srv/d", "/srv/eu/bin", "/srv/job", "/srv/us/bin", "/srv/web"),
            "migrate",
        ),
        directories=("/srv/eu", "/srv/shop", "/srv/us"),
        files=("/etc/a", "/etc/key", "/etc/web.conf"),
    )


def test_a_well_host_has_no_problems() -> None:
    assert host_problems(full(), Answers()) == []
    assert host_problems(full(), Answers()) == []


def test_what_is_missing_is_a_warning_and_a_bad_calendar_an_error() -> None:
    asked = questions(full())
    problems = host_problems(
        full(),
        Answers(
            bad_calendars={"Mon 25:00": "Invalid argument", "nightly": "Invalid argument"},
            missing_users=frozenset(asked.users),
            missing_groups=frozenset(asked.groups),
            missing_executables=frozenset(asked.executables),
            missing_directories=frozenset(asked.directories),
            missing_files=frozenset(asked.files),
        ),
    )
    told = [(p.origin.line, p.key.removeprefix("services."), p.severity.value) for p in problems]
    assert told == [
        (2, "web.user", "warning"),
        (4, "web.command", "warning"),
        (5, "web.pre_start", "warning"),
        (6, "web.stop.command", "warning"),
        (7, "web.ready.exec", "warning"),
        (8, "web.directory", "warning"),
        (9, "web.group", "warning"),
        (10, "web.groups", "warning"),
        (11, "web.environment_file", "warning"),
        (12, "web.config_files", "warning"),
        (13, "web.listen.group", "warning"),
        (13, "web.listen.user", "warning"),
        (15, "web.credentials.key", "warning"),
        *[(17, "each.command", "warning")] * 2,
        *[(19, "each.directory", "warning")] * 2,
        *[(20, "each.user", "warning")] * 2,
        (22, "job.command", "warning"),
        (23, "job.schedule", "error"),
        (28, "night.command", "warning"),
        (29, "night.schedule.calendar", "error"),
        (35, "dynamic.command", "warning"),
    ]
    assert problems[0].what == 'names user "shop", which this host has not'
    assert next(p for p in problems if p.severity is Severity.ERROR).what == (
        'is no calendar expression: "Mon 25:00": Invalid argument'
    )


def make(**values: object) -> Service:
    return Service(name="web", origin=NOWHERE, **values)  # type: ignore[arg-type]


def test_names_of_a_plain_service() -> None:
    service = make(socket=Socket((Listen("80"),)), schedule=Schedule(("daily",)), watch=Watch(("/x",)))
    assert names.stem("shop", service) == "shop-web"
    assert names.service_units("shop", service) == ("shop-web.service",)
    assert names.socket_units("shop", service) == ("shop-web.socket",)
    assert names.files("shop", service) == (
        *("shop-web.service", "shop-web.socket", "shop-web.timer", "shop-web-watch.path"),
        "shop-web-watch.service",
    )
    assert names.socket_units("shop", make()) == ()
    assert names.target_unit("shop") == "shop.target"


def test_names_of_instances() -> None:
    service = make(instances=("1", "eu"), unit="front@.service", socket=Socket((Listen("80"),)))
    assert names.files("shop", service) == ("front@.service", "front.socket")
    assert names.service_units("shop", service) == ("front@1.service", "front@eu.service")
    assert names.instance_unit("shop", service, "x") == "front@x.service"
    each = make(instances=("1", "eu"), socket=Socket((Listen("/run/{instance}"),)))
    assert names.socket_unit("shop", each) == "shop-web@.socket"
    assert names.socket_units("shop", each) == ("shop-web@1.socket", "shop-web@eu.socket")


def test_a_dash_in_a_project_nests_no_slice() -> None:
    assert names.slice_unit("shop") == "shop.slice"
    assert names.slice_unit("shop-eu") == "shop\\x2deu.slice"


@given(st.text(min_size=1, max_size=20).filter(lambda text: "\0" not in text))
def test_escape_is_the_inverse_of_systemds_unescape(text: str) -> None:
    escaped = names.escape(text)
    assert names.UNIT_CHARS.issuperset(escaped)
    assert not escaped.startswith(".")
    out, at = b"", 0
    while at < len(escaped):
        if escaped[at] == "\\":
            out += bytes([int(escaped[at + 2 : at + 4], 16)])
            at += 4
        else:
            out += b"/" if escaped[at] == "-" else escaped[at].encode()
            at += 1
    assert out.decode(errors="surrogateescape") == text


def test_escape_is_that_of_systemd_escape() -> None:
    words = ["a-b", "a/b", ".a", "a b", "é", "a\\b", "_:.", "x.y"]
    try:
        done = subprocess.run(["systemd-escape", *words], capture_output=True, text=True, check=True)
    except FileNotFoundError:
        pytest.skip("systemd-escape is not installed")
    assert done.stdout.split() == [names.escape(word) for word in words]


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        *[("web.service", True), ("web@.service", True), ("web@1.service", True), ("a-b\\x2d.socket", True)],
        *[
            ("web", False),
            (".service", False),
            ("web.conf", False),
            ("@1.service", False),
            ("a b.service", False),
        ],
        *[("a@b c.service", False), ("a" * 248 + ".service", False), ("a" * 247 + ".service", True)],
    ],
)
def test_whole_unit_names(text: str, valid: bool) -> None:
    assert names.is_unit_name(text) is valid
    assert names.has_unit_suffix(text) is (text.rpartition(".")[2] in names.UNIT_TYPES and "." in text)
