"""What should happen to one unit: the table of states, and what systemd does along with it.

Owns the rules that a person relies on: what the administrator stopped or masked stays so, only what changed
is restarted, what failed is tried again. Pure: no clock, no host. Rule: `verdict` looks at one unit only;
whatever crosses units (Requires=, sockets) is in `spread`, because systemd does it whether we plan it or not
and a plan that does not name it would be a lie.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256
from types import MappingProxyType
from typing import NamedTuple

from sysresp.ports import UnitState
from sysresp.reconcile.manifest import ManifestUnit
from sysresp.reconcile.steps import Verb
from sysresp.units.change import Effect, effect
from sysresp.units.desired import Unit
from sysresp.units.text import parse

RUNNING = frozenset({"active", "activating", "reloading", "refreshing"})
"""ActiveStates in which the unit has processes, or soon will have (org.freedesktop.systemd1(5))."""

TRIGGERS = (".socket", ".timer", ".path")
"""Units that start others: they are stopped before them, else they start them again."""

STOPPED = "stopped by the administrator"
FINISHED = "finished"
MASKED = "masked"


class Verdict(NamedTuple):
    """What happens to a unit: START, RESTART, RELOAD, STOP, KEEP, or nothing at all."""

    verb: Verb | None = None
    reason: str = ""
    along: bool = False  # systemd does it together with another unit: no job of ours
    halted: bool = False  # it is stopped before anything is started, and so is up no more


NOTHING = Verdict()


class Owed(NamedTuple):
    """What the last apply intended and did not see done."""

    pending: frozenset[str] = frozenset()
    restarts: frozenset[str] = frozenset()
    reloads: frozenset[str] = frozenset()
    runs: Mapping[str, str] = MappingProxyType({})  # units still in the run that was to be restarted: digest


def digest(text: str) -> str:
    """Return the digest by which a manifest remembers a unit file."""
    return sha256(text.encode(errors="surrogateescape")).hexdigest()


def file_of(name: str) -> str:
    """Return the unit file of an instance ("a@.service" of "a@1.service"), or the name as it is."""
    stem, at, rest = name.partition("@")
    return f"{stem}@.{rest.rpartition('.')[2]}" if at else name


def is_running(row: UnitState | None) -> bool:
    """Say whether the unit runs or is about to."""
    return row is not None and row.active_state in RUNNING


def is_loaded(row: UnitState) -> bool:
    """Say whether systemd knows the unit, be it without the file that it once had."""
    return row.load_state != "not-found" or row.active_state != "inactive"


def verdict(
    unit: Unit,
    row: UnitState | None,
    known: ManifestUnit | None,
    owed: Owed,
    texts: tuple[str | None, str],
) -> Verdict:
    """Return what happens to a unit that is not masked; texts are its file's on disk and the desired one."""
    if unit.name.endswith(".slice"):
        return NOTHING  # systemd starts a slice with the first unit in it
    if row is not None and is_running(row):
        return _running(unit, row, known, owed, texts)
    if not unit.start:
        return NOTHING
    if row is not None and row.active_state == "failed":
        return Verdict(Verb.START, "failed")
    if known is None:
        return Verdict(Verb.START)
    if unit.name in owed.pending:
        return Verdict(Verb.START, "its last start was not confirmed")
    if not known.start:
        return Verdict(Verb.START, "is to be started from now on")
    return Verdict(Verb.KEEP, FINISHED if "\nType=oneshot\n" in texts[1] else STOPPED)


def _running(
    unit: Unit, row: UnitState, known: ManifestUnit | None, owed: Owed, texts: tuple[str | None, str]
) -> Verdict:
    old, new = texts
    if unit.name.endswith(".target"):
        return NOTHING  # a restart of the target would restart all that is PartOf= it
    runs = owed.runs.get(unit.name)
    if runs == digest(new):
        return NOTHING  # its file went forth and is to come back, and its process never left
    if old is None:
        same = known is not None and known.digest == digest(new)
        wanted = NOTHING if same else Verdict(Verb.RESTART, "runs without the unit file")
    else:
        wanted = _changed(row, old, new)
    if (unit.name in owed.restarts or runs is not None) and wanted.verb is not Verb.RESTART:
        wanted = Verdict(Verb.RESTART, "the last apply was cut before its restart")
    elif unit.name in owed.reloads and wanted.verb is None:
        wanted = Verdict(Verb.RELOAD, "the last apply was cut before its reload")
    if wanted.verb is not None and not unit.start and row.active_state == "activating":
        # A scheduled oneshot at work: it has no other running state (systemd.service(5), Type=oneshot).
        return Verdict(Verb.KEEP, "its run in progress ends as it began")
    if wanted.verb is None and unit.start and row.sub_state.startswith("auto-restart"):
        # Else it would pass for running. RestartUnit ends the wait, and the outcome says whether it is up.
        return Verdict(Verb.RESTART, "it failed, and systemd waits to try again")
    return wanted


