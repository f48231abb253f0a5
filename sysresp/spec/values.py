"""systemd's own kinds of values: paths, signals, exit statuses, names of units and users, addresses.

Owns what each may look like, by systemd's parsers. Never looks at the host: whether a user or a file exists
is asked elsewhere (sysresp.spec.host). Rule: `{instance}` may stand in any of them, so a check looks at the
value with an instance's name put in.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from sysresp.model import Credential, EnvironmentFile
from sysresp.spec.names import INSTANCE, has_unit_suffix, is_unit_name
from sysresp.spec.report import BAD, At, near, quote, show
from sysresp.spec.types import Bool, Choice, Converted, Int, Key, ListOf, MapOf, Str, Table


def filled(text: str, instance: str = "1") -> str:
    """Return the text as an instance of this name will see it."""
    return text.replace(INSTANCE, instance)


PATH_MAX = 4095  # of limits.h, without the final NUL; path_is_valid() of systemd refuses longer ones
NAME_MAX = 255


def path(text: str, at: At) -> Any:
    """Check an absolute path (path_simplify_and_warn in src/shared/parse-helpers.c)."""
    plain = filled(text)
    if not plain.startswith("/"):
        home = "no shell expands it; " if plain.startswith(("~", "$")) else ""
        return at.error(f"must be an absolute path, got {show(text)}", f"{home}begin it with /")
    parts = plain.split("/")
    if ".." in parts:
        return at.error(
            f'must not hold "..", which systemd refuses in paths, got {show(text)}', "write it out"
        )
    if len(text) > 60 and (
        len(plain.encode(errors="replace")) > PATH_MAX
        or max(len(p.encode(errors="replace")) for p in parts) > NAME_MAX
    ):
        return at.error(
            f"is longer than a path can be ({PATH_MAX} bytes, {NAME_MAX} each part)", "shorten it"
        )
    return text


PATH = Str("an absolute path", path)
PATHS = ListOf(PATH)


def _directory(text: str, at: At) -> Any:
    return text if text == "~" else path(text, at)


DIRECTORY = Str('an absolute path, or "~" for the user\'s home', _directory)


def _relative(text: str, at: At) -> Any:
    plain = filled(text)
    parts = plain.split("/")
    if text.startswith("/"):
        fix = "write the part below the fixed directory, such as /var/lib"
        return at.error(f"must be relative, got {show(text)}", fix)
    if "" in parts or ".." in parts or "." in parts or ":" in text or max(map(len, parts)) > NAME_MAX:
        return at.error(
            f"must be a plain relative path, got {show(text)}", 'write a name such as "shop/web"'
        )
    if plain.partition("/")[0] == "private":
        # config_parse_exec_directories() in src/core/load-fragment.c: DynamicUser= keeps its own there
        return at.error(f'must not be in "private", which systemd keeps, got {show(text)}', "rename it")
    if any(char in text for char in "\"'\\"):
        return at.error(
            f"must be without quotes and backslashes, which systemd reads twice here, got {show(text)}",
            "rename it",
        )
    return text


OWN_NAME = "\0own"
"""Stands for the unit's own name until the unit is known: state_directory = true."""

DIRECTORIES = Choice(
    {
        bool: Converted(Bool(), lambda value, _at: (OWN_NAME,) if value else ()),
        str: ListOf(Str("a relative path", _relative)),
        list: ListOf(Str("a relative path", _relative), single=False),
    },
    "true (the unit's own name), a relative path, or an array of them",
)


def _environment_file(text: str, at: At) -> Any:
    plain = text.removeprefix("-")
    return BAD if path(plain, at) is BAD else EnvironmentFile(plain, optional=plain != text)


ENVIRONMENT_FILES = ListOf(Str('an absolute path ("-" before it: it may be missing)', _environment_file))

TEMPLATE = Str(
    "the name of a template file", pattern=r"[^/\0-\x20.][^/\0-\x1f]*", fix='write "web.service.j2"'
)


MAX_ASSIGNMENT = 128 * 1024 - 1  # bytes of NAME=value: MAX_ARG_STRLEN of execve(2)
_SECRET = re.compile(
    r"(?i)(?:PASSWORD|PASSWD|PASSPHRASE|SECRET|TOKEN|API_?KEY|PRIVATE_?KEY|CREDENTIALS?)\Z|_PASS\Z"
)


