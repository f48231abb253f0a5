"""How each unit is kept alive: from the keys of a service, or read back from its text."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sysresp.model import Command, Controller, Health, Kind, ReadyBy, Restart, Schedule, Service, Spec
from sysresp.spec.quantities import span as seconds
from sysresp.units import supervision
from sysresp.units.render import render
from sysresp.units.sheet import span
from sysresp.units.supervise import least_sec, of_text
from sysresp.units.supervision import DEFAULT, Probe, Settings, Supervision, delay, needs_controller, rest
from tests.rendered import only, service, spec
from tests.strategies import specs

WEB = "shop-web.service"


def told(version: int = 252, **keys: object) -> dict[str, Supervision]:
    return dict(render(spec(service(**keys)), version=version).desired.supervision)


def one(version: int = 252, **keys: object) -> Supervision:
    return told(version, **keys).get(WEB, DEFAULT)


def raw(**directives: str) -> dict[str, dict[str, tuple[str, ...]]]:
    return {"Service": {name: (value,) for name, value in directives.items()}}


class TestKeys:
    def test_the_usual_is_not_stored(self) -> None:
        assert told() == {}
        assert told(restart=Restart(per_sec=5, within_sec=5, steps=7)) == {}, "what has no effect"

    def test_what_systemd_does_by_itself(self) -> None:
        restart = Restart("always", 2, None, None, 5, 60, ("3",), ("4",), ("5",))
        assert one(restart=restart) == Supervision(
            "always",
            2,
            attempts=5,
            within_sec=60,
            success_exit=("3",),
            prevent_exit=("4",),
            force_exit=("5",),
        )

    def test_what_the_controller_does(self) -> None:
        restart = Restart(failures=9, per_sec=60, cooldown_sec=900, cooldowns=3, reset_after_sec=120)
        assert one(restart=restart) == Supervision(
            failures=9, per_sec=60, cooldown_sec=900, cooldowns=3, reset_after_sec=120
        )

    @pytest.mark.parametrize(("version", "is_native"), [(253, False), (254, True)])
    def test_growth(self, version: int, is_native: bool) -> None:
        found = one(version, restart=Restart(delay_sec=2, max_delay_sec=60, steps=3))
        assert found.is_native is is_native
        assert (found.delay_sec, found.max_delay_sec, found.steps) == (2, 60, 3)
        assert found.rest_sec == (0 if is_native else 60)
        assert [rest(found, n) for n in (1, 4)] == ([2, 60] if is_native else [60, 60])

    def test_a_delay_that_cannot_grow_does_not(self) -> None:
        assert one(restart=Restart(delay_sec=5, max_delay_sec=5)) == Supervision(delay_sec=5)

    @pytest.mark.parametrize("version", [252, 257])
    def test_each_instance_has_its_own_share_of_the_jitter(self, version: int) -> None:
        restart = Restart(delay_sec=2, max_delay_sec=60, jitter_sec=10)
        found = told(version, restart=restart, instances=("1", "2"))
        for name, supervised in found.items():
            assert supervised.delay_sec == 2 + round(10 * crc32(name.encode()) / 2**32, 3)
            assert supervised.rest_sec == (60 if version == 252 else 12)
            for n in range(1, 9):
                assert delay(supervised, n) <= rest(supervised, n)
        assert len({supervised.delay_sec for supervised in found.values()}) == 2

    def test_nothing_starts_it_again(self) -> None:
        restart = Restart("no", 5, 60, 3, 7, 60, success_exit=("3",), cooldown_sec=5, reset_after_sec=9)
        assert one(restart=restart) == Supervision("no", attempts=7, within_sec=60, success_exit=("3",))

    def test_but_for_some_exits(self) -> None:
        """There is no RestartSec= then, and systemd's own is 100 ms."""
        assert one(restart=Restart("no", 5, 60, force_exit=("75",))) == Supervision(
            "no", 0.1, force_exit=("75",)
        )

    def test_a_probe_of_each_instance(self) -> None:
        health = Health(ReadyBy.HTTP, "http://x:80{instance}/", None, 1, 2, 3, 4, 5, "none", 6, 7)
        found = told(health=health, instances=("1", "2"))
        assert found["shop-web@2.service"].probe == Probe(
            "http", "http://x:802/", (), 1, 2, 3, 4, 5, "none", 6, 7
        )

    def test_a_probe_by_a_command(self) -> None:
        health = Health(ReadyBy.EXEC, command=Command(("/bin/x", "{instance}", "\udce9")))
        assert one(health=health).probe == Probe("exec", "", ("/bin/x", "{instance}", "\udce9"))

    def test_only_of_what_a_person_means_by_the_name(self) -> None:
        found = told(kind=Kind.ONESHOT, restart=Restart("no"), schedule=Schedule(("daily",)))
        assert found == {WEB: Supervision("no")}


