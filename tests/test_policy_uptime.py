"""How long a run was whose end nobody saw: the journal has the end, memory the beginning."""

from __future__ import annotations

from sysresp.controller.events import Fate, Resync
from sysresp.ports import Record, Seen
from sysresp.units.supervision import Supervision
from tests.policy_scenes import DB, EPOCH, WEB, Controller, up


def record(kind: str, monotonic: float, boot: str, **fields: str) -> Record:
    return Record(kind, WEB, "A", EPOCH + monotonic, monotonic, boot, **fields)


def test_a_run_that_the_reboot_ended() -> None:
    told = Controller(web=Supervision(), db=Supervision())
    told(5000, Resync((Seen(WEB), Seen(DB)), boot="a"), up(5001), up(5001, "D", unit=DB))
    records = (record("stopped", 6000, "a", job_type="stop"), record("stopped", 6001, "a", job_type="stop"))
    told(5, Resync((Seen(WEB), Seen(DB)), records, True, 9, "start", "b", EPOCH + 7000))
    assert (told.rows["A"].when, told.rows["A"].uptime_sec) == (EPOCH + 6000, 999)
    assert told.rows["A"].fate is Fate.STOPPED
    assert (told.rows["D"].when, told.rows["D"].uptime_sec) == (0, 0)  # of this one nobody knows the end


def test_a_run_that_began_before_the_gap() -> None:
    told = Controller(web=Supervision(when="always"))
    told(100, Resync((Seen(WEB),), boot="b"), up(101))
    records = (record("exited", 150, "b"), record("failed", 150, "b", result="exit-code"))
    told(200, Resync((up(160, "C", n=1),), records, True, 90, "start", "b", EPOCH))
    assert (told.rows["A"].when, told.rows["A"].uptime_sec) == (EPOCH + 150, 49)
