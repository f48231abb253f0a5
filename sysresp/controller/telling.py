"""Who is told what of an incident, and when: a pure function, and the message itself.

Owns `on`, `repeat_after`, `escalate_after`, `quiet`, `resolve` and `most` of [alerts]. Never delivers: what
it makes is stored in the ledger, in the transaction of the incident, and `deliver` takes it from there.
Rule: what was made is remembered in the incident (`told`), so that each kind is made once, however often
this is asked; a message's key is that of its incident and kind.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from sysresp.controller.events import Member, Roster
from sysresp.controller.incidents import Incident, Part, Told
from sysresp.units.alerting import REASONS, Receiver

GATHER_SEC = 2.0
"""A new incident is told after this: what belongs to it has come by then."""

HOUR_SEC = 3600.0
MOST_UNITS = 50  # that one message names
_WORDS = {
    "gave-up": "is down for good",
    "flapping": "fails again and again",
    "probe": "is unhealthy",
    "blocked": "cannot start",
    "every-exit": "has failed",
}


class Message(NamedTuple):
    """What one receiver is to be told: a row of the ledger until it is accepted, and after."""

    key: str  # the same for each try: receivers can drop what they have
    receiver: str  # "PROJECT/NAME"
    incident: int
    kind: str  # opened | again | escalated | resolved
    root: str
    at: float  # seconds since the epoch
    due: float  # not before
    body: str  # JSON


class Moment(NamedTuple):
    """When and where it is."""

    when: float  # seconds since the epoch
    minute: float  # of the day, by the local clock
    host: str = ""


class Telling(NamedTuple):
    """What follows for one incident."""

    incident: Incident  # with what has been told now
    messages: tuple[Message, ...] = ()
    due: float = 0.0  # when to ask again, in seconds since the epoch; 0: when it changes


Sent = Mapping[str, tuple[float, ...]]
"""When messages were made, by `sent_key`."""


def tell(incident: Incident, roster: Roster, moment: Moment, sent: Sent) -> Telling:
    """Return what is to be told of the incident now."""
    messages: list[Message] = []
    told, waits = dict(incident.told), []
    for name, receiver in _receivers(incident, roster):
        known = told.get(name, Told())
        kind, at = _next(incident, receiver, known)
        if not kind:
            continue
        if kind != "resolved":  # which never comes alone, so there is always room for it
            at = quiet_until(receiver, moment, max(at, moment.when))
            at = max(at, _has_room(receiver, kind, sent.get(sent_key(name, incident.root), ()), moment.when))
        if at > moment.when:
            waits.append(at)
            continue
        told[name] = known._replace(last=moment.when, **({} if kind == "again" else {kind: moment.when}))
        which = f"again-{int(moment.when)}" if kind == "again" else kind
        key = f"{moment.host}-{incident.id}-{int((incident.named or incident.opened) * 1000)}-{which}"
        body = json.dumps(body_of(incident, roster, kind, key, moment))
        due = quiet_until(receiver, moment, moment.when)
        messages.append(Message(key, name, incident.id, kind, incident.root, moment.when, due, body))
        following, at = _next(incident, receiver, told[name])
        if following:
            waits.append(at)
    if told != incident.told:
        incident = incident._replace(told=told)
    return Telling(incident, tuple(messages), min(waits, default=0.0))


def _has_room(receiver: Receiver, kind: str, times: tuple[float, ...], when: float) -> float:
    """Return when `most` allows one more message; who is told of the beginning is told of the end."""
    recent = sorted(at for at in times if when - HOUR_SEC < at <= when)  # the clock may have been set back
    needed = 2 if kind == "opened" and receiver.resolve and receiver.most > 1 else 1
    many = len(recent) + needed - receiver.most
    return recent[many - 1] + HOUR_SEC if many > 0 else 0.0


def sent_key(receiver: str, root: str) -> str:
    """Return what `most` is counted for."""
    return f"{receiver} {root}"


def _receivers(incident: Incident, roster: Roster) -> Iterator[tuple[str, Receiver]]:
    """Yield who is to be told of the incident, and who has been."""
    reasons = incident.reasons()
    names = dict.fromkeys(incident.told)
    for unit in incident.units():
        member = roster.members.get(unit)
        if member is not None:
            names |= dict.fromkeys(f"{member.project}/{name}" for name in member.supervision.alerts)
    for name in names:
        receiver = roster.alerts.get(name)
        if receiver is not None and (name in incident.told or not reasons.isdisjoint(receiver.on)):
            yield name, receiver


def _next(incident: Incident, receiver: Receiver, told: Told) -> tuple[str, float]:
    """Return what is told next, and when; "" for nothing."""
    if incident.resolved:
        is_due = told.opened and not told.resolved and receiver.resolve
        return ("resolved", incident.resolved) if is_due else ("", 0.0)
    if not told.opened:
        return "opened", incident.opened + GATHER_SEC
    escalation, repeat = incident.opened + receiver.escalate_sec, told.last + receiver.repeat_sec
    wanted = []
    if receiver.escalate_sec and not told.escalated:
        wanted.append((max(escalation, told.opened), "escalated"))
    if receiver.repeat_sec:
        wanted.append((repeat, "again"))
    at, kind = min(wanted, default=(0.0, ""))
    return kind, at


def quiet_until(receiver: Receiver, moment: Moment, at: float) -> float:
    """Return when the quiet hours end in which `at` is; `at` itself if it is in none."""
    if len(receiver.quiet) != 2:
        return at
    begin, end = (60 * int(time_[:2]) + int(time_[3:]) for time_ in receiver.quiet)
    minute = (moment.minute + (at - moment.when) / 60) % 1440
    since = (minute - begin) % 1440
    length = (end - begin) % 1440
    return at + (length - since) * 60 if since < length else at


# The message


def label(unit: str, roster: Roster) -> str:
    """Return how a unit is called: as services.toml does, or by its own name."""
    member = roster.members.get(unit, Member(unit))
    if not member.service:
        return unit
    return f"{member.service}@{member.instance}" if member.instance else member.service


def summary(incident: Incident, roster: Roster, kind: str = "opened") -> str:
    """Return the incident in one line, the root first."""
    root, *rest = incident.parts
    name = label(root.unit, roster)
    reason = next((r for r in REASONS if r in root.reasons), "")
    words = f"{name} {_WORDS.get(reason, 'is down')}"
    about = "; ".join(filter(None, (root.why if reason else "", root.exit)))
    if kind == "resolved":
        words = f"{name} is well again after {_span(incident.resolved - incident.opened)}"
        if incident.into:
            words = f"{name} is a consequence of incident {incident.into}"
        about = ""
    if about:
        words += f" ({about})"
    if rest:
        names = ", ".join(label(part.unit, roster) for part in rest[:MOST_UNITS])
        more = f" and {len(rest) - MOST_UNITS} more" if len(rest) > MOST_UNITS else ""
        words += f", with it {names}{more}"
    prefix = {"again": "still: ", "escalated": "escalated: "}.get(kind, "")
    return f"{prefix}{words}"


def body_of(incident: Incident, roster: Roster, kind: str, key: str, moment: Moment) -> dict[str, Any]:
    """Return the message; its fields are only added to."""
    member = roster.members.get(incident.root, Member(incident.root))
    line = summary(incident, roster, kind)
    lines = [line, "", f"incident {incident.id} on {moment.host}, since {iso(incident.opened)}"]
    lines += [f"  {label(part.unit, roster)}: {_part_words(part)}" for part in incident.parts[:MOST_UNITS]]
    return {
        "version": 1,
        "key": key,
        "kind": kind,
        "incident": incident.id,
        "host": moment.host,
        "project": member.project,
        "service": label(incident.root, roster),
        "unit": incident.root,
        "summary": line,
        "text": "\n".join([*lines, "", f"sysresp incidents show {incident.id}"]),
        "since": iso(incident.opened),
        "resolved": iso(incident.resolved) if incident.resolved else None,
        "duration_sec": round((incident.resolved or moment.when) - incident.opened, 3),
        "failures": incident.failures(),
        "reasons": [reason for reason in REASONS if reason in incident.reasons()],
        "units": [part_object(part, roster) for part in incident.parts[:MOST_UNITS]],
    }


def part_object(part: Part, roster: Roster) -> dict[str, Any]:
    """Return one unit of an incident as JSON has it."""
    member = roster.members.get(part.unit, Member(part.unit))
    return {
        "unit": part.unit,
        "project": member.project or None,
        "service": member.service or None,
        "instance": member.instance or None,
        "reasons": list(part.reasons),
        "why": part.why,
        "since": iso(part.since),
        "waits_for": list(part.waits_for),
        "failures": part.failures,
        "exit": part.exit or None,
        "invocation": part.run or None,
    }


def _part_words(part: Part) -> str:
    words = part.why or "down"
    if part.waits_for:
        words += f": {', '.join(part.waits_for)}"
    if part.exit:
        words += f"; last {part.exit}"
    return words + (f"; {part.failures} failures" if part.failures > 1 else "")


def iso(when: float) -> str:
    """Return an instant as ISO 8601 has it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when))


def _span(seconds: float) -> str:
    whole = max(0, round(seconds))
    for size, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if whole >= size:
            rest = whole % size // {86400: 3600, 3600: 60, 60: 1}[size]
            small = {86400: "h", 3600: "min", 60: "s"}[size]
            return f"{whole // size}{name}" + (f" {rest}{small}" if rest else "")
    return f"{whole}s"
