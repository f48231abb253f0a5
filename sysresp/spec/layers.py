"""Several files as one document: later layers win, tables merge, arrays and single values replace.

Owns the merged tree and, for every path in it, which line of which file set it; also the merging of
`[defaults]` into each service. Never checks a value. Rule: a short form merges as the table it stands for
(`restart = "always"` below `restart = { delay = "5s" }` keeps "always"), so that what wins does not depend
on how it is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sysresp.model import Origin
from sysresp.spec.lines import Source
from sysresp.spec.report import Path, Place, dotted

Short = Callable[[Path], str]
"""Path -> the key that a short form at this path stands for; "" if it has none."""


class Document:
    """The merged tree, and where each of its paths was written."""

    def __init__(self, sources: Iterable[Source], short: Short) -> None:
        self.sources = list(sources)
        self.data: dict[str, Any] = {}
        self._short = short
        self._set: dict[Path, tuple[Source, int]] = {}  # path -> file and offset
        self._inherited: dict[Path, Path] = {}  # path below a service -> path below [defaults]
        for source in self.sources:
            self._add(source)

    def _add(self, source: Source) -> None:
        where = {path: (source, offset) for path, offset in source.offsets.items()}
        if not self._set:
            self.data, self._set = source.data, where
            return
        self.data = self._merge(self.data, source.data, (), where)
        for path, place in where.items():
            # a table belongs to the layer that began it, a value to the one that set it last
            if path not in self._set or not isinstance(_at(self.data, path), dict):
                self._set[path] = place

    def _merge(
        self, base: Mapping[str, Any], over: Mapping[str, Any], path: Path, where: dict[Path, Any]
    ) -> dict[str, Any]:
        merged = {**base, **over}
        for key, set_here in over.items():
            above, here = set_here, (*path, key)
            if path in where:
                where.setdefault(here, where[path])  # inside an inline table
            if key not in base:
                continue
            below = base[key]
            if isinstance(below, dict) is not isinstance(above, dict) and (short := self._short(here)):
                if isinstance(above, dict):
                    if here in self._set:
                        self._set[(*here, short)] = self._set[here]
                    below = {short: below}
                else:
                    if here in where:
                        where[(*here, short)] = where.pop(here)
                    above = {short: above}
            if isinstance(below, dict) and isinstance(above, dict):
                above = self._merge(below, above, here, where)
            merged[key] = above
        return merged

    def service(self, name: str, own: Mapping[str, Any]) -> dict[str, Any]:
        """Return a service's table with [defaults] below it."""
        defaults = self.data.get("defaults")
        if not isinstance(defaults, dict) or not defaults:
            return dict(own)
        return self._inherit(defaults, own, ("defaults",), ("services", name))

    def _inherit(
        self, defaults: Mapping[str, Any], own: Mapping[str, Any], there: Path, here: Path
    ) -> dict[str, Any]:
        merged = dict(own)
        for key, default in defaults.items():
            path = (*here, key)
            if key not in own:
                self._inherited[path] = (*there, key)
                merged[key] = default
                continue
            below, above = default, own[key]
            if isinstance(below, dict) is not isinstance(above, dict) and (short := self._short(path)):
                if isinstance(above, dict):
                    below = {short: below}
                else:
                    above = {short: above}
            if isinstance(below, dict) and isinstance(above, dict):
                merged[key] = self._inherit(below, above, (*there, key), path)
        return merged

    def is_inherited(self, path: Path) -> bool:
        """Say whether this comes from [defaults] and not from the service itself."""
        return self._written(path)[1][:1] == ("defaults",)

    def _written(self, path: Path) -> tuple[tuple[Source, int] | None, Path]:
        """Return the file and offset of the nearest written ancestor, and the path under its own table."""
        tail: Path = ()
        upper = path
        while upper:
            if upper in self._inherited:
                real = self._inherited[upper] + tail
                return self._written(real)[0], real
            if upper in self._set:
                return self._set[upper], path
            tail = (upper[-1], *tail)
            upper = upper[:-1]
        return None, path

    def origin(self, path: Path) -> Origin:
        """Return the file and line that set this path."""
        return self._origin(self._written(path)[0])

    def _origin(self, found: tuple[Source, int] | None) -> Origin:
        if found is None:
            return Origin(self.sources[0].path if self.sources else "")
        return Origin(found[0].path, found[0].line(found[1]))

    def place(self, path: Path) -> Place:
        """Return where this path was written, by its own key there, with the text of the line."""
        found, real = self._written(path)
        origin = self._origin(found)
        return Place(origin, dotted(real), found[0].source(origin.line) if found else "")


def _at(data: Any, path: Path) -> Any:
    for key in path:
        data = data[key]
    return data
