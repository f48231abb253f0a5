"""A table that fits: columns padded to their widest cell, cut or left out where it is narrow.

Owns the width of text and nothing else: it knows no unit, no colour and no terminal. `rich` could do this
for 40 ms of imports, more than all the rest of `sysresp status`. Rule: no line is ever wider than `width`,
whatever the cells hold.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing itself costs 5 ms to import
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

GAP = "  "

# Wide in a terminal: East Asian wide and fullwidth blocks and most emoji (Unicode TR 11), by range.
_WIDE = (
    (0x1100, 0x115F),
    (0x2E80, 0x303E),
    (0x3041, 0xA4CF),
    (0xA960, 0xA97F),
    (0xAC00, 0xD7A3),
    (0xF900, 0xFAFF),
    (0xFE30, 0xFE6F),
    (0xFF00, 0xFF60),
    (0xFFE0, 0xFFE6),
    (0x1F300, 0x1FAFF),
    (0x20000, 0x3FFFD),
)
_ZERO = ((0x300, 0x36F), (0x200B, 0x200F), (0x20D0, 0x20FF), (0xFE00, 0xFE0F), (0xFE20, 0xFE2F))


def clean(text: str) -> str:
    """Return the text with everything a terminal would act on (controls, lone surrogates) made visible."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def width_of(text: str) -> int:
    """Return how many columns a terminal needs for the text."""
    if text.isascii():
        return len(text)
    total = 0
    for char in text:
        point = ord(char)
        if any(low <= point <= high for low, high in _ZERO):
            continue
        total += 2 if any(low <= point <= high for low, high in _WIDE) else 1
    return total


def shorten(text: str, width: int, mark: str = "…") -> str:
    """Return the text cut to `width` columns; a cut is marked at its end where there is room."""
    if width_of(text) <= width:
        return text
    room = width - len(mark)
    if room < 0:
        return mark[: max(0, width)]
    kept = ""
    used = 0
    for char in text:
        used += width_of(char)
        if used > room:
            break
        kept += char
    return kept + mark


class Column:
    """One column: heading, how early it is given up (0: never), how narrow it may get."""

    __slots__ = ("drop", "floor", "head", "right")

    def __init__(self, head: str, drop: int = 0, floor: int = 0, right: bool = False) -> None:
        self.head = head
        self.drop = drop  # the highest goes first
        self.floor = floor  # 0: is never shortened, only left out
        self.right = right


def lines(
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    width: int | None,
    mark: str = "…",
    paint: Callable[[int, int, str], str] = lambda _row, _column, text: text,
) -> list[str]:
    """Return heading and rows as lines; `width` None: no limit.

    A column with nothing in any row is left out. `paint(row, column, padded)` may add escape sequences to a
    cell that is padded already; row -1 is the heading.
    """
    cells = [[clean(cell) for cell in row] for row in rows]
    kept = [i for i, _ in enumerate(columns) if any(row[i] for row in cells)]
    sizes = {i: max(width_of(columns[i].head), *(width_of(row[i]) for row in cells)) for i in kept}
    if width is not None:
        _fit(columns, kept, sizes, width)
    out = []
    for number, row in enumerate([[column.head for column in columns], *cells], start=-1):
        parts = []
        for i in kept:
            text = shorten(row[i], sizes[i], mark)
            blank = " " * (sizes[i] - width_of(text))
            if columns[i].right:
                text = blank + text
            elif i != kept[-1]:
                text += blank
            parts.append(paint(number, i, text))
        out.append(GAP.join(parts).rstrip())
    return out


def _fit(columns: Sequence[Column], kept: list[int], sizes: dict[int, int], width: int) -> None:
    """Shorten columns down to their floors, then leave out the least important, until all fits."""

    def excess() -> int:
        return sum(sizes[i] for i in kept) + len(GAP) * (len(kept) - 1) - width

    while excess() > 0:
        # Shrink only if that is enough: a column cut to its floor is worth less than one left out.
        spare = [(sizes[i] - columns[i].floor, i) for i in kept if 0 < columns[i].floor < sizes[i]]
        if sum(extra for extra, _ in spare) >= excess():
            _, widest = max(spare)
            sizes[widest] -= 1
            continue
        droppable = [(columns[i].drop, i) for i in kept if columns[i].drop]
        if not droppable:
            break
        kept.remove(max(droppable)[1])
    while excess() > 0:  # narrower than the floors of what is never left out
        widest = max(kept, key=lambda i: sizes[i])
        if sizes[widest] > 1:
            sizes[widest] -= 1
        elif len(kept) > 1:
            kept.pop()
        else:
            sizes[widest] = width
