"""The reasoning of `why` over any facts: it ends, names its roots, promises only what somebody will do."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from sysresp.cli import since, why_text
from sysresp.cli.boundary import usage
from sysresp.cli.why import Answer, Cause, Facts, Present, explain, waits_for
from sysresp.controller.events import Exit, Fate, UnitMemory, Wait
from sysresp.errors import SysrespError
from sysresp.model import Origin
from tests.fake_clock import START

UNITS = [f"{name}.service" for name in "abcdef"]
STATES = [
    *(("running", "active", True), ("running", "active", False), ("starting", "activating", True)),
    *(
        ("queued", "inactive", True),
        ("waiting to restart", "activating", False),
        ("failed", "failed", False),
    ),
    *(("stopped", "inactive", False), ("stopped", "inactive", True), ("finished", "inactive", True)),
    *(("masked", "inactive", True), ("missing", "inactive", False), ("broken", "inactive", False)),
    *(("skipped", "inactive", True), ("listening", "inactive", True), ("waiting", "inactive", True)),
    *(
        ("cooling down", "failed", False),
        ("blocked", "inactive", False),
        ("waiting to start", "failed", False),
    ),
]
LOADS = {"masked": "masked", "missing": "not-found", "broken": "bad-setting"}
times = st.sampled_from([0.0, START - 100, START, START + 100, START + 1e6])
some_units = st.lists(st.sampled_from(UNITS), max_size=3, unique=True).map(tuple)
words = st.text(max_size=8)


@st.composite
def facts(draw: st.DrawFn, unit: str) -> Facts:
    state, active, is_well = draw(st.sampled_from(STATES))
    memory = st.builds(
        UnitMemory,
        wait=st.sampled_from(Wait),
        on=some_units,
        is_stopped=st.booleans(),
        is_healthy=st.none() | st.booleans(),
        failures=st.integers(0, 3),
        why=words,
        started=st.just(0.0),
        wake_at=st.just(0.0),
        recent=st.just(()),
        probe_restarts=st.just(()),
    )
    last = st.builds(
        Exit,
        unit=st.just(unit),
        invocation=words,
        when=times,
        result=st.sampled_from(["", "success", "exit-code", "signal", "timeout"]),
        exec_code=st.integers(0, 3),
        exec_status=st.integers(0, 255),
        fate=st.sampled_from(Fate),
        retry_at=times,
        uptime_sec=st.sampled_from([0.0, 0.3, 5000.0]),
        source=st.sampled_from(["live", "journal", "count"]),
    )
    return Facts(
        unit,
        name=draw(st.sampled_from(["", unit[0]])),
        state=state,
        reason=draw(words),
        is_well=is_well,
        since=draw(times),
        load=LOADS.get(state, "loaded"),
        active=active,
        result=draw(st.sampled_from(["", "success", "exit-code", "start-limit-hit"])),
        restart=draw(st.sampled_from(["", "no", "on-failure"])),
        restart_at=draw(times),
        next_start=draw(times),
        next_run=draw(times),
        requires=draw(some_units),
        queued_after=draw(some_units),
        memory=draw(st.none() | memory),
        last=draw(st.none() | last),
        origin=draw(st.sampled_from([Origin(), Origin("services.toml", 3)])),
        log=draw(st.lists(words, max_size=2).map(tuple)),
    )


# Shrinking six units with all their facts takes minutes; a failing host is small enough to read.
whole = settings(max_examples=60, phases=[Phase.explicit, Phase.reuse, Phase.generate])
hosts = st.fixed_dictionaries({unit: facts(unit) for unit in UNITS})
presents = st.builds(Present, st.just(START), st.booleans(), has_ledger=st.booleans(), is_user=st.booleans())


def walk(causes: tuple[Cause, ...]) -> Iterator[Cause]:
    for cause in causes:
        yield cause
        yield from walk(cause.causes)


@whole
@given(hosts, presents)
def test_every_chain_ends_and_tells_each_unit_once(known: dict[str, Facts], present: Present) -> None:
    for unit in UNITS:
        answer = explain(known, unit, present)
        chain = list(walk(answer.causes))
        told = [cause.facts.unit for cause in chain if not cause.is_known]
        assert len(told) == len(set(told))
        assert unit not in told
        reached = {unit}
        ahead = [unit]
        while ahead:
            new = set(waits_for(known[ahead.pop()])) - reached
            reached |= new
            ahead += new
        assert set(told) == reached - {unit}
        assert answer.roots()
        for root in answer.roots():
            ends = set(waits_for(root)) - {unit, *told}
            assert not ends


@whole
@given(hosts, presents)
def test_nothing_is_promised_that_nobody_will_do(known: dict[str, Facts], present: Present) -> None:
    for unit in UNITS:
        answer = explain(known, unit, present)
        steps = [(answer.facts, answer.next), *((c.facts, c.next) for c in walk(answer.causes))]
        for one, step in steps:
            down = one.active in {"inactive", "failed"}
            if down and not one.is_well and one.state in {"failed", "stopped", "blocked"}:
                assert step.what
                if not present.has_controller:
                    assert step.what.startswith("nothing")
            if one.state in {"masked", "missing", "broken", "skipped"}:
                assert step.what.startswith("nothing")
            if step.what.startswith("nothing"):
                assert step.at == 0
        if not answer.facts.is_well:
            assert answer.commands
        assert len(answer.commands) == len(set(answer.commands))
        if present.is_user:
            assert all("--user" in line for line in answer.commands)


@whole
@given(hosts, presents, st.booleans())
def test_every_answer_can_be_told(known: dict[str, Facts], present: Present, colour: bool) -> None:
    answers: list[Answer] = [explain(known, unit, present) for unit in UNITS]
    lines = list(why_text.text(answers, present, colour=colour))
    assert all(line.isprintable() or colour for line in lines)
    for unit in UNITS:
        assert any(unit in line for line in lines)
    found = json.loads(json.dumps(why_text.as_object(answers, present)))
    assert [one["unit"] for one in found["units"]] == UNITS


@given(st.integers(0, 400), st.integers(0, 50), st.sampled_from(["{}h{}m", "{}h {}min", "{} h {} m ago"]))
def test_spans_count_back(hours: int, minutes: int, form: str) -> None:
    assert since.parse(form.format(hours, minutes), START) == START - hours * 3600 - minutes * 60


def test_dates_are_instants() -> None:
    assert since.parse("2023-11-14T22:13:20Z", 0.0) == START
    assert since.parse("2023-11-14T22:13:20+02:00", 0.0) == START - 7200
    assert since.parse("", START) == 0
    assert since.parse("today", START) <= START < since.parse("today", START) + 86400
    assert since.parse("today", START) - since.parse("yesterday", START) == 86400
    for clock in ("00:00", "23:59:59", "7:30"):
        assert START - 86400 < since.parse(clock, START) <= START
    for text in ("soon", "25:00", "2023-13-01", "2 fortnights", "-3h", "h"):
        with pytest.raises(SysrespError) as caught:
            since.parse(text, START)
        assert caught.value.exit == usage("").exit
        assert text in caught.value.message
