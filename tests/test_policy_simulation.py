"""Whatever is lost, told twice or late: after a resync the ledger is the truth, and memory as it would be.

Stories in virtual time on tests/toy_systemd.py, in the dialects of systemd up to 253 and from 254. Two
kinds: an observer (the controller acts on nothing, so that one that misses nothing can stand beside it and
be compared), and an actor, killed at any decision, that must keep every limit. The story and the noise on
the wire are drawn as bytes, which makes an example cheap enough to draw twenty thousand; most wires are
worse than chance would make them, for a few signals lost in a row say more than one here and there.

What is compared is `COMPARED`: the last run, what became of it, and what the unit waits for. Not compared,
since a lost run enters them late, in the journal's order, or not at all: `failures`, `cooldowns` and
`recent` (counts), `previous`, and the fate of a run that another one followed: its row keeps what was seen
live. Lost for good is a stop of what was down already: systemd and its journal keep no trace of it.

Continuous integration draws the same stories each time, to judge a change by those that its parent passed.
Without CI in the environment they are drawn anew; SYSRESP_FULL=1 draws 200,000 of each kind, anew. A story
that failed is kept in tests/test_policy_known_stories.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import cycle

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sysresp.controller.events import Start, UnitMemory, Wait
from sysresp.ports import Signal
from sysresp.units.supervision import Settings, Supervision
from tests.toy_controller import ToyController, advance
from tests.toy_systemd import ToySystemd, Unit

FULL = bool(os.environ.get("SYSRESP_FULL"))
EXAMPLES = 200_000 if FULL else 10_000  # of each kind
RATE = 2.0
RUNS = ("invocation", "is_ended", "active", "sub", "n_restarts", "missing", "lost")
COMPARED = (*RUNS, "is_stopped", "wait", "fate", "result")

POLICIES = (
    Supervision(delay_sec=0.2),
    Supervision(when="always", delay_sec=0.2, attempts=3, within_sec=30, cooldown_sec=5, cooldowns=2),
    Supervision(delay_sec=0.1, max_delay_sec=4, steps=4, is_native=False, reset_after_sec=3),
    Supervision(when="no"),
    Supervision(delay_sec=0.1, failures=3, per_sec=20, cooldown_sec=6),
    Supervision(delay_sec=0.1, max_delay_sec=4, steps=4, attempts=4, within_sec=60, reset_after_sec=3),
)
NAMES = ("a.service", "b.service", "c.service", "d.service")
QUIET = cycle([15])
LOST, WELL = 1, 15
WIRES = (
    bytes(range(256)),  # lost, told twice, swapped with the next, as it comes
    bytes(LOST if byte < 77 else WELL for byte in range(256)),
    bytes(LOST if byte < 180 else WELL for byte in range(256)),
    bytes((LOST, 2, 4)[byte // 16] if byte < 48 else WELL for byte in range(256)),
)


def world(seed: int) -> ToySystemd:
    """Return a host: a chain a <- b <- c, and d alone; which policies, binds and dialect, by the seed."""
    units = [Unit(name, POLICIES[(seed // 2 + 5 * at) % len(POLICIES)]) for at, name in enumerate(NAMES)]
    units[1].requires, units[2].requires = (NAMES[0],), (NAMES[1],)
    units[2].binds = seed % 3 == 0
    return ToySystemd(units, is_new=bool(seed % 2))


def wire(noise: bytes) -> bytes:
    """Return what becomes of one signal after the other; the first byte says how bad the wire is."""
    return noise.translate(WIRES[noise[0] % len(WIRES)])


def happen(systemd: ToySystemd, byte: int, *, traceless: bool = False) -> float:
    """Let one thing happen to one unit, and return how much time passes after it.

    A stop of what is down already leaves no trace but a signal: neither systemd nor its journal knows of it
    afterwards. So that is left to tests in which no signal is lost.
    """
    name, what = NAMES[byte % 4], byte // 4 % 16
    unit = systemd.units[name]
    match what:
        case 3 | 4 if not traceless and not unit.is_up() and not unit.due:
            pass
        case 0 | 1 | 2:
            systemd.start(name)
        case 3 | 4:
            systemd.stop(name, status=0 if what == 3 else 7)
            unit.is_wanted_down = True
        case 5:
            systemd.restart(name)
        case 6:
            systemd.reset_failed(name)
        case 7:
            systemd.crash(name, 1, 0)
        case 8:
            systemd.units[name].broken = 1 + byte // 64
        case 9 | 10:
            systemd.crash(name, 2, 9)
        case 11:
            return 1.0
        case 12:
            return 7.0
        case _:
            systemd.crash(name, 1, 3)
    return (0.0, 0.05, 0.15, 0.6)[byte // 64]


def truth(systemd: ToySystemd) -> set[tuple[str, str]]:
    """Return the runs that have ended, each once."""
    ended = set(systemd.ended)
    assert len(ended) == len(systemd.ended)
    return ended


def what_counts(known: UnitMemory, *, was_started: bool) -> dict[str, object]:
    """Return the part of memory that must not depend on what was missed.

    An observer's starts do not happen, so for a unit that it would have started only the runs are compared.
    """
    return {field: getattr(known, field) for field in (RUNS if was_started else COMPARED)}


def observed(story: bytes, noise: bytes) -> None:
    systemd = world(story[0])
    for unit in systemd.units.values():  # that limit stops units, which an observer does not
        unit.supervision = unit.supervision._replace(failures=0)
    limits = Settings(starts_per_second=RATE)
    whole = ToyController(systemd, limits, acts=False)
    holey = ToyController(systemd, limits, acts=False)
    both: list[tuple[ToyController, Iterator[int]]] = [(whole, QUIET), (holey, cycle(noise))]

    def announce(signal: Signal) -> None:
        whole.wire_in(signal)
        holey.wire_in(signal)

    systemd.announce = announce
    for byte in story[1:]:
        pause = happen(systemd, byte)
        advance(systemd, both, pause)
    for controller, _ in both:
        controller.resync("end")
    advance(systemd, both, 1.0)
    for controller, _ in both:
        controller.resync("end")
    advance(systemd, [(controller, QUIET) for controller, _ in both], 0.4)
    for controller, _ in both:
        assert controller.ledger.keys() == truth(systemd)
    started = {a.unit for c, _ in both for _, a in c.asked if isinstance(a, Start)}
    for name in NAMES:
        one, other = [what_counts(c.memory.units[name], was_started=name in started) for c in (whole, holey)]
        assert one == other, name


def acted(story: bytes, noise: bytes) -> None:
    systemd = world(story[0])
    is_quiet = noise[0] % 2 == 0  # then nothing is lost, and nobody is killed
    ears: Iterator[int] = QUIET if is_quiet else cycle(noise)
    controller = ToyController(systemd, Settings(starts_per_second=RATE))
    systemd.announce = controller.wire_in
    for byte in story[1:]:
        if byte // 4 % 16 == 15 and not is_quiet:
            controller.is_killed_after = 1 + byte // 64
        pause = happen(systemd, byte, traceless=is_quiet)
        advance(systemd, [(controller, ears)], pause)
        if controller.is_dead and byte % 2:
            controller.killed()
            controller.resync("start")
    if controller.is_dead:
        controller.killed()
    controller.is_killed_after = 0
    controller.resync("end")
    advance(systemd, [(controller, QUIET)], 40.0)
    controller.resync("end")
    assert controller.ledger.keys() == truth(systemd)
    keeps_limits(systemd, controller)
    if is_quiet:
        assert not controller.wrongs


def keeps_limits(systemd: ToySystemd, controller: ToyController) -> None:
    """Fail if the controller asked for more than the settings and the policies allow, or forgot somebody."""
    starts = [at for at, action in controller.asked if isinstance(action, Start)]
    for first, begin in enumerate(starts):
        for last in range(first, len(starts)):
            assert last - first + 1 <= RATE * (starts[last] - begin + 1) + 1e-6
    for name, unit in systemd.units.items():
        known, sup = controller.memory.units[name], unit.supervision
        assert len(known.recent) <= sup.failures
        assert not sup.cooldowns or known.cooldowns <= sup.cooldowns
        if known.wait is Wait.BLOCKED:
            assert any(systemd.units[other].active != "active" for other in unit.requires)
        assert known.is_ended != unit.is_up()
        assert known.wait not in (Wait.SETTLE, Wait.SLOT)


def tell_many(judge: Callable[[bytes, bytes], None]) -> None:
    """Have so many stories judged, and count them."""
    told = 0

    @settings(
        max_examples=EXAMPLES,
        derandomize=bool(os.environ.get("CI")) and not FULL,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(st.binary(min_size=2, max_size=40), st.binary(min_size=1, max_size=40))
    def tell(story: bytes, noise: bytes) -> None:
        nonlocal told
        told += 1
        judge(story, wire(noise))

    tell()
    assert told >= EXAMPLES


@pytest.mark.slow
def test_what_was_missed_makes_no_difference() -> None:
    tell_many(observed)


@pytest.mark.slow
def test_no_limit_is_exceeded_and_no_exit_missed() -> None:
    tell_many(acted)
