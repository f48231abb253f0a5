"""Whatever is in the file, parsing ends with a spec or with problems that have a place, and never raises."""

from __future__ import annotations

import shlex
import tomllib
from datetime import date
from typing import Any

import pytest
import tomli_w
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sysresp.errors import Severity
from sysresp.model import Command, Scope
from sysresp.spec import commands, lines
from sysresp.spec.keys import SERVICE_TABLE, TOP
from sysresp.spec.layers import Document
from sysresp.spec.parse import Layer, merged, parse
from sysresp.spec.quantities import span
from sysresp.spec.report import BAD, At, Report, dotted, near, quote, show
from sysresp.spec.types import Bool, ListOf, Type

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
LIKELY = st.sampled_from(
    [
        *(
            "",
            "x",
            "/bin/x",
            "5s",
            "infinity",
            "512M",
            "10%",
            "always",
            "127.0.0.1:80",
            "web",
            "a.service",
            "daily",
        ),
        *(
            "{instance}",
            "\0",
            "\ufdd0",
            "a\nb",
            "../x",
            "@",
            "[::1]:80",
            "http://x",
            "(",
            "'",
            '"',
            "\\",
            "$x",
        ),
    ]
)
SCALAR = st.one_of(
    LIKELY,
    TEXT,
    st.booleans(),
    st.integers(-5, 300),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.floats(),
    st.dates(),
)
INNER = sorted({name for key in SERVICE_TABLE.keys.values() for name in getattr(key.type, "keys", {})})
KEYS = st.one_of(
    st.sampled_from(sorted(SERVICE_TABLE.keys)),
    st.sampled_from([*INNER, "command", "bytes", "path", "Service", "PASSWORD"]),
    TEXT,
)
VALUE = st.recursive(
    SCALAR,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=8,
)
SERVICE = st.dictionaries(KEYS, VALUE, max_size=6)
DOCUMENT = st.one_of(
    st.dictionaries(st.one_of(st.sampled_from(sorted(TOP)), KEYS), VALUE, max_size=4),
    st.fixed_dictionaries(
        {
            "services": st.dictionaries(
                st.sampled_from(["web", "db", "a b"]) | TEXT, SERVICE | VALUE, max_size=3
            )
        },
        optional={"defaults": SERVICE, "project": SCALAR, "description": SCALAR},
    ),
)


def holds(layers: list[Layer], scope: Scope) -> None:
    spec, problems = parse(layers, scope=scope)
    assert (spec is None) == any(p.severity is Severity.ERROR for p in problems)
    names = {layer.path for layer in layers} | {""}
    for problem in problems:
        assert problem.what
        assert problem.fix
        assert problem.origin.path in names
        assert problem.origin.line >= 0
        assert "\n" not in problem.what + problem.fix + problem.source
    if spec is not None:
        for service in spec.services.values():
            assert service.origin.line > 0
            assert all(origin.line > 0 for origin in service.lines.values())
            hash(service.command)


@settings(deadline=None, max_examples=300)
@given(st.lists(DOCUMENT, min_size=1, max_size=3), st.sampled_from(Scope))
def test_any_document(documents: list[dict[str, Any]], scope: Scope) -> None:
    layers = [Layer(f"l{n}.toml", tomli_w.dumps(doc).encode()) for n, doc in enumerate(documents)]
    holds(layers, scope)
    merged(layers)


@settings(deadline=None)
@given(st.binary(max_size=60) | st.text("[]{}=\"'#.,\\\n\r ab1-:", max_size=60).map(str.encode))
@example(b"a = 1979-05-27T00:00:00+99:99")
@example(b"a = 0001-01-01T00:00:00+23:59")
@example(b"\xef\xbb\xbf[")
def test_any_bytes(content: bytes) -> None:
    holds([Layer("x.toml", content)], Scope.SYSTEM)


@settings(deadline=None)
@given(st.data())
def test_a_torn_file(data: st.DataObject) -> None:
    text = '[services.web]\ncommand = ["x", "é"]\nrestart = { delay = "5s" }\n[[x]]\n"a b".c = 1\n'.encode()
    holds([Layer("x.toml", text[: data.draw(st.integers(0, len(text)))])], Scope.SYSTEM)