class TestReadBack:
    def test_raw_directives(self) -> None:
        directives = raw(
            Restart="always", RestartSec="7", RestartPreventExitStatus="3 SIGKILL", SuccessExitStatus=""
        )
        directives["Unit"] = {"StartLimitBurst": ("4",), "StartLimitIntervalSec": ("1min",)}
        restart = Restart("no", 1, 60, success_exit=("5",), cooldown_sec=900, attempts=9)
        assert one(restart=restart, systemd=directives) == Supervision(
            "always", 7, attempts=4, within_sec=60, prevent_exit=("3", "SIGKILL"), cooldown_sec=900
        )

    def test_native_growth(self) -> None:
        directives = raw(RestartSteps="4", RestartMaxDelaySec="1h")
        assert one(257, systemd=directives) == Supervision(max_delay_sec=3600, steps=4)
        assert one(257, systemd=raw(RestartSteps="4")) == DEFAULT, "it needs both"

    def test_a_raw_directive_that_changes_nothing(self) -> None:
        restart = Restart(delay_sec=2, max_delay_sec=60, jitter_sec=10)
        keys = {"restart": restart, "instances": ("1", "2")}
        assert told(252, **keys, systemd=raw(Restart="on-failure")) == told(252, **keys)
        assert told(257, **keys, systemd=raw(Restart="on-failure")) == told(257, **keys)

    def test_what_cannot_be_read(self) -> None:
        text = (
            "[Service]\nRestart=often\nRestartSec=soon\n[Unit]\nStartLimitBurst=x\nStartLimitIntervalSec=x\n"
        )
        assert of_text(text) == DEFAULT
        assert of_text("[Service]\nRestartSec=infinity\n").delay_sec == 1e10, "JSON knows no infinity"

    def test_the_defaults_are_systemds(self) -> None:
        assert of_text("[Service]\n") == Supervision("no", 0.1, attempts=5, within_sec=10)

    @settings(max_examples=50, deadline=None)
    @given(specs(), st.sampled_from((252, 257)))
    def test_the_texts_say_the_same(self, what: Spec, version: int) -> None:
        made = render(what, version=version).desired
        for name, unit in made.units.items():
            if not name.endswith(".service") or not unit.main:
                continue
            known, read = made.supervision.get(name, DEFAULT), of_text(made.files[unit.file].text)
            same = ("when", "attempts", "success_exit", "force_exit")
            assert [getattr(known, key) for key in same] == [getattr(read, key) for key in same]
            written = only(made, unit.file, "RestartSec")
            if written is not None:
                assert rest(known, 1) == pytest.approx(seconds(written), abs=1e-6)
                assert delay(known, 1) <= rest(known, 1) + 1e-6


