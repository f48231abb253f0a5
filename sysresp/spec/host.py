"""What a spec needs of a host: questions and answers as data.

Owns which users, programs, files and calendar expressions a spec depends on, and what is said when one is
missing. Never asks: a caller with ports answers, so that a file can be checked for another host and tests
need none. Rule: what is missing now may be there when the unit starts, so it is a warning; only what systemd
itself will refuse is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from sysresp.errors import Problem, Severity
from sysresp.model import Origin, Service, Spec
from sysresp.spec.build import commands, origin_of
from sysresp.spec.names import INSTANCE
from sysresp.spec.report import dotted, quote
from sysresp.spec.values import filled


class Questions(NamedTuple):
    """What the spec asks of the host; each once, sorted."""

    calendars: tuple[str, ...] = ()  # for `systemd-analyze calendar`
    users: tuple[str, ...] = ()  # names or numbers
    groups: tuple[str, ...] = ()
    executables: tuple[str, ...] = ()  # absolute paths, or bare names that systemd looks up in its own path
    directories: tuple[str, ...] = ()  # working directories
    files: tuple[str, ...] = ()  # environment files that must be there, credentials, config files


class Answers(NamedTuple):
    """What the host said; what is not mentioned is well."""

    bad_calendars: Mapping[str, str] = {}  # expression -> systemd's message
    missing_users: frozenset[str] = frozenset()
    missing_groups: frozenset[str] = frozenset()
    missing_executables: frozenset[str] = frozenset()  # not there, or not executable
    missing_directories: frozenset[str] = frozenset()
    missing_files: frozenset[str] = frozenset()


class _Need(NamedTuple):
    kind: str  # field of Questions
    subject: str
    key: str  # dotted key below the service


def questions(spec: Spec) -> Questions:
    """Return everything that the host has to be asked about this spec."""
    asked: dict[str, set[str]] = {kind: set() for kind in Questions._fields}
    for service in spec.services.values():
        for need in _needs(service):
            asked[need.kind].add(need.subject)
    return Questions(*(tuple(sorted(asked[kind])) for kind in Questions._fields))


def host_problems(spec: Spec, answers: Answers) -> list[Problem]:
    """Return what is wrong with the spec on a host that answered so, by file and line."""
    if not any(answers):
        return []
    found: list[Problem] = []
    missing = {
        "users": (answers.missing_users, "user", "create it with useradd --system"),
        "groups": (answers.missing_groups, "group", "create it with groupadd --system"),
        "executables": (answers.missing_executables, "executable", "install it, or correct the path"),
        "directories": (answers.missing_directories, "directory", "create it, or correct the path"),
        "files": (answers.missing_files, "file", "create it, or correct the path"),
    }
    for service in spec.services.values():
        for kind, subject, key in _needs(service):
            if kind == "calendars":
                if subject in answers.bad_calendars:
                    what = f"is no calendar expression: {quote(subject)}: {answers.bad_calendars[subject]}"
                    fix = "see systemd.time(7), and try it with systemd-analyze calendar"
                    found.append(_problem(service, key, what, fix, Severity.ERROR))
                continue
            absent, noun, fix = missing[kind]
            if subject in absent:
                what = f"names {noun} {quote(subject)}, which this host has not"
                found.append(_problem(service, key, what, fix))
    # what many services inherit from one line is told once, as the first of them has it
    once: dict[tuple[Origin, str], Problem] = {}
    for problem in found:
        once.setdefault((problem.origin, problem.what), problem)
    return sorted(once.values())


def _problem(
    service: Service, key: str, what: str, fix: str, severity: Severity = Severity.WARNING
) -> Problem:
    return Problem(origin_of(service, key), f"services.{dotted((service.name,))}.{key}", what, fix, severity)


def _needs(service: Service) -> Iterator[_Need]:
    """Return what the service needs, for each of its instances."""
    for kind, subject, key in _plain_needs(service):
        if INSTANCE in subject and service.instances is not None:
            for instance in service.instances:
                yield _Need(kind, filled(subject, instance), key)
        else:
            yield _Need(kind, subject, key)


def _plain_needs(service: Service) -> Iterator[_Need]:
    raw = service.systemd.get("Service", {})
    if service.schedule:
        for calendar in service.schedule.calendar:
            yield _Need("calendars", calendar, _key(service, "schedule.calendar"))
    dynamic = raw.get("DynamicUser", ("no",))[-1:] in (("yes",), ("true",), ("on",), ("1",))
    if not dynamic:
        yield from _accounts(service)
    if service.socket:
        yield from _each("users", [service.socket.user], "listen.user")
        yield from _each("groups", [service.socket.group], "listen.group")
    if "RootDirectory" in raw or "RootImage" in raw:
        return  # the paths are those of another root
    for path, command in commands(service):
        yield _Need("executables", command.words[0], dotted(path))
    directory = service.directory
    if directory and directory != "~" and not directory.startswith(_made_by_systemd(service)):
        yield _Need("directories", directory, "directory")
    for file in service.environment_file:
        if not file.optional and not any(char in file.path for char in "*?["):
            yield _Need("files", file.path, "environment_file")
    for name, credential in service.credentials.items():
        yield _Need("files", credential.path, f"credentials.{dotted((name,))}")
    for config in service.config_files:
        yield _Need("files", config, "config_files")


def _accounts(service: Service) -> Iterator[_Need]:
    yield from _each("users", [service.user], "user")
    yield from _each("groups", [service.group], "group")
    yield from _each("groups", service.groups, "groups")


def _each(kind: str, subjects: Iterable[str | None], key: str) -> Iterator[_Need]:
    for subject in subjects:
        if subject is not None and not subject.isdigit():  # systemd takes any number
            yield _Need(kind, subject, key)


def _key(service: Service, key: str) -> str:
    """Return the key as it was written: the short form sets no key of the table."""
    return key if key in service.lines else key.partition(".")[0]


def _made_by_systemd(service: Service) -> tuple[str, ...]:
    """Return the directories that systemd makes when the service starts."""
    return (
        *(f"/var/lib/{name}" for name in service.state_directory),
        *(f"/var/cache/{name}" for name in service.cache_directory),
        *(f"/var/log/{name}" for name in service.logs_directory),
        *(f"/run/{name}" for name in service.runtime_directory),
        *(f"/etc/{name}" for name in service.configuration_directory),
    )
