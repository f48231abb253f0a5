"""Generations: what is recorded is read back, and the right one is gone back to."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysresp.errors import Exit, SysrespError
from sysresp.model import Mode, Rollout, Scope
from sysresp.reconcile import generations
from sysresp.reconcile.generations import (
    APPLYING,
    CUT,
    DOWN,
    FAILED,
    INTERRUPTED,
    OK,
    ROLLED_BACK,
    ROLLING_BACK,
    Entry,
    Generation,
    before,
    outdated,
    standing,
)
from sysresp.units.desired import Policy
from tests.fakes import fake_host
from tests.plan_scenes import Entry as Service
from tests.plan_scenes import desired_of, projects

ENDS = (APPLYING, ROLLING_BACK, OK, FAILED, ROLLED_BACK, INTERRUPTED, CUT, DOWN)
PATHS = fake_host().paths


@st.composite
def histories(draw: st.DrawFn) -> tuple[Entry, ...]:
    numbers = sorted(draw(st.sets(st.integers(1, 30), max_size=12)))
    entries = []
    for number in numbers:
        end = draw(st.sampled_from(ENDS))
        restores = draw(st.sampled_from([0, *range(1, number)]))
        entries.append(Entry(number, float(number), "root", "apply", end, restores=restores))
    return tuple(entries)


@given(
    projects(),
    st.dictionaries(
        st.sampled_from(["db", "web"]),
        st.builds(
            Policy,
            st.floats(0, 1e6),
            st.booleans(),
            st.builds(Rollout, st.none() | st.integers(1, 9), st.floats(0, 9), st.booleans()),
        ),
    ),
    st.lists(st.tuples(st.text(), st.text(st.characters(codec=None)))),
)
def test_a_record_is_read_back(
    entries: dict[str, Service], policies: dict[str, Policy], texts: list[tuple[str, str]]
) -> None:
    record = Generation(
        number=7,
        desired=replace(desired_of(entries), policies=policies, keep_generations=3),
        mode=Mode.RUNTIME,
        scope=Scope.USER,
        source=("a.toml",),
        texts=tuple(texts),
        stopped=("shop-db.service",),
        failed=("shop-web.service",),
    )
    assert generations.loads(json.loads(generations.dumps(record))) == record


@given(histories())
def test_the_history_is_read_back(entries: tuple[Entry, ...]) -> None:
    host = fake_host()
    assert generations.history(host.files, PATHS, "shop") == ()
    host.files.write(generations.history_path(PATHS, "shop"), generations.dumps_history(entries))
    assert generations.history(host.files, PATHS, "shop") == entries


def test_a_newer_sysresp_may_have_added_something() -> None:
    host = fake_host()
    raw = json.loads(generations.dumps_history([Entry(1, 2.0)]))
    raw["generations"][0]["later"] = "x"
    host.files.write(generations.history_path(PATHS, "shop"), json.dumps(raw).encode())
    assert generations.history(host.files, PATHS, "shop") == (Entry(1, 2.0),)


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b'{"format": 9, "generations": []}', b'{"format": 1, "generations": [3]}']
)
def test_a_damaged_history_is_said(content: bytes) -> None:
    host = fake_host()
    host.files.write(generations.history_path(PATHS, "shop"), content)
    with pytest.raises(SysrespError, match=r"history\.json: cannot use this file"):
        generations.history(host.files, PATHS, "shop")


def test_an_empty_history_is_what_a_power_cut_leaves() -> None:
    host = fake_host()
    host.files.write(generations.history_path(PATHS, "shop"), b"")
    assert generations.history(host.files, PATHS, "shop") == ()


@pytest.mark.parametrize("content", [b"", b"{}", b'{"format": 9}', b'{"format": 1, "units": [1]}'])
def test_a_damaged_record_is_said(content: bytes) -> None:
    host = fake_host()
    host.files.write(generations.record_path(PATHS, "shop", 3), content)
    with pytest.raises(SysrespError, match=r"3\.json: cannot use this file"):
        generations.load(host.files, PATHS, "shop", 3)


def test_an_unknown_generation_is_said() -> None:
    with pytest.raises(SysrespError, match="has no generation 3") as caught:
        generations.load(fake_host().files, PATHS, "shop", 3)
    assert caught.value.exit is Exit.UNKNOWN


@given(histories(), st.integers(0, 31))
def test_what_stands_is_the_last_that_stood(entries: tuple[Entry, ...], at: int) -> None:
    found = standing(entries, at)
    by_number = {entry.number: entry for entry in entries}
    if found:
        assert found <= at
        assert by_number[found].outcome in (OK, FAILED)
        later = [entry for entry in entries if entry.number > found]
        assert all(entry.outcome not in (OK, FAILED) for entry in later if entry.number <= at)
        assert DOWN not in [entry.outcome for entry in later]
    else:
        down = max((entry.number for entry in entries if entry.outcome == DOWN), default=0)
        assert not [e for e in entries if down < e.number <= at and e.outcome in (OK, FAILED)]


def test_each_rollback_goes_one_step_further_back() -> None:
    entries = [Entry(n, float(n), outcome=OK) for n in (1, 2, 3)]
    assert before(entries, 3) == 2
    entries.append(Entry(4, 4.0, outcome=OK, restores=2))
    assert before(entries, 4) == 1
    entries.append(Entry(5, 5.0, outcome=OK, restores=1))
    assert before(entries, 5) == 0


def test_what_is_gone_back_to_was_good() -> None:
    entries = (
        Entry(1, 1.0, outcome=OK),
        Entry(2, 2.0, outcome=FAILED),
        Entry(3, 3.0, outcome=ROLLED_BACK),
        Entry(4, 4.0, outcome=APPLYING),
    )
    assert before(entries, 4) == 1
    assert before(entries[1:], 4) == 2
    assert before(entries[2:], 4) == 0
    # Taken away: the last one that stood.
    assert before((*entries[:2], Entry(5, 5.0, outcome=DOWN)), 0) == 1


@given(histories(), st.integers(1, 12), st.integers(0, 30))
def test_the_keep_policy(entries: tuple[Entry, ...], keep: int, needed: int) -> None:
    gone = {entry.number for entry in outdated(entries, keep, {needed})}
    left = [entry for entry in entries if entry.number not in gone]
    assert needed not in gone
    assert list(entries[-keep:]) == left[-keep:]
    assert len(left) <= keep + 1
