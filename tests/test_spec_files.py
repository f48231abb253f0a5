"""The file as a whole: the documented example, broken files, layers, defaults, several services."""

from __future__ import annotations

import pytest

from sysresp.errors import Exit, Severity, SpecError
from sysresp.model import Controller, Kind, Origin, Restart
from sysresp.spec.parse import Layer, merged, parse, quoted

EXAMPLE = r"""
project = "shop"                       # owner of every unit below; default: the file's stem

[defaults]                             # any service key; a service's own key wins, tables merge
user = "shop"
hardening = "standard"

[services.db]
command = "/usr/bin/postgres -D ${STATE_DIRECTORY}"
ready = { tcp = "127.0.0.1:5432", timeout = "30s" }
state_directory = true

[services.web]
command = ["/srv/shop/bin/gunicorn", "shop:app"]
directory = "/srv/shop"
environment = { PORT = "8000", GREETING = "100% \"fine\" $HOME" }
requires = ["db"]
instances = 4
restart = { when = "on-failure", delay = "200ms", max_delay = "1m", steps = 8, attempts = 10 }
stop = { signal = "TERM", timeout = "20s" }
limits = { memory = "512M", cpu = "150%", tasks = 200, files = 65536 }
listen = ["127.0.0.1:8000"]

[services.report]
command = ["/srv/shop/bin/report"]
schedule = "Mon..Fri 06:00"

[services.web.systemd.Service]
LimitCORE = "infinity"
"""


def told(*texts: str) -> list[str]:
    """Return the problems of these layers as "file:line key: what"."""
    layers = [Layer(f"{'abc'[number]}.toml", text.encode()) for number, text in enumerate(texts)]
    return [f"{p.origin} {p.key}: {p.what}" for p in parse(layers).problems]


