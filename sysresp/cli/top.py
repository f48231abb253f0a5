"""`sysresp top`: the loop that listens, looks at what changed, and draws.

Owns when things happen. What is known is `picture`'s, what it looks like `top_view`'s, the terminal
`screen`'s. Rules: nothing is drawn or looked at because time passes, but for the figures of CPU and memory
and for countdowns; and however much happens, no more than a third of the time goes into looking.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

import sysresp
from sysresp.cli import remembered, rows, terminal, top_view
from sysresp.cli.boundary import usage
from sysresp.cli.incidents import Asked
from sysresp.cli.picture import Picture, trouble_of
from sysresp.cli.screen import Screen
from sysresp.cli.top_view import Form, Overlay, View
from sysresp.errors import Exit, SysrespError
from sysresp.model import Scope
from sysresp.ports import Gone, JobRemoved, Lost, Seen
from sysresp.reconcile import layout
from sysresp.systemd.inotify import DirectoryWatch
from sysresp.systemd.signals import SystemSignals

__all__ = ["Asked", "run"]

COUNTDOWN_SEC = 1.0  # while the time to a next start is in sight
MEASURE_SEC = 2.0  # while the use of a service is in sight
GATHER_SEC = 0.03  # a crash is several signals; what follows within this is one look
RETRY_SEC = 2.0  # after systemd did not answer
_PAGE = {"page up": -1, "page down": 1}
_STEP = {"up": -1, "k": -1, "down": 1, "j": 1}
_END = {"home": 0, "g": 0, "end": -1, "G": -1}


def run(asked: Asked) -> int:
    """Show it until the user has enough, and return the exit status."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()) or os.environ.get("TERM", "dumb") == "dumb":
        raise usage("top needs a terminal", "without one: sysresp status, or sysresp events -f")
    gc.enable()  # this one lives on
    form = Form(terminal.has_colour(sys.stdout, wanted=asked.colour), terminal.cut_mark(sys.stdout))
    with (
        closing(SystemSignals(user=asked.scope is Scope.USER)) as signals,
        closing(Picture(asked)) as picture,
    ):
        top = Top(asked, picture, signals, form)
        top.begin()
        with Screen(sys.stdout, sys.stdin.fileno()) as screen:
            ended = top.loop(screen)
    if ended:  # by a signal, of which whoever sent it expects that we die
        signal.signal(ended, signal.SIG_DFL)
        os.kill(os.getpid(), ended)
    return Exit.OK


