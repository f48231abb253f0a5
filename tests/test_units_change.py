"""Unit files as text, and what a change of one asks for."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sysresp.units.change import Effect, effect
from sysresp.units.directives import TABLE, needs_restart
from sysresp.units.render import render
from sysresp.units.text import owner, parse
from tests.strategies import specs

OLD = """# made by hand
[Unit]
Description=x
After=a.service

[Service]
Type=exec
ExecStart=/bin/x \\
  # not a part of it
  a b
ExecReload=/bin/r
Environment=A=1
Environment=
Environment=B=2

[Install]
WantedBy=shop.target

[X-Sysresp]
Project=shop
Service=x
ConfigDigest=1
"""


class TestParse:
    def test_whole_file(self) -> None:
        assert parse(OLD) == (
            ("Unit", "Description", "x"),
            ("Unit", "After", "a.service"),
            ("Service", "Type", "exec"),
            ("Service", "ExecStart", "/bin/x    a b"),
            ("Service", "ExecReload", "/bin/r"),
            ("Service", "Environment", "A=1"),
            ("Service", "Environment", ""),
            ("Service", "Environment", "B=2"),
            ("Install", "WantedBy", "shop.target"),
            ("X-Sysresp", "Project", "shop"),
            ("X-Sysresp", "Service", "x"),
            ("X-Sysresp", "ConfigDigest", "1"),
        )

    @pytest.mark.parametrize(
        ("text", "entries"),
        [
            ("", []),
            ("\ufeff[A]\r\n  B = c  \r\n", [("A", "B", "c")]),
            ("[A]\n;B=1\n#C=2\n", []),
            ("[A]\nB=a\\\\\nC=1\n", [("A", "B", "a\\\\"), ("A", "C", "1")]),
            ("[A]\nB=a\\\n\nC=1\n", [("A", "B", "a"), ("A", "C", "1")]),
            ("[A]\nB=a\\", [("A", "B", "a")]),
            ("[A]\nB=\\", [("A", "B", "")]),
            ("B=1\n", [("", "", "B=1")]),
            ("[A\n[]\nx\n=1\n", [("", "", "[A"), ("", "", "[]"), ("", "", "x"), ("", "", "=1")]),
            ("[A]\nB=[x]\n", [("A", "B", "[x]")]),
            ("\\\n", []),
        ],
    )
    def test_corners(self, text: str, entries: list[tuple[str, str, str]]) -> None:
        assert list(parse(text)) == entries

    @given(st.text())
    def test_any_text_can_be_read(self, text: str) -> None:
        for section, name, value in parse(text):
            assert section or not name
            assert value == value.lstrip(" \t\r\n")
        owner(text)

    @pytest.mark.parametrize(
        ("text", "project"),
        [
            (OLD, "shop"),
            ("[Unit]\nDescription=x\n", ""),
            ("[Unit]\n\n[X-Sysresp]\nService=x\n", ""),
            ("[Unit]\n\n[X-Sysresp]\nProject=shop", "shop"),
            ("[Unit]\nDescription=[X-Sysresp]\nProject=shop\n", ""),
        ],
    )
    def test_owner(self, text: str, project: str) -> None:
        assert owner(text) == project


class TestEffect:
    @pytest.mark.parametrize(
        ("old", "new", "result"),
        [
            ("made by hand", "made by another hand", Effect.REFRESH),
            ("Description=x", "Description=y", Effect.REFRESH),
            ("After=a", "After=b", Effect.REFRESH),
            ("Type=exec\n", "Type=exec\nRestart=always\n", Effect.REFRESH),
            ("Type=exec\n", "Type=exec\nTimeoutStopSec=1\nMemoryMax=1G\nKillMode=mixed\n", Effect.REFRESH),
            ("ExecReload=/bin/r", "ExecReload=/bin/s", Effect.REFRESH),
            ("WantedBy=shop", "WantedBy=multi-user", Effect.REFRESH),
            ("ConfigDigest=1", "ConfigDigest=2", Effect.RELOAD),
            ("\nConfigDigest=1", "", Effect.REFRESH),
            ("ExecReload=/bin/r\n", "", Effect.REFRESH),
            ("Type=exec", "Type=simple", Effect.RESTART),
            ("a b\n", "a c\n", Effect.RESTART),
            ("B=2", "B=3", Effect.RESTART),
            ("Environment=\n", "", Effect.RESTART),
            ("Type=exec\n", "Type=exec\nNewAndUnknown=1\n", Effect.RESTART),
            ("Type=exec\n", "Type=exec\nnonsense\n", Effect.RESTART),
            ("[Install]\n", "[X-Foo]\nA=b\n[Install]\n", Effect.REFRESH),
        ],
    )
    def test_of_a_service(self, old: str, new: str, result: Effect) -> None:
        assert old in OLD
        assert effect(OLD, OLD.replace(old, new)) is result

    def test_new_config_without_reload_is_a_restart(self) -> None:
        old = OLD.replace("ExecReload=/bin/r\n", "")
        assert effect(old, old.replace("ConfigDigest=1", "ConfigDigest=2")) is Effect.RESTART
        both = OLD.replace("ConfigDigest=1", "ConfigDigest=2")
        assert effect(OLD, both.replace("Description=x", "Description=y")) is Effect.RELOAD
        assert effect(OLD, both.replace("B=2", "B=3")) is Effect.RESTART

    @pytest.mark.parametrize(
        ("old", "new", "result"),
        [
            ("[Unit]\nDescription=x\n[Slice]\nFoo=1\n", "[Unit]\nDescription=x\n", Effect.REFRESH),
            ("[Unit]\nRequires=x\n", "[Unit]\nRequires=y\n", Effect.REFRESH),
            ("[Timer]\nOnCalendar=daily\n", "[Timer]\nOnCalendar=weekly\n", Effect.REFRESH),
            ("[Timer]\nPersistent=yes\n", "[Timer]\n", Effect.RESTART),
            ("[Socket]\nListenStream=1\n", "[Socket]\nListenStream=2\n", Effect.RESTART),
            ("[Path]\nPathChanged=/a\n", "[Path]\nPathChanged=/b\n", Effect.RESTART),
        ],
    )
    def test_of_other_units(self, old: str, new: str, result: Effect) -> None:
        assert effect(old, new) is result

    @settings(max_examples=10, deadline=None)
    @given(specs(), specs())
    def test_same_text_needs_nothing(self, one: object, other: object) -> None:
        texts = [f.text for what in (one, other) for f in render(what, version=257).desired.files.values()]  # type: ignore[arg-type]
        for text in texts:
            assert effect(text, text) is Effect.NONE
            for second in texts:
                assert (effect(text, second) is Effect.NONE) == (text == second)


class TestTable:
    def test_rows_are_sane(self) -> None:
        for name, row in TABLE.items():
            assert name.isalnum()
            assert row.sections
            assert 232 <= row.since <= 259

    @pytest.mark.parametrize(
        ("name", "since"),
        [
            ("RestartSteps", 254),
            ("LoadCredential", 247),
            ("LoadCredentialEncrypted", 250),
            ("ExecCondition", 243),
            ("ProtectProc", 247),
            ("PrivateIPC", 248),
            ("OnSuccess", 249),
            ("ReloadSignal", 253),
            ("OOMPolicy", 243),
            ("ConditionCredential", 252),
        ],
    )
    def test_versions(self, name: str, since: int) -> None:
        assert TABLE[name].since == since

    def test_marks_never_restart(self) -> None:
        assert not needs_restart("X-Sysresp", "Anything")
        assert not needs_restart("Install", "Anything")
        assert needs_restart("Service", "Anything")
