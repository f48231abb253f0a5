"""Commands: the string form, the array form, several of them, and what no process could be given.

Owns how a command of services.toml becomes `Command` values. Never runs, expands or looks up anything.
A string is split into words as a POSIX shell would (quotes and backslashes), and by nothing else of a shell;
an array is passed exactly as it stands. Rule: what cannot reach the process byte for byte is refused here.
"""

from __future__ import annotations

import re
from typing import Any

from sysresp.model import Command
from sysresp.spec.report import BAD, At, near, quote, show
from sysresp.spec.types import NONCHARACTER, Schema, Type

MAX_ARGUMENT = 128 * 1024 - 1
"""Bytes of one argument: MAX_ARG_STRLEN of execve(2) is 32 pages, with the final NUL."""

MAX_LINE = 1 << 20
"""Bytes of one line of a unit file: LONG_LINE_MAX (src/basic/fileio.h); else the unit does not load."""

_BLANKS = re.compile("[ \t\r\n]+")
_SHELLS = frozenset(("sh", "bash", "dash", "zsh", "ksh", "ash", "fish", "busybox"))
_OPERATORS = frozenset(
    ("#", "|", "||", "&&", "&", ";", "<", "<<", ">", ">>", "2>", "2>>", "&>", "2>&1", "1>&2")
)
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|(\\)|(.?))", re.DOTALL)
_BAD_IN_PROGRAM = re.compile("[\"'\\\\\0-\x1f\x7f]")
_NOT_UTF8 = re.compile(f"[\ud800-\udfff{NONCHARACTER}]")

NO_SHELL = 'write ["/bin/sh", "-c", "..."] if you want one'


def split(text: str) -> list[str] | None:
    """Split into words as a POSIX shell does; None if a quote or backslash is left open."""
    if not any(char in text for char in "'\"\\"):
        return [word for word in _BLANKS.split(text) if word]
    import shlex  # noqa: PLC0415 - most commands have no quotes, and it is slow

    try:
        return shlex.split(text)
    except ValueError:
        return None


def unescape(text: str) -> str | None:
    """Return the text that the bytes of a `bytes` element stand for; None if an escape is unknown."""
    if any(not found[1] and not found[2] for found in _ESCAPE.finditer(text)):
        return None
    out, end = b"", 0
    for found in _ESCAPE.finditer(text):
        out += text[end : found.start()].encode() + (bytes([int(found[1], 16)]) if found[1] else b"\\")
        end = found.end()
    return (out + text[end:].encode()).decode(errors="surrogateescape")


def _argument(value: object, at: At) -> Any:
    """Return one element of the array form as a word."""
    match value:
        case str():
            word = value
        case {"bytes": str(escaped), **rest} if not rest:
            found = unescape(escaped)
            if found is None:
                return at.error(
                    "holds a backslash that begins no escape of `bytes`",
                    r"write \xHH for a byte, \\ for a backslash",
                )
            word = found
        case dict():
            hint = near(next(iter(value)), ["bytes"]) if value else ""
            return at.error(
                "must be a text or { bytes = '...' }, got a table", hint or "write { bytes = 'caf\\xe9' }"
            )
        case _:
            plain = isinstance(value, bool | int | float)
            return at.error(
                f"must be a text, got {show(value)}", f'write it in quotes: "{show(value)}"' if plain else ""
            )
    return word if _fits(word, at) else BAD


def _fits(word: str, at: At) -> bool:
    if "\0" in word:
        at.error("holds a NUL character, which no argument of a process can", "remove it")
        return False
    if len(word) > MAX_ARGUMENT // 4 and (size := len(word.encode(errors="surrogateescape"))) > MAX_ARGUMENT:
        at.error(
            f"is an argument of {size} bytes; the kernel takes at most {MAX_ARGUMENT}", "put it into a file"
        )
        return False
    return True


def _line_size(words: tuple[str, ...]) -> int:
    """Return at most how many bytes the words take in a unit file, escaped."""
    size = 0
    for word in words:
        size += 3
        for byte in word.encode(errors="surrogateescape"):
            size += 4 if byte < 0x20 or byte >= 0x7F else 2 if byte in b'\\"$%' else 1
    return size


def _make(words: list[str], at: At, *, expand: bool) -> Any:
    """Check the words together, and the program."""
    program = words[0]
    if sum(map(len, words)) > MAX_LINE // 5 and _line_size(tuple(words)) > MAX_LINE:
        return at.error(
            "is a command line that takes more than 1 MiB in a unit file", "put the arguments into a file"
        )
    if not program.strip(" \t"):
        return at.error("has an empty program", "write the program as the first word")
    fix = "use a symbolic link with a plain name"
    if (bad := _BAD_IN_PROGRAM.search(program)) is not None:
        return at.error(
            f"has a program with {quote(bad[0])} in its path, which systemd cannot run: {quote(program)}",
            fix,
        )
    if _NOT_UTF8.search(program):
        return at.error(f"has a program whose path is not valid UTF-8: {quote(program)}", fix)
    if program[0] in "@-:+!|" and "/" in program:
        return at.error(
            f"has a program with the prefix {quote(program[0])} of unit files: {quote(program)}",
            "leave it out; hooks have { command = ..., ignore_failure = true, privileged = true }",
        )
    if program.endswith("/") or program in (".", ".."):
        return at.error(f"has a directory as its program: {quote(program)}", "name the file to run")
    if program != program.strip(" \t"):  # fails on systemd 257
        return at.error(f"has a program with blanks at its end: {quote(program)}", fix)
    if not expand and not program.startswith("/") and _BLANKS.search(program):
        return at.error(
            f"has a whole command line as its program: {quote(program)}",
            'write a word each: ["/bin/a", "-x"]; several commands are [["/bin/a", "-x"], ["/bin/b"]]',
        )
    if program[0] in "~$" or (program.startswith("-") and not expand):
        return at.error(
            f"has {quote(program)} as its program, and no shell expands it", "write the absolute path"
        )
    return Command(tuple(words), expand=expand)


