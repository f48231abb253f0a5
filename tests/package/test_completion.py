"""The first Tab in a new shell completes commands, options and names of services: bash, zsh, fish."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.package.conftest import EXAMPLE, VERSION, Machine, booted, timed

_INSTANCE = '[services.api]\ncommand = ["/bin/sleep", "infinity"]\ninstances = ["blue"]\n'
_TYPE = Path(__file__).parent / "type_tab.py"


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def shop(request: pytest.FixtureRequest, debs: Path) -> Iterator[Machine]:
    """An installation with the shells and the example applied."""
    with booted(request.param, debs) as machine:
        shells = "bash-completion zsh fish"
        machine.apt(
            "install with shells",
            "install",
            "--no-install-recommends",
            shells,
            f"/debs/sysresp_{VERSION}_all.deb",
        )
        machine.sh(f"sysresp apply --settle 0 {EXAMPLE}")
        machine.path("/tmp/tab.toml").write_text(_INSTANCE)
        machine.sh("sysresp apply --settle 0 /tmp/tab.toml")
        machine.path("/tmp/type_tab.py").write_bytes(_TYPE.read_bytes())
        yield machine


@pytest.mark.parametrize("shell", ["bash", "bash alone", "zsh", "fish"])
@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        ("sysresp rollb", "sysresp rollback"),
        ("sysresp restart rep", "sysresp restart report"),
        ("sysresp status api@", "sysresp status api@blue"),
        ("sysresp restart api@b", "sysresp restart api@blue"),
        ("sysresp apply --sett", "sysresp apply --settle"),
    ],
)
def test_first_tab(shop: Machine, shell: str, typed: str, wanted: str) -> None:
    with timed(f"{shop.suite}: {shell}: {typed}<Tab>"):
        done = shop.run(["python3", "/tmp/type_tab.py", shell, typed, wanted])
    assert done.returncode == 0, done.stdout + done.stderr
