"""A host on which a project was applied, and somebody's hand on it, for the tests of drift."""

from __future__ import annotations

from collections.abc import Mapping

from sysresp.model import Mode
from sysresp.ports import Host
from sysresp.reconcile.apply import apply
from sysresp.reconcile.drift import Drift
from sysresp.reconcile.manifest import Manifest, load
from sysresp.reconcile.observe import observe
from sysresp.reconcile.outcome import Outcome
from sysresp.reconcile.plan import plan
from sysresp.reconcile.resolve import DriftChoice
from sysresp.reconcile.steps import Plan
from sysresp.units.desired import Desired
from tests.fakes import FakeFiles, FakeManager, fake_host
from tests.plan_scenes import MANIFEST, PROBER, UNIT_DIR, Entry, desired_of

ONE = {"web": Entry()}
FILE = "shop-web.service"
PATH = f"{UNIT_DIR}/{FILE}"
HAND = "# by hand\n"


def planned(host: Host, desired: Desired, choice: DriftChoice = DriftChoice.REFUSE) -> Plan:
    """Observe and plan."""
    seen = observe(host, desired.project, desired)
    return plan(desired, seen, paths=host.paths, mode=Mode.PERSISTENT, prober=PROBER, drift=choice)


def converge(host: Host, desired: Desired, choice: DriftChoice = DriftChoice.REFUSE) -> Outcome:
    """Observe, plan and apply."""
    made = planned(host, desired, choice)
    assert made.errors == ()
    return apply(made, host)


def applied(entries: Mapping[str, Entry] = ONE) -> tuple[FakeFiles, FakeManager, Host]:
    """Return a host on which this was applied."""
    files = FakeFiles()
    manager = FakeManager(files)
    host = fake_host(manager=manager)
    converge(host, desired_of(entries))
    return files, manager, host


def edit(files: FakeFiles, path: str, text: str = HAND) -> bytes:
    """Add a line to a unit file by hand, and return what it holds then."""
    content = (files.read(path) or b"") + text.encode()
    files.write(path, content)
    return content


def kinds(found: tuple[Drift, ...]) -> list[tuple[str, str]]:
    """Return kinds and units."""
    return [(drift.kind, drift.unit) for drift in found]


def manifest_of(files: FakeFiles) -> Manifest:
    """Return the project's manifest."""
    found = load(files, MANIFEST)
    assert found is not None
    return found