def one(value: object, at: At) -> Any:
    """Parse one command, in string or array form."""
    if isinstance(value, str):
        words = split(value)
        if words is None:
            return at.error(
                f"has a quote or backslash that nothing closes: {quote(value)}",
                "close it, or write an array",
            )
        if not words:
            return at.error("is an empty command", "write the program and its arguments")
        if not all(_fits(word, at) for word in words):
            return BAD
        if words[0].rpartition("/")[2] not in _SHELLS and (shell := _shell_syntax(words)):
            at.warn(f"has {quote(shell)} as an ordinary argument: no shell runs this", NO_SHELL)
        return _make(words, at, expand=True)
    if not isinstance(value, list):
        return at.error(
            f"must be a text or an array of texts, got {show(value)}", 'write ["/bin/program", "argument"]'
        )
    if not value:
        return at.error("is an empty command", "write the program and its arguments")
    good = [_argument(item, at / index) for index, item in enumerate(value)]
    return BAD if BAD in good else _make(good, at, expand=False)


def _shell_syntax(words: list[str]) -> str:
    for word in words[1:]:
        if word in _OPERATORS or "`" in word or "$(" in word or word.endswith(";"):
            return word
    return ""


class OneCommand(Type):
    """Exactly one command."""

    text = "a command (a text or an array of texts)"

    def parse(self, value: object, at: At) -> Any:
        return one(value, at)

    def schema(self) -> Schema:
        return {"anyOf": [{"type": "string"}, {"type": "array", "minItems": 1, "items": _ELEMENT}]}


_ELEMENT: Schema = {
    "anyOf": [
        {"type": "string"},
        {
            "type": "object",
            "description": r"bytes that are not UTF-8: \xHH, and \\ for a backslash",
            "properties": {"bytes": {"type": "string"}},
            "required": ["bytes"],
            "additionalProperties": False,
        },
    ]
}


class Commands(Type):
    """One command or several; becomes a tuple of `Command`. With `prefixes`, a table may set "-" and "+"."""

    def __init__(self, *, prefixes: bool) -> None:
        self.prefixes = prefixes
        table = ", a table { command, ignore_failure, privileged }" if prefixes else ""
        self.text = f"a command (a text or an array of texts){table}, or an array of commands"

    def parse(self, value: object, at: At) -> Any:
        if isinstance(value, list) and any(self._is_command(item) for item in value):
            good = [self._one(item, at / index) for index, item in enumerate(value)]
            return BAD if BAD in good else tuple(good)
        if value == [] and self.prefixes:
            return ()
        found = self._one(value, at)
        return BAD if found is BAD else (found,)

    def _is_command(self, item: object) -> bool:
        """Say whether this element makes the array an array of commands."""
        return isinstance(item, list) or (self.prefixes and isinstance(item, dict) and "command" in item)

    def _one(self, value: object, at: At) -> Any:
        if not self.prefixes or not isinstance(value, dict):
            return one(value, at)
        flags: dict[str, bool] = {}
        bad = False
        for key, flag in value.items():
            if key in ("ignore_failure", "privileged"):
                flags[key] = flag
                if not isinstance(flag, bool):
                    bad = not (at / key).error(f"must be true or false, got {show(flag)}")
            elif key != "command":
                keys = ("command", "ignore_failure", "privileged")
                hint = near(key, keys) or f"the keys here are {', '.join(keys)}"
                bad = not (at / key).error("is no key that is known here", hint)
        if "command" not in value:
            return at.error("has no `command`", 'write { command = ["/bin/program"] }')
        found = one(value["command"], at / "command")
        if found is BAD or bad:
            return BAD
        return Command(found.words, found.expand, **flags)

    def schema(self) -> Schema:
        words = OneCommand().schema()["anyOf"]
        if not self.prefixes:
            return {"anyOf": [*words, {"type": "array", "minItems": 1, "items": {"anyOf": words}}]}
        table = {
            "type": "object",
            "properties": {
                "command": {"anyOf": words},
                "ignore_failure": {"type": "boolean", "description": "go on if it fails"},
                "privileged": {"type": "boolean", "description": "run as root and outside of the sandbox"},
            },
            "required": ["command"],
            "additionalProperties": False,
        }
        several = {"type": "array", "items": {"anyOf": [*words, table]}}
        return {"anyOf": [*words, table, several]}
