"""One connection to a systemd manager, and an honest sentence for each way in which there is none.

Owns pystemd: only `pystemd.dbuslib` is used (its other modules introspect every unit through lxml, which
costs 10 ms a unit), and only here. Never decides anything about units. The rule: whatever pystemd raises
leaves this module as `CallError` (systemd said no to one call), as `SysrespError` (there is nobody to talk
to, or not for you) or as KeyboardInterrupt.

There are two ways in (bus_connect_transport_systemd in systemd's bus-util.c). The bus is open to everybody
and sends only the signals that were asked for. The manager's own socket takes root or the owner, needs no
broker and answers twice as fast, but it sends every signal of every unit, and what a stopped or busy client
does not read piles up in PID 1: 200 starts and stops behind one such client made it grow from 13 to 228 MB.
So it is the first choice only for the user's manager, which often has no bus (dbus-user-session), and for
root when D-Bus is down.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from sysresp.systemd.wire import decode, encode

if TYPE_CHECKING:
    from sysresp.errors import SysrespError

SYSTEMD = b"org.freedesktop.systemd1"
SYSTEMD_PATH = "/org/freedesktop/systemd1"
MANAGER = "org.freedesktop.systemd1.Manager"
PROPERTIES = "org.freedesktop.DBus.Properties"
DBUS = b"org.freedesktop.DBus"
DBUS_PATH = "/org/freedesktop/DBus"

_TIMEOUT = "SYSTEMD_BUS_TIMEOUT"  # read by sd-bus once for each connection (sd_bus_get_method_call_timeout)
_NO_PYSTEMD = (
    "apt install python3-pystemd, or dnf install python3-pystemd, for sysresp from a package\n"
    "pip, pipx and uv compile it: apt install gcc pkg-config libsystemd-dev python3-dev, then install again"
)
_GONE = frozenset({-104, -107, -32, -9})  # ECONNRESET, ENOTCONN, EPIPE, EBADF: the peer left
_GONE_NAMES = frozenset({"Disconnected", "NoReply", "ServiceUnknown", "NameHasNoOwner"})
_DENIED_NAMES = frozenset({"AccessDenied", "InteractiveAuthorizationRequired", "AuthFailed"})

_UNUSED: dict[str, dict[str, object]] = {  # modules that pystemd.dbuslib and .utils import; what they take
    "pprint": {"pformat": repr},  # to word a TypeError
    "pathlib": {"Path": type("Path", (), {})},  # for arguments that are one
    "shlex": {},  # for commands of transient units
    "uuid": {},  # for their names
}


def _load() -> tuple[Any, Any]:
    """Import pystemd.dbuslib without pystemd/__init__.py, which imports lxml: 20 ms instead of 38.

    The same is done to what is needed only for what we never do (`_UNUSED`: 10 ms more, and 0.7 MB).
    The stand-ins are taken away again at once; anything unexpected ends in the plain import.
    """
    import importlib  # noqa: PLC0415 - part of every interpreter's start, so free

    if "pystemd" in sys.modules:
        return importlib.import_module("pystemd.dbuslib"), importlib.import_module("pystemd.dbusexc")
    spec = None
    for finder in sys.meta_path:  # importlib.util.find_spec without importlib.util
        spec = finder.find_spec("pystemd", None)
        if spec is not None:
            break
    where = spec.submodule_search_locations if spec is not None else None
    if where is None:
        return importlib.import_module("pystemd.dbuslib"), importlib.import_module("pystemd.dbusexc")
    module = type(sys)
    package = module("pystemd")
    package.__path__ = where
    stand_ins: dict[str, Any] = {"pystemd": package}
    for name in _UNUSED.keys() - sys.modules.keys():
        stand_ins[name] = module(name)
        stand_ins[name].__dict__.update(_UNUSED[name])
    sys.modules.update(stand_ins)
    try:
        return importlib.import_module("pystemd.dbuslib"), importlib.import_module("pystemd.dbusexc")
    except (ImportError, AttributeError):  # a later pystemd may need its own __init__
        for name in [name for name in sys.modules if name.startswith("pystemd")]:
            del sys.modules[name]
        for name in _UNUSED:
            if sys.modules.get(name) is stand_ins.get(name):
                sys.modules.pop(name, None)
        return importlib.import_module("pystemd.dbuslib"), importlib.import_module("pystemd.dbusexc")
    finally:
        for name, stand_in in stand_ins.items():
            if sys.modules.get(name) is stand_in:
                del sys.modules[name]


class CallError(Exception):
    """systemd answered one call with an error; `code` is the last part of its name (NoSuchUnit)."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class Interrupted(Exception):
    """A signal arrived during the call: its effect is unknown, so only idempotent calls are made again."""


