"""What is refused or warned about in a service, each at its line, with a fix."""

from __future__ import annotations

import pytest

from sysresp.errors import Problem, Severity
from sysresp.model import Scope, Spec
from sysresp.spec.parse import Layer, parse


def check(text: str | bytes, *, scope: Scope = Scope.SYSTEM) -> tuple[Spec | None, tuple[Problem, ...]]:
    content = text.encode() if isinstance(text, str) else text
    spec, problems = parse([Layer("shop.toml", content)], scope=scope)
    assert (spec is None) == any(p.severity is Severity.ERROR for p in problems)
    assert list(problems) == sorted(set(problems))
    for problem in problems:
        assert problem.what
        assert problem.fix, problem
        assert not problem.what.endswith(".")
        assert not problem.what[0].isupper()
    return spec, problems


# (the body of a service, the key below it, part of the message or of the fix)
BAD_BODIES: list[tuple[str, str, str]] = [
    ("commnd = 1", "commnd", 'did you mean "command"'),
    ("zzzzzz = 1", "zzzzzz", "the keys here are after, alerts, before"),
    ("command = 5", "command", "must be a text or an array of texts, got 5"),
    ("command = ''", "command", "empty command"),
    ("command = []", "command", "empty command"),
    ("command = [' ']", "command", "empty program"),
    ("command = ['', 'x']", "command", "empty program"),
    ("command = 'a \"b'", "command", "nothing closes"),
    ("command = 'a b\\'", "command", "nothing closes"),
    ("command = 'bin/x'", "command", "relative path"),
    ("command = './x'\ndirectory = '/srv/'", "command", 'write "/srv/x"'),
    ("command = '../x'\ndirectory = '/srv'", "command", "write the absolute path"),
    ("command = 'x/y'\ndirectory = '~'", "command", "write the absolute path"),
    ("command = ['/bin/a\"b']", "command", "which systemd cannot run"),
    ("command = ['/bin/']", "command", "a directory as its program"),
    ("command = ['..']", "command", "a directory as its program"),
    ("command = ['/bin/x ']", "command", "blanks at its end"),
    ("command = ['mkdir -p /x', 'y']", "command", "a whole command line as its program"),
    ("command = '-/bin/x'", "command", 'the prefix "-" of unit files'),
    ("command = '~/x'", "command", "no shell expands it"),
    ("command = '${HOME}/x'", "command", "no shell expands it"),
    ("command = [{ bytes = '/bin/\\xff' }]", "command", "not valid UTF-8"),
    ('command = ["/bin/\\uFDD0"]', "command", "not valid UTF-8"),
    ("command = ['/bin/x', { bytes = '\\q' }]", "command[1]", "begins no escape"),
    ("command = ['/bin/x', { bytes = '\\x00' }]", "command[1]", "NUL"),
    ("command = ['/bin/x', { byts = '' }]", "command[1]", 'did you mean "bytes"'),
    ("command = ['/bin/x', {}]", "command[1]", "got a table"),
    ("command = ['/bin/x', 5]", "command[1]", 'write it in quotes: "5"'),
    ("command = ['/bin/x', 1979-05-27]", "command[1]", "got a date"),
    ('command = "x \\u0000"', "command", "NUL"),
    (f"command = ['/bin/x', '{'a' * 140000}']", "command[1]", "argument of 140000 bytes"),
    (
        f"command = ['/bin/x'{', ' + repr('%' * 120000)}{(', ' + repr('%' * 120000)) * 4}]",
        "command",
        "more than 1 MiB",
    ),
    ('command = [["/bin/a"], ["/bin/b"]]', "command", "several commands, and kind is"),
    ("command = { command = 'x' }", "command", "must be a text or an array"),
    ("pre_start = { comand = 'x' }", "pre_start", "has no `command`"),
    ("pre_start = { command = 'x', privilegd = true }", "pre_start.privilegd", 'did you mean "privileged"'),
    ("pre_start = { command = 'x', privileged = 'yes' }", "pre_start.privileged", "must be true or false"),
    ("pre_start = { command = 5 }", "pre_start.command", "must be a text"),
    ("pre_start = [['bin/x']]", "pre_start", "relative path"),
    ("pre_start = [['/bin/x'], []]", "pre_start[1]", "empty command"),
    ("kind = 'forkin'", "kind", 'did you mean "forking"'),
    ("kind = 'dbus'", "kind", "there is no `bus_name`"),
    ("kind = 'exec'\nbus_name = 'a.b'", "bus_name", "needs kind dbus"),
    ("bus_name = 'x'", "bus_name", "must be a D-Bus name"),
    ("description = 5", "description", 'write it in quotes: "5"'),
    ('description = "a\\nb"', "description", "U+000A at character 2"),
    ('description = "\\uFFFE"', "description", "U+FFFE"),
    ("documentation = 'x'", "documentation", "must be a URI"),
    ("enabled = 'no'", "enabled", "write false, without quotes"),
    ("enabled = 1", "enabled", "must be true or false"),
    ("unit = 'x'", "unit", 'write "x.service"'),
    ("unit = 'x.timer'", "unit", "use listen, schedule or watch"),
    ("unit = 'x y.service'", "unit", "no valid unit name"),
    ("unit = 'x@1.service'", "unit", "no valid unit name"),
    ("unit = 'x@.service'", "unit", 'write "x.service"'),
    ("template = '../x'", "template", "must be the name of a template file"),
    ("instances = 0", "instances", "from 1 to 1000"),
    ("instances = '4'", "instances", "a number from 1 to 1000"),
    ("instances = []", "instances", "has no instance"),
    ("instances = ['a', 'b', 'a']", "instances[2]", "is there twice"),
    ("instances = ['a/b']", "instances[0]", "an instance's name"),
    ("reload = 5", "reload", "must be a command, or { signal"),
    ("reload = { }", "reload", "has no `signal`"),
    ("reload = { signal = 'HUPP' }", "reload.signal", 'did you mean "HUP"'),
    ("stop = ['/bin/x']", "stop", "write stop = { command"),
    ("stop = 15", "stop", 'write a name such as "TERM"'),
    ("stop = { signal = 'RTMIN+40' }", "stop.signal", "must be a signal"),
    ("stop = { kill_mode = 'none ' }", "stop.kill_mode", 'did you mean "none"'),
    ("pid_file = 'x'", "pid_file", "must be an absolute path"),
    ("directory = 'x'", "directory", "begin it with /"),
    ("directory = '~/x'", "directory", "no shell expands it"),
    ("directory = '/a/../b'", "directory", "systemd refuses"),
    (f"directory = '/{'a' * 300}'", "directory", "longer than a path"),
    ('directory = "/a\\u0000"', "directory", "U+0000"),
    ("user = 'a b:c'", "user", "must be the name or number"),
    ("user = '-1'", "user", "must be the name or number"),
    ("user = ''", "user", "must be the name or number"),
    ("user = -1", "user", "from 0 to"),
    ("groups = ['a', 'a']", "groups[1]", "is there twice"),
    ("umask = 27", "umask", 'write "0027" in quotes'),
    ("umask = '9'", "umask", "octal"),
    ("umask = 1.5", "umask", "octal"),
    (f"groups = {[f'g{n}' for n in range(1001)]}", "groups", "at most 1000"),
    ("instances = 1.5", "instances", "write it as in instances = 4"),
    ("nice = 20", "nice", "from -20 to 19"),
    ("nice = '5'", "nice", "without quotes"),
    ("environment = 5", "environment", "must be a table of variables"),
    ("environment = { A = true }", "environment.A", "write it in quotes"),
    ("environment = { 1A = 'x' }", "environment.1A", "use letters"),
    ('environment = { A = "\\u0000" }', "environment.A", "U+0000"),
    ('environment = { A = "\\uFFFF" }', "environment.A", "U+FFFF"),
    (f"environment = {{ A = '{'x' * 140000}' }}", "environment.A", "longer than the kernel takes"),
    ("environment_file = 'x'", "environment_file", "absolute"),
    ("credentials = { a = {} }", "credentials.a", "has no `path`"),
    ("credentials = { 'a:b' = '/x' }", 'credentials."a:b"', "a credential's name"),
    ("state_directory = '/var/lib/x'", "state_directory", "must be relative"),
    ("state_directory = ['a/../b']", "state_directory[0]", "plain relative path"),
    ("state_directory = 5", "state_directory", "must be true"),
    ("after = ['x y.service']", "after[0]", "no valid unit name"),
    ("after = ['wbe']", "after", 'write "wbe.service"'),
    ("after = 'web'", "after", "names the service itself"),
    ("requires = 'shop-web.service'", "requires", "names the service itself"),
    ("conditions = { path_exist = '/x' }", "conditions.path_exist", 'did you mean "path_exists"'),
    ("conditions = { path_exists = 1.5 }", "conditions.path_exists", "must be an absolute path"),
    ("conditions = { host = 1.5 }", "conditions.host", "must be a text"),
    ("restart = 'allways'", "restart", 'did you mean "always"'),
    ("restart = false", "restart", 'write "no", in quotes'),
    ("restart = { dely = '1s' }", "restart.dely", 'did you mean "delay"'),
    ("restart = { delay = '10ms' }", "restart.delay", "busy loop"),
    ("restart = { delay = 0 }", "restart.delay", "busy loop"),
    ("restart = { delay = 'soon' }", "restart.delay", 'must be a duration, got "soon"'),
    ("restart = { delay = -1 }", "restart.delay", "must be a duration"),
    ("restart = { delay = nan }", "restart.delay", "must be a duration"),
    ("restart = { delay = 'infinity' }", "restart.delay", "at most 100 years"),
    ("restart = { delay = true }", "restart.delay", "must be a duration"),
    (f"restart = {{ delay = '{'9' * 50}s' }}", "restart.delay", "at most 100 years"),
    ("restart = { max_delay = '500ms' }", "restart.max_delay", "shorter than `delay`"),
    ("restart = { steps = 5 }", "restart.steps", "needs `max_delay`"),
    ("restart = { within = 0 }", "restart.within", "at least 0.001"),
    ("restart = { then = 'cooldown 15m' }", "restart.then", "no last attempt"),
    ("restart = { cooldowns = 5 }", "restart.cooldowns", "needs a cooldown"),
    ("restart = { reset_after = '2m' }", "restart.reset_after", "nothing to reset"),
    ("restart = { prevent_exit = 256 }", "restart.prevent_exit", "from 0 to 255"),
    ("restart = { prevent_exit = '78' }", "restart.prevent_exit", "write 78"),
    ("restart = { prevent_exit = 'FOO' }", "restart.prevent_exit", "must be a signal"),
    ("kind = 'oneshot'\nrestart = 'always'", "restart", "refuses for a oneshot"),
    ("schedule = 'daily'\nrestart = { when = 'on-success' }", "restart.when", "and no `kind`"),
    ("start_timeout = '200years'", "start_timeout", 'write "infinity"'),
    ("watchdog = '30s'", "watchdog", "needs kind notify"),
    ("watchdog = 0", "watchdog", "at least"),
    ("ready = 5", "ready", "a table with one of"),
    ("ready = {}", "ready", "has no probe"),
    ("ready = { tcp = 80, file = '/x' }", "ready", "has 2 probes: tcp, file"),
    ("ready = { tcp = 'x' }", "ready.tcp", "must be HOST:PORT"),
    ("ready = { tcp = '*:80' }", "ready.tcp", 'write "127.0.0.1:80"'),
    ("ready = { tcp = '[x]:80' }", "ready.tcp", "must be HOST:PORT"),
    ("ready = { unix = 'x' }", "ready.unix", "must be the path of a socket"),
    ("ready = { http = 'https://x/' }", "ready.http", "does no TLS"),
    ("ready = { http = 'localhost' }", "ready.http", "must be a URL"),
    ("ready = { http = 'http://a:b/' }", "ready.http", "must be a URL"),
    ("ready = { log = '(' }", "ready.log", "no regular expression"),
    ("ready = { file = '/x', timeout = 5, interval = 6 }", "ready.interval", "longer than `timeout`"),
    ("ready = { file = '/x', timeout = 60 }\nstart_timeout = 30", "ready.timeout", "does not fit"),
    ("ready = { file = '/x' }\nstart_timeout = 20", "start_timeout", "does not fit"),
    ("ready = { file = '/x' }\nkind = 'oneshot'", "ready", "is no use"),
    ("limits = { memory = '512MB' }", "limits.memory", 'write "512M"'),
    ("limits = { memory = -1 }", "limits.memory", "must be a size"),
    ("limits = { memory = '200%' }", "limits.memory", "must be a size"),
    ("limits = { memory = '99999999999E' }", "limits.memory", "must be a size"),
    ("limits = { memory = true }", "limits.memory", "must be a size"),
    ("limits = { cpu = 1.5 }", "limits.cpu", 'write "150%"'),
    ("limits = { cpu = 'infinity' }", "limits.cpu", 'write "150%"'),
    ("limits = { cpu = 150 }", "limits.cpu", 'write "150%"'),
    ("limits = { tasks = 0 }", "limits.tasks", "write 200"),
    ("limits = { files = '20:10' }", "limits.files", "soft limit above"),
    ("limits = { files = 'infinity:10' }", "limits.files", "soft limit above"),
    ("limits = { files = 'a:10' }", "limits.files", "write 65536"),
    ("limits = { tasks = '1:2' }", "limits.tasks", "write 200"),
    ("listen = []", "listen", "has no address"),
    ("listen = 70000", "listen", "a port from 1 to 65535"),
    ("listen = 'localhost:80'", "listen", 'such as "127.0.0.1:80"'),
    ("listen = 'example.org:80'", "listen", "an IP address here, no name"),
    ("listen = '*:80'", "listen", 'write "80" for all'),
    ("listen = '1.2.3.400:80'", "listen", "an IP address here"),
    ("listen = '[xx]:80'", "listen", "an IP address here"),
    ("listen = '127.0.0.1:0'", "listen", "ports are 1 to 65535"),
    ("listen = '@'", "listen", "1 to 107 bytes"),
    (f"listen = '/{'a' * 110}'", "listen", "at most 107 bytes"),
    ("listen = '/a/../b'", "listen", "absolute path"),
    ("listen = 'vsock:x:5'", "listen", "vsock:CID:PORT"),
    ("listen = [{ fifo = 'x' }]", "listen[0].fifo", "absolute path"),
    ("listen = [{ sequential = '80' }]", "listen[0].sequential", "abstract name"),
    ("listen = [{ stream = '80', datagram = '80' }]", "listen[0]", "exactly one of"),
    ("listen = 1.5", "listen", "must be an address"),
    ("listen = ['80', '80']", "listen[1]", "is there twice"),
    ("listen = ['80', '[::]:80']", "listen", "as service"),
    ("on_demand = true", "on_demand", "needs `listen`"),
    ("schedule = ''", "schedule", 'write "daily"'),
    ("schedule = {}", "schedule", "says no time"),
    ("schedule = { every = '10ms' }", "schedule.every", "at least 1 seconds"),
    ("schedule = 'daily'\ninstances = 2", "schedule", "cannot be together"),
    ("watch = {}", "watch", "has no `paths`"),
    ("watch = { paths = '/x', action = 'restrt' }", "watch.action", 'did you mean "restart"'),
    ("hardening = true", "hardening", 'write "web"'),
    ("hardening = { except = 'ProtectHom' }", "hardening.except", 'did you mean "ProtectHome"'),
    ("systemd = { Sevice = { A = 1 } }", "systemd.Sevice", 'did you mean "Service"'),
    ("systemd = { Service = { a-b = 1 } }", "systemd.Service.a-b", "a directive's name"),
    ("systemd = { Service = { A = 1979-05-27 } }", "systemd.Service.A", "got a date"),
    ("systemd = { Service = { A = inf } }", "systemd.Service.A", "must be"),
    ('systemd = { Service = { A = "a\\nb" } }', "systemd.Service.A", "U+000A"),
    ("systemd = { Socket = { A = 1 } }", "systemd.Socket", "it has no `listen`"),
    ("systemd = { Timer = { A = 1 } }", "systemd.Timer", "it has no `schedule`"),
    ("health = { http = 'x' }", "health.http", "must be a URL"),
    ("alerts = ['x']", "alerts[0]", "there is no [alerts.x]"),
    ("settle = 'soon'", "settle", "must be a duration"),
    ("rollout = 1", "rollout", "must be a table of parallel, pause or stop_on_failure, got 1"),
    ("ignore_start_failure = 1", "ignore_start_failure", "must be true or false"),
]


