"""What happens to one unit, by its state."""

from __future__ import annotations

import pytest

from sysresp.ports import UnitState
from sysresp.reconcile.decide import Owed, digest, verdict
from sysresp.reconcile.manifest import ManifestUnit
from sysresp.reconcile.steps import Verb
from sysresp.units.desired import Unit

TEXT = "[Service]\nType=exec\n"


@pytest.mark.parametrize(
    ("sub_state", "verb"),
    [("auto-restart", Verb.RESTART), ("auto-restart-queued", Verb.RESTART), ("start", None)],
)
def test_a_unit_between_two_failures_is_tried_now(sub_state: str, verb: Verb | None) -> None:
    """Else an apply after a failed one would find nothing to do, and say that all is well."""
    unit = Unit("shop-web.service", "shop-web.service", "web")
    row = UnitState(unit.name, "", "loaded", "activating", sub_state, 0, "")
    known = ManifestUnit(unit.name, unit.file, "web", "", True, True, True, "services.toml", 1, digest(TEXT))
    assert verdict(unit, row, known, Owed(), (TEXT, TEXT)).verb is verb