class Disconnected(Exception):
    """The peer closed the connection: D-Bus or the manager was restarted, or PID 1 re-executed itself."""


def _refusal(status: str, message: str, hint: str) -> SysrespError:
    from sysresp.errors import Exit, SysrespError  # noqa: PLC0415 - 12 ms that only a failure pays

    return SysrespError(message, hint=hint, exit=Exit[status])


def unreachable(message: str) -> SysrespError:
    """Make the error for a manager that was there and is no more."""
    return _refusal("UNREACHABLE", message, "run the same command again")


def _pid1() -> str:
    try:
        with open("/proc/1/comm", errors="replace") as file:  # noqa: PTH123 - pathlib costs 4 ms
            return file.read().strip()
    except OSError:
        return "unknown"


def _str(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


class Bus:
    """A connection to one manager; opened by the first call."""

    def __init__(self, *, user: bool = False, private: bool = False, timeout_sec: int = 0) -> None:
        self.user = user
        self.private = private  # the manager's own socket instead of the bus
        self._timeout_sec = timeout_sec  # for each call; 0: sd-bus's own, 25 s
        self.fall_back = False  # try the other way in when this one is shut
        self.version = ""  # "252.39-1~deb12u2"; known once it is open
        self._bus: Any = None
        self._dbuslib: Any = None
        self._error: Any = None  # pystemd's base exception class

    def address(self) -> str:
        """Return the socket this connection uses, as a person would name it."""
        runtime = os.environ.get("XDG_RUNTIME_DIR", "")
        if self.private:
            return f"{runtime}/systemd/private" if self.user else "/run/systemd/private"
        if self.user:
            return os.environ.get("DBUS_SESSION_BUS_ADDRESS", f"{runtime}/bus").removeprefix("unix:path=")
        return os.environ.get("DBUS_SYSTEM_BUS_ADDRESS", "/run/dbus/system_bus_socket").removeprefix(
            "unix:path="
        )

    def open(self) -> None:
        """Connect, if not yet; raises `SysrespError`."""
        if self._bus is not None:
            return
        if self.user and not os.environ.get("XDG_RUNTIME_DIR"):
            raise self._unreachable(None)
        try:
            self._dbuslib, dbusexc = _load()
        except ImportError as error:
            raise _refusal("UNREACHABLE", f"cannot import pystemd: {error}", _NO_PYSTEMD) from error
        self._error = dbusexc.DBusBaseError
        cause = self._try_open()
        if cause is not None and self.fall_back and (self.user or os.geteuid() == 0):
            self.private = not self.private
            if self._try_open() is not None:
                self.private = not self.private  # the first refusal is the one to explain
            else:
                cause = None
        if cause is not None:
            raise self._unreachable(cause)

    def _try_open(self) -> Any:
        """Connect one way; return None, or what was in the way."""
        if self.private:
            bus = self._dbuslib.DBusAddress(b"unix:path=" + os.fsencode(self.address()), peer_to_peer=True)
        else:
            bus = self._dbuslib.DBus(user_mode=self.user)
        before = os.environ.get(_TIMEOUT)
        try:
            if self._timeout_sec and before is None:
                os.environ[_TIMEOUT] = f"{self._timeout_sec}s"
            bus.open()
            self._bus = bus
            # The first exchange proves that somebody is at the other end, and fixes the timeout.
            self.version = str(self.call(PROPERTIES, "Get", "ss", MANAGER, "Version"))
        except self._error as error:
            return error
        except (CallError, Disconnected, Interrupted) as error:
            self.close()
            return error
        finally:
            if before is None:
                os.environ.pop(_TIMEOUT, None)
        return None

    def close(self) -> None:
        """Close the connection; once only, since a second sd_bus_close aborts the process."""
        bus, self._bus = self._bus, None
        if bus is not None:
            bus.close()

    def call(
        self,
        interface: str,
        member: str,
        signature: str = "",
        *values: object,
        path: str = SYSTEMD_PATH,
        destination: bytes = SYSTEMD,
    ) -> object:
        """Call one method and return its result, decoded; ValueError if D-Bus cannot carry a value."""
        arguments = encode(signature, values)
        self.open()
        try:
            message = self._bus.call_method(
                destination, path.encode(), interface.encode(), member.encode(), arguments
            )
        except self._error as error:
            raise self._translated(error) from None
        return decode(message.body)

    def fd(self) -> int:
        """Return the file descriptor to poll, -1 when the connection is gone.

        On a disconnect sd-bus closes it inside `process`, without an error: compare after every drain.
        """
        if self._bus is None:
            return -1
        try:
            return int(self._bus.get_fd())
        except self._error:
            return -1

    def is_drained(self, most: int) -> bool:
        """Let go what has come in and is no answer; false if that is more than so much, or the peer left."""
        if self._bus is None:
            return True
        empty = 0
        try:
            for _ in range(most):
                empty = empty + 1 if self._bus.process().is_empty() else 0
                if empty == 3:
                    return True
        except self._error:
            return False
        return False

    def next_signal(self) -> tuple[str, str, object] | None:
        """Return (sender, member, body) of the next JobRemoved that has come in, None if there is none."""
        self.open()
        empty = 0
        while empty < 3:  # `process` cannot tell "nothing" from "did some work" or an empty message
            try:
                message = self._bus.process()
                if message.is_empty():  # idle means a NULL message: touching it would crash
                    empty += 1
                    continue
                empty = 0
                if message.get_type() != 4:  # SD_BUS_MESSAGE_SIGNAL
                    continue
                member = message.get_member().decode()
                sender = b"" if self.private else message.get_sender()
                if member == "JobRemoved":  # decoding costs more than all the rest: only what is wanted
                    message.process_reply(False)
                    return (sender.decode(), member, decode(message.body))
            except self._error as error:
                raise self._translated(error) from None
        return None

    def _translated(self, error: Any) -> Exception:
        """Make our own exception of pystemd's: of its class, errno and name, of which only some are set."""
        kind = type(error).__name__
        code = _str(error.err_name).rpartition(".")[2] or kind.removeprefix("DBus").removesuffix("Error")
        message = _str(error.err_message).rstrip(".")
        if kind == "DBusInterruptedError" or error.errno in (-4, None):
            return Interrupted()
        if code in ("Timeout", "TimedOut") or error.errno == -110:
            return _refusal(
                "UNREACHABLE",
                f"systemd does not answer on {self.address()}",
                "`systemctl list-jobs` shows whether it is busy; SYSTEMD_BUS_TIMEOUT=5min waits longer",
            )
        if error.errno in _GONE or code in _GONE_NAMES:
            return Disconnected(message)
        if code in _DENIED_NAMES or error.errno in (-1, -13):
            return _refusal("DENIED", f"systemd does not allow this: {message}", self._more_rights())
        return CallError(code, message)

    def _more_rights(self) -> str:
        return "" if self.user else "run this as root (sudo)"

    def _unreachable(self, cause: Any) -> SysrespError:
        """Say why there is nobody to talk to, and what to do."""
        if self.user and not os.environ.get("XDG_RUNTIME_DIR"):
            return _refusal(
                "UNREACHABLE",
                "cannot find your own service manager: XDG_RUNTIME_DIR is not set",
                "log in with a full session (ssh or machinectl, not su), or keep it running without one: "
                "loginctl enable-linger",
            )
        if not os.access("/run/systemd/system", os.F_OK) and not self.user:  # sd_booted(3)
            return _refusal(
                "UNREACHABLE",
                f"no systemd is running here (PID 1 is '{_pid1()}')",
                "try `sysresp rehearse FILE`: it boots a throwaway copy of this host",
            )
        where = self.address()
        number = -cause.errno if getattr(cause, "errno", None) else 0
        why = os.strerror(number).lower() if number else str(cause)
        if number in (1, 13):
            return _refusal("DENIED", f"cannot open {where}: {why}", self._more_rights())
        if self.user:
            return _refusal(
                "UNREACHABLE",
                f"your own service manager cannot be reached at {where}: {why}",
                "is it running? `systemctl --user status`; without a login: loginctl enable-linger",
            )
        return _refusal(
            "UNREACHABLE",
            f"D-Bus cannot be reached at {where}: {why}",
            "start it with `systemctl start dbus.socket`, or run this as root, which needs no D-Bus",
        )
