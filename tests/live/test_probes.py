"""Health probes on a real systemd: a service that runs and does not work is found out and restarted once.

The service is well until the test puts a file down, and a new run is well again (bin/ailing). The controller
must notice within interval x failures + timeout + 1 s, kill that run, so that Restart= acts, and write the
probe's words into the ledger. The failing side: the same service without the controller goes on, ill.
"""

from __future__ import annotations

import time

import pytest

from tests.live.conftest import Box
from tests.live.installed import install_program
from tests.live.storms import UNIT, enable, is_up, query
from tests.live.until import until

pytestmark = pytest.mark.live

INTERVAL, TIMEOUT, FAILURES, SLACK = 1.0, 1.0, 2, 1.0
NUMBERS = f'interval = "{INTERVAL:g}s", timeout = "{TIMEOUT:g}s", failures = {FAILURES}'
ILLS = {
    "hung": ('http = "http://127.0.0.1:@PORT@/"', "no answer within 1s"),
    "500": ('http = "http://127.0.0.1:@PORT@/"', "status 500"),
    "refused": ('tcp = "127.0.0.1:@PORT@"', "connection refused"),
    "exec": (
        'exec = ["/bin/sh", "-c", "test ! -e @FLAG@ || { echo waiting for $UNIT; exec sleep 1000; }"]',
        "timed out after 1s: waiting for @UNIT@",
    ),
}
LESS_THAN_NO_TIME_SEC = (
    0.05  # the clocks of the test, of systemd and of the journal are read one after another
)


class Ailing:
    """The four services, one for each ill."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.program = install_program(box, "ailing")

    def unit(self, ill: str) -> str:
        return f"{self.box.project}-{ill}.service"

    def fill(self, text: str, ill: str) -> str:
        port = 4900 + list(ILLS).index(ill)
        text = text.replace("@PORT@", str(port)).replace("@UNIT@", self.unit(ill))
        return text.replace("@FLAG@", self.flag(ill))

    def flag(self, ill: str) -> str:
        return f"/run/{self.box.project}-{ill}.ill"

    def apply(self) -> None:
        """Start all of them, well."""
        text = f'project = "{self.box.project}"\n'
        for ill, (probe, _why) in ILLS.items():
            text += self.fill(
                f"[services.{ill}]\n"
                f'command = ["{self.program}", "@PORT@", "{ill}", "@FLAG@"]\n'
                'restart = { when = "on-failure", delay = "200ms" }\n'
                f"health = {{ {probe}, {NUMBERS} }}\n",
                ill,
            )
        path = self.box.write(f"/etc/sysresp/{self.box.project}.toml", text)
        self.box.sysresp("apply", path, check=True)

    def fall_ill(self) -> float:
        """Let all be ill from now on, and say when that is."""
        now = time.time()
        for ill in ILLS:
            self.box.write(self.flag(ill), "")
        return now

    def exits(self, ill: str) -> list[list[object]]:
        """Return the rows of the ledger."""
        statement = "SELECT invocation, at, result, fate, because FROM exit WHERE unit = ?"
        return query(self.box, statement, self.unit(ill))

    def runs(self) -> dict[str, tuple[str, str]]:
        """Return the invocation and the restarts by systemd of each."""
        show = self.box.show
        return {
            ill: (show(self.unit(ill), "InvocationID"), show(self.unit(ill), "NRestarts")) for ill in ILLS
        }


def test_what_does_not_work_is_found_out_in_time_and_restarted_once(box: Box) -> None:
    enable(box)
    until(lambda: is_up(box), "the controller is ready")
    ailing = Ailing(box)
    ailing.apply()
    first = ailing.runs()
    until(lambda: well(box) >= {ailing.unit(ill) for ill in ILLS}, "all have answered")
    begin = ailing.fall_ill()
    for ill in ILLS:
        until(lambda ill=ill: ailing.exits(ill), f"{ill} is in the ledger")  # type: ignore[misc]
    until(lambda: all(run[1] == "1" for run in ailing.runs().values()), "all run again")
    # Long enough for another one, if the new run were taken for an ill one.
    until(lambda: time.time() > begin + 2 * (INTERVAL * FAILURES + TIMEOUT + SLACK), "some time has passed")
    for ill, (_probe, why) in ILLS.items():
        ((invocation, when, result, fate, because),) = ailing.exits(ill)
        assert invocation == first[ill][0]
        took = float(str(when)) - begin
        assert took > INTERVAL * (FAILURES - 1) - LESS_THAN_NO_TIME_SEC
        assert took < INTERVAL * FAILURES + TIMEOUT + SLACK, f"{ill}: {took:.2f} s"
        assert result == "signal"
        assert fate == "will retry"
        assert str(because).endswith(ailing.fill(why, ill))
        assert ailing.runs()[ill][1] == "1"
    assert well(box) >= {ailing.unit(ill) for ill in ILLS}


def well(box: Box) -> set[str]:
    """Return the units that the controller knows to be healthy."""
    rows = query(box, "SELECT unit FROM memory WHERE json_extract(fields, '$.is_healthy') = 1")
    return {str(unit) for (unit,) in rows}


def test_without_the_controller_it_goes_on_ill(box: Box) -> None:
    """What the test above shows is the controller's doing."""
    box.systemctl("stop", UNIT, check=False)
    ailing = Ailing(box)
    ailing.apply()
    before = ailing.runs()
    begin = ailing.fall_ill()
    until(lambda: time.time() > begin + INTERVAL * FAILURES + TIMEOUT + SLACK, "the same time has passed")
    assert ailing.runs() == before


COUNT, WATCHED_SEC, MOST_SHARE = 200, 10.0, 0.1


@pytest.mark.slow
def test_200_services_probed_each_second_cost_a_tenth_of_a_core(box: Box) -> None:
    """The CPU time of the controller's whole cgroup, by the kernel's account."""
    enable(box)
    until(lambda: is_up(box), "the controller is ready")
    program = install_program(box, "ailing")
    path = box.write(
        f"/etc/sysresp/{box.project}.toml",
        f"""
        project = "{box.project}"
        [services.server]
        command = ["{program}", "4950", "500", "/run/{box.project}.ill"]
        [services.many]
        command = ["/bin/sleep", "infinity"]
        instances = {COUNT}
        rollout = {{ parallel = {COUNT} }}
        health = {{ http = "http://127.0.0.1:4950/", interval = "1s", timeout = "1s", action = "none" }}
        """,
    )
    box.sysresp("apply", path, check=True, timeout=300)
    until(lambda: len(well(box)) >= COUNT, "all have answered", 60)

    def used() -> tuple[float, float]:
        return time.monotonic(), int(box.show(UNIT, "CPUUsageNSec")) / 1e9

    begin, before = used()
    until(lambda: time.monotonic() > begin + WATCHED_SEC, "the time has passed", 2 * WATCHED_SEC)
    end, after = used()
    share = (after - before) / (end - begin)
    assert len(well(box)) >= COUNT
    assert 0 < share < MOST_SHARE, f"{share:.1%} of a core"
