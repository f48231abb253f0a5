"""The post, and the sender that it runs: real children, a real HTTP and a real SMTP server on loopback."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sysresp.controller import deliver
from sysresp.controller.deliver import SENDER, Post, given_for
from sysresp.controller.incident_rows import Queued, Verdict
from sysresp.controller.telling import Message
from sysresp.units.alerting import Receiver, dumps, loads

RECEIVER = str(Path(__file__).with_name("live") / "bin" / "receiver")
HTTP, SMTP = 17811, 17812
BODY = {
    "version": 1,
    "key": "host-7-1-opened",
    "kind": "opened",
    "incident": 7,
    "host": "host",
    "service": "db",
    "summary": 'db is "down"; $(rm) {secret}\nBcc: x@example.org',
    "text": "db is down\n.\nthe end",
}


def send(receiver: Receiver, **environment: str) -> tuple[int, str]:
    """Run the sender as the daemon does, and return its verdict."""
    done = subprocess.run(
        SENDER,
        input=given_for(receiver, BODY),
        capture_output=True,
        env=environment,
        timeout=30,
        check=False,
    )
    return done.returncode, done.stderr.decode()


class Server:
    """tests/live/bin/receiver."""

    def __init__(self, kind: str, port: int, file: Path, *words: str) -> None:
        self.file = file
        self.process = subprocess.Popen([sys.executable, RECEIVER, kind, str(port), str(file), *words])
        while send(Receiver("url", url=f"http://127.0.0.1:{port}/", timeout_sec=1.0))[1].startswith(
            "ConnectionRefused"
        ):
            assert self.process.poll() is None
        file.write_text("")

    def accepted(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.file.read_text().splitlines()]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def http(tmp_path: Path) -> Iterator[Server]:
    server = Server("http", HTTP, tmp_path / "hook")
    yield server
    server.close()


@pytest.fixture
def smtp(tmp_path: Path) -> Iterator[Server]:
    server = Server("smtp", SMTP, tmp_path / "mail")
    yield server
    server.close()


def test_a_hook_gets_the_incident_and_the_secret_of_a_file(http: Server, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    receiver = Receiver(
        "url", url=f"http://127.0.0.1:{HTTP}/a?b={{service}}", secret=str(tmp_path / "token")
    )
    assert send(receiver) == (0, "")
    (one,) = http.accepted()
    assert one["body"] == BODY
    assert one["path"] == "/a?b=db"
    assert one["authorization"] == "Bearer s3cret"
    assert one["idempotency"] == BODY["key"]


def test_a_body_is_filled_and_a_secret_may_be_in_the_url(http: Server, tmp_path: Path) -> None:
    (tmp_path / "hook").unlink()
    (tmp_path / "name").write_text("s3cret")
    body = json.dumps({"text": "{summary}", "all": ["{kind}", 1, {"x": "{nothing}"}]})
    url = f"http://127.0.0.1:{HTTP}/{{secret}}"
    receiver = Receiver("url", url=url, body=body, secret="name")
    assert send(receiver, CREDENTIALS_DIRECTORY=str(tmp_path)) == (0, "")
    (one,) = http.accepted()
    assert one["body"] == {"text": BODY["summary"], "all": ["opened", 1, {"x": "{nothing}"}]}
    assert one["path"] == "/s3cret"
    assert one["authorization"] == ""


def test_a_mail_is_one_mail_whatever_the_text(smtp: Server) -> None:
    to = ("ops@example.org", "boss@example.org")
    assert send(Receiver("mailto", to=to, smtp=f"127.0.0.1:{SMTP}")) == (0, "")
    (one,) = smtp.accepted()
    assert [word.split()[0] for word in one["to"]] == ["<ops@example.org>", "<boss@example.org>"]
    head = one["lines"][: one["lines"].index("")]
    assert not any(line.startswith("Bcc") for line in head)
    assert "db is down" in one["lines"]
    assert one["lines"][-1] == "the end"
    assert "X-Sysresp-Key: host-7-1-opened" in head


def test_a_program_gets_exact_words_and_the_incident(tmp_path: Path) -> None:
    out = tmp_path / "out"
    code = "import sys, json; json.dump([sys.argv[2:], json.load(sys.stdin)], open(sys.argv[1], 'w'))"
    argv = (sys.executable, "-c", code, str(out), "{service}", "{summary}", "{foo}")
    assert send(Receiver("exec", argv=argv)) == (0, "")
    assert json.loads(out.read_text()) == [["db", BODY["summary"], "{foo}"], BODY]


def test_apprise_gets_title_and_text(tmp_path: Path) -> None:
    out = tmp_path / "out"
    code = "import sys; open(sys.argv[1], 'w').write(sys.argv[2] + '|' + sys.stdin.read())"
    assert send(Receiver("apprise", argv=(sys.executable, "-c", code, str(out)))) == (0, "")
    assert out.read_text() == f"--title={BODY['summary']}|{BODY['text']}"


@pytest.mark.parametrize(
    ("receiver", "status", "words"),
    [
        (Receiver("exec", argv=("/bin/false",)), 75, "/bin/false ended with 1"),
        (Receiver("exec", argv=("/bin/sh", "-c", "echo no; echo paper; exit 3")), 75, "with 3: paper\n"),
        (Receiver("exec", argv=("/nonexistent",)), 75, "cannot run /nonexistent"),
        (Receiver("exec", argv=("/bin/sleep", "9"), timeout_sec=0.1), 75, "not done within 0.1s"),
        (Receiver("url", url="http://127.0.0.1:9/"), 75, "Connection refused"),
        (Receiver("url", url="http://127.0.0.1:9/", secret="/nonexistent"), 75, "cannot read the secret"),
        (Receiver("url", url="http://127.0.0.1:9/", secret="name"), 75, "no credentials"),
        (Receiver("mailto", to=("a@b.c",), smtp="127.0.0.1:9"), 75, "Connection refused"),
        (Receiver("pigeon"), 75, "restart the controller"),
    ],
)
def test_what_fails_says_why(receiver: Receiver, status: int, words: str) -> None:
    code, said = send(receiver)
    assert (code, words in said) == (status, True), said


def test_what_a_program_leaves_behind_is_not_waited_for() -> None:
    began = time.monotonic()
    assert send(Receiver("exec", argv=("/bin/sh", "-c", "sleep 2 & exit 0"))) == (0, "")
    assert time.monotonic() - began < 1.5


def test_a_receiver_survives_the_manifest() -> None:
    receiver = Receiver(
        "url", url="http://x", quiet=("22:00", "07:00"), most=3, resolve=False, timeout_sec=5.0
    )
    assert loads(json.loads(json.dumps(dumps(receiver)))) == receiver


# The post


def message(number: int, receiver: str = "shop/ops", **fields: Any) -> Message:
    one = Message(f"key-{number}", receiver, number, "opened", "db", 100.0, 100.0, json.dumps(BODY))
    return one._replace(**fields)


class Office:
    """A post, and its verdicts."""

    def __init__(
        self,
        queued: tuple[Queued, ...] = (),
        pauses: Callable[[int], float] = deliver.pause,
        **receivers: Receiver,
    ) -> None:
        self.verdicts: list[Verdict] = []
        self.changed = asyncio.Event()
        self.now = 1000.0
        self.receivers = {f"shop/{name}": receiver for name, receiver in receivers.items()}
        loop = asyncio.get_running_loop()
        self.post = Post(
            loop, lambda: self.receivers, lambda: self.now, self._verdict, queued, pauses=pauses
        )

    def _verdict(self, verdict: Verdict) -> None:
        self.verdicts.append(verdict)
        self.changed.set()

    async def until(self, count: int) -> list[tuple[str, str]]:
        async with asyncio.timeout(20):
            while len(self.verdicts) < count:
                self.changed.clear()
                await self.changed.wait()
        return [(one.key, one.state) for one in self.verdicts]


def appending(file: Path, more: str = "") -> Receiver:
    code = f"import sys; open({str(file)!r}, 'a').write(sys.argv[1] + ' '); {more}"
    return Receiver("exec", argv=(sys.executable, "-S", "-c", code, "{kind}"))


def test_each_is_delivered_once_and_in_order(tmp_path: Path) -> None:
    async def scene() -> None:
        office = Office((Queued(message(1)),), ops=appending(tmp_path / "out"))
        office.post.add([message(2)])
        assert office.verdicts == []  # it does not know the receivers yet
        office.post.begin()
        office.post.add([message(3)])
        assert await office.until(3) == [(f"key-{n}", "delivered") for n in (1, 2, 3)]
        office.post.close()

    asyncio.run(scene())
    assert (tmp_path / "out").read_text().split() == ["opened"] * 3


def test_one_that_hangs_delays_nobody_else(tmp_path: Path) -> None:
    async def scene() -> None:
        slow = Receiver("exec", argv=("/bin/sleep", "60"), timeout_sec=60.0)
        office = Office(slow=slow, ops=appending(tmp_path / "out"))
        office.post.begin()
        office.post.add([message(1, "shop/slow"), message(2), message(3)])
        assert await office.until(2) == [("key-2", "delivered"), ("key-3", "delivered")]
        office.post.close()

    asyncio.run(scene())


def test_what_fails_is_tried_again_and_keeps_its_place(tmp_path: Path) -> None:
    file = tmp_path / "out"
    fails = f"sys.exit(open({str(file)!r}).read().count(' ') < 3)"

    async def scene() -> None:
        office = Office(pauses=lambda _tries: 0.01, ops=appending(file, fails))
        office.post.begin()
        office.post.add([message(1), message(2)])
        states = await office.until(4)
        assert states == [
            ("key-1", "queued"),
            ("key-1", "queued"),
            ("key-1", "delivered"),
            ("key-2", "delivered"),
        ]
        assert [one.tries for one in office.verdicts] == [1, 2, 3, 1]
        assert "ended with 1" in office.verdicts[0].why
        office.post.close()

    asyncio.run(scene())


def test_what_nobody_takes_is_given_up_in_the_end() -> None:
    async def scene() -> None:
        office = Office(ops=Receiver("exec", argv=("/bin/false",)))
        office.now = 100 + deliver.EXPIRES_SEC + 1
        office.post.begin()
        office.post.add([message(1), message(2, "shop/gone")])
        assert sorted(await office.until(2)) == [("key-1", "failed"), ("key-2", "failed")]
        office.post.close()

    asyncio.run(scene())


def test_one_whose_receiver_is_missing_is_kept() -> None:
    async def scene() -> None:
        office = Office()
        office.post.begin()
        office.post.add([message(1)])
        assert await office.until(1) == [("key-1", "queued")]
        assert "no [alerts.ops] now" in office.verdicts[0].why
        office.post.close()

    asyncio.run(scene())


def test_nothing_is_sent_before_it_is_due(tmp_path: Path) -> None:
    async def scene() -> None:
        office = Office(ops=appending(tmp_path / "out"))
        office.post.begin()
        office.post.add([message(1, due=1000.3)])
        office.now = 1000.3  # it comes while the post sleeps
        began = asyncio.get_running_loop().time()
        await office.until(1)
        assert asyncio.get_running_loop().time() - began >= 0.25
        office.post.close()

    asyncio.run(scene())


@pytest.mark.parametrize("by", [-3600.0, 3600.0 * 24 * 30])
def test_a_clock_that_is_set_delays_nothing_and_gives_nothing_up(tmp_path: Path, by: float) -> None:
    """What fails is tried again as if nothing had been, and the end of quiet hours goes by the clock."""

    async def scene() -> None:
        bad = tmp_path / "bad"
        bad.touch()
        more = f"import os; sys.exit(os.path.exists({str(bad)!r}))"
        office = Office(pauses=lambda _: 0.01, ops=appending(tmp_path / "out", more))
        office.now = 1e9
        office.post.begin()
        office.post.add([message(1, at=office.now, due=office.now)])
        await office.until(1)
        office.now += by
        office.post.clock_was_set(by)
        assert {state for _, state in await office.until(len(office.verdicts) + 1)} == {"queued"}
        bad.unlink()
        office.post.add([message(2, at=office.now, due=office.now + 5)])
        office.now += 5
        office.post.clock_was_set(5)
        while ("key-2", "delivered") not in await office.until(len(office.verdicts) + 1):
            pass
        assert ("key-1", "delivered") in await office.until(1)
        office.post.close()

    asyncio.run(scene())


def test_the_pauses_grow_to_a_minute() -> None:
    assert [deliver.pause(n) for n in (1, 2, 5, 6, 100)] == [2, 4, 32, 60, 60]
