"""The whole terminal for one program: what was on it comes back, however the program ends.

Owns the mode of the terminal, the alternate screen, the signals that concern it, and the bytes that keys
send. Plain escape sequences that every terminal of the last twenty years has, and no curses: the lines are
made by pure functions that know wide characters, of which curses would need to be told cell by cell, it
keeps a state of its own that a crash leaves behind, and its `getch` waits for one descriptor only, where we
wait for six. Rule: between `enter` and `leave` nothing else writes to the terminal.
"""

from __future__ import annotations

import os
import re
import select
import signal
import termios
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, TextIO

from sysresp.cli.top_view import Size
from sysresp.errors import SysrespError

# Alternate screen, no wrapping at the right edge, no cursor; and back.
_ENTER = "\033[?1049h\033[?7l\033[?25l\033[H\033[2J"
_LEAVE = "\033[0m\033[?25h\033[?7h\033[?1049l"
_ENDS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)
_CAUGHT = (*_ENDS, signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT)
_ESCAPE_MS = 50  # an escape sequence may come in pieces; after this long it was the key itself

SEQUENCES = {
    b"\033[A": "up", b"\033OA": "up", b"\033[B": "down", b"\033OB": "down",
    b"\033[5~": "page up", b"\033[6~": "page down",
    b"\033[H": "home", b"\033OH": "home", b"\033[1~": "home", b"\033[7~": "home",
    b"\033[F": "end", b"\033OF": "end", b"\033[4~": "end", b"\033[8~": "end",
    b"\r": "enter", b"\n": "enter", b" ": "page down",
}  # fmt: skip
_UNKNOWN = re.compile(rb"\033[\[O][ -?]{0,16}([@-~]?)")


def keys(data: bytes) -> tuple[list[str], bytes]:
    """Return the keys that these bytes are, and what may be the beginning of one."""
    found: list[str] = []
    at = 0
    while at < len(data):
        for size in (4, 3, 1):
            if name := SEQUENCES.get(data[at : at + size]):
                found.append(name)
                at += size
                break
        else:
            rest = data[at:]
            if rest[:1] != b"\033":
                found.append(rest[:1].decode("latin-1"))
                at += 1
            elif any(sequence.startswith(rest) for sequence in SEQUENCES):
                return found, rest
            elif unknown := _UNKNOWN.match(rest):  # a key that means nothing here, as a whole
                if not unknown[1] and unknown.end() == len(rest):
                    return found, rest
                at += unknown.end()
            else:
                found.append("escape")
                at += 1
    return found, b""


class Screen:
    """The terminal; `fileno` is readable when a key or a signal is there."""

    def __init__(self, out: TextIO, source: int = 0) -> None:
        self._out = out.fileno()
        self._encoding = out.encoding or "ascii"
        self._in = source
        self._rest = b""
        self._shown: list[str] = []
        self._is_on = False
        self._mode: list[Any] = []
        self._handlers: dict[int, Any] = {}
        self._raised: list[int] = []
        self._wake, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._old_waker = -1

    @property
    def descriptors(self) -> tuple[int, int]:
        """What to poll: one is readable when there is something for `read`."""
        return self._in, self._wake

    def __enter__(self) -> Screen:
        """Take the terminal; SysrespError if it does not let us."""
        try:
            return self._begin()
        except termios.error as error:
            raise SysrespError(f"cannot use the terminal: {error.args[-1]}") from error

    def _begin(self) -> Screen:
        self._mode = termios.tcgetattr(self._in)
        self._old_waker = signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        for number in _CAUGHT:
            self._handlers[number] = signal.signal(number, self._caught)
        try:
            self._enter()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError, termios.error):  # the terminal may be gone
            self._leave()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_waker)
        os.close(self._wake)
        os.close(self._waker)

    def _caught(self, number: int, _frame: FrameType | None) -> None:
        self._raised.append(number)

    def _enter(self) -> None:
        self._is_on = True
        tty.setcbreak(self._in, termios.TCSADRAIN)
        self._write(_ENTER)
        self._shown = []

    def _leave(self) -> None:
        if self._is_on:
            self._is_on = False
            ours = signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # in the background this would stop us
            try:
                self._write(_LEAVE)
            finally:
                termios.tcsetattr(self._in, termios.TCSADRAIN, self._mode)
                signal.signal(signal.SIGTTOU, ours)

    def size(self) -> Size:
        """Return the size of the terminal."""
        try:
            found = os.get_terminal_size(self._out)
        except OSError:
            return Size(80, 24)
        return Size(found.columns or 80, found.lines or 24)

    def show(self, lines: Sequence[str]) -> None:
        """Show these lines; only those that are not there already are written."""
        if len(lines) != len(self._shown):
            self._shown = ["\0"] * len(lines)
        changed = [
            # Erased first: behind a line that is as wide as the terminal, its last character would go
            f"\033[{number};1H\033[2K{line}\033[0m"
            for number, (line, old) in enumerate(zip(lines, self._shown, strict=True), 1)
            if line != old
        ]
        if changed:
            self._write("".join(changed))
        self._shown = list(lines)

    def _write(self, text: str) -> None:
        data = text.encode(self._encoding, "replace")
        while data:
            data = data[os.write(self._out, data) :]

    def read(self) -> list[str]:
        """Return the keys and what the signals mean: "resize", "quit"; never waits long."""
        found: list[str] = []
        with suppress(BlockingIOError):
            while os.read(self._wake, 512):
                pass
        raised, self._raised = self._raised, []
        for number in raised:
            if number in _ENDS:
                found.append("quit" if number == signal.SIGINT else f"end {number}")
            elif number == signal.SIGTSTP:
                self._stop()
                found.append("resize")
            else:
                self._shown = []
                found.append("resize")
        poll = select.poll()
        poll.register(self._in, select.POLLIN)
        while poll.poll(_ESCAPE_MS if self._rest else 0):
            data = os.read(self._in, 1024)
            if not data:
                return [*found, f"end {signal.SIGHUP}"]
            some, self._rest = keys(self._rest + data)
            found += some
        if self._rest:
            self._rest = b""
            found.append("escape")
        return found

    def _stop(self) -> None:
        """Give the terminal back and stop, as any program does at Ctrl-Z; go on when we are continued."""
        self._leave()
        ours = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, ours)
        self._raised = [number for number in self._raised if number in _ENDS]
        self._enter()

    @contextmanager
    def lent(self) -> Iterator[Callable[[int], bool]]:
        """Give the terminal to a child meanwhile; what is given waits for it, False if we are to end."""
        self._leave()
        ours = signal.signal(signal.SIGTSTP, signal.SIG_DFL)  # Ctrl-Z stops both of us

        def wait(pidfd: int) -> bool:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            poll.register(self._wake, select.POLLIN)
            while all(found != pidfd for found, _ in poll.poll()):
                with suppress(BlockingIOError):
                    os.read(self._wake, 512)
                if any(number in (signal.SIGTERM, signal.SIGHUP) for number in self._raised):
                    return False
            self._raised = [n for n in self._raised if n in (signal.SIGTERM, signal.SIGHUP)]
            return True

        try:
            yield wait
        finally:
            signal.signal(signal.SIGTSTP, ours)
            self._enter()
