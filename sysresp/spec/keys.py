"""THE table: every key of services.toml, one row a key.

A row has the key's name, its type, one line of documentation, an example, the default, and the field of
`sysresp.model` it becomes. The same rows check a file (sysresp.spec.build), make the JSON Schema for editors
and the manual (sysresp.spec.schema). The tables inside of a service are in sysresp.spec.tables; checks
between keys of a service are in sysresp.spec.build, those across services in sysresp.spec.relations.
Rule: a key exists if and only if it has a row here.
"""

from __future__ import annotations

from typing import Any

from sysresp.model import KEEP, SETTLE_SEC, Kind
from sysresp.spec.addresses import HEALTH, READY, SOCKET
from sysresp.spec.alerts import ALERT_NAMES, ALERTS
from sysresp.spec.commands import Commands
from sysresp.spec.directives import CONDITIONS, SYSTEMD
from sysresp.spec.quantities import Duration
from sysresp.spec.report import At
from sysresp.spec.tables import (
    CONTROLLER,
    HARDENING,
    HOOK,
    LIMITS,
    RELOAD,
    RESTART,
    ROLLOUT,
    SCHEDULE,
    STOP,
    WATCH,
)
from sysresp.spec.types import Bool, Enum, Int, Key, ListOf, Str, Table
from sysresp.spec.values import (
    ACCOUNT,
    ACCOUNTS,
    BUS_NAME,
    CREDENTIALS,
    DEPENDENCIES,
    DIRECTORIES,
    DIRECTORY,
    ENVIRONMENT,
    ENVIRONMENT_FILES,
    INSTANCES,
    MODE,
    PATH,
    PATHS,
    TEMPLATE,
    UNIT,
)

_DOCUMENTATION = ListOf(
    Str(
        "a URI",
        pattern=r"(?:https?://|file:/|info:|man:)[!-~]+",
        fix='write "https://...", "file:/...", "info:..." or "man:..."',
    )
)
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
    Key("rollout", ROLLOUT, "How a change reaches its instances", '{ parallel = 1, pause = "5s" }'),
    Key("pre_start", HOOK, "Run before it starts", '["/srv/shop/bin/migrate"]'),
    Key("post_start", HOOK, "Run after it has started", '["/srv/shop/bin/warm-up"]'),
    Key("reload", RELOAD, "How it reads its files again", '{ signal = "HUP" }'),
    Key("stop", STOP, "How it is stopped", '{ signal = "INT", timeout = "20s" }'),
    Key("post_stop", HOOK, "Run after it has stopped", '["/srv/shop/bin/clean-up"]'),
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
    Key("groups", ACCOUNTS, "More groups", '["ssl-cert"]'),
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
        Duration(low=0.001, infinity=True),
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
    Key(
        "health",
        HEALTH,
        "It is restarted when this probe fails while it runs",
        '{ http = "http://127.0.0.1:8000/healthz" }',
    ),
    Key(
        "settle",
        Duration(),
        "After a change it must stay up so long, else apply puts back what was there",
        '"10s"',
        f"{SETTLE_SEC:g}s",
        "settle_sec",
    ),
    Key("ignore_start_failure", Bool(), "Its failure is told, and nothing is put back", "true", "false"),
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
    Key("alerts", ALERT_NAMES, "Who is told of its incidents: names of [alerts] tables", '["ops"]'),
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
            "keep_generations", Int(1, 1000), "How many applied changes can be gone back to", "50", str(KEEP)
        ),
        Key(
            "defaults",
            SERVICE_TABLE,
            "Keys for every service; its own win, tables merge",
            '{ user = "shop" }',
        ),
        Key("services", SERVICE_TABLE, "The services, each a table below its name", "{ web = { ... } }"),
        Key(
            "controller",
            CONTROLLER,
            "Settings of the controller, of which a host has one",
            '{ starts_per_second = 10, keep = "1y" }',
        ),
        Key(
            "alerts",
            ALERTS,
            "Who can be told of incidents, each a table below its name",
            "{ ops = { ... } }",
        ),
    )
}
"""Keys of the file."""
