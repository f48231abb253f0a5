"""What should be on the host: unit files, the units they define, and the links that enable them.

`Desired` is the product of rendering a `Spec`; it is compared with what is observed by `sysresp.reconcile`.
Pure values only. Rule: everything that apply needs to know about a unit is decided here, so that the plan
can be printed without asking anyone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sysresp.model import KEEP, NOWHERE, SETTLE_SEC, Origin, Rollout
from sysresp.units.alerting import Receiver
from sysresp.units.supervision import Settings, Supervision


@dataclass(frozen=True, slots=True)
class UnitFile:
    """One unit file: its name in the unit directory and its whole text (UTF-8, ends with a newline)."""

    name: str  # "shop-web@.service"
    text: str
    origin: Origin = NOWHERE
    service: str = ""  # entry of services.toml; "" for the project's slice and target


@dataclass(frozen=True, slots=True)
class Unit:
    """One unit that the project owns: what systemd loads, so an instance, never a `foo@.service`."""

    name: str  # "shop-web@1.service"
    file: str  # name of the UnitFile that defines it: "shop-web@.service"
    service: str = ""  # entry of services.toml; "" for the project's slice and target
    instance: str = ""  # "1"
    start: bool = True  # apply starts it (false: on-demand and scheduled services, `enabled = false`)
    enabled: bool = True  # the project's target pulls it in at boot
    main: bool = (
        True  # the .service a person means by the name; False for its socket, timer, path and helper
    )
    origin: Origin = NOWHERE


@dataclass(frozen=True, slots=True)
class Policy:
    """How a change of a service goes; no part of any unit's text."""

    settle_sec: float = SETTLE_SEC
    ignore_start_failure: bool = False
    rollout: Rollout = field(default_factory=Rollout)


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """Everything that the project should own on the host."""

    project: str
    target: str  # "shop.target": started to start all
    files: Mapping[str, UnitFile] = field(default_factory=dict)  # by name
    units: Mapping[str, Unit] = field(default_factory=dict)  # by name, in an order in which starting works
    links: Mapping[str, str] = field(default_factory=dict)
    # ^ symlinks below the unit directory, as `systemctl enable` makes them:
    #   "shop.target.wants/shop-web@1.service" -> name of the unit file ("shop-web@.service")
    needs_prober: bool = False  # some unit's ExecStartPost= runs the readiness prober, which apply installs
    policies: Mapping[str, Policy] = field(
        default_factory=dict
    )  # by service; one that is not there: Policy()
    keep_generations: int = KEEP
    configs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # config_files, by unit
    supervision: Mapping[str, Supervision] = field(default_factory=dict)
    # ^ by main unit, in the order of `units`; one that is not there: Supervision()
    settings: Settings = field(default_factory=Settings)  # [controller]
    alerts: Mapping[str, Receiver] = field(default_factory=dict)  # [alerts], by name
