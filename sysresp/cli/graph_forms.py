"""A graph of units as DOT, Mermaid and text.

Owns the quoting of each language, and what a state and a dependency look like. Pure: a graph in, text out.
Rule: names never stand as they are where a language could read something into them: nodes have numbers, and
names are labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from sysresp.cli import rows, table, terminal

REQUIRES, BINDS, WANTS, AFTER = "requires", "binds to", "wants", "after"
STRENGTH = (BINDS, REQUIRES, WANTS, AFTER)
"""Of two dependencies between the same units the first of these is shown."""


class Node(NamedTuple):
    """One unit."""

    unit: str
    label: str
    state: str
    level: str  # of `rows`


class Edge(NamedTuple):
    """One unit needs another, or only comes after it."""

    unit: str
    needs: str
    kind: str


class Graph(NamedTuple):
    """Units and what they need; every unit of an edge is a node."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]


class _Look(NamedTuple):
    fill: str
    line: str
    ink: str  # of the terminal


_LOOKS = {
    rows.OK: _Look("#d7f0e0", "#2f9e63", terminal.GREEN),
    rows.BUSY: _Look("#fbeec8", "#d99a00", terminal.YELLOW),
    rows.OFF: _Look("#e9ecef", "#8a949e", terminal.DIM),
    rows.BAD: _Look("#f8d7d7", "#d13a3a", terminal.RED),
}
_DOT = {
    BINDS: "style=bold",
    REQUIRES: "style=solid",
    WANTS: "style=dashed",
    AFTER: 'style=dotted, color="#8a949e"',
}
_MERMAID = {BINDS: "==>", REQUIRES: "-->", WANTS: "-.->", AFTER: "-.-"}


def dot(graph: Graph) -> str:
    """Return the graph for graphviz: what is needed stands below."""
    number = _numbers(graph)
    lines = ["digraph sysresp {", '  node [shape=box, style="rounded,filled", fontname="sans-serif"];']
    for node in graph.nodes:
        look = _LOOKS[node.level]
        label = f"{_dot_text(node.label)}\\n{_dot_text(node.state)}"
        lines.append(
            f'  n{number[node.unit]} [label="{label}", tooltip="{_dot_text(node.unit)}", '
            f'fillcolor="{look.fill}", color="{look.line}", fontcolor="#1c2024"];'
        )
    lines += [f"  n{number[e.unit]} -> n{number[e.needs]} [{_DOT[e.kind]}];" for e in graph.edges]
    return "\n".join([*lines, "}"]) + "\n"


def _dot_text(words: str) -> str:
    r"""Return words for a quoted string of DOT, in which labels know `\n`, `\N` and more."""
    return table.clean(words).replace("\\", "\\\\").replace('"', '\\"')


def mermaid(graph: Graph) -> str:
    """Return the graph as a Mermaid flowchart."""
    number = _numbers(graph)
    lines = ["flowchart TD"]
    for node in graph.nodes:
        label = f"{_mermaid_text(node.label)}<br/>{_mermaid_text(node.state)}"
        lines.append(f'  n{number[node.unit]}["{label}"]:::{node.level}')
    lines += [f"  n{number[e.unit]} {_MERMAID[e.kind]} n{number[e.needs]}" for e in graph.edges]
    lines += [
        f"  classDef {level} fill:{look.fill},stroke:{look.line},color:#1c2024"
        for level, look in _LOOKS.items()
    ]
    return "\n".join(lines) + "\n"


def _mermaid_text(words: str) -> str:
    """Return words with everything that Mermaid or HTML could act on as a character code."""
    return "".join(c if c.isalnum() or c in " .-_@" else f"#{ord(c)};" for c in table.clean(words))


def text(graph: Graph, *, colour: bool) -> Iterator[str]:
    """Yield a tree for each unit that no other needs; what is below a unit is shown once."""
    nodes = {node.unit: node for node in graph.nodes}
    below: dict[str, list[Edge]] = {node.unit: [] for node in graph.nodes}
    for edge in graph.edges:
        if edge.kind != AFTER:
            below[edge.unit].append(edge)
    needed = {edge.needs for edges in below.values() for edge in edges}
    shown: set[str] = set()
    for unit in (*(u for u in below if u not in needed), *below):  # the second time for circles
        if unit not in shown:
            yield _named(nodes[unit], "", colour=colour)
            yield from _tree(unit, "", nodes, below, shown, colour=colour)


def _tree(
    top: str,
    indent: str,
    nodes: Mapping[str, Node],
    below: Mapping[str, Sequence[Edge]],
    shown: set[str],
    *,
    colour: bool,
) -> Iterator[str]:
    """Yield what is below a unit, without recursion: a chain may be long."""
    shown.add(top)
    ahead = [(edge, indent) for edge in reversed(below[top])]
    while ahead:
        edge, indent = ahead.pop()
        how = "" if edge.kind == REQUIRES else f"{edge.kind} "
        is_known = edge.needs in shown and bool(below[edge.needs])
        line = _named(nodes[edge.needs], how, colour=colour) + (", see above" if is_known else "")
        yield f"{indent}  {line}"
        if edge.needs not in shown:
            shown.add(edge.needs)
            ahead += [(one, f"{indent}  ") for one in reversed(below[edge.needs])]


def _named(node: Node, how: str, *, colour: bool) -> str:
    state = terminal.paint(table.clean(node.state), _LOOKS[node.level].ink, on=colour)
    return f"{how}{table.clean(node.label)}: {state}"


def _numbers(graph: Graph) -> dict[str, int]:
    return {node.unit: number for number, node in enumerate(graph.nodes)}
