"""THE table: every key of services.toml, one row a key.

A row has the key's name, its type, one line of documentation, an example, the default, and the field of
`sysresp.model` it becomes. The same rows check a file (sysresp.spec.build), make the JSON Schema for editors
(sysresp.spec.schema) and the manual. Checks of one table that need several keys of it stand here as `make`;
checks across services are in sysresp.spec.relations.
Rule: a key exists if and only if it has a row here; a key of a later version has a row with `later`.
"""

from __future__ import annotations

from typing import Any

from sysresp.model import Hardening, Kind, Limits, Restart, Schedule, Stop, Watch
from sysresp.spec.addresses import READY, SOCKET
from sysresp.spec.commands import Commands
from sysresp.spec.report import At
from sysresp.spec.types import Amount, Bool, Choice, Duration, Enum, Int, Key, ListOf, Str, Table
from sysresp.spec.values import (
    ACCOUNT,
    BUS_NAME,
    CONDITIONS,
    CREDENTIALS,
    DEPENDENCIES,
    DIRECTORIES,
    DIRECTORY,
    ENVIRONMENT,
    ENVIRONMENT_FILES,
    EXCEPTIONS,
    INSTANCES,
    MODE,
    PATH,
    PATHS,
    SIGNAL,
    STATUSES,
    SYSTEMD,
    TEMPLATE,
    UNIT,
)

SHORTEST_DELAY_SEC = 0.1
"""Below this, unlimited restarts are a busy loop of PID 1; on systemd <= 250 a delay of 0 can even make
`systemctl stop` hang (the restart timer is armed again while the stop job waits)."""

_LATER_COOLDOWN = "leave it out; until then `attempts` and `within` bound the restarts"


def _restart(values: dict[str, Any], at: At) -> Any:
    restart = Restart(**values)
    if restart.when != "no" and restart.attempts is None and restart.delay_sec < SHORTEST_DELAY_SEC:
        return (at / "delay").error(
            f"is below {SHORTEST_DELAY_SEC * 1000:g}ms with unlimited attempts, which is a busy loop of systemd",
            'write delay = "100ms" or more, or limit `attempts`',
        )
    if restart.max_delay_sec is not None and restart.max_delay_sec < restart.delay_sec:
        return (at / "max_delay").error("is shorter than `delay`", "write a longer one")
    if restart.steps is not None and restart.max_delay_sec is None:
        return (at / "steps").error(
            "needs `max_delay`", 'write max_delay = "1min", the delay after the last step'
        )
    return restart


RESTART = Table(
    [
        Key(
            "when",
            Enum(
                ("no", "always", "on-success", "on-failure", "on-abnormal", "on-abort", "on-watchdog"),
                {"never": "no"},
            ),
            "Which exits are followed by a restart (Restart= of systemd.service(5))",
            '"always"',
            '"on-failure"; "no" for a oneshot',
        ),
        Key("delay", Duration(), "Pause before a restart", '"5s"', "1s", "delay_sec"),
        Key("max_delay", Duration(), "The pause grows to this (systemd 254)", '"1min"', "", "max_delay_sec"),
        Key("steps", Int(1, 1000), "How many restarts it takes to grow", "8", "5"),
        Key(
            "attempts",
            Int(1, 1_000_000),
            "Gives up after this many starts in `within`",
            "10",
            "never gives up",
        ),
        Key("within", Duration(low=0.001), "The window of `attempts`", '"10min"', "10min", "within_sec"),
        Key(
            "jitter",
            Duration(),
            "A share of this, fixed for each unit, is added to delay",
            '"2s"',
            "0",
            "jitter_sec",
        ),
        Key("success_exit", STATUSES, "Exit statuses and signals that count as success", '[3, "USR1"]'),
        Key("prevent_exit", STATUSES, "Exit statuses and signals after which it stays down", "[78]"),
        Key("force_exit", STATUSES, "Exit statuses and signals after which it always restarts", "[75]"),
        Key("then", Str(), "What happens after the last attempt", later=_LATER_COOLDOWN),
        Key("cooldowns", Int(0, 0), "How many cooldowns there are", later=_LATER_COOLDOWN),
        Key("reset_after", Duration(), "When the attempts are forgotten", later=_LATER_COOLDOWN),
    ],
    _restart,
    short="when",
)


def _stop(values: dict[str, Any], _at: At) -> Any:
    return Stop(**values)


class _StopTable(Table):
    def parse(self, value: object, at: At) -> Any:
        if isinstance(value, list):
            return at.error("must be a signal or a table, got an array", "write stop = { command = [...] }")
        return super().parse(value, at)


