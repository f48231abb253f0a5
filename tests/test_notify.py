"""sd_notify(3): the datagrams, and who is meant."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from sysresp.systemd.notify import SystemNotify


@pytest.mark.parametrize("is_abstract", [False, True])
def test_what_is_told(tmp_path: Path, is_abstract: bool) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + path if is_abstract else path)
        notify = SystemNotify({"NOTIFY_SOCKET": "@" + path if is_abstract else path}, 1)
        notify.ready("up\nand READY=1")
        notify.status("")
        notify.status("busy")
        notify.alive()
        notify.extend(1.5)
        notify.ready()
        notify.stopping("bye")
        told = [manager.recv(1 << 12).decode() for _ in range(6)]
    assert told == [
        "READY=1\nSTATUS=up and READY=1",
        "STATUS=busy",
        "WATCHDOG=1",
        "EXTEND_TIMEOUT_USEC=1500000",
        "READY=1",
        "STOPPING=1\nSTATUS=bye",
    ]


def test_nobody_listens(tmp_path: Path) -> None:
    SystemNotify({}, 1).ready()
    SystemNotify({"NOTIFY_SOCKET": str(tmp_path / "none")}, 1).ready("x")


def test_a_manager_that_does_not_read_is_not_waited_for(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        notify = SystemNotify({"NOTIFY_SOCKET": path}, 1)
        for _ in range(2000):
            notify.alive()
        assert manager.recv(1 << 12) == b"WATCHDOG=1"


@pytest.mark.parametrize(
    ("environ", "sec"),
    [
        ({}, 0.0),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "42"}, 0.5),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "41"}, 0.0),
        ({"WATCHDOG_USEC": "soon"}, 0.0),
    ],
)
def test_the_watchdog(environ: dict[str, str], sec: float) -> None:
    assert SystemNotify(environ, 42).watchdog_sec == sec
