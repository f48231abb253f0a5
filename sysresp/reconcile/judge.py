"""Whether a new generation stands: which failures are reasons to go back, and which are not.

Owns that judgement, and what has to be known about the time before for it. Pure. Rule: a service that was
not well before either is no reason to take a change back, and is said all the same.
"""

from __future__ import annotations

from sysresp.model import Mode
from sysresp.reconcile.decide import digest, is_running
from sysresp.reconcile.final import is_told
from sysresp.reconcile.manifest import Manifest
from sysresp.reconcile.observe import Observed
from sysresp.reconcile.outcome import Outcome, UnitOutcome
from sysresp.reconcile.steps import Verb
from sysresp.units.desired import Desired

BEFORE = "it had failed before, too"
IGNORED = "ignore_start_failure"
DEPENDS = "it was not running before, and needs one that was not either"


def judge(
    outcome: Outcome, desired: Desired, observed: Observed, failed: tuple[str, ...]
) -> tuple[tuple[UnitOutcome, ...], tuple[tuple[UnitOutcome, str], ...]]:
    """Return the failures that are reasons to go back, and the others, each with why it is none.

    `observed` is the host before the change, `failed` the units that had failed then.
    """
    reasons: list[UnitOutcome] = []
    tolerated: list[tuple[UnitOutcome, str]] = []
    excused: set[str] = set()
    for found in outcome.failures:
        policy = desired.policies.get(found.service)
        culprits = found.culprit.split()
        if found.verb is Verb.STOP:
            continue  # it is to go, and goes on going: a rollback would not make that better
        if policy is not None and policy.ignore_start_failure:
            tolerated.append((found, IGNORED))
        elif found.unit in failed:
            tolerated.append((found, BEFORE))
        elif culprits and excused.issuperset(culprits) and not is_running(observed.units.get(found.unit)):
            tolerated.append((found, DEPENDS))
        else:
            reasons.append(found)
            continue
        excused.add(found.unit)
    return tuple(reasons), tuple(tolerated)


def failed_units(observed: Observed) -> tuple[str, ...]:
    """Return the units that have failed, or that systemd is about to try again."""
    return tuple(
        name
        for name, row in observed.units.items()
        if row.active_state == "failed" or row.sub_state.startswith("auto-restart")
    )


def stopped_units(manifest: Manifest, observed: Observed) -> tuple[str, ...]:
    """Return the units that an apply would leave stopped: they had run, ended well, and nothing is owed."""
    owed = {*manifest.pending, *manifest.restarts}
    failed = failed_units(observed)
    return tuple(
        unit.name
        for unit in manifest.units
        if unit.start
        and not unit.name.endswith(".slice")
        and not is_running(observed.units.get(unit.name))
        and unit.name not in owed
        and unit.name not in failed
    )


def is_same(desired: Desired, manifest: Manifest, mode: Mode) -> bool:
    """Say whether this is the very content of the manifest's generation."""
    known = {unit.name: (unit.digest, unit.start, unit.enabled) for unit in manifest.units}
    digests = {name: digest(file.text) for name, file in desired.files.items()}
    wanted = {u.name: (digests[u.file], u.start, u.enabled) for u in desired.units.values()}
    if mode is Mode.TRANSIENT:
        services = {n: facts for n, facts in wanted.items() if n.endswith(".service") and facts[1]}
        return known == services and is_told(manifest, desired)
    return known == wanted and set(manifest.links) == set(desired.links) and is_told(manifest, desired)
