"""What the ledger keeps, and how an exit that is told twice becomes one row."""

from __future__ import annotations

import os
import sqlite3
import stat
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sysresp.controller import tables
from sysresp.controller.events import Exit, Fate, Note, UnitMemory
from sysresp.controller.ledger import Ledger, LedgerNewer, LedgerTrouble
from sysresp.controller.reader import Place, Reader
from sysresp.controller.tables import Stored
from tests.ledger_scenes import UNITS, WHEN, batch, run_of

A, B, C = UNITS
times = st.floats(0, 4e9, width=32)
words = st.text(max_size=20) | st.sampled_from(["", "lone \udc80", "nul \0", "'; DROP TABLE exit; --"])
exits = st.builds(
    Exit,
    unit=st.sampled_from(UNITS),
    invocation=st.sampled_from([run_of(1), run_of(2), "lost-1"]),
    when=st.sampled_from([0.0, WHEN, WHEN + 1]),
    result=st.sampled_from(["", "exit-code", "signal"]),
    exec_code=st.integers(0, 3),
    exec_status=st.integers(0, 255),
    fate=st.sampled_from(Fate),
    retry_at=times,
    because=words,
    attempt=st.integers(0, 9),
    uptime_sec=times,
    memory_peak=st.sampled_from([0, 2**20, 2**64 - 1]),
    generation=st.integers(0, 9),
    source=st.sampled_from(["live", "journal", "count"]),
)
of_type: dict[Any, st.SearchStrategy[Any]] = {float: times, str: words}


def any_of(kind: Any) -> st.SearchStrategy[Any]:
    """Return a strategy for a field of this type: a field that is new is tried, too."""
    if get_origin(kind) is tuple:
        return st.lists(any_of(get_args(kind)[0]), max_size=3).map(tuple)
    return of_type.get(kind, st.from_type(kind))


memories = st.builds(UnitMemory, **{name: any_of(kind) for name, kind in get_type_hints(UnitMemory).items()})


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "ledger.db")


def opened(path: str) -> Ledger:
    ledger = Ledger(path)
    ledger.open()
    return ledger


def read(path: str, *units: str) -> list[Exit]:
    with Reader(path) as reader:
        return reader.exits(units)


def merged(have: Exit | None, told: Exit) -> Exit:
    """Say what a row becomes: the model that the SQL is held against."""
    if have is None:
        return told
    fields = have._asdict()
    if told.fate is not Fate.UNKNOWN:
        fields.update(fate=told.fate, retry_at=told.retry_at, because=told.because)
    if not have.exec_code:
        fields["exec_status"] = told.exec_status
    if have.source == "count":
        fields["source"] = told.source
    for name in ("when", "result", "exec_code", "attempt", "uptime_sec", "memory_peak", "generation"):
        fields[name] = fields[name] or getattr(told, name)
    return Exit(**fields)


def as_stored(one: Exit) -> Exit:
    """Say in what form SQLite takes it: UTF-8, 64 bits."""
    return one._replace(because=tables.text(one.because), memory_peak=min(one.memory_peak, 2**63 - 1))


def test_an_empty_one_is_made_for_all_to_read(path: str) -> None:
    umask = os.umask(0o077)
    try:
        ledger = Ledger(path)
        assert ledger.open() == Stored({}, {}, "")
        ledger.commit(**batch(1))
        modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in Path(path).parent.iterdir()}
    finally:
        os.umask(umask)
    assert modes == dict.fromkeys(("ledger.db", "ledger.db-wal", "ledger.db-shm"), 0o644)
    ledger.close()
    assert [p.name for p in Path(path).parent.iterdir()] == ["ledger.db"]


def test_all_of_a_commit_comes_back(path: str) -> None:
    ledger = opened(path)
    ledger.commit(**batch(1))
    ledger.commit(units={"every.service": None}, meta={"boot": "b"})
    stored = ledger.open()
    assert stored == Stored({B: batch(1)["units"][B]}, {"count": "1", "boot": "b"}, "s=1")
    with Reader(path) as reader:
        assert reader.exits() == batch(1)["rows"]
        assert [told.what for told in reader.events()[0]] == [*batch(1)["rows"], *batch(1)["notes"]]
        assert reader.unit(B) == batch(1)["units"][B]
        assert reader.unit("every.service") is None


