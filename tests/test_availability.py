"""Availability from the ledger's rows, equal to what a simulated unit really was, second by second."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from sysresp.controller.availability import AFTER, Live, Span, State, figures, is_failure, timeline
from sysresp.controller.events import Exit, Fate
from sysresp.controller.tables import Told

UNIT = "shop-web.service"
T0 = 1_000_000
FATES = [fate for fate in Fate if fate is not Fate.UNKNOWN]


def told(number: int, when: float, uptime: float, fate: Fate, **more: object) -> Told:
    fields = {"result": "exit-code", "exec_code": 1, **more}
    row = Exit(UNIT, f"{number:032x}", when, fate=fate, uptime_sec=uptime, **fields)  # type: ignore[arg-type]
    return Told(number, when, row)


def seconds(spans: list[Span], since: int, until: int) -> list[State]:
    """Return the state of each second, by looking for it in the spans."""
    return [next(s.state for s in spans if s.begin <= t < s.end) for t in range(since, until)]


# What happens to a unit: how long it is down and then up, and what follows (None: it ends unseen, and only
# the count tells, so many seconds after the next run began).
LIVES = st.lists(
    st.tuples(st.integers(0, 40), st.integers(1, 60), st.sampled_from([*FATES, None]), st.booleans()),
    max_size=14,
)


@given(LIVES, st.integers(-100, 300), st.integers(0, 40), st.booleans())
def test_equal_to_brute_force(
    lives: list[tuple[int, int, Fate | None, bool]], shift: int, late: int, runs_now: bool
) -> None:
    """Paint each second as the simulation goes, then read the rows that it left."""
    truth: dict[int, State] = {}
    rows: list[Told] = []
    now, after = T0, State.UNKNOWN
    owed = 0  # runs that ended unseen since the last that was seen
    begun = 0
    for number, (down, up, fate, never_ran) in enumerate(lives, 1):
        begun = now + down
        truth |= dict.fromkeys(range(now, begun), State.UNKNOWN if owed else after)
        if fate is None:
            owed += 1
            truth |= dict.fromkeys(range(now, begun + up), State.UNKNOWN)
            now = begun + up
            continue
        length = 0 if never_ran else up
        truth |= dict.fromkeys(range(begun, begun + length), State.UP)
        now, after = begun + length, AFTER[fate]
        code = {"exec_code": 0, "result": "resources"} if never_ran else {}
        rows += [
            told(1000 + 50 * number + n, begun, 0, Fate.UNKNOWN)._replace(what=lost(n)) for n in range(owed)
        ]
        rows.append(told(number, now, length, fate, **code))
        owed = 0
    end = now + late + 1
    if runs_now:
        truth |= dict.fromkeys(range(now, now + late), State.UNKNOWN if owed else after)
        truth[now + late] = State.UP
        rows += [told(5000 + n, end, 0, Fate.UNKNOWN)._replace(what=lost(n)) for n in range(owed)]
        live = Live(now + late)
    else:
        truth |= dict.fromkeys(range(now, end), State.UNKNOWN if owed else after)
        rows += [told(5000 + n, end, 0, Fate.UNKNOWN)._replace(what=lost(n)) for n in range(owed)]
        live = Live()
    since = T0 + min(shift, end - T0 - 1)
    visible = [row for row in rows if row.at >= since]
    earlier = [row for row in rows if row.at < since]
    spans = timeline([*earlier[-1:], *visible][::-1], live, since, end)
    wanted = [truth.get(t, State.UNKNOWN) for t in range(since, end)]
    assert seconds(spans, since, end) == wanted
    assert all(one.state is not other.state for one, other in pairwise(spans))
    found = figures(spans, failures=3)
    sums = (found.up_sec, found.down_sec, found.off_sec, found.unknown_sec)
    assert sums == tuple(wanted.count(state) for state in State)
    known = wanted.count(State.UP) + wanted.count(State.DOWN)
    assert found.availability == (wanted.count(State.UP) / known if known else None)


def lost(number: int) -> Exit:
    return Exit(UNIT, f"lost-{number}", source="count")


def states(rows: list[Told], live: Live, until: float = 100) -> list[tuple[float, str]]:
    return [(span.end, span.state.value) for span in timeline(rows, live, 0, until)]


def test_nothing_known_is_unknown() -> None:
    assert states([], Live()) == [(100, "unknown")]
    assert states([], Live(40)) == [(40, "unknown"), (100, "up")]
    assert states([], Live(-5)) == [(100, "up")]
    assert figures([], 0).availability is None


def test_a_ledger_that_is_behind_guesses_nothing() -> None:
    """The controller was gone: what was between its last row and the present run, nobody wrote down."""
    row = told(1, 20, 10, Fate.RETRY)
    assert states([row], Live(80)) == [(10, "unknown"), (20, "up"), (80, "down"), (100, "up")]
    assert states([row], Live(80, is_known=False)) == [
        (10, "unknown"),
        (20, "up"),
        (80, "unknown"),
        (100, "up"),
    ]
    assert states([row], Live(0, is_known=False))[-1] == (100, "unknown")


def test_a_run_with_an_unknown_beginning() -> None:
    """Its end is known, and what followed; from the end before to its own, nothing is."""
    rows = [told(1, 20, 10, Fate.RETRY), told(2, 50, 0, Fate.GAVE_UP)]
    assert states(rows, Live()) == [(10, "unknown"), (20, "up"), (50, "unknown"), (100, "down")]


def test_holes_in_the_journal_may_be_before_any_run_that_only_it_told_of() -> None:
    rows = [told(1, 20, 10, Fate.RETRY)]
    rows += [told(n, 10 * n, 5, Fate.RETRY, source="journal") for n in (4, 6)]
    count = Told(9, 70, lost(1))
    assert states([*rows, count], Live(65)) == [
        (10, "unknown"),
        (20, "up"),
        (35, "unknown"),
        (40, "up"),
        (55, "unknown"),
        (60, "up"),
        (65, "unknown"),
        (100, "up"),
    ]


def test_clocks_that_were_set_back_make_no_negative_time() -> None:
    rows = [told(1, 50, 40, Fate.RETRY), told(2, 55, 30, Fate.RETRY)]
    assert states(rows, Live(30)) == [(10, "unknown"), (100, "up")]


HOLES = st.lists(st.tuples(st.integers(0, 100), st.integers(0, 40)), max_size=4)


@given(HOLES, st.integers(0, 100))
def test_what_the_clock_never_showed_or_showed_twice_is_unknown(
    holes: list[tuple[int, int]], began: int
) -> None:
    """But for the run that goes on, which began when it began."""
    rows = [told(1, 20, 10, Fate.RETRY), told(2, 50, 20, Fate.STOPPED)]
    live = Live(began if began > 50 else 0)
    plain = seconds(timeline(rows, live, 0, 100), 0, 100)
    hidden = {t for begin, length in holes for t in range(begin, begin + length) if t < (live.began or 100)}
    spans = timeline(rows, live, 0, 100, [(begin, begin + length) for begin, length in holes])
    assert seconds(spans, 0, 100) == [State.UNKNOWN if t in hidden else plain[t] for t in range(100)]
    assert all(one.state is not other.state for one, other in pairwise(spans))


def test_what_is_a_failure() -> None:
    def of(fate: Fate, result: str, because: str = "") -> bool:
        return is_failure(Exit(UNIT, "a", 1.0, result, fate=fate, because=because))

    assert of(Fate.RETRY, "exit-code")
    assert of(Fate.BLOCKED, "signal", "db")
    assert of(Fate.STOPPED_BY_US, "success", "status 500")
    assert not of(Fate.RETRY, "success")
    assert not of(Fate.BLOCKED, "success", "db")
    assert not of(Fate.STOPPED, "timeout")
    assert not of(Fate.UNKNOWN, "")


def test_what_ended_in_one_instant_is_in_the_order_in_which_it_was_written() -> None:
    rows = [told(1, T0, 0, Fate.STOPPED, exec_code=0, result="resources")]
    rows.append(told(2, T0, 0, Fate.RETRY, exec_code=0, result="resources"))
    assert [span.state for span in timeline(rows[::-1], Live(), T0, T0 + 9)] == [State.DOWN]
