"""Projects to plan and apply in tests: a few words become a `Desired`, and Hypothesis draws them.

Owns no behaviour of sysresp: the texts are as short as systemd's rules allow, and everything that plan reads
in them (Requires=, ExecReload=, Type=, the project's mark) is here to be read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hypothesis import strategies as st

from sysresp.model import Mode, Origin, Rollout
from sysresp.ports import Host
from sysresp.reconcile.apply import apply
from sysresp.reconcile.observe import observe
from sysresp.reconcile.outcome import Outcome
from sysresp.reconcile.plan import plan
from sysresp.reconcile.steps import Plan, RunJobs
from sysresp.units.desired import Desired, Policy, Unit, UnitFile
from tests.fakes import FakeFiles, FakeManager

PROBER = b"print('ready')\n"
UNIT_DIR = "/etc/systemd/system"
MANIFEST = "/var/lib/sysresp/shop.json"


class Entry(NamedTuple):
    """One service in short."""

    version: int = 1  # another version is another ExecStart=: a restart
    config: int = 1  # another config is another ConfigDigest=: a reload
    description: int = 1  # another description needs no more than a daemon-reload
    requires: tuple[str, ...] = ()  # names of services that stand before it
    instances: int = 0  # 0: a plain unit
    socket: int = 0  # 0: none; another number is another address
    on_demand: bool = False
    enabled: bool = True
    oneshot: bool = False
    policy: Policy = Policy()


def desired_of(
    entries: Mapping[str, Entry],
    project: str = "shop",
    *,
    prober: bool = False,
    overrides: Sequence[str] = (),
) -> Desired:
    """Return what these services ask for; overrides are services that name their unit themselves."""
    files: dict[str, UnitFile] = {}
    units: dict[str, Unit] = {}
    links: dict[str, str] = {}
    target = f"{project}.target"
    mark = f"\n[X-Sysresp]\nProject={project}\n"
    files[f"{project}.slice"] = UnitFile(f"{project}.slice", f"[Slice]\n{mark}")
    units[f"{project}.slice"] = Unit(f"{project}.slice", f"{project}.slice", main=False)
    named: dict[str, list[str]] = {}

    def add(unit: Unit) -> None:
        units[unit.name] = unit
        if unit.enabled:
            links[f"{target}.wants/{unit.name}"] = unit.file

    for line, (service, entry) in enumerate(entries.items(), 3):
        stem = service if service in overrides else f"{project}-{service}"
        origin = Origin("services.toml", line)
        suffix = "@" if entry.instances else ""
        numbers = [str(n) for n in range(1, entry.instances + 1)] or [""]
        names = [f"{stem}{suffix}{n}.service" for n in numbers]
        needs = [n for other in entry.requires for n in named[other]]
        if entry.socket:
            sock = f"{stem}.socket"
            text = (
                f"[Unit]\nPartOf={target}\n[Socket]\nListenStream={entry.socket}\n{mark}Service={service}\n"
            )
            files[sock] = UnitFile(sock, text, origin, service)
            on = entry.enabled
            add(Unit(sock, sock, service, main=False, start=on, enabled=on, origin=origin))
            needs += [] if entry.on_demand else [sock]
        start = entry.enabled and not (entry.socket and entry.on_demand)
        file = f"{stem}{suffix}.service"
        requires = "".join(f"Requires={n}\nAfter={n}\n" for n in needs)
        kind = "oneshot\nRemainAfterExit=yes" if entry.oneshot else "exec"
        files[file] = UnitFile(
            file,
            f"[Unit]\nDescription=about {entry.description}\nPartOf={target}\n{requires}"
            f"[Service]\nType={kind}\nExecStart=/bin/{service} {entry.version}\nExecReload=/bin/hup\n"
            f"{mark}Service={service}\nConfigDigest={entry.config}\n",
            origin,
            service,
        )
        for name, number in zip(names, numbers, strict=True):
            add(Unit(name, file, service, number, start=start, enabled=start, origin=origin))
        named[service] = names if start else []
    files[target] = UnitFile(target, f"[Unit]\nDescription={project}\n{mark}")
    units[target] = Unit(target, target, main=False, enabled=False)
    links[f"multi-user.target.wants/{target}"] = target
    return Desired(
        project=project,
        target=target,
        files=files,
        units=units,
        links=links,
        needs_prober=prober,
        policies={name: entry.policy for name, entry in entries.items()},
    )


def plan_for(
    host: Host, desired: Desired, mode: Mode = Mode.PERSISTENT, settle_sec: float | None = None
) -> Plan:
    """Observe and plan."""
    dirs = (host.paths.state_dir, "/run/sysresp")
    return plan(
        desired,
        observe(host, desired.project, desired, state_dirs=dirs),
        paths=host.paths,
        mode=mode,
        source=("services.toml",),
        prober=PROBER,
        settle_sec=settle_sec,
    )


def converge(host: Host, desired: Desired, mode: Mode = Mode.PERSISTENT) -> Outcome:
    """Observe, plan and apply."""
    made = plan_for(host, desired, mode)
    assert made.problems == ()
    return apply(made, host)


NAMES = ("db", "web", "cache", "mail", "cron")


def policies() -> st.SearchStrategy[Policy]:
    """Draw how a service changes."""
    rollouts = st.builds(
        Rollout,
        parallel=st.none() | st.integers(1, 4),
        pause_sec=st.sampled_from((0.0, 5.0)),
        stop_on_failure=st.booleans(),
    )
    return st.just(Policy()) | st.builds(
        Policy,
        settle_sec=st.sampled_from((0.0, 3.0, 10.0)),
        ignore_start_failure=st.booleans(),
        rollout=st.just(Rollout()) | rollouts,
    )


@st.composite
def projects(draw: st.DrawFn, *, plain: bool = False) -> dict[str, Entry]:
    """Draw a project; plain: everything in it is started by apply itself, and nothing requires anything."""
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=5).map(sorted))
    entries: dict[str, Entry] = {}
    for name in names:
        small = st.integers(1, 2)
        socket = 0 if plain else draw(st.integers(0, 2))
        entries[name] = Entry(
            version=draw(small),
            config=draw(small),
            description=draw(small),
            requires=() if plain else tuple(n for n in entries if draw(st.booleans())),
            instances=draw(st.sampled_from((0, 1, 2, 3, 8))),
            socket=socket,
            on_demand=bool(socket) and draw(st.booleans()),
            enabled=plain or draw(st.integers(0, 4)) > 0,
            oneshot=not plain and draw(st.integers(0, 4)) == 0,
            policy=draw(policies()),
        )
    return entries


TWO = {"db": Entry(), "web": Entry(requires=("db",))}


def scene() -> tuple[FakeFiles, FakeManager]:
    """Return an empty host."""
    files = FakeFiles()
    return files, FakeManager(files)


def verbs(made: Plan) -> dict[str, tuple[str, ...]]:
    """Return what the plan shows of each unit."""
    return {change.unit: tuple(v.value for v in change.verbs) for change in made.changes}


def jobs(made: Plan) -> list[tuple[str, str]]:
    """Return the jobs of the plan, in order."""
    return [(j.verb.value, j.unit) for s in made.steps if isinstance(s, RunJobs) for j in s.jobs]
