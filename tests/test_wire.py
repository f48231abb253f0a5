"""D-Bus values: what is sent opens and closes its containers, and what cannot be sent is refused before."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysresp.systemd.wire import decode, encode, split, unit_path

BASIC = st.sampled_from(list("ybnqiuxtds"))
TYPES = st.recursive(
    BASIC,
    lambda inner: (
        inner.map("a{}".format) | st.lists(inner, min_size=1, max_size=3).map(lambda t: f"({''.join(t)})")
    ),
    max_leaves=6,
)


@given(types=st.lists(TYPES, max_size=4))
def test_a_signature_is_cut_where_its_types_end(types: list[str]) -> None:
    assert list(split("".join(types))) == types


@pytest.mark.parametrize("signature", ["a", "(s", "a(s", "sa"])
def test_a_signature_that_is_none(signature: str) -> None:
    with pytest.raises(ValueError, match="signature"):
        list(split(signature))


def test_the_steps_of_a_start_transient_unit() -> None:
    close = (-1, None)
    steps = encode("a(sv)", [[("Description", ("s", "é")), ("Environment", ("as", ["A=1"]))]])
    assert steps == [
        (ord("a"), b"(sv)"),
        *((ord("r"), b"sv"), (ord("s"), b"Description")),
        *((ord("v"), b"s"), (ord("s"), "é".encode()), close, close),
        *((ord("r"), b"sv"), (ord("s"), b"Environment"), (ord("v"), b"as")),
        *((ord("a"), b"s"), (ord("s"), b"A=1"), close, close, close),
        close,
    ]


def test_a_dictionary() -> None:
    steps = encode("a{su}", [{"a": 1}])
    assert steps == [(97, b"{su}"), (101, b"su"), (115, b"a"), (117, 1), (-1, None), (-1, None)]


@pytest.mark.parametrize(
    ("signature", "value"),
    [
        ("s", "a\0b"),
        ("s", "\udc80"),
        ("s", 5),
        ("s", b"x"),
        ("u", -1),
        ("u", 2**32),
        ("y", 256),
        ("t", "5"),
        ("b", 1),
        ("d", "1"),
        ("as", ["a", None]),
        ("(ss)", ("a",)),
        ("z", 1),
    ],
)
def test_what_cannot_be_sent(signature: str, value: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        encode(signature, [value])


def test_results_become_text() -> None:
    assert decode([(b"caf\xc3\xa9", {b"k": [b"v", 1, True, None]})]) == [
        ("café", {"k": ["v", 1, True, None]})
    ]


@pytest.mark.parametrize(
    ("unit", "path"),
    [
        ("dbus.service", "dbus_2eservice"),
        ("shop-web@1.service", "shop_2dweb_401_2eservice"),
        ("1a.service", "_31a_2eservice"),
        ("é.service", "_c3_a9_2eservice"),
        ("", "_"),
    ],
)
def test_the_path_of_a_unit(unit: str, path: str) -> None:
    assert unit_path(unit) == f"/org/freedesktop/systemd1/unit/{path}"
