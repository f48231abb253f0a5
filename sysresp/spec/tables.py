"""The tables inside of a service: restart, rollout, stop, limits, schedule, watch, hardening, reload.

And [controller], which is one of the file itself. Each is a list of rows as in sysresp.spec.keys, which puts
them together, and a function that makes the value of the model and refuses keys that do not fit each other.
Rule: a check here may use this table only.
"""

from __future__ import annotations

from typing import Any

from sysresp.model import Controller, Hardening, Limits, Restart, Rollout, Schedule, Stop, Watch
from sysresp.spec.commands import Commands
from sysresp.spec.directives import EXCEPTIONS
from sysresp.spec.quantities import Amount, Duration
from sysresp.spec.report import At
from sysresp.spec.types import Bool, Choice, Converted, Enum, Int, Key, ListOf, Str, Table
from sysresp.spec.values import PATHS, SIGNAL, STATUSES

SHORTEST_DELAY_SEC = 0.1
"""Below this, unlimited restarts are a busy loop of PID 1; on systemd <= 250 a delay of 0 can even make
`systemctl stop` hang (the restart timer is armed again while the stop job waits)."""

_COOLDOWN = Duration(low=1)


def _then(text: str, at: At) -> Any:
    return 0.0 if text == "give-up" else _COOLDOWN.parse(text.removeprefix("cooldown "), at)


def _restart(values: dict[str, Any], at: At) -> Any:
    restart = Restart(**values)
    if restart.when != "no" and restart.attempts is None and restart.delay_sec < SHORTEST_DELAY_SEC:
        return (at / "delay").error(
            f"is below {SHORTEST_DELAY_SEC * 1000:g}ms with unlimited attempts, a busy loop of systemd",
            'write delay = "100ms" or more, or limit `attempts`',
        )
    if restart.max_delay_sec is not None and restart.max_delay_sec < restart.delay_sec + restart.jitter_sec:
        also = " and `jitter` together" if restart.max_delay_sec >= restart.delay_sec else ""
        return (at / "max_delay").error(f"is shorter than `delay`{also}", "write a longer one")
    if restart.steps is not None and restart.max_delay_sec is None:
        return (at / "steps").error(
            "needs `max_delay`", 'write max_delay = "1min", the delay after the last step'
        )
    is_bounded = restart.attempts is not None or restart.failures is not None
    if restart.cooldown_sec and not is_bounded:
        return (at / "then").error(
            "is a cooldown, and there is no last attempt that it could follow",
            "write attempts = 10, or failures = 10",
        )
    if "cooldowns" in values and not restart.cooldown_sec:
        return (at / "cooldowns").error("needs a cooldown", 'write then = "cooldown 15min", or remove it')
    if "per_sec" in values and restart.failures is None:
        return (at / "per").error("needs `failures`", "write failures = 10, or remove it")
    if restart.reset_after_sec is not None and restart.max_delay_sec is None and not is_bounded:
        return (at / "reset_after").error(
            "has nothing to reset: the delay does not grow, and nothing is counted",
            "add `max_delay`, `attempts` or `failures`, or remove it",
        )
    return restart


RESTART = Table(
    [
        Key(
            "when",
            Enum(
                ("no", "always", "on-success", "on-failure", "on-abnormal", "on-abort", "on-watchdog"),
                {"never": "no"},
            ),
            "Which exits are followed by a restart (Restart= of systemd.service(5))",
            '"always"',
            '"on-failure"; "no" for a oneshot',
        ),
        Key("delay", Duration(), "Pause before a restart", '"5s"', "1s", "delay_sec"),
        Key("max_delay", Duration(), "The pause grows to this", '"1min"', "", "max_delay_sec"),
        Key("steps", Int(1, 1000), "How many restarts it takes to grow", "8", "5"),
        Key(
            "attempts",
            Int(1, 1_000_000),
            "Gives up after this many starts in `within`",
            "10",
            "never gives up",
        ),
        Key("within", Duration(low=0.001), "The window of `attempts`", '"10min"', "10min", "within_sec"),
        Key(
            "jitter",
            Duration(),
            "A share of this, fixed for each unit, is added to delay",
            '"2s"',
            "0",
            "jitter_sec",
        ),
        Key("success_exit", STATUSES, "Exit statuses and signals that count as success", '[3, "USR1"]'),
        Key("prevent_exit", STATUSES, "Exit statuses and signals after which it stays down", "[78]"),
        Key("force_exit", STATUSES, "Exit statuses and signals after which it always restarts", "[75]"),
        Key(
            "failures",
            Int(1, 1_000_000),
            "More failures than this in `per` were the last attempt, too",
            "20",
            "any number",
        ),
        Key("per", Duration(low=1), "The window of `failures`", '"1h"', "1h", "per_sec"),
        Key(
            "then",
            Str(
                '"give-up" or "cooldown DURATION"',
                _then,
                pattern="give-up|cooldown .+",
                fix='write "cooldown 15min": it is started again after that time',
            ),
            "What follows the last attempt",
            '"cooldown 15min"',
            '"give-up"',
            "cooldown_sec",
        ),
        Key(
            "cooldowns",
            Int(0, 1_000_000),
            "How many cooldowns in a row; 0: for ever",
            "3",
            "0",
        ),
        Key(
            "reset_after",
            Duration(low=1),
            "After running so long all is counted anew, the delay too",
            '"10min"',
            "never",
            "reset_after_sec",
        ),
    ],
    _restart,
    short="when",
)


