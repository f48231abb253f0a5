"""Alerts on a booted systemd: real receivers on its loopback, a controller that is killed, storms.

The receivers are tests/live/bin/receiver, as units of their own: what they accepted is in files.
"""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from tests.live.conftest import CHECKOUT, Box
from tests.live.storms import UNIT, enable, is_up, query
from tests.live.until import until

FULL = bool(os.environ.get("SYSRESP_FULL"))  # minutes each, on request

pytestmark = pytest.mark.live

HOOK, MAIL = "/var/tmp/hook", "/var/tmp/mail"
HTTP_PORT, SMTP_PORT = 7801, 7802
BAD = "/var/tmp/bad"
DEPENDENTS = 6
SERVICE = (
    'command = ["/bin/sh", "-c", '
    '"test ! -e {bad} || {{ echo the database says why >&2; exit 3; }}; exec sleep infinity"]\n'
)
ALERTS = f"""
[alerts.hook]
url = "http://127.0.0.1:{HTTP_PORT}/alerts"

[alerts.mail]
mailto = "ops@example.org"
smtp = "127.0.0.1:{SMTP_PORT}"

[defaults]
alerts = ["hook", "mail"]
"""


def receiver(box: Box, kind: str, *, is_up: bool, delay_sec: float = 0.0) -> None:
    """Start or stop a receiver."""
    unit, port, file = f"test-{kind}", *((HTTP_PORT, HOOK) if kind == "http" else (SMTP_PORT, MAIL))
    if not is_up:
        box.systemctl("stop", f"{unit}.service")
        return
    words = [f"{CHECKOUT}/tests/live/bin/receiver", kind, str(port), file, str(delay_sec)]
    box.run(
        ["systemd-run", "--quiet", "--collect", f"--unit={unit}", "/usr/bin/python3", *words], check=True
    )


def accepted(box: Box, file: str) -> list[dict[str, Any]]:
    """Return what a receiver accepted, in order."""
    path = box.path(file)
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def hooks(box: Box) -> list[dict[str, Any]]:
    return [one["body"] for one in accepted(box, HOOK)]


def mails(box: Box) -> list[dict[str, str]]:
    """Return the headers of the mails."""
    found = []
    for mail in accepted(box, MAIL):
        head = mail["lines"][: mail["lines"].index("")]
        lines = "\n".join(head).replace("\n ", " ").split("\n")
        found.append(dict(line.split(": ", 1) for line in lines))
    return found


def kill_controller(box: Box) -> None:
    """Kill the controller, and all that it runs, and wait for the next."""
    was = box.show(UNIT, "InvocationID")
    box.systemctl("kill", "-s", "KILL", UNIT)
    until(lambda: is_up(box) and box.show(UNIT, "InvocationID") != was, "the next controller")


def queued(box: Box) -> int:
    return int(query(box, "SELECT count(*) FROM message WHERE state = 'queued'")[0][0])


def shop(box: Box) -> str:
    """Return a database, and services that need it in two ways."""
    text = f'project = "{box.project}"\n{ALERTS}\n[services.db]\n{SERVICE.format(bad=BAD)}'
    text += 'restart = { when = "on-failure", delay = "100ms", attempts = 3, within = "1h" }\n'
    for number in range(1, DEPENDENTS + 1):
        key = "binds_to" if number % 2 else "requires"
        text += f'[services.app{number}]\ncommand = ["/bin/sleep", "infinity"]\n{key} = ["db"]\n'
    return text


