"""The manual, the completions and the README keep step with the program."""

from __future__ import annotations

import re
import shutil
import subprocess
import warnings
from pathlib import Path

import pytest
import typer

from sysresp.cli import remembered, rows
from sysresp.cli.main import app
from sysresp.cli.metric_table import METRICS, STATES
from sysresp.errors import Exit
from sysresp.reconcile.drift import KINDS
from sysresp.spec.schema import documented

TOP = Path(__file__).parent.parent
PACKAGING = TOP / "packaging"
if not PACKAGING.is_dir():
    pytest.skip("a package build has no packaging/", allow_module_level=True)

PAGES = ("sysresp.1", "services.toml.5", "sysresp-metrics.5", "sysresp-controller.8")
MAN = {name: (PACKAGING / "man" / name).read_text() for name in PAGES}
COMPLETE = {"--install-completion", "--show-completion"}


def plain(page: str) -> str:
    """Return the page without mdoc's macros: "-f" for "Fl f"."""
    return re.sub(r"(?<![\w-])Fl (-?[\w-]+)", r"-\1", page)


with warnings.catch_warnings():
    # typer 0.7 knows only `autocompletion`, and warns that Click has renamed it.
    warnings.filterwarnings("ignore", "'autocompletion' is renamed", DeprecationWarning)
    _TOP = typer.main.get_command(app).commands  # type: ignore[attr-defined]
COMMANDS = {
    f"{name} {below}".rstrip(): command
    for name, group in _TOP.items()
    for below, command in getattr(group, "commands", {"": group}).items()
}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_in_the_manual(name: str) -> None:
    page = plain(MAN["sysresp.1"])
    assert re.search(rf"^\.It Cm {name}\b", page, re.MULTILINE)
    for parameter in COMMANDS[name].params:
        for option in parameter.opts:
            if option.startswith("-"):
                assert re.search(rf"^\.It .*(?<!\w){option}\b", page, re.MULTILINE), f"{name} {option}"


def test_the_manual_names_no_option_that_is_not_there() -> None:
    commands = (*COMMANDS.values(), *_TOP.values())  # a group may have options, too
    known = {o for c in commands for p in c.params for o in p.opts} | COMPLETE
    known |= {"--version", "--help", "-h"}
    for line in plain(MAN["sysresp.1"]).splitlines():
        if line.startswith(".It "):
            for option in re.findall(r"(?<!\S)--?[a-z][a-z-]*", line):
                assert option in known, line


def test_every_state_and_exit_status_is_in_the_manual() -> None:
    page = MAN["sysresp.1"]
    source = Path(rows.__file__).read_text() + Path(remembered.__file__).read_text()
    states = set(re.findall(r'row\.set\(\s*"([a-z ]+)"', source)) | {"listening", "waiting"}
    states.add("waiting to start")
    for state in states:
        assert re.search(rf"^\.It Li .*\b{state}\b", page, re.MULTILINE), state
    for status in Exit:
        assert f"\n.It {status.value}\n" in page, status


def test_every_kind_of_drift_is_in_the_manual() -> None:
    section = MAN["sysresp.1"].partition(".Sh DRIFT")[2].partition(".Sh ")[0]
    assert set(re.findall(r"^\.It Li (\S+)$", section, re.MULTILINE)) == set(KINDS)


def test_every_key_is_in_the_manual() -> None:
    page = MAN["services.toml.5"]
    for dotted, *_ in documented():
        key = dotted.rpartition(".")[2]
        if key not in {"NAME", "*"}:
            assert re.search(rf"^\.It Li {re.escape(key)}$", page, re.MULTILINE), dotted


def test_every_metric_is_in_the_manual() -> None:
    section = MAN["sysresp-metrics.5"].partition(".Sh METRICS")[2].partition(".Sh ")[0]
    parts = {}
    for part in section.split("\n.It ")[1:]:
        name, kind = re.match(r"Li (\S+) Pq (\w+)\n", part).groups()  # type: ignore[union-attr]
        labels = re.search(r"^Labels: (.+)\.$", part, re.MULTILINE)
        text = " ".join(line for line in part.splitlines()[1:] if not line.startswith("."))
        parts[name] = (kind, labels[1].split(", ") if labels else [], text)
    assert set(parts) == set(METRICS)
    for name, metric in METRICS.items():
        kind, names, text = parts[name]
        assert (kind, tuple(names)) == (metric.kind.value, metric.labels)
        assert metric.help.replace("`", "") in text
    assert all(state in parts["sysresp_service_state"][2] for state in STATES)


@pytest.mark.parametrize("name", MAN)
def test_manual_is_well_formed(name: str) -> None:
    program = shutil.which("mandoc")
    if program is None:
        pytest.skip("mandoc is not installed")
    done = subprocess.run(
        [program, "-T", "lint", "-W", "style", PACKAGING / "man" / name],
        capture_output=True,
        text=True,
        check=False,
    )
    # Whether other manuals are installed here says nothing about ours.
    wrong = [line for line in done.stdout.splitlines() if "referenced manual not found" not in line]
    assert not wrong


@pytest.mark.parametrize(
    ("shell", "name"), [("bash", "sysresp.bash"), ("fish", "sysresp.fish"), ("zsh", "_sysresp")]
)
def test_completions_are_what_typer_asks_for(shell: str, name: str) -> None:
    from typer.completion import get_completion_script  # noqa: PLC0415 - its place differs between versions

    ours = (PACKAGING / "completions" / name).read_text()
    script = get_completion_script(prog_name="sysresp", complete_var="_SYSRESP_COMPLETE", shell=shell)
    if shell == "zsh":
        # typer's own file begins with an empty line and is not found by compinit; the command is the same.
        command = re.search(r"eval .*", script)
        assert command is not None
        assert ours == f"#compdef sysresp\n{command[0]}\n"
    elif shell == "bash":
        # ours makes the words anew, because "web@2" is several to bash; what is called and how is the same
        for part in ("_SYSRESP_COMPLETE=complete_bash $1", "env COMP_WORDS=", "COMP_CWORD="):
            assert part in ours
            assert part in script
        assert ours.strip().splitlines()[-1] == script.strip().splitlines()[-1]
    else:
        # fish must go on offering files where we offer nothing
        assert ours.strip() == script.replace(" --no-files", "").strip()


def test_readme_names_every_command() -> None:
    text = (TOP / "README.md").read_text()
    missing = [name for name in _TOP if f"sysresp {name}" not in text and f"`{name}`" not in text]
    assert not missing