def _rollout(values: dict[str, Any], _at: At) -> Any:
    return Rollout(**values)


ROLLOUT = Table(
    [
        Key(
            "parallel",
            Int(1, 1000),
            "How many instances are down at a time",
            "2",
            "a quarter of those that run, at least one",
        ),
        Key("pause", Duration(), "Pause before the next ones, after these are up", '"5s"', "0", "pause_sec"),
        Key(
            "stop_on_failure", Bool(), "The next ones are left alone if one of these fails", "false", "true"
        ),
    ],
    _rollout,
)


def _stop(values: dict[str, Any], _at: At) -> Any:
    return Stop(**values)


class _StopTable(Table):
    def parse(self, value: object, at: At) -> Any:
        if isinstance(value, list):
            return at.error("must be a signal or a table, got an array", "write stop = { command = [...] }")
        return super().parse(value, at)


STOP = _StopTable(
    [
        Key("signal", SIGNAL, "What it is told with", '"INT"', '"TERM"'),
        Key(
            "timeout",
            Duration(low=0.001, infinity=True),
            "It is killed after this",
            '"20s"',
            "90s (systemd's)",
            "timeout_sec",
        ),
        Key(
            "kill_mode",
            Enum(("control-group", "mixed", "process", "none")),
            "Who gets the signal (KillMode= of systemd.kill(5))",
            '"mixed"',
            '"control-group"',
        ),
        Key(
            "command",
            Commands(prefixes=True),
            "What is run to stop it, before the signal",
            '["/srv/bin/quit"]',
        ),
    ],
    _stop,
    short="signal",
)

_SIZE = 'a size such as "512M"'


def _memory(low: int = 1) -> Amount:
    return Amount(f'{_SIZE}, a percentage or "infinity"', size=True, percent=100, low=low, example='"512M"')


def _rlimit(text: str, *, size: bool = False) -> Amount:
    return Amount(text, size=size, count=not size, pair=True, example='"512M"' if size else "65536")


def _limits(values: dict[str, Any], _at: At) -> Any:
    return Limits(**values)


_COUNT = 'a number, "SOFT:HARD" or "infinity"'
LIMITS = Table(
    [
        Key("memory", _memory(), "Killed above this (MemoryMax=)", '"512M"'),
        Key("memory_high", _memory(), "Slowed down above this (MemoryHigh=)", '"400M"'),
        Key("swap", _memory(low=0), "Swap it may use (MemorySwapMax=)", '"0"'),
        Key(
            "cpu",
            Amount('a percentage of one CPU such as "150%"', percent=1e6, infinity=False, example='"150%"'),
            "CPU time it may use; 100% is one CPU (CPUQuota=)",
            '"150%"',
        ),
        Key("cpu_weight", Int(1, 10000), "Its share when CPUs are busy (CPUWeight=)", "200", "100"),
        Key("io_weight", Int(1, 10000), "Its share when disks are busy (IOWeight=)", "200", "100"),
        Key(
            "tasks",
            Amount('a number, a percentage or "infinity"', count=True, percent=100, low=1, example="200"),
            "Processes and threads (TasksMax=)",
            "200",
        ),
        Key("files", _rlimit(_COUNT), "Open files (LimitNOFILE=)", "65536"),
        Key("processes", _rlimit(_COUNT), "Processes of its user (LimitNPROC=)", "1024"),
        Key(
            "core",
            _rlimit('a size, "SOFT:HARD" or "infinity"', size=True),
            "Core file (LimitCORE=)",
            '"infinity"',
        ),
        Key(
            "runtime",
            Duration(low=0.001, infinity=True),
            "Stopped after this (RuntimeMaxSec=)",
            '"1h"',
            "",
            "runtime_sec",
        ),
    ],
    _limits,
)


def _schedule(values: dict[str, Any], at: At) -> Any:
    schedule = Schedule(**values)
    if not schedule.calendar and schedule.every_sec is None and schedule.on_boot_sec is None:
        return at.error(
            "says no time", 'write calendar = "Mon..Fri 06:00", every = "1h" or on_boot = "5min"'
        )
    return schedule


