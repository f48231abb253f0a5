"""Promise 1: the process gets exactly the argv, environment and directory that the file says.

Random services go the whole way, services.toml text -> parse -> render -> unit files -> systemd -> a process
that copies its /proc/PID/{cmdline,environ,cwd}. What systemd cannot represent must be refused with its line,
and only that: the generator (tests/live/random_words.py) says on its own which values those are.
SYSRESP_SEED repeats a run; SYSRESP_CASES makes it longer.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Sequence

import pytest

from sysresp.errors import Problem, Severity
from sysresp.model import Mode
from tests.live.conftest import Box
from tests.live.installed import install_program, install_text, read_text
from tests.live.random_words import Case, make_case

pytestmark = [pytest.mark.live, pytest.mark.slow]

CASES = int(os.environ.get("SYSRESP_CASES", "2000"))  # for each systemd; half persistent, half runtime
BATCH = 250  # services of one file, started by one job
PLACE = "/run/round"
# Neither the journal nor units that stay have a part in this; without them it takes two thirds of the time.
QUIET = """
[defaults.systemd.Service]
RemainAfterExit = "no"
StandardOutput = "null"
StandardError = "null"
LogLevelMax = "warning"
"""
KEYS = ("command", "environment", "directory")
PROGRAMS = (
    *(
        "plain",
        "with blank",
        "100%",
        "%i",
        "$HOME",
        "${x}",
        "a;b",
        "#hash",
        "-dash",
        "@at",
        "a=b",
        "[x]",
        "~",
    ),
    *("{instance}", "caf\u00e9", "\u4e2d\u6587", "a\u00a0b", "\U0001f600"),
)
# What systemd adds (systemd.exec(5), "Environment Variables Set or Propagated by the Service Manager").
OF_SYSTEMD = frozenset(
    b"PATH LANG INVOCATION_ID JOURNAL_STREAM SYSTEMD_EXEC_PID MEMORY_PRESSURE_WATCH MEMORY_PRESSURE_WRITE "
    b"HOME LOGNAME USER SHELL".split()
)


def seed() -> int:
    """Return the seed of this run, fresh unless SYSRESP_SEED names one."""
    return int(os.environ.get("SYSRESP_SEED") or random.SystemRandom().randrange(1 << 32))


def check_refusals(project: str, cases: Sequence[Case]) -> int:
    """Parse all cases at once, and expect a problem on the right line for each bad key, and no other."""
    text = f'project = "{project}"\n'
    spans: dict[str, range] = {}
    for case in cases:
        first = text.count("\n") + 1
        text += case.toml
        starts = [first + case.toml[: case.toml.index(f"\n{key} = ") + 1].count("\n") for key in KEYS]
        ends = [*starts[1:], text.count("\n") + 1]
        spans |= {
            f"services.{case.name}.{key}": range(a, b) for key, a, b in zip(KEYS, starts, ends, strict=True)
        }
    errors = [p for p in read_text(text).problems if p.severity is Severity.ERROR]
    expected = {f"services.{case.name}.{key}" for case in cases for key in case.refused}
    assert {_key(p) for p in errors} == expected
    wrong = [p for p in errors if p.origin.line not in spans[_key(p)]]
    assert not wrong
    return len(expected)


def _key(problem: Problem) -> str:
    return ".".join(problem.key.partition("[")[0].split(".")[:3])


def differences(box: Box, unit: str, case: Case) -> list[str]:
    """Compare what the process of this unit was given with what the file says."""
    place = box.path(f"/run/dump/{unit}")
    if not (place / "cwd").is_symlink():
        log = box.run(["journalctl", "-o", "cat", "-n", "5", "-u", unit]).stdout
        return [f"did not run: {log!r}\n{case.toml}"]
    found = []
    argv = (place / "cmdline").read_bytes().removesuffix(b"\0").split(b"\0")[1:]  # without /bin/sh
    if argv != [case.program, *case.arguments]:
        found.append(f"argv {argv!r} is not {[case.program, *case.arguments]!r}\n{case.toml}")
    entries = (place / "environ").read_bytes().removesuffix(b"\0").split(b"\0")
    environment = [(name, value) for name, _, value in (entry.partition(b"=") for entry in entries)]
    ours = sorted((name, value) for name, value in environment if name not in OF_SYSTEMD)
    if ours != sorted(case.environment.items()):
        found.append(f"environment {ours!r} is not {case.environment!r}\n{case.toml}")
    cwd = os.fsencode((place / "cwd").readlink())
    if cwd != case.directory:
        found.append(f"directory {cwd!r} is not {case.directory!r}\n{case.toml}")
    return found


def run_batch(box: Box, project: str, cases: Sequence[Case], mode: Mode) -> list[str]:
    """Start all cases by one target, and return how what their processes got differs."""
    install_text(box, f'project = "{project}"\n{QUIET}' + "".join(case.toml for case in cases), mode)
    for case in cases:
        box.path(os.fsdecode(case.directory)).mkdir(parents=True)
        box.path(f"/run/dump/{project}-{case.name}.service").mkdir(parents=True)
    box.systemctl("start", f"{project}.target")
    box.systemctl("stop", f"{project}.target")
    return [d for case in cases for d in differences(box, f"{project}-{case.name}.service", case)]


@pytest.mark.parametrize("mode", [Mode.PERSISTENT, Mode.RUNTIME])
def test_the_process_gets_exactly_what_the_file_says(
    box: Box, mode: Mode, capsys: pytest.CaptureFixture[str]
) -> None:
    number = seed()
    rng = random.Random(number)
    programs = [install_program(box, "dump", f"{PLACE}/bin/{name}") for name in PROGRAMS]
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    for batch in range(-(-CASES // 2 // BATCH)):
        project = f"{box.project}x{batch}"
        cases: list[Case] = []
        while sum(not case.refused for case in cases) < BATCH:
            cases.append(make_case(rng, f"c{len(cases)}", programs, f"{PLACE}/{project}"))
        counts["refused values"] += check_refusals(project, cases)
        good = [case for case in cases if not case.refused]
        wrong += run_batch(box, project, good, mode)
        counts["services"] += len(good)
        counts["arguments"] += sum(len(case.arguments) for case in good)
        counts["variables"] += sum(len(case.environment) for case in good)
    box.run(["rm", "-rf", "--", PLACE, "/run/dump"], check=True)
    summary = ", ".join(f"{n} {what}" for what, n in {**counts, "mismatches": len(wrong)}.items())
    with capsys.disabled():
        print(f"\nround trip on systemd {box.version}, {mode}, seed {number}: {summary}")
    assert not wrong, f"SYSRESP_SEED={number}: {summary}\n" + "\n".join(wrong[:5])
