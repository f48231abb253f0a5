"""README's quick start, typed line by line on new installations, with "y" where apt asks."""

from __future__ import annotations

import re

from tests.package.conftest import TOP, Machine, timed


def lines() -> list[str]:
    """Return the commands of the first block of the quick start, without their comments."""
    text = (TOP / "README.md").read_text().partition("## Quick start")[2]
    block = re.search(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert block
    return [re.sub(r"\s+#.*", "", line) for line in block[1].splitlines()]


def test_quick_start(machine: Machine) -> None:
    build, *rest = lines()
    assert build == "sudo packaging/build deb"  # which the package under test comes from
    with timed(f"{machine.suite}: README's quick start"):
        for line in rest:
            words = line.removeprefix("sudo ").replace("./dist/", "/debs/")
            done = machine.run(["sh", "-c", words], input="y\n", timeout=300)
            # The sandbox keeps its journal in memory, and doctor says so.
            expected = {0, 3} if words == "sysresp doctor" else {0}
            assert done.returncode in expected, f"{words}\n{done.stdout}{done.stderr}"
            if words == "sysresp status":
                assert re.search(r"^db +running", done.stdout, re.MULTILINE)
