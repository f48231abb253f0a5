"""The table of Restart= (systemd.service(5)), whole: each setting with each way in which a run can end."""

from __future__ import annotations

import signal
from itertools import product

import pytest

from sysresp.units.supervision import RESTARTED_AFTER, Supervision, restarts_after, result_of

# A row of the man page's table -> (Result=, exit code, exit status) that fall into it.
CAUSES = {
    "clean": (("success", 1, 0), ("success", 2, 15), ("success", 0, 0)),
    "unclean exit code": (("exit-code", 1, 3), ("exit-code", 1, 203)),
    "unclean signal": (("signal", 2, 9), ("core-dump", 3, 11)),
    "timeout": (("timeout", 2, 9), ("timeout", 0, 0)),
    "watchdog": (("watchdog", 3, 6),),
    # Not in the man page; as service_shall_restart() has them.
    "other failure": (("oom-kill", 2, 9), ("protocol", 0, 0), ("resources", 0, 0)),
    "never": (("exec-condition", 1, 1), ("start-limit-hit", 1, 3)),
}
TABLE = {
    "no": (),
    "always": ("clean", "unclean exit code", "unclean signal", "timeout", "watchdog", "other failure"),
    "on-success": ("clean",),
    "on-failure": ("unclean exit code", "unclean signal", "timeout", "watchdog", "other failure"),
    "on-abnormal": ("unclean signal", "timeout", "watchdog", "other failure"),
    "on-abort": ("unclean signal",),
    "on-watchdog": ("watchdog",),
}
ENDS = [(cause, *end) for cause, ends in CAUSES.items() for end in ends]


def test_the_table_has_each_setting() -> None:
    assert TABLE.keys() == RESTARTED_AFTER.keys()


@pytest.mark.parametrize("when", TABLE)
@pytest.mark.parametrize(("cause", "result", "code", "status"), ENDS)
def test_each_end(when: str, cause: str, result: str, code: int, status: int) -> None:
    assert restarts_after(Supervision(when=when), result, code, status) is (cause in TABLE[when])


@pytest.mark.parametrize("when", TABLE)
@pytest.mark.parametrize(("cause", "result", "code", "status"), ENDS)
def test_prevented_and_forced(when: str, cause: str, result: str, code: int, status: int) -> None:
    name = str(status) if code == 1 else signal.Signals(status).name if code else "0"
    other = "99" if code == 1 else "SIGUSR1"
    usual = cause in TABLE[when]

    def after(**exits: tuple[str, ...]) -> bool:
        return restarts_after(Supervision(when=when, **exits), result, code, status)

    is_hit = code > 0  # without a main process there is nothing that could be among the statuses
    assert after(prevent_exit=(name,)) is (usual and not is_hit)
    assert after(force_exit=(name,)) is (cause != "never" and (usual or is_hit))
    assert after(prevent_exit=(name,), force_exit=(name,)) is (usual and not is_hit)
    assert after(prevent_exit=(other,)) is usual
    assert after(force_exit=(other,)) is usual


@pytest.mark.parametrize(
    ("name", "number"),
    [("SIGRTMIN", 34), ("SIGRTMIN+3", 37), ("SIGRTMAX", 64), ("SIGRTMAX-1", 63), ("SIGKILL", 9)],
)
def test_signals_by_any_name(name: str, number: int) -> None:
    assert not restarts_after(Supervision(when="always", prevent_exit=(name,)), "signal", 2, number)
    assert restarts_after(Supervision(when="always", prevent_exit=(name,)), "exit-code", 1, number)


def test_a_number_is_no_signal() -> None:
    assert restarts_after(Supervision(prevent_exit=("9",)), "signal", 2, 9)


def test_an_unknown_result_follows_from_the_exit() -> None:
    for status, success in product((0, 1, 7), ((), ("7",))):
        supervision = Supervision(success_exit=success)
        is_clean = status == 0 or str(status) in success
        assert result_of(supervision, 1, status) == ("success" if is_clean else "exit-code")
        assert restarts_after(supervision, "", 1, status) is not is_clean
    for number in signal.Signals:
        is_clean = number.name in ("SIGHUP", "SIGINT", "SIGTERM", "SIGPIPE")
        assert result_of(Supervision(), 2, number) == ("success" if is_clean else "signal")
        assert result_of(Supervision(), 3, number) == "core-dump"
        assert result_of(Supervision(success_exit=(number.name,)), 2, number) == "success"
    assert result_of(Supervision(), 0, 0) == "success"
