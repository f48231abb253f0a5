"""What lies on the disk of one project: unit files, links, drop-ins, and what stands in their way.

Owns the looking: one listing for each directory of the load path and for each directory of links in it, one
read for each unit file of ours. Decides nothing and changes nothing; systemd is not asked. Rule: this module
stays cheap to import and to run, because `sysresp status` and an apply that finds nothing to do wait for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

try:  # hashlib loads OpenSSL: 8 ms and 4 MB, and the digests of 1,000 unit files take as long
    from _sha256 import sha256  # type: ignore[import-not-found,unused-ignore]
except ImportError:
    try:  # its name since CPython 3.12
        from _sha2 import sha256  # type: ignore[import-not-found,unused-ignore,no-redef]
    except ImportError:  # some builds have neither
        from hashlib import sha256

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sysresp.ports import Files, Paths

UNIT_TYPES = (".service", ".socket", ".timer", ".path", ".target", ".slice")
"""Types of unit that sysresp writes."""

_PULLS = (".wants", ".requires", ".upholds")
UNREAD = "?"
"""The digest of a drop-in that the caller may not read."""

UNREADABLE = bytes(bytearray(b"unreadable"))
"""Stands for the content of a file that the caller may not read; compared by identity."""


class Disk(NamedTuple):
    """What was found; all that is not named "foreign" has a name of ours."""

    contents: Mapping[str, bytes]  # unit files in the unit directory, by name
    masked: frozenset[str]  # names that systemd is told not to load (systemd.unit(5)), here or ahead of here
    torn: frozenset[str]  # empty files that a cut apply left: no masks, and to be written again
    unread: frozenset[str]  # unit files that the caller may not read
    strays: Mapping[str, str]  # our names in other directories of the load path: path by name
    links: Mapping[str, str]  # below the unit directory: "shop.target.wants/shop-web.service" -> target
    enabled: Mapping[str, str]  # foreign links that pull in a unit of ours: whole path -> name of the unit
    drop_ins: Mapping[str, str]  # foreign drop-ins that change a unit of ours: path -> digest


class Wanted(NamedTuple):
    """What to look for."""

    names: frozenset[str]  # unit files and units
    links: frozenset[str]
    target: str = ""
    prefix: str = ""  # other unit files that begin so are read, too
    written: frozenset[str] = frozenset()  # files that a cut apply was writing: empty ones are torn


def digest_of(content: bytes) -> str:
    """Return the digest by which a manifest remembers a unit file, and an accepted drop-in."""
    found: str = sha256(content).hexdigest()
    return found


def look(files: Files, paths: Paths, wanted: Wanted, *, lenient: bool = False) -> Disk:
    """Look at the disk; with `lenient`, what the caller may not read is noted, else it is an error."""
    names = wanted.names
    listing = _list(files, paths.unit_dir, lenient)
    contents, masked, torn, unread = _unit_files(files, paths.unit_dir, listing or (), wanted, lenient)
    if listing is None:
        unread |= names
    strays: dict[str, str] = {}
    enabled: dict[str, str] = {}
    drop_ins: dict[str, str] = {}
    drops = _drops(names)
    ahead = paths.unit_dir in paths.search
    # A transient unit's own directory is no place of ours, but it is searched like the others.
    for directory in dict.fromkeys((*paths.search, paths.unit_dir)):
        own = directory == paths.unit_dir
        found = (listing if own else _list(files, directory, lenient)) or ()
        if own:
            ahead = False
        else:
            for name in names.intersection(found):
                where = f"{directory}/{name}"
                content = _read(files, where, lenient)
                if content:
                    strays.setdefault(name, where)
                elif ahead and content is not UNREADABLE:
                    masked.add(name)
        for name in found:
            if name.endswith(".d") and drops(name[:-2]):
                _add_drop_ins(files, f"{directory}/{name}", drop_ins, lenient)
            elif name.endswith(_PULLS) and not (own and name == f"{wanted.target}.wants"):
                inside = f"{directory}/{name}"
                for unit in names.intersection(_list(files, inside, lenient) or ()):
                    if not own or f"{name}/{unit}" not in wanted.links:
                        enabled[f"{inside}/{unit}"] = unit
    return Disk(
        contents=contents,
        masked=frozenset(masked),
        torn=frozenset(torn),
        unread=frozenset(unread),
        strays=strays,
        links=_links(files, paths.unit_dir, wanted, lenient),
        enabled=enabled,
        drop_ins=drop_ins,
    )


def _unit_files(
    files: Files, directory: str, listing: Sequence[str], wanted: Wanted, lenient: bool
) -> tuple[dict[str, bytes], set[str], set[str], set[str]]:
    """Return the contents of our names, and of what else looks like ours; masked, torn, unreadable names."""
    contents: dict[str, bytes] = {}
    masked, torn, unread = set(), set(), set()
    for name in listing:
        if name not in wanted.names and not _is_like(name, wanted.prefix):
            continue
        where = f"{directory}/{name}"
        content = _read(files, where, lenient)
        if content is UNREADABLE:
            unread.add(name)
            continue
        if content:
            contents[name] = content
            continue
        is_link = files.readlink(where) is not None
        if content is None and not is_link:
            continue  # gone since the listing
        if name in wanted.written and not is_link:
            torn.add(name)
        else:  # a link to /dev/null, an empty file, or a dangling link: systemd takes all as "do not load"
            masked.add(name)
    return contents, masked, torn, unread


def _is_like(name: str, prefix: str) -> bool:
    return bool(prefix) and name.startswith(prefix) and name.endswith(UNIT_TYPES)


def _links(files: Files, directory: str, known: Wanted, lenient: bool) -> dict[str, str]:
    """Return the links that are known, and all that make the project's target pull something in."""
    wanted: dict[str, set[str]] = {}
    for link in known.links:
        parent, _, name = link.rpartition("/")
        wanted.setdefault(parent, set()).add(name)
    own = f"{known.target}.wants" if known.target else ""
    found: dict[str, str] = {}
    for parent in {**wanted, **dict.fromkeys([own] if own else [])}:
        names = wanted.get(parent, set())
        listing = _list(files, f"{directory}/{parent}", lenient)
        if listing is None:  # they may be there: nobody can say that they are not
            found |= {f"{parent}/{name}": "" for name in names}
        for name in listing or ():
            if parent == own or name in names:
                where = files.readlink(f"{directory}/{parent}/{name}")
                if where is not None:
                    found[f"{parent}/{name}"] = where
    return found


