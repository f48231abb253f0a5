"""The user's own say: raw directives and templates."""

from __future__ import annotations

from pathlib import Path

import pytest

from sysresp.errors import Severity
from sysresp.model import (
    Command,
    EnvironmentFile,
    Listen,
    Socket,
)
from sysresp.units.render import TEMPLATE_DIRS, Rendered, render
from sysresp.units.text import owner
from tests.rendered import HERE, desired, only, service, spec, values


class TestRaw:
    def test_raw_replaces_ours_in_place_and_adds_the_rest(self) -> None:
        made = desired(
            service(
                socket=Socket((Listen("80"),)),
                systemd={
                    "Service": {
                        "Restart": ("always",),
                        "LimitCORE": ("infinity",),
                        "ExecStart": ("", "/bin/%n"),
                    },
                    "Unit": {"OnFailure": ("x@%n.service",)},
                    "Socket": {"NoDelay": ("yes",)},
                },
            )
        )
        assert values(made, "shop-web.service", "ExecStart") == ["", "/bin/%n"]
        assert only(made, "shop-web.service", "Restart") == "always"
        assert only(made, "shop-web.service", "LimitCORE") == "infinity"
        assert only(made, "shop-web.service", "OnFailure") == "x@%n.service"
        assert only(made, "shop-web.socket", "NoDelay") == "yes"
        assert only(made, "shop-web.socket", "OnFailure") is None

    def test_raw_replaces_all_lines_of_ours(self) -> None:
        made = desired(
            service(
                environment={"A": "1", "B": "2"},
                environment_file=(EnvironmentFile("/x"),),
                reload=(Command(("/bin/r",)),),
                reload_signal="HUP",
                systemd={"Service": {"Environment": ("C=3",), "ExecReload": ("/bin/q", "/bin/r")}},
            )
        )
        assert values(made, "shop-web.service", "Environment") == ["C=3"]
        assert values(made, "shop-web.service", "ExecReload") == ["/bin/q", "/bin/r"]
        assert only(made, "shop-web.service", "EnvironmentFile") == "/x"

    @pytest.mark.parametrize(
        ("section", "name", "value", "severity", "what"),
        [
            ("Service", "RestartSteps", "3", Severity.ERROR, "new in systemd 254"),
            ("Service", "MemoryMx", "3", Severity.WARNING, "not a directive"),
            ("Service", "Zzzzzzzzzz", "3", Severity.WARNING, "not a directive"),
            ("Service", "After", "x", Severity.WARNING, "no meaning in"),
            ("Service", "LimitCORE", "a\nb", Severity.ERROR, "line break"),
            ("Service", "LimitCORE", "a\\", Severity.ERROR, "backslash"),
            ("Service", "LimitCORE", "\udce9", Severity.ERROR, "UTF-8"),
            ("Timer", "OnCalendar", "daily", Severity.ERROR, "no place"),
        ],
    )
    def test_wrong_raw(self, section: str, name: str, value: str, severity: Severity, what: str) -> None:
        rendered = render(spec(service(systemd={section: {name: (value,)}})), version=252)
        (problem,) = rendered.problems
        assert problem.severity is severity
        assert what in problem.what
        assert problem.fix

    def test_private_directives_are_let_through(self) -> None:
        made = desired(service(systemd={"Service": {"X-Mine": ("1",)}}))
        assert only(made, "shop-web.service", "X-Mine") == "1"


class TestTemplates:
    def make(
        self, tmp_path: Path, text: str, name: str = "mine.j2", template: str | None = "mine.j2"
    ) -> Rendered:
        (tmp_path / name).write_text(text)
        return render(spec(service(template=template)), version=252, template_dirs=(str(tmp_path),))

    def test_own_template(self, tmp_path: Path) -> None:
        text = (
            "{{ header }}\n[Unit]\n{{ about }}\n[Service]\n"
            "ExecStart=/bin/echo {{ ['a b', '$x'] | map('word') | join(' ') }}\n"
            "WorkingDirectory={{ '/50%' | path }}\n# {{ unit }} of {{ project }}, {{ service.name }}\n"
            "{% for name, value in restart %}{{ name }}={{ value }}\n{% endfor %}"
        )
        rendered = self.make(tmp_path, text)
        assert not rendered.problems
        made = rendered.desired
        assert only(made, "shop-web.service", "ExecStart") == '/bin/echo "a b" $$x'
        assert only(made, "shop-web.service", "WorkingDirectory") == "/50%%"
        assert only(made, "shop-web.service", "Restart") == "on-failure"
        assert owner(made.files["shop-web.service"].text) == "shop"
        assert "# shop-web.service of shop, web\n" in made.files["shop-web.service"].text

    @pytest.mark.parametrize(
        ("text", "what"),
        [
            ("[Service]\n\n{% if %}\n", "mine.j2:3: "),
            ("[Service]\n\n{{ nothing }}\n", "mine.j2:3: 'nothing' is undefined"),
            ("[Service]\nX={{ 'a\\0' | word }}\n", "mine.j2:2: holds a NUL"),
            ("{% include 'other.j2' %}", "no template other.j2"),
            ("[Unit]\nDescription=x\n", "no section [Service]"),
            ("[Service]\nfoo\n", "no assignment: 'foo'"),
            ("[Service]\n[X-Sysresp]\nProject=x\n", "sysresp's own"),
            ("[Service]\nX={{ '\\ufffe' }}\n", "noncharacter"),
        ],
    )
    def test_wrong_template(self, tmp_path: Path, text: str, what: str) -> None:
        (problem,) = self.make(tmp_path, text).problems
        assert problem.key == "services.web.template"
        assert problem.origin == HERE
        assert what in problem.what

    def test_missing_template(self, tmp_path: Path) -> None:
        (problem,) = self.make(tmp_path, "", template="none.j2").problems
        assert "none.j2" in problem.what
        assert TEMPLATE_DIRS[0] in problem.fix

    def test_users_version_of_a_shipped_template(self, tmp_path: Path) -> None:
        rendered = self.make(tmp_path, "[Unit]\n{{ about }}\n# mine\n", "slice.j2", None)
        assert not rendered.problems
        assert "# mine\n" in rendered.desired.files["shop.slice"].text

    @pytest.mark.parametrize(
        ("name", "text", "key", "what"),
        [
            ("slice.j2", "\n{{ x }}", "project.template", "slice.j2:2: 'x' is undefined"),
            ("service.j2", "[Unit]\n", "services.web.template", "no section [Service]"),
        ],
    )
    def test_wrong_version_of_a_shipped_template(
        self, tmp_path: Path, name: str, text: str, key: str, what: str
    ) -> None:
        (problem,) = self.make(tmp_path, text, name, None).problems
        assert problem.key == key
        assert what in problem.what

    def test_shipped_templates_are_short(self) -> None:
        for template in (Path(__file__).parent.parent / "templates").glob("*.j2"):
            assert len(template.read_text().splitlines()) <= 40
