"""Changes that are killed, or meet each other, on a booted systemd: runs inside the sandbox, prints JSON.

    python -m tests.live.rounds kill POINTS RANDOM     kills at so many points, and random instants
    python -m tests.live.rounds meet ROUNDS            two changes at once

Each change is done by a child that is forked from this process (children.py). Rule: what is checked is
looked at from here, never told by the child that did it.
"""

from __future__ import annotations

import gc
import json
import os
import random
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from sysresp.errors import Exit
from sysresp.model import Mode, Scope
from sysresp.reconcile import generations
from sysresp.reconcile.converge import Wish, converge
from sysresp.reconcile.layout import paths
from sysresp.reconcile.manifest import load, path
from sysresp.systemd.files import RealFiles
from sysresp.systemd.manager import SystemManager
from tests.live.children import CHILD_SEC, PROJECT, Points, applying, die, rolling_back, wish

UNIT_DIR = Path("/etc/systemd/system")
STATE_DIR = Path("/var/lib/sysresp")
PATHS = paths(Scope.SYSTEM, Mode.PERSISTENT, {})


@dataclass
class Tally:
    """What is printed in the end."""

    points: int = 0  # that the change has
    killed: int = 0
    applied: int = 0  # rounds that ended with one more apply
    rolled_back: int = 0
    found: int = 0  # times that the next apply said that it found a cut one
    reads: int = 0
    refused: int = 0
    waited: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


class World:
    """The host as this process sees it."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.wishes = {new: wish(new) for new in (False, True)}
        self.manager = SystemManager()
        self.files = RealFiles()
        self.pids: dict[str, object] = {}

    def outside(self) -> dict[str, object]:
        """Return the MainPIDs of what no change concerns."""
        names = [f"{PROJECT}-outside{number}.service" for number in range(5)]
        return {name: self.manager.properties(name, "Service", ["MainPID"])["MainPID"] for name in names}

    def forget_starts(self) -> None:
        """Let the socket be started again: rounds are quicker than DefaultStartLimitBurst= allows."""
        self.manager.reset_failed(f"{PROJECT}-socket.socket")
        self.manager.reset_failed(f"{PROJECT}-socket.service")

    def last(self) -> generations.Entry:
        """Return the last line of the history."""
        return generations.history(self.files, PATHS, PROJECT)[-1]

    def check(self, new: bool, what: str) -> None:
        """Note all that is not as it should be."""
        for problem in self.wrong(new):
            self.tally.problems.append(f"{what}: {problem}")

    def wrong(self, new: bool) -> Iterator[str]:
        """Yield what is not as the old or new file says."""
        desired = self.wishes[new].desired
        names = [n for n, unit in desired.units.items() if unit.start and not n.endswith(".slice")]
        rows = {row.name: row for row in self.manager.units([f"{PROJECT}*"])}
        for name in names:
            state = rows[name].active_state if name in rows else "not loaded"
            if state != "active":
                yield f"{name} is {state}"
        for name in rows.keys() - desired.units.keys():
            yield f"{name} is {rows[name].active_state} and not in the file"
        if self.pids != self.outside():
            yield f"what is outside was restarted: {self.pids} {self.outside()}"
        record = generations.load(self.files, PATHS, PROJECT, self.last().number)
        if self.last().outcome == generations.OK and record.desired.files != desired.files:
            yield "the record is of other files"
        there = {p.name: p.read_text() for p in UNIT_DIR.glob(f"{PROJECT}*") if p.is_file()}
        if there != {file.name: file.text for file in desired.files.values()}:
            yield f"files differ: {sorted(there)}"
        for link, file in desired.links.items():
            if self.files.readlink(f"{UNIT_DIR}/{link}") != f"{UNIT_DIR}/{file}":
                yield f"{link} is missing"
        manifest = load(self.files, path(str(STATE_DIR), PROJECT))
        if manifest is None or manifest.unfinished or manifest.pending or manifest.restarts:
            yield f"something is owed: {manifest}"
        if self.last().outcome in generations.OPEN:
            yield f"the history ends with {self.last()}"
        left = [str(p) for top in (UNIT_DIR, STATE_DIR) for p in top.rglob(".sysresp-*")]
        if left:
            yield f"left behind: {left}"

    def begin(self) -> None:
        """Apply both files once, so that there is a way back, and all that children need is loaded."""
        for new in (False, True, False):
            points = Points()
            host = points.host()
            done = converge(self.wishes[new], host, check=lambda _: None)
            if not done.outcome.ok:
                raise SystemExit(f"cannot begin: {done.outcome}")
            self.tally.points = points.count
        gc.collect()
        gc.freeze()  # else every collection in a child copies the pages of this process
        self.pids = self.outside()
        self.check(False, "at the beginning")


def reading(wishes: dict[bool, Wish]) -> tuple[int, int]:
    """Fork a reader of all files and links; closing the descriptor ends it. Return pid and its answer's."""
    stop_read, stop = os.pipe()
    answer, write = os.pipe()
    pid = os.fork()
    if pid:
        os.close(stop_read)
        os.close(write)
        readers[pid] = answer
        return pid, stop
    os.close(stop)
    os.nice(19)
    old, new = wishes[False].desired, wishes[True].desired
    wrong: set[str] = set()
    reads = 0
    texts = {
        name: {one.files[name].text.encode() for one in (old, new) if name in one.files}
        for name in {*old.files, *new.files}
    }
    both = old.files.keys() & new.files.keys()
    links = {**old.links, **new.links}
    always = {link for link in old.links if link in new.links}
    while not select.select([stop_read], [], [], 0.02)[0]:
        for name, allowed in texts.items():
            reads += 1
            try:
                content = (UNIT_DIR / name).read_bytes()
            except FileNotFoundError:
                if name in both:
                    wrong.add(f"{name} was missing")
                continue
            if content not in allowed:
                wrong.add(f"{name} was {content!r:.80}")
        for link, file in links.items():
            reads += 1
            try:
                if os.readlink(UNIT_DIR / link) != f"{UNIT_DIR}/{file}":  # noqa: PTH115
                    wrong.add(f"{link} was wrong")
            except FileNotFoundError:
                if link in always:
                    wrong.add(f"{link} was missing")
    os.write(write, json.dumps([reads, sorted(wrong)]).encode())
    os._exit(0)