def test_the_documented_example_is_good() -> None:
    spec, problems = parse([Layer("services.toml", EXAMPLE.encode())])
    assert [(p.key, p.severity) for p in problems] == [("services.web.restart.attempts", Severity.WARNING)]
    assert spec is not None
    assert spec.project == "shop"
    assert list(spec.services) == ["db", "web", "report"]
    web = spec.services["web"]
    assert web.origin == Origin("services.toml", 13)
    assert web.environment["GREETING"] == '100% "fine" $HOME'
    assert web.user == "shop"
    assert web.lines["user"] == Origin("services.toml", 5)
    assert web.lines["restart.max_delay"] == Origin("services.toml", 19)
    assert web.lines["systemd.Service.LimitCORE"] == Origin("services.toml", 29)
    assert len(web.lines) == len(list(web.lines)) > 20
    assert "'limits.cpu'" in repr(web.lines)
    assert spec.services["report"].kind is Kind.ONESHOT


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        (b"\xff\xfe", 1, "is not UTF-8: byte 0xff at byte 1"),
        (b"project = 'x'\r\ndescription = '\xe9'\r\n", 2, "is not UTF-8: byte 0xe9"),
        (b"a = 1\nb = \n", 2, "cannot be read as TOML: invalid value at column 5"),
        (b"a = 1\na = 2\n", 2, "cannot overwrite a value"),
        (b"[a]\n[a]\n", 2, "cannot declare"),
        (b'a = "\\q"\n', 1, "escape"),
        (b"a = 1\nb = [1,\n", 2, "cannot be read as TOML"),
        (b"[services.web]\ncommand = 'x", 2, "cannot be read as TOML"),
        (b"a = '\0'", 1, "cannot be read as TOML"),
        (b"a = " + b"9" * 5000, 0, "cannot be read as TOML"),
        (b"a = " + b"[" * 100000, 0, "nested too deeply"),
        (b"a = " + b"[" * 40 + b"]" * 40, 0, "nested too deeply"),
        (b".".join([b"a"] * 2000) + b" = 1", 0, "nested too deeply"),
        (b"#" * (5 << 20), 0, "larger than 4 MiB"),
        (b"a = " + b"\x01" * (3 << 20), 1, "cannot be read as TOML"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_problem(content: bytes, line: int, words: str) -> None:
    spec, problems = parse([Layer("x.toml", content)])
    assert spec is None
    assert len(problems) == 1
    assert problems[0].origin == Origin("x.toml", line)
    assert words in problems[0].what
    assert problems[0].fix
    assert "\n" not in problems[0].source
    assert len(problems[0].source) <= 200
    with pytest.raises(SpecError) as raised:
        merged([Layer("x.toml", content)])
    assert raised.value.exit is Exit.USAGE


def test_two_broken_layers_are_two_problems() -> None:
    assert [row.split(" ")[0] for row in told("a = \n", "\nb = \n")] == ["a.toml:1", "b.toml:2"]


@pytest.mark.parametrize("begin", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_byte_order_mark_and_line_ends_change_nothing(begin: bytes, end: bytes) -> None:
    content = begin + end.join([b"[services.web]", b"command = '/bin/x'", b"usr = 1"])
    _, problems = parse([Layer("x.toml", content)])
    assert [(p.origin.line, p.source) for p in problems] == [(3, "usr = 1")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "a.toml : has no services"),
        ("[services]\n", "a.toml:1 services: has no services"),
        ("services = 5\n", "a.toml:1 services: must be a table of services, got 5"),
        ("[[services]]\nname = 'x'\n", "a.toml:1 services: must be a table of services, got an array"),
        ("[services.w]\ncommand = 'x'\n[services]\nx = 5\n", "a.toml:4 services.x: must be a table of keys"),
        (
            "[services]\ncommand = 'x'\n",
            "a.toml:2 services.command: is a key of a service, and stands outside",
        ),
        (
            "user = 'x'\n[services.w]\ncommand='x'\n",
            "a.toml:1 user: is a key of a service, and stands outside",
        ),
        ("[web]\ncommand='x'\n[services.w]\ncommand='x'", "a.toml:1 web: is no key that is known here"),
        ("projct = 'x'\n[services.w]\ncommand='x'", "a.toml:1 projct: is no key that is known here"),
        (
            "[alerts.ops]\nexec = 'x'\n[services.w]\ncommand='x'",
            "a.toml:2 alerts.ops.exec: has a program that is no absolute path",
        ),
        (
            "controller.intervall = 5\n[services.w]\ncommand='x'",
            "a.toml:1 controller.intervall: is no key that is known here",
        ),
        ("project = 'a b'\n[services.w]\ncommand='x'", "a.toml:1 project: must be a project's name"),
        (
            "project = 'system'\n[services.w]\ncommand='x'",
            "a.toml:1 project: is the name of a unit of systemd",
        ),
        (
            "project = 'x.timer'\n[services.w]\ncommand='x'",
            "a.toml:1 project: is the name of a unit of systemd",
        ),
        (
            "defaults = 5\n[services.w]\ncommand='x'",
            "a.toml:1 defaults: must be a table of keys of a service",
        ),
        ("description = 5\n[services.w]\ncommand='x'", "a.toml:1 description: must be a text, got 5"),
        ("[services.w]\nuser = 'x'", "a.toml:1 services.w: has no `command`"),
        ("[services.'a b']\ncommand='x'", 'a.toml:1 services."a b": must be a service\'s name'),
        ("[services.'-a']\ncommand='x'", "a.toml:1 services.-a: must be a service's name"),
        ("[services.'a.service']\ncommand='x'", 'a.toml:1 services."a.service": has the name of a unit'),
        (
            f"[services.{'a' * 250}]\ncommand='x'",
            f"a.toml:1 services.{'a' * 250}: has a unit name of 260 char",
        ),
    ],
)
def test_the_top_of_the_file(text: str, expected: str) -> None:
    problems = told(text)
    assert len(problems) == 1, problems
    assert problems[0].startswith(expected)


def test_settings_of_the_controller() -> None:
    body = b"controller = { starts_per_second = 9, max_age = '1h', max_memory = '64M',"
    body += b" keep = '1d', keep_size = '1G' }"
    spec, problems = parse([Layer("a.toml", body + b"\n[services.w]\ncommand = 'x'\n")])
    assert spec is not None, problems
    assert spec.controller == Controller(9.0, 3600.0, 64 << 20, 86400.0, 1 << 30)


def test_the_project_is_by_default_the_name_of_the_first_file() -> None:
    body = b"description = 'y'\nkeep_generations = 7\n[services.w]\ncommand = 'x'\n"
    spec, _ = parse([Layer("/etc/my-shop.toml", body), Layer("prod.toml", b"")])
    assert spec is not None
    assert (spec.project, spec.description, spec.origin) == ("my-shop", "y", Origin("/etc/my-shop.toml"))
    assert spec.keep_generations == 7
    assert spec.controller == Controller()
    for path in ("-", "my shop.toml", "/dev/fd/63 "):
        spec, problems = parse([Layer(path, body)])
        assert spec is None
        assert "names no project" in problems[0].what
    assert parse([]).spec is None
    assert merged([]) == {}


