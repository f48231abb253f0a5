"""Random texts that have broken unit files before, and services.toml text that holds them.

Owns the generator of tests/live/test_roundtrip.py. Everything comes from one `random.Random`, so a seed is a
whole run. What systemd cannot be given is generated, too, and the predicates below say so independently of
sysresp: they restate execve(2), systemd.exec(5) and src/basic/utf8.c, and must never call sysresp.
"""

from __future__ import annotations

import random
import string
from dataclasses import dataclass

import tomli_w

TROUBLE = "%$\\\"'`;:@-+!|#=[]{}<>&*?~^,. \t"
CONTROL = "".join(map(chr, (*range(1, 32), 127, *range(128, 160))))
ODD = (
    "\u00a0\u00ad\u034f\u0301\u200b\u200d\u200e\u2028\u2029\u202e\u2066\u3000\ufeff\ufffd\ue000"
    "\U000e0001\U0010fffd"
)
NONCHARACTERS = "\ufdd0\ufdef\ufffe\uffff\U0001fffe\U0001ffff\U0010fffe\U0010ffff"
WORDS = (
    *("", "", " ", "  x  ", ";", ";;", "\\;", "#", "# x", "[Service]", "ExecStart=/bin/false"),
    *(
        "%",
        "%%",
        "%i",
        "%n",
        "%h",
        "%z",
        "100%",
        "$",
        "$$",
        "$HOME",
        "${HOME}",
        "${",
        "$1",
        "a$",
        "$(id)",
        "`id`",
    ),
    *(
        "\\",
        "\\\\",
        "\\n",
        "\\x41",
        "\\x",
        "\\u0041",
        "\\U00000041",
        "\\101",
        "\\q",
        "x\\",
        "x\\\n",
        "\\\r\n",
        "\n",
        "\r",
    ),
    *("'", '"', "''", '""', "'a", '"a', "'''", '"""', "a'b\"c"),
    *(
        "-",
        "@",
        ":",
        "+",
        "!",
        "!!",
        "|",
        "--",
        "-@:+!|",
        "-/bin/true",
        "@/bin/true",
        "+x",
        "!x",
        "|x",
        ":x",
    ),
    *(
        "{instance}",
        "{{ x }}",
        "{% x %}",
        "{# x #}",
        "~",
        "~root",
        "*",
        "/",
        ".",
        "..",
        "a=b",
        "=",
        "<<EOF",
        "&&",
    ),
    *("\x1b[31m", "\x07", "\x7f", "\x85", "\ufeffx", "\u202etxt", "x\u0301", "\u2028"),
)
IDENTIFIER = string.ascii_letters + string.digits + "_"
MAX_ARGUMENT = 128 * 1024 - 1  # bytes, execve(2) MAX_ARG_STRLEN less the NUL


def is_noncharacter(char: str) -> bool:
    """Say whether Unicode promises never to assign this code point; systemd's UTF-8 check refuses it."""
    code = ord(char)
    return 0xFDD0 <= code <= 0xFDEF or code & 0xFFFE == 0xFFFE


def scalar(rng: random.Random) -> str:
    """Return any Unicode scalar value but NUL."""
    while 0xD800 <= (code := rng.randrange(1, 0x110000 if rng.random() < 0.5 else 0x10000)) <= 0xDFFF:
        pass
    return chr(code)


def char(rng: random.Random) -> str:
    """Return one character, most often one that means something to somebody on the way."""
    kind = rng.random()
    if kind < 0.35:
        return rng.choice(TROUBLE)
    if kind < 0.55:
        return rng.choice(CONTROL)
    if kind < 0.7:
        return scalar(rng)
    if kind < 0.8:
        return rng.choice(ODD)
    return rng.choice(string.ascii_letters + string.digits)


def text(rng: random.Random, longest: int = 24) -> str:
    """Return a text without NUL and without lone surrogates."""
    kind = rng.random()
    if kind < 0.3:
        return rng.choice(WORDS)
    if kind < 0.4:
        return "".join(rng.choice(WORDS) for _ in range(rng.randrange(1, 5)))
    return "".join(char(rng) for _ in range(rng.randrange(longest)))


def raw_bytes(rng: random.Random) -> bytes:
    """Return bytes without NUL that are hardly ever UTF-8."""
    return bytes(rng.randrange(1, 256) for _ in range(rng.randrange(1, 24)))