class TestStored:
    @settings(max_examples=50, deadline=None)
    @given(specs(), st.sampled_from((252, 257)))
    def test_what_is_written_is_read(self, what: Spec, version: int) -> None:
        made = render(what, version=version).desired
        for unit, supervised in made.supervision.items():
            assert unit in made.units
            assert made.units[unit].main
            assert supervision.loads(supervision.dumps(supervised)) == supervised
            assert supervised != DEFAULT
        assert list(made.supervision) == [name for name in made.units if name in made.supervision]
        assert supervision.loads_settings(supervision.dumps_settings(made.settings)) == made.settings

    @pytest.mark.parametrize(
        "fields", [{"when": 5}, {"attempts": "x"}, {"probe": 3}, [], {"delay_sec": "1"}]
    )
    def test_what_is_no_supervision(self, fields: object) -> None:
        with pytest.raises((TypeError, ValueError)):
            supervision.loads(fields)  # type: ignore[arg-type]

    def test_fields_of_a_later_version_are_left_aside(self) -> None:
        fields = {"when": "always", "delay_sec": 2, "success_exit": [3], "later": 1, "probe": {"later": 1}}
        assert supervision.loads(fields) == Supervision("always", 2.0, success_exit=("3",), probe=Probe())

    def test_the_usual_is_the_usual_in_both(self) -> None:
        """The controller does not import the model."""
        usual = Service(name="x", origin=spec().origin)
        assert usual.restart == Restart(when=DEFAULT.when, delay_sec=DEFAULT.delay_sec)
        health, probe = Health(ReadyBy.TCP), Probe()
        for name in ("interval_sec", "timeout_sec", "failures", "successes", "grace_sec", "action"):
            assert getattr(health, name) == getattr(probe, name)
        assert (health.restarts, health.within_sec) == (probe.restarts, probe.within_sec)
        assert render(spec(service()), version=252).desired.settings == Settings()

    def test_settings(self) -> None:
        controller = Controller(9.0, 60.0, 1, 2.0, 3)
        made = render(replace(spec(service()), controller=controller), version=252).desired
        assert made.settings == Settings(9.0, 60.0, 1, 2.0, 3)


class TestNeeds:
    @pytest.mark.parametrize(
        ("version", "restart", "keys"),
        [
            (252, Restart(max_delay_sec=60), ("restart.max_delay",)),
            (257, Restart(max_delay_sec=60), ()),
            (252, Restart(jitter_sec=5), ()),
            (252, Restart(attempts=5, cooldown_sec=60), ("restart.then",)),
            (252, Restart(failures=5), ("restart.failures",)),
            (252, Restart(attempts=5, reset_after_sec=60), ("restart.reset_after",)),
        ],
    )
    def test_keys(self, version: int, restart: Restart, keys: tuple[str, ...]) -> None:
        assert needs_controller(one(version, restart=restart)) == keys

    def test_instances_and_probes(self) -> None:
        restart = Restart(jitter_sec=5)
        for supervised in told(restart=restart, instances=("1", "2")).values():
            assert needs_controller(supervised) == ("restart.jitter",)
        assert needs_controller(one(health=Health(ReadyBy.TCP, "x:1"))) == ("health",)


class TestCurve:
    def test_it_is_systemds(self) -> None:
        curve = Supervision(delay_sec=0.2, max_delay_sec=60, steps=8)
        found = [delay(curve, n) for n in range(1, 11)]
        assert found[0] == 0.2
        assert found[8:] == [60, 60]
        ratios = [after / before for before, after in pairwise(found[:9])]
        assert ratios == pytest.approx([300 ** (1 / 8)] * 8)

    @given(st.just(0.0) | st.floats(1e-6, 100), st.floats(0, 1000), st.integers(1, 50), st.integers(0, 60))
    def test_it_never_shrinks_and_keeps_its_bounds(
        self, base: float, longest: float, steps: int, n: int
    ) -> None:
        curve = Supervision(delay_sec=base, max_delay_sec=longest, steps=steps)
        assert delay(curve, n) <= delay(curve, n + 1) * (1 + 1e-9)
        assert base * (1 - 1e-9) <= delay(curve, n) <= max(base, longest) * (1 + 1e-9)

    @given(st.integers(1, 40), st.integers(1, 20), st.floats(0.1, 10), st.floats(0.1, 100))
    def test_the_time_of_all_attempts(self, attempts: int, steps: int, base: float, longest: float) -> None:
        restart = Restart(delay_sec=base, max_delay_sec=longest, steps=steps, attempts=attempts)
        curve = Supervision(delay_sec=base, max_delay_sec=longest, steps=steps)
        whole = sum(delay(curve, n) for n in range(1, attempts + 1))
        assert least_sec(restart) == pytest.approx(whole)

    @pytest.mark.parametrize("sec", [0.2, 1, 90, 3600])
    def test_the_unit_says_it(self, sec: float) -> None:
        made = render(spec(service(restart=Restart(delay_sec=sec))), version=252).desired
        assert only(made, WEB, "RestartSec") == span(sec)