_ASSIGNED = re.compile(r"-*([\w-]+)=(.+)", re.DOTALL)
_URL_PASSWORD = re.compile(r"://[^/@:\s]*:[^/@\s]+@")


def secret_in(words: Sequence[str]) -> str:
    """Return the name of what seems to be a secret in a command or URL, "" if there is none.

    --token=x, PASSWORD=x, --password x, ?token=x, //u:x@host; but not a path, and nothing that is expanded.
    """
    option = ""
    for word in words:
        if option and not word.startswith(("-", *_NO_SECRET)):
            return option
        for part in re.split("[?&]", word) if "://" in word else [word]:
            found = _ASSIGNED.fullmatch(part)
            if found and _is_secret(found[1]) and not found[2].startswith(_NO_SECRET):
                return found[1]
        if _URL_PASSWORD.search(word):
            return word.partition(":")[0]
        option = word if word.startswith("--") and not word.startswith("--no-") and _is_secret(word) else ""
    return ""


_NO_SECRET = ("/", "$", "@", "%", "{")


def _is_secret(name: str) -> bool:
    return _SECRET.search(name.replace("-", "_")) is not None


def _variable(text: str, at: At) -> Any:
    name = at.path[-1] if at.path else ""
    if len(text) > MAX_ASSIGNMENT // 4 and len(f"{name}={text}".encode()) > MAX_ASSIGNMENT:
        return at.error(f"is longer than the kernel takes ({MAX_ASSIGNMENT} bytes)", "put it into a file")
    if text and isinstance(name, str) and _SECRET.search(name):
        at.warn(
            "looks like a secret, but every user of the host can read the environment of a unit over D-Bus",
            "use `credentials`, or an `environment_file` with mode 0600",
        )
    return text


_VARIABLE = Str("a text", _variable, multiline=True)
ENVIRONMENT = MapOf(
    Str("a variable's name", pattern=r"[A-Za-z_][A-Za-z0-9_]*", fix="use letters, digits and _ only"),
    Choice(
        {str: _VARIABLE, int: Converted(Int(-(1 << 63), (1 << 63) - 1), lambda number, _at: str(number))},
        "a text or a whole number",
        fix="write it in quotes, exactly as the process should see it",
    ),
    "a table of variables",
)


def _credential(values: dict[str, Any], at: At) -> Any:
    if "path" not in values:
        return at.error("has no `path`", 'write { path = "/etc/shop/key", encrypted = true }')
    return Credential(**values)


CREDENTIALS = MapOf(
    Str(
        "a credential's name",
        pattern=r"[A-Za-z0-9_@-][A-Za-z0-9_.@-]{0,200}",
        fix="use letters, digits, _ . @ -",
    ),
    Table(
        [
            Key(
                "path",
                PATH,
                "File that holds the secret; root reads it, the service gets a copy",
                '"/etc/shop/key"',
            ),
            Key("encrypted", Bool(), "It was made by systemd-creds encrypt (systemd 250)", "true", "false"),
        ],
        _credential,
        "a table of path, encrypted",
        short="path",
    ),
    "a table of credentials: name -> path, or { path, encrypted }",
)


def _account(text: str, at: At) -> Any:
    plain = filled(text)  # valid_user_group_name() with VALID_USER_RELAX (src/basic/user-util.c)
    odd = re.search(r"[\x00-\x1f\x7f:/]", plain) or plain != plain.strip() or plain in ("", ".", "..")
    if odd or (plain[0] in "-+" and plain[1:].isdigit()) or plain.startswith("-"):
        return at.error(
            f"must be the name or number of an account, got {show(text)}", "see getent passwd and group"
        )
    return text


def _listed_account(text: str, at: At) -> Any:
    """Check one of several accounts: SupplementaryGroups= is split at blanks and knows no quotes."""
    if " " in text:
        return at.error(
            f"must be the name or number of an account, without blanks in a list of them, got {show(text)}",
            "write the number of the group",
        )
    return _account(text, at)


_NAME = Str("the name or number of an account", _account)
ACCOUNT = Choice(
    {str: _NAME, int: Converted(Int(0, 0xFFFFFFFE), lambda number, _at: str(number))}, _NAME.text
)


_LISTED_NAME = Str(_NAME.text, _listed_account)
ACCOUNTS = ListOf(Choice({**ACCOUNT.choices, str: _LISTED_NAME}, _NAME.text))


