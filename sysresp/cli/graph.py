"""`sysresp graph`: which service needs which, as systemd has it, coloured by how each is now.

Owns the gathering, and the call of graphviz; changes nothing. What every unit has (slices, targets, mounts,
systemd's own services) is left out. Rule: what is drawn is what systemd has loaded, not what a file says.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sysresp.cli import graph_forms, hosts, remembered, rows, status, terminal
from sysresp.cli.boundary import usage
from sysresp.cli.graph_forms import AFTER, BINDS, REQUIRES, STRENGTH, WANTS, Edge, Graph, Node
from sysresp.errors import Exit, SysrespError
from sysresp.model import Mode, Scope
from sysresp.ports import Host, Question
from sysresp.reconcile.names import select

_KINDS = {"Requires": REQUIRES, "Requisite": REQUIRES, "BindsTo": BINDS, "Wants": WANTS, "After": AFTER}
_EVERYBODYS = (".slice", ".target", ".mount", ".device", ".scope")
_DOT_SEC = 60


class Asked(NamedTuple):
    """What the command line asks for."""

    names: Sequence[str] = ()
    project: str = ""
    scope: Scope = Scope.SYSTEM
    form: str = ""  # dot | mermaid | svg; "": text
    colour: bool = True


def run(asked: Asked) -> int:
    """Print the graph."""
    program = shutil.which("dot") if asked.form == "svg" else None
    if asked.form == "svg" and program is None:
        raise SysrespError(
            "there is no dot here to draw it",
            hint="install graphviz, or draw the output of --dot elsewhere",
            exit=Exit.FAILED,
        )
    graph = gather(asked)
    if not graph.nodes:
        print("there are no services here", file=sys.stderr)
    elif program is not None:
        sys.stdout.write(_drawn(program, graph_forms.dot(graph)))
    elif asked.form == "dot":
        sys.stdout.write(graph_forms.dot(graph))
    elif asked.form == "mermaid":
        sys.stdout.write(graph_forms.mermaid(graph))
    else:
        colour = terminal.has_colour(sys.stdout, wanted=asked.colour)
        print("\n".join(graph_forms.text(graph, colour=colour)))
    return Exit.OK


def form(*, dot: bool, mermaid: bool, svg: bool) -> str:
    """Return which form these options ask for."""
    chosen = [name for name, is_on in (("dot", dot), ("mermaid", mermaid), ("svg", svg)) if is_on]
    if len(chosen) > 1:
        raise usage("--dot, --mermaid and --svg exclude each other")
    return chosen[0] if chosen else ""


def gather(asked: Asked) -> Graph:
    """Return the units that were asked for, all that they need, and what those need."""
    host = hosts.host(asked.scope, Mode.PERSISTENT)
    found = hosts.manifests(asked.scope, asked.project)
    owned = [one for one in found if hosts.can_mean(one.project, asked.project)]
    if asked.project and not owned:
        raise SysrespError(f'the project "{asked.project}" is not applied here', exit=Exit.UNKNOWN)
    several = len(owned) > 1
    now = remembered.Now(host.clock.now(), host.clock.monotonic())
    shown = [
        row
        for manifest in owned
        for row in status.look(manifest, manifest.units, host.manager, now.epoch(0.0))
    ]
    remembered.remember(shown, remembered.memories(asked.scope.value, os.environ), now)
    known = {
        row.observed.name: Node(
            row.observed.name, f"{row.project}: {row.name}" if several else row.name, row.state, row.level
        )
        for row in shown
    }
    edges = _edges(host, known)
    meant = [u.name for _, units in select(owned, asked.names) for u in units if u.name in known]
    reached = _reached(meant, edges)
    known |= _strangers(host, [unit for unit in reached if unit not in known])
    kept = tuple(edge for edge in edges if {edge.unit, edge.needs} <= set(reached))
    return Graph(tuple(known[unit] for unit in reached), kept)


def _edges(host: Host, known: Mapping[str, Node]) -> list[Edge]:
    """Return what the known units need, once for each pair."""
    units = list(known)
    answers = host.manager.many_properties([Question(unit, "Unit", tuple(_KINDS)) for unit in units])
    found: dict[tuple[str, str], str] = {}
    for unit, said in zip(units, answers, strict=True):
        for name, kind in _KINDS.items():
            value = said.get(name)
            for other in map(str, value if isinstance(value, (list, tuple)) else ()):
                if other in known or (kind != AFTER and not _is_everybodys(other)):
                    was = found.get((unit, other), kind)
                    found[unit, other] = min(was, kind, key=STRENGTH.index)
    return [Edge(unit, other, kind) for (unit, other), kind in sorted(found.items())]


def _is_everybodys(unit: str) -> bool:
    return unit.endswith(_EVERYBODYS) or unit.startswith("systemd-")


def _reached(meant: Sequence[str], edges: Sequence[Edge]) -> list[str]:
    """Return these units and all that they need, in the order in which they are reached."""
    needs: dict[str, list[str]] = {}
    for edge in edges:
        if edge.kind != AFTER:
            needs.setdefault(edge.unit, []).append(edge.needs)
    found = dict.fromkeys(meant)
    ahead = list(meant)
    while ahead:
        more = [unit for unit in needs.get(ahead.pop(), ()) if unit not in found]
        found |= dict.fromkeys(more)
        ahead += more
    return list(found)


def _strangers(host: Host, units: Sequence[str]) -> dict[str, Node]:
    """Return the units that no project has."""
    levels = {"active": rows.OK, "reloading": rows.OK, "activating": rows.BUSY, "deactivating": rows.BUSY}
    found = {}
    for state in host.manager.units_by_name(units) if units else ():
        is_missing = state.load_state == "not-found"
        level = (
            rows.BAD
            if is_missing or state.active_state == "failed"
            else levels.get(state.active_state, rows.OFF)
        )
        words = "missing" if is_missing else state.active_state
        found[state.name] = Node(state.name, state.name, words, level)
    return {unit: found.get(unit, Node(unit, unit, "unknown", rows.OFF)) for unit in units}


def _drawn(program: str, source: str) -> str:
    try:
        done = subprocess.run(
            [program, "-Tsvg"], input=source.encode(), capture_output=True, timeout=_DOT_SEC, check=True
        )
    except subprocess.CalledProcessError as error:
        raise SysrespError(f"dot cannot draw it: {error.stderr.decode(errors='replace').strip()}") from error
    except subprocess.TimeoutExpired as error:
        raise SysrespError(
            f"dot has not drawn it within {_DOT_SEC}s", hint="name fewer services, or use --dot"
        ) from error
    return done.stdout.decode(errors="replace")