@pytest.mark.parametrize(
    ("body", "key", "words"), BAD_BODIES, ids=[f"{b[1]}-{n}" for n, b in enumerate(BAD_BODIES)]
)
def test_a_bad_value_is_refused_at_its_line(body: str, key: str, words: str) -> None:
    begin = "" if body.startswith("command") else 'command = ["/bin/x"]\n'
    text = f"[services.web]\n{begin}{body}\n"
    spec, problems = check(text)
    assert spec is None
    found = [p for p in problems if p.key == f"services.web.{key}" and words in f"{p.what} | {p.fix}"]
    assert len(found) == 1, problems
    line = found[0].origin.line
    lines = text.split("\n")
    assert lines[line - 1].startswith(key.split(".", maxsplit=1)[0].split("[", maxsplit=1)[0])
    assert found[0].source == lines[line - 1][:200]


WARNED = [
    ("command = 'a | b'", "command", 'has "|" as an ordinary argument'),
    ("command = 'a b; c'", "command", "no shell runs this"),
    ("command = 'a # b'", "command", 'has "#" as an ordinary argument'),
    ("command = 'a $(b)'", "command", "no shell runs this"),
    ("environment = { DB_PASSWORD = 'x' }", "environment.DB_PASSWORD", "looks like a secret"),
    ("environment = { API_KEY = 'x' }", "environment.API_KEY", "looks like a secret"),
    ("kind = 'forking'", "kind", "without `pid_file`"),
    ("schedule = 'daily'\nremain_after_exit = true", "remain_after_exit", "never starts it again"),
    ("ready = { log = '.*' }", "ready.log", "matches an empty line"),
    ("listen = '127.0.0.1:80'\nready = { tcp = '127.0.0.1:80' }", "ready", "it always succeeds"),
]


