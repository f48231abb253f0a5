"""The nouns of sysresp: what the user's file says, as frozen values.

`Spec` is services.toml after checking: every value typed, every duration in seconds (`_sec`), every size
in bytes, defaults applied. Nothing here knows TOML, unit files, D-Bus or the clock. The fields of `Service`
are the keys of services.toml: `sysresp.spec.keys` documents them, `sysresp.units` makes directives of them.

Strings may hold lone surrogates U+DC80..U+DCFF for argument bytes that are not UTF-8 (as os.fsdecode does).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf
from types import MappingProxyType

NOTHING: Mapping[str, str] = MappingProxyType({})

SETTLE_SEC = 3.0
"""How long apply watches what it changed: long enough for a bad option, a missing module, a port in use."""

KEEP = 20
"""How many generations of a project are kept."""


@dataclass(frozen=True, slots=True, order=True)
class Origin:
    """The place in the user's file that asked for something; line counts from 1, 0 = the file as a whole."""

    path: str = ""
    line: int = 0

    def __str__(self) -> str:
        return f"{self.path}:{self.line}" if self.line else self.path


NOWHERE = Origin()


class Scope(StrEnum):
    """Which service manager: PID 1, or the caller's own."""

    SYSTEM = "system"
    USER = "user"


class Mode(StrEnum):
    """How units are run."""

    PERSISTENT = "persistent"  # files in /etc/systemd/system, enabled
    RUNTIME = "runtime"  # files in /run/systemd/system, gone at reboot
    TRANSIENT = "transient"  # StartTransientUnit, no files of ours


class Kind(StrEnum):
    """systemd.service(5) Type=."""

    SIMPLE = "simple"
    EXEC = "exec"  # the default: the start job fails if the executable cannot be run
    NOTIFY = "notify"
    ONESHOT = "oneshot"
    FORKING = "forking"
    DBUS = "dbus"


@dataclass(frozen=True, slots=True)
class Command:
    """One command line. `words[0]` is the program. Never run by a shell."""

    words: tuple[str, ...]
    expand: bool = False  # True for the string form: systemd expands $VAR and ${VAR} in it; False: exact
    ignore_failure: bool = False  # the "-" prefix
    privileged: bool = False  # the "+" prefix: as root and outside the sandbox of the unit


@dataclass(frozen=True, slots=True)
class Restart:
    """Restart= and what bounds it (systemd.service(5), systemd.unit(5) StartLimit*)."""

    when: str = "on-failure"  # no | always | on-success | on-failure | on-abnormal | on-abort | on-watchdog
    delay_sec: float = 1.0
    max_delay_sec: float | None = None  # with steps: exponential backoff from delay to this
    steps: int | None = None
    attempts: int | None = None  # None: never gives up
    within_sec: float = 600.0  # the window for attempts
    success_exit: tuple[str, ...] = ()  # exit codes or signal names that count as success
    prevent_exit: tuple[str, ...] = ()  # ... after which it is not restarted
    force_exit: tuple[str, ...] = ()  # ... after which it is always restarted
    jitter_sec: float = 0.0  # a fixed share of this, drawn from the unit's name, is added to delay
    # What only the controller does:
    failures: int | None = None  # more than this in `per_sec` are the last ones, too; None: any number
    per_sec: float = 3600.0
    cooldown_sec: float = 0.0  # `then`: it is started again so long after the last attempt; 0: given up
    cooldowns: int = 0  # ... so many times in a row; 0: for ever
    reset_after_sec: float | None = None  # after a run of this length everything is counted anew


@dataclass(frozen=True, slots=True)
class Stop:
    """How a service is stopped (systemd.kill(5))."""

    command: tuple[Command, ...] = ()
    signal: str | None = None  # "SIGTERM" form
    timeout_sec: float | None = None
    kill_mode: str | None = None  # control-group | mixed | process | none


class ReadyBy(StrEnum):
    """What a readiness probe looks at."""

    TCP = "tcp"  # "HOST:PORT" accepts a connection
    UNIX = "unix"  # a socket path accepts a connection
    HTTP = "http"  # a URL answers 200..399
    EXEC = "exec"  # a command exits 0
    FILE = "file"  # a path exists
    LOG = "log"  # a line of the service's journal matches this regular expression


@dataclass(frozen=True, slots=True)
class Ready:
    """The start job of the unit ends when this probe succeeds, so that After= and `systemctl start` wait."""

    by: ReadyBy
    target: str = ""  # address, path, URL or regular expression; "" for EXEC
    command: Command | None = None  # for EXEC
    timeout_sec: float = 30.0
    interval_sec: float = 0.1


