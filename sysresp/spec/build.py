"""One table of [services] -> one `Service`: defaults that depend on other keys, checks between its keys.

Owns what a single service may not combine. Never looks at another service (sysresp.spec.relations does) or
at the host. Rule: a check says nothing if a value it needs was refused already, so that one mistake is one
problem.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sysresp.model import INFINITY, Command, Kind, Origin, ReadyBy, Restart, Scope, Service
from sysresp.spec.keys import SERVICE_TABLE
from sysresp.spec.layers import Document
from sysresp.spec.names import INSTANCE, base, has_socket_per_instance, has_unit_suffix
from sysresp.spec.report import At, Path, dotted, near, quote
from sysresp.spec.values import OWN_NAME, SERVICE_NAME, secret_in

_DIRECTORIES = tuple(f"{kind}_directory" for kind in ("state", "cache", "logs", "runtime", "configuration"))
DEPENDENCIES = ("after", "before", "requires", "wants", "binds_to", "part_of", "conflicts")
AFTER_A_KILL = frozenset(("always", "on-failure", "on-abnormal", "on-abort"))
"""Values of Restart= that follow a SIGKILL (systemd.service(5))."""
_SECTION_NEEDS = {"Socket": "listen", "Timer": "schedule", "Path": "watch"}


def build(
    document: Document, name: str, own: Mapping[str, Any], at: At, *, project: str, scope: Scope
) -> Service:
    """Return the service; where a value was refused, with the default in its place."""
    if SERVICE_NAME.parse(name, at) and has_unit_suffix(name):
        fix = f"write [services.{dotted((name.rpartition('.')[0],))}]; `unit` can name its unit"
        at.error("has the name of a unit, not of a service", fix)
    raw = document.service(name, own)
    values, _ = SERVICE_TABLE.values(raw, at)
    refused = {
        key
        for key in raw
        if (SERVICE_TABLE.keys[key].field or key if key in SERVICE_TABLE.keys else key) not in values
    }
    if isinstance(values.get("reload"), str):
        values["reload_signal"] = values.pop("reload")
    if "kind" in values:
        values["kind"] = Kind(values["kind"])
    else:
        values["kind"] = Kind.DBUS if "bus_name" in raw else Kind.ONESHOT if "schedule" in raw else Kind.EXEC
    if values["kind"] is Kind.ONESHOT and "restart" not in raw:
        values["restart"] = Restart(when="no")  # else a job that fails runs again every second, for ever
    instanced = values.get("instances") is not None
    _own_directories(values, base(project, name, values.get("unit")), instanced=instanced)
    if instanced and "unit" in values:
        values["unit"] = base(project, name, values["unit"]) + "@.service"
    _sections(values, document, at)
    _not_oneself(values, document, at, own={name, f"{base(project, name, values.get('unit'))}.service"})
    lines = Lines(document, at.path, raw)
    service = Service(name=name, origin=document.origin(at.path), lines=lines, **values)
    _Checks(service, raw, refused, document.is_inherited, at).run(scope)
    return service


class Lines(Mapping[str, Origin]):
    """Dotted key -> where it is set. Made at the first question: few services are ever asked for."""

    __slots__ = ("_document", "_made", "_path", "_raw")

    def __init__(self, document: Document, path: Path, raw: Mapping[str, Any]) -> None:
        self._document, self._path, self._raw = document, path, raw
        self._made: dict[str, Origin] | None = None

    def _all(self) -> dict[str, Origin]:
        if self._made is None:
            self._made = {
                dotted(path): self._document.origin(self._path + path) for path in _paths(self._raw)
            }
        return self._made

    def __getitem__(self, key: str) -> Origin:
        return self._all()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def __repr__(self) -> str:
        return repr(self._all())


def _paths(raw: Mapping[str, Any], upper: Path = ()) -> Iterator[Path]:
    for key, value in raw.items():
        yield (*upper, key)
        if isinstance(value, dict):
            yield from _paths(value, (*upper, key))


def _own_directories(values: dict[str, Any], own: str, *, instanced: bool) -> None:
    """Put the unit's own name where the file says `true`."""
    own = f"{own}/{INSTANCE}" if instanced else own
    for key in _DIRECTORIES:
        if values.get(key) == (OWN_NAME,):
            values[key] = (own,)


