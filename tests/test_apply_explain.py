"""Numbers become words, and words point at a key of the service."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysresp.reconcile.explain import (
    cause_key,
    exit_words,
    job_words,
    refused_words,
    result_words,
    signal_name,
)


@pytest.mark.parametrize(
    ("status", "words", "key"),
    [
        (203, "the program could not be executed (203/EXEC)", "command"),
        (217, "its user does not exist, or cannot be taken on (217/USER)", "user"),
        (216, "its group does not exist, or cannot be taken on (216/GROUP)", "group"),
        (200, "its directory cannot be entered (200/CHDIR)", "directory"),
        (218, "its capabilities cannot be set (218/CAPABILITIES)", "hardening"),
        (238, "its state directory cannot be made (238/STATE_DIRECTORY)", "state_directory"),
        (1, "exit status 1", "command"),
        (137, "exit status 137 (as a shell says for SIGKILL)", "command"),
        (255, "exit status 255", "command"),
    ],
)
def test_exit_statuses(status: int, words: str, key: str) -> None:
    assert result_words("exit-code", 1, status) == words
    assert cause_key("exit-code", 1, status) == key


def test_signals() -> None:
    assert exit_words(2, 9) == "killed by SIGKILL"
    assert exit_words(3, 11) == "killed by SIGSEGV, core dumped"
    assert signal_name(37).startswith("SIGRTMIN+")
    assert signal_name(99) == "SIGRTMIN+65"
    assert signal_name(0) == "signal 0"
    assert exit_words(1, 0) == ""
    assert exit_words(0, 0) == ""


@pytest.mark.parametrize(
    ("result", "key"),
    [
        ("timeout", "start_timeout"),
        ("watchdog", "watchdog"),
        ("oom-kill", "limits.memory"),
        ("signal", "command"),
        ("success", ""),
        ("", ""),
        ("something-new", ""),
    ],
)
def test_results(result: str, key: str) -> None:
    assert cause_key(result) == key
    assert bool(result_words(result, 0, 0)) == (result not in ("", "success"))


def test_other_commands() -> None:
    assert result_words("exit-code", 1, 1, control="ready") == "it was not ready in time"
    assert (
        result_words("exit-code", 1, 3, control="pre_start") == "its pre_start command failed: exit status 3"
    )
    assert result_words("timeout", 0, 0, control="pre_start") == "its pre_start command failed"
    assert cause_key("exit-code", 1, 203, control="post_start") == "post_start"


def test_jobs() -> None:
    assert job_words("dependency") == "a unit that it requires could not be started"
    assert job_words("novel") == "the job ended with 'novel'"
    assert refused_words("UnitMasked", "Unit x is masked.") == "the unit is masked: Unit x is masked."
    assert refused_words("Novel", "what") == "what"


@given(st.text(), st.integers(-1, 300), st.integers(-1, 300), st.sampled_from(["", "ready", "reload"]))
def test_nothing_is_too_odd(result: str, code: int, status: int, control: str) -> None:
    assert isinstance(result_words(result, code, status, control=control), str)
    assert isinstance(cause_key(result, code, status, control=control), str)
    assert isinstance(job_words(result), str)
