"""Where keys stand: positions of every kind of key, and what is left without them."""

from __future__ import annotations

import tomllib

from sysresp.model import Origin
from sysresp.spec import lines
from sysresp.spec.layers import Document


def test_layers_without_lines_merge_as_well() -> None:
    base, over = lines.Source("a.toml"), lines.Source("b.toml")
    base.data = {"services": {"w": {"stop": "INT", "restart": {"delay": 1}}}}
    over.data = {"services": {"w": {"stop": {"timeout": 1}, "restart": "no"}}}
    base.offsets = {("services",): 0}
    document = Document(
        [base, over], lambda path: {"stop": "signal", "restart": "when"}.get(str(path[-1]), "")
    )
    merged_service = document.data["services"]["w"]
    assert merged_service == {"stop": {"signal": "INT", "timeout": 1}, "restart": {"delay": 1, "when": "no"}}
    assert document.origin(("services", "w", "stop")) == Origin("a.toml", 1)
    assert document.origin(("other",)) == Origin("a.toml")
    assert Document([], lambda _: "").place(("x",)).origin == Origin("")


def test_positions_of_every_kind_of_key() -> None:
    text = "\n[a.b]\nc.d = 1\nx = { y = { z = 1 } }\n[[e]]\nf = [\n 1,\n]\n"
    text += "[[e]]\n[e.g]\nh = 1\n[[e.i]]\nj = 1\n[[k.l]]\n"
    source, problem = lines.read("x.toml", text.encode())
    assert problem is None
    found = {path: source.line(offset) for path, offset in source.offsets.items()}
    assert found == {
        ("a",): 2,
        ("a", "b"): 2,
        ("a", "b", "c"): 3,
        ("a", "b", "c", "d"): 3,
        ("a", "b", "x"): 4,
        ("e",): 5,
        ("e", 0): 5,
        ("e", 0, "f"): 6,
        ("e", 1): 9,
        ("e", 1, "g"): 10,
        ("e", 1, "g", "h"): 11,
        ("e", 1, "i"): 12,
        ("e", 1, "i", 0): 12,
        ("e", 1, "i", 0, "j"): 13,
        ("k",): 14,
        ("k", "l"): 14,
        ("k", "l", 0): 14,
    }
    assert [source.source(n) for n in (0, 1, 2, 8, 13, 14, 15, 99)] == [
        "",
        "",
        "[a.b]",
        "]",
        "j = 1",
        "[[k.l]]",
        "",
        "",
    ]


def test_without_the_rules_of_tomllib_there_are_no_lines_and_no_error() -> None:
    class Changed:
        """A parser module of a Python to come."""

    class Renamed(Changed):
        """Has the rules, and calls others."""

        parse_key_value_pair = key_value_rule = create_dict_rule = create_list_rule = None
        loads = staticmethod(tomllib.loads)

    for parser in (Changed(), Renamed(), lines._private_copy("tomllib.no_such_module")):
        assert lines._choose(parser)("a = 1") == ({"a": 1}, {})
    assert lines._choose(None)("a = 1") == ({"a": 1}, {})
    assert lines._loads("a = 1") == ({"a": 1}, {("a",): 0})
