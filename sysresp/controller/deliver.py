"""The post: messages from the ledger to their receivers, at least once each.

Owns the queues, one for each receiver, in order; the tries, of which each is a child process (send.py), so
that neither TLS nor a slow server is any part of the daemon; and the pauses after a try that failed. What is
queued is in the ledger, so a controller that is killed begins again where it was: a message may then come
twice, with the same key. Makes no message and decides on none. The rule: a receiver waits for nobody but
itself. One that does not answer occupies one child, for its `timeout`, and then pauses.
"""

from __future__ import annotations

import json
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sysresp.controller.incident_rows import Queued, Verdict
from sysresp.controller.spawn import Child, environment
from sysresp.controller.telling import Message
from sysresp.units.alerting import Receiver, dumps

if TYPE_CHECKING:
    import asyncio

SENDER = (sys.executable or "/usr/bin/python3", "-I", "-S", str(Path(__file__).with_name("send.py")))
MOST = 8  # children at a time
LONGEST_PAUSE = 60.0
EXPIRES_SEC = 3 * 86400.0  # what nobody accepted for so long is given up
MISSING_SEC = 3600.0  # between looks for a receiver that is not there
REFUSALS = 5  # a message that is refused so often for its content is given up
REFUSED = "exit status 65"
"""EX_DATAERR of sysexits.h: the receiver is there, and does not want this message."""

_GRACE_SEC = 5.0  # beyond its timeout: then the child is killed


def pause(tries: int) -> float:
    """Return the pause after so many tries in a row that failed."""
    return min(LONGEST_PAUSE, float(2 ** min(tries, 16)))


class _Box:
    """The queue of one receiver."""

    def __init__(self) -> None:
        self.queue: deque[Queued] = deque()
        self.child: Child | None = None
        self.timer: asyncio.TimerHandle | None = None  # of the try
        self.last = 0.0  # the loop's time of the last try
        self.not_before = 0.0  # the loop's time