@pytest.mark.parametrize("key", sorted(SERVICE_TABLE.keys))
def test_any_value_of_each_key(key: str) -> None:
    @settings(deadline=None, max_examples=25)
    @given(VALUE)
    def one(value: Any) -> None:
        document = tomli_w.dumps({"services": {"web": {"command": "x", key: value}}})
        _, problems = parse([Layer("x.toml", document.encode())])
        for problem in problems:
            assert problem.origin.line > 0
            assert problem.key.startswith("services.web")
        holds([Layer("x.toml", document.encode())], Scope.USER)

    one()


@settings(deadline=None)
@given(DOCUMENT)
def test_positions_change_nothing_and_are_right(document: dict[str, Any]) -> None:
    """The document is tomllib's, and each position is a line that holds the last part of its path."""
    text = tomli_w.dumps(document)
    source, problem = lines.read("x.toml", text.encode())
    if problem is not None:  # nested too deeply for us
        return
    assert repr(source.data) == repr(tomllib.loads(text))
    for path, offset in source.offsets.items():
        last = [part for part in path if isinstance(part, str)][-1]
        line = source.source(source.line(offset))
        header_or_key = line.split("=", maxsplit=1)[0] if last in line.split("=", maxsplit=1)[0] else line
        if len(line) < 200 and last.isascii() and last.isalnum():
            assert last in header_or_key


@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8), max_size=4
    )
)
def test_an_array_is_exact(rest: list[str]) -> None:
    document = tomli_w.dumps({"services": {"web": {"command": ["/bin/x", *rest]}}})
    spec, problems = parse([Layer("x.toml", document.encode())])
    assert spec is not None, problems
    assert spec.services["web"].command == (Command(("/bin/x", *rest)),)


@given(st.binary(max_size=20).filter(lambda content: b"\0" not in content))
def test_any_bytes_can_be_an_argument(content: bytes) -> None:
    escaped = "".join(f"\\x{byte:02x}" for byte in content)
    word = commands.unescape(escaped)
    assert word is not None
    assert word.encode(errors="surrogateescape") == content


@given(st.text(" \t\nab'\"\\$", max_size=20))
def test_a_string_is_split_as_a_shell_would(text: str) -> None:
    try:
        expected: list[str] | None = shlex.split(text)
    except ValueError:
        expected = None
    assert commands.split(text) == expected


@given(st.text("0123456789.smhdin µ-", max_size=12))
def test_a_time_span_is_a_number_of_seconds_or_none(text: str) -> None:
    seconds = span(text)
    assert seconds is None or seconds >= 0


def test_words_about_values() -> None:
    assert [show(value) for value in (True, 5, 1.5, "a", {}, {"a": 1}, [], [1], date(2024, 1, 1))] == [
        *(
            "true",
            "5",
            "1.5",
            '"a"',
            "an empty table",
            "a table",
            "an empty array",
            "an array",
            "a date or time",
        )
    ]
    assert show(10**30) == "a huge number"
    assert quote('a\udce9"\\\n\U000e0001') == '"a\\xe9\\"\\\\\\u000a\\U000e0001"'
    assert quote("a" * 99) == f'"{"a" * 57}..."'
    assert dotted(("a", "b c", 0, "d-e")) == 'a."b c"[0].d-e'
    assert near("Comand", ["command", "kind"]) == 'did you mean "command"'
    assert near("zzz", ["command"]) == ""
    assert repr(BAD) == "BAD"
    assert not BAD


def test_a_list_that_stands_for_no_single_value() -> None:
    report = Report(Document([], lambda _: ""))
    assert ListOf(Bool(), single=False).parse(True, At(report)) is BAD
    assert [p.what for p in report.problems()] == ["must be an array, each true or false, got true"]


def test_a_type_has_to_say_what_it_takes() -> None:
    with pytest.raises(NotImplementedError):
        Type().parse(1, None)  # type: ignore[arg-type]
    with pytest.raises(NotImplementedError):
        Type().schema()
