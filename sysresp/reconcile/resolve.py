"""What an apply does about drift: refuse, keep what is there, or write what the file says.

Owns the choice and what follows from it: which drift stops an apply, what the plan is then made from, and
what the manifest remembers as accepted. Pure. It changes what `plan` compares instead of what `plan` does: a
text that is kept counts as the text that is wanted, a file that stays away as a masked one. Rule: nothing
that somebody else wrote or took away is lost unless that was asked for; drop-ins and masks are never touched
at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from sysresp.ports import Paths
from sysresp.reconcile.decide import digest, file_of
from sysresp.reconcile.disk import Disk
from sysresp.reconcile.drift import (
    DISABLED,
    ENABLED,
    REMOVED,
    TEXT,
    Drift,
    is_accepted,
    of_disk,
)
from sysresp.reconcile.manifest import Manifest
from sysresp.reconcile.observe import Observed
from sysresp.reconcile.steps import Plan
from sysresp.units.desired import Desired
from sysresp.units.text import owner

ABSENT = "its unit file was removed, which was accepted"


class DriftChoice(StrEnum):
    """What apply does about unit files that were edited or removed, and links that were taken away."""

    REFUSE = "refuse"  # nothing at all, if it would overwrite one
    ACCEPT = "accept"  # leave them as they are, from now on without a word
    OVERWRITE = "overwrite"  # write what the file says


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """What to plan from, once the choice is made."""

    desired: Desired  # with the texts that are kept
    observed: Observed  # without what is kept but not wanted
    drift: tuple[Drift, ...] = ()  # all that is not accepted yet: to be shown
    refused: tuple[Drift, ...] = ()  # what stops the apply
    accepted: tuple[str, ...] = ()  # for the manifest
    absent: frozenset[str] = frozenset()  # unit files that stay away
    known: frozenset[str] = frozenset()  # edited files that the manifest knows: ours, whatever is in them

    @property
    def unquestioned(self) -> Observed:
        """Return what is observed without the files that are ours although somebody took our mark away."""
        files = {name: text for name, text in self.observed.files.items() if name not in self.known}
        return replace(self.observed, files=files) if self.known else self.observed

    def told(self, plan: Plan) -> Plan:
        """Return the plan with its drift; one that is refused shows what it would do, and has no steps."""
        keeps = tuple(
            replace(keep, reason=ABSENT)
            if keep.unit in self.absent or file_of(keep.unit) in self.absent
            else keep
            for keep in plan.keeps
        )
        steps = () if self.refused else plan.steps
        return replace(plan, steps=steps, keeps=keeps, drift=self.drift, refused=self.refused)


def resolve(
    desired: Desired, observed: Observed, final: Manifest, choice: DriftChoice, paths: Paths
) -> Resolved:
    """Say what the drift is, and what an apply of `final` starts from; without a manifest there is none."""
    manifest = observed.manifest
    if manifest is None or manifest.mode != final.mode:
        return Resolved(desired=desired, observed=observed)
    wanted = {unit.file: unit.digest for unit in final.units}
    found = _found(manifest, desired, observed, wanted, paths)
    before = [drift for drift in found if is_accepted(manifest, drift)]
    drift = tuple(d for d in found if d not in before)
    at_stake = [d for d in found if d.kind in TEXT]
    overwrites = choice is DriftChoice.OVERWRITE
    kept = (
        []
        if overwrites
        else at_stake
        if choice is DriftChoice.ACCEPT
        else [d for d in at_stake if d in before]
    )
    chosen = found if choice is DriftChoice.ACCEPT else before
    undone = (*TEXT, DISABLED) if overwrites else ()
    absent = frozenset(d.unit for d in kept if d.kind == REMOVED)
    return Resolved(
        desired=_keep(desired, observed, kept),
        observed=_without(observed, desired, kept, paths, relink=overwrites),
        drift=drift,
        refused=() if overwrites else tuple(d for d in at_stake if d not in kept),
        accepted=tuple(sorted(d.key for d in chosen if d.key and d.kind not in undone)),
        absent=absent,
        known=frozenset(d.unit for d in at_stake),
    )


def digests_of(observed: Observed, names: Iterable[str]) -> tuple[str, ...]:
    """Return the digests of unit files as they are, for `Manifest.was`: what a cut apply leaves is known."""
    texts = (observed.files.get(name) for name in names)
    return tuple(sorted({digest(text) for text in texts if text is not None}))


def _found(
    manifest: Manifest, desired: Desired, observed: Observed, wanted: Mapping[str, str], paths: Paths
) -> list[Drift]:
    """Return the drift as this apply sees it: what it would not touch, or wants just so, is none."""
    digests = {}
    ours = frozenset(manifest.files)
    for name, there in observed.files.items():
        file = desired.files.get(name)
        if file is not None and file.text == there and name in wanted:
            digests[name] = wanted[name]
        elif name in ours or (file is None and owner(there) == desired.project):
            digests[name] = digest(there)
    disk = Disk(
        contents={},
        masked=observed.masked,
        torn=observed.torn,
        unread=frozenset(),
        strays=observed.strays,
        links=observed.links,
        enabled=observed.enabled,
        drop_ins=observed.drop_ins,
    )
    links = {f"{paths.unit_dir}/{link}" for link in desired.links}
    found = []
    for drift in of_disk(manifest, digests, disk, paths.unit_dir, wanted):
        file = desired.files.get(drift.unit)
        text = observed.files.get(drift.unit)
        if drift.kind == ENABLED and drift.path in links:
            continue
        if drift.kind == DISABLED and drift.path not in links:
            continue
        if drift.kind in TEXT and file is None and (text is None or owner(text) != desired.project):
            continue  # gone already, or left alone as no longer ours
        if drift.kind in TEXT and text is not None and owner(text) not in ("", desired.project):
            continue  # another project's: a conflict
        after = text if drift.kind in TEXT else None
        before = file.text if file is not None and drift.kind in TEXT else None
        found.append(drift._replace(before=before, after=after))
    return found


def _keep(desired: Desired, observed: Observed, kept: list[Drift]) -> Desired:
    """Return what is desired with the texts that are kept."""
    texts = {
        d.unit: replace(desired.files[d.unit], text=observed.files[d.unit])
        for d in kept
        if d.kind != REMOVED and d.unit in desired.files
    }
    return replace(desired, files={**desired.files, **texts}) if texts else desired


def _without(
    observed: Observed, desired: Desired, kept: list[Drift], paths: Paths, *, relink: bool
) -> Observed:
    """Return what is observed so that what is kept is left alone, and what was disabled is linked again."""
    away = {d.unit for d in kept if d.kind == REMOVED}
    strange = {d.unit for d in kept if d.kind != REMOVED and d.unit not in desired.files}
    if away or strange:
        observed = replace(
            observed,
            files={name: text for name, text in observed.files.items() if name not in strange},
            strays={**observed.strays, **{name: f"{paths.unit_dir}/{name}" for name in strange}},
            masked=observed.masked | away,
        )
    if relink and observed.manifest is not None:
        left = tuple(link for link in observed.manifest.links if link in observed.links)
        observed = replace(observed, manifest=observed.manifest._replace(links=left))
    return observed