def _mode_number(value: int, at: At) -> Any:
    source = at.place().source
    if source and "0o" not in source:  # 27 is not 027, and whoever writes it means the latter
        return at.error(
            f"must say that it is octal, got {value}", f'write "{value:04d}" in quotes, or 0o{value}'
        )
    return value


def _mode_text(text: str, _at: At) -> int:
    return int(text, 8)


MODE = Choice(
    {
        str: Str("octal digits in quotes", _mode_text, pattern="[0-7]{1,4}", fix='write "0027"'),
        int: Converted(Int(0, 0o7777), _mode_number),
    },
    'an octal mode such as "0027"',
)

SIGNALS = (
    *(
        "HUP",
        "INT",
        "QUIT",
        "ILL",
        "TRAP",
        "ABRT",
        "BUS",
        "FPE",
        "KILL",
        "USR1",
        "SEGV",
        "USR2",
        "PIPE",
        "ALRM",
    ),
    *(
        "TERM",
        "STKFLT",
        "CHLD",
        "CONT",
        "STOP",
        "TSTP",
        "TTIN",
        "TTOU",
        "URG",
        "XCPU",
        "XFSZ",
        "VTALRM",
        "PROF",
    ),
    *("WINCH", "IO", "PWR", "SYS", "RTMIN", "RTMAX"),
)
_REALTIME = re.compile(r"RTMIN\+(?:[1-9]|[12][0-9]|30)\Z|RTMAX-(?:[1-9]|[12][0-9]|30)\Z")


def _signal(text: str, at: At) -> Any:
    name = text.upper().removeprefix("SIG")
    if name in SIGNALS or _REALTIME.match(name):
        return f"SIG{name}"
    return at.error(
        f"must be a signal, got {show(text)}", near(name, SIGNALS) or 'write a name such as "TERM"'
    )


SIGNAL = Str('a signal such as "TERM"', _signal, fix='write a name such as "TERM"')


def _status(text: str, at: At) -> Any:
    if text.isascii() and text.isdigit():
        return at.error(f"must be a number without quotes, or a signal, got {show(text)}", f"write {text}")
    return _signal(text, at)


STATUSES = ListOf(
    Choice(
        {int: Converted(Int(0, 255), lambda number, _at: str(number)), str: Str("a signal", _status)},
        "an exit status (0 to 255) or a signal",
    )
)


def _dependency(text: str, at: At) -> Any:
    plain = filled(text)
    if has_unit_suffix(plain) and not is_unit_name(plain):
        return at.error(f"is no valid unit name: {show(text)}", "use letters, digits and :-_.\\@")
    return text


DEPENDENCIES = ListOf(Str("a service of this file or a whole unit name", _dependency))


def _unit(text: str, at: At) -> Any:
    if not text.endswith(".service"):
        other = has_unit_suffix(text)
        return at.error(
            f"must end in .service, got {show(text)}",
            "use listen, schedule or watch for other units"
            if other
            else f"write {quote(text + '.service')}",
        )
    base = text.removesuffix(".service").removesuffix("@")
    if not is_unit_name(text) or "@" in base:
        return at.error(f"is no valid unit name: {show(text)}", "use letters, digits and :-_.\\")
    return text


UNIT = Str("a unit name that ends in .service", _unit, fix='write "web.service"')
SERVICE_NAME = Str(
    "a service's name", pattern=r"[A-Za-z0-9_][A-Za-z0-9_.-]*", fix="use letters, digits, _ . -"
)


def _instances(number: int, _at: At) -> tuple[str, ...]:
    return tuple(str(n) for n in range(1, number + 1))


INSTANCE_NAMES = ListOf(
    Str("an instance's name", pattern=r"[A-Za-z0-9_.:-]+", fix="use letters, digits and _ . : -"),
    single=False,
)


def _some(names: tuple[str, ...], at: At) -> Any:
    return names or at.error(
        "has no instance", "name one, or write `enabled = false` to keep the service off"
    )


INSTANCES = Choice(
    {int: Converted(Int(1, 1000), _instances), list: Converted(INSTANCE_NAMES, _some)},
    "a number from 1 to 1000, or an array of names",
)

BUS_NAME = Str(
    "a D-Bus name such as org.example.Shop",
    pattern=r"(?=.{3,255}\Z)[A-Za-z_-](?:[A-Za-z0-9_-]|\{instance\})*"
    r"(?:\.(?:[A-Za-z_-]|\{instance\})(?:[A-Za-z0-9_-]|\{instance\})*)+",
    fix='write "org.example.Shop"',
)
