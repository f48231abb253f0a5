"""The units beside a .service: its .socket, its .timer, its .path and what that starts.

Owns the meaning of `listen`, `schedule` and `watch` in terms of directives. Never makes text.

A watched file that changes must restart a service that runs and leave alone one that does not, which a .path
cannot do by itself (it starts its unit): hence the helper, a oneshot that asks for try-restart. A oneshot
that does not remain has nothing to restart, so that its .path starts it directly.

Rule: every companion is part of the project's target, and it is what the target wants, if the service is
only to run when the companion says so.
"""

from __future__ import annotations

from sysresp.model import Kind, Scope, Service
from sysresp.spec import names
from sysresp.units import quote
from sysresp.units.compose import remains
from sysresp.units.sheet import Group, Groups, Report, Setting, span

_LISTEN = {
    "stream": "ListenStream",
    "datagram": "ListenDatagram",
    "sequential": "ListenSequentialPacket",
    "fifo": "ListenFIFO",
}


def socket(service: Service, setting: Setting, report: Report) -> Groups:
    """Return the groups of the service's .socket."""
    assert service.socket is not None
    instanced = names.has_socket_per_instance(service)
    group = Group()
    for listen in service.socket.listen:
        address = report.value("listen", quote.text, listen.address, instanced=instanced)
        group.add(_LISTEN[listen.type], address)
    if service.socket.backlog is not None:
        group.add("Backlog", str(service.socket.backlog))
    if service.socket.mode is not None:
        group.add("SocketMode", f"{service.socket.mode:04o}")
    for key, directive, value in (
        ("user", "SocketUser", service.socket.user),
        ("group", "SocketGroup", service.socket.group),
    ):
        if value is not None:
            group.add(directive, report.value(f"listen.{key}", quote.text, value, instanced=instanced))
    if service.instances is not None and not instanced:
        group.add("Service", names.service_units(setting.project, service)[0])
    return _groups(service, setting, "socket", "Socket", group, suffix=" %i" * instanced)


def timer(service: Service, setting: Setting, report: Report) -> Groups:
    """Return the groups of the service's .timer."""
    schedule = service.schedule
    assert schedule is not None
    group = Group()
    for calendar in schedule.calendar:
        group.add("OnCalendar", report.value("schedule", quote.text, calendar))
    if schedule.on_boot_sec is not None:
        group.add("OnBootSec", span(schedule.on_boot_sec))
    if schedule.every_sec is not None:
        group.add("OnActiveSec", span(schedule.every_sec))
        group.add("OnUnitActiveSec", span(schedule.every_sec))
    if schedule.calendar and schedule.catch_up:
        group.add("Persistent", "yes")
    if schedule.jitter_sec:
        group.add("RandomizedDelaySec", span(schedule.jitter_sec))
    if schedule.accuracy_sec is not None:
        group.add("AccuracySec", span(schedule.accuracy_sec))
    if service.instances is not None:
        report.add(
            "schedule",
            "cannot be combined with instances: a timer starts one unit",
            "write one service for each, or start the others with wants",
        )
    return _groups(service, setting, "timer", "Timer", group)


def path(service: Service, setting: Setting, report: Report) -> Groups:
    """Return the groups of the service's .path."""
    assert service.watch is not None
    group = Group()
    for watched in service.watch.paths:
        group.add("PathChanged", report.value("watch", quote.path, watched, directory=True))
    helper = names.watch_units(setting.project, service)[1]
    group.add("Unit", helper if needs_helper(service) else names.unit_name(setting.project, service))
    return _groups(service, setting, "path", "Watched files", group)


def needs_helper(service: Service) -> bool:
    """Say whether the .path starts a helper, and not the service itself."""
    return service.kind is not Kind.ONESHOT or remains(service) or service.instances is not None


def helper(service: Service, setting: Setting) -> Groups:
    """Return the groups of the oneshot that restarts or reloads the service when a watched file changes."""
    assert service.watch is not None
    stem = names.stem(setting.project, service)
    if service.kind is Kind.ONESHOT and not remains(service):
        verb, units = "start", list(names.service_units(setting.project, service))
    else:
        verb = "try-restart" if service.watch.action == "restart" else "try-reload-or-restart"
        units = [f"{stem}.service" if service.instances is None else f"{stem}@*.service"]
    scope = ["--user"] if setting.scope is Scope.USER else []
    # --no-block: while the helper runs, its .path sees no further change.
    words = ["systemctl", *scope, "--no-block", verb, *units]
    run = Group([("Type", "oneshot"), ("ExecStart", " ".join(quote.word(w, command=True) for w in words))])
    about = Group([("Description", quote.text(f"{setting.project} {service.name}: {verb}"))])
    return {
        "about": about,
        "limit": Group(
            [("StartLimitIntervalSec", "0")]
        ),  # its .path has a limit of its own (TriggerLimitBurst=)
        "run": run,
        "resources": Group([("Slice", names.slice_unit(setting.project))]),
    }


def _groups(
    service: Service, setting: Setting, name: str, title: str, group: Group, *, suffix: str = ""
) -> Groups:
    target = names.target_unit(setting.project)
    description = quote.text(f"{title} of {setting.project} {service.name}") + suffix
    return {
        "about": Group([("Description", description), ("PartOf", target)]),
        name: group,
        "install": Group([("WantedBy", target)] if service.enabled else []),
    }