class Top:
    """One session."""

    def __init__(self, asked: Asked, picture: Picture, signals: SystemSignals, form: Form) -> None:
        self._asked = asked
        self._picture = picture
        self._signals = signals
        self._form = form
        self._watch = DirectoryWatch(writes=True)  # the controller never closes its ledger
        self._ledgers: tuple[str, ...] = ()
        self._fd = -1
        self._view = View()
        self._by_file = False  # the order of the file, else what is not well first
        self._dirty: set[str] = set()  # units to look at
        self._is_old = False  # all is to be looked at
        self._is_told = False  # the ledger has changed
        self._look_at = 0.0  # not before
        self._tick_at = 0.0
        self._question = ""  # the unit that is to be restarted, if the answer is yes
        self._child: subprocess.Popen[bytes] | None = None
        self._output = b""
        self._child_of = ""  # what it was asked

    def begin(self) -> None:
        """Listen, then look."""
        scope = self._asked.scope
        self._fd = self._signals.open()
        self._ledgers = remembered.directories.get() or layout.controller_dirs(scope, os.environ)
        for path in (*self._ledgers, *layout.state_dirs(scope, os.environ)):
            self._watch.add(path)
        self._watch.changed()
        self._load()

    def _load(self) -> None:
        self._picture.load()
        self._signals.watch(self._picture.units)

    def loop(self, screen: Screen) -> int:
        """Go on until the end; return the signal that ended us, 0 for none."""
        self._draw(screen)
        while True:
            ready = self._wait(screen)
            is_new = False  # else somebody else's unit has changed
            if set(screen.descriptors) & ready:
                is_new = True
                for key in screen.read():
                    if key.startswith("end "):
                        return int(key[4:])
                    if not self._press(key, screen):
                        return 0
            if self._child is not None and self._child.stdout and self._child.stdout.fileno() in ready:
                is_new = True
                self._answered()
            self._hear()
            now = time.monotonic()
            if now >= self._look_at and (self._is_old or self._dirty or self._is_told):
                is_new = True
                self._look(now)
            if is_new or now >= self._tick_at:
                self._draw(screen)

    def _wait(self, screen: Screen) -> set[int]:
        """Wait until there is something to do; return what is readable."""
        poll = select.poll()
        wanted = [*screen.descriptors, self._watch.fileno()]
        wanted += [self._fd] if self._fd >= 0 else []
        if self._child is not None and self._child.stdout is not None:
            wanted.append(self._child.stdout.fileno())
        for descriptor in wanted:
            poll.register(descriptor, select.POLLIN)
        due = [self._tick_at] if self._tick_at else []
        if self._is_old or self._dirty or self._is_told:
            due.append(self._look_at)
        left = max(0.0, min(due) - time.monotonic()) if due else None
        return {found for found, _ in poll.poll(None if left is None else left * 1000 + 1)}

    def _hear(self) -> None:
        """Take in what was announced; looking comes later."""
        was_idle = not (self._is_old or self._dirty or self._is_told)
        for one in self._signals.drain() if self._fd >= 0 else ():
            match one:
                case Seen(unit=unit) | Gone(unit=unit) | JobRemoved(unit=unit):
                    self._dirty.add(unit)
                case Lost(why=why):
                    self._is_old = True
                    if why == "disconnected":
                        self._fd = -1
        for path in self._watch.changed():
            if path.startswith(self._ledgers):
                self._is_told = True
            elif path.endswith((".json", "/sysresp")):
                self._is_old = True
        if was_idle and (self._is_old or self._dirty or self._is_told):
            self._look_at = max(self._look_at, time.monotonic() + GATHER_SEC)

    def _look(self, now: float) -> None:
        """Look at what may have changed."""
        try:
            if self._fd < 0:
                self._fd = self._signals.open()
                self._is_old = True
            if self._is_old:
                self._load()
            elif self._dirty:
                self._picture.look(self._dirty)
            if self._is_told:
                self._picture.remember()
            self._is_old = self._is_told = False
            self._dirty.clear()
            self._say(trouble="")
        except (SysrespError, OSError) as error:
            self._is_old = True  # shown as it was last known, and said to be
            self._say(trouble=f"as it was a moment ago: {trouble_of(error)}")
            self._look_at = time.monotonic() + RETRY_SEC
            return
        end = time.monotonic()
        self._look_at = end + 2 * (end - now)

    def _say(self, **changes: object) -> None:
        self._view = self._view._replace(**changes)  # type: ignore[arg-type]

    def _draw(self, screen: Screen) -> None:
        size = screen.size()
        shown = self._picture.services
        if not self._by_file:
            shown = sorted(shown, key=lambda row: row.well)
        view = self._view._replace(shown=shown, events=self._picture.events, now=time.time())
        if view.selected not in {row.observed.name for row in shown}:
            view = view._replace(selected=shown[0].observed.name if shown else "", first=0)
        view = view._replace(first=top_view.scrolled(view, top_view.room(view, size)[0]))
        seen = top_view.visible(view, size)
        now = time.monotonic()
        if now >= self._tick_at:
            self._picture.measure(seen)
            self._tick_at = now + self._pause(seen, view.now)
        self._view = view._replace(use=self._picture.use)
        screen.show(top_view.draw(self._view, size, self._form))

    def _pause(self, seen: Sequence[rows.Row], now: float) -> float:
        """Return after how long the figures in sight are old."""
        ahead = [row.next_start or row.next_run or 0.0 for row in seen]
        return COUNTDOWN_SEC if any(now < at < now + 600 for at in ahead) else MEASURE_SEC

    # Keys

    def _press(self, key: str, screen: Screen) -> bool:
        """Do what the key means; False to quit."""
        view = self._view
        if view.overlay is not None:
            self._press_overlay(key, view.overlay, screen)
            return key != "quit"
        if self._question:
            unit, self._question = self._question, ""
            self._say(message="")
            if key in {"y", "Y"}:
                self._ask("restart", unit)
            return key != "quit"
        height, _ = top_view.room(view, screen.size())
        steps = _STEP.get(key, _PAGE.get(key, 0) * max(1, height - 1))
        if key in {"q", "quit"}:
            return False
        if steps or key in _END:
            self._select(_END.get(key, top_view.index(view) + steps), is_end=key in _END)
        elif key == "?":
            self._say(overlay=Overlay("sysresp top", top_view.HELP))
        elif key == "o":
            self._by_file = not self._by_file
            self._say(message="in the order of the file" if self._by_file else "what is not well first")
        elif view.shown and key == "r":
            self._question = view.selected
            self._say(message=f"restart {self._name(view.selected)}? y, or any other key for no")
        elif view.shown and key in {"w", "enter"}:
            self._ask("why", view.selected)
        elif view.shown and key == "l":
            return self._logs(screen)
        elif key != "resize":
            self._say(message="")
        return True

    def _press_overlay(self, key: str, overlay: Overlay, screen: Screen) -> None:
        size = screen.size()
        last = top_view.last_first(overlay, size)
        first = min(overlay.first, last)
        first += _STEP.get(key, _PAGE.get(key, 0) * max(1, size.height - 3))
        first = {"home": 0, "g": 0, "end": last, "G": last}.get(key, first)
        is_over = key in {"q", "escape", "enter", "w", "?", "quit"}
        self._say(overlay=None if is_over else overlay._replace(first=max(0, min(first, last))))

    def _select(self, at: int, *, is_end: bool) -> None:
        shown = self._view.shown
        if shown:
            at = at if is_end else max(0, min(at, len(shown) - 1))
            self._say(selected=shown[at].observed.name, message="")

    def _name(self, unit: str) -> str:
        return next((row.name for row in self._view.shown if row.observed.name == unit), unit)

    # Other commands of ours

    def _words(self, command: str, unit: str, *more: str) -> list[str]:
        user = ["--user"] if self._asked.scope is Scope.USER else []
        return [sys.executable, "-P", "-m", "sysresp", command, *user, *more, "--", unit]

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(Path(sysresp.__file__).parents[1])}

    def _ask(self, command: str, unit: str) -> None:
        """Start a command; what it says is shown when it has ended."""
        if self._child is not None:
            self._say(message=f"{self._child_of} is not finished yet")
            return
        self._child_of = f"{command} {self._name(unit)}"
        self._say(message=f"{self._child_of} ...")
        self._child = subprocess.Popen(
            self._words(command, unit, "--no-color"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self._environment(),
        )

    def _answered(self) -> None:
        """Take in what the command says; at its end show it: a good restart in one line only."""
        child = self._child
        assert child is not None
        assert child.stdout is not None
        if data := os.read(child.stdout.fileno(), 1 << 16):
            self._output += data
            return
        self._child = None
        output = self._output.decode(errors="backslashreplace").splitlines()
        self._output = b""
        child.stdout.close()
        if child.wait() == 0 and self._child_of.startswith("restart"):
            self._say(message=output[-1] if output else f"{self._child_of}: done")
        else:
            self._say(message="", overlay=Overlay(self._child_of, output))

    def _logs(self, screen: Screen) -> bool:
        """Follow the logs in front of everything, until Ctrl-C; False if we are to end."""
        lines = str(max(1, screen.size().height - 2))
        words = self._words("logs", self._view.selected, "-f", "-n", lines)
        words += ["--no-color"] if not self._form.colour else []
        with screen.lent() as wait, subprocess.Popen(words, env=self._environment()) as child:
            pidfd = os.pidfd_open(child.pid)
            try:
                if not wait(pidfd):
                    with suppress(ProcessLookupError):
                        child.terminate()
            finally:
                os.close(pidfd)
        self._is_old = True
        return True
