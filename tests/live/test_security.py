"""Hardening profiles are as strict as they say: systemd-analyze's own score of running units."""

from __future__ import annotations

import re

import pytest

from tests.live.conftest import USER, Box
from tests.live.installed import install_text

pytestmark = pytest.mark.live

HIGHEST = {"strict": 1.5, "strict-jit": 1.5, "web": 2.5}  # strict-jit: as promised for it


def test_the_exposure_of_each_profile(box: Box) -> None:
    project = box.project
    text = f'project = "{project}"\n'
    for profile in HIGHEST:
        for who in ("root", USER):
            text += f"""
[services.{profile}-{who}]
command = ["/bin/sleep", "infinity"]
hardening = "{profile}"
user = "{who}"
"""
    desired = install_text(box, text)
    box.systemctl("start", desired.target)
    for profile, highest in HIGHEST.items():
        for who in ("root", USER):
            unit = f"{project}-{profile}-{who}.service"
            assert box.show(unit, "ActiveState") == "active"
            report = box.run(["systemd-analyze", "security", "--no-pager", unit], check=True).stdout
            found = re.search(r"exposure level for \S+: ([0-9.]+)", report)
            assert found, report
            assert float(found[1]) <= highest, report
