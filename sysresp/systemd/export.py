"""journalctl(1) as a child, and its export format (systemd.io/JOURNAL_EXPORT_FORMATS) as entries.

Owns the parsing, which `records` and `logs` share. The format is printed twice as fast as JSON. Knows no
field and decodes nothing. Rule: what any process may write into the journal (names, newlines, other fields'
text in a value) never makes two entries of one: a value that holds a newline has its length before it.
"""

from __future__ import annotations

from collections.abc import Iterable

TYPE_CHECKING = False  # subprocess is imported when one is started
if TYPE_CHECKING:
    import subprocess

Entry = dict[bytes, bytes]
CHUNK = 1 << 16


def journalctl(words: Iterable[str], fields: str) -> subprocess.Popen[bytes]:
    """Start journalctl with these words; it prints entries with these fields, and those all have."""
    import subprocess  # noqa: PLC0415 - only who reads the journal pays for it

    options = ["journalctl", "--quiet", "--no-pager", "--output=export", f"--output-fields={fields}"]
    return subprocess.Popen(
        [*options, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd="/",  # the caller's own may be gone
        bufsize=0,
    )


def parse(data: bytes) -> tuple[list[Entry], bytes]:
    """Return the entries that are whole, and what is left."""
    entries: list[Entry] = []
    at = 0
    while (end := data.find(b"\n\n", at)) >= 0:
        try:
            # dict() takes pairs only: a name without "=" begins a value that may hold anything.
            entries.append(dict([line.split(b"=", 1) for line in data[at:end].split(b"\n")]))
            at = end + 2
        except ValueError:
            entry, after = _walk(data, at)
            if entry is None:
                break
            entries.append(entry)
            at = after
    return entries, data[at:]


def _walk(data: bytes, at: int) -> tuple[Entry | None, int]:
    """Return the entry that begins there and where it ends; None if it is not whole yet."""
    entry: Entry = {}
    while (end := data.find(b"\n", at)) >= 0:
        if end == at:
            return entry, end + 1
        if (equals := data.find(b"=", at, end)) >= 0:
            entry[data[at:equals]] = data[equals + 1 : end]
        else:
            value = end + 9
            size = int.from_bytes(data[end + 1 : value], "little")
            if value + size >= len(data):
                break
            entry[data[at:end]] = data[value : value + size]
            end = value + size
        at = end + 1
    return None, at