@dataclass(frozen=True, slots=True)
class Health:
    """A probe while the service runs, which the controller makes."""

    by: ReadyBy  # HTTP, TCP, UNIX or EXEC
    target: str = ""  # as in `Ready`
    command: Command | None = None  # for EXEC; nothing expands it
    interval_sec: float = 10.0  # from the begin of one probe to that of the next
    timeout_sec: float = 2.0  # of one probe; no longer than `interval_sec`
    failures: int = 3  # so many in a row make it unhealthy
    successes: int = 1  # ... healthy again
    grace_sec: float = 30.0  # so long after a start failures do not count, or until the first success
    action: str = "restart"  # restart | stop | none
    restarts: int = 5  # by the probe within `within_sec`; from then on it is left as it is
    within_sec: float = 3600.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Resource limits; sizes in bytes, `inf` = "infinity", percentages as text where systemd takes them."""

    memory: str | None = None  # MemoryMax=, such as "536870912", "10%" or "infinity"
    memory_high: str | None = None  # MemoryHigh=
    swap: str | None = None  # MemorySwapMax=
    cpu: str | None = None  # CPUQuota=, such as "150%"
    cpu_weight: int | None = None  # CPUWeight=, 1..10000
    io_weight: int | None = None  # IOWeight=, 1..10000
    tasks: str | None = None  # TasksMax=
    files: str | None = None  # LimitNOFILE=
    processes: str | None = None  # LimitNPROC=
    core: str | None = None  # LimitCORE=
    runtime_sec: float | None = None  # RuntimeMaxSec=


@dataclass(frozen=True, slots=True)
class Listen:
    """One listening address of the service's .socket unit."""

    address: str  # as in ListenStream=
    type: str = "stream"  # stream | datagram | sequential | fifo


@dataclass(frozen=True, slots=True)
class Socket:
    """The .socket unit of a service (systemd.socket(5))."""

    listen: tuple[Listen, ...]
    backlog: int | None = None
    mode: int | None = None  # SocketMode=, such as 0o660
    user: str | None = None
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Schedule:
    """The .timer unit of a service (systemd.timer(5))."""

    calendar: tuple[str, ...] = ()  # OnCalendar=, checked by systemd itself
    every_sec: float | None = None  # OnUnitActiveSec= and OnActiveSec=
    on_boot_sec: float | None = None  # OnBootSec=
    catch_up: bool = True  # Persistent=: a run missed while the machine was off happens at boot
    jitter_sec: float = 0.0  # RandomizedDelaySec=
    accuracy_sec: float | None = None  # AccuracySec=


@dataclass(frozen=True, slots=True)
class Watch:
    """The .path unit of a service: what happens when one of these files changes (systemd.path(5))."""

    paths: tuple[str, ...]
    action: str = "restart"  # restart | reload


@dataclass(frozen=True, slots=True)
class Hardening:
    """A sandbox profile and what the user takes out of it."""

    profile: str = "off"  # off | web | strict-jit | strict ("standard" is another name of web)
    exceptions: tuple[str, ...] = ()  # directive names that are left out
    read_write: tuple[str, ...] = ()  # ReadWritePaths=
    read_only: tuple[str, ...] = ()  # ReadOnlyPaths=
    inaccessible: tuple[str, ...] = ()  # InaccessiblePaths=


@dataclass(frozen=True, slots=True)
class Rollout:
    """How the instances of a service are changed: so many at a time, each batch ready and settled first."""

    parallel: int | None = None  # instances down at a time; None: a quarter of them, at least one
    pause_sec: float = 0.0  # between a batch that has settled and the next
    stop_on_failure: bool = True  # else all batches are tried before the failure is judged


