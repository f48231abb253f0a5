"""services.toml -> Spec: what each key becomes, and what is said about each mistake, at its line."""

from __future__ import annotations

import pytest

from sysresp.errors import Problem
from sysresp.model import (
    Command,
    Credential,
    EnvironmentFile,
    Hardening,
    Health,
    Kind,
    Limits,
    Listen,
    Ready,
    ReadyBy,
    Restart,
    Rollout,
    Schedule,
    Service,
    Socket,
    Spec,
    Stop,
    Watch,
)
from sysresp.spec.keys import SERVICE_TABLE
from sysresp.spec.parse import Layer, parse
from sysresp.spec.types import Table

INF = float("inf")


def check(text: str) -> tuple[Spec | None, tuple[Problem, ...]]:
    return parse([Layer("shop.toml", text.encode())])


def service(body: str, *, warnings: int = 0) -> Service:
    """Parse a file with this one service."""
    command = "" if body.startswith("command") else 'command = ["/bin/x"]\n'
    spec, problems = check(f"[services.web]\n{command}{body}\n")
    assert spec is not None, problems
    assert len(problems) == warnings, problems
    return spec.services["web"]


# (the body of a service, the field of the model, its value)
GOOD: list[tuple[str, str, object]] = [
    ('command = "a b"', "command", (Command(("a", "b"), expand=True),)),
    ("command = \"a 'b c' d\\\\ e\"", "command", (Command(("a", "b c", "d e"), expand=True),)),
    ('command = "/bin/x\\u00a0y\\t z\\n"', "command", (Command(("/bin/x\u00a0y", "z"), expand=True),)),
    ('command = ["/bin/x", "", "$a %b", "\\u0001"]', "command", (Command(("/bin/x", "", "$a %b", "\x01")),)),
    (
        "command = ['/bin/x', { bytes = 'caf\\xe9\\\\' }]",
        "command",
        (Command(("/bin/x", "caf\udce9\\")),),
    ),
    ("command = ['/bin/x', { bytes = 'caf\\xc3\\xa9' }]", "command", (Command(("/bin/x", "café")),)),
    (
        'command = [["/bin/a"], ["/bin/b", "c"]]\nkind = "oneshot"',
        "command",
        (Command(("/bin/a",)), Command(("/bin/b", "c"))),
    ),
    (
        'command = "sh -c \\"echo $(date) | x\\""',
        "command",
        (Command(("sh", "-c", "echo $(date) | x"), expand=True),),
    ),
    ('kind = "notify"', "kind", Kind.NOTIFY),
    ('description = "The é shop"', "description", "The é shop"),
    ('settle = "1min 30s"', "settle_sec", 90.0),
    ("settle = 0", "settle_sec", 0.0),
    ("", "settle_sec", 3.0),
    ("ignore_start_failure = true", "ignore_start_failure", True),
    ("instances = 2", "rollout", Rollout()),
    ("instances = 2\nrollout = {}", "rollout", Rollout(None, 0.0, stop_on_failure=True)),
    (
        'instances = 8\nrollout = { parallel = 1, pause = "5s", stop_on_failure = false }',
        "rollout",
        Rollout(1, 5.0, stop_on_failure=False),
    ),
    ('documentation = ["man:x(1)", "https://e.org"]', "documentation", ("man:x(1)", "https://e.org")),
    ("enabled = false", "enabled", False),
    ('unit = "front.service"', "unit", "front.service"),
    ('unit = "front.service"\ninstances = 2', "unit", "front@.service"),
    ('unit = "front@.service"\ninstances = 2', "unit", "front@.service"),
    ('template = "web.service.j2"', "template", "web.service.j2"),
    ("instances = 3", "instances", ("1", "2", "3")),
    ('instances = ["eu", "us.1"]', "instances", ("eu", "us.1")),
    ('pre_start = "a b"', "pre_start", (Command(("a", "b"), expand=True),)),
    ('pre_start = ["/bin/a", "b"]', "pre_start", (Command(("/bin/a", "b")),)),
    ('pre_start = [["/bin/a"], ["/bin/b"]]', "pre_start", (Command(("/bin/a",)), Command(("/bin/b",)))),
    ("pre_start = []", "pre_start", ()),
    (
        'pre_start = { command = ["/bin/a"], ignore_failure = true }',
        "pre_start",
        (Command(("/bin/a",), ignore_failure=True),),
    ),
    (
        'post_start = ["a b", { command = "c", privileged = true }]',
        "post_start",
        (Command(("a", "b"), expand=True), Command(("c",), expand=True, privileged=True)),
    ),
    ('post_stop = "a"', "post_stop", (Command(("a",), expand=True),)),
    ('reload = "a"', "reload", (Command(("a",), expand=True),)),
    ('reload = { command = "a" }', "reload", (Command(("a",), expand=True),)),
    ('reload = { signal = "hup" }', "reload_signal", "SIGHUP"),
    ('stop = "INT"', "stop", Stop(signal="SIGINT")),
    (
        'stop = { signal = "SIGRTMIN+3", timeout = "infinity", kill_mode = "mixed", command = ["/bin/q"] }',
        "stop",
        Stop((Command(("/bin/q",)),), "SIGRTMIN+3", INF, "mixed"),
    ),
    ('pid_file = "/run/x.pid"', "pid_file", "/run/x.pid"),
    ('bus_name = "org.example.X"', "kind", Kind.DBUS),
    ('kind = "oneshot"\nremain_after_exit = false', "remain_after_exit", False),
    ('instances = 1\ndirectory = "/srv/{instance}"', "directory", "/srv/{instance}"),
    ('directory = "~"', "directory", "~"),
    ('user = "www-data"', "user", "www-data"),
    ("user = 1000", "user", "1000"),
    ('group = "x"', "group", "x"),
    ('groups = ["a", 5]', "groups", ("a", "5")),
    ('umask = "0027"', "umask", 0o27),
    ("umask = 0o77", "umask", 0o77),
    ("nice = -20", "nice", -20),
    ('environment = { A = "x\\n$ %", B = 5, _c = "" }', "environment", {"A": "x\n$ %", "B": "5", "_c": ""}),
    (
        'environment_file = ["/a", "-/b"]',
        "environment_file",
        (EnvironmentFile("/a"), EnvironmentFile("/b", True)),
    ),
    (
        'credentials = { a = "/x", b = { path = "/y", encrypted = true } }',
        "credentials",
        {"a": Credential("/x"), "b": Credential("/y", True)},
    ),
    ('config_files = "/etc/x"', "config_files", ("/etc/x",)),
    ("state_directory = true", "state_directory", ("shop-web",)),
    ('state_directory = true\nunit = "front.service"', "state_directory", ("front",)),
    ("cache_directory = true\ninstances = 2", "cache_directory", ("shop-web/{instance}",)),
    ("logs_directory = false", "logs_directory", ()),
    ('runtime_directory = "a/b"', "runtime_directory", ("a/b",)),
    ('configuration_directory = ["a", "b"]', "configuration_directory", ("a", "b")),
    ('after = "network-online.target"', "after", ("network-online.target",)),
    ('conflicts = ["x@1.service"]', "conflicts", ("x@1.service",)),
    (
        'conditions = { path_exists = ["/a", "!/b"], ac_power = true, cpus = 4 }',
        "conditions",
        {"ConditionPathExists": ("/a", "!/b"), "ConditionACPower": ("yes",), "ConditionCPUs": ("4",)},
    ),
    ('restart = "no"', "restart", Restart(when="no")),
    ('restart = "never"', "restart", Restart(when="no")),
    (
        'restart = { when = "always", delay = 0.2, max_delay = "1m", steps = 8,'
        ' attempts = 10, within = "90min", jitter = "500ms", success_exit = [3, "USR1"], prevent_exit = 78,'
        ' force_exit = "SIGKILL" }',
        "restart",
        Restart("always", 0.2, 60.0, 8, 10, 5400.0, ("3", "SIGUSR1"), ("78",), ("SIGKILL",), 0.5),
    ),
    (
        'restart = { attempts = 3, failures = 20, per = "2h", then = "cooldown 1h 30min", cooldowns = 4,'
        ' reset_after = "2m" }',
        "restart",
        Restart(
            attempts=3, failures=20, per_sec=7200.0, cooldown_sec=5400.0, cooldowns=4, reset_after_sec=120.0
        ),
    ),
    ('restart = { attempts = 3, then = "give-up" }', "restart", Restart(attempts=3)),
    ("health = { tcp = 80 }", "health", Health(ReadyBy.TCP, "127.0.0.1:80")),
    (
        'health = { http = "http://x/", interval = 1, timeout = "1s", failures = 4, successes = 5,'
        ' grace = 0, action = "restart", restarts = 6, within = "1min" }',
        "health",
        Health(ReadyBy.HTTP, "http://x/", None, 1.0, 1.0, 4, 5, 0.0, "restart", 6, 60.0),
    ),
    (
        'health = { exec = "/bin/a b", action = "stop" }',
        "health",
        Health(ReadyBy.EXEC, "", Command(("/bin/a", "b"), expand=True), action="stop"),
    ),
    ('restart = { delay = "0", attempts = 3 }', "restart", Restart(delay_sec=0.0, attempts=3)),
    ('restart = { when = "no", delay = "0" }', "restart", Restart(when="no", delay_sec=0.0)),
    ('kind = "oneshot"', "restart", Restart(when="no")),
    ('kind = "oneshot"\nrestart = "on-failure"', "restart", Restart()),
    ('start_timeout = "infinity"', "start_timeout_sec", INF),
    ('kind = "notify"\nwatchdog = 30', "watchdog_sec", 30.0),
    ('ready = { tcp = "localhost:5432" }', "ready", Ready(ReadyBy.TCP, "localhost:5432")),
    (
        'instances = 1\nready = { tcp = "[::1]:80{instance}" }',
        "ready",
        Ready(ReadyBy.TCP, "[::1]:80{instance}"),
    ),
    ("ready = { tcp = 5432 }", "ready", Ready(ReadyBy.TCP, "127.0.0.1:5432")),
    (
        'ready = { unix = "/run/x", timeout = 5, interval = "1s" }',
        "ready",
        Ready(ReadyBy.UNIX, "/run/x", None, 5.0, 1.0),
    ),
    ('ready = { unix = "@x" }', "ready", Ready(ReadyBy.UNIX, "@x")),
    ('ready = { http = "http://[::1]:8000/a?b" }', "ready", Ready(ReadyBy.HTTP, "http://[::1]:8000/a?b")),
    ('ready = { http = "http://localhost" }', "ready", Ready(ReadyBy.HTTP, "http://localhost")),
    ('ready = { exec = ["/bin/t"] }', "ready", Ready(ReadyBy.EXEC, "", Command(("/bin/t",)))),
    ('ready = { file = "/run/x" }', "ready", Ready(ReadyBy.FILE, "/run/x")),
    ('ready = { log = "listening .*" }', "ready", Ready(ReadyBy.LOG, "listening .*")),
    (
        'limits = { memory = "512M", memory_high = "12.5%", swap = 0, cpu = "150%", cpu_weight = 5,'
        ' io_weight = 6, tasks = "10%", files = "1024:infinity", processes = "9", core = "1.5K:2K",'
        ' runtime = "1h" }',
        "limits",
        Limits("536870912", "12.5%", "0", "150%", 5, 6, "10%", "1024:infinity", "9", "1536:2048", 3600.0),
    ),
    ('limits = { memory = "infinity", tasks = 7 }', "limits", Limits(memory="infinity", tasks="7")),
    ('listen = "127.0.0.1:8000"', "socket", Socket((Listen("127.0.0.1:8000"),))),
    ("listen = 8000", "socket", Socket((Listen("8000"),))),
    (
        'listen = ["[fe80::1]:80%eth0", "/run/x", "@x", "vsock:2:5", { datagram = "514" },'
        ' { sequential = "/run/s" }, { fifo = "/run/f" }]',
        "socket",
        Socket(
            (
                *(Listen("[fe80::1]:80%eth0"), Listen("/run/x"), Listen("@x"), Listen("vsock:2:5")),
                *(Listen("514", "datagram"), Listen("/run/s", "sequential"), Listen("/run/f", "fifo")),
            )
        ),
    ),
    (
        'listen = { addresses = "/run/x", backlog = 5, mode = "0660", user = "u", group = "g" }',
        "socket",
        Socket((Listen("/run/x"),), 5, 0o660, "u", "g"),
    ),
    ('listen = "80{instance}"\ninstances = 2', "socket", Socket((Listen("80{instance}"),))),
    ('schedule = "daily"', "schedule", Schedule(("daily",))),
    ('schedule = ["daily", "Mon 06:00"]', "kind", Kind.ONESHOT),
    (
        'schedule = { every = "15min", on_boot = 5, catch_up = false, jitter = 1, accuracy = "1us" }',
        "schedule",
        Schedule((), 900.0, 5.0, False, 1.0, 1e-6),
    ),
    ('schedule = "daily"\nkind = "exec"', "kind", Kind.EXEC),
    ('watch = "/etc/x"', "watch", Watch(("/etc/x",))),
    ('watch = { paths = ["/a", "/b"], action = "reload" }', "watch", Watch(("/a", "/b"), "reload")),
    ('hardening = "standard"', "hardening", Hardening("web")),
    (
        'hardening = { profile = "strict", except = "ProtectHome", read_write = "/a", read_only = "/b",'
        ' inaccessible = "/c" }',
        "hardening",
        Hardening("strict", ("ProtectHome",), ("/a",), ("/b",), ("/c",)),
    ),
    (
        'systemd.Service = { A = "x", B = 1, C = true, D = 1.5, E = ["a", false, 2], X-Y = "" }',
        "systemd",
        {
            "Service": {
                "A": ("x",),
                "B": ("1",),
                "C": ("yes",),
                "D": ("1.5",),
                "E": ("a", "no", "2"),
                "X-Y": ("",),
            }
        },
    ),
]


