"""journalctl(1) as a child, and its export format (systemd.io/JOURNAL_EXPORT_FORMATS) as entries.

Owns the parsing and the table of a manager's messages, which `records` and `logs` share. The format is
printed twice as fast as JSON. Decodes nothing. Rule: what any process may write into the journal (names,
newlines, other fields' text in a value) never makes two entries of one: a value that holds a newline has its
length before it.
"""

from __future__ import annotations

from collections.abc import Iterable

TYPE_CHECKING = False  # subprocess is imported when one is started
if TYPE_CHECKING:
    import subprocess

Entry = dict[bytes, bytes]
CHUNK = 1 << 16

KINDS = {  # MESSAGE_ID -> kind of what a manager says of a unit, see sd-messages.h
    b"39f53479d3a045ac8e11786248231fbf": "started",
    b"be02cf6855d2428ba40df7e9d022f03d": "start-failed",
    b"98e322203f7a4ed290d09fe03c09fe15": "exited",
    b"d9b373ed55a64feb8242e02dbe79a49c": "failed",
    b"7ad2d189f7e94e70a38c781354912448": "finished",
    b"9d1aaa27d60140bd96365438aad20286": "stopped",
    b"5eb03494b6584870a536b337290809b3": "restart",
    b"fe6faa94e7774663a0da52717891d8ef": "oom",
}
CODES = {b"exited": 1, b"killed": 2, b"dumped": 3}  # sigchld_code_to_string: those of waitid(2)


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
