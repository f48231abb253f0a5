"""Quoting of values: what systemd reads back is what was put in."""

from __future__ import annotations

import os

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sysresp.model import Command
from sysresp.units import quote
from sysresp.units.quote import Unrepresentable
from tests.strategies import arguments, commands, directories, line_text, programs, valid_text, variables


def read(line: str, *, command: bool, instance: str = "") -> list[str]:
    """Do what systemd does: split into words, expand specifiers and `$$`."""
    return quote.literal(quote.split(line), command=command, instance=instance)


def is_one_clean_line(line: str) -> bool:
    return not any(char in line for char in "\0\r\n") and line.encode().decode() == line


@given(arguments, st.booleans())
@example("", True)
@example("caf\udce9", True)
@example("%i $HOME ${X} $$", True)
@example("\ufffe\U0001ffff\ufdd0", False)
@example("\\x41\\n", True)
def test_word_is_read_back(text: str, command: bool) -> None:
    line = quote.word(text, command=command)
    assert is_one_clean_line(line)
    assert read(line, command=command) == [text]


@given(st.lists(arguments))
def test_words_stay_apart(texts: list[str]) -> None:
    line = " ".join(quote.word(text, command=True) for text in texts)
    assert read(line, command=True) == texts


@given(st.lists(arguments.filter(lambda text: "$" not in text)))
def test_only_the_user_dollars_are_expanded(texts: list[str]) -> None:
    line = " ".join(quote.word(text, command=True, expand=True) for text in [*texts, "$HOME/${X}"])
    assert quote.literal(quote.split(line), command=False) == [*texts, "$HOME/${X}"]


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("plain-word_1.0:/a@b,c+d=e", "plain-word_1.0:/a@b,c+d=e"),
        ("100%", "100%%"),
        ("$HOME", '"$$HOME"'.strip('"')),
        ("a b", '"a b"'),
        (";", '";"'),
        ("", '""'),
        ('say "hi"\\', '"say \\"hi\\"\\\\"'),
        ("tab\tnewline\n\x01", '"tab\\x09newline\\n\\x01"'),
        ("caf\udce9", '"caf\\xe9"'),
        ("{instance}", '"{instance}"'),
    ],
)
def test_word_is_quoted_only_when_needed(text: str, written: str) -> None:
    assert quote.word(text, command=True) == written


@given(arguments, arguments)
def test_instance_becomes_a_specifier_and_nothing_else_does(left: str, right: str) -> None:
    line = quote.word(f"{left}{{instance}}{right}", command=True, instanced=True)
    assert read(line, command=True, instance="seven") == [
        f"{left}{{instance}}{right}".replace("{instance}", "seven")
    ]


def test_nul_is_refused() -> None:
    with pytest.raises(Unrepresentable, match="NUL"):
        quote.word("a\0b", command=True)


@given(commands())
def test_command_line_is_read_back(command: Command) -> None:
    line = quote.command_line(command)
    assert is_one_clean_line(line)
    first, *rest = quote.split(line)
    path = first.lstrip("-:+")
    prefix = first[: len(first) - len(path)]
    expands = ":" not in prefix
    words = quote.literal([path], command=False) + quote.literal(rest, command=expands)
    assert tuple(words) == command.words
    assert ("-" in prefix, "+" in prefix) == (command.ignore_failure, command.privileged)
    assert not ("$" in path and expands), "argv[0] would be expanded"


@given(programs)
def test_program_may_hold_anything_systemd_takes(program: str) -> None:
    assert quote.literal(
        [quote.split(quote.command_line(Command((program,))))[0].lstrip(":")], command=False
    ) == [program]


def test_string_form_keeps_variables() -> None:
    command = Command(("/bin/echo", "$HOME", "a ${B} 5%"), expand=True)
    assert quote.command_line(command) == '/bin/echo $HOME "a ${B} 5%%"'