@given(st.lists(st.lists(exits, max_size=4), max_size=5))
@settings(max_examples=40)
def test_rows_are_what_the_model_says(
    tmp_path_factory: pytest.TempPathFactory, told: list[list[Exit]]
) -> None:
    path = str(tmp_path_factory.mktemp("model") / "ledger.db")
    ledger = opened(path)
    model: dict[tuple[str, str], Exit] = {}
    for rows in told:
        ledger.commit(rows, when=WHEN)
        for one in map(as_stored, rows):
            model[one.unit, one.invocation] = merged(model.get((one.unit, one.invocation)), one)
    assert {(one.unit, one.invocation): one for one in read(path)} == model
    for rows in told[-1:]:  # repeated: the same, but for a fate that the batch itself changed
        ledger.commit(rows, when=WHEN)
    assert len(read(path)) == len(model)
    ledger.close()


def test_a_late_row_brings_details_and_no_fate(path: str) -> None:
    ledger = opened(path)
    ledger.commit([Exit(A, run_of(1), fate=Fate.GAVE_UP)])
    late = Exit(A, run_of(1), WHEN, "signal", 2, 9, Fate.RETRY, WHEN + 5, source="journal")
    ledger.commit(late=[late, late._replace(invocation=run_of(2))])
    kept = late._replace(fate=Fate.GAVE_UP, retry_at=0.0, source="live")
    assert read(path) == [kept, late._replace(invocation=run_of(2))]


@given(exits, st.data())
@settings(max_examples=25)
def test_details_come_in_any_order(tmp_path_factory: pytest.TempPathFactory, whole: Exit, data: Any) -> None:
    """Parts of a row that agree, such as a signal and the journal's record, may come in any order."""
    whole = as_stored(whole)._replace(source="live", exec_code=1)
    blank = Exit(whole.unit, whole.invocation)

    def part() -> Exit:
        fields = blank._asdict()
        for group in (("fate", "retry_at", "because"), ("exec_code", "exec_status"), ("result",), ("when",),
                      ("attempt",), ("uptime_sec", "memory_peak"), ("generation",)):  # fmt: skip
            if data.draw(st.booleans()):
                fields.update({name: getattr(whole, name) for name in group})
        return Exit(**fields)

    parts = [part() for _ in range(3)]
    ends = []
    for order in (parts, parts[::-1], [parts[1], parts[0], parts[2]]):
        path = str(tmp_path_factory.mktemp("order") / "ledger.db")
        ledger = opened(path)
        for one in order:
            ledger.commit([one])
        ends.append(read(path))
        ledger.close()
    known = whole.fate is not Fate.UNKNOWN
    for end in ends:
        assert [one if known else one._replace(retry_at=0, because="") for one in end] == [
            one if known else one._replace(retry_at=0, because="") for one in ends[0]
        ]


@given(st.dictionaries(st.sampled_from(UNITS), memories), st.dictionaries(words, words), words)
@settings(max_examples=30)
def test_memory_comes_back(
    tmp_path_factory: pytest.TempPathFactory, units: dict[str, UnitMemory], meta: dict[str, str], cursor: str
) -> None:
    ledger = opened(str(tmp_path_factory.mktemp("memory") / "ledger.db"))
    ledger.commit(units=units, meta=meta, cursor=cursor)
    stored = ledger.open()
    assert stored.units == units
    assert all(
        type(a) is type(b) for name in units for a, b in zip(stored.units[name], units[name], strict=True)
    )
    assert stored.meta == {tables.text(name): tables.text(value) for name, value in meta.items()}
    assert stored.cursor == tables.text(cursor)
    ledger.close()


def test_memory_of_another_version_is_taken_as_far_as_it_goes() -> None:
    assert tables.to_memory('{"failures":3,"field_of_tomorrow":[1]}') == UnitMemory(failures=3)
    for bad in (
        "[]",
        "nonsense",
        '{"failures":"three"}',
        '{"wait":"for godot"}',
        '{"recent":["x"]}',
        '{"fate":7}',
    ):
        with pytest.raises(ValueError):  # noqa: PT011 - any kind of it
            tables.to_memory(bad)


