"""What only the manifest says is a change like any other: shown, applied once, gone back from."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sysresp.model import Mode, Scope, Spec
from sysresp.reconcile import generations
from sysresp.reconcile.converge import prepare, take_down
from sysresp.reconcile.final import is_told, manifest_of
from sysresp.reconcile.manifest import Manifest, dumps, load, loads
from sysresp.reconcile.steps import Verb, WriteManifest
from sysresp.units.desired import Desired
from sysresp.units.render import render
from sysresp.units.supervision import Probe, Settings, Supervision
from tests.plan_scenes import MANIFEST, Entry, desired_of, plan_for
from tests.strategies import specs
from tests.test_converge import WHO, Once, Shop

WEB = "shop-web.service"
TWO = {"db": Entry(), "web": Entry()}
COOL = Supervision(cooldown_sec=900.0, probe=Probe(target="127.0.0.1:80"), success_exit=("3",))


def supervised(one: Supervision | None = COOL, unit: str = WEB, **told_of_itself: float) -> Desired:
    told = {unit: one} if one is not None else {}
    return replace(desired_of(TWO), supervision=told, settings=Settings(**told_of_itself))  # type: ignore[arg-type]


def manifest(shop: Shop) -> Manifest:
    found = load(shop.host.files, MANIFEST)
    assert found is not None
    return found


@pytest.fixture
def shop() -> Shop:
    made = Shop()
    made.apply(TWO)
    return made


class TestChange:
    def test_it_is_in_the_manifest(self, shop: Shop) -> None:
        shop.apply(TWO, desired=supervised(max_age_sec=60.0))
        assert manifest(shop).supervision == {
            WEB: {
                "cooldown_sec": 900.0,
                "probe": {"target": "127.0.0.1:80"},
                "success_exit": ["3"],
            }
        }
        assert manifest(shop).controller == {"max_age_sec": 60.0}

    def test_the_plan_shows_it_with_its_line_and_restarts_nothing(self, shop: Shop) -> None:
        runs = shop.runs()
        made = plan_for(shop.host, supervised())
        (change,) = made.changes
        assert (change.unit, change.verbs, change.origin.line) == (WEB, (Verb.CHANGE,), 4)
        assert change.reason == (
            "the controller is told otherwise: restart.success_exit, restart.then, health"
        )
        assert [type(step) for step in made.steps] == [WriteManifest]
        done = shop.apply(TWO, desired=supervised())
        assert done.outcome.ok
        assert shop.runs() == runs

    def test_the_second_apply_does_nothing(self, shop: Shop) -> None:
        shop.apply(TWO, desired=supervised())
        assert shop.at() == 2
        done = shop.apply(TWO, desired=supervised())
        assert done.plan.is_noop
        assert not done.plan.steps
        assert shop.at() == 2

    def test_it_is_gone_back_from(self, shop: Shop) -> None:
        shop.apply(TWO, desired=supervised(keep_sec=7.0))
        shop.apply(TWO)
        assert manifest(shop).supervision == {}
        old = generations.load(shop.host.files, shop.host.paths, "shop", 2)
        assert old.desired.supervision == {WEB: COOL}
        shop.apply(TWO, desired=old.desired)
        assert manifest(shop).supervision is not None
        assert WEB in (manifest(shop).supervision or {})
        assert manifest(shop).controller == {"keep_sec": 7.0}

    def test_a_failed_change_takes_it_back_too(self, shop: Shop) -> None:
        shop.apply(TWO, desired=supervised())
        shop.manager.fail = Once({WEB: "failed"})
        worse = replace(supervised(None), files=desired_of(TWO | {"web": Entry(version=2)}).files)
        done = shop.apply(TWO, desired=worse)
        assert done.back is not None
        assert (manifest(shop).supervision or {}).keys() == {WEB}

    def test_settings_are_told_at_the_target(self, shop: Shop) -> None:
        (change,) = plan_for(shop.host, supervised(None, keep_bytes=1 << 30, max_age_sec=5.0)).changes
        assert change.unit == "shop.target"
        assert change.reason == (
            "the controller is told otherwise: controller.max_age, controller.keep_size"
        )

    def test_a_change_of_the_unit_too_is_one_change(self, shop: Shop) -> None:
        both = replace(supervised(), files=desired_of(TWO | {"web": Entry(version=2)}).files)
        (change,) = plan_for(shop.host, both).changes
        assert change.verbs == (Verb.CHANGE, Verb.RESTART)
        assert "restart.then" in change.reason

    def test_instances_are_told_once(self) -> None:
        shop = Shop()
        many = {"web": Entry(instances=3)}
        shop.apply(many)
        told = {f"shop-web@{n}.service": Supervision(delay_sec=n) for n in (2, 3, 4)}
        (change,) = plan_for(shop.host, replace(desired_of(many), supervision=told)).changes
        assert (change.unit, change.reason) == (
            "shop-web@.service",
            "the controller is told otherwise: restart.delay",
        )

    def test_what_is_new_is_no_change_of_it(self) -> None:
        shop = Shop()
        assert all(change.reason == "" for change in plan_for(shop.host, supervised()).changes)

    def test_what_leaves_is_forgotten(self, shop: Shop) -> None:
        shop.apply(TWO, desired=supervised())
        take_down("shop", ["web"], shop.host, holder=WHO)
        assert manifest(shop).supervision == {}


class TestTransient:
    def test_they_are_told_as_well(self) -> None:
        shop = Shop()
        off = TWO | {"off": Entry(enabled=False)}
        usual = replace(desired_of(off), supervision={WEB: COOL, "shop-off.service": COOL})
        wish = {"desired": usual, "mode": Mode.TRANSIENT}
        shop.apply(off, **wish)
        assert (manifest(shop).supervision or {}).keys() == {WEB}
        assert shop.apply(off, **wish).plan.is_noop
        done = shop.apply(off, **{**wish, "desired": replace(usual, supervision={})})
        (change,) = done.plan.changes
        assert change.reason.endswith("restart.success_exit, restart.then, health")
        assert shop.at() == 2


class TestOlder:
    """What an older version wrote says nothing of it, which is no change."""

    def forget(self, shop: Shop) -> None:
        raw = json.loads(shop.files.files[MANIFEST])
        del raw["supervision"], raw["controller"]
        shop.files.files[MANIFEST] = json.dumps(raw).encode()

    def test_manifest(self, shop: Shop) -> None:
        self.forget(shop)
        assert manifest(shop).supervision is None
        done = shop.apply(TWO, desired=supervised())
        assert done.plan.is_noop
        assert shop.at() == 1
        assert (manifest(shop).supervision or {}).keys() == {WEB}

    def test_a_part_of_it_taken_down(self, shop: Shop) -> None:
        self.forget(shop)
        take_down("shop", ["web"], shop.host, holder=WHO)
        assert manifest(shop).supervision is None

    def test_record(self, shop: Shop) -> None:
        where = generations.record_path(shop.host.paths, "shop", 1)
        raw = json.loads(shop.files.files[where])
        del raw["supervision"], raw["controller"]
        texts = {name: text for name, text, *_ in raw["files"]}
        text = texts[WEB].replace("[Service]\n", "[Service]\nRestart=always\nRestartSec=1s\n")
        raw["files"] = [[name, text if name == WEB else t, *rest] for name, t, *rest in raw["files"]]
        found = generations.loads(raw).desired.supervision
        assert found[WEB] == Supervision("always", attempts=5, within_sec=10.0)

    def test_odd_tables_are_as_good_as_none(self, shop: Shop) -> None:
        raw = json.loads(shop.files.files[MANIFEST])
        raw["supervision"] = {WEB: {"when": 5}}
        raw["controller"] = {"keep_sec": "x"}
        shop.files.files[MANIFEST] = json.dumps(raw).encode()
        changed = prepare(shop.wish(TWO, desired=supervised()), shop.host).plan.changes
        assert [change.unit for change in changed] == [WEB]
        shop.apply(TWO)
        assert manifest(shop).supervision == {}


@settings(max_examples=40, deadline=None)
@given(specs(), st.sampled_from((252, 257)))
def test_it_is_read_back(what: Spec, version: int) -> None:
    """From the manifest and from the record of a generation, whatever the file says."""
    desired = render(what, version=version).desired
    made = manifest_of(desired, Scope.SYSTEM, Mode.PERSISTENT, ())
    assert loads(dumps(made), "x") == made
    record = generations.Generation(number=1, desired=desired)
    read = generations.loads(json.loads(generations.dumps(record)))
    assert read.desired.supervision == desired.supervision
    assert read.desired.settings == desired.settings
    assert is_told(made, read.desired)
    assert is_told(loads(dumps(made), "x"), desired)
