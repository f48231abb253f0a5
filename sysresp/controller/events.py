"""The controller's nouns: what it is told (events), what it remembers (memory), what it does (actions).

Owns the types that pass between the loop, the policy and the ledger, and nothing else: no clock, no bus, no
file. All are named tuples, because a crash storm makes thousands a second and the daemon must stay small.
Instants called `now`, `at`, `started` and the like are CLOCK_MONOTONIC seconds, which systemd's own
timestamps use and which survive a restart of the controller; `when` is seconds since the epoch and is only
ever shown or stored. Rule: a change here is a change of what the ledger stores as JSON, so fields are only
added, with a default.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from sysresp.ports import Gone, JobRemoved, Record, Seen
from sysresp.units.alerting import Receiver
from sysresp.units.supervision import DEFAULT, Settings, Supervision


class Member(NamedTuple):
    """One .service that the controller looks after: a main unit of a project's manifest."""

    unit: str
    project: str = ""
    service: str = ""
    instance: str = ""
    generation: int = 0  # of the project
    supervision: Supervision = DEFAULT


class Roster(NamedTuple):
    """Everything that the controller looks after, from the manifests."""

    members: Mapping[str, Member] = {}  # by unit
    settings: Settings = Settings()  # the strictest of all projects'
    alerts: Mapping[str, Receiver] = {}  # by "PROJECT/NAME"
    is_whole: bool = True  # False: a manifest cannot be read, and what it had is not known


# What a row of the ledger says becomes of the unit; part of `incidents --json`, never renamed.
class Fate(StrEnum):
    """What follows an exit, or a start that failed."""

    RETRY = "will retry"  # systemd's Restart= or the controller starts it again, at `retry_at`
    GAVE_UP = "gave up"  # nothing will start it again
    BLOCKED = "blocked"  # a unit that it requires is down: it is started when that is up
    STOPPED = "stopped by operator"  # a stop or restart that neither systemd nor the controller asked for
    STOPPED_BY_US = "stopped by sysresp"  # the controller asked for it (probe, limit over the ledger)
    FINISHED = "finished"  # it ended well and is not meant to go on
    UNKNOWN = "unknown"  # only the count is known: the journal lost the details


class Exit(NamedTuple):
    """The end of one run of one unit: a row of the ledger, once for each (unit, invocation)."""

    unit: str
    invocation: str  # "" never: a run of which only the count is known is "lost-N" with a number of its own
    when: float = 0.0  # seconds since the epoch; 0: unknown
    result: str = ""  # Result= of systemd; "" unknown
    exec_code: int = 0  # 1 exited, 2 killed, 3 dumped core; 0: no main process, or unknown
    exec_status: int = 0
    fate: Fate = Fate.UNKNOWN
    retry_at: float = 0.0  # seconds since the epoch, with RETRY: when the next start is due; 0: unknown
    because: str = ""  # the unit that blocks it; the probe's words; the limit that was exceeded
    attempt: int = 0  # of how many failures in a row this is; 0: it was none
    uptime_sec: float = 0.0  # from the start of the main process to its end
    memory_peak: int = 0  # bytes; 0: unknown (needs systemd 256)
    generation: int = 0  # of the project, that this run ran
    source: str = "live"  # live | journal | count: who told


class Note(NamedTuple):
    """Anything else worth a line: appended to the ledger's log of events."""

    # blocked | healed | cooldown | reset | start | unhealthy | healthy | limit | gap | self-restart | ...
    kind: str
    unit: str = ""  # "" for the controller itself
    text: str = ""  # in plain words
    when: float = 0.0  # seconds since the epoch; 0: the ledger sets the time of writing
    key: str = ""  # two notes of one kind, unit and key are one; "": each is another
    amount: float = 0.0  # what is summed up over all of one kind: of a gap, its seconds


# Events: what the policy is told. Seen, JobRemoved and Gone come as they are from `ports.Signals`.


class Resync(NamedTuple):
    """Everything as it is now, after a time in which signals may have been missed.

    Ends in the same memory as if none had been. `seen` holds every member once (LoadState "not-found" for
    one that systemd does not know).
    """

    seen: tuple[Seen, ...]
    records: tuple[Record, ...] = ()  # of the journal, for the time since the last one that memory knows
    is_whole: bool = True  # nothing is missing from the records, so far as the journal itself knows
    blind_sec: float = 0.0  # for how long nobody listened; 0: not at all (a look on the way)
    cause: str = ""  # "start", "disconnected", "daemon-reload", ...
    boot: str = ""  # the boot that this is of; another one than memory's: every run there was is over
    wall_offset: float = 0.0  # seconds since the epoch less CLOCK_MONOTONIC, now


class NewRoster(NamedTuple):
    """An apply changed what there is to look after."""

    roster: Roster


class Required(NamedTuple):
    """The answer to `AskRequired`: what the unit cannot start without (Requires=, Requisite=, BindsTo=)."""

    unit: str
    units: tuple[str, ...]
    bound: tuple[str, ...] = ()  # those of BindsTo=: the death of one stops the unit, and it stays down
    outside: tuple[Seen, ...] = ()  # how those are that the roster does not have


class Health(NamedTuple):
    """A probe turned a unit's health: once for each turn, not for each probe."""

    unit: str
    invocation: str
    is_healthy: bool
    why: str = ""  # "connection refused", "no answer within 2s", "status 500"


