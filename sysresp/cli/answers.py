"""What this host says to the questions of a spec: users, programs, files, calendar expressions, digests.

Owns the asking; `sysresp.spec.host` owns what the answers mean. Reads, never changes anything. Rule: where
the caller may not look, nothing is missing: a warning must be true.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from sysresp.errors import Problem
from sysresp.model import Service, Spec
from sysresp.spec.host import Answers, host_problems, questions
from sysresp.spec.values import filled

SYSTEMD_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where systemd looks for a program without a directory (systemd.exec(5), ExecSearchPath=)."""

_LIMIT_SEC = 20


def problems(spec: Spec) -> list[Problem]:
    """Return what is wrong with the spec on this host."""
    asked = questions(spec)
    answers = Answers(
        bad_calendars=bad_calendars(asked.calendars),
        missing_users=_missing(asked.users, _has_user),
        missing_groups=_missing(asked.groups, _has_group),
        missing_executables=_missing(asked.executables, _has_executable),
        missing_directories=_missing(asked.directories, _has_directory),
        missing_files=_missing(asked.files, _has_file),
    )
    return host_problems(spec, answers)


def bad_calendars(expressions: tuple[str, ...]) -> dict[str, str]:
    """Return systemd's own word on each expression that it refuses; one call for all of them."""
    if not expressions or (program := shutil.which("systemd-analyze", path=SYSTEMD_PATH)) is None:
        return {}
    refused = _refused(program, expressions)
    if refused is None:
        return {}
    found = {e: why for e in expressions for why in refused if f"'{e}'" in why}
    if refused and not found:  # an escape in the message: ask for each alone
        found = {e: why[0] for e in expressions if (why := _refused(program, (e,)))}
    return {expression: why.rpartition(": ")[2].lower() for expression, why in found.items()}


def _refused(program: str, expressions: Iterable[str]) -> list[str] | None:
    """Return the lines with which systemd-analyze refuses expressions; None if it could not be asked."""
    import subprocess  # noqa: PLC0415 - only a calendar expression pays for it

    words = [program, "calendar", "--iterations=0", "--", *expressions]
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "SYSTEMD_LOG_TARGET": "console", "SYSTEMD_COLORS": "0"}
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_LIMIT_SEC,
            check=False,
            env=environment,
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return done.stderr.splitlines() if done.returncode else []


def _missing(subjects: Iterable[str], is_there: Callable[[str], bool]) -> frozenset[str]:
    missing = set()
    for subject in subjects:
        try:
            if not is_there(subject):
                missing.add(subject)
        except (FileNotFoundError, NotADirectoryError):
            missing.add(subject)
        except (OSError, ValueError):
            continue  # no right to look, or no way: nobody can say that it is missing
    return frozenset(missing)


def _has_user(name: str) -> bool:
    import pwd  # noqa: PLC0415 - loads nsswitch modules

    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _has_group(name: str) -> bool:
    import grp  # noqa: PLC0415 - loads nsswitch modules

    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


def _has_executable(name: str) -> bool:
    if "/" not in name:
        return shutil.which(name, path=SYSTEMD_PATH) is not None
    mode = Path(name).stat().st_mode
    return stat.S_ISREG(mode) and bool(mode & 0o111)


def _has_directory(name: str) -> bool:
    return stat.S_ISDIR(Path(name).stat().st_mode)


def _has_file(name: str) -> bool:
    Path(name).stat()
    return True


def digests(spec: Spec, *, exact: bool) -> dict[str, str]:
    """Return a digest of the contents of each service's config_files.

    With `exact`, a file that may not be read is an error: the unit text would change without a reason.
    """
    return {name: _digest(one, exact) for name, one in spec.services.items() if one.config_files}


def _digest(service: Service, exact: bool) -> str:
    whole = hashlib.sha256()
    for path in dict.fromkeys(_config_files(service)):
        whole.update(path.encode(errors="surrogateescape") + b"\0")
        for file in _files(Path(path)):
            whole.update(str(file).encode(errors="surrogateescape") + b"\0")
            try:
                whole.update(hashlib.sha256(file.read_bytes()).digest())
            except FileNotFoundError:
                whole.update(b"-")
            except PermissionError:
                if exact:
                    raise
                whole.update(b"?")
    return whole.hexdigest()


def _config_files(service: Service) -> Iterator[str]:
    for path in service.config_files:
        for instance in service.instances or ("",):
            yield filled(path, instance)


def _files(path: Path) -> list[Path]:
    """Return the path itself, or the files below it if it is a directory."""
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
