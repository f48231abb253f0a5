"""Which files the user means, and their bytes.

Owns the search for services.toml and the order of layers. Never parses: `sysresp.spec` does. Rule: an error
names every place that was looked at.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from sysresp.errors import Exit, SysrespError
from sysresp.spec.parse import Layer

DEFAULT = "services.toml"
SYSTEM_DEFAULT = "/etc/sysresp/services.toml"
STANDARD_INPUT = "-"


def find(files: Sequence[str], *, system_default: str = SYSTEM_DEFAULT) -> list[str]:
    """Return the files to read, the base first: those named, else ./services.toml, else /etc/sysresp's."""
    if files:
        return list(files)
    for candidate in (DEFAULT, system_default):
        if Path(candidate).is_file():
            return [candidate]
    raise SysrespError(
        f"there is no {DEFAULT} here ({Path.cwd()}) and no {system_default}",
        hint="name the file, such as: sysresp plan path/to/services.toml",
        exit=Exit.USAGE,
    )


def read(files: Sequence[str], *, project: str = "") -> list[Layer]:
    """Return the layers in the order in which they are merged; `project` is laid over all of them."""
    layers = [_layer(path) for path in files]
    if project:
        import tomli_w  # noqa: PLC0415 - needed by few calls

        layers.append(Layer("--project", tomli_w.dumps({"project": project}).encode()))
    return layers


def _layer(path: str) -> Layer:
    if path == STANDARD_INPUT:
        return Layer("<stdin>", sys.stdin.buffer.read())
    try:
        return Layer(path, Path(path).read_bytes())
    except FileNotFoundError as error:
        raise SysrespError(f"{path}: there is no such file", exit=Exit.USAGE) from error
    except IsADirectoryError as error:
        raise SysrespError(
            f"{path} is a directory", hint=f"name a file, such as {Path(path) / DEFAULT}", exit=Exit.USAGE
        ) from error
    except ValueError as error:  # a NUL in the path
        raise SysrespError(f"{path!r} cannot be a path: {error}", exit=Exit.USAGE) from error