class Post:
    """Delivers what is added, as long as the loop runs."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        receivers: Callable[[], Mapping[str, Receiver]],
        now: Callable[[], float],
        verdict: Callable[[Verdict], None],
        queued: Iterable[Queued] = (),
        *,
        sender: tuple[str, ...] = SENDER,
        pauses: Callable[[int], float] = pause,
    ) -> None:
        """`now` is in seconds since the epoch; each verdict is to be stored; `queued` is in the ledger."""
        self._loop = loop
        self._receivers = receivers
        self._now = now
        self._verdict = verdict
        self._sender = sender
        self._pauses = pauses
        self._boxes: dict[str, _Box] = {}
        self._children: set[Child] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._has_begun = False
        for one in queued:
            self._put(one)

    def begin(self) -> None:
        """Deliver from now on: the receivers are known."""
        self._has_begun = True
        self.pump()

    def add(self, messages: Iterable[Message]) -> None:
        """Deliver these, which are in the ledger."""
        for message in messages:
            self._put(Queued(message))
        self.pump()

    def clock_was_set(self, by: float) -> None:
        """Take in that the wall clock was set by so many seconds: nothing becomes older or younger."""
        for box in self._boxes.values():
            aged = (one.message._replace(at=one.message.at + by) for one in box.queue)
            box.queue = deque(
                one._replace(message=message) for one, message in zip(box.queue, aged, strict=True)
            )
        self.pump()  # what waits for the end of quiet hours goes by the clock

    def close(self) -> None:
        """Kill what is under way: it is queued still."""
        if self._timer is not None:
            self._timer.cancel()
        for box in self._boxes.values():
            if box.timer is not None:
                box.timer.cancel()
        for child in list(self._children):
            child.reap(self._deadline())

    @staticmethod
    def _deadline() -> float:
        import time  # noqa: PLC0415 - once, at the end

        return time.monotonic() + 1.0

    def _box(self, receiver: str) -> _Box:
        return self._boxes.setdefault(receiver, _Box())

    def _put(self, one: Queued) -> None:
        if one.message.due <= one.message.at:  # it waits for nothing, whatever the clock will be set to
            one = one._replace(message=one.message._replace(due=0.0))
        self._box(one.message.receiver).queue.append(one)

    def pump(self) -> None:
        """Begin every try that is due, who was tried longest ago first, and set the timer for the next."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._has_begun:
            return
        now, wall = self._loop.time(), self._now()
        waits = []
        for name, box in sorted(self._boxes.items(), key=lambda pair: pair[1].last):
            if box.child is not None or not box.queue:
                continue
            left = max(box.not_before - now, box.queue[0].message.due - wall)
            if left > 0:
                waits.append(left)
            elif len(self._children) < MOST:
                self._try(name, box)
        if waits:
            self._timer = self._loop.call_later(min(waits), self.pump)

    def _try(self, name: str, box: _Box) -> None:
        receiver, one = self._receivers().get(name), box.queue[0]
        if receiver is None:
            self._missing(name, box)
            return
        box.last = self._loop.time()
        given = given_for(receiver, json.loads(one.message.body))
        seen = environment("", "", os.environ)
        if "CREDENTIALS_DIRECTORY" in os.environ:
            seen["CREDENTIALS_DIRECTORY"] = os.environ["CREDENTIALS_DIRECTORY"]

        def done(is_ok: bool | None, why: str) -> None:
            self._ended(name, box, is_ok, why)

        def gone(child: Child) -> None:
            self._children.discard(child)
            self._loop.call_soon(self.pump)

        child = Child(self._loop, self._sender, seen, done, gone, given)
        self._children.add(child)
        box.child = child
        limit = receiver.timeout_sec + _GRACE_SEC
        box.timer = self._loop.call_later(limit, self._late, name, box, child, limit)
        child.begin()

    def _missing(self, name: str, box: _Box) -> None:
        """Keep it: the project's manifest may be unreadable just now."""
        why = f"there is no [alerts.{name.partition('/')[2]}] now"
        if self._now() - box.queue[0].message.at > EXPIRES_SEC:
            self._over(name, box, "failed", why)
            return
        box.not_before = self._loop.time() + MISSING_SEC
        self._tell(name, box.queue[0], "queued", why)
        self._loop.call_soon(self.pump)

    def _late(self, name: str, box: _Box, child: Child, limit: float) -> None:
        if box.child is child:
            _, why = child.late(f"{limit:g}s")
            self._ended(name, box, False, why)

    def _ended(self, name: str, box: _Box, is_ok: bool | None, why: str) -> None:
        box.child = None
        if box.timer is not None:
            box.timer.cancel()
            box.timer = None
        one = box.queue[0]
        tries = one.tries + 1
        box.queue[0] = one._replace(tries=tries)
        is_hopeless = why.startswith(REFUSED) and tries >= REFUSALS
        if is_ok:
            box.not_before = 0.0
            self._over(name, box, "delivered", "")
        elif is_hopeless or self._now() - one.message.at > EXPIRES_SEC:
            self._over(name, box, "failed", why)
        else:
            box.not_before = self._loop.time() + self._pauses(tries)
            self._tell(name, box.queue[0], "queued", why)
        self._loop.call_soon(self.pump)

    def _over(self, name: str, box: _Box, state: str, why: str) -> None:
        one = box.queue.popleft()
        self._tell(name, one, state, why)
        self._loop.call_soon(self.pump)

    def _tell(self, name: str, one: Queued, state: str, why: str) -> None:
        self._verdict(Verdict(state, one.tries, self._now(), why, name, one.message.key))


def given_for(receiver: Receiver, body: dict[str, Any]) -> bytes:
    """Return what a sender reads."""
    fields = {"receiver": {**dumps(receiver), "by": receiver.by}, "message": body}
    return json.dumps({**fields, "timeout_sec": receiver.timeout_sec}).encode()