@pytest.mark.parametrize("outage_sec", [120.0] if FULL else [10.0])
def test_one_incident_is_told_once(arena: Box, outage_sec: float) -> None:
    box, db = arena, f"{arena.project}-db.service"
    enable(box)
    box.sysresp("apply", box.write("/etc/sysresp/shop.toml", shop(box)), check=True)
    apps = [f"{box.project}-app{n}.service" for n in range(1, DEPENDENTS + 1)]

    box.write(BAD, "")
    box.systemctl("kill", "-s", "KILL", db)
    until(lambda: box.show(db, "ActiveState") == "failed", "the database is down for good")
    kill_controller(box)
    # What requires it goes down as soon as somebody restarts it.
    box.systemctl("restart", *apps[1::2], check=False)
    until(lambda: queued(box) == 2, "both receivers are to be told")
    kill_controller(box)
    until(
        lambda: query(box, "SELECT count(*) FROM message WHERE tries > 1")[0][0] == 2,
        "both were tried again",
        30,
    )
    box.path(BAD).unlink()
    box.systemctl("reset-failed", db)
    box.systemctl("start", db)
    until(lambda: {box.show(app, "ActiveState") for app in apps} == {"active"}, "all are up again", 60)
    until(lambda: queued(box) == 4, "its end is to be told, too")
    since = float(query(box, "SELECT min(at) FROM message")[0][0])
    now = float(box.run(["date", "+%s.%N"], check=True).stdout)
    box.run(["sleep", str(max(0.1, since + outage_sec - now))], check=True, timeout=outage_sec + 60)

    receiver(box, "http", is_up=True)
    receiver(box, "smtp", is_up=True)
    kill_controller(box)  # with all four queued; the next one tries them at once
    until(lambda: queued(box) == 0, "all is delivered", 120)
    told = hooks(box)
    tries = query(box, "SELECT receiver, kind, tries FROM message ORDER BY id")
    print(f"\nsystemd {box.version}: nobody listened for {outage_sec:g}s; {tries}")
    assert [one["kind"] for one in told] == ["opened", "resolved"]
    assert len({one["incident"] for one in told}) == 1
    opened = told[0]
    assert opened["service"] == "db"
    assert opened["units"][0]["unit"] == db
    assert {one["unit"] for one in told[1]["units"]} == {db, *apps}
    assert opened["summary"].startswith("db is down for good (systemd gave up")
    subjects = [mail["Subject"] for mail in mails(box)]
    assert len(subjects) == 2
    assert "db is down for good" in subjects[0]
    assert "db is well again after" in subjects[1]
    assert mails(box)[1]["In-Reply-To"] == mails(box)[0]["Message-ID"]
    assert query(box, "SELECT root, resolved != 0 FROM incident") == [[db, 1]]

    number = str(opened["incident"])
    assert "db is down for good" in box.sysresp("incidents", check=True).stdout
    shown = box.sysresp("incidents", "show", number, check=True).stdout
    for words in (
        "last: exit status 3",
        "app1: ",
        "generation 1 was applied",
        f"{box.project}/mail  resolved",
    ):
        assert words in shown, shown
    assert "the database says why" in shown
    assert box.sysresp("alerts", check=True).stdout.count("delivered") == 4
    for name in ("hook", "mail"):
        assert f"{name} has taken it" in box.sysresp("alerts", "test", name, check=True).stdout
    assert hooks(box)[-1]["kind"] == "test"
    receiver(box, "http", is_up=False)
    assert "Connection refused" in box.sysresp("alerts", "test", "hook").stderr


STORMS = 4  # instances, each of which crashes 240 times a minute: systemd wakes up every 250 ms for them
STORM = """
[services.storm]
command = ["/bin/sh", "-c", "exit 7"]
instances = {storms}
restart = {{ when = "always", delay = "100ms" }}
ignore_start_failure = true

[services.other]
{other}restart = {{ when = "no" }}
"""


@pytest.mark.parametrize("storm_sec", [180.0] if FULL else [8.0])
def test_a_storm_is_one_message_and_hides_nothing(arena: Box, storm_sec: float) -> None:
    box = arena
    enable(box)
    receiver(box, "http", is_up=True)
    receiver(box, "smtp", is_up=True, delay_sec=2.0)
    text = f'project = "{box.project}"\n{ALERTS}' + STORM.format(
        other=SERVICE.format(bad=BAD), storms=STORMS
    )
    text = text.replace("[alerts.hook]", "[alerts.hook]\nmost = 3")
    box.sysresp("apply", box.write("/etc/sysresp/shop.toml", text), check=True)
    other, storms = f"{box.project}-other.service", [f"storm@{n + 1}" for n in range(STORMS)]

    def crashes() -> int:
        return int(query(box, "SELECT count(*) FROM exit WHERE unit LIKE '%storm@%'")[0][0])

    until(lambda: crashes() > 5 * STORMS, "the storm begins")
    begin, before = float(box.run(["date", "+%s.%N"]).stdout), crashes()
    box.write(BAD, "")
    box.systemctl("kill", "-s", "KILL", other)
    box.run(["sleep", str(storm_sec)], check=True, timeout=storm_sec + 60)
    took = float(box.run(["date", "+%s.%N"]).stdout) - begin
    rate = (crashes() - before) * 60 / took
    until(lambda: queued(box) == 0, "all is delivered", 60)
    told = [(one["service"], one["kind"]) for one in hooks(box)]
    print(f"\nsystemd {box.version}: {rate:.0f} failures a minute for {took:.0f}s; {told}")
    assert sorted(told) == sorted([(name, "opened") for name in ("other", *storms)]), rate
    assert rate >= 500, "so few crashes are no storm"
    assert len(mails(box)) == len(told)
    rows = query(box, "SELECT failures FROM incident WHERE root LIKE '%storm@%'")
    assert len(rows) == STORMS
    assert sum(row[0] for row in rows) >= before


def test_core_dumps_are_found_by_their_unit(box: Box) -> None:
    unit = f"{box.project}-db.service"
    fields = "MESSAGE_ID=fc2e22bc6ee647b6b90729ab34a250b1\\nMESSAGE=x\\nCOREDUMP_PID=4711\\n"
    fields += f"COREDUMP_UNIT={unit}\\n"
    box.run(["/bin/sh", "-c", f"printf '{fields}' | logger --journald"], check=True)
    ask = "import sys, time; from sysresp.systemd.journal import RealJournal as J"
    ask += "; u, now = sys.argv[1], time.time()"
    ask += (
        "; print(J().core_dumps(u, now - 60), J().core_dumps('x.service', 0), J().core_dumps(u, now + 60))"
    )
    words = [box.python, "-c", ask, unit]
    until(lambda: box.run(words, check=True).stdout.split() == ["[4711]", "[]", "[]"], "the record is found")
