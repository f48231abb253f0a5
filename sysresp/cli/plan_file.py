"""A plan in a file: what was shown and agreed to, for another run to do exactly that.

Owns the format: the content of the generation that is to come, and fingerprints of what the plan was made
from. The plan is made again when it is applied, from the file's content and the host as it is then; since
planning is pure, the same host gives the same plan, and any other is refused with what has moved. Written
0600: the user's file may be private.
"""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from sysresp.cli import hosts
from sysresp.errors import Exit, SysrespError
from sysresp.model import Mode, Scope
from sysresp.reconcile import generations
from sysresp.reconcile.converge import Prepared, Wish
from sysresp.reconcile.decide import digest
from sysresp.reconcile.generations import Generation
from sysresp.reconcile.resolve import DriftChoice

FORMAT = 1


class Saved(NamedTuple):
    """What was read back."""

    wish: Wish
    generation: int  # at which the host was
    files: dict[str, str]  # digest of each unit file that was there
    links: dict[str, str]
    fingerprint: str  # of the plan

    def check(self, made: Prepared) -> None:
        """Raise SysrespError (Exit.REFUSED) if the host has moved since."""
        moved = _moved(self, made)
        if moved:
            raise SysrespError(
                f"this plan is stale: {moved}; nothing was changed",
                hint="make it again: sysresp plan --out FILE",
                exit=Exit.REFUSED,
            )


def write(path: str, wish: Wish, made: Prepared) -> None:
    """Write the plan to this path."""
    record = Generation(
        number=0,
        desired=wish.desired,
        mode=wish.mode,
        scope=wish.scope,
        source=wish.source,
        texts=wish.texts,
    )
    content = {
        "format": FORMAT,
        "plan_of": wish.desired.project,
        "generation": _generation(made),
        "settle_sec": wish.settle_sec,
        "drift": wish.drift.value,
        "files": _files(made),
        "links": dict(made.observed.links),
        "fingerprint": fingerprint(made),
        "wish": json.loads(generations.dumps(record)),
    }
    where = str(Path(path).absolute())
    files = hosts.host(wish.scope, wish.mode).files
    files.write(where, (json.dumps(content) + "\n").encode(), 0o600)


def read(path: str) -> Saved:
    """Read it back; SysrespError (Exit.USAGE) if it is none."""
    try:
        raw = json.loads(Path(path).read_bytes())
        if raw["format"] > FORMAT:
            raise _unusable(path, f"it was written by a newer sysresp (format {raw['format']})")
        return _saved(raw)
    except FileNotFoundError as error:
        raise SysrespError(f"{path}: there is no such file", exit=Exit.USAGE) from error
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise _unusable(path, f"{type(error).__name__}: {error}") from error


def _saved(raw: Any) -> Saved:
    old = generations.loads(raw["wish"])
    wish = Wish(
        desired=old.desired,
        mode=Mode(old.mode),
        scope=Scope(old.scope),
        source=old.source,
        texts=old.texts,
        settle_sec=raw["settle_sec"],
        drift=DriftChoice(raw["drift"]),
    )
    return Saved(wish, raw["generation"], raw["files"], raw["links"], raw["fingerprint"])


def _unusable(path: str, why: str) -> SysrespError:
    return SysrespError(
        f"{path} is no plan that can be applied: {why}",
        hint="make one: sysresp plan --out FILE",
        exit=Exit.USAGE,
    )


def _moved(saved: Saved, made: Prepared) -> str:
    """Return what is not as it was, "" if the plan is the very same."""
    at = _generation(made)
    if at != saved.generation:
        return f"it was made at generation {saved.generation}, and the host is at {at}"
    now = _files(made)
    for name in sorted(saved.files.keys() | now.keys()):
        if saved.files.get(name) != now.get(name):
            word = "is new" if name not in saved.files else "is gone" if name not in now else "has changed"
            return f"{name} {word} on disk"
    if saved.links != dict(made.observed.links):
        return "what is enabled has changed"
    if saved.fingerprint != fingerprint(made):
        return f"units have changed their state, and the plan would now be: {made.plan.summary()}"
    return ""


def _generation(made: Prepared) -> int:
    return made.observed.manifest.generation if made.observed.manifest is not None else 0


def _files(made: Prepared) -> dict[str, str]:
    return {name: digest(text) for name, text in made.observed.files.items()}


def fingerprint(made: Prepared) -> str:
    """Return a digest of everything that the plan would do."""
    return sha256(repr((made.plan.steps, made.plan.changes, made.plan.keeps)).encode()).hexdigest()
