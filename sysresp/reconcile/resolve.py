"""What an apply does about drift: refuse, keep what is there, or write what the file says.

Owns the choice and what follows from it: which drift stops an apply, what the plan is then made from, and
what the manifest remembers as accepted. Pure. It changes what `plan` compares instead of what `plan` does: a
text that is kept counts as the text that is wanted, a file that stays away as a masked one. Rule: nothing
that somebody else wrote or took away is lost unless that was asked for; drop-ins and masks are never touched
at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from sysresp.errors import Exit, SysrespError
from sysresp.ports import Paths
from sysresp.reconcile.decide import digest, file_of
from sysresp.reconcile.disk import Disk
from sysresp.reconcile.drift import (
    DISABLED,
    ENABLED,
    REMOVED,
    TEXT,
    Drift,
    away,
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
    KEEP = "keep"  # leave them as they are this time: an automatic rollback has nobody to ask


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


class RefusedError(SysrespError):
    """The apply would overwrite drift."""

    def __init__(self, refused: Sequence[Drift]) -> None:
        self.drift = tuple(refused)
        removed = sum(drift.kind == REMOVED for drift in refused)
        edited = len(refused) - removed
        parts = [f"{edited} unit file{'s' * (edited != 1)} edited by hand"] if edited else []
        parts += [f"{removed} unit file{'s' * (removed != 1)} removed by hand"] if removed else []
        left = "it as it is" if len(refused) == 1 else "them as they are"
        super().__init__(
            f"this would overwrite {' and '.join(parts)}; nothing was changed",
            hint=f"--accept-drift leaves {left}, from now on without a word\n"
            "--overwrite-drift writes what the file says",
            exit=Exit.REFUSED,
        )


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
    kept, accepted, overwrites = [d for d in at_stake if d in before], before, False
    match choice:
        case DriftChoice.ACCEPT:
            kept, accepted = at_stake, found
        case DriftChoice.KEEP:
            # The generation that comes back may want another text than the one an edit was accepted against.
            kept, accepted = at_stake, [d for d in found if d in before or _was_accepted(manifest, d)]
        case DriftChoice.OVERWRITE:
            kept, overwrites = [], True
            accepted = [d for d in before if d.kind not in TEXT and d.kind != DISABLED]
        case DriftChoice.REFUSE:
            pass
    absent = frozenset(d.unit for d in kept if d.kind == REMOVED)
    return Resolved(
        desired=_keep(desired, observed, kept),
        observed=_without(observed, desired, kept, paths, relink=overwrites),
        drift=drift,
        refused=() if overwrites else tuple(d for d in at_stake if d not in kept),
        accepted=tuple(sorted(d.key for d in accepted if d.key)),
        absent=absent,
        known=frozenset(d.unit for d in at_stake),
    )


def was(observed: Observed, names: Iterable[str], disabled: Iterable[str]) -> tuple[str, ...]:
    """Return `Manifest.was`: how these unit files and links are before they are changed."""
    texts = (observed.files.get(name) for name in names)
    digests = {digest(text) for text in texts if text is not None}
    return (*sorted(digests), *(away(link) for link in sorted(disabled)))


def _was_accepted(manifest: Manifest, drift: Drift) -> bool:
    """Say whether what is on disk was accepted against whatever wish."""
    same = drift.key.rpartition(" ")[0]
    return bool(same) and any(line.rpartition(" ")[0] == same for line in manifest.accepted)


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
    names = {d.unit for d in kept}
    if observed.manifest is not None and names:
        left = {unit.name for unit in observed.manifest.units if unit.file not in names}
        observed = replace(observed, stale=observed.stale & left)
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
        there = tuple(link for link in observed.manifest.links if link in observed.links)
        observed = replace(observed, manifest=observed.manifest._replace(links=there))
    return observed
