"""Tracebacks and panics among the lines that a program printed, and a fingerprint for each.

Owns what the last words of Python, Node, Java, Go and Rust look like, and what of them stays when the same
fault happens again: the kind of the error and the program's own functions on the way to it. What changes
from run to run or from build to build is not in it: process ids, addresses, line numbers, where the program
is installed, the depth of a recursion, frames of the language's own runtime. The message is in it only where
the language has no kinds of errors (Go, Rust) or no function of the program's own is named, without its
numbers and quoted parts. Pure. Rule: the lines are anybody's text; whatever they hold, there is an answer,
and the time it takes grows as they do.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

LONGEST = 500  # characters of a line that are looked at
MOST_FRAMES = 200
_HEAD_WITHIN = 8  # lines before the first frame, in which the error of Node or Java is named


class Trace(NamedTuple):
    """One traceback, or panic."""

    language: str  # python | node | java | go | rust
    kind: str  # "ValueError", "java.io.IOException", "panic", "fatal error"
    message: str
    frames: tuple[str, ...]  # "FUNCTION FILE", the outermost first, none twice
    fingerprint: str
    line: int = 0  # where it begins, in the lines that were given

    @property
    def title(self) -> str:
        """The one line for a table."""
        where = f" in {self.frames[-1].split(' ')[0]}" if self.frames else ""
        return f"{self.language}: {self.kind}{where}" + (f": {self.message}" if self.message else "")


def find(lines: Iterable[str]) -> list[Trace]:
    """Return the tracebacks in what one process printed, in order; a chain of them is one."""
    text = [line[:LONGEST].rstrip() for line in lines]
    found: list[Trace] = []
    at = 0
    while at < len(text):
        line = text[at]
        for begins, read in _READERS:
            if begins.match(line) and (read_one := read(text, at)) is not None:
                trace, at = read_one
                if found and found[-1].language == trace.language and _is_chained(text, found[-1], trace):
                    found.pop()  # the last of a chain is what the program died of
                found.append(trace)
                break
        else:
            at += 1
    return found


def last(lines: Iterable[str]) -> Trace | None:
    """Return the last traceback: as a rule, what the program died of."""
    found = find(lines)
    return found[-1] if found else None


_CHAIN = re.compile(
    r"(During handling of the above exception|The above exception was the direct cause)", re.ASCII
)


def _is_chained(text: Sequence[str], before: Trace, after: Trace) -> bool:
    return any(_CHAIN.match(line) for line in text[max(before.line, after.line - 3) : after.line])


def _trace(language: str, kind: str, message: str, frames: Iterable[str], line: int) -> Trace:
    """Return the trace with its fingerprint."""
    own = tuple(dict.fromkeys(frames))
    told = _steady(message) if language in ("go", "rust") or not own else ""
    basis = "\n".join((language, kind, told, *own))
    print_ = hashlib.sha256(basis.encode("utf-8", "replace")).hexdigest()[:12]
    return Trace(language, kind, message, own, print_, line)


def _steady(message: str) -> str:
    """Return a message without what differs from run to run."""
    message = re.sub(r"\"[^\"]*\"|'[^']*'|`[^`]*`", "_", message)
    return re.sub(r"0x[0-9a-fA-F]+|\b[0-9a-f]{8,}\b|\d+", "#", message)


def _file(path: str) -> str:
    """Return the name of the file: where a release is installed changes with each."""
    return path.replace("\\", "/").rpartition("/")[2]


# Python

_PY_FRAME = re.compile(r'[ |]*  File "(.+)", line \d+(?:, in (.+))?$')
_PY_END = re.compile(r"[ |]*([A-Za-z_][\w.]*(?:\.<locals>\.[\w.]+)?)(?:: ?(.*))?$")
_PY_OWN = re.compile(r".*/python3(?:\.\d+)?/(?!(?:site|dist)-packages/)|<frozen ")
_PY_LONGEST = 4 * MOST_FRAMES  # lines: Python itself leaves out what repeats


def _python(text: Sequence[str], at: int) -> tuple[Trace, int] | None:
    frames: list[str] = []
    is_group = "Exception Group Traceback" in text[at]
    begin, at = at, at + 1
    while at < len(text):
        line = text[at]
        if frame := _PY_FRAME.match(line):
            if len(frames) < MOST_FRAMES and not _PY_OWN.match(frame[1]):
                frames.append(f"{frame[2] or '<module>'} {_file(frame[1])}")
        elif at - begin > _PY_LONGEST or (line.startswith("Traceback") and not is_group):
            return None
        elif _is_flush(line, is_group):
            end = _PY_END.match(line)
            if end is None:  # the line of something else that writes to the same place
                at += 1
                continue
            at += 1
            while is_group and at < len(text) and text[at].startswith(("  |", "  +", "    |", "    +")):
                at += 1
            return _trace("python", end[1], end[2] or "", frames, begin), at
        at += 1
    return None


def _is_flush(line: str, is_group: bool) -> bool:
    """Say whether the line is not indented, in a group behind its bar."""
    if is_group:
        return line.startswith("  | ") and not line.startswith("  |  ")
    return bool(line) and not line[0].isspace()


# Node and Java: the head comes before the frames, and may have several lines.

_NODE_FRAME = re.compile(
    r"\s+at (?:async )?(?:(.+?) )?\(?((?:[^()]*):\d+:\d+|<anonymous>|native)\)?,?(?: \{)?$"
)
_NODE_HEAD = re.compile(r"(?:Uncaught )?([A-Za-z_$][\w$]*(?:\.[\w$]+)*)(?: \[(\w+)\])?(?:: (.*))?$")
_NODE_MORE = re.compile(r"Emitted '\w+' event .*at:$")
_NODE_OWN = ("node:", "internal/")


def _node(text: Sequence[str], at: int) -> tuple[Trace, int] | None:
    begin, head = _head(text, at, _NODE_HEAD)
    if head is None:
        return None
    frames: list[str] = []
    while at < len(text) and ((frame := _NODE_FRAME.match(text[at])) or _NODE_MORE.match(text[at])):
        if frame and not frame[2].startswith(_NODE_OWN) and frame[2] not in ("<anonymous>", "native"):
            path = frame[2].rsplit(":", 2)[0]
            frames.append(f"{(frame[1] or '<anonymous>').replace(' ', '.')} {_file(path)}")
        at += 1
    if text[at - 1].endswith(" {"):  # what else the error has, with the frames of its cause
        while at < len(text) and text[at][:1].isspace():
            at += 1
    return _trace("node", head[1], head[3] or "", reversed(frames[:MOST_FRAMES]), begin), at


_JAVA_FRAME = re.compile(
    r"\s+at (?:[\w.$@-]+/+)*([\w.$]+(?:/0x[0-9a-f]+)?\.[\w$<>]+)"
    r"\(([\w$-]+\.\w+(?::\d+)?|Unknown Source|Native Method|<generated>)\)(?: ~?\[.*\])?$"
)
_JAVA_HEAD = re.compile(
    r"(?:Exception in thread \"[^\"]*\" |Caused by: |.*? )?((?:[\w$]+\.)*[A-Z][\w$]*)(?:: (.*))?$"
)
_JAVA_MORE = re.compile(r"\s+\.\.\. \d+ (?:more|common frames omitted)$|\s+(Suppressed|\[CIRCULAR)")
_JAVA_OWN = ("java.", "javax.", "jdk.", "sun.", "com.sun.")


def _java(text: Sequence[str], at: int) -> tuple[Trace, int] | None:
    begin, head = _head(text, at, _JAVA_HEAD)
    if head is None:
        return None
    kind, message = head[1], head[2] or ""
    frames: list[str] = []
    outer: list[str] = []
    while at < len(text):
        line = text[at]
        if frame := _JAVA_FRAME.match(line):
            where = re.sub(r"\$\$Lambda.*?(?=\.\w+$)|(?<=lambda\$)([\w$]*?)\$\d+$", r"\1", frame[1])
            if not where.startswith(_JAVA_OWN):
                frames.append(f"{where} {frame[2].partition(':')[0].replace(' ', '_')}")
        elif line.startswith("Caused by: ") and (cause := _JAVA_HEAD.match(line)):
            kind, message = cause[1], cause[2] or ""  # the first cause is told last, without what it shares
            outer, frames = [*outer, *reversed(frames)], []
        elif not _JAVA_MORE.match(line):
            break
        at += 1
    return _trace("java", kind, message, [*outer, *reversed(frames)][-MOST_FRAMES:], begin), at


def _head(text: Sequence[str], first: int, pattern: re.Pattern[str]) -> tuple[int, re.Match[str] | None]:
    """Return the line that names the error of the frames that begin at `first`."""
    for at in range(first - 1, max(-1, first - 1 - _HEAD_WITHIN), -1):
        line = text[at]
        if line and not line[0].isspace() and (head := pattern.match(line)):
            return at, head
    return first, None


# Go

_GO_HEAD = re.compile(r"(panic|fatal error): (.*)$")
_GO_CALL = re.compile(r"((?:[\w.~%-]+/)*[\w%-]+\.[\w.(*)\[\]<>·-]+?)\((?:[^()]*|\.\.\.)\)$")
_GO_PLACE = re.compile(r"\t(\S+\.(?:go|s)):\d+(?: \+0x[0-9a-f]+)?$")


def _go(text: Sequence[str], at: int) -> tuple[Trace, int] | None:
    begin, head = at, _GO_HEAD.match(text[at])
    assert head is not None  # it is how the reader was chosen
    message = re.sub(r"(?: \[recovered\].*)$", "", head[2])
    at += 1
    while at < len(text) and not text[at].startswith("goroutine "):
        if at - begin > _HEAD_WITHIN:
            return None
        at += 1
    if at == len(text):
        return None
    frames: list[str] = []
    call = ""
    at += 1
    while at < len(text) and not text[at].startswith(("goroutine ", "created by ", "exit status ")):
        line = text[at]
        if found := _GO_CALL.match(line):
            call = re.sub(r"(?<=\.func)\d+(\.\d+)*", "", found[1])
        elif (place := _GO_PLACE.match(line)) and call:
            if not call.startswith(("runtime.", "panic")):
                frames.append(f"{call} {_file(place[1])}")
            call = ""
        elif line:
            break
        at += 1
    while at < len(text) and text[at].startswith(("goroutine ", "created by ", "\t")):
        at += 1
    return _trace("go", head[1], message, reversed(frames[:MOST_FRAMES]), begin), at


# Rust

_RUST_HEAD = re.compile(r"thread '[^']*'(?: \(\d+\))? panicked at (?:'(.*)', )?([^':]+|.*?):\d+(?::\d+)?:?$")
_RUST_FRAME = re.compile(r"\s+\d+: +(?:0x[0-9a-f]+ - )?(.+?)(?:::h[0-9a-f]{16})?$")
_RUST_PLACE = re.compile(r"\s+at ")
_RUST_OWN = re.compile(
    r"(?:<.* as )?<?(?:std|core|alloc|test|__rustc)::"
    r"|_*rust_\w+$|_*(?:main|start|clone\d?|libc_start\w*)$|<unknown>"
)


def _rust(text: Sequence[str], at: int) -> tuple[Trace, int] | None:
    begin, head = at, _RUST_HEAD.match(text[at])
    if head is None:
        return None
    at += 1
    words = [head[1]] if head[1] else []
    if not words:  # since 1.73 the message has lines of its own
        while at < len(text) and not text[at].startswith(("note: ", "stack backtrace:", "thread '")):
            if at - begin > _HEAD_WITHIN:
                break
            words.append(text[at])
            at += 1
    frames: list[str] = []
    if at < len(text) and text[at] == "stack backtrace:":
        at += 1
        while at < len(text) and ((frame := _RUST_FRAME.match(text[at])) or _RUST_PLACE.match(text[at])):
            if frame and not _RUST_OWN.match(frame[1]):
                frames.append(frame[1].replace(" ", ""))
            at += 1
    message = words[0] if words else ""
    return _trace("rust", "panic", message, (_file(head[2]), *reversed(frames[:MOST_FRAMES])), begin), at


_READERS: tuple[tuple[re.Pattern[str], Callable[[Sequence[str], int], tuple[Trace, int] | None]], ...] = (
    (re.compile(r"(?:[ |+]*Exception Group )?Traceback \(most recent call last\):$"), _python),
    (re.compile(r"thread '"), _rust),
    (_GO_HEAD, _go),
    (_JAVA_FRAME, _java),
    (_NODE_FRAME, _node),
)
"""How each language's begins; of Node and Java the first frame, since their heads look like anything."""
