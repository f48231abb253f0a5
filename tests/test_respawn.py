"""When the controller restarts itself: never without a reason, and once for each."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sysresp.controller.respawn import SPREAD, Vitals, due, reason
from sysresp.units.supervision import Settings

FRESH = Vitals(started=100.0, spread=0.5, code="c1", unit="u1")


def test_nothing_to_do() -> None:
    assert reason(FRESH, Settings(), 1e9) == ""
    assert due(FRESH, Settings()) == 0
    assert reason(FRESH._replace(code_now="c1", unit_now="u1", rss=1 << 40), Settings(), 1e9) == ""


def test_each_reason() -> None:
    assert reason(FRESH._replace(asked="because"), Settings(), 101) == "because"
    assert "code" in reason(FRESH._replace(code_now="c2"), Settings(), 101)
    assert "unit" in reason(FRESH._replace(unit_now="u2"), Settings(), 101)
    small = Settings(max_memory=1000)
    assert reason(FRESH._replace(rss=1000), small, 101) == ""
    assert "max_memory = 1000" in reason(FRESH._replace(rss=1001), small, 101)


@given(age=st.floats(1, 1e7), spread=st.floats(0, 1))
def test_old_age_is_spread_and_never_early(age: float, spread: float) -> None:
    vitals, settings = FRESH._replace(spread=spread), Settings(max_age_sec=age)
    at = due(vitals, settings)
    assert 100 + age <= at <= (100 + age * (1 + SPREAD)) * (1 + 1e-9)
    assert reason(vitals, settings, 100 + age * 0.999) == ""
    assert "max_age" in reason(vitals, settings, at)


def test_its_successor_has_no_reason() -> None:
    """What was a reason for this one is what the next one begins with."""
    old = FRESH._replace(code_now="c2", unit_now="u2")
    assert reason(old, Settings(), 101)
    assert not reason(
        Vitals(102.0, 0.5, code="c2", unit="u2", code_now="c2", unit_now="u2"), Settings(), 103
    )
