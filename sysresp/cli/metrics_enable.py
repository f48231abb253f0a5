"""`sysresp metrics enable | disable`: the exporter's units on this host.

Owns the work of these commands. What is asked for is all there is afterwards: the exporter, the timer that
writes a textfile, or both; a project like any other, "sysresp-metrics", with a history and a way back. Where
a package brought the exporter, that one is enabled, and its address is a drop-in of ours. Rule: nothing is
enabled that could not answer; the first textfile is written before the command ends.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from typing import Any

from sysresp.cli import change, exporter_units, hosts, metrics, own_units, running
from sysresp.cli.boundary import usage
from sysresp.cli.build import Source
from sysresp.cli.exporter_units import LISTEN, PROJECT, SOCKET, TEXTFILE_UNIT, TIMER, UNIT, Wish
from sysresp.controller import own
from sysresp.errors import Exit, SysrespError
from sysresp.model import Mode, Scope
from sysresp.ports import Host, JobRemoved
from sysresp.spec.parse import parse as parse_spec
from sysresp.units.text import parse

_JOB_SEC = 60.0
_DROP_IN = f"{SOCKET}.d/sysresp-listen.conf"


def enable(scope: Scope, options: change.Options, *, listen: str, textfile: str) -> int:
    """Install what is asked for, and start it, now and at boot; the exporter if nothing is."""
    metrics.encoder()  # says how to install what it needs
    host = hosts.host(scope, Mode.PERSISTENT)
    wish = Wish(listen or ("" if textfile else LISTEN))
    if textfile:
        if host.files.stat(textfile) is None or not textfile.startswith("/"):
            raise usage(
                f"there is no directory {textfile}",
                "it is what node_exporter's --collector.textfile.directory names, from / on",
            )
        link = f"{textfile.rstrip('/')}/{metrics.FILE}"
        wish = wish._replace(textfile=f"{_run_dir(scope)}/{metrics.FILE}", link=link)
    path = own_units.packaged(host, SOCKET) if scope is Scope.SYSTEM else ""
    program, environment = (own.PACKAGED.program, {}) if path else own_units.code()
    if scope is Scope.SYSTEM and not path:
        own_units.demand_trust(exporter_units.ACCOUNT, "a service of the system")
        own_units.make_account(host, exporter_units.ACCOUNT, exporter_units.SYSUSERS_TEXT)
    old = _link(host)
    if path:
        # Ours is judged as it is applied; the package's gets the address as it is.
        spec, problems = parse_spec(exporter_units.layers(program, environment, wish, scope), scope=scope)
        if spec is None:
            raise usage(f"--listen {listen}: {problems[0].what}", problems[0].fix)
        _packaged(host, path, wish.listen, options)
    ours = wish._replace(listen="") if path else wish
    if ours == Wish():
        return _down(host, scope, options) if _is_ours(scope) else Exit.OK
    source = Source((), scope=scope, layers=exporter_units.layers(program, environment, ours, scope))
    status = change.apply(source, replace(options, again=_words("enable", scope)))
    if status != Exit.OK:
        return status
    if old and old != wish.link:
        host.files.remove(old)
    if ours.listen:
        _up(host, SOCKET)
        _say(f"metrics: http://{_shown(wish.listen)}/metrics")
    if ours.textfile:
        host.files.link(wish.link, wish.textfile)
        _up(host, TIMER)
        _done(host, TEXTFILE_UNIT)
        _say(f"metrics: {wish.link}, each 30s")
    return Exit.OK


def disable(scope: Scope, options: change.Options) -> int:
    """Stop it, and take away what `enable` made."""
    host = hosts.host(scope, Mode.PERSISTENT)
    path = own_units.packaged(host, SOCKET) if scope is Scope.SYSTEM else ""
    if not path and not _is_ours(scope):
        raise SysrespError(
            "no metrics are enabled here", hint=f"do it: {_words('enable', scope)}", exit=Exit.UNKNOWN
        )
    if path:
        _packaged(host, path, "", options)
    return _down(host, scope, options) if _is_ours(scope) else Exit.OK


def _down(host: Host, scope: Scope, options: change.Options) -> int:
    link = _link(host)
    status = change.down([], project=PROJECT, scope=scope, modes=[], options=options)
    if status == Exit.OK and link:
        host.files.remove(link)
    return status


def _packaged(host: Host, path: str, listen: str, options: change.Options) -> None:
    """Enable the package's socket on this address, or disable it with ""."""
    files, drop_in = host.files, f"{host.paths.unit_dir}/{_DROP_IN}"
    links = own_units.links(host, path)
    made = [link for link in links if files.readlink(link) is not None]
    text = f"[Socket]\nListenStream=\nListenStream={listen}\n".encode()
    before = files.read(drop_in)
    if listen in {"", LISTEN}:
        files.remove(drop_in)
        files.rmdir(drop_in.rpartition("/")[0])
    else:
        files.write(drop_in, text)
    for link in links:
        if listen and link not in made:
            files.link(link, path)
        elif not listen:
            files.remove(link)
    host.manager.reload()
    if not listen:
        _wait(host, host.manager.stop(SOCKET), SOCKET)
        _wait(host, host.manager.stop(UNIT), UNIT)
    else:
        if files.read(drop_in) != before:
            _wait(host, host.manager.stop(SOCKET), SOCKET)  # a new address is a new socket
            _wait(host, host.manager.stop(UNIT), UNIT)
        _up(host, SOCKET)
    found: dict[str, Any] = {"unit": SOCKET, "packaged": path, "enabled": bool(listen), "listen": listen}
    done = f"enabled, http://{_shown(listen)}/metrics" if listen else "disabled and stopped"
    print(json.dumps(found, indent=2) if options.as_json else f"{path} is the package's: {done}")