STOP = _StopTable(
    [
        Key("signal", SIGNAL, "What it is told with", '"INT"', '"TERM"'),
        Key(
            "timeout",
            Duration(infinity=True),
            "It is killed after this",
            '"20s"',
            "90s (systemd's)",
            "timeout_sec",
        ),
        Key(
            "kill_mode",
            Enum(("control-group", "mixed", "process", "none")),
            "Who gets the signal (KillMode= of systemd.kill(5))",
            '"mixed"',
            '"control-group"',
        ),
        Key(
            "command",
            Commands(prefixes=True),
            "What is run to stop it, before the signal",
            '["/srv/bin/quit"]',
        ),
    ],
    _stop,
    short="signal",
)

_SIZE = 'a size such as "512M"'


def _memory() -> Amount:
    return Amount(f'{_SIZE}, a percentage or "infinity"', size=True, percent=100, example='"512M"')


def _rlimit(text: str, *, size: bool = False) -> Amount:
    return Amount(text, size=size, count=not size, pair=True, example='"512M"' if size else "65536")


def _limits(values: dict[str, Any], _at: At) -> Any:
    return Limits(**values)


_COUNT = 'a number, "SOFT:HARD" or "infinity"'
LIMITS = Table(
    [
        Key("memory", _memory(), "Killed above this (MemoryMax=)", '"512M"'),
        Key("memory_high", _memory(), "Slowed down above this (MemoryHigh=)", '"400M"'),
        Key("swap", _memory(), "Swap it may use (MemorySwapMax=)", '"0"'),
        Key(
            "cpu",
            Amount('a percentage of one CPU such as "150%"', percent=1e6, infinity=False, example='"150%"'),
            "CPU time it may use; 100% is one CPU (CPUQuota=)",
            '"150%"',
        ),
        Key("cpu_weight", Int(1, 10000), "Its share when CPUs are busy (CPUWeight=)", "200", "100"),
        Key("io_weight", Int(1, 10000), "Its share when disks are busy (IOWeight=)", "200", "100"),
        Key(
            "tasks",
            Amount('a number, a percentage or "infinity"', count=True, percent=100, low=1, example="200"),
            "Processes and threads (TasksMax=)",
            "200",
        ),
        Key("files", _rlimit(_COUNT), "Open files (LimitNOFILE=)", "65536"),
        Key("processes", _rlimit(_COUNT), "Processes of its user (LimitNPROC=)", "1024"),
        Key(
            "core",
            _rlimit('a size, "SOFT:HARD" or "infinity"', size=True),
            "Core file (LimitCORE=)",
            '"infinity"',
        ),
        Key(
            "runtime",
            Duration(infinity=True),
            "Stopped after this (RuntimeMaxSec=)",
            '"1h"',
            "",
            "runtime_sec",
        ),
    ],
    _limits,
)


def _schedule(values: dict[str, Any], at: At) -> Any:
    schedule = Schedule(**values)
    if not schedule.calendar and schedule.every_sec is None and schedule.on_boot_sec is None:
        return at.error(
            "says no time", 'write calendar = "Mon..Fri 06:00", every = "1h" or on_boot = "5min"'
        )
    return schedule


_CALENDAR = ListOf(
    Str("a calendar expression of systemd.time(7)", pattern=r"[ -~]*[!-~][ -~]*", fix='write "daily"')
)
SCHEDULE = Table(
    [
        Key("calendar", _CALENDAR, "When it runs (systemd.time(7))", '"Mon..Fri 06:00"'),
        Key("every", Duration(low=1), "It runs this long after its last start", '"15min"', "", "every_sec"),
        Key("on_boot", Duration(), "It runs this long after boot", '"5min"', "", "on_boot_sec"),
        Key("catch_up", Bool(), "A run that was missed happens at boot", "false", "true"),
        Key("jitter", Duration(), "It runs up to this later, at random", '"10min"', "0", "jitter_sec"),
        Key(
            "accuracy",
            Duration(),
            "systemd may delay it by this to save wake-ups",
            '"1s"',
            "1min",
            "accuracy_sec",
        ),
    ],
    _schedule,
    short="calendar",
)


def _watch(values: dict[str, Any], at: At) -> Any:
    if not values.get("paths"):
        return at.error("has no `paths`", 'write paths = ["/etc/shop/web.conf"]')
    return Watch(**values)


WATCH = Table(
    [
        Key("paths", PATHS, "Files and directories that are watched", '["/etc/shop/web.conf"]'),
        Key("action", Enum(("restart", "reload")), "What happens on a change", '"reload"', '"restart"'),
    ],
    _watch,
    short="paths",
)


def _hardening(values: dict[str, Any], _at: At) -> Any:
    return Hardening(**values)