def test_a_default_is_told_once_and_as_what_it_is() -> None:
    text = "[defaults]\nusr = 'x'\nnice = 99\n[services.a]\ncommand='x'\n[services.b]\ncommand='x'\n"
    assert told(text) == [
        "a.toml:2 defaults.usr: is no key that is known here",
        "a.toml:3 defaults.nice: must be a whole number from -20 to 19, got 99",
    ]


def test_tables_of_defaults_merge_and_short_forms_merge_as_tables() -> None:
    text = """project = "shop"
[defaults]
restart = "always"
stop = { signal = "INT", timeout = 5 }
environment = { A = "1", B = "2" }
systemd.Service.Nice = 5
systemd.Socket.Backlog = 5
groups = ["x"]
[services.a]
command = "x"
restart = { delay = "5s" }
stop = "QUIT"
environment.B = "3"
systemd.Service.LimitCORE = 0
groups = []
[services.b]
command = "x"
restart = { when = "no" }
"""
    spec, problems = parse([Layer("x.toml", text.encode())])
    assert problems == ()
    assert spec is not None
    a, b = spec.services["a"], spec.services["b"]
    assert a.restart == Restart("always", 5.0)
    assert (a.stop.signal, a.stop.timeout_sec) == ("SIGQUIT", 5.0)
    assert a.environment == {"A": "1", "B": "3"}
    assert a.systemd == {"Service": {"Nice": ("5",), "LimitCORE": ("0",)}}
    assert a.groups == ()
    assert b.restart.when == "no"
    assert a.lines["restart.when"].line == 3
    assert a.lines["restart.delay"].line == 11
    assert a.lines["stop.signal"].line == 12
    assert a.lines["stop.timeout"].line == 4
    assert a.lines["environment.A"].line == 5
    assert a.lines["environment.B"].line == 13


def test_an_inherited_mistake_in_one_service_names_the_service() -> None:
    text = "[defaults]\nrestart = 'always'\n[services.job]\ncommand = 'x'\nkind = 'oneshot'\n"
    assert told(text) == [
        'a.toml:2 defaults.restart: is "always", which systemd refuses for a oneshot; service "job" is one'
    ]


def test_later_layers_win_and_each_problem_names_its_file() -> None:
    base = """project = "shop"
[defaults]
user = "a"
[services.web]
command = ["x", "y"]
restart = { delay = "1s", when = "bad" }
environment = { A = "1", B = "2" }
stop = "INT"
nice = 99
"""
    prod = """
[defaults]
user = "b"
[services.web]
command = ["z"]
restart = "always"
environment = { B = 3, C = true }
stop = { timeout = "x" }
[services.extra]
command = "e"
umask = "x"
"""
    assert told(base, prod) == [
        "a.toml:9 services.web.nice: must be a whole number from -20 to 19, got 99",
        "b.toml:7 services.web.environment.C: must be a text or a whole number, got true",
        'b.toml:8 services.web.stop.timeout: must be a duration or "infinity", got "x"',
        'b.toml:11 services.extra.umask: must be octal digits in quotes, got "x"',
    ]
    fixed = prod.replace("C = true", "C = 'c'").replace('"x"', '"5s"').replace('umask = "5s"', "")
    layers = [Layer("a.toml", base.replace("99", "9").encode()), Layer("b.toml", fixed.encode())]
    spec, problems = parse(layers)
    assert problems == ()
    assert spec is not None
    web = spec.services["web"]
    assert web.command[0].words == ("z",)
    assert web.restart == Restart("always", 1.0)
    assert web.environment == {"A": "1", "B": "3", "C": "c"}
    assert (web.stop.signal, web.stop.timeout_sec, web.user) == ("SIGINT", 5.0, "b")
    assert web.origin == Origin("a.toml", 4)
    assert [str(web.lines[key]) for key in ("command", "restart.when", "restart.delay", "user")] == [
        *("b.toml:5", "b.toml:6", "a.toml:6", "b.toml:3")
    ]
    assert [
        str(web.lines[key]) for key in ("environment.A", "environment.B", "stop.signal", "stop.timeout")
    ] == [*("a.toml:7", "b.toml:7", "a.toml:8", "b.toml:8")]
    document = merged(layers)
    assert document["services"]["web"]["restart"] == {"delay": "1s", "when": "always"}
    assert document["defaults"] == {"user": "b"}