readers: dict[int, int] = {}


def read_end(world: World, pid: int, stop: int) -> None:
    """End the reader, and note what it saw."""
    os.close(stop)
    content = b""
    while chunk := os.read(readers[pid], 65536):
        content += chunk
    os.close(readers.pop(pid))
    os.waitpid(pid, 0)
    world.tally.reads, wrong = json.loads(content)
    world.tally.problems += [f"the reader: {one}" for one in wrong]


def kill(world: World, points: int, instants: int) -> None:
    """Kill at points, spread over all there are, then at random instants; each time make it whole."""
    tally = world.tally
    pid, stop = reading(world.wishes)
    new = False  # where the host is
    chance = random.Random(7)
    whole = 0.0
    every = [1 + number * tally.points // points for number in range(points)]
    for number, point in enumerate([*every, *([0] * instants)]):
        world.forget_starts()
        child = applying(world.wishes[not new], Points(point, die))
        if not point:
            child.kill_after(chance.uniform(0.0, whole))
        cut = child.end()
        tally.killed += not cut
        is_open = world.last().outcome in generations.OPEN
        if number % 2 and is_open:
            done = rolling_back().end()
            tally.rolled_back += 1
        else:
            new = not new
            began = time.monotonic()
            done = applying(world.wishes[new], Points()).end()
            whole = max(whole if number else 0.0, (time.monotonic() - began) * 0.9)
            tally.applied += 1
            tally.found += bool(done.get("found"))
            if bool(done.get("found")) is not is_open:
                tally.problems.append(f"point {point}: found {done.get('found')}")
        if done.get("exit") != 0:
            tally.problems.append(f"point {point}: {done}")
        world.check(new, f"round {number}, point {point}")
        if len(tally.problems) > 5:
            break
    read_end(world, pid, stop)


def meet(world: World, rounds: int) -> None:
    """Let two changes meet: the second refuses, or waits if it was told to."""
    tally = world.tally
    chance = random.Random(7)
    new = False
    for number in range(rounds):
        point = chance.randrange(20, tally.points)
        world.forget_starts()
        reached, tell = os.pipe()
        first = applying(world.wishes[not new], Points(point, lambda tell=tell: _tell(tell)))  # type: ignore[misc]
        if number % 3:  # else they begin together, and either may be the first
            select.select([reached], [], [], CHILD_SEC)
        second = applying(world.wishes[new], Points(), wait_sec=60.0 if number % 2 else 0.0)
        ends = first.end(), second.end()
        os.close(reached)
        os.close(tell)
        refused = [end for end in ends if end.get("exit") == Exit.LOCKED]
        done = [end for end in ends if end.get("exit") == Exit.OK]
        if len(refused) + len(done) != 2 or not done:
            tally.problems.append(f"round {number}: {ends}")
            break
        for end in refused:
            other = second.pid if end is ends[0] else first.pid
            tally.refused += 1
            # One that begins at the same instant may find the file before the name is in it.
            if number % 3 and f"by root (pid {other})" not in end["message"]:
                tally.problems.append(f"round {number}: {end}")
        done.sort(key=lambda end: end["span"][1])
        if len(done) == 2:
            told = [line for end in done for line in end["found"] if "another sysresp" in line]
            tally.waited += bool(told)
            if done[0]["span"][1] > done[1]["span"][0]:
                tally.problems.append(f"round {number}: they overlap: {done}")
        new = new if done[-1] is ends[1] else not new
        world.check(new, f"round {number}")


def _tell(descriptor: int) -> None:
    os.write(descriptor, b"x")


@contextmanager
def no_generators() -> Iterator[None]:
    """Mask the generators (systemd.generator(7)): most of the time of a reload is theirs."""
    here = Path("/etc/systemd/system-generators")
    made = here if not here.exists() else None
    here.mkdir(exist_ok=True)
    names = {
        p.name for top in ("/usr/lib", "/lib") for p in Path(top, "systemd/system-generators").glob("*")
    }
    links = [here / name for name in sorted(names) if not (here / name).is_symlink()]
    try:
        for link in links:
            link.symlink_to("/dev/null")
        yield
    finally:
        for link in links:
            link.unlink()
        if made is not None:
            made.rmdir()


def main(words: list[str]) -> None:
    """Do what the words say, and print the tally."""
    world = World()
    began = time.monotonic()
    with no_generators():
        world.begin()
        match words:
            case ["kill", points, instants]:
                kill(world, int(points), int(instants))
            case ["meet", rounds]:
                meet(world, int(rounds))
            case _:
                raise SystemExit(__doc__)
    world.tally.seconds = round(time.monotonic() - began, 1)
    print(json.dumps(world.tally.__dict__))


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main(sys.argv[1:])
