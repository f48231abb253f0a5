"""Unit files as text: reading back what is on disk.

Owns the syntax of systemd.syntax(7): sections, assignments, comments, continuation lines. Never interprets a
value: quotes, escapes and specifiers stay as they are.

Rule: `parse` sees what config_parse (src/shared/conf-parser.c) sees, so that what compares equal here is
equal for systemd; and `owner` stays a plain string search, since it runs on every unit file of the host.
"""

from __future__ import annotations

OWNER_SECTION = "X-Sysresp"
"""Where our marks are; systemd ignores sections whose names begin with "X-" (systemd.unit(5))."""

_BLANK = " \t\n\r"


def parse(text: str) -> tuple[tuple[str, str, str], ...]:
    """Return (section, directive, value) in order; an empty assignment is an entry with an empty value.

    Lines that systemd would warn about and ignore have the directive "" and the line as their value.
    """
    entries: list[tuple[str, str, str]] = []
    section = ""
    for line in _logical(text):
        if line[0] == "[":
            if line[-1] == "]" and len(line) > 2:
                section = line[1:-1]
            else:
                entries.append((section, "", line))
            continue
        name, equals, value = line.partition("=")
        if equals and section and name.rstrip(_BLANK):
            entries.append((section, name.rstrip(_BLANK), value.lstrip(_BLANK)))
        else:
            entries.append((section, "", line))
    return tuple(entries)


def owner(text: str) -> str:
    """Return the project that made this unit file, "" if none did."""
    at = text.rfind(f"\n[{OWNER_SECTION}]\n")
    if at < 0:
        return ""
    at = text.find("\nProject=", at)
    if at < 0:
        return ""
    end = text.find("\n", at + 1)
    return text[at + len("\nProject=") : None if end < 0 else end].strip()


def _logical(text: str) -> list[str]:
    """Return the lines without comments and blank ones, continuation lines joined, blanks stripped."""
    lines: list[str] = []
    pending = ""
    for raw in text.removeprefix("\ufeff").replace("\r", "\n").split("\n"):
        line = raw.lstrip(_BLANK)
        if line[:1] in ("#", ";"):
            continue  # also inside of a continuation
        if not pending and not line:
            continue
        line = pending + (raw if pending else line)
        if raw.endswith("\\") and _ends_in_escape(raw):
            pending = line[:-1] + " "
            continue
        pending = ""
        if line := line.strip(_BLANK):
            lines.append(line)
    if pending := pending.strip(_BLANK):
        lines.append(pending)
    return lines


def _ends_in_escape(line: str) -> bool:
    return (len(line) - len(line.rstrip("\\"))) % 2 == 1