def test_a_layer_may_replace_a_table_by_what_is_none_and_the_reverse() -> None:
    assert told("services = 5", "[services.w]\ncommand = 'x'") == []
    assert told("[services.w]\ncommand = 'x'", "services = 5") == [
        "b.toml:1 services: must be a table of services, got 5"
    ]
    assert told(
        "[defaults]\nstop = 'INT'\n[services.w]\ncommand = 'x'", "defaults.stop = { timeout = 'x' }"
    ) == ['b.toml:1 defaults.stop.timeout: must be a duration or "infinity", got "x"']


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "[services.a]\ncommand='x'\nafter=['b']\n[services.b]\ncommand='x'\nafter=['c']\n"
            "[services.c]\ncommand='x'\nrequires=['a']\n",
            [
                "a.toml:3 services.a.after: closes a cycle of services that each start after the "
                'one before: "a" -> "c" -> "b" -> "a"'
            ],
        ),
        (
            "[services.a]\ncommand='x'\nbefore=['b']\n[services.b]\ncommand='x'\nunit='b.service'\nbefore='a'\n"
            "[services.c]\ncommand='x'\nafter=['a', 'b.service']\nwants='x.service'",
            [
                "a.toml:7 services.b.before: closes a cycle of services that each start after the "
                'one before: "a" -> "b" -> "a"'
            ],
        ),
        # a second cycle through a service of the first is left until the first is gone
        (
            "[services.a]\ncommand='x'\nafter=['b']\n[services.b]\ncommand='x'\nafter=['a', 'c']\n"
            "[services.c]\ncommand='x'\nafter=['b']\n[services.d]\ncommand='x'\nafter=['c', 'a']\n",
            [
                "a.toml:3 services.a.after: closes a cycle of services that each start after the "
                'one before: "a" -> "b" -> "a"'
            ],
        ),
        # what is required but starts later is no cycle
        ("[services.a]\ncommand='x'\nrequires=['b']\nbefore=['b']\n[services.b]\ncommand='x'\n", []),
        (
            "[services.a]\ncommand='x'\n[services.a-watch]\ncommand='x'\n[services.b]\ncommand='x'\n"
            "unit='a-a.service'\n[services.c]\ncommand='x'\nwatch='/x'\nunit='a-a.service'\n",
            [
                'a.toml:7 services.b.unit: has the unit "a-a.service", as service "a" has (a.toml:1)',
                'a.toml:11 services.c.unit: has the unit "a-a-watch.service", as service "a-watch" has '
                "(a.toml:3)",
                'a.toml:11 services.c.unit: has the unit "a-a.service", as service "a" has (a.toml:1)',
            ],
        ),
        (
            "[services.a]\ncommand='x'\nlisten='80'\n[services.b]\ncommand='x'\n"
            "listen=['/run/x', '[::]:80']\n"
            "[services.c]\ncommand='x'\nlisten='/run/{instance}'\ninstances=['x', 'y']\n"
            "[services.d]\ncommand='x'\nlisten=[{ datagram = '80' }]\n",
            [
                'a.toml:6 services.b.listen: has the address "[::]:80", as service "a" has (a.toml:3)',
                'a.toml:9 services.c.listen: has the address "/run/x", as service "b" has (a.toml:6)',
            ],
        ),
        (
            "[services.a]\ncommand='x'\nafter='postgres'\n[services.b]\ncommand='x'\npart_of='A'\n",
            [
                'a.toml:3 services.a.after: names "postgres", which is no service of this file',
                'a.toml:6 services.b.part_of: names "A", which is no service of this file',
            ],
        ),
    ],
)
def test_services_among_themselves(text: str, expected: list[str]) -> None:
    problems = [row.replace('"80"', '"[::]:80"') for row in told(text)]
    assert problems == expected


def test_a_chain_of_a_thousand_is_no_cycle_and_no_recursion() -> None:
    rows = [f"[services.s{n}]\ncommand = 'x'\nafter = ['s{n - 1}']\n" for n in range(1, 1000)]
    text = "project = 'x'\n[services.s0]\ncommand = 'x'\n" + "".join(rows)
    spec, problems = parse([Layer("x.toml", text.encode())])
    assert spec is not None, problems
    closed = text.replace("[services.s0]\n", "[services.s0]\nafter = ['s999']\n")
    assert len(parse([Layer("x.toml", closed.encode())]).problems) == 1


def test_problems_found_without_the_file_get_their_lines() -> None:
    layers = [Layer("x.toml", b"[services.web]\ncommand = 'x'\nusr = 5\n")]
    bare = [p for p in parse(layers).problems if p.severity is Severity.ERROR]
    stripped = [type(p)(p.origin, p.key, p.what, p.fix, p.severity) for p in bare]
    assert stripped[0].source == ""
    assert quoted(stripped, layers) == bare
    assert quoted(bare, []) == bare
    assert quoted(stripped, []) == stripped
