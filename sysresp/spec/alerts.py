"""[alerts.NAME] of services.toml: who can be told of incidents.

Owns its keys and what of them fits together. Never looks for a program or a file, and never connects. Rule:
no key takes a secret itself: the file, and what is made of it, may be read by everybody.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from sysresp.model import Alert
from sysresp.spec.commands import OneCommand
from sysresp.spec.quantities import Duration
from sysresp.spec.report import BAD, At, near, quote, show
from sysresp.spec.types import Bool, Enum, Int, Key, ListOf, MapOf, Schema, Str, Table, Type
from sysresp.spec.values import secret_in

WAYS = ("exec", "url", "mailto", "apprise")
FIELDS = ("service", "summary", "kind", "incident", "host", "project", "unit", "key", "text", "since")
"""What stands for something of the message, as {service}, in arguments and in `body`."""

_FIELD = re.compile(r"\{([a-z_]+)\}")
_BELONGS = {  # key -> the ways that it is for
    "body": ("url",),
    "secret": ("url", "mailto"),
    "ca": ("url", "mailto"),
    "smtp": ("mailto",),
    "from": ("mailto",),
    "user": ("mailto",),
}

NAME = Str("a name", pattern=r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", fix="use letters, digits, _ . -")
ALERT_NAMES = ListOf(NAME, single=False)


class _Argv(OneCommand):
    """A command whose words are passed as they stand, but for {fields}."""

    def parse(self, value: object, at: At) -> Any:
        command = super().parse(value, at)
        if command is BAD:
            return BAD
        program = command.words[0]
        if not program.startswith("/"):
            return at.error(f"has a program that is no absolute path: {quote(program)}", "write it in full")
        if _has_unknown_field(command.words, at):
            return BAD
        if name := secret_in(command.words):
            what = f"seems to hold a secret, which every user of the host can read: {quote(name)}"
            at.warn(what, "let the program read it from a file of its own")
        return tuple(command.words)


class _Body(Type):
    """Any table, which becomes JSON."""

    text = "a table, which is sent as JSON"

    def parse(self, value: object, at: At) -> Any:
        if not isinstance(value, dict):
            return self.wrong(value, at, 'write { text = "{summary}" }')
        if _has_unknown_field(tuple(_texts(value)), at):
            return BAD
        try:
            return json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):
            return at.error("holds a date or a number that JSON cannot have", "write it as a text")

    def schema(self) -> Schema:
        return {"type": "object"}


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def _has_unknown_field(texts: tuple[str, ...], at: At) -> bool:
    for text in texts:
        for name in _FIELD.findall(text):
            if name not in (*FIELDS, "secret"):
                fix = near(name, FIELDS) or f"the fields are {', '.join(FIELDS)}"
                return not at.error(f"holds {quote('{' + name + '}')}, which is no field of a message", fix)
    return False


def _quiet(text: str, at: At) -> Any:
    begin, _, end = text.partition("-")
    if begin == end:
        return at.error(f"is no time at all, or all day: {show(text)}", 'write "22:00-07:00"')
    return begin, end


def _alert(values: dict[str, Any], at: At) -> Any:
    ways = [way for way in WAYS if way in values]
    if len(ways) != 1:
        what = f"has {' and '.join(f'`{way}`' for way in ways)}" if ways else "says nobody to tell"
        return at.error(what, f"write one of {', '.join(WAYS)}")
    by = ways[0]
    for key, ways_of_it in _BELONGS.items():
        if key in values and by not in ways_of_it:
            return (at / key).error(f"is for {' and '.join(ways_of_it)}, and this is {by}", "remove it")
    own = [key for key in ("user", "secret", "ca") if key in values]
    if by == "mailto" and "smtp" not in values and own:
        return (at / own[0]).error("needs `smtp`: sendmail knows its own", "remove it, or add smtp")
    if by == "mailto" and ("user" in values) != ("secret" in values):
        here = at / ("user" if "user" in values else "secret")
        return here.error(
            "needs the other: `user` and `secret` are the login", "add the other, or remove it"
        )
    if "ca" in values and values.get("url", "").startswith("http://"):
        return (at / "ca").error("is for https, and `url` is http", "remove it, or write https://")
    if "{secret}" in values.get("url", "") and "secret" not in values:
        return (at / "url").error("holds {secret}, and there is no `secret`", 'write secret = "/etc/..."')
    way = values.pop(by)
    target = {"exec": "argv", "apprise": "argv", "url": "url", "mailto": "to"}[by]
    if "from" in values:
        values["sender"] = values.pop("from")
    return Alert(by=by, **{target: way}, **values)


_ADDRESS = Str("a mail address", pattern=r"[!-~]+@[A-Za-z0-9.\[\]:-]+", fix='write "ops@example.org"')
ALERT = Table(
    [
        Key(
            "exec",
            _Argv(),
            "This program is run; the incident is its standard input, as JSON",
            '["/usr/local/bin/page", "{service}", "{summary}"]',
        ),
        Key(
            "url",
            Str("a URL", pattern=r"https?://[!-~]+", fix='write "https://example.org/hook"'),
            "The incident is posted there, as JSON",
            '"https://example.org/hook"',
        ),
        Key("mailto", ListOf(_ADDRESS), "It is mailed there", '"ops@example.org"'),
        Key(
            "apprise",
            _Argv(),
            "Apprise, as installed here, tells whom its own configuration names",
            '["/usr/bin/apprise", "--config", "/etc/sysresp/apprise.yml"]',
        ),
        Key(
            "body",
            _Body(),
            "What is posted instead; {summary} and others are filled in",
            '{ text = "{summary}" }',
        ),
        Key(
            "smtp",
            Str(
                "HOST:PORT",
                pattern=r"(?:[A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\]):[0-9]{1,5}",
                fix='write "mail:25"',
            ),
            "Mail goes to this server; without it, to that of this host, or to sendmail",
            '"mail.example.org:587"',
        ),
        Key(
            "ca",
            Str("an absolute path", pattern=r"/[ -~]*[!-~]", fix='write "/etc/sysresp/ca.pem"'),
            "File of the certificates to trust, PEM; then nothing goes there without TLS",
            '"/etc/sysresp/ca.pem"',
            "those of the system",
        ),
        Key("from", _ADDRESS, "The sender of mails", '"sysresp@example.org"', "sysresp@HOST"),
        Key("user", Str(), "Name for the login at the SMTP server", '"sysresp"'),
        Key(
            "secret",
            Str(
                "an absolute path, or a credential's name",
                pattern=r"/[ -~]*[!-~]|[A-Za-z0-9_@-][A-Za-z0-9_.@-]{0,200}",
                fix='write "/etc/sysresp/ops.secret"',
            ),
            "File with the password, or the bearer token; {secret} in `url` stands for it",
            '"/etc/sysresp/ops.secret"',
        ),
        Key(
            "on",
            ListOf(Enum(("gave-up", "flapping", "probe", "blocked", "every-exit"))),
            "Which incidents it is told of",
            '["gave-up", "flapping"]',
            "all but every-exit",
        ),
        Key("repeat_after", Duration(low=60), "Told again while it lasts", '"4h"', "never", "repeat_sec"),
        Key(
            "escalate_after",
            Duration(low=1),
            "Told once more, as escalated, if it lasts so long",
            '"30min"',
            "never",
            "escalate_sec",
        ),
        Key(
            "quiet",
            Str(
                'local times such as "22:00-07:00"',
                _quiet,
                pattern=r"(?:[01][0-9]|2[0-3]):[0-5][0-9]-(?:[01][0-9]|2[0-3]):[0-5][0-9]",
                fix='write "22:00-07:00"',
            ),
            "Told after this time only, and not at all if it was resolved by then",
            '"22:00-07:00"',
            "never quiet",
        ),
        Key("resolve", Bool(), "Its end is told, too", "false", "true"),
        Key("most", Int(1, 1000), "Messages an hour about incidents of one service", "3", "10"),
        Key("timeout", Duration(low=1), "For one try", '"5s"', "20s", "timeout_sec"),
    ],
    _alert,
    "a table of an alert",
)
ALERTS = MapOf(NAME, ALERT, "a table of alerts")