def test_bare_name_and_prefixes() -> None:
    command = Command(("python3", "-V"), ignore_failure=True)
    assert quote.command_line(command, privileged=True) == "-+python3 -V"
    assert quote.command_line(Command(("/opt/my app/x",), privileged=True)) == '"+/opt/my app/x"'


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("",), "empty program"),
        (("./x",), "relative"),
        (("bin/x",), "relative"),
        (("-x",), "prefix"),
        (("@x",), "prefix"),
        ((";",), "prefix"),
        (("/bin/x/",), "refuses"),
        (("/bin/x ",), "refuses"),
        (("/bin/'x",), "refuses"),
        (("/bin/x\n",), "refuses"),
        (("/bin/x", "a\0"), "NUL"),
        (("/bin/x", "a" * 131072), "128 KiB"),
        (("/bin/x", "é" * 70000), "128 KiB"),
        (("/bin/x", *["a b" * 40000] * 10), "1 MiB"),
    ],
)
def test_unrepresentable_command(words: tuple[str, ...], what: str) -> None:
    with pytest.raises(Unrepresentable, match=what) as caught:
        quote.command_line(Command(words))
    assert caught.value.fix


def test_long_but_allowed_arguments() -> None:
    assert quote.command_line(Command(("/bin/x", "é" * 40000))).endswith('é"')


def test_program_from_a_variable_is_refused() -> None:
    with pytest.raises(Unrepresentable, match="variable"):
        quote.command_line(Command(("$JAVA_HOME/bin/java",), expand=True))


@given(variables, valid_text)
def test_environment_is_read_back(name: str, value: str) -> None:
    line = quote.environment(name, value)
    assert is_one_clean_line(line)
    assert read(line, command=False) == [f"{name}={value}"]


@pytest.mark.parametrize("value", ["\udce9", "\ufffe", "\U0010ffff", "\ufdef"])
def test_environment_that_systemd_would_drop(value: str) -> None:
    with pytest.raises(Unrepresentable, match="drops"):
        quote.environment("A", value)


def test_environment_of_more_than_a_line() -> None:
    with pytest.raises(Unrepresentable, match="1 MiB"):
        quote.environment("A", "é" * 2**19)
    assert len(quote.environment("A", "é" * 2**18)) > 2**18


@given(directories)
@example("/a ")
@example("/a\\")
@example("/100%")
def test_directory_is_read_back(path: str) -> None:
    line = quote.path(path, directory=True)
    assert is_one_clean_line(line)
    assert line == line.strip(" \t\n\r")
    assert not line.endswith("\\")
    assert os.path.normpath(quote.unspecified(line)) == os.path.normpath(path)


def test_instance_in_a_path() -> None:
    assert quote.path("/srv/{instance}/50%", instanced=True) == "/srv/%i/50%%"
    assert quote.path("/srv/{instance}") == "/srv/{instance}"


@pytest.mark.parametrize("text", ["a\nb", "a\rb", "a\0b", "a\udce9", "a\ufffe", " a", "a ", "a\t", "a\\"])
def test_unrepresentable_rest_of_line(text: str) -> None:
    with pytest.raises(Unrepresentable):
        quote.text(text)


@given(line_text)
def test_item_is_one_element(value: str) -> None:
    line = quote.item(value)
    assert is_one_clean_line(line)
    assert read(line, command=False) == [value]


@pytest.mark.parametrize("value", ["a\nb", "\udce9"])
def test_unrepresentable_item(value: str) -> None:
    with pytest.raises(Unrepresentable):
        quote.item(value)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", []),
        ("  a  b\t", ["a", "b"]),
        ("'a b'c \"d\\te\"", ["a bc", "d\te"]),
        (r"\x41\101\u00e9\U0001f600\s", ["AA\u00e9\U0001f600 "]),
        (r"\q\x00\x4 \u12", [r"\q\x00\x4", r"\u12"]),
        (r"\777", [r"\777"]),
        ("a\\", ["a\\"]),
        (r"\'\"", ["'\""]),
        ("'open", ["open"]),
    ],
)
def test_split_as_systemd_does(line: str, words: list[str]) -> None:
    assert quote.split(line) == words


def test_unspecified() -> None:
    assert quote.unspecified("%%i-%i%%%i", "7") == "%i-7%7"
    with pytest.raises(ValueError, match="%n"):
        quote.unspecified("a%n")


def test_loadable() -> None:
    quote.loadable("[Unit]\n")
    for text in ("\0", "\ufffe", "\udce9"):
        with pytest.raises(Unrepresentable):
            quote.loadable(text)