class Refused(NamedTuple):
    """systemd did not do what an action asked for."""

    unit: str
    action: str  # name of the action's type
    code: str  # last part of the D-Bus error


class Wake(NamedTuple):
    """Time has passed: at least one `wake_at` is due."""

    wall_offset: float = 0.0  # as in `Resync`; 0: as it was


Event = Seen | JobRemoved | Gone | Resync | NewRoster | Required | Health | Refused | Wake


# Actions: what the policy wants done, in this order, after its memory and rows are in the ledger.


class Row(NamedTuple):
    """Write this exit; one that is there already gets the new fate, and details that it lacked."""

    exit: Exit
    is_late: bool = False  # from the journal, perhaps long after: one that is there already keeps its fate


class Start(NamedTuple):
    """Start the unit (RestartUnit, which the polkit rule allows and which starts what is down)."""

    unit: str
    why: str


class Shorten(NamedTuple):
    """End the wait for systemd's own restart now (TryRestartUnit: nothing if somebody stopped it)."""

    unit: str


class Stop(NamedTuple):
    """Stop the unit."""

    unit: str
    why: str


class Kill(NamedTuple):
    """Kill the unit's processes (SIGKILL), so that its Restart= acts."""

    unit: str
    why: str


class ResetFailed(NamedTuple):
    """Let systemd forget the unit's failures: NRestarts, start limit, failed state."""

    unit: str


class Look(NamedTuple):
    """Read the unit's state and bring it back as a `Seen`."""

    unit: str


class AskRequired(NamedTuple):
    """Bring back `Required` for the unit."""

    unit: str


class Recount(NamedTuple):
    """Make a `Resync`: NRestarts tells of runs that no signal told of, and the journal may name them."""

    unit: str


Action = Row | Note | Start | Shorten | Stop | Kill | ResetFailed | Look | AskRequired | Recount


# Memory


class Wait(StrEnum):
    """What a unit that is down waits for."""

    NOTHING = ""
    SETTLE = "settle"  # `failed` may be followed by auto-restart within 0.1 s (systemd <= 253): look again
    BACKOFF = "backoff"  # its next restart
    COOLDOWN = "cooldown"  # systemd gave up; the controller starts it again
    BLOCKED = "blocked"  # the units in `on`
    SLOT = "slot"  # its turn, by starts_per_second


class UnitMemory(NamedTuple):
    """What is known of one unit; stored as JSON with each change, in the transaction of its rows."""

    invocation: str = ""  # the last run that was seen
    is_ended: bool = True  # ... and its end is in the ledger
    active: str = "inactive"
    sub: str = "dead"
    n_restarts: int = 0
    started: float = 0.0
    generation: int = 0  # that the last run ran
    job: int = 0  # that was pending when it was last seen
    our_job: str = ""  # what the controller asked for last and has not seen the end of: "Stop", "Kill", ...
    is_stopped: bool = False  # by the operator: it stays so until somebody starts it
    failures: int = 0  # in a row, since the last reset: the place on the backoff curve
    cooldowns: int = 0  # used up in a row
    recent: tuple[float, ...] = ()  # times of failures within `per_sec`
    probe_restarts: tuple[float, ...] = ()  # times, within the probe's `within_sec`
    is_healthy: bool | None = None  # None: no probe, or no verdict yet
    why: str = ""  # of the health, or of the wait
    wait: Wait = Wait.NOTHING
    wake_at: float = 0.0  # 0: nothing is due
    on: tuple[str, ...] = ()  # with BLOCKED: the units that it waits for; else: that died as it was stopped
    lost: int = 0  # runs so far of which only the count is known: makes their rows' keys
    fate: Fate = Fate.UNKNOWN  # of the last run, once it has ended
    result: str = ""  # Result= of it
    previous: str = ""  # the run before the last
    changed: float = 0.0  # when systemd last changed its state: what is older is told late
    ended: float = 0.0  # when the last run that has ended did so
    starting: int = 0  # the job that began the last run, or ended it: its own end is no news
    stopping: float = 0.0  # since when a job stops the last run; 0: none does
    tries: int = 0  # looks, or starts that came to nothing, in a row
    credit: int = 0  # NRestarts told of so many runs that have not been seen yet
    missing: int = 0  # ... and never will be: for the next resync to name, or to count
    named: tuple[str, ...] = ()  # while some are missing: the runs that were seen since
    since: float = 0.0  # ... and when the first of them went missing
    is_reset: bool = False  # reset by us, or unloaded: NRestarts may be as it was, or 0


class Memory(NamedTuple):
    """All that the policy remembers. Treated as immutable: `decide` returns another one."""

    boot: str = ""  # the boot that monotonic times are of
    roster: Roster = Roster()
    units: Mapping[str, UnitMemory] = {}  # members, and units that members wait for
    tokens: float = 0.0  # starts that may be asked for at once; below 0: so many wait for their turn
    tokens_at: float = 0.0  # when that was so; 0: never
    wall_offset: float = 0.0  # seconds since the epoch less CLOCK_MONOTONIC; 0: unknown
    blocked: frozenset[str] = frozenset()  # the units whose wait is BLOCKED; made anew at each Resync

    def wake_at(self) -> float:
        """Return when the next `Wake` is due; 0: never."""
        return min((unit.wake_at for unit in self.units.values() if unit.wake_at), default=0.0)


class Decision(NamedTuple):
    """What follows one event."""

    memory: Memory
    actions: tuple[Action, ...] = ()
