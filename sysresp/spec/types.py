"""Types of values in services.toml: small objects that are put together in sysresp.spec.keys.

Each has `parse` (a TOML value -> a value of the model, or BAD after saying why), `schema` (the same as JSON
Schema) and `text` (the same in words), so that the check, the editor's schema and the manual cannot differ.
Never knows the name of any key. Rule: `schema` accepts whatever `parse` accepts; it may accept more where
JSON Schema cannot say it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from sysresp.spec.report import BAD, At, either, near, quote, show

Schema = dict[str, Any]

# What cannot stand in a line of a unit file: NUL ends it, LF and CR begin the next, and a line that holds a
# noncharacter fails unichar_is_valid() (src/basic/utf8.c) and makes the whole unit unloadable.
NONCHARACTER = "\ufdd0-\ufdef" + "".join(
    f"{chr(plane + 0xFFFE)}{chr(plane + 0xFFFF)}" for plane in range(0, 0x110000, 0x10000)
)
_UNWRITABLE = re.compile(f"[\0\n\r{NONCHARACTER}]")
_UNWRITABLE_VALUE = re.compile(f"[\0{NONCHARACTER}]")


class Type:
    """A type of value."""

    text = "a value"
    """In words, as in "must be a duration"."""

    def parse(self, value: object, at: At) -> Any:
        """Return the value for the model, or BAD after reporting at `at`."""
        raise NotImplementedError

    def schema(self) -> Schema:
        """Return the JSON Schema (draft 2020-12) of what `parse` accepts."""
        raise NotImplementedError

    def wrong(self, value: object, at: At, fix: str = "") -> Any:
        """Report that the value is not of this type."""
        return at.error(f"must be {self.text}, got {show(value)}", fix)


class Str(Type):
    """A text on one line; `check` may refuse it or return something else for it."""

    def __init__(
        self,
        text: str = "a text",
        check: Callable[[str, At], Any] | None = None,
        *,
        pattern: str = "",
        fix: str = "",
        multiline: bool = False,
    ) -> None:
        self.text = text
        self.check = check
        self.pattern = pattern
        self.match = re.compile(f"(?:{pattern})\\Z").match if pattern else None
        self.fix = fix
        self.unwritable = (_UNWRITABLE_VALUE if multiline else _UNWRITABLE).search

    def parse(self, value: object, at: At) -> Any:
        if not isinstance(value, str):
            plain = isinstance(value, bool | int) and abs(value) < 1e20
            quotes = plain and (self.match(show(value)) if self.match else not self.fix)
            return self.wrong(value, at, f'write it in quotes: "{show(value)}"' if quotes else self.fix)
        if bad := self.unwritable(value):
            return at.error(
                f"holds U+{ord(bad[0]):04X} at character {bad.start() + 1}, which systemd cannot hold here",
                "remove it",
            )
        if not self.fits(value):
            return self.wrong(value, at, self.fix)
        return self.check(value, at) if self.check else value

    def fits(self, value: str) -> bool:
        """Say whether the text has the form; `check` may still refuse it."""
        return self.match is None or self.match(value) is not None

    def schema(self) -> Schema:
        return {"type": "string", "pattern": f"^(?:{self.pattern})$"} if self.pattern else {"type": "string"}


_MEANT = {
    **dict.fromkeys(("yes", "on", "true", "1"), "true"),
    **dict.fromkeys(("no", "off", "false", "0"), "false"),
}


class Bool(Type):
    """true or false."""

    text = "true or false"

    def parse(self, value: object, at: At) -> Any:
        if isinstance(value, bool):
            return value
        meant = _MEANT.get(value.lower()) if isinstance(value, str) else None
        return self.wrong(value, at, f"write {meant}, without quotes" if meant else "")

    def schema(self) -> Schema:
        return {"type": "boolean"}


class Int(Type):
    """A whole number in a range."""

    def __init__(self, low: int, high: int, text: str = "") -> None:
        self.low, self.high = low, high
        self.text = text or f"a whole number from {low} to {high}"

    def parse(self, value: object, at: At) -> Any:
        if isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high:
            return value
        digits = isinstance(value, str) and value.isascii() and value.isdigit()
        return self.wrong(value, at, "write it without quotes" if digits else "")

    def schema(self) -> Schema:
        return {"type": "integer", "minimum": self.low, "maximum": self.high}


class Enum(Type):
    """One of some words; `aliases` are other names of them."""

    def __init__(
        self, values: Sequence[str], aliases: Mapping[str, str] | None = None, fix: str = ""
    ) -> None:
        self.values = {**{value: value for value in values}, **(aliases or {})}
        self.text = either(quote(value) for value in self.values)
        self.fix = fix

    def parse(self, value: object, at: At) -> Any:
        if isinstance(value, str):
            if value in self.values:
                return self.values[value]
            return self.wrong(value, at, near(value, self.values) or self.fix)
        off = f'write "{"yes" if value else "no"}", in quotes' if isinstance(value, bool) else ""
        return self.wrong(
            value, at, off if off.split('"')[1:2] and off.split('"')[1] in self.values else self.fix
        )

    def schema(self) -> Schema:
        return {"enum": list(self.values)}


class ListOf(Type):
    """An array of one type; becomes a tuple. With `single`, one value stands for an array of it."""

    def __init__(self, item: Type, *, single: bool = True, unique: bool = True, most: int = 1000) -> None:
        self.item, self.single, self.unique, self.most = item, single, unique, most
        self.text = f"{item.text}, or an array of them" if single else f"an array, each {item.text}"

    def parse(self, value: object, at: At) -> Any:
        if not isinstance(value, list):
            if not self.single:
                return self.wrong(value, at)
            one = self.item.parse(value, at)
            return BAD if one is BAD else (one,)
        if len(value) > self.most:
            return at.error(
                f"has {len(value)} elements, at most {self.most} are possible", "make it shorter"
            )
        good = [self.item.parse(item, at / index) for index, item in enumerate(value)]
        if BAD in good:
            return BAD
        if self.unique and len(set(good)) != len(good):
            twice = next(index for index, item in enumerate(good) if item in good[:index])
            return (at / twice).error(f"is there twice: {show(value[twice])}", "remove one")
        return tuple(good)

    def schema(self) -> Schema:
        array = {"type": "array", "items": self.item.schema()}
        return {"anyOf": [self.item.schema(), array]} if self.single else array


class MapOf(Type):
    """A table with free keys and values of one type; becomes a dict."""

    def __init__(self, key: Str, item: Type, text: str) -> None:
        self.key, self.item, self.text = key, item, text

    def parse(self, value: object, at: At) -> Any:
        if not isinstance(value, dict):
            return self.wrong(value, at)
        good: dict[str, Any] = {}
        bad = False
        for name, item in value.items():
            here = at / name
            key = self.key.parse(name, here)
            parsed = self.item.parse(item, here)
            bad |= key is BAD or parsed is BAD
            good[key] = parsed
        return BAD if bad else good

    def schema(self) -> Schema:
        schema = {"type": "object", "additionalProperties": self.item.schema()}
        return {**schema, "propertyNames": self.key.schema()} if self.key.pattern else schema


class Key(NamedTuple):
    """One row of a table of keys."""

    name: str
    type: Type
    doc: str  # one line
    example: str = ""  # as TOML, the value only
    default: str = ""  # in words
    field: str = ""  # of the model; "" if it is called as the key


class Table(Type):
    """A table with known keys; `make` puts the values together, or reports that they do not fit.

    `short` names the key that a value which is no table stands for: restart = "always" is
    restart = { when = "always" }.
    """

    def __init__(
        self, keys: Sequence[Key], make: Callable[[dict[str, Any], At], Any], text: str = "", short: str = ""
    ) -> None:
        self.keys = {key.name: key for key in keys}
        self.make = make
        self.short = short
        words = text or f"a table of {either(key.name for key in keys)}"
        self.text = f"{self.keys[short].type.text}, or {words}" if short else words

    def parse(self, value: object, at: At) -> Any:
        if not isinstance(value, dict):
            if not self.short:
                return self.wrong(value, at)
            key = self.keys[self.short]
            parsed = key.type.parse(value, at)
            return BAD if parsed is BAD else self.make({key.field or key.name: parsed}, at)
        values, bad = self.values(value, at)
        return BAD if bad else self.make(values, at)

    def values(self, value: Mapping[str, object], at: At) -> tuple[dict[str, Any], bool]:
        """Return the good values by field, and whether something was bad."""
        good: dict[str, Any] = {}
        bad = False
        keys = self.keys
        for name, item in value.items():
            key = keys.get(name)
            if key is None:
                unknown(name, keys, at / name)
                bad = True
            elif (
                parsed := key.type.parse(item, At(at.report, (*at.path, name), (name, key.example)))
            ) is BAD:
                bad = True
            else:
                good[key.field or name] = parsed
        return good, bad

    def schema(self) -> Schema:
        properties = {key.name: described(key) for key in self.keys.values()}
        table = {"type": "object", "properties": properties, "additionalProperties": False}
        return {"anyOf": [self.keys[self.short].type.schema(), table]} if self.short else table


def described(key: Key) -> Schema:
    """Return the schema of a key with its documentation."""
    return {"description": key.doc, **key.type.schema()}


def unknown(name: str, keys: Mapping[str, Key], at: At) -> None:
    """Report a key that does not exist, with a near match or all that do."""
    known = [key.name for key in keys.values()]
    at.error(
        "is no key that is known here", near(name, known) or f"the keys here are {', '.join(sorted(known))}"
    )


class Choice(Type):
    """One of several types, told apart by the TOML type of the value (bool before int)."""

    def __init__(self, choices: Mapping[type, Type], text: str = "", fix: str = "") -> None:
        self.choices = dict(choices)
        self.text = text or either(dict.fromkeys(choice.text for choice in self.choices.values()))
        self.fix = fix

    def parse(self, value: object, at: At) -> Any:
        choice = self.choices.get(type(value))
        return choice.parse(value, at) if choice else self.wrong(value, at, self.fix)

    def schema(self) -> Schema:
        return {"anyOf": [choice.schema() for choice in dict.fromkeys(self.choices.values())]}


class Converted(Type):
    """Another type whose good values are changed."""

    def __init__(self, base: Type, change: Callable[[Any, At], Any], text: str = "") -> None:
        self.base, self.change = base, change
        self.text = text or base.text

    def parse(self, value: object, at: At) -> Any:
        parsed = self.base.parse(value, at)
        return BAD if parsed is BAD else self.change(parsed, at)

    def schema(self) -> Schema:
        return self.base.schema()