@dataclass(frozen=True, slots=True)
class EnvironmentFile:
    """EnvironmentFile=; an optional one may be missing (the "-" prefix)."""

    path: str
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Credential:
    """LoadCredential= (systemd 247) or LoadCredentialEncrypted= (250): a secret that is read as a file."""

    path: str
    encrypted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One entry of services.toml with its defaults and layers merged."""

    name: str
    origin: Origin
    lines: Mapping[str, Origin] = field(default_factory=dict, compare=False)
    # ^ dotted key below the service -> where it is set, such as "restart.delay"; only what the user wrote

    command: tuple[Command, ...] = ()  # more than one only for a oneshot
    kind: Kind = Kind.EXEC
    description: str | None = None
    documentation: tuple[str, ...] = ()
    enabled: bool = True  # False: installed, but neither started by apply nor pulled in at boot
    unit: str | None = None  # the unit's own name, such as "web.service"; default PROJECT-NAME.service
    template: str | None = None  # file name of the user's own Jinja template for the .service
    instances: tuple[str, ...] | None = None  # names of instances; None: a plain unit

    pre_start: tuple[Command, ...] = ()
    post_start: tuple[Command, ...] = ()
    reload: tuple[Command, ...] = ()
    reload_signal: str | None = None  # reload = { signal = "HUP" }
    stop: Stop = Stop()
    post_stop: tuple[Command, ...] = ()
    pid_file: str | None = None
    bus_name: str | None = None
    remain_after_exit: bool | None = None  # None: true for a oneshot that nothing schedules

    directory: str | None = None
    user: str | None = None
    group: str | None = None
    groups: tuple[str, ...] = ()
    umask: int | None = None
    nice: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    environment_file: tuple[EnvironmentFile, ...] = ()
    credentials: Mapping[str, Credential] = field(default_factory=dict)
    config_files: tuple[str, ...] = ()  # a change in one is a reload (or a restart) at the next apply
    state_directory: tuple[str, ...] = ()  # below /var/lib; `true` in the file is the unit's own name
    cache_directory: tuple[str, ...] = ()
    logs_directory: tuple[str, ...] = ()
    runtime_directory: tuple[str, ...] = ()
    configuration_directory: tuple[str, ...] = ()

    # Names of services of this file, or whole unit names. requires, wants and binds_to imply `after`,
    # because that is what people mean; a name that is also in `before` is not ordered after.
    after: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    wants: tuple[str, ...] = ()
    binds_to: tuple[str, ...] = ()
    part_of: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    conditions: Mapping[str, tuple[str, ...]] = field(
        default_factory=dict
    )  # by directive: "ConditionPathExists"

    alerts: tuple[str, ...] = ()  # names of [alerts] tables: who is told of its incidents
    restart: Restart = Restart()
    settle_sec: float = SETTLE_SEC
    ignore_start_failure: bool = False  # its failure is told, but no reason to roll back
    rollout: Rollout = Rollout()
    start_timeout_sec: float | None = None
    watchdog_sec: float | None = None
    ready: Ready | None = None
    health: Health | None = None
    limits: Limits = Limits()
    socket: Socket | None = None  # from `listen`
    on_demand: bool = False  # with listen: started by the first connection only
    schedule: Schedule | None = None
    watch: Watch | None = None
    hardening: Hardening = Hardening()
    systemd: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    # ^ raw directives: section -> directive -> values; replaces ours of the same name


@dataclass(frozen=True, slots=True)
class Controller:
    """[controller]: settings of the daemon that looks after the services of all projects."""

    starts_per_second: float = 5.0  # that it asks for, over all units
    max_age_sec: float = 0.0  # it restarts itself after so long; 0: never
    max_memory: int = 0  # ... above so many bytes; 0: never
    keep_sec: float = 90 * 86400.0  # what is older leaves its ledger
    keep_bytes: int = 256 << 20  # ... so does the oldest where the ledger is larger
    flaps: int = 5  # so many failures within `flaps_sec` are an incident
    flaps_sec: float = 600.0


@dataclass(frozen=True, slots=True)
class Alert:
    """[alerts.NAME]: who is told of incidents, how and when; see sysresp.units.alerting."""

    by: str  # exec | url | mailto | apprise
    argv: tuple[str, ...] = ()
    url: str = ""
    body: str = ""  # JSON
    to: tuple[str, ...] = ()
    sender: str = ""
    smtp: str = ""
    ca: str = ""
    user: str = ""
    secret: str = ""
    on: tuple[str, ...] = ("gave-up", "flapping", "probe", "blocked")
    repeat_sec: float = 0.0
    escalate_sec: float = 0.0
    quiet: tuple[str, ...] = ()
    resolve: bool = True
    most: int = 10
    timeout_sec: float = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """The whole file: the owner's name and its services, in the order of the file."""

    project: str
    origin: Origin
    services: Mapping[str, Service]
    description: str | None = None
    keep_generations: int = KEEP
    controller: Controller = Controller()
    alerts: Mapping[str, Alert] = field(default_factory=dict)


INFINITY = inf
"""A duration or limit of "infinity"."""
