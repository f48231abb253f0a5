"""`metrics enable | disable`: by the package's socket and by units of our own; on a fake host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sysresp.cli import exporter_units, own_units
from sysresp.cli.exporter_units import ACCOUNT, SOCKET, TEXTFILE_UNIT, TIMER, UNIT
from sysresp.errors import Exit as Status
from sysresp.errors import SysrespError
from sysresp.ports import Host
from tests.ledger_world import World, living

# typer 0.7 knows only `autocompletion`, and warns that Click has renamed it.
pytestmark = pytest.mark.filterwarnings("ignore:'autocompletion' is renamed:DeprecationWarning")
ETC = "/etc/systemd/system"
WANTED = f"{ETC}/sockets.target.wants/{SOCKET}"
DROP_IN = f"{ETC}/{SOCKET}.d/sysresp-listen.conf"
DIR = "/var/lib/node"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A host on which this checkout may be run, and accounts are made with a word."""
    made: list[str] = []
    monkeypatch.setattr(own_units, "demand_trust", lambda account, _who: made.append(f"trust {account}"))
    monkeypatch.setattr(own_units, "make_account", lambda _host, name, _text: made.append(name))
    with living(tmp_path) as one:
        one.files.write(f"{DIR}/other.prom", b"")
        yield one
    assert set(made) <= {f"trust {ACCOUNT}", ACCOUNT}


def ship(world: World) -> None:
    """Let a package have brought the exporter."""
    for name, text in exporter_units.packaged().items():
        world.files.write(f"/usr/lib/systemd/system/{name}", text.encode())
    world.manager.reload()


def test_units_of_our_own(world: World) -> None:
    said = world.run("metrics", "enable")
    assert "http://127.0.0.1:9917/metrics" in said
    assert f"{ETC}/{SOCKET}" in world.files.files
    assert f"{ETC}/{TIMER}" not in world.files.files
    assert b"ListenStream=127.0.0.1:9917\n" in world.files.files[f"{ETC}/{SOCKET}"]
    # What is asked for is all there is.
    world.run("metrics", "enable", "--listen", "127.0.0.1:9000", "--textfile", DIR)
    assert b"ListenStream=127.0.0.1:9000\n" in world.files.files[f"{ETC}/{SOCKET}"]
    assert world.files.readlink(f"{DIR}/sysresp.prom") == "/run/sysresp-metrics/sysresp.prom"
    world.run("metrics", "enable", "--textfile", DIR)
    assert f"{ETC}/{SOCKET}" not in world.files.files
    assert f"{ETC}/{TIMER}" in world.files.files
    world.run("metrics", "disable")
    assert world.files.readlink(f"{DIR}/sysresp.prom") is None
    assert not [path for path in world.files.files if "sysresp-metrics" in path and path.startswith(ETC)]
    assert "no metrics are enabled here" in world.run("metrics", "disable", status=4)


def test_the_link_follows_the_directory(world: World) -> None:
    world.files.write("/srv/node/x", b"")
    world.run("metrics", "enable", "--textfile", DIR)
    world.run("metrics", "enable", "--textfile", "/srv/node")
    assert world.files.readlink(f"{DIR}/sysresp.prom") is None
    assert world.files.readlink("/srv/node/sysresp.prom") is not None
    assert b"Documentation=" in world.files.files[f"{ETC}/{TEXTFILE_UNIT}"]


@pytest.mark.parametrize("where", ["/nowhere", "var/lib/node"])
def test_a_directory_that_is_none(world: World, where: str) -> None:
    assert "there is no directory" in world.run("metrics", "enable", "--textfile", where, status=2)
    assert f"{ETC}/{TIMER}" not in world.files.files


def test_the_package_s_socket(world: World) -> None:
    ship(world)
    said = world.run("metrics", "enable")
    assert "is the package's: enabled" in said
    assert world.files.readlink(WANTED) == f"/usr/lib/systemd/system/{SOCKET}"
    assert f"{ETC}/{SOCKET}" not in world.files.files
    assert DROP_IN not in world.files.files
    world.run("metrics", "enable", "--listen", "127.0.0.1:9000")
    assert world.files.files[DROP_IN] == b"[Socket]\nListenStream=\nListenStream=127.0.0.1:9000\n"
    assert ("stop", SOCKET) in world.manager.calls  # a new address is a new socket
    world.run("metrics", "enable", "--textfile", DIR)
    assert world.files.readlink(WANTED) is None
    assert f"{ETC}/{TIMER}" in world.files.files
    assert b"ExecStart=/usr/bin/sysresp metrics --textfile" in world.files.files[f"{ETC}/{TEXTFILE_UNIT}"]
    world.run("metrics", "enable")
    assert f"{ETC}/{TIMER}" not in world.files.files
    assert world.files.readlink(f"{DIR}/sysresp.prom") is None
    assert DROP_IN not in world.files.files
    world.run("metrics", "disable")
    assert world.files.readlink(WANTED) is None
    assert ("stop", UNIT) in world.manager.calls


def test_code_that_must_not_be_run(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_account: str, who: str) -> None:
        raise SysrespError(f"{who} cannot run this sysresp")

    monkeypatch.setattr(own_units, "demand_trust", refused)
    assert "cannot run this sysresp" in world.run("metrics", "enable", status=1)
    assert f"{ETC}/{SOCKET}" not in world.files.files


def test_without_sysusers_it_says_how_to_make_the_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    host: Host = None  # type: ignore[assignment]
    with pytest.raises(SysrespError) as found:
        own_units.make_account(host, "nobody-of-this-name", "")
    assert "useradd --system" in found.value.hint


@pytest.mark.parametrize("listen", ["nonsense", "127.0.0.1:9000\nExecStartPre=/bin/evil"])
@pytest.mark.parametrize("is_shipped", [True, False])
def test_an_address_that_is_none(world: World, listen: str, is_shipped: bool) -> None:
    if is_shipped:
        ship(world)
    said = world.run("metrics", "enable", "--listen", listen, status=Status.USAGE)
    assert "listen" in said
    assert DROP_IN not in world.files.files
    assert WANTED not in world.files.links