def toml_text(rng: random.Random, value: str) -> str:
    """Write the value in one of TOML's ways to write a string."""
    calm = all(c == "\t" or (c >= " " and c != "\x7f") for c in value)
    calm_lines = all(c in "\t\n" or (c >= " " and c != "\x7f") for c in value)
    forms = ["tomli_w", "basic", "escaped", "multi-line"]
    if calm and "'" not in value:
        forms.append("literal")
    if calm_lines and "'" not in value:
        forms.append("multi-line literal")
    match rng.choice(forms):
        case "literal":
            return f"'{value}'"
        case "multi-line literal":
            return f"'''\n{value}'''"
        case "escaped":
            short = {
                "\b": "\\b",
                "\t": "\\t",
                "\n": "\\n",
                "\f": "\\f",
                "\r": "\\r",
                '"': '\\"',
                "\\": "\\\\",
            }
            each = (
                short.get(c) or (f"\\u{ord(c):04X}" if c < "\U00010000" else f"\\U{ord(c):08X}")
                for c in value
            )
            return f'"{"".join(each)}"'
        case "multi-line":
            safe = (c if calm_char(c) or c == "\n" else f"\\u{ord(c):04x}" for c in value)
            return f'"""\n{"".join(safe)}"""'
        case "basic":
            safe = (c if calm_char(c) else f"\\u{ord(c):04x}" for c in value)
            return f'"{"".join(safe)}"'
        case _:
            return tomli_w.dumps({"k": value}).removeprefix("k = ").rstrip("\n")


def calm_char(char: str) -> bool:
    """Say whether the character may stand for itself in a basic string."""
    return char not in '"\\' and (char == "\t" or (char >= " " and char != "\x7f"))


def toml_bytes(rng: random.Random, value: bytes) -> str:
    """Write the value as the table that stands for bytes in an array of words."""
    out = []
    for byte in value:
        if byte == ord("\\"):
            out.append("\\\\" if rng.random() < 0.5 else "\\x5c")
        elif 0x20 <= byte < 0x7F and byte != ord("'"):
            out.append(chr(byte))
        else:
            out.append(rng.choice((f"\\x{byte:02x}", f"\\x{byte:02X}")))
    return f"{{ bytes = '{''.join(out)}' }}"


@dataclass(frozen=True)
class Case:
    """One service: what its process must be given, as bytes, and the lines of TOML that ask for it."""

    name: str
    program: bytes
    arguments: tuple[bytes, ...]
    environment: dict[bytes, bytes]
    directory: bytes
    toml: str
    refused: frozenset[
        str
    ]  # the keys of which systemd cannot be given the value: command, environment, directory


def make_case(rng: random.Random, name: str, programs: list[str], directories: str) -> Case:
    """Return a random service whose working directory is below `directories`."""
    program = rng.choice(programs)
    words, arguments = [toml_text(rng, program)], []
    refused = set()
    for _ in range(rng.randrange(8)):
        if rng.random() < 0.2:
            value = raw_bytes(rng)
            words.append(toml_bytes(rng, value))
        else:
            chosen = text(rng)
            if rng.random() < 0.02:
                chosen += rng.choice(NONCHARACTERS)
            words.append(toml_text(rng, chosen))
            value = chosen.encode()
        arguments.append(value)
    if rng.random() < 0.005:
        length = rng.choice((MAX_ARGUMENT, MAX_ARGUMENT + 1))
        words.append(toml_text(rng, "%" * length))
        arguments.append(b"%" * length)
    if rng.random() < 0.01:
        words.append('"\\u0000"')
        arguments.append(b"\0")
    if any(b"\0" in a or len(a) > MAX_ARGUMENT for a in arguments):
        refused.add("command")
    environment = {}
    for _ in range(rng.randrange(6)):
        key = "V" + "".join(rng.choice(IDENTIFIER) for _ in range(rng.randrange(9)))
        environment[key] = text(rng) + (rng.choice(NONCHARACTERS + "\0") if rng.random() < 0.01 else "")
    if any(c == "\0" or is_noncharacter(c) for value in environment.values() for c in value):
        refused.add("environment")
    component = text(rng, 16).replace("/", "_") + rng.choice(("", "", "", " ", "\t", "\\", "\\\\"))
    if component in ("", ".", ".."):
        component = "x"
    directory = f"{directories}/{name}/{component}"
    if rng.random() < 0.01:
        directory += rng.choice(NONCHARACTERS + "\0")
    if any(c in "\0\n\r" or is_noncharacter(c) for c in directory):
        refused.add("directory")
    table = ", ".join(f"{key} = {toml_text(rng, value)}" for key, value in environment.items())
    lines = [
        f"[services.{name}]",
        'kind = "oneshot"',
        f"command = [{', '.join(words)}]",
        f"environment = {{ {table} }}",
        f"directory = {toml_text(rng, directory)}",
    ]
    as_bytes = {key.encode(): value.encode() for key, value in environment.items()}
    return Case(
        name,
        program.encode(),
        tuple(arguments),
        as_bytes,
        directory.encode(),
        "\n".join(lines) + "\n",
        frozenset(refused),
    )
