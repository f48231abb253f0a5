"""A change as a whole: generations, settle, rollback, locks, and what a cut one leaves, in virtual time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from sysresp.errors import Exit, SysrespError
from sysresp.model import Mode
from sysresp.ports import Host
from sysresp.reconcile import generations
from sysresp.reconcile.converge import Prepared, Report, Wish, converge, prepare, take_down
from sysresp.reconcile.lock import Holder, locked
from sysresp.reconcile.manifest import load
from sysresp.units.desired import Policy
from tests.fakes import FakeClock, FakeFiles, FakeManager, fake_host
from tests.plan_scenes import MANIFEST, PROBER, Entry, desired_of

DB, WEB, NEW = "shop-db.service", "shop-web.service", "shop-new.service"
TWO = {"db": Entry(), "web": Entry()}
NEXT = {"db": Entry(), "web": Entry(version=2)}
WHO = Holder(4711, "ann", "apply")


class Once(dict[str, str]):
    """Results of jobs, each for one job only."""

    def get(self, unit: str, usual: str = "") -> str:  # type: ignore[override]
        return self.pop(unit, usual)


class Shop:
    """One host, and changes of one project on it."""

    def __init__(self) -> None:
        self.files = FakeFiles()
        self.clock = FakeClock()
        self.manager = FakeManager(self.files, clock=self.clock)
        self.host = fake_host(manager=self.manager)
        self.found: list[str] = []

    def wish(self, entries: Mapping[str, Entry], **changes: object) -> Wish:
        base = Wish(desired=desired_of(entries), holder=WHO, prober=lambda: PROBER)
        return replace(base, **changes)  # type: ignore[arg-type]

    def apply(
        self,
        entries: Mapping[str, Entry],
        check: Callable[[Prepared], None] = lambda _: None,
        **changes: object,
    ) -> Report:
        self.found.clear()
        wish = self.wish(entries, **changes)
        return converge(wish, self.host, check=check, on_found=self.found.append)

    def ends(self) -> list[tuple[int, str]]:
        found = generations.history(self.host.files, self.host.paths, "shop")
        return [(entry.number, entry.outcome) for entry in found]

    def at(self) -> int:
        manifest = load(self.host.files, MANIFEST)
        assert manifest is not None
        return manifest.generation

    def text(self, unit: str) -> str:
        return self.files.files[f"/etc/systemd/system/{unit}"].decode()

    def runs(self) -> dict[str, str]:
        return {
            name: unit.invocation
            for name, unit in self.manager.loaded.items()
            if name.endswith(".service") and unit.active == "active"
        }

    def crash_at(self, sec: float, unit: str = WEB) -> None:
        """Let the unit fail so long after now."""
        when = self.clock.monotonic() + sec
        self.clock.at(when, lambda: self.manager.set_state(unit, "failed", result="exit-code") and None)


@pytest.fixture
def shop() -> Shop:
    found = Shop()
    assert found.apply(TWO).end == generations.OK
    return found


def test_every_change_is_a_generation(shop: Shop) -> None:
    assert (shop.at(), shop.ends()) == (1, [(1, "ok")])
    assert shop.apply(NEXT).generation == 2
    assert (shop.at(), shop.ends()) == (2, [(1, "ok"), (2, "ok")])
    entry = generations.history(shop.host.files, shop.host.paths, "shop")[1]
    assert (entry.who, entry.command, entry.services) == ("ann", "apply", 2)
    record = generations.load(shop.host.files, shop.host.paths, "shop", 2)
    assert record.desired == desired_of(NEXT)
    assert shop.files.modes[generations.record_path(shop.host.paths, "shop", 2)] == 0o600
    assert shop.files.durable >= {
        generations.record_path(shop.host.paths, "shop", 2),
        generations.history_path(shop.host.paths, "shop"),
        MANIFEST,
    }


def test_nothing_to_do_is_none(shop: Shop) -> None:
    before = shop.files.changes()
    assert shop.apply(TWO).plan.is_noop
    assert shop.files.changes() == before
    assert shop.ends() == [(1, "ok")]


def test_starting_what_has_failed_is_none_and_has_nothing_to_go_back_to(shop: Shop) -> None:
    shop.manager.set_state(WEB, "failed")
    shop.manager.fail[WEB] = "failed"
    report = shop.apply(TWO)
    assert (report.end, report.generation, report.back) == ("failed", 1, None)
    assert shop.ends() == [(1, "ok")]
    del shop.manager.fail[WEB]
    assert shop.apply(TWO).end == "ok"
    assert shop.runs().keys() == {DB, WEB}


def test_what_does_not_start_is_rolled_back(shop: Shop) -> None:
    before = shop.runs()
    shop.manager.fail = Once({WEB: "failed"})
    report = shop.apply(NEXT)
    assert report.end == "rolled back"
    assert [found.unit for found in report.reasons] == [WEB]
    assert report.back is not None
    assert report.back.ok
    assert (shop.at(), shop.ends()) == (1, [(1, "ok"), (2, "rolled back")])
    assert shop.text(WEB) == desired_of(TWO).files[WEB].text
    after = shop.runs()
    assert after[DB] == before[DB]
    assert after[WEB] != before[WEB]
    assert shop.apply(TWO).plan.is_noop


def test_what_crashes_while_it_settles_is_rolled_back_at_once(shop: Shop) -> None:
    shop.crash_at(2.0)
    began = shop.clock.monotonic()
    report = shop.apply(NEXT, settle_sec=60.0)
    assert report.end == "rolled back"
    assert "2.0s into its settle time of 60s" in report.reasons[0].why
    # The rollback settles, too: 2 s until the crash, then 60.
    assert shop.clock.monotonic() - began < 63


def test_what_crashes_after_its_settle_time_stands(shop: Shop) -> None:
    shop.crash_at(4.0)
    assert shop.apply(NEXT).end == "ok"
    assert shop.at() == 2


def test_what_systemd_restarted_has_failed(shop: Shop) -> None:
    def restart() -> None:
        unit = shop.manager.loaded[WEB]
        unit.invocation = "f" * 32

    shop.clock.at(shop.clock.monotonic() + 1.1, restart)
    report = shop.apply(NEXT)
    assert report.end == "rolled back"
    assert "systemd started it again" in report.reasons[0].why


def test_each_service_has_its_own_settle_time(shop: Shop) -> None:
    desired = replace(desired_of(NEXT), policies={"web": Policy(settle_sec=10.0)})
    shop.crash_at(8.0)
    report = converge(shop.wish(NEXT, desired=desired), shop.host, check=lambda _: None)
    assert report.end == "rolled back"
    assert "of 10s" in report.reasons[0].why


def test_left_as_it_is_if_asked(shop: Shop) -> None:
    shop.crash_at(1.0)
    report = shop.apply(NEXT, rollback=False)
    assert (report.end, report.stays) == ("failed", "--no-rollback")
    assert (shop.at(), shop.ends()) == (2, [(1, "ok"), (2, "failed")])


def test_the_first_one_has_nothing_to_go_back_to() -> None:
    shop = Shop()
    shop.manager.fail[WEB] = "failed"
    report = shop.apply(TWO)
    assert (report.end, report.stays) == ("failed", "there is no earlier generation to go back to")
    assert shop.runs().keys() == {DB}


def test_what_had_failed_before_is_no_reason() -> None:
    shop = Shop()
    shop.manager.fail[WEB] = "failed"
    shop.apply(TWO)
    report = shop.apply({**NEXT, "new": Entry()})
    assert (report.end, report.back) == ("failed", None)
    assert [(found.unit, why) for found, why in report.tolerated] == [(WEB, "it had failed before, too")]
    assert shop.runs().keys() == {DB, NEW}


def test_what_was_stopped_stays_stopped_and_what_left_comes_back(shop: Shop) -> None:
    shop.apply({**TWO, "off": Entry(), "gone": Entry()})
    shop.manager.set_state("shop-off.service", "inactive")
    shop.manager.set_state(DB, "inactive")
    shop.crash_at(1.0)
    assert shop.apply(NEXT).end == "rolled back"
    assert shop.runs().keys() == {WEB, "shop-gone.service"}


def test_an_untouched_one_is_not_restarted_by_the_way_back(shop: Shop) -> None:
    """A rollout that is cut by a failure leaves instances that still run the old text."""
    shop.apply({"web": Entry(instances=4)})
    before = shop.runs()
    shop.manager.fail = Once({"shop-web@1.service": "failed"})
    assert shop.apply({"web": Entry(instances=4, version=2)}).end == "rolled back"
    after = shop.runs()
    assert {name for name in after if after[name] != before[name]} == {"shop-web@1.service"}


def test_a_rollback_that_cannot_be_done_is_said(shop: Shop) -> None:
    shop.crash_at(1.0)
    where = generations.record_path(shop.host.paths, "shop", 1)
    shop.files.files[where] = b"damaged"
    report = shop.apply(NEXT)
    assert report.end == "failed"
    assert "cannot use this file" in report.stays
    assert (shop.at(), shop.ends()) == (2, [(1, "ok"), (2, "failed")])


def test_an_error_before_the_first_job_leaves_no_trace(shop: Shop) -> None:
    before = (dict(shop.files.files), dict(shop.files.links))
    shop.manager.raises["reload"] = SysrespError("no room", exit=Exit.FAILED)
    with pytest.raises(SysrespError, match="no room"):
        shop.apply(NEXT)
    assert (shop.files.files, shop.files.links) == before
    del shop.manager.raises["reload"]
    assert shop.apply(NEXT).generation == 2


def test_the_keep_policy(shop: Shop) -> None:
    for version in range(2, 7):
        desired = replace(desired_of({"db": Entry(version=version)}), keep_generations=2)
        converge(shop.wish(TWO, desired=desired), shop.host, check=lambda _: None)
    assert [number for number, _ in shop.ends()] == [5, 6]
    kept = shop.files.entries(generations.directory(shop.host.paths, "shop"))
    assert kept == ["5.json", "6.json", "history.json"]


def test_a_check_that_refuses_changes_nothing(shop: Shop) -> None:
    before = dict(shop.files.files)

    def refuse(_: Prepared) -> None:
        raise SysrespError("stale", exit=Exit.REFUSED)

    with pytest.raises(SysrespError, match="stale"):
        shop.apply(NEXT, check=refuse)
    assert shop.files.files == {**before, "/run/sysresp/shop.lock": b""}


class TestLock:
    def other(self, shop: Shop) -> Host:
        """Return the host as another process sees it."""
        return shop.host._replace(files=shop.files.process())

    def test_the_second_is_told_who_has_it(self, shop: Shop) -> None:
        with (
            locked(self.other(shop), "shop", Holder(99, "bob", "apply")),
            pytest.raises(SysrespError, match=r"apply by bob \(pid 99\), since 20") as caught,
        ):
            shop.apply(NEXT)
        assert caught.value.exit is Exit.LOCKED
        assert "--wait" in caught.value.hint

    def test_it_waits_if_asked(self, shop: Shop) -> None:
        other = self.other(shop)
        assert other.files.lock("/run/sysresp/shop.lock", b"{}") is None
        shop.clock.at(shop.clock.monotonic() + 5, lambda: other.files.unlock("/run/sysresp/shop.lock"))
        assert shop.apply(NEXT, wait_sec=60.0).end == "ok"
        assert shop.found == ['another sysresp is changing the project "shop"']

    def test_it_waits_no_longer(self, shop: Shop) -> None:
        began = shop.clock.monotonic()
        with (
            locked(self.other(shop), "shop", Holder(99, "bob", "apply")),
            pytest.raises(SysrespError, match="by bob"),
        ):
            shop.apply(NEXT, wait_sec=3.0)
        assert 3 <= shop.clock.monotonic() - began < 4

    def test_another_project_has_its_own(self, shop: Shop) -> None:
        with locked(self.other(shop), "forum", Holder(99, "bob", "apply")):
            assert shop.apply(NEXT).end == "ok"


class TestCut:
    """What an apply that did not end leaves to the next."""

    def cut(self, shop: Shop, entries: Mapping[str, Entry] = NEXT) -> None:
        shop.manager.raises["wait"] = KeyboardInterrupt()
        assert shop.apply(entries).end == "interrupted"
        del shop.manager.raises["wait"]

    def test_the_same_goes_on(self, shop: Shop) -> None:
        self.cut(shop)
        assert shop.ends() == [(1, "ok"), (2, "interrupted")]
        report = shop.apply(NEXT)
        assert (report.generation, report.end) == (2, "ok")
        assert "generation 2 by ann" in shop.found[0]
        assert "was interrupted; going on from there" in shop.found[0]
        assert shop.ends() == [(1, "ok"), (2, "ok")]

    def test_another_one_is_a_new_generation(self, shop: Shop) -> None:
        self.cut(shop)
        report = shop.apply({**NEXT, "new": Entry()})
        assert (report.generation, report.end) == (3, "ok")
        assert shop.ends() == [(1, "ok"), (2, "cut"), (3, "ok")]

    def test_what_is_gone_back_to_is_the_last_that_stood(self, shop: Shop) -> None:
        self.cut(shop)
        shop.crash_at(1.0)
        report = shop.apply({"db": Entry(), "web": Entry(version=3)})
        assert (report.end, report.previous) == ("rolled back", 1)
        assert shop.text(WEB) == desired_of(TWO).files[WEB].text
        assert shop.runs().keys() == {DB, WEB}

    def test_nothing_left_to_do_is_its_good_end(self, shop: Shop) -> None:
        shop.manager.raises["units_by_name"] = AssertionError("not needed")
        entry = generations.history(shop.host.files, shop.host.paths, "shop")[0]
        where = generations.history_path(shop.host.paths, "shop")
        shop.files.files[where] = generations.dumps_history([entry._replace(outcome="applying")])
        assert shop.apply(TWO).plan.is_noop
        assert shop.ends() == [(1, "ok")]
        assert "was cut; going on from there" in shop.found[0]

    def test_cut_before_anything(self, shop: Shop) -> None:
        entries = generations.history(shop.host.files, shop.host.paths, "shop")
        cut = entries[0]._replace(number=2, outcome="applying")
        where = generations.history_path(shop.host.paths, "shop")
        shop.files.files[where] = generations.dumps_history([*entries, cut])
        report = shop.apply(NEXT)
        assert (report.generation, report.end) == (3, "ok")
        assert "was cut before it changed anything" in shop.found[0]
        assert shop.ends() == [(1, "ok"), (2, "cut"), (3, "ok")]


class TestDown:
    def test_it_is_in_the_history_and_can_be_taken_back(self, shop: Shop) -> None:
        assert take_down("shop", (), shop.host, holder=WHO).outcome.ok
        assert shop.ends() == [(1, "ok"), (2, "down")]
        assert shop.runs() == {}
        report = shop.apply(NEXT)
        assert (report.generation, report.previous) == (3, 0)

    def test_one_service_of_it_is_no_generation(self, shop: Shop) -> None:
        assert take_down("shop", ("web",), shop.host, holder=WHO).outcome.ok
        assert shop.ends() == [(1, "ok")]
        assert shop.apply(TWO).end == "ok"
        assert shop.runs().keys() == {DB, WEB}

    def test_what_is_not_there(self) -> None:
        with pytest.raises(SysrespError, match="is not applied here") as caught:
            take_down("shop", (), Shop().host, holder=WHO)
        assert caught.value.exit is Exit.UNKNOWN


def test_prepare_changes_nothing(shop: Shop) -> None:
    before = (dict(shop.files.files), len(shop.manager.changes()))
    made = prepare(shop.wish(NEXT), shop.host)
    assert not made.plan.is_noop
    assert (shop.files.files, len(shop.manager.changes())) == before


def test_transient_units_are_rolled_back(shop: Shop) -> None:
    del shop
    other = Shop()
    paths = other.host.paths._replace(unit_dir="/run/systemd/transient", state_dir="/run/sysresp")
    other.host = other.host._replace(paths=paths)
    assert other.apply(TWO, mode=Mode.TRANSIENT).end == "ok"
    before = other.runs()
    other.crash_at(1.0)
    assert other.apply(NEXT, mode=Mode.TRANSIENT).end == "rolled back"
    after = other.runs()
    assert after[DB] == before[DB]
    assert after[WEB] != before[WEB]