@pytest.mark.parametrize(("body", "key", "words"), WARNED)
def test_what_is_hardly_meant_is_a_warning(body: str, key: str, words: str) -> None:
    begin = "" if body.startswith("command") else 'command = ["/bin/x"]\n'
    spec, problems = check(f"[services.web]\n{begin}{body}\n")
    assert spec is not None
    assert [(p.key, p.severity) for p in problems] == [(f"services.web.{key}", Severity.WARNING)]
    assert words in problems[0].what


@pytest.mark.parametrize(
    "body",
    [
        "environment = { TOKEN_FILE = '/x', PASSWORD = '', SECRETARY = 'x' }",
        "command = 'sh -c \"a | b\"'",
        "command = ['/bin/x', '|', '$(y)', ';']",
        "listen = ['80', { datagram = '80' }]\nready = { tcp = 81 }",
        "listen = '/run/x'\nready = { file = '/run/x' }",
        "kind = 'forking'\npid_file = '/run/x'",
        "ready = { file = '/x', timeout = 5 }\nstart_timeout = 5",
    ],
)
def test_what_is_well_meant_is_not_warned_about(body: str) -> None:
    begin = "" if body.startswith("command") else 'command = ["/bin/x"]\n'
    assert check(f"[services.web]\n{begin}{body}\n")[1] == ()


def test_one_mistake_is_one_problem() -> None:
    """A check that needs a refused value stays silent."""
    for body in (
        "kind = 'dbs'\nwatchdog = 5",
        "kind = 'dbs'\nbus_name = 'a.b'",
        "schedule = 5\nkind = 'oneshot'",
        "restart = { max_delay = 'x', steps = 5 }",
        "kind = 'dbs'\ncommand = [['/bin/a'], ['/bin/b']]",
    ):
        begin = "" if "command" in body else 'command = ["/bin/x"]\n'
        _, problems = check(f"[services.web]\n{begin}{body}")
        assert len(problems) == 1, (body, problems)


def test_a_users_own_manager_cannot_change_the_user() -> None:
    text = "[services.web]\ncommand = 'x'\nuser = 'a'\ngroup = 'b'\ngroups = ['c']\n"
    assert check(text)[0] is not None
    _, problems = check(text, scope=Scope.USER)
    assert [(p.origin.line, p.key) for p in problems] == [
        *((3, "services.web.user"), (4, "services.web.group"), (5, "services.web.groups"))
    ]
    assert check("[services.web]\ncommand = 'x'\n", scope=Scope.USER)[0] is not None
