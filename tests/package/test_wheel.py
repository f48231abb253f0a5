"""The wheel: everything is in it, and it installs with pip, pipx and uv.

Owns what a package from PyPI is like: the templates, the polkit rule and the schema inside, installed beside
the distribution's libraries without a compiler, or alone, where pystemd is compiled. Needs PyPI, or what
stands for it here.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.package.conftest import TOP, VERSION, copy_source, timed

EXAMPLE = TOP / "packaging/examples/services.toml"
PYTHON = "/usr/bin/python3"


def run(*words: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    words = tuple(map(str, words))
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL"))}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=clean | env, cwd="/")
    assert done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}"
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    source = copy_source(tmp_path_factory.mktemp("source"))
    with timed("build of the wheel"):
        run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", out, source)
    return out / f"sysresp-{VERSION}-py3-none-any.whl"


def works(program: Path) -> None:
    """Check that the installed command has its templates, and that its pystemd can be imported."""
    assert run(program, "--version").stdout == f"sysresp {VERSION}\n"
    assert "[Service]" in run(program, "render", "--systemd-version", "252", EXAMPLE).stdout
    done = subprocess.run([program, "doctor", "--json"], capture_output=True, text=True, check=False)
    assert '"pystemd": ""' not in done.stdout
    assert '"pystemd": "' in done.stdout


def test_what_is_in_it(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {f"sysresp/templates/{path.name}" for path in (TOP / "templates").glob("*.j2")}
    wanted |= {"sysresp/controller/50-sysresp.rules", "sysresp/controller/controller.toml"}
    wanted |= {"sysresp/spec/services.schema.json", "sysresp/py.typed", "sysresp/ready.py"}
    wanted |= {"sysresp/cli/report.html.j2"}
    assert wanted <= names
    assert not any(name.startswith(("tests/", "packaging/")) for name in names)


def test_pip_beside_the_distributions_libraries(wheel: Path, tmp_path: Path) -> None:
    with timed("pip install without a compiler"):
        run(PYTHON, "-m", "venv", "--system-site-packages", tmp_path / "venv")
        run(tmp_path / "venv/bin/pip", "install", "--quiet", "--no-index", wheel)
    works(tmp_path / "venv/bin/sysresp")


def test_pipx(wheel: Path, tmp_path: Path) -> None:
    run(PYTHON, "-m", "venv", tmp_path / "tools")
    run(tmp_path / "tools/bin/pip", "install", "--quiet", "pipx")
    home = {"PIPX_HOME": str(tmp_path / "home"), "PIPX_BIN_DIR": str(tmp_path / "bin")}
    with timed("pipx install"):
        run(tmp_path / "tools/bin/pipx", "install", "--python", PYTHON, wheel, **home)
    works(tmp_path / "bin/sysresp")


def test_uv(wheel: Path, tmp_path: Path) -> None:
    run(PYTHON, "-m", "venv", tmp_path / "tools")
    run(tmp_path / "tools/bin/pip", "install", "--quiet", "uv")
    home = {"UV_TOOL_DIR": str(tmp_path / "home"), "UV_TOOL_BIN_DIR": str(tmp_path / "bin")}
    home |= {"UV_PYTHON_DOWNLOADS": "never", "UV_CACHE_DIR": str(tmp_path / "cache")}
    home |= {"UV_NATIVE_TLS": "1", "UV_SYSTEM_CERTS": "1"}  # the host's certificates, as pip takes them
    with timed("uv tool install"):
        run(tmp_path / "tools/bin/uv", "tool", "install", "--python", PYTHON, wheel, **home)
    works(tmp_path / "bin/sysresp")