def _list(files: Files, directory: str, lenient: bool) -> Sequence[str] | None:
    """Return what is in a directory, None if the caller may not look into it."""
    try:
        return files.listdir(directory)
    except OSError:
        if not lenient:
            raise
        return None


def _read(files: Files, where: str, lenient: bool) -> bytes | None:
    """Return the content of a file, UNREADABLE if the caller may not read it, or nobody can."""
    try:
        return files.read(where)
    except OSError:
        if not lenient:
            raise
        return UNREADABLE


def _drops(names: frozenset[str]) -> Callable[[str], bool]:
    """Return whether drop-ins for this name (its directory's without the ".d") change a unit of ours.

    Those of a whole type of unit ("service.d") are the host's own policy, and concern nobody's unit more
    than another's.
    """

    def drops(base: str) -> bool:
        if base in names:
            return True
        stem = base.rpartition(".")[0]
        return stem.endswith("-") and any(applies(base, name) for name in names if name.startswith(stem))

    return drops


def applies(base: str, name: str) -> bool:
    """Say whether drop-ins in BASE.d change the unit or unit file of this name (systemd.unit(5)).

    For a unit "a-b@1.service" systemd reads "a-b@1.service.d", "a-b@.service.d" and "a-.service.d".
    """
    if base == name:
        return True
    stem, _, kind = base.rpartition(".")
    if stem.endswith("@"):
        return name.startswith(stem) and name.endswith(f".{kind}")
    return stem.endswith("-") and name.partition("@")[0].startswith(stem) and name.endswith(f".{kind}")


def _add_drop_ins(files: Files, directory: str, found: dict[str, str], lenient: bool) -> None:
    """Add the drop-ins of one directory; of two with one name the first in the load path counts."""
    base = directory.rpartition("/")[2]
    for name in _list(files, directory, lenient) or ():
        if not name.endswith(".conf") or any(path.endswith(f"/{base}/{name}") for path in found):
            continue
        content = _read(files, f"{directory}/{name}", True)
        if content is UNREADABLE:
            found[f"{directory}/{name}"] = UNREAD
        elif content:  # an empty one, or a link to /dev/null, changes nothing
            found[f"{directory}/{name}"] = digest_of(content)