@pytest.mark.parametrize(("body", "field", "value"), GOOD)
def test_a_good_value_becomes(body: str, field: str, value: object) -> None:
    assert getattr(service(body), field) == value


@pytest.mark.parametrize("key", SERVICE_TABLE.keys)
def test_every_key_has_a_row_that_works(key: str) -> None:
    row = SERVICE_TABLE.keys[key]
    assert row.doc
    assert not row.doc.endswith(".")
    needs = {
        "pid_file": 'kind = "forking"\n',
        "watchdog": 'kind = "notify"\n',
        "kind": "",
        "rollout": "instances = 2\n",
        "on_demand": "listen = 80\n",
        "remain_after_exit": 'kind = "oneshot"\n',
    }.get(key, "")
    example = row.example.replace("web", "other") if key in ("before", "part_of") else row.example
    start = "" if key == "command" else 'command = ["/bin/x"]\n'
    others = (
        '[services.db]\ncommand = "db"\n[services.other]\ncommand = "o"\n[services.cache]\ncommand = "c"\n'
        '[alerts.ops]\nexec = ["/bin/true"]\n'
    )
    spec, problems = check(f"[services.web]\n{start}{needs}{key} = {example}\n{others}")
    assert spec is not None, problems
    assert problems == ()
    assert spec.services["web"] != Service(name="web", origin=spec.services["web"].origin)
    if isinstance(row.type, Table):
        for inner in row.type.keys.values():
            assert inner.example


def test_a_receiver_s_command_is_a_command() -> None:
    _, problems = check('[services.web]\ncommand = "/bin/x"\n[alerts.ops]\nexec = 5\n')
    assert [problem.key for problem in problems] == ["alerts.ops.exec"]
