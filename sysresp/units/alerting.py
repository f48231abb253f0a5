"""Who is told of an incident, and how: `[alerts.NAME]` as the manifest carries it to the controller.

Owns the values and their two directions as JSON; cheap to import, as `supervision` is and for the same
reason. Holds no secret, only the place of one: manifests may be read by everybody. Rule: a field is stored
only where it differs from its default, and an unknown field is left aside.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from sysresp.units.supervision import differing, known_fields

REASONS = ("gave-up", "flapping", "probe", "blocked", "every-exit")
"""Why an incident may be one, in the order of weight; what `on` of services.toml names."""


class Receiver(NamedTuple):
    """One `[alerts.NAME]`."""

    by: str = "exec"  # exec | url | mailto | apprise
    argv: tuple[str, ...] = ()  # of exec and apprise
    url: str = ""
    body: str = ""  # for url: the JSON that is sent, with {fields} in its texts; "": the whole incident
    to: tuple[str, ...] = ()  # of mailto
    sender: str = ""
    smtp: str = ""  # HOST:PORT; "": sendmail
    ca: str = ""  # a file of the certificates to trust, for url and smtp; "": those of the system
    user: str = ""  # for smtp
    secret: str = ""  # a path, or the name of a credential of the controller's unit
    on: tuple[str, ...] = REASONS[:4]
    repeat_sec: float = 0.0  # while an incident lasts it is told again after so long; 0: never
    escalate_sec: float = 0.0  # one that lasts so long is told once more, as escalated; 0: never
    quiet: tuple[str, ...] = ()  # ("22:00", "07:00"): what is not resolved by its end is told then
    resolve: bool = True  # its end is told, too
    most: int = 10  # messages an hour of incidents with one root
    timeout_sec: float = 20.0  # for one try


def dumps(receiver: Receiver) -> dict[str, Any]:
    """Return the fields that differ from the default, as values of JSON."""
    return differing(receiver, Receiver())


def loads(fields: Mapping[str, Any]) -> Receiver:
    """Return the receiver of which `dumps` made this; TypeError or ValueError if it is none."""
    return Receiver(**known_fields({**fields}, Receiver()))
