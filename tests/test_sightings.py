"""How often a traceback was seen, and in which incidents: pure."""

from __future__ import annotations

from collections.abc import Sequence

from sysresp.cli import sightings
from sysresp.controller import fingerprint
from sysresp.controller.incidents import Incident, Part
from sysresp.ports import Line

WEB, JOB = "web.service", "job.service"


def fault(name: str) -> list[str]:
    return ["Traceback (most recent call last):", f'  File "/srv/a.py", line 3, in {name}', "KeyError: 3"]


def said(unit: str, at: float, name: str = "work") -> list[Line]:
    return [Line(unit, "run", at, text) for text in fault(name)]


def incident(number: int, unit: str, opened: float, resolved: float = 0.0, into: int = 0) -> Incident:
    part = Part(unit, ("gave-up",), "", opened, run="r" * 32)
    return Incident(number, unit, opened, (part,), resolved=resolved, into=into)


INCIDENTS = [
    incident(1, WEB, 1000, 1100),
    incident(2, JOB, 2000, 2100),
    incident(3, WEB, 5000, 5100),
    incident(4, JOB, 5001, 5050, into=3),
    incident(5, WEB, 9000),
]
PRINT = fingerprint.find(fault("work"))[0].fingerprint


def seen(lines: Sequence[Line], *, is_whole: bool = True, number: int = 5) -> sightings.Seen:
    asked: list[tuple[Sequence[str], float, int]] = []

    def scan(units: Sequence[str], since: float, most: int) -> tuple[list[Line], bool]:
        asked.append((units, since, most))
        return sorted(lines, key=lambda line: line.at), is_whole

    found = sightings.Sightings(INCIDENTS, scan).seen(PRINT, INCIDENTS[number - 1])
    assert found is not None
    assert asked == [([JOB, WEB], 1000 - sightings.LEAD_SEC, sightings.MOST_LINES)]
    return found


def test_the_same_fault_in_several_incidents() -> None:
    lines = said(WEB, 990) + said(WEB, 995) + said(JOB, 1999) + said(WEB, 1999) + said(WEB, 5001)
    lines += said(JOB, 5001) + said(JOB, 5002, "other") + said(WEB, 9001) + said(WEB, 9500)
    found = seen(lines)
    assert found == sightings.Seen(8, 990, (1, 2, 3), 0.0)  # one of them when nothing was wrong
    assert found.words().startswith("seen 8 times since ")
    assert found.words().endswith("in 3 other incidents: 1, 2, 3")


def test_what_was_not_read_is_said() -> None:
    found = seen(said(WEB, 9001), is_whole=False)
    assert found == sightings.Seen(1, 9001, (), 9001)
    assert "seen 1 time since" in found.words()
    assert "in no other incident (the journal was read from " in found.words()
    many = sightings.Seen(20, 1.0, tuple(range(1, 21)), 0.0).words()
    assert many.endswith("in 20 other incidents: ..., 13, 14, 15, 16, 17, 18, 19, 20")


def test_a_part_of_another_is_none_of_its_own() -> None:
    assert seen(said(WEB, 5001) + said(JOB, 5001) + said(WEB, 1001), number=4).others == (1,)


def test_what_the_manager_says_in_the_middle_is_no_end() -> None:
    head, frame, last = fault("work")
    lines = [Line(WEB, "old", 1.0, text) for text in fault("other")]
    lines += [Line(WEB, "run", 2.0, "Starting", "starting"), Line(WEB, "run", 2.0, head)]
    lines += [Line(WEB, "", 2.0, frame), Line(WEB, "run", 2.0, "web.service: exited", "said")]
    lines += [Line(WEB, "", 2.0, last), Line(WEB, "new", 3.0, "Starting", "starting")]
    lines += [Line(WEB, "", 3.0, text) for text in fault("later")]
    said = sightings.Sightings(INCIDENTS, lambda *_: (lines, True))
    found = said.of_run(WEB, "run")
    assert found is not None
    assert found.fingerprint == PRINT
    assert said.of_run(WEB, "unknown") is None
    assert said.of_run(JOB, "run") is None
    assert said.seen("none", INCIDENTS[0]) is None