def _not_oneself(values: dict[str, Any], document: Document, at: At, *, own: set[str]) -> None:
    """Leave a service out of what [defaults] make all services depend on."""
    for key in DEPENDENCIES:
        if key in values and document.is_inherited((*at.path, key)):
            values[key] = tuple(other for other in values[key] if other not in own)


def _sections(values: dict[str, Any], document: Document, at: At) -> None:
    """Refuse raw sections of units that the service has not; those of [defaults] are left out silently."""
    for section, needed in _SECTION_NEEDS.items():
        key = "socket" if needed == "listen" else needed
        if section not in values.get("systemd", {}) or key in values:
            continue
        here = at / "systemd" / section
        if not document.is_inherited(here.path):
            here.error(
                f"is for a unit that this service has not: it has no `{needed}`",
                f"add `{needed}`, or remove it",
            )
        values["systemd"] = {name: table for name, table in values["systemd"].items() if name != section}


class _Checks:
    """What a single service may not combine."""

    def __init__(
        self,
        service: Service,
        raw: Mapping[str, Any],
        refused: set[str],
        inherited: Callable[[Path], bool],
        at: At,
    ) -> None:
        self.service, self.raw, self.refused, self.inherited, self.at = service, raw, refused, inherited, at

    def run(self, scope: Scope) -> None:
        self._command()
        self._programs()
        self._kind()
        self._bus()
        self._oneshot()
        self._health()
        self._times()
        self._companions()
        self._hardly_meant()
        self._secrets()
        self._instance()
        if scope is Scope.USER:
            self._user_scope()

    def _sure(self, *keys: str) -> bool:
        return self.refused.isdisjoint(keys)

    def _command(self) -> None:
        if "command" not in self.raw:
            if not any(near(key, ("command",)) for key in self.raw if key not in SERVICE_TABLE.keys):
                self.at.error("has no `command`", 'write command = ["/path/to/program", "argument"]')
        elif len(self.service.command) > 1 and self.service.kind is not Kind.ONESHOT and self._sure("kind"):
            fix = 'write kind = "oneshot", or move the others to `pre_start`'
            (self.at / "command").error(f"has several commands, and kind is {quote(self.service.kind)}", fix)

    def _programs(self) -> None:
        for path, command in commands(self.service):
            program = command.words[0]
            if "/" not in program or program.startswith("/"):
                continue
            here = At(self.at.report, (*self.at.path, *path))
            home = self.service.directory
            while program.startswith("./"):
                program = program[2:]
            fix = "write the absolute path"
            if home and home.startswith("/") and not program.startswith("../"):
                fix = f"write {quote(home.rstrip('/') + '/' + program)}"
            here.error(
                f"has a relative path as its program, which systemd refuses: {quote(command.words[0])}", fix
            )

    def _kind(self) -> None:
        service, at = self.service, self.at
        if not self._sure("kind"):
            return
        if service.watchdog_sec is not None and service.kind is not Kind.NOTIFY:
            fix = 'write kind = "notify" if the program sends WATCHDOG=1 (sd_notify(3)), or remove it'
            (at / "watchdog").error(f"needs kind notify, and kind is {quote(service.kind)}", fix)
        if service.kind is Kind.FORKING and "pid_file" not in self.raw:
            (at / "kind").warn(
                "is forking without `pid_file`, so systemd guesses the main process", "add `pid_file`"
            )

    def _bus(self) -> None:
        service, at = self.service, self.at
        if service.kind is Kind.DBUS and "bus_name" not in self.raw:
            (at / "kind").error("is dbus, and there is no `bus_name`", 'write bus_name = "org.example.Shop"')
        if "bus_name" in self.raw and service.kind is not Kind.DBUS and self._sure("kind"):
            (at / "bus_name").error(
                f"needs kind dbus, and kind is {quote(service.kind)}", "remove one of the two"
            )

    def _oneshot(self) -> None:
        service, at = self.service, self.at
        if service.kind is not Kind.ONESHOT or not self._sure("kind"):
            return
        why = "" if "kind" in self.raw else ", as it has a `schedule` and no `kind`"
        if service.restart.when in ("always", "on-success"):
            here = at / "restart" / "when" if isinstance(self.raw["restart"], dict) else at / "restart"
            here.error(
                f"is {quote(service.restart.when)}, which systemd refuses for a oneshot;"
                f" service {quote(service.name)} is one{why}",
                'write restart = "on-failure" or "no" for it',
            )
        if service.limits.runtime_sec not in (None, INFINITY):
            what = f"has no effect on a oneshot, and {quote(service.name)} is one{why}"
            (at / "limits" / "runtime").error(what, 'write start_timeout instead, or "infinity"')
        if service.ready:
            what = f"is no use: a oneshot is ready when it has ended, and {quote(service.name)} is one{why}"
            (at / "ready").error(what, "remove it")
        if service.remain_after_exit and service.schedule:
            what = "keeps the service active, so that its schedule never starts it again"
            (at / "remain_after_exit").warn(what, "remove it")

    def _health(self) -> None:
        service, at = self.service, self.at
        health, when = service.health, service.restart.when
        if health is None or not self._sure("kind", "restart", "schedule"):
            return
        if service.kind is Kind.ONESHOT or service.schedule:
            other = "a oneshot" if service.kind is Kind.ONESHOT else "one with a `schedule`"
            what = f"is no use: {other} does not go on running, and {quote(service.name)} is one"
            (at / "health").error(what, "remove it")
        elif health.action == "restart" and (
            when not in AFTER_A_KILL or "SIGKILL" in service.restart.prevent_exit
        ):
            what = "kills the service for systemd to restart it, and `restart` says that it stays down then"
            (at / "health").error(what, 'write restart = "on-failure", or action = "stop" or "none"')

    def _times(self) -> None:
        service, at = self.service, self.at
        limit = service.start_timeout_sec
        if service.ready and limit is not None and service.ready.timeout_sec > limit:
            here = at / "ready" / "timeout" if "timeout" in self.raw["ready"] else at / "start_timeout"
            long = f"{service.ready.timeout_sec:g}s"
            here.error(
                f"does not fit: `ready` may take {long}, `start_timeout` is {limit:g}s", "make it longer"
            )

    def _companions(self) -> None:
        service, at = self.service, self.at
        if service.on_demand and "listen" not in self.raw:
            (at / "on_demand").error(
                "needs `listen`: a connection starts the service", "add `listen`, or remove it"
            )
        if "schedule" in self.raw and "instances" in self.raw:
            (at / "schedule").error(
                "cannot be together with `instances`", "write a service for each, or remove one"
            )
        if (
            "rollout" in self.raw
            and "instances" not in self.raw
            and not self.inherited((*at.path, "rollout"))
        ):
            what = "has no effect: there is no `instances`, and a service without them is changed at once"
            (at / "rollout").warn(what, "write instances = 2, or remove it")
        shared = service.socket and service.instances and not has_socket_per_instance(service)
        if shared and service.restart.attempts is not None:
            what = "fails the socket of all instances as soon as one of them has had its last attempt"
            fix = f"remove it, or give each instance an address of its own with {INSTANCE}"
            (at / "restart" / "attempts").warn(what, fix)
        if service.unit and "@" in service.unit and "instances" not in self.raw:
            plain = quote(service.unit.replace("@", ""))
            (at / "unit").error("names a unit with instances, and there is no `instances`", f"write {plain}")
        listens = [listen.address for listen in service.socket.listen] if service.socket else []
        for key, probe in (("ready", service.ready), ("health", service.health)):
            if probe and probe.by in (ReadyBy.TCP, ReadyBy.UNIX) and probe.target in listens:
                what = f"asks {quote(probe.target)}, which systemd itself listens on: it always succeeds"
                (at / key).warn(what, "ask something that only the service answers, such as http")

    def _hardly_meant(self) -> None:
        """Warn of what systemd itself warns of, and of exact commands that ask for expansion."""
        service, at = self.service, self.at
        if service.user == "nobody":
            what = "is nobody, whom systemd warns of: other services have the same user, and its files"
            (at / "user").warn(
                what, "create a user for it, or write systemd.Service = { DynamicUser = true }"
            )
        if service.stop.kill_mode == "none":
            what = "leaves processes of the service behind, and systemd has deprecated it"
            (at / "stop" / "kill_mode").warn(what, 'write "mixed", or "process" to spare child processes')
        for path, command in commands(service):
            here = At(at.report, (*at.path, *path))
            program = command.words[0]
            if not command.expand and " " in program:
                what = f"has a blank in its program: {quote(program)}"
                here.warn(
                    what, 'write a word each: ["/bin/a", "-x"]; several are [["/bin/a", "-x"], ["/bin/b"]]'
                )
            meant = next((word for word in command.words[1:] if word in ("$MAINPID", "${MAINPID}")), "")
            if meant and not command.expand and path[0] != "health":
                what = (
                    f"passes {quote(meant)} as it stands: an array is exact, and nothing in it is expanded"
                )
                here.warn(what, f'write a text: "{program} ... $MAINPID"')

    def _secrets(self) -> None:
        """Warn of secrets in arguments and URLs: in unit files and manifests everybody can read them."""
        told = [(path, command.words) for path, command in commands(self.service)]
        for key, probe in (("ready", self.service.ready), ("health", self.service.health)):
            told += [((key, probe.by), (probe.target,))] if probe and probe.target else []
        for path, words in told:
            if name := secret_in(words):
                At(self.at.report, (*self.at.path, *path)).warn(
                    f"seems to hold a secret, which every user of the host can read: {quote(name)}",
                    "let the program read it from a file; `credentials` can give it one",
                )

    def _instance(self) -> None:
        """Warn of {instance} in a service that has none: it would reach the process as it stands."""
        if "instances" in self.raw:
            return
        for path, value in _texts(self.raw):
            if INSTANCE in value and not self.inherited((*self.at.path, *path)):
                here = At(self.at.report, (*self.at.path, *path))
                what = f"holds {INSTANCE}, and there is no `instances`: it stays as it stands"
                here.warn(what, "write instances = 2, or leave it out")

    def _user_scope(self) -> None:
        for key in ("user", "group", "groups"):
            if key in self.raw:
                what = "cannot be changed by a user's own service manager"
                (self.at / key).error(what, "remove it, or apply the file as root without --user")


def _texts(value: object, upper: Path = ()) -> Iterator[tuple[Path, str]]:
    """Yield every text in a value of the file, with its path below it."""
    if isinstance(value, str):
        yield upper, value
    elif isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _texts(item, (*upper, key))


def commands(service: Service) -> Iterator[tuple[Path, Command]]:
    """Return all commands of the service with the keys that hold them."""
    for key in ("command", "pre_start", "post_start", "reload", "post_stop"):
        for command in getattr(service, key):
            yield (key,), command
    for command in service.stop.command:
        yield ("stop", "command"), command
    if service.ready and service.ready.command:
        yield ("ready", "exec"), service.ready.command
    if service.health and service.health.command:
        yield ("health", "exec"), service.health.command


def origin_of(service: Service, key: str) -> Origin:
    """Return where this dotted key of the service is set, or the service itself if it is not."""
    while key:
        if key in service.lines:
            return service.lines[key]
        key = key.rpartition(".")[0]
    return service.origin