_CALENDAR = ListOf(
    Str("a calendar expression of systemd.time(7)", pattern=r"[ -~]*[!-~][ -~]*", fix='write "daily"')
)
SCHEDULE = Table(
    [
        Key("calendar", _CALENDAR, "When it runs (systemd.time(7))", '"Mon..Fri 06:00"'),
        Key("every", Duration(low=1), "It runs this long after its last start", '"15min"', "", "every_sec"),
        Key("on_boot", Duration(), "It runs this long after boot", '"5min"', "", "on_boot_sec"),
        Key("catch_up", Bool(), "A run that was missed happens at boot", "false", "true"),
        Key("jitter", Duration(), "It runs up to this later, at random", '"10min"', "0", "jitter_sec"),
        Key(
            "accuracy",
            Duration(),
            "systemd may delay it by this to save wake-ups",
            '"1s"',
            "1min",
            "accuracy_sec",
        ),
    ],
    _schedule,
    short="calendar",
)


def _watch(values: dict[str, Any], at: At) -> Any:
    if not values.get("paths"):
        return at.error("has no `paths`", 'write paths = ["/etc/shop/web.conf"]')
    return Watch(**values)


WATCH = Table(
    [
        Key("paths", PATHS, "Files and directories that are watched", '["/etc/shop/web.conf"]'),
        Key("action", Enum(("restart", "reload")), "What happens on a change", '"reload"', '"restart"'),
    ],
    _watch,
    short="paths",
)


def _hardening(values: dict[str, Any], _at: At) -> Any:
    return Hardening(**values)


HARDENING = Table(
    [
        Key(
            "profile",
            Enum(("off", "web", "strict-jit", "strict"), {"standard": "web"}, 'write "web"'),
            "How much of the host it may touch",
            '"strict"',
            '"off"',
        ),
        Key(
            "except",
            EXCEPTIONS,
            "Directives of the profile that are left out",
            '["ProtectHome"]',
            field="exceptions",
        ),
        Key("read_write", PATHS, "It may write here (ReadWritePaths=)", '["/srv/shop/data"]'),
        Key("read_only", PATHS, "It may not write here (ReadOnlyPaths=)", '["/srv/shop"]'),
        Key("inaccessible", PATHS, "It cannot see this (InaccessiblePaths=)", '["/srv/other"]'),
    ],
    _hardening,
    short="profile",
)


def _reload_signal(values: dict[str, Any], at: At) -> Any:
    return values.get("signal") or at.error("has no `signal`", 'write { signal = "HUP" }')


HOOK = Commands(prefixes=True)


class _Reload(Choice):
    """A command, or a table with the signal: told apart by the keys of the table."""

    def parse(self, value: object, at: At) -> Any:
        if isinstance(value, dict) and "command" in value:
            return HOOK.parse(value, at)
        return super().parse(value, at)

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [HOOK.schema(), self.choices[dict].schema()]}


_RELOAD_SIGNAL = Table([Key("signal", SIGNAL, "What it is told with", '"HUP"')], _reload_signal)
RELOAD = _Reload({str: HOOK, list: HOOK, dict: _RELOAD_SIGNAL}, "a command, or { signal = ... }")


def _bytes(mebibytes: int, example: str) -> Converted:
    """Return the type of a size in bytes, of at least so many MiB."""
    text = f'a size of at least {mebibytes}M, such as "{example}"'
    amount = Amount(text, size=True, infinity=False, low=mebibytes << 20, example=f'"{example}"')
    return Converted(amount, lambda text, _at: int(text))


def _controller(values: dict[str, Any], _at: At) -> Any:
    return Controller(**values)


CONTROLLER = Table(
    [
        Key(
            "starts_per_second",
            Converted(Int(1, 1000), lambda number, _at: float(number)),
            "How many starts it asks for, over all services",
            "10",
            "5",
        ),
        Key(
            "max_age", Duration(low=60), "It restarts itself after so long", '"30d"', "never", "max_age_sec"
        ),
        Key("max_memory", _bytes(32, "128M"), "It restarts itself above this", '"128M"', "never"),
        Key("keep", Duration(low=3600), "So long exits stay in its ledger", '"1y"', "90d", "keep_sec"),
        Key(
            "keep_size",
            _bytes(1, "1G"),
            "A ledger larger than this loses what is oldest",
            '"1G"',
            '"256M"',
            "keep_bytes",
        ),
        Key("flapping", Int(2, 1000), "So many failures are an incident", "10", "5", "flaps"),
        Key("flapping_within", Duration(low=1), "The window of `flapping`", '"1h"', "10min", "flaps_sec"),
    ],
    _controller,
)
