"""What the terminal can do: colour, width, and one line that rewrites itself.

Owns the questions NO_COLOR (https://no-color.org), TERM=dumb, COLUMNS and "is it a terminal", and the escape
sequences. Rule: nothing but plain text ever reaches a file or a pipe, and progress goes to standard error.

On the path of `sysresp status`: imports nothing that costs time.
"""

from __future__ import annotations

import os
import sys
import time

from sysresp.cli import table

TYPE_CHECKING = False  # typing itself costs 5 ms to import
if TYPE_CHECKING:
    from typing import TextIO

BOLD, DIM, RED, GREEN, YELLOW, CYAN = "1", "2", "31", "32", "33", "36"


def has_colour(stream: TextIO, *, wanted: bool = True) -> bool:
    """Return whether escape sequences may be written to the stream."""
    return (
        wanted
        and not os.environ.get("NO_COLOR")
        and os.environ.get("TERM", "") != "dumb"
        and stream.isatty()
    )


def width(stream: TextIO) -> int | None:
    """Return the width of the terminal behind the stream; None if it is not one: no limit then."""
    if not stream.isatty():
        return None
    if (columns := os.environ.get("COLUMNS", "")).isdecimal() and int(columns) > 0:
        return int(columns)
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def cut_mark(stream: TextIO) -> str:
    """Return what stands for text that was left out, in a form that the stream can encode."""
    return "…" if (stream.encoding or "").lower().replace("-", "") == "utf8" else "~"


def paint(text: str, colour: str, *, on: bool) -> str:
    """Return the text in a colour, or as it is."""
    return f"\033[{colour}m{text}\033[0m" if on and text else text


class Progress:
    """One line on standard error that rewrites itself; nothing at all if that is no terminal."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty() and os.environ.get("TERM", "") != "dumb"
        self._shown = False
        self._since = time.monotonic()

    def show(self, text: str) -> None:
        """Replace the line; the seconds since the beginning are added to it."""
        if not self._live:
            return
        room = width(self._stream) or 80
        line = f"{table.clean(text)} {time.monotonic() - self._since:.0f}s"
        self._stream.write("\r" + table.shorten(line, room - 1) + "\033[K")
        self._stream.flush()
        self._shown = True

    def end(self) -> None:
        """Take the line away."""
        if self._shown:
            self._stream.write("\r\033[K")
            self._stream.flush()
            self._shown = False
