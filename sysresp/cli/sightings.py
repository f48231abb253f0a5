"""In which incidents the same traceback was seen: what the journal still has of their units, in one reading.

Owns the count by fingerprint, and which incident a traceback belongs to: one of its units printed it while
it was open, or shortly before, since what is flapping has failed several times by then. Rule: the journal
reaches as far back as it does, and the last lines of it are read; from when on is said beside each count.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile
from typing import NamedTuple

from sysresp.cli.words import plural
from sysresp.controller import fingerprint
from sysresp.controller.fingerprint import Trace
from sysresp.controller.incidents import Incident
from sysresp.ports import Line
from sysresp.reconcile.lock import stamp

MOST_LINES = 30_000  # of the journal: half a second
LEAD_SEC = 600.0
MOST_NAMES = 8  # incidents that a line names

Scan = Callable[[Sequence[str], float, int], tuple[list[Line], bool]]
"""`ports.Journal.scan`."""


class Seen(NamedTuple):
    """How often one fault was seen."""

    times: int
    first: float  # seconds since the epoch
    others: tuple[int, ...]  # the other incidents in which it was, the oldest first
    read_since: float  # older than this may be more

    def words(self) -> str:
        """Return it as a line."""
        names = ", ".join(str(number) for number in self.others[-MOST_NAMES:])
        names = f"..., {names}" if len(self.others) > MOST_NAMES else names
        where = f"{plural(len(self.others), 'other incident')}: {names}" if names else "no other incident"
        read = f" (the journal was read from {stamp(self.read_since)} on)" if self.read_since else ""
        return f"seen {plural(self.times, 'time')} since {stamp(self.first)}, in {where}{read}"


class Sightings:
    """What the journal has of the units that had an incident."""

    def __init__(self, incidents: Sequence[Incident], scan: Scan) -> None:
        """Read it; `incidents` are all, in their order."""
        self._incidents = incidents
        units = sorted({part.unit for each in incidents for part in each.parts if part.run})
        lines, is_whole = scan(units, min(each.opened for each in incidents) - LEAD_SEC, MOST_LINES)
        self._since = 0.0 if is_whole or not lines else lines[0].at
        self._lines: dict[str, list[Line]] = defaultdict(list)
        for line in lines:
            self._lines[line.unit].append(line)

    def of_run(self, unit: str, run: str) -> Trace | None:
        """Return the last traceback of one run, "" of which journald did not know the run included.

        What the manager says when it ends may stand in the middle of it, and is left out.
        """
        lines = self._lines[unit]
        first = next((at for at, line in enumerate(lines) if line.invocation == run), len(lines))
        own = takewhile(lambda line: line.invocation in ("", run), lines[first:])
        return fingerprint.last(line.text for line in own if not line.kind)

    def seen(self, print_: str, one: Incident) -> Seen | None:
        """Return how often this fingerprint was seen, and in which other incidents; None: never."""
        times, others = [], set()
        for unit, lines in self._lines.items():
            said = [line for line in lines if not line.kind]
            mine = [each for each in self._incidents if unit in each.units()]
            for trace in fingerprint.find(line.text for line in said):
                if trace.fingerprint == print_:
                    times.append(said[trace.line].at)
                    others.add(_of(mine, times[-1]))
        others -= {0, one.id, one.into or one.id}
        return Seen(len(times), min(times), tuple(sorted(others)), self._since) if times else None


def _of(incidents: Iterable[Incident], at: float) -> int:
    """Return the incident of one of its units in which this instant is; 0 for none."""
    for each in incidents:
        if each.opened - LEAD_SEC <= at and (not each.resolved or at <= each.resolved + 1):
            return each.into or each.id
    return 0
