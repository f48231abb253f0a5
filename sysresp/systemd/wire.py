"""D-Bus values for pystemd: arguments out as marshalling steps, results in as str instead of bytes.

Owns the one encoding that pystemd wants: a flat list of (type code, value), where a container is opened by
its code and closed by -1. pystemd's own `apply_signature` makes garbage of variants and dict entries without
an error, so it is not used at all. Never talks to a bus. Pure; the rule: a value that D-Bus cannot carry
raises ValueError here, because the broker answers a bad string by dropping the whole connection, and libdbus
cuts one at a NUL without a word.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

Step = tuple[int, object]

_CLOSE: Step = (-1, None)
_STRINGS = frozenset("sog")
_INTEGERS = {
    "y": (0, 2**8),
    "n": (-(2**15), 2**15),
    "q": (0, 2**16),
    "i": (-(2**31), 2**31),
    "u": (0, 2**32),
    "x": (-(2**63), 2**63),
    "t": (0, 2**64),
    "h": (0, 2**31),
}


def split(signature: str) -> Iterator[str]:
    """Yield the complete types of a signature: "sa(sv)u" -> "s", "a(sv)", "u"."""
    start = 0
    while start < len(signature):
        end = start
        while signature[end : end + 1] == "a":
            end += 1
        if end >= len(signature):
            raise ValueError(f"bad D-Bus signature {signature!r}")
        if signature[end] in "({":
            depth = 0
            opened = end
            for end in range(opened, len(signature)):
                depth += (signature[end] in "({") - (signature[end] in ")}")
                if not depth:
                    break
            if depth:
                raise ValueError(f"bad D-Bus signature {signature!r}")
        yield signature[start : end + 1]
        start = end + 1


def text(value: object) -> bytes:
    """Encode a string for the bus; ValueError if D-Bus has no such string."""
    if not isinstance(value, str):
        raise ValueError(f"a string is needed, got {value!r}")  # noqa: TRY004 - one error for every refusal
    if "\0" in value:
        raise ValueError(f"a NUL character cannot be sent: {value!r}")
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"not valid Unicode text: {value!r}") from None


def encode(signature: str, values: Iterable[object]) -> list[Step]:
    """Return the steps that append these values, one for each complete type of the signature.

    Structs and lists are any sequence; a dict is a mapping; a variant is a pair (signature, value).
    """
    steps: list[Step] = []
    for kind, value in zip(split(signature), values, strict=True):
        _append(steps, kind, value)
    return steps


def _append(steps: list[Step], kind: str, value: object) -> None:
    code = kind[0]
    if code in _STRINGS:
        steps.append((ord(code), text(value)))
    elif code in _INTEGERS:
        low, high = _INTEGERS[code]
        if not isinstance(value, int) or not low <= value < high:
            raise ValueError(f"an integer of D-Bus type {code} is needed, got {value!r}")
        steps.append((ord(code), int(value)))
    elif code == "b":
        if not isinstance(value, bool):
            raise ValueError(f"true or false is needed, got {value!r}")
        steps.append((ord("b"), value))
    elif code == "d":
        if not isinstance(value, int | float):
            raise ValueError(f"a number is needed, got {value!r}")
        steps.append((ord("d"), float(value)))
    elif code == "v":
        variant: tuple[str, object] = value  # type: ignore[assignment]  # by contract
        steps.append((ord("v"), variant[0].encode()))
        _append(steps, *variant)
        steps.append(_CLOSE)
    elif code == "a":
        item = kind[1:]
        steps.append((ord("a"), item.encode()))
        for element in value.items() if isinstance(value, dict) else value:  # type: ignore[attr-defined]
            _append(steps, item, element)
        steps.append(_CLOSE)
    elif code in "({":
        inner = kind[1:-1]
        steps.append((ord("r" if code == "(" else "e"), inner.encode()))
        steps.extend(encode(inner, value))  # type: ignore[arg-type]
        steps.append(_CLOSE)
    else:
        raise ValueError(f"unknown D-Bus type {kind!r}")


def decode(value: object) -> object:
    """Turn what pystemd returns (bytes for every string) into str, all the way down."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, list | tuple):
        # The rows of 1,000 units are 10,000 values: one call for each took more than all the rest.
        items = [
            item.decode("utf-8", "replace")
            if type(item) is bytes
            else item
            if type(item) is int
            else decode(item)
            for item in value
        ]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, dict):
        return {decode(key): decode(item) for key, item in value.items()}
    return value


def _label(byte: int) -> str:
    char = chr(byte)
    return char if char.isascii() and char.isalnum() else f"_{byte:02x}"


_LABELS = [_label(byte) for byte in range(256)]


def unit_path(unit: str) -> str:
    """Return the object path of a unit, loaded or not (bus_label_escape in systemd's bus-label.c)."""
    name = text(unit)
    first = f"_{name[0]:02x}" if name[:1].isdigit() else "".join([_LABELS[byte] for byte in name[:1]])
    return "/org/freedesktop/systemd1/unit/" + (first + "".join([_LABELS[b] for b in name[1:]]) or "_")
