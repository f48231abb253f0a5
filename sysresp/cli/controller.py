"""`sysresp controller enable | disable | restart | status`: the controller seen from outside.

Owns the work of these commands. The controller's units are a project like any other, "sysresp", so that they
have a history, drift and a way back; where a package brought the unit, it is the package's, and is only
enabled and started. Rule: nothing here needs the controller to be well, or its directory to be honest.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace
from typing import Any

from sysresp.cli import change, hosts, own_status, own_units, running
from sysresp.cli.boundary import usage
from sysresp.cli.build import Source
from sysresp.controller import own
from sysresp.errors import Exit, SysrespError
from sysresp.model import Mode, Scope
from sysresp.ports import Host, JobRemoved
from sysresp.reconcile import layout

_READY_SEC = 90.0
"""Longer than its unit may take to start (controller.toml)."""


def enable(scope: Scope, options: change.Options, *, create_user: bool = False) -> int:
    """Install and start it, by the package's unit or by ours."""
    host = hosts.host(scope, Mode.PERSISTENT)
    if create_user:
        if scope is Scope.USER:
            raise usage("--create-user is for the system's service manager, not for --user")
        own_units.create_account(host)
    path = own_units.packaged(host)
    if path and not _is_ours(scope):
        return _enable_packaged(host, path, options, scope)
    choice = own_units.choose(host, scope)
    _say(f"the controller runs {choice.why}")
    host.files.write(f"{host.paths.state_dir}/{own.FALLBACK.name}", own.FALLBACK.read_bytes())
    source = Source((), scope=scope, layers=own.layers(choice.way, scope))
    status = change.apply(source, replace(options, again=_words("enable", scope)))
    if status == Exit.OK and own_status.unit(host.manager)["active"] != "active":
        # Apply leaves what was stopped, or has failed for good, as it is; here it was asked for by name.
        _restart(host, scope)
    return status


def disable(scope: Scope, options: change.Options) -> int:
    """Stop it and take away what `enable` made; its ledger stays."""
    host = hosts.host(scope, Mode.PERSISTENT)
    status: int = Exit.OK
    if _is_ours(scope):
        status = change.down([], project=own.PROJECT, scope=scope, modes=[], options=options)
        if status == Exit.OK:
            host.files.remove(f"{host.paths.state_dir}/{own.FALLBACK.name}")
    elif path := own_units.packaged(host):
        for link in own_units.links(host, path):
            host.files.remove(link)
        _wait(host, host.manager.stop(own.UNIT))
        host.manager.reload()
        _told(
            options, {"unit": own.UNIT, "packaged": path, "enabled": False}, f"{path}: disabled and stopped"
        )
    else:
        raise _not_here(scope)
    return status


def restart(scope: Scope, *, as_json: bool) -> int:
    """Ask systemd to restart it, and tell what became of that."""
    host = hosts.host(scope, Mode.PERSISTENT)
    before = own_status.unit(host.manager)
    if before["load"] != "loaded":
        raise _not_here(scope)
    began = time.monotonic()
    after = _restart(host, scope)
    took = time.monotonic() - began
    notes = (own_status.last_note(where, "gap") for where in layout.controller_dirs(scope, os.environ))
    gap = next((note for note in notes if note and note["when"] >= after["since"]), None)
    found = {
        "unit": own.UNIT,
        "old_pid": before["pid"] or None,
        "new_pid": after["pid"] or None,
        "seconds": round(took, 3),
        "gap": gap,
    }
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        was = f"PID {before['pid']}" if before["pid"] else "it was down"
        print(f"{own.UNIT}: restarted, {was} -> PID {after['pid']}, ready after {took:.2f}s")
        if gap:
            print(f"  {gap['text']}")
    return Exit.OK


def status(scope: Scope, *, as_json: bool) -> int:
    """Tell how it is; exit status 3 if it does not run."""
    host = hosts.host(scope, Mode.PERSISTENT)
    found = own_status.gather(host, scope, os.environ)
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        hints = {verb: _words(verb, scope) for verb in ("enable", "restart")}
        print("\n".join(own_status.lines(found, **hints)))
    return Exit.OK if found["active"] == "active" else Exit.NOT_WELL


def _restart(host: Host, scope: Scope) -> dict[str, Any]:
    """Restart it, or start it, and return what it is then; SysrespError if that is not up."""
    # Else a few restarts in a row would be too many for its start limit, which is there for failures.
    host.manager.reset_failed(own.UNIT)
    _wait(host, host.manager.restart(own.UNIT))
    after = own_status.unit(host.manager)
    if after["active"] in ("activating", "deactivating", "reloading"):
        # Somebody, or its own code watch, asked for the next restart: a start job joins that one.
        _wait(host, host.manager.start(own.UNIT))
        after = own_status.unit(host.manager)
    if after["active"] != "active":
        raise SysrespError(
            f"{own.UNIT} did not come up: it is {after['active']} ({after['result']})",
            hint=f"see why: {_words('status', scope)}",
        )
    return after


def _enable_packaged(host: Host, path: str, options: change.Options, scope: Scope) -> int:
    made = [link for link in own_units.links(host, path) if host.files.readlink(link) is None]
    for link in made:
        host.files.link(link, path)
    host.manager.reload()
    state = own_status.unit(host.manager)
    if state["active"] != "active":
        state = _restart(host, scope)
    done = "enabled and started" if made else "started"
    text = f"{path} is the package's: {done} as it is, PID {state['pid']}"
    lacks = own_units.account_lacks() if state["account"] == own.ACCOUNT else ""
    if lacks:
        text += f"\nit cannot restart anything, because {lacks}: see sysresp-controller(8)"
    _told(
        options,
        {"unit": own.UNIT, "packaged": path, "enabled": True, "pid": state["pid"], "lacks": lacks},
        text,
    )
    return Exit.OK


def _wait(host: Host, job: int) -> None:
    """Wait for the end of a job of the controller's unit; what became of the unit is for the caller."""

    def removed(_end: JobRemoved) -> None:
        return

    with running.progress():
        left = host.manager.wait([job], _READY_SEC, removed)
    if left:
        raise SysrespError(
            f"{own.UNIT}: systemd is not done after {_READY_SEC:g}s",
            hint=f"see: systemctl status {own.UNIT}",
        )


def _is_ours(scope: Scope) -> bool:
    return bool(hosts.manifests(scope, own.PROJECT))


def _not_here(scope: Scope) -> SysrespError:
    return SysrespError(
        "there is no controller here", hint=f"install it: {_words('enable', scope)}", exit=Exit.UNKNOWN
    )


def _words(verb: str, scope: Scope) -> str:
    return " ".join(["sysresp controller", verb, *(["--user"] if scope is Scope.USER else [])])


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _told(options: change.Options, found: dict[str, Any], text: str) -> None:
    print(json.dumps(found, indent=2) if options.as_json else text)
