"""`sysresp top`: what is drawn fits and is true, keys are understood in any pieces, and looks are few."""

from __future__ import annotations

import os
import re
import select
import signal
import termios

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysresp.cli import rows, table
from sysresp.cli.picture import Asked, Picture
from sysresp.cli.screen import SEQUENCES, Screen, keys
from sysresp.cli.top_view import (
    Event,
    Form,
    Overlay,
    Size,
    Use,
    View,
    draw,
    index,
    last_first,
    room,
    scrolled,
    visible,
)
from sysresp.controller.events import Exit, Fate, Note, UnitMemory, Wait
from sysresp.errors import Exit as Status
from tests.ledger_world import DB, DISK, WEB, World, block

# typer 0.7 knows only `autocompletion`, and warns that Click has renamed it.
pytestmark = pytest.mark.filterwarnings("ignore:'autocompletion' is renamed:DeprecationWarning")
ESCAPES = re.compile(r"\033\[[0-9;]*m")
any_text = st.text(st.characters(exclude_categories=[]), max_size=30) | st.text(
    "日本é\u0301🎉a", max_size=90
)
sizes = st.builds(Size, st.integers(1, 220), st.integers(1, 60))
NOW = 1_700_000_000.0


@st.composite
def some_rows(draw_: st.DrawFn) -> list[rows.Row]:
    """Rows that are as different as a few drawn values let them be."""
    texts = draw_(st.lists(any_text, min_size=1, max_size=4))
    numbers = [None, *draw_(st.lists(st.integers(0, 2**64), max_size=3))]
    times = [None, *draw_(st.lists(st.floats(0, 4e9), max_size=3))]
    projects = draw_(st.sampled_from([("shop",), ("shop", "日本")]))
    out = []
    for n in range(draw_(st.integers(0, 70))):
        seen = rows.Observed(f"u{n}.service", texts[n % len(texts)], "", True, True, "loaded", "active")
        row = rows.Row(projects[n % len(projects)], seen)
        row.set(texts[n % 3 % len(texts)], (rows.OK, rows.BUSY, rows.OFF, rows.BAD)[n % 4], "x" * n)
        row.since, row.next_start = times[n % len(times)], times[n % 3 % len(times)]
        row.restarts, row.memory = numbers[n % len(numbers)], numbers[n % 3 % len(numbers)]
        row.pid, row.healthy = numbers[n % 2 % len(numbers)], (None, True, False)[n % 3]
        out.append(row)
    return out


@st.composite
def views(draw_: st.DrawFn) -> View:
    found = draw_(some_rows())
    events = draw_(
        st.lists(st.builds(Event, st.just("12:00:00"), any_text, any_text, any_text), max_size=30)
    )
    return View(
        found,
        dict.fromkeys((row.observed.name for row in found[::2]), Use(draw_(st.floats(0, 6400)), 5)),
        events,
        NOW,
        f"u{draw_(st.integers(0, 80))}.service",
        draw_(st.integers(0, 90)),
        draw_(any_text),
        draw_(any_text),
        draw_(st.none() | st.builds(Overlay, any_text, st.lists(any_text, max_size=9), st.integers(0, 9))),
    )


@given(views(), sizes, st.booleans())
def test_a_screen_fits_and_moves_no_cursor(view: View, size: Size, colour: bool) -> None:
    lines = draw(view, size, Form(colour=colour))
    assert len(lines) == size.height
    for line in lines:
        plain = ESCAPES.sub("", line)
        assert plain.isprintable()
        assert table.width_of(plain) <= size.width
    if not colour:
        assert not re.search(r"\033\[(3|9)\d", "".join(lines))


@given(views(), sizes)
def test_the_selected_row_is_in_sight_and_little_moves(view: View, size: Size) -> None:
    height, below = room(view, size)
    assert height >= 1
    assert height + below + 3 <= max(4, size.height)
    first = scrolled(view, height)
    assert first <= index(view) < first + height
    assert scrolled(view._replace(first=first), height) == first
    assert len(visible(view, size)) == min(height, len(view.shown))
    if view.shown and view.overlay is None and size.height > 3:
        assert sum("\033[7m" in line for line in draw(view, size, Form())) == 1


@given(views(), st.builds(Size, st.integers(10, 60), st.integers(3, 9)))
def test_all_of_an_overlay_can_be_read(view: View, size: Size) -> None:
    overlay = view.overlay or Overlay("why", ("a", "b" * 100, "z"))
    seen = ""
    for first in range(last_first(overlay, size) + 1):
        lines = draw(view._replace(overlay=overlay._replace(first=first)), size, Form())
        seen += lines[1] if size.height > 1 else ""
    if size.height == 3:  # one line of text
        assert seen == "".join(table.clean(line.expandtabs()) for line in overlay.lines)


@given(
    st.lists(st.sampled_from([*SEQUENCES, b"q", b"j", b"?", b"\033[15~", b"\033[1;5C"]), max_size=8),
    st.integers(1, 5),
)
def test_keys_come_in_any_pieces(pressed: list[bytes], size: int) -> None:
    data = b"".join(pressed)
    found: list[str] = []
    rest = b""
    for begin in range(0, len(data), size):
        some, rest = keys(rest + data[begin : begin + size])
        found += some
    names = [SEQUENCES.get(key, key.decode()) for key in pressed if key[:1] != b"\033" or key in SEQUENCES]
    assert (found, rest) == (names, b"")


