"""`check`, `render`, `config` and `schema`: commands that read the file and show something made of it.

They work without systemd, without rights and without anything applied: where no manager answers, the version
of the installed systemctl counts.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from sysresp.cli import build, preview, problems, sources, table, terminal
from sysresp.cli.words import plural
from sysresp.errors import Exit
from sysresp.spec.parse import merged
from sysresp.units.desired import Desired


def check(source: build.Source, *, as_json: bool, strict: bool) -> int:
    """Print all problems; return whether there are any that stop us."""
    built = build.build(source)
    bad = problems.errors_in(built.problems, strict=strict)
    services = len(built.spec.services) if built.spec is not None else 0
    units = _count(built.desired)
    if as_json:
        report = {
            "version": 1,
            "ok": not bad,
            "project": built.spec.project if built.spec is not None else None,
            "services": services,
            "units": units,
            "problems": problems.as_objects(built.problems),
            "backoff": preview.as_objects(built.desired) if built.desired is not None else [],
            "needs_controller": preview.needed(built.desired) if built.desired is not None else {},
        }
        print(json.dumps(report, indent=2))
        return Exit.USAGE if bad else Exit.OK
    build.show_problems(built.problems)
    if bad:
        return Exit.USAGE
    for line in preview.lines(built.desired) if built.desired is not None else ():
        print(table.clean(line))
    print(f"ok: {plural(services, 'service')}, {plural(units, 'unit')}")
    return Exit.OK


def _count(desired: Desired | None) -> int:
    return len(desired.units) if desired is not None else 0


def render(source: build.Source, *, output: str) -> int:
    """Print the unit files, or write them and their links below a directory."""
    desired = build.wanted(source).desired
    if not output:
        colour = terminal.has_colour(sys.stdout)
        parts = []
        for name, file in desired.files.items():
            parts.append(terminal.paint(f"# {name}", terminal.BOLD, on=colour) + f"\n{file.text}")
        sys.stdout.write("\n".join(parts))
        return Exit.OK
    top = Path(output)
    top.mkdir(parents=True, exist_ok=True)
    for name, file in desired.files.items():
        (top / name).write_text(file.text, encoding="utf-8", errors="surrogateescape", newline="")
    for link, name in desired.links.items():
        where = top / link
        where.parent.mkdir(parents=True, exist_ok=True)
        where.unlink(missing_ok=True)
        # Relative, so that the directory can be moved; apply makes absolute ones, as systemctl does.
        where.symlink_to(Path(*[".."] * (len(Path(link).parts) - 1), name))
    print(f"{output}: {plural(len(desired.files), 'unit file')}, {plural(len(desired.links), 'link')}")
    return Exit.OK


def config(files: Sequence[str], project: str) -> int:
    """Print the merged document as TOML."""
    import tomli_w  # noqa: PLC0415 - this command only

    print(tomli_w.dumps(merged(sources.read(sources.find(files), project=project))), end="")
    return Exit.OK


def schema() -> int:
    """Print the JSON Schema."""
    from sysresp.spec.schema import json_schema  # noqa: PLC0415 - this command only

    print(json.dumps(json_schema(), indent=2))
    return Exit.OK
