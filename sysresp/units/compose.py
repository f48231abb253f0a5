"""One service of the spec -> the directives of its .service unit, in groups for a template to lay out.

Owns the meaning of every key of a service in terms of directives. Never makes text of a whole unit, never
reads a file, and knows nothing of the other unit types (`sysresp.units.companions` does).

Rule: every value passes `sysresp.units.quote` or is made of checked words; what that refuses becomes a
Problem at the line of its key, and the unit is never written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sysresp.model import Command, Kind, ReadyBy, Restart, Scope, Service
from sysresp.spec import names
from sysresp.units import hardening, quote
from sysresp.units.directives import TABLE
from sysresp.units.sheet import Group, Groups, Report, Setting, check_directive, one_line, span, too_new
from sysresp.units.supervise import grows_by_itself, least_sec, restart_sec


def compose(service: Service, setting: Setting, report: Report) -> Groups:
    """Return the groups of the service's .service unit, with the user's raw directives in them."""
    instanced = service.instances is not None
    groups = {
        "about": _about(service, setting, report, instanced),
        "order": _order(service, setting, report, instanced),
        "conditions": _conditions(service, setting, report, instanced),
        "limit": _limit(service.restart, report),
        "run": _run(service, setting, report, instanced),
        "who": _who(service, setting, report, instanced),
        "environment": _environment(service, setting, report, instanced),
        "directories": _directories(service, report, instanced),
        "restart": _restart(service, setting),
        "stop": _stop(service),
        "resources": _resources(service, setting),
        "hardening": _hardening(service, setting, report, instanced),
        "install": Group(),
    }
    if service.enabled and not service.on_demand and service.schedule is None:
        groups["install"].add("WantedBy", names.target_unit(setting.project))
    return groups


def _about(service: Service, setting: Setting, report: Report, instanced: bool) -> Group:
    group = Group()
    default = f"{setting.project} {service.name}" + f" {names.INSTANCE}" * instanced
    group.add(
        "Description",
        report.value(
            "description", quote.text, one_line(service.description or default), instanced=instanced
        ),
    )
    for page in service.documentation:
        group.add("Documentation", report.value("documentation", quote.item, page, instanced=instanced))
    return group


def _order(service: Service, setting: Setting, report: Report, instanced: bool) -> Group:
    def units(key: str, which: Iterable[str], known: Mapping[str, tuple[str, ...]]) -> list[str]:
        made = [
            report.value(key, quote.text, u, instanced=instanced) for n in which for u in known.get(n, (n,))
        ]
        return [one for one in made if one is not None]

    project = setting.project
    needs = {
        "Requires": units("requires", service.requires, setting.wanted),
        "Wants": units("wants", service.wants, setting.wanted),
        "BindsTo": units("binds_to", service.binds_to, setting.wanted),
    }
    before = units("before", service.before, setting.units)
    implied = [name for key in needs.values() for name in key]
    after = units("after", service.after, setting.wanted)
    after += [name for name in implied if name not in before and _no_socket(name) not in before]
    if service.socket is not None:
        own = names.socket_unit(project, service).replace("@.", "@%i.")
        needs["Requires"].append(own)
        after.append(own)
    group = Group()
    for name, wanted in (
        *needs.items(),
        ("After", after),
        ("Before", before),
        ("PartOf", [names.target_unit(project), *units("part_of", service.part_of, setting.units)]),
        ("Conflicts", units("conflicts", service.conflicts, setting.units)),
    ):
        if wanted:
            group.add(name, " ".join(dict.fromkeys(wanted)))
    return group


def _no_socket(unit: str) -> str:
    """Return the service that a socket starts, since `before` names the service."""
    return unit.removesuffix(".socket") + ".service" if unit.endswith(".socket") else unit


def _conditions(service: Service, setting: Setting, report: Report, instanced: bool) -> Group:
    group = Group()
    for name, values in service.conditions.items():
        check_directive("Unit", name, f"conditions.{name}", report, setting.version)
        for value in values:
            group.add(name, report.value(f"conditions.{name}", quote.text, value, instanced=instanced))
    return group


def _limit(restart: Restart, report: Report) -> Group:
    if restart.attempts is None:
        return Group([("StartLimitIntervalSec", "0")])
    if restart.when != "no" and (least := least_sec(restart)) > restart.within_sec:
        report.warn(
            "restart.attempts",
            f"is never reached: the delays of {restart.attempts} restarts add up to {least:.0f}s,"
            f" and `within` is {span(restart.within_sec)}",
            "make `within` longer, or `attempts` fewer",
        )
    return Group(
        [("StartLimitIntervalSec", span(restart.within_sec)), ("StartLimitBurst", str(restart.attempts))]
    )


def _run(service: Service, setting: Setting, report: Report, instanced: bool) -> Group:
    group = Group([("Type", service.kind.value)])

    def commands(directive: str, key: str, which: Sequence[Command]) -> None:
        for command in which:
            group.add(directive, report.value(key, quote.command_line, command, instanced=instanced))

    if service.bus_name is not None:
        group.add("BusName", report.value("bus_name", quote.text, service.bus_name, instanced=instanced))
    if service.pid_file is not None:
        group.add("PIDFile", report.value("pid_file", quote.path, service.pid_file, instanced=instanced))
    commands("ExecStartPre", "pre_start", service.pre_start)
    commands("ExecStart", "command", service.command)
    if service.ready is not None:
        command = _prober(service, setting)
        log = (
            service.ready.by is ReadyBy.LOG and setting.scope is Scope.SYSTEM
        )  # only root may read the journal
        group.add(
            "ExecStartPost",
            report.value("ready", quote.command_line, command, instanced=instanced, privileged=log),
        )
    commands("ExecStartPost", "post_start", service.post_start)
    commands("ExecReload", "reload", service.reload)
    if service.reload_signal is not None:
        signal = service.reload_signal.removeprefix("SIG")
        # The shell's own kill: /bin/kill is in a package that minimal systems lack.
        group.add("ExecReload", f'/bin/sh -c "kill -s {signal} $$MAINPID"')
    commands("ExecStop", "stop.command", service.stop.command)
    commands("ExecStopPost", "post_stop", service.post_stop)
    if remains(service):
        group.add("RemainAfterExit", "yes")
    if (
        service.socket is not None
        and service.instances is not None
        and not names.has_socket_per_instance(service)
    ):
        group.add("Sockets", names.socket_unit(setting.project, service))
    return group


def remains(service: Service) -> bool:
    """Say whether the unit stays active after its process has ended."""
    if service.remain_after_exit is not None:
        return service.remain_after_exit
    activated = service.schedule is not None or service.watch is not None or service.on_demand
    return service.kind is Kind.ONESHOT and not activated


def _prober(service: Service, setting: Setting) -> Command:
    """Return the ExecStartPost= that waits until the service is ready."""
    ready = service.ready
    assert ready is not None
    words = [*setting.prober, "--timeout", f"{ready.timeout_sec:g}", "--interval", f"{ready.interval_sec:g}"]
    if setting.scope is Scope.USER:
        words.append("--user")
    words.append(ready.by.value)
    if ready.command is None:
        return Command((*words, ready.target))
    probe = ready.command
    return Command((*words, "--", *probe.words), probe.expand, probe.ignore_failure, probe.privileged)


def _who(service: Service, setting: Setting, report: Report, instanced: bool) -> Group:
    group = Group()
    identity = [("user", "User", service.user), ("group", "Group", service.group)]
    identity.append(("groups", "SupplementaryGroups", " ".join(service.groups) or None))
    for key, directive, value in identity:
        if value is None:
            continue
        if setting.scope is Scope.USER:
            report.warn(key, "has no meaning for a user's own service manager and is left out", "remove it")
        else:
            group.add(directive, report.value(key, quote.text, value, instanced=instanced))
    if service.directory is not None:
        group.add(
            "WorkingDirectory",
            report.value("directory", quote.path, service.directory, instanced=instanced, directory=True),
        )
    if service.umask is not None:
        group.add("UMask", f"{service.umask:04o}")
    if service.nice is not None:
        group.add("Nice", str(service.nice))
    return group


def _environment(service: Service, setting: Setting, report: Report, instanced: bool) -> Group:
    group = Group()
    for name, value in service.environment.items():
        group.add(
            "Environment",
            report.value(f"environment.{name}", quote.environment, name, value, instanced=instanced),
        )
    for file in service.environment_file:
        text = report.value(
            "environment_file", quote.path, "-" * file.optional + file.path, instanced=instanced
        )
        group.add("EnvironmentFile", text)
    for name, credential in service.credentials.items():
        directive = "LoadCredentialEncrypted" if credential.encrypted else "LoadCredential"
        key = f"credentials.{name}"
        if TABLE[directive].since > setting.version:
            report.add(
                key,
                too_new(directive, setting.version),
                "read the secret from a file only its user can read",
            )
        else:
            group.add(
                directive, report.value(key, quote.text, f"{name}:{credential.path}", instanced=instanced)
            )
    return group


def _directories(service: Service, report: Report, instanced: bool) -> Group:
    group = Group()
    for key, directive, values in (
        ("state_directory", "StateDirectory", service.state_directory),
        ("cache_directory", "CacheDirectory", service.cache_directory),
        ("logs_directory", "LogsDirectory", service.logs_directory),
        ("runtime_directory", "RuntimeDirectory", service.runtime_directory),
        ("configuration_directory", "ConfigurationDirectory", service.configuration_directory),
    ):
        _add_items(group, directive, key, values, report, instanced=instanced)
    return group


def _restart(service: Service, setting: Setting) -> Group:
    restart = service.restart
    group = Group([("Restart", restart.when)])
    if restart.when != "no":
        unit = names.unit_name(setting.project, service)
        group.add("RestartSec", span(restart_sec(service, unit, setting.version)))
        if restart.max_delay_sec is not None and grows_by_itself(setting.version):
            group.add("RestartSteps", str(restart.steps or 5))
            group.add("RestartMaxDelaySec", span(restart.max_delay_sec))
    for directive, values in (
        ("SuccessExitStatus", restart.success_exit),
        ("RestartPreventExitStatus", restart.prevent_exit),
        ("RestartForceExitStatus", restart.force_exit),
    ):
        if values:
            group.add(directive, " ".join(values))
    return group


def _stop(service: Service) -> Group:
    group = Group()
    timeout = service.start_timeout_sec
    if service.ready is not None and (timeout is not None or service.kind is not Kind.ONESHOT):
        # 90 s is systemd's own default (DefaultTimeoutStartSec=), which distributions change.
        timeout = max(timeout or 0, service.ready.timeout_sec + 15, 90)
    if timeout is not None:
        group.add("TimeoutStartSec", span(timeout))
    if service.watchdog_sec is not None:
        group.add("WatchdogSec", span(service.watchdog_sec))
    if service.limits.runtime_sec is not None:
        group.add("RuntimeMaxSec", span(service.limits.runtime_sec))
    group.add("KillSignal", service.stop.signal)
    group.add("KillMode", service.stop.kill_mode)
    if service.stop.timeout_sec is not None:
        group.add("TimeoutStopSec", span(service.stop.timeout_sec))
    return group


def _resources(service: Service, setting: Setting) -> Group:
    limits = service.limits
    group = Group([("Slice", names.slice_unit(setting.project))])
    for name, value in (
        ("MemoryMax", limits.memory),
        ("MemoryHigh", limits.memory_high),
        ("MemorySwapMax", limits.swap),
        ("CPUQuota", limits.cpu),
        ("CPUWeight", limits.cpu_weight),
        ("IOWeight", limits.io_weight),
        ("TasksMax", limits.tasks),
        ("LimitNOFILE", limits.files),
        ("LimitNPROC", limits.processes),
        ("LimitCORE", limits.core),
    ):
        if value is not None:
            group.add(name, str(value))
    return group


def _hardening(service: Service, setting: Setting, report: Report, instanced: bool) -> Group:
    profile = service.hardening
    own = {"UMask"} if service.umask is not None else set()
    group = Group(
        line for line in hardening.lines(profile, setting.version, setting.scope) if line[0] not in own
    )
    for key, directive, values in (
        ("hardening.read_write", "ReadWritePaths", profile.read_write),
        ("hardening.read_only", "ReadOnlyPaths", profile.read_only),
        ("hardening.inaccessible", "InaccessiblePaths", profile.inaccessible),
    ):
        _add_items(group, directive, key, values, report, instanced=instanced)
    if setting.scope is Scope.USER:
        if group:
            report.warn(
                "hardening",
                f'profile "{profile.profile}" is only in part possible in a user\'s own service manager: '
                "what needs mount namespaces or capabilities is left out",
                'run the service in the system\'s manager, or write hardening = "off"',
            )
    elif home := hardening.hidden_home(service):
        report.warn(
            "hardening",
            f'profile "{profile.profile}" keeps the service from {home} (ProtectHome=)',
            'move it out of the home directory, or write except = ["ProtectHome"]',
        )
    return group


def _add_items(
    group: Group, directive: str, key: str, values: Sequence[str], report: Report, *, instanced: bool
) -> None:
    items = [report.value(key, quote.item, value, instanced=instanced) for value in values]
    if items and None not in items:
        group.add(directive, " ".join(filter(None, items)))