HARDENING = Table(
    [
        Key(
            "profile",
            Enum(("off", "web", "strict-jit", "strict"), {"standard": "web"}, 'write "web"'),
            "How much of the host it may touch",
            '"strict"',
            '"off"',
        ),
        Key(
            "except",
            EXCEPTIONS,
            "Directives of the profile that are left out",
            '["ProtectHome"]',
            field="exceptions",
        ),
        Key("read_write", PATHS, "It may write here (ReadWritePaths=)", '["/srv/shop/data"]'),
        Key("read_only", PATHS, "It may not write here (ReadOnlyPaths=)", '["/srv/shop"]'),
        Key("inaccessible", PATHS, "It cannot see this (InaccessiblePaths=)", '["/srv/other"]'),
    ],
    _hardening,
    short="profile",
)


def _reload_signal(values: dict[str, Any], at: At) -> Any:
    return values.get("signal") or at.error("has no `signal`", 'write { signal = "HUP" }')


_HOOK = Commands(prefixes=True)


class _Reload(Choice):
    """A command, or a table with the signal: told apart by the keys of the table."""

    def parse(self, value: object, at: At) -> Any:
        if isinstance(value, dict) and "command" in value:
            return _HOOK.parse(value, at)
        return super().parse(value, at)

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [_HOOK.schema(), self.choices[dict].schema()]}


_RELOAD_SIGNAL = Table([Key("signal", SIGNAL, "What it is told with", '"HUP"')], _reload_signal)
RELOAD = _Reload({str: _HOOK, list: _HOOK, dict: _RELOAD_SIGNAL}, "a command, or { signal = ... }")

_DOCUMENTATION = ListOf(
    Str(
        "a URI",
        pattern=r"(?:https?|file|info|man):[!-~]+",
        fix='write "https://...", "file:/...", "info:..." or "man:..."',
    )
)
_LATER = "leave it out; {}"