def _up(host: Host, unit: str) -> None:
    """Start it if it is not up; SysrespError if it does not come up."""
    if _state(host, unit) != "active":
        host.manager.reset_failed(unit)
        _wait(host, host.manager.start(unit), unit)
    if (state := _state(host, unit)) != "active":
        raise SysrespError(f"{unit} did not come up: it is {state}", hint=f"see: systemctl status {unit}")


def _done(host: Host, unit: str) -> None:
    """Run it once, to its end; SysrespError if that is a bad one."""
    _wait(host, host.manager.start(unit), unit)
    if _state(host, unit) == "failed":
        raise SysrespError(f"{unit} has failed", hint=f"see: journalctl -u {unit} -e")


def _state(host: Host, unit: str) -> str:
    return str(host.manager.properties(unit, "Unit", ("ActiveState",)).get("ActiveState", ""))


def _wait(host: Host, job: int, unit: str) -> None:
    def removed(_end: JobRemoved) -> None:
        return

    with running.progress():
        left = host.manager.wait([job], _JOB_SEC, removed)
    if left:
        raise SysrespError(
            f"{unit}: systemd is not done after {_JOB_SEC:g}s", hint=f"see: systemctl status {unit}"
        )


def _link(host: Host) -> str:
    """Return the link that an earlier `enable` made: the unit that writes the file names it."""
    text = (host.files.read(f"{host.paths.unit_dir}/{TEXTFILE_UNIT}") or b"").decode(errors="replace")
    found = [value for _, name, value in parse(text) if name == "Documentation"]
    words = [word for value in found for word in value.split() if word.startswith("file:/")]
    link = words[-1].removeprefix("file:") if words else ""
    return link if link.endswith(f"/{metrics.FILE}") and host.files.readlink(link) is not None else ""


def _run_dir(scope: Scope) -> str:
    return f"{os.environ.get('XDG_RUNTIME_DIR', '') if scope is Scope.USER else '/run'}/{PROJECT}"


def _shown(listen: str) -> str:
    return listen if ":" in listen else f"localhost:{listen}"


def _is_ours(scope: Scope) -> bool:
    return bool(hosts.manifests(scope, PROJECT))


def _words(verb: str, scope: Scope) -> str:
    return " ".join(["sysresp metrics", verb, *(["--user"] if scope is Scope.USER else [])])


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
