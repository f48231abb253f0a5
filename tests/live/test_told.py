"""What the controller is told of a unit is what systemd has loaded, and to change it restarts nothing."""

from __future__ import annotations

import json

import pytest

from sysresp.reconcile.manifest import loads as load_manifest
from sysresp.spec.quantities import span
from sysresp.units.supervision import DEFAULT, Supervision, loads, rest
from tests.live.conftest import Box
from tests.live.installed import write_file

pytestmark = pytest.mark.live

TEXT = """
[defaults]
command = ["/bin/sleep", "infinity"]
[services.usual]
[services.grows]
restart = { delay = "200ms", max_delay = "1min", steps = 8, attempts = 10, within = "10min" }
[services.many]
instances = 3
restart = { delay = "2s", max_delay = "1min", jitter = "10s" }
[services.jitter]
restart = { when = "always", jitter = "10s", success_exit = [3, "USR1"], prevent_exit = 4, force_exit = 5 }
[services.once]
restart = { when = "no", force_exit = 75 }
[services.raw]
restart = { when = "no", max_delay = "1min" }
systemd.Service = { Restart = "on-abnormal", RestartSec = "7s", RestartPreventExitStatus = "5 SIGKILL" }
systemd.Unit = { StartLimitBurst = 4, StartLimitIntervalSec = "1min" }
"""
LISTS = {"success_exit": "SuccessExitStatus", "prevent_exit": "RestartPreventExitStatus"}
LISTS |= {"force_exit": "RestartForceExitStatus"}


def told(box: Box) -> dict[str, Supervision]:
    where = f"/var/lib/sysresp/{box.project}.json"
    manifest = load_manifest(box.read(where).encode(), where)
    assert manifest.supervision is not None
    names = [unit.name for unit in manifest.units if unit.main and unit.name.endswith(".service")]
    return {name: loads({**manifest.supervision.get(name, {})}) for name in names}


def seconds(text: str) -> float:
    found = span(text)
    assert found is not None, text
    return found


def test_it_is_what_systemd_has_loaded(box: Box) -> None:
    file = write_file(box, TEXT)
    box.sysresp("apply", file, check=True)
    found = told(box)
    assert len(found) == 8
    for unit, one in found.items():
        assert box.show(unit, "Restart") == one.when, unit
        if one.when != "no" or one.force_exit:
            assert seconds(box.show(unit, "RestartUSec")) == pytest.approx(rest(one, 1), abs=1e-6), unit
        limit = seconds(box.show(unit, "StartLimitIntervalUSec"))
        attempts = int(box.show(unit, "StartLimitBurst")) if limit else 0
        assert (attempts, limit) == (one.attempts, one.within_sec if one.attempts else 0), unit
        for field, name in LISTS.items():
            names = [word.removeprefix("SIG") for word in getattr(one, field)]
            assert sorted(box.show(unit, name).split()) == sorted(names), (unit, name)
        if box.version >= 254:
            longest = box.show(unit, "RestartMaxDelayUSec")
            assert (seconds(longest) if longest != "infinity" else 0) == one.max_delay_sec, unit
            assert one.is_native
    assert found[f"{box.project}-usual.service"] == DEFAULT
    assert found[f"{box.project}-raw.service"].delay_sec == 7


def test_to_change_it_restarts_nothing(box: Box) -> None:
    file = write_file(box, TEXT)
    box.sysresp("apply", file, check=True)
    units = list(told(box))
    runs = {unit: box.show(unit, "InvocationID") for unit in units}
    more = 'health = { tcp = 80, action = "none" }\n[controller]\nmax_age = "1d"\n[services.grows]'
    write_file(box, TEXT.replace("[services.grows]", more))
    plan = json.loads(box.sysresp("plan", "--json", file, check=True).stdout)
    assert [(c["unit"], c["verbs"], c["reason"]) for c in plan["changes"]] == [
        (f"{box.project}-usual.service", ["change"], "the controller is told otherwise: health"),
        (f"{box.project}.target", ["change"], "the controller is told otherwise: controller.max_age"),
    ]
    box.sysresp("apply", file, check=True)
    assert {unit: box.show(unit, "InvocationID") for unit in units} == runs
    assert not json.loads(box.sysresp("plan", "--json", file, check=True).stdout)["changed"]
    usual = f"{box.project}-usual.service"
    assert told(box)[usual].probe is not None
    box.sysresp("rollback", check=True)
    assert told(box)[usual] == DEFAULT
    assert {unit: box.show(unit, "InvocationID") for unit in units} == runs