SERVICE = (
    Key(
        "command",
        Commands(prefixes=False),
        "The program and its arguments",
        '["/srv/shop/bin/web", "--port", "80"]',
    ),
    Key("kind", Enum(tuple(Kind)), "How systemd knows that it has started", '"notify"', '"exec"'),
    Key("description", Str(), "One line for people", '"The shop"', "PROJECT SERVICE"),
    Key("documentation", _DOCUMENTATION, "Where to read more", '"https://example.org/shop"'),
    Key("enabled", Bool(), "It runs, now and at boot", "false", "true"),
    Key("unit", UNIT, "Name of its unit", '"web.service"', '"PROJECT-NAME.service"'),
    Key("template", TEMPLATE, "Your own template in /etc/sysresp/templates", '"web.service.j2"'),
    Key("instances", INSTANCES, "How many of it, or their names", "4"),
    Key("pre_start", _HOOK, "Run before it starts", '["/srv/shop/bin/migrate"]'),
    Key("post_start", _HOOK, "Run after it has started", '["/srv/shop/bin/warm-up"]'),
    Key("reload", RELOAD, "How it reads its files again", '{ signal = "HUP" }'),
    Key("stop", STOP, "How it is stopped", '{ signal = "INT", timeout = "20s" }'),
    Key("post_stop", _HOOK, "Run after it has stopped", '["/srv/shop/bin/clean-up"]'),
    Key("pid_file", PATH, "File with its process id, for kind forking", '"/run/shop/web.pid"'),
    Key("bus_name", BUS_NAME, "It has started when it owns this name; kind dbus", '"org.example.Shop"'),
    Key(
        "remain_after_exit",
        Bool(),
        "It counts as running after it exits",
        "true",
        "true for an unscheduled oneshot",
    ),
    Key("directory", DIRECTORY, "Where it runs", '"/srv/shop"', '"/"'),
    Key("user", ACCOUNT, "Who runs it", '"shop"', "root"),
    Key("group", ACCOUNT, "Its group", '"shop"', "the user's"),
    Key("groups", ListOf(ACCOUNT), "More groups", '["ssl-cert"]'),
    Key("umask", MODE, "Its umask", '"0027"', '"0022"'),
    Key("nice", Int(-20, 19), "Its scheduling priority", "5", "0"),
    Key("environment", ENVIRONMENT, "Variables; passed exactly, nothing is expanded", '{ PORT = "8000" }'),
    Key("environment_file", ENVIRONMENT_FILES, "Files of variables", '"/etc/shop/web.env"'),
    Key(
        "credentials",
        CREDENTIALS,
        "Secrets, as files in $CREDENTIALS_DIRECTORY",
        '{ key = "/etc/shop/key" }',
    ),
    Key(
        "config_files",
        PATHS,
        "A change in one reloads or restarts it at the next apply",
        '["/etc/shop/web.conf"]',
    ),
    Key("state_directory", DIRECTORIES, "Its directory below /var/lib", "true"),
    Key("cache_directory", DIRECTORIES, "Its directory below /var/cache", "true"),
    Key("logs_directory", DIRECTORIES, "Its directory below /var/log", "true"),
    Key("runtime_directory", DIRECTORIES, "Its directory below /run", "true"),
    Key("configuration_directory", DIRECTORIES, "Its directory below /etc", "true"),
    Key("after", DEPENDENCIES, "It starts after these", '["db"]'),
    Key("before", DEPENDENCIES, "It starts before these", '["web"]'),
    Key("requires", DEPENDENCIES, "It starts after these, and not without them", '["db"]'),
    Key("wants", DEPENDENCIES, "It starts after these, which are started too", '["cache"]'),
    Key("binds_to", DEPENDENCIES, "As requires, and it stops when they do", '["db"]'),
    Key("part_of", DEPENDENCIES, "It stops and restarts with these", '["web"]'),
    Key("conflicts", DEPENDENCIES, "Never runs at the same time as these", '["apache2.service"]'),
    Key("conditions", CONDITIONS, "It is skipped unless these hold", '{ path_exists = "/etc/shop" }'),
    Key(
        "restart", RESTART, "When it is restarted, and what bounds that", '{ when = "always", delay = "5s" }'
    ),
    Key(
        "start_timeout",
        Duration(infinity=True),
        "It has failed to start after this",
        '"2min"',
        "90s (systemd's)",
        "start_timeout_sec",
    ),
    Key(
        "watchdog",
        Duration(low=0.001),
        "Killed if it says nothing for so long; kind notify",
        '"30s"',
        "",
        "watchdog_sec",
    ),
    Key("ready", READY, "It has started when this probe succeeds", '{ tcp = "127.0.0.1:5432" }'),
    Key("limits", LIMITS, "What it may use", '{ memory = "512M", tasks = 200 }'),
    Key("listen", SOCKET, "Sockets that systemd opens for it", '["127.0.0.1:8000"]', field="socket"),
    Key("on_demand", Bool(), "The first connection starts it; with listen", "true", "false"),
    Key("schedule", SCHEDULE, "When it runs; kind oneshot by default", '"Mon..Fri 06:00"'),
    Key("watch", WATCH, "Files whose change restarts or reloads it", '["/etc/shop/web.conf"]'),
    Key("hardening", HARDENING, "What of the host is kept from it", '"web"'),
    Key(
        "systemd",
        SYSTEMD,
        "Directives as in unit files; they replace ours",
        "{ Service = { OOMScoreAdjust = 500 } }",
    ),
    Key("health", Str(), "Probes while it runs", later=_LATER.format("`ready` probes it when it starts")),
    Key(
        "alerts",
        Str(),
        "Who is told",
        later=_LATER.format("systemd.Unit.OnFailure can start a unit of yours"),
    ),
    Key(
        "settle",
        Duration(),
        "How long it is watched",
        later=_LATER.format("`ready` decides when it has started"),
    ),
    Key("rollout", Str(), "How instances are changed", later=_LATER.format("instances change together")),
    Key(
        "ignore_start_failure",
        Bool(),
        "Apply goes on",
        later=_LATER.format("use `wants`, not `requires`, for it"),
    ),
)
"""Keys of a service, and of [defaults]."""


def _together(values: dict[str, Any], _at: At) -> Any:
    return values


SERVICE_TABLE = Table(SERVICE, _together, "a table of keys of a service")

SHORT = {key.name: key.type.short for key in SERVICE if isinstance(key.type, Table) and key.type.short}
"""Keys of a service with a short form -> the key of the table that it stands for."""

PROJECT_NAME = Str(
    "a project's name", pattern=r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", fix="use letters, digits, _ . -"
)

TOP = {
    key.name: key
    for key in (
        Key(
            "project",
            PROJECT_NAME,
            "Owner of every unit of the file",
            '"shop"',
            "the file's name without .toml",
        ),
        Key("description", Str(), "One line for people", '"The shop"'),
        Key(
            "defaults",
            SERVICE_TABLE,
            "Keys for every service; its own win, tables merge",
            '{ user = "shop" }',
        ),
        Key("services", SERVICE_TABLE, "The services, each a table below its name", "{ web = { ... } }"),
        Key(
            "alerts",
            Str(),
            "Who is told",
            later="leave it out; systemd.Unit.OnFailure can start a unit of yours",
        ),
        Key("controller", Str(), "Its settings", later="leave it out; systemd itself restarts what fails"),
    )
}
"""Keys of the file."""