def _changed(row: UnitState, old: str, new: str) -> Verdict:
    if old == new:
        return NOTHING
    wanted = effect(old, new)
    if wanted is Effect.RESTART:
        return Verdict(Verb.RESTART, "the unit file changed")
    if wanted is Effect.RELOAD:
        if row.active_state == "activating":
            return Verdict(Verb.RESTART, "the unit file changed while it was starting")
        return Verdict(Verb.RELOAD, "what it reads at a reload changed")
    return NOTHING


def still_run(runs: Mapping[str, str], verdicts: Mapping[str, Verdict]) -> tuple[str, ...]:
    """Return "UNIT DIGEST" of what is run by units whose file comes back to it, or goes.

    Until it has, their restart is owed: another apply may want the file that is there now.
    """
    return tuple(
        f"{name} {text}"
        for name, text in runs.items()
        if name not in verdicts or verdicts[name].verb is not Verb.RESTART
    )


class Needs(NamedTuple):
    """The units that one unit's texts name, by what systemd does along with them."""

    halts: frozenset[str]  # Requires=, BindsTo=, PartOf= of the text that is loaded: a stop comes along
    follows: frozenset[str]  # ... of the new text: a restart comes along
    pulls: frozenset[str]  # Requires=, BindsTo=, Wants= of the new text: these are started with it


def needs(name: str, old: str | None, new: str) -> Needs:
    """Return what the unit of this name depends on."""
    follows = ("Requires", "BindsTo", "PartOf")
    return Needs(
        _named(name, old or "", follows),
        _named(name, new, follows),
        _named(name, new, ("Requires", "BindsTo", "Wants")),
    )


def _named(name: str, text: str, directives: tuple[str, ...]) -> frozenset[str]:
    instance = name.partition("@")[2].rpartition(".")[0]
    found: set[str] = set()
    for section, directive, value in parse(text):
        if section == "Unit" and directive in directives:
            found.update(value.replace("%i", instance).split())
    return frozenset(found)


def spread(
    verdicts: Mapping[str, Verdict],
    running: Iterable[str],
    stopping: Iterable[str],
    depends: Mapping[str, Needs],
) -> dict[str, Verdict]:
    """Return the verdicts with those added that follow from others.

    `stopping` are units that are stopped before anything is started: what requires them is stopped along,
    and must be started again by us. What requires a unit that gets RestartUnit is restarted by systemd along
    with it (systemd.unit(5), Requires=).
    """
    found = dict(verdicts)
    halted = set(stopping)
    restarting = {name for name, v in verdicts.items() if v.verb is Verb.RESTART}
    candidates = [name for name in running if name in found and found[name].reason != MASKED]
    grown = True
    while grown:
        grown = False
        for name in candidates:
            if name not in halted and (culprits := depends[name].halts & halted):
                halted.add(name)
                reason = found[name].reason or f"stops with {min(culprits)}, which it required"
                found[name] = Verdict(Verb.RESTART, reason, halted=True)
            elif name not in halted | restarting and (culprits := depends[name].follows & restarting):
                restarting.add(name)
                found[name] = Verdict(
                    Verb.RESTART, f"restarts with {min(culprits)}, which it requires", True
                )
            else:
                continue
            grown = True
    acting = sorted(name for name, v in found.items() if v.verb in (Verb.START, Verb.RESTART))
    for name, v in verdicts.items():
        if v.verb is Verb.KEEP and v.reason in (STOPPED, FINISHED):
            culprit = next((other for other in acting if name in depends[other].pulls), None)
            if culprit is not None:
                found[name] = Verdict(Verb.START, f"starts with {culprit}, which requires it", True)
    return found