@given(st.binary(max_size=20))
def test_any_bytes_are_keys_or_nothing(data: bytes) -> None:
    found, rest = keys(data)
    assert len(found) <= len(data)
    assert not rest or rest[:1] == b"\033"


def names(picture: Picture) -> dict[str, str]:
    return {row.name: row.state + (f": {row.reason}" if row.reason else "") for row in picture.services}


def test_only_what_changed_is_looked_at(bare: World, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = Picture(Asked())
    picture.load()
    assert names(picture) == dict.fromkeys(("disk", "db", "web", "cron@1", "cron@2"), "running")
    asked: list[str] = []
    real = bare.manager.units_by_name

    def counted(units: list[str]) -> object:
        asked.extend(units)
        return real(units)

    monkeypatch.setattr(bare.manager, "units_by_name", counted)
    bare.manager.set_state("shop-cron@1.service", "failed", "failed", "exit-code")
    bare.manager.set_state(WEB, "failed", "failed", "exit-code")
    picture.look(["shop-cron@1.service", "not-ours.service"])
    assert names(picture)["cron@1"].startswith("failed")
    assert names(picture)["web"] == "running"  # nobody said that it changed
    assert asked == ["shop-cron@1.service"]
    assert [(one.who, one.is_bad) for one in picture.events] == [("cron@1", True)]  # there is no ledger
    picture.close()


def test_the_ledger_says_more(bare: World) -> None:
    bare.start_controller()
    now = bare.clock.now()
    picture = Picture(Asked(("web", "disk", "db")))
    picture.load()
    block(bare)
    bare.manager.set_state(WEB, "activating", "auto-restart", "exit-code")
    row = Exit(WEB, "a" * 32, now - 5, "exit-code", 1, 3, Fate.RETRY, now + 25, "", 1, 75.0)
    memory = UnitMemory(wait=Wait.COOLDOWN, wake_at=bare.clock.monotonic() + 99)
    bare.ledger.commit([row], [Note("unhealthy", DB, "no answer", now - 3)], units={DISK: memory})
    picture.look([WEB])
    picture.remember()
    assert names(picture)["disk"].startswith("cooling down")
    assert names(picture)["db"].startswith("blocked: needs")
    found = {one.name: one for one in picture.services}
    assert found["web"].next_start == now + 25
    assert found["disk"].next_start == pytest.approx(now + 99)
    said = {(one.who, one.what, one.then) for one in picture.events}
    assert ("web", "exit status 3 after 1min 15s", "will retry at 22:30:25") in said
    assert ("db", "unhealthy: no answer", "") in said
    before = picture.events
    picture.remember()  # nothing was written since
    assert picture.events is before
    picture.close()


def test_use_is_read_from_the_control_groups(bare: World) -> None:
    picture = Picture(Asked(("web",)))
    unit = bare.manager.set_state(WEB, "active")
    unit.extra["ControlGroup"] = "/shop.slice/shop-web.service"
    picture.load()
    place = "/sys/fs/cgroup/shop.slice/shop-web.service"
    for cpu in (1_000_000, 1_500_000):
        bare.files.write(f"{place}/cpu.stat", f"usage_usec {cpu}\nuser_usec 1\n".encode())
        bare.files.write(f"{place}/memory.current", b"4096\n")
        picture.measure(picture.services)
        bare.clock.sleep(2)
    assert picture.use == {WEB: Use(25.0, 4096)}
    picture.measure([])
    assert picture.use == {}
    picture.close()


def test_the_terminal_comes_back_from_an_error() -> None:
    ours, its = os.openpty()
    before = termios.tcgetattr(its)
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGTSTP, signal.SIGWINCH)]

    class Bug(Exception):
        pass

    with open(its, "w", encoding="utf-8") as out:  # noqa: PTH123 - a descriptor
        with pytest.raises(Bug), Screen(out, its) as screen:  # noqa: PT012
            assert not termios.tcgetattr(its)[3] & (termios.ICANON | termios.ECHO)
            screen.show(["日本", "two"])
            screen.show(["日本", "2"])
            os.write(ours, b"j\033")
            os.kill(os.getpid(), signal.SIGWINCH)
            assert screen.read() == ["resize", "j", "escape"]
            raise Bug
        assert termios.tcgetattr(its) == before
        data = b""
        while select.select([ours], [], [], 0)[0]:
            data += os.read(ours, 9999)
        text = data.decode()
    os.close(ours)
    assert text.count("日本") == 1  # what is there already is not written again
    assert text.endswith("\033[?1049l")
    found = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGTSTP, signal.SIGWINCH)]
    assert found == handlers


def test_it_needs_a_terminal_and_no_json(bare: World) -> None:
    assert "sysresp status" in bare.run("top", status=Status.USAGE)
    assert "exclude each other" in bare.run("status", "--watch", "--json", status=Status.USAGE)
