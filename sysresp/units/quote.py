"""Values of directives: from exact text to what systemd reads back as that same text, and the inverse.

Owns every escaping rule of unit files, so that a process gets byte for byte what the user's file says. Never
decides which directive a value belongs to. The rules, with where systemd implements them:

    word        double quotes, C escapes, "%%", and "$$" in command lines (extract_first_word in
                src/basic/extract-word.c, unit_full_printf, replace_env_argv in src/basic/env-util.c)
    item        one element of a list of paths or names: quotes, but no C escapes other than \\\\ and \\"
    path, text  the rest of the line as it stands, "%%" (config_parse_unit_path_printf in load-fragment.c)

Text may hold lone surrogates U+DC80..U+DCFF for bytes that are not UTF-8. What systemd cannot represent
raises `Unrepresentable`, whose message continues "services.web.command: ".

Rule: whatever is returned here is one line of valid UTF-8 and holds no specifier but the %i of `{instance}`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from sysresp.model import Command
from sysresp.spec.names import INSTANCE

MAX_LINE = 1024 * 1024 - 512
"""Longest value, with room for the directive: a line above LONG_LINE_MAX (1 MiB) spoils the unit."""

MAX_ARGUMENT = 128 * 1024 - 1
"""Longest argument of execve(2): MAX_ARG_STRLEN, less its NUL."""

_BARE = re.compile(r"[A-Za-z0-9_./:=,@+~^%()?&*-]+").fullmatch  # needs no quotes anywhere in a list of words
_BARE_EXPANDED = re.compile(r"[A-Za-z0-9_./:=,@+~^%()?&*${}-]+").fullmatch
_NONCHARACTER = re.compile(
    "[\ufdd0-\ufdef"
    + "".join(f"{chr(p * 0x10000 + 0xFFFE)}{chr(p * 0x10000 + 0xFFFF)}" for p in range(17))
    + "]"
)
_UNICODE_TROUBLE = re.compile(_NONCHARACTER.pattern[:-1] + "\ud800-\udfff]")
_CONTROL = {c: f"\\x{c:02x}" for c in (*range(1, 32), 127)} | {ord("\n"): "\\n"}
_IN_WORD = _CONTROL | {ord("\\"): "\\\\", ord('"'): '\\"', ord("%"): "%%"}
_IN_COMMAND = _IN_WORD | {ord("$"): "$$"}
_UNESCAPE = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "s": " "} | {
    c: c for c in "\\\"'"
}
_BLANK = " \t\n\r"


class Unrepresentable(ValueError):
    """systemd has no way to write this value down."""

    def __init__(self, what: str, fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix


def word(text: str, *, command: bool, expand: bool = False, instanced: bool = False) -> str:
    """Return one word of a command line (`command`) or one Environment= assignment.

    With `expand`, `$` stays as it is, for systemd to expand $VAR and ${VAR}.
    """
    if "\0" in text:
        raise Unrepresentable("holds a NUL byte, which no process can be given", "remove the NUL")
    table = _IN_COMMAND if command and not expand else _IN_WORD
    if instanced and INSTANCE in text:
        body = "%i".join(_escape(piece, table) for piece in text.split(INSTANCE))
    else:
        body = _escape(text, table)
    bare = _BARE_EXPANDED if command and "$" in body else _BARE
    return body if bare(body) else f'"{body}"'


def command_line(command: Command, *, instanced: bool = False, privileged: bool = False) -> str:
    """Return the value of ExecStart= and its kin.

    The program's path is never expanded by systemd but argv[0] is, so an exact command whose path holds `$`
    gets the ":" prefix, under which nothing is expanded (systemd.service(5), since 244).
    """
    program, *arguments = command.words
    _check_program(program, command.expand)
    verbatim = not command.expand and "$" in program
    prefix = "-" * command.ignore_failure + ":" * verbatim + "+" * (command.privileged or privileged)
    keep_dollar = command.expand or verbatim
    first = word(program, command=True, expand=True, instanced=instanced)
    first = f'"{prefix}{first[1:]}' if first.startswith('"') else prefix + first
    words = [first]
    for argument in arguments:
        if len(argument) * 4 > MAX_ARGUMENT and len(_bytes(argument)) > MAX_ARGUMENT:
            raise Unrepresentable(
                "holds an argument of more than 128 KiB, which Linux gives to no process",
                "put it in a file, or on standard input",
            )
        words.append(word(argument, command=True, expand=keep_dollar, instanced=instanced))
    return _line(" ".join(words))


def environment(name: str, value: str, *, instanced: bool = False) -> str:
    """Return one Environment= assignment; systemd drops what is not valid UTF-8, so that is refused."""
    if _UNICODE_TROUBLE.search(value):
        raise Unrepresentable(
            "holds bytes that are not UTF-8 or a Unicode noncharacter: systemd silently drops it",
            "use an argument of an exact command, or a credential",
        )
    return _line(word(f"{name}={value}", command=False, instanced=instanced))


def text(value: str, *, instanced: bool = False) -> str:
    """Return a value that takes the rest of its line, such as Description=; blanks at its ends are lost."""
    if not value.isprintable():
        _refuse_line_breaks(value)
    if value[-1:] == "\\" or value != value.strip(_BLANK):
        raise Unrepresentable(
            "begins or ends with a blank or ends with a backslash, which a unit file cannot hold there",
            "remove it",
        )
    return _line(_specifiers(value, instanced))


def path(value: str, *, instanced: bool = False, directory: bool = False) -> str:
    """Return a path that takes the rest of its line; a directory may end in blanks or a backslash."""
    if directory and value[-1:] in (*_BLANK, "\\") and value:
        value += "/"  # a trailing slash is dropped by systemd, and what is before it is kept
    return text(value, instanced=instanced)


def item(value: str, *, instanced: bool = False) -> str:
    """Return one element of a list such as ReadWritePaths= or StateDirectory=."""
    if not value.isprintable():
        _refuse_line_breaks(value)
    value = _specifiers(value, instanced)
    if _BARE(value):
        return value
    value = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{value}"'


def loadable(value: str) -> None:
    """Raise if a whole unit file holds what systemd does not load."""
    if "\0" in value or _UNICODE_TROUBLE.search(value):
        raise Unrepresentable("holds a NUL, bytes that are not UTF-8 or a Unicode noncharacter", "remove it")


def split(value: str) -> list[str]:
    """Return the words of a line as systemd's extract_first_word (UNQUOTE, CUNESCAPE, RELAX) sees them.

    Specifiers and `$` are left as they are: `literal` undoes those.
    """
    words: list[str] = []
    at, end = 0, len(value)
    while True:
        while at < end and value[at] in _BLANK:
            at += 1
        if at >= end:
            return words
        out = bytearray()
        quote = ""
        while at < end and (quote or value[at] not in _BLANK):
            char = value[at]
            at += 1
            if char == "\\":
                raw, at = _unescape(value, at)
                out += raw
            elif char == quote:
                quote = ""
            elif not quote and char in "'\"":
                quote = char
            else:
                out += _bytes(char)
        words.append(out.decode(errors="surrogateescape"))


def literal(words: Iterable[str], *, command: bool, instance: str = "") -> list[str]:
    """Expand %% and %i, and $$ in a command line, as systemd does; any other specifier is a ValueError."""
    return [_literal(one, command, instance) for one in words]


def unspecified(value: str, instance: str = "") -> str:
    """Expand %% and %i, the only specifiers that are written here; any other is a ValueError."""
    pieces = value.split("%%")
    for at, piece in enumerate(pieces):
        if "%" in piece:
            left = piece.replace("%i", instance)
            if "%" in piece.replace("%i", ""):
                raise ValueError(f"holds the specifier %{piece.replace('%i', '').partition('%')[2][:1]}")
            pieces[at] = left
    return "%".join(pieces)


def _literal(one: str, command: bool, instance: str) -> str:
    one = unspecified(one, instance)
    return one.replace("$$", "$") if command else one


def _specifiers(value: str, instanced: bool) -> str:
    value = value.replace("%", "%%")
    return value.replace(INSTANCE, "%i") if instanced else value


def _escape(piece: str, table: dict[int, str]) -> str:
    body = piece.translate(table)
    if not body.isascii() and _UNICODE_TROUBLE.search(body):
        body = _UNICODE_TROUBLE.sub(lambda m: "".join(f"\\x{b:02x}" for b in _bytes(m[0])), body)
    return body


def _bytes(value: str) -> bytes:
    return value.encode(errors="surrogateescape")


def _unescape(value: str, at: int) -> tuple[bytes, int]:
    """Return the bytes of the escape whose backslash is before `at`, and where it ends (cunescape_one)."""
    char = value[at : at + 1]
    if char in _UNESCAPE and char:
        return _UNESCAPE[char].encode(), at + 1
    for lead, digits, base, is_byte in (
        ("x", 2, 16, True),
        ("u", 4, 16, False),
        ("U", 8, 16, False),
        ("", 3, 8, True),
    ):
        number = value[at + len(lead) : at + len(lead) + digits]
        if (
            char.startswith(lead)
            and len(number) == digits
            and all(c in "0123456789abcdefABCDEF"[: base + 6 * (base > 8)] for c in number)
        ):
            code = int(number, base)
            if code and code < (256 if is_byte else 0x110000):
                return (bytes((code,)) if is_byte else chr(code).encode()), at + len(lead) + digits
    return b"\\", at  # an unknown escape stays as it is (EXTRACT_UNESCAPE_RELAX)


def _check_program(program: str, expand: bool) -> None:
    if not program:
        raise Unrepresentable("has an empty program name", "write the program first")
    if expand and "$" in program:
        raise Unrepresentable(
            f"takes its program from a variable ({program}), which systemd never expands",
            "write the program's path; if the $ is part of the path, write the command as an array",
        )
    if "/" in program and not program.startswith("/"):
        raise Unrepresentable(
            f"has a relative program path ({program}), which systemd does not run", "write the absolute path"
        )
    if program[0] in "@-:+!|" or program == ";":
        raise Unrepresentable(
            f"has a program whose name begins with {program[0]!r}, which systemd takes for a prefix",
            "write the absolute path",
        )
    if program.endswith(("/", " ")) or any(c < " " or c in "\"'\\\x7f" for c in program):
        raise Unrepresentable(
            f"has a program path that systemd refuses ({program!r}): no quotes, backslashes, control "
            "characters, or blank or slash at its end",
            "rename the program, or make a symbolic link to it",
        )


def _refuse_line_breaks(value: str) -> None:
    if "\n" in value or "\r" in value or "\0" in value:
        raise Unrepresentable(
            "holds a line break or a NUL, which a unit file cannot hold there", "remove it"
        )
    if _UNICODE_TROUBLE.search(value):
        raise Unrepresentable(
            "holds bytes that are not UTF-8 or a Unicode noncharacter, which a unit file cannot hold",
            "rename it",
        )


def _line(value: str) -> str:
    if len(value) * 4 > MAX_LINE and len(value.encode()) > MAX_LINE:
        raise Unrepresentable(
            "makes a line of more than 1 MiB, which systemd does not load", "put it in a file"
        )
    return value