def test_a_memory_that_cannot_be_read_costs_only_itself(path: str) -> None:
    ledger = opened(path)
    ledger.commit(units={A: UnitMemory(failures=1), B: UnitMemory(failures=2)})
    ledger.close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE memory SET fields = '{' WHERE unit = ?", (A,))
    db.close()
    assert ledger.open().units == {B: UnitMemory(failures=2)}
    with Reader(path) as reader:
        assert [f"{told.what}" for told in reader.events()[0] if A in f"{told.what}"]
        assert reader.unit(A) is None


def test_what_no_clock_says_is_unknown(path: str) -> None:
    """The file's owner may write what he wants into it, and root's commands must be able to show it."""
    ledger = opened(path)
    ledger.commit(**batch(1))
    ledger.close()
    with sqlite3.connect(path) as db:
        db.execute(
            "UPDATE exit SET at = 9e999, \"when\" = 1e300, uptime_sec = -9e999, exec_code = 'x', unit = 7"
        )
        db.execute("UPDATE note SET at = 'soon', text = x'ff00'")
        db.execute(
            'UPDATE memory SET fields = \'{"wake_at":Infinity,"recent":[NaN,1]}\' WHERE unit = ?', (B,)
        )
    db.close()
    with Reader(path) as reader:
        told = reader.events()[0]
        assert reader.unit(B) == UnitMemory(recent=(0.0, 1.0))
    one = next(t.what for t in told if isinstance(t.what, Exit))
    assert (one.unit, one.when, one.uptime_sec, one.exec_code) == ("7", 0.0, 0.0, 0)
    assert {t.at for t in told} == {0.0}


def test_the_columns_are_the_fields(path: str) -> None:
    ledger = opened(path)
    ledger.close()
    db = sqlite3.connect(path)
    names = [row[1] for row in db.execute("PRAGMA table_info(exit)")]
    db.close()
    assert names == ["id", "at", *Exit._fields]


def test_a_note_with_a_key_is_one(path: str) -> None:
    ledger = opened(path)
    for text in ("first", "second"):
        ledger.commit(notes=[Note("gap", "", text, WHEN, key="k"), Note("start", A, text)], when=WHEN + 1)
    with Reader(path) as reader:
        found = [told.what for told in reader.events()[0]]
    assert found == [
        Note("gap", "", "first", WHEN, "k"),
        Note("start", A, "first", WHEN + 1),
        Note("start", A, "second", WHEN + 1),
    ]


def test_a_row_without_a_time_stands_where_it_was_written(path: str) -> None:
    ledger = opened(path)
    ledger.commit([Exit(A, "lost-1", source="count")], when=WHEN)
    ledger.commit([Exit(A, run_of(1), WHEN - 5)], when=WHEN + 1)
    with Reader(path) as reader:
        assert [(told.at, told.what) for told in reader.events()[0]] == [
            (WHEN - 5, Exit(A, run_of(1), WHEN - 5)),
            (WHEN, Exit(A, "lost-1", source="count")),
        ]


def test_what_was_asked_is_what_is_read(path: str) -> None:
    ledger = opened(path)
    for number in range(1, 31):
        ledger.commit(**batch(number))

    def numbers(found: Sequence[Exit]) -> list[int]:
        return [int(one.invocation, 16) for one in found]

    with Reader(path) as reader:
        assert numbers(reader.exits([A])) == list(range(3, 31, 3))
        assert numbers(reader.exits([A, B], limit=3)) == [27, 28, 30]
        assert numbers(reader.exits(since=WHEN + 10, until=WHEN + 13)) == [10, 11, 12]
        assert numbers(reader.exits(["no.such.service"])) == []
        assert reader.count(A, WHEN + 16) == 5
        found, place = reader.events(limit=4)
        assert [type(told.what) for told in found] == [Exit, Note] * 2
        assert place == Place(30, 30)
        assert reader.events(after=place) == ([], place)
        reader.has_changed()
        assert not reader.has_changed()
        ledger.commit(**batch(31))
        assert reader.has_changed()
        assert [told.at for told in reader.events(after=place)[0]] == [WHEN + 31] * 2


