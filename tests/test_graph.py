"""`graph`: what is drawn, and that no name can break out of its label."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sysresp.cli import graph_forms, rows, table
from sysresp.cli.graph_forms import AFTER, BINDS, REQUIRES, WANTS, Edge, Graph, Node
from tests.ledger_world import DB, DISK, WEB, World, block

# typer 0.7 knows only `autocompletion`, and warns that Click has renamed it.
pytestmark = pytest.mark.filterwarnings("ignore:'autocompletion' is renamed:DeprecationWarning")

LEVELS = (rows.OK, rows.BUSY, rows.OFF, rows.BAD)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    words = st.text(max_size=12) | st.sampled_from(
        ['a"b', "a\\", '\\"', "]", "#35;", "<b>", "%%{init", "\n", "\\N"]
    )
    names = draw(st.lists(words, max_size=6, unique=True))
    nodes = tuple(Node(name, name, draw(words), draw(st.sampled_from(LEVELS))) for name in names)
    pairs = st.tuples(st.sampled_from(names), st.sampled_from(names)) if names else st.nothing()
    kinds = st.sampled_from([REQUIRES, BINDS, WANTS, AFTER])
    chosen = draw(st.lists(pairs, max_size=10, unique=True)) if names else []
    return Graph(nodes, tuple(Edge(unit, needs, draw(kinds)) for unit, needs in chosen))


@given(graphs())
def test_dot_reads_back(graph: Graph) -> None:
    """Strings of DOT are read as its own scanner does: only a backslash and a quote are special."""
    text = graph_forms.dot(graph)
    labels = re.findall(
        r'^  n\d+ \[label="((?:[^"\\]|\\.)*)", tooltip="((?:[^"\\]|\\.)*)", ', text, re.MULTILINE
    )
    wanted = [(f"{table.clean(n.label)}\n{table.clean(n.state)}", table.clean(n.unit)) for n in graph.nodes]
    plain = [
        tuple(re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], s) for s in pair) for pair in labels
    ]
    assert plain == wanted
    number = {node.unit: i for i, node in enumerate(graph.nodes)}
    drawn = [(int(a), int(b)) for a, b in re.findall(r"^  n(\d+) -> n(\d+) ", text, re.MULTILINE)]
    assert drawn == [(number[e.unit], number[e.needs]) for e in graph.edges]
    assert len(text.splitlines()) == 3 + len(graph.nodes) + len(graph.edges)


@given(graphs())
def test_mermaid_reads_back(graph: Graph) -> None:
    text = graph_forms.mermaid(graph)
    labels = re.findall(r'^  n\d+\["([^"\]]*)<br/>([^"\]]*)"\]:::\w+$', text, re.MULTILINE)
    plain = [tuple(html.unescape(part.replace("#", "&#")) for part in pair) for pair in labels]
    assert plain == [(table.clean(node.label), table.clean(node.state)) for node in graph.nodes]
    assert len(text.splitlines()) == 1 + len(graph.nodes) + len(graph.edges) + len(LEVELS)


@given(graphs())
def test_text_has_every_unit_and_ends(graph: Graph) -> None:
    lines = list(graph_forms.text(graph, colour=False))
    for node in graph.nodes:
        assert any(f"{table.clean(node.label)}: {table.clean(node.state)}" in line for line in lines)
    assert len(lines) <= len(graph.nodes) + len(graph.edges)


@pytest.mark.skipif(shutil.which("dot") is None, reason="graphviz is not installed")
@settings(max_examples=20)
@given(graphs())
def test_graphviz_takes_it(graph: Graph) -> None:
    text = graph_forms.dot(graph)
    done = subprocess.run(["dot", "-Tplain"], input=text.encode(), capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    kinds = [line.split(" ", 1)[0] for line in done.stdout.decode().splitlines()]
    assert (kinds.count("node"), kinds.count("edge")) == (len(graph.nodes), len(graph.edges))


def test_a_long_chain() -> None:
    nodes = tuple(Node(str(n), str(n), "running", rows.OK) for n in range(5000))
    edges = tuple(Edge(str(n), str(n + 1), REQUIRES) for n in range(4999))
    assert sum(1 for _ in graph_forms.text(Graph(nodes, edges), colour=False)) == 5000


def test_what_is_drawn(bare: World) -> None:
    bare.start_controller()
    block(bare)
    bare.manager.set_state(WEB, "inactive").extra |= {
        "After": [DB, DISK, "sysinit.target"],
        "Wants": ["ntp.service"],
    }
    assert bare.run("graph").splitlines() == [
        "web: blocked",
        "  wants ntp.service: missing",
        "  db: blocked",
        "    disk: cooling down",
        "cron@1: running",
        "cron@2: running",
    ]
    assert bare.run("graph", "db").splitlines() == ["db: blocked", "  disk: cooling down"]
    text = bare.run("graph", "--dot")
    assert 'label="disk\\ncooling down"' in text
    assert text.count("style=solid") == 2
    assert text.count("style=dotted") == 1
    assert "flowchart TD\n" in bare.run("graph", "--mermaid")
    bare.run("graph", "--dot", "--svg", status=2)
    bare.run("graph", "nothing", status=4)


def test_svg_needs_graphviz(bare: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if shutil.which("dot") is not None:
        drawn = bare.run("graph", "--svg")
        assert "<svg" in drawn
        assert "cron@1" in html.unescape(drawn)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "install graphviz" in bare.run("graph", "--svg", status=1)
