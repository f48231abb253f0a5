"""Where each scope and mode keep their things.

Owns the table of directories: unit files, manifests, the installed readiness prober, and the path on which
the service manager looks for units (systemd.unit(5), "Unit File Load Path"). Never looks at the disk and
never reads the environment: `env` is an argument. Rule: a directory of the host is named here and nowhere
else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sysresp.ports import Paths

if TYPE_CHECKING:  # `sysresp status` imports this module and must not pay for dataclasses
    from collections.abc import Mapping

    from sysresp.model import Mode, Scope

# systemd.unit(5), table 1: first wins. /lib is /usr/lib wherever systemd >= 247 is packaged.
_SYSTEM_SEARCH = (
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/run/systemd/transient",
    "/run/systemd/generator.early",
    "/etc/systemd/system",
    "/etc/systemd/system.attached",
    "/run/systemd/system",
    "/run/systemd/system.attached",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/run/systemd/generator.late",
)


def paths(scope: Scope | str, mode: Mode | str, env: Mapping[str, str]) -> Paths:
    """Return the places of this scope and mode; env gives HOME and the XDG directories of a user."""
    if scope == "system":
        state = state_dirs(scope, env)[mode != "persistent"]
        return Paths(_SYSTEM_DIRS[mode], state, f"{state}/ready.py", _SYSTEM_SEARCH, "/run/sysresp")
    config, run = _config(env), _runtime(env)
    unit_dir = {
        "persistent": f"{config}/systemd/user",
        "runtime": f"{run}/systemd/user",
        "transient": f"{run}/systemd/transient",
    }[mode]
    state = state_dirs(scope, env)[mode != "persistent"]
    # The prober's path is part of the unit text, so it is the same whatever XDG_STATE_HOME says.
    prober = f"{_home(env)}/.local/state/sysresp/ready.py" if mode == "persistent" else f"{state}/ready.py"
    return Paths(unit_dir, state, prober, _user_search(env, config, run), f"{run}/sysresp")


def state_dirs(scope: Scope | str, env: Mapping[str, str]) -> tuple[str, str]:
    """Return the directories of the manifests: persistent, and gone at reboot (runtime and transient)."""
    if scope == "system":
        return "/var/lib/sysresp", "/run/sysresp"
    state = env.get("XDG_STATE_HOME") or f"{_home(env)}/.local/state"
    return f"{state}/sysresp", f"{_runtime(env)}/sysresp"


def controller_dirs(scope: Scope | str, env: Mapping[str, str]) -> tuple[str, ...]:
    """Return where the controller's StateDirectory= may be: a tree of its own, which its user may write.

    In a user's manager that is below XDG_STATE_HOME since systemd 254, below XDG_CONFIG_HOME before.
    """
    if scope == "system":
        return ("/var/lib/sysresp-controller",)
    state = env.get("XDG_STATE_HOME") or f"{_home(env)}/.local/state"
    return f"{state}/sysresp-controller", f"{_config(env)}/sysresp-controller"


_SYSTEM_DIRS = {
    "persistent": "/etc/systemd/system",
    "runtime": "/run/systemd/system",
    "transient": "/run/systemd/transient",  # PID 1 writes there, sysresp only looks
}


def _user_search(env: Mapping[str, str], config: str, run: str) -> tuple[str, ...]:
    """Return the load path of a user manager (systemd.unit(5), table 2)."""
    data = env.get("XDG_DATA_HOME") or f"{_home(env)}/.local/share"
    config_dirs = (env.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":")
    data_dirs = (env.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share").split(":")
    found = (
        f"{config}/systemd/user.control",
        f"{run}/systemd/user.control",
        f"{run}/systemd/transient",
        f"{run}/systemd/generator.early",
        f"{config}/systemd/user",
        *(f"{d}/systemd/user" for d in config_dirs if d),
        "/etc/systemd/user",
        f"{run}/systemd/user",
        "/run/systemd/user",
        f"{run}/systemd/generator",
        f"{data}/systemd/user",
        *(f"{d}/systemd/user" for d in data_dirs if d),
        "/usr/local/lib/systemd/user",
        "/usr/lib/systemd/user",
        f"{run}/systemd/generator.late",
    )
    return tuple(dict.fromkeys(found))


def _home(env: Mapping[str, str]) -> str:
    home = env.get("HOME", "")
    if not home.startswith("/"):
        raise _error("cannot find the home directory: HOME is not set", hint="run it as a logged-in user")
    return home.rstrip("/")


def _config(env: Mapping[str, str]) -> str:
    return env.get("XDG_CONFIG_HOME") or f"{_home(env)}/.config"


def _runtime(env: Mapping[str, str]) -> str:
    run = env.get("XDG_RUNTIME_DIR", "")
    if not run.startswith("/"):
        raise _error(
            "cannot find the user's service manager: XDG_RUNTIME_DIR is not set",
            hint="log in as that user (sudo and su do not make a session); try `machinectl shell USER@`",
        )
    return run.rstrip("/")


def _error(message: str, *, hint: str) -> Exception:
    from sysresp.errors import SysrespError  # noqa: PLC0415 (keeps `status` from importing model)

    return SysrespError(message, hint=hint)
