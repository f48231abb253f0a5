"""What the ledger counts: each row once, in its transaction, and never less than before."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysresp.controller import counters, tables
from sysresp.controller.counters import BEYOND, LAG_SEC
from sysresp.controller.events import Exit, Fate, Note, UnitMemory
from sysresp.controller.incident_rows import Verdict, statements
from sysresp.controller.incidents import Incident, Part
from sysresp.controller.ledger import Ledger
from sysresp.controller.reader import Reader
from sysresp.controller.telling import Message

WEB = "shop-web.service"
NOW = 1_700_000_000.0
FAILED = Exit(WEB, "1" * 32, NOW, "exit-code", 1, 3, Fate.RETRY, attempt=1)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    made = Ledger(str(tmp_path / tables.FILE))
    made.open()
    return made


def numbers(ledger: Ledger) -> dict[tuple[str, str, str], float]:
    """Return all that was counted, but for the lag, of which the real clock decides."""
    with Reader(ledger._path) as reader:
        found = reader.counts()
    return {(one.name, one.of, one.label): one.value for one in found if not one.name.startswith("lag")}


def test_a_row_is_counted_once_whatever_is_said_of_it_later(ledger: Ledger) -> None:
    for row in (FAILED, FAILED, FAILED._replace(fate=Fate.GAVE_UP), FAILED._replace(fate=Fate.GAVE_UP)):
        ledger.commit([row])
    assert numbers(ledger) == {
        ("exits", WEB, ""): 1,
        ("sources", "", "live"): 1,
        ("failures", WEB, "exit-code"): 1,
        ("gave-up", WEB, ""): 1,
    }


def test_what_is_known_late_is_counted_when_it_is_known(ledger: Ledger) -> None:
    unknown = Exit(WEB, "lost-1", source="count")
    ledger.commit([unknown])
    assert ("failures", WEB, "unknown") not in numbers(ledger)
    named = unknown._replace(when=NOW, result="signal", exec_code=2, exec_status=9, source="journal")
    ledger.commit(late=[named])
    ledger.commit(late=[named])
    found = numbers(ledger)
    assert found["exits", WEB, ""] == 1
    assert found["failures", WEB, "signal"] == 1
    assert found["sources", "", "count"] == 1


@pytest.mark.parametrize(
    "row",
    [
        Exit(WEB, "1" * 32, NOW, "success", 1, 0, Fate.FINISHED),
        Exit(WEB, "1" * 32, NOW, "exit-code", 1, 1, Fate.STOPPED),
        Exit(WEB, "1" * 32, NOW, "signal", 2, 9, Fate.STOPPED_BY_US),
        Exit(WEB, "1" * 32, NOW, "exec-condition", 1, 1, Fate.FINISHED),
    ],
)
def test_what_is_no_failure(ledger: Ledger, row: Exit) -> None:
    ledger.commit([row])
    assert not [key for key in numbers(ledger) if key[0] in {"failures", "gave-up"}]


def test_gaps_add_up_and_a_note_with_a_key_counts_once(ledger: Ledger) -> None:
    ledger.commit(notes=[Note("gap", amount=0.25), Note("gap", amount=1.5)])
    for _ in range(2):
        ledger.commit(notes=[Note("blocked", WEB, key="a"), Note("blocked", WEB, key="b")])
    found = numbers(ledger)
    assert found["notes", "", "gap"] == 2
    assert found["amounts", "", "gap"] == 1.75
    assert found["notes", "", "blocked"] == 2


def test_an_incident_counts_once_for_each_reason(ledger: Ledger) -> None:
    first = Incident(1, WEB, NOW, (Part(WEB, ("gave-up",)),))
    more = first._replace(parts=(Part(WEB, ("gave-up", "flapping")), Part("b.service", ("blocked",))))
    for one in (first, more, first, more._replace(resolved=NOW + 5)):
        ledger.commit(statements=statements({1: one}, (), ()))
    found = numbers(ledger)
    assert {key[2]: value for key, value in found.items() if key[0] == "incidents"} == {
        "gave-up": 1,
        "flapping": 1,
        "blocked": 1,
    }


def test_a_message_counts_by_what_becomes_of_it(ledger: Ledger) -> None:
    messages = [Message(key, "shop/ops", 1, "opened", WEB, NOW, NOW, "{}") for key in ("a", "b", "a")]
    ledger.commit(statements=statements({}, messages, ()))
    for key, states in {"a": ("queued", "delivered", "delivered"), "b": ("queued", "failed")}.items():
        for state in states:
            verdict = Verdict(state, 1, NOW, "", "shop/ops", key)
            ledger.commit(statements=statements({}, (), [verdict]))
    found = {key[2]: value for key, value in numbers(ledger).items() if key[0] == "messages"}
    assert found == {"queued": 2, "delivered": 1, "failed": 1}


def test_the_lag_is_that_of_what_was_seen_live(ledger: Ledger) -> None:
    now = time.time()
    ledger.commit([FAILED._replace(when=now - 0.3), FAILED._replace(invocation="2" * 32, when=now + 3600)])
    ledger.commit(
        [
            FAILED._replace(invocation="3" * 32, when=now - 900, source="journal"),
            FAILED._replace(invocation="4" * 32, when=0.0),
            FAILED._replace(invocation="5" * 32, when=now - 60),
            FAILED._replace(invocation="5" * 32, when=now - 60, fate=Fate.GAVE_UP),
        ]
    )
    with Reader(ledger._path) as reader:
        found = {one.label: one.value for one in reader.counts() if one.name == "lag"}
        total = next(one.value for one in reader.counts() if one.name == "lag-sum")
    assert sum(found.values()) == 3
    assert found[str(LAG_SEC[0])] == 1  # a clock that was set back makes no lag
    assert found[BEYOND] == 1
    assert 60.2 < total < 70


def test_a_transaction_that_fails_counts_nothing(ledger: Ledger) -> None:
    ledger.commit([FAILED])
    before = numbers(ledger)
    with pytest.raises(tables.LedgerTrouble):
        ledger.commit([FAILED._replace(invocation="2" * 32)], statements=[("SELECT ?", [(1, 2)])])
    ledger.close()
    assert numbers(ledger) == before


def test_numbers_outlive_their_rows_and_their_controller(ledger: Ledger) -> None:
    gone = FAILED._replace(unit="gone.service")
    ledger.commit([FAILED, gone], units={WEB: UnitMemory()})
    before = numbers(ledger)
    ledger.prune(3600, 1 << 40, FAILED.when + 10)
    assert numbers(ledger) == before
    ledger.prune(3600, 1 << 40, NOW + 7200)
    ledger.close()
    ledger.open()
    assert numbers(ledger) == {key: value for key, value in before.items() if key[1] != gone.unit}
    with Reader(ledger._path) as reader:
        assert reader.exits() == []


def test_an_older_ledger_is_counted_when_it_is_opened(tmp_path: Path) -> None:
    path = str(tmp_path / tables.FILE)
    old = Ledger(path, steps=tables.STEPS[: tables.WITH_INCIDENTS])
    db = old.open() and sqlite3.connect(path)
    assert isinstance(db, sqlite3.Connection)
    with db:
        for number, fate in enumerate((Fate.RETRY, Fate.GAVE_UP)):
            row = FAILED._replace(invocation=str(number) * 32, fate=fate)
            db.execute(tables.PUT_EXIT, tables.of_exit(row, NOW))
    db.close()
    old.close()
    with Reader(path) as reader:
        assert reader.counts() == []
    new = Ledger(path)
    new.open()
    found = numbers(new)
    new.close()
    assert found == {
        ("exits", WEB, ""): 2,
        ("sources", "", "live"): 2,
        ("failures", WEB, "exit-code"): 2,
        ("gave-up", WEB, ""): 1,
    }


ROW = st.builds(
    Exit,
    unit=st.sampled_from(("a.service", "b.service")),
    invocation=st.sampled_from("123"),
    when=st.just(NOW),
    result=st.sampled_from(("", "success", "exit-code", "signal")),
    fate=st.sampled_from(Fate),
    attempt=st.integers(0, 1),
    source=st.sampled_from(("live", "journal", "count")),
)


@given(st.lists(st.tuples(ROW, st.booleans()), max_size=12))
def test_no_number_ever_falls(rows: list[tuple[Exit, bool]]) -> None:
    db = sqlite3.connect(":memory:")
    for step in tables.STEPS:
        db.executescript(step)
    db.execute("PRAGMA trusted_schema = OFF")
    last: dict[tuple[str, str, str], float] = {}
    for row, is_late in rows:
        db.execute(tables.PUT_LATE if is_late else tables.PUT_EXIT, tables.of_exit(row, NOW))
        now = {(one.name, one.of, one.label): one.value for one in counters.read(db)}
        assert all(now[key] >= value for key, value in last.items())
        last = now
    exits = db.execute("SELECT unit, count(*) FROM exit GROUP BY unit").fetchall()
    assert {of: value for (name, of, _), value in last.items() if name == "exits"} == dict(exits)
    of_class = sum(value for (name, _, _), value in last.items() if name == "failures")
    assert of_class <= len(db.execute("SELECT 1 FROM exit").fetchall())
    db.close()


def test_numbers_that_are_none_are_left_aside() -> None:
    db = sqlite3.connect(":memory:")
    for step in tables.STEPS:
        db.executescript(step)
    for value in ("'x'", "-1", "9e999", "x'00'", "7"):
        db.execute(f"INSERT INTO counter VALUES ('exits', ?, '', {value}, 0)", (value,))
    assert [one.value for one in counters.read(db)] == [7]
    db.close()