@given(st.lists(st.tuples(st.floats(0, 100), st.booleans()), max_size=60), st.floats(0, 100))
@settings(max_examples=30)
def test_age_takes_what_is_old_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, lines: list[tuple[float, bool]], keep: float
) -> None:
    path = str(tmp_path_factory.mktemp("age") / "ledger.db")
    ledger = opened(path)
    rows = [Exit(A, run_of(n), WHEN + age) for n, (age, is_exit) in enumerate(lines) if is_exit]
    notes = [Note("start", A, "", WHEN + age) for age, is_exit in lines if not is_exit]
    ledger.commit(rows, notes, {A: UnitMemory()})
    while ledger.prune(keep, 1 << 30, WHEN + 100):
        pass
    with Reader(path) as reader:
        left = sorted(told.at for told in reader.events()[0])
        assert reader.unit(A) is not None
    assert left == sorted(WHEN + age for age, _ in lines if WHEN + age > WHEN + 100 - keep)
    ledger.close()


def test_size_takes_the_oldest_and_gives_the_room_back(path: str) -> None:
    ledger = opened(path)
    for first in range(1, 20_001, 1000):
        ledger.commit([batch(n)["rows"][0] for n in range(first, first + 1000)], batch(first)["notes"])
    calls = 0
    while ledger.prune(1e9, 2 << 20, WHEN):
        calls += 1
        assert calls < 1000
    left = read(path)
    assert [int(one.invocation, 16) for one in left] == list(range(20_001 - len(left), 20_001))
    assert 5_000 < len(left) < 15_000
    with Reader(path) as reader:
        kept = [told.at for told in reader.events()[0] if isinstance(told.what, Note)]
    assert min(kept) >= min(one.when for one in left)
    ledger.close()
    assert Path(path).stat().st_size < 5 << 20


def test_errors_are_few_and_tell_no_secret(path: str) -> None:
    ledger = opened(path)
    secret = "".join(reversed(string.ascii_letters))
    for number in range(30):
        ledger.record_error(f"Traceback {number}", ["a", "b\udc80"], {"PATH": "/bin", "TOKEN": secret}, WHEN)
    with Reader(path) as reader:
        found = reader.errors(100)
    assert [error.traceback for error in found] == [f"Traceback {n}" for n in range(29, 9, -1)]
    assert (found[0].environment, found[0].at) == ('{"PATH": "/bin"}', WHEN)
    ledger.close()
    assert secret.encode() not in Path(path).read_bytes()


def test_an_older_schema_is_brought_on(path: str) -> None:
    ledger = opened(path)
    ledger.commit(**batch(1))
    ledger.close()
    steps = (*tables.STEPS, "ALTER TABLE memory ADD COLUMN more TEXT; CREATE TABLE extra (x)")
    newer = Ledger(path, steps=steps)
    assert newer.open().cursor == "s=1"
    newer.close()
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA user_version").fetchone() == (len(steps),)
    assert db.execute("SELECT count(*) FROM extra").fetchone() == (0,)
    db.close()
    before = Path(path).read_bytes()
    for act in (ledger.open, ledger.commit):
        with pytest.raises(LedgerNewer, match="newer sysresp"):
            act()
    with Reader(path) as reader, pytest.raises(LedgerNewer):
        reader.exits()
    assert Path(path).read_bytes() == before
    assert [p.name for p in Path(path).parent.iterdir()] == ["ledger.db"]


def test_a_step_that_fails_leaves_the_older_schema(path: str) -> None:
    ledger = opened(path)
    ledger.commit(**batch(1))
    ledger.close()
    with pytest.raises(LedgerTrouble):
        Ledger(path, steps=(*tables.STEPS, "CREATE TABLE extra (x); CREATE TABLE exit (x)")).open()
    assert ledger.open().cursor == "s=1"
    ledger.close()


def test_nothing_is_written_if_one_part_cannot_be(path: str) -> None:
    ledger = opened(path)
    ledger.commit(**batch(1))
    other = sqlite3.connect(path)
    condition = "BEFORE INSERT ON meta WHEN NEW.value = 's=2'"
    other.execute(f"CREATE TRIGGER refuse {condition} BEGIN SELECT raise(ABORT, 'no'); END")
    other.commit()
    other.close()
    with pytest.raises(LedgerTrouble, match="no"):
        ledger.commit(**batch(2))
    assert [one.invocation for one in read(path)] == [run_of(1)]
    assert ledger.open().meta == {"count": "1"}
    ledger.close()
