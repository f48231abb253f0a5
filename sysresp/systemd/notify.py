"""Telling the service manager how the controller is (sd_notify(3)).

Owns the datagrams to $NOTIFY_SOCKET. Never fails: without a service manager that listens, nothing is told
to nobody. Rule: nothing is imported that the daemon does not need anyway.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping


class SystemNotify:
    """The manager that started this process, if it wants to know."""

    def __init__(self, environ: Mapping[str, str] | None = None, pid: int | None = None) -> None:
        environ = os.environ if environ is None else environ
        self._address = environ.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):
            self._address = "\0" + self._address[1:]
        of = environ.get("WATCHDOG_PID", "")  # a child inherits the variables, but not the duty
        is_ours = of in ("", str(os.getpid() if pid is None else pid))
        usec = environ.get("WATCHDOG_USEC", "")
        self.watchdog_sec = int(usec) / 1e6 if is_ours and usec.isdigit() else 0.0
        """The manager kills us if `alive` is not called for so long; 0: it does not."""

    def ready(self, status: str = "") -> None:
        """Say that the start, or the reload, is finished."""
        self._tell("READY=1", *_status(status))

    def status(self, status: str) -> None:
        """Show one line in `systemctl status`."""
        self._tell(*_status(status))

    def alive(self) -> None:
        """Call this three times in `watchdog_sec`."""
        self._tell("WATCHDOG=1")

    def extend(self, sec: float) -> None:
        """Ask for so much time from now on until `ready`, beyond TimeoutStartSec=."""
        self._tell(f"EXTEND_TIMEOUT_USEC={sec * 1e6:.0f}")

    def stopping(self, status: str = "") -> None:
        """Say that the end has begun."""
        self._tell("STOPPING=1", *_status(status))

    def _tell(self, *lines: str) -> None:
        if not self._address or not lines:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as manager:
                manager.sendto("\n".join(lines).encode(errors="replace"), self._address)
        except OSError:  # it does not listen, or has not yet read the last 500
            return


def _status(text: str) -> list[str]:
    return [f"STATUS={text}".replace("\n", " ")] if text else []
