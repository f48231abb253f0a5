"""Hypothesis strategies for the nouns of sysresp: argv, environments, directories, services and whole specs.

Owns what "any value the user may write" means to the tests. `nasty_text` prefers the characters that unit
files give a meaning to, since uniformly random Unicode hardly ever holds two of them.

Rule: everything generated here is representable, so that rendering it must give no error.
"""

from __future__ import annotations

import os
import string
from typing import TypeVar

from hypothesis import strategies as st

from sysresp.model import (
    Command,
    Controller,
    Credential,
    EnvironmentFile,
    Hardening,
    Health,
    Kind,
    Limits,
    Listen,
    Origin,
    Ready,
    ReadyBy,
    Restart,
    Rollout,
    Schedule,
    Service,
    Socket,
    Spec,
    Stop,
    Watch,
)

T = TypeVar("T")

NAME_CHARS = string.ascii_lowercase + string.digits
MEANINGFUL = "%$\\\"';#=[]{}@-:+!|~*? \t\n\r\x01\x7f\x85\u00a0\u2028%i$$%%\\n"
NONCHARACTERS = {chr(p * 0x10000 + low) for p in range(17) for low in (0xFFFE, 0xFFFF)} | {
    chr(code) for code in range(0xFDD0, 0xFDF0)
}

_any_char = st.characters(exclude_categories=("Cs",), exclude_characters="\0")
_valid_char = st.characters(exclude_categories=("Cs",), exclude_characters=["\0", *NONCHARACTERS])
_line_char = st.characters(exclude_categories=("Cs",), exclude_characters=["\0", "\n", "\r", *NONCHARACTERS])
_meaningful = st.sampled_from(MEANINGFUL)
_meaningful_in_line = st.sampled_from(MEANINGFUL.replace("\n", "").replace("\r", ""))

nasty_text = st.text(_any_char | _meaningful, max_size=30)
"""Any text without NUL, Unicode noncharacters included."""

valid_text = st.text(_valid_char | _meaningful, max_size=30)
"""Any text that systemd takes for valid UTF-8: no noncharacters."""

line_text = st.text(_line_char | _meaningful_in_line, max_size=30)
"""... in one line."""

arguments = nasty_text | st.binary(max_size=30).map(lambda raw: os.fsdecode(raw.replace(b"\0", b"")))
"""Any argument of a process: bytes other than NUL, as os.fsdecode gives them."""

programs = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters=["'", '"', "\\", *NONCHARACTERS]),
    min_size=1,
    max_size=20,
).map(lambda name: "/" + name.strip("/ \u3000.") + "x")
"""Any absolute path that systemd takes for a program."""

directories = st.lists(line_text.map(lambda name: name.replace("/", "")), max_size=3).map(
    lambda names: "/" + "/".join(name for name in names if name not in ("", ".", ".."))
)
"""Any absolute path of a directory that a unit file can hold."""

names = st.text(NAME_CHARS, min_size=1, max_size=6)
"""A name of a service or a project."""

variables = st.text(string.ascii_letters + "_", min_size=1, max_size=8)
environments = st.dictionaries(variables, valid_text, max_size=4)


@st.composite
def commands(draw: st.DrawFn) -> Command:
    """A command of the array form."""
    words = [draw(programs), *draw(st.lists(arguments, max_size=4))]
    return Command(tuple(words), ignore_failure=draw(st.booleans()), privileged=draw(st.booleans()))


def _maybe(strategy: st.SearchStrategy[T]) -> st.SearchStrategy[T | None]:
    return st.none() | strategy


_seconds = st.floats(0, 10**6).map(lambda sec: round(sec, 3)) | st.just(float("inf"))

restarts = st.builds(
    Restart,
    when=st.sampled_from(
        ("no", "on-success", "on-failure", "on-abnormal", "on-abort", "on-watchdog", "always")
    ),
    delay_sec=st.floats(0.1, 1000),
    max_delay_sec=_maybe(st.floats(1, 3600)),
    steps=_maybe(st.integers(1, 10)),
    attempts=_maybe(st.integers(1, 100)),
    within_sec=st.floats(1, 3600),
    success_exit=st.lists(st.sampled_from(("1", "SIGTERM", "42")), max_size=2).map(tuple),
    jitter_sec=st.floats(0, 10),
    failures=_maybe(st.integers(1, 100)),
    per_sec=st.floats(1, 10**5),
    cooldown_sec=st.just(0.0) | st.floats(1, 10**5),
    cooldowns=st.integers(0, 9),
    reset_after_sec=_maybe(st.floats(1, 10**5)),
)

rollouts = st.builds(
    Rollout,
    parallel=_maybe(st.integers(1, 9)),
    pause_sec=st.floats(0, 100),
    stop_on_failure=st.booleans(),
)

limits = st.builds(
    Limits,
    memory=_maybe(st.sampled_from(("536870912", "10%", "infinity"))),
    cpu=_maybe(st.sampled_from(("150%",))),
    cpu_weight=_maybe(st.integers(1, 10000)),
    tasks=_maybe(st.sampled_from(("200", "infinity"))),
    files=_maybe(st.sampled_from(("65536", "1024:2048"))),
    runtime_sec=_maybe(_seconds),
)

hardenings = st.builds(
    Hardening,
    profile=st.sampled_from(("off", "web", "standard", "strict", "strict-jit")),
    exceptions=st.lists(st.sampled_from(("ProtectHome", "PrivateTmp", "SystemCallFilter")), max_size=2).map(
        tuple
    ),
    read_write=st.lists(directories, max_size=2).map(tuple),
)

readies = st.builds(
    Ready,
    by=st.sampled_from([by for by in ReadyBy if by is not ReadyBy.EXEC]),
    target=valid_text,
    timeout_sec=st.floats(1, 1000),
) | st.builds(Ready, by=st.just(ReadyBy.EXEC), command=commands())

_probed = {
    "interval_sec": st.floats(0.1, 1000),
    "timeout_sec": st.floats(0.1, 100),
    "failures": st.integers(1, 9),
    "successes": st.integers(1, 9),
    "grace_sec": st.floats(0, 1000),
    "action": st.sampled_from(("restart", "stop", "none")),
    "restarts": st.integers(1, 9),
    "within_sec": st.floats(1, 10**5),
}
healths = st.builds(
    Health,
    by=st.sampled_from((ReadyBy.HTTP, ReadyBy.TCP, ReadyBy.UNIX)),
    target=valid_text,
    **_probed,
) | st.builds(Health, by=st.just(ReadyBy.EXEC), command=commands(), **_probed)

controllers = st.builds(
    Controller,
    starts_per_second=st.integers(1, 1000).map(float),
    max_age_sec=st.just(0.0) | st.floats(60, 10**7),
    max_memory=st.just(0) | st.integers(32 << 20, 1 << 40),
    keep_sec=st.floats(3600, 10**9),
    keep_bytes=st.integers(1 << 20, 1 << 40),
)

sockets = st.builds(
    Socket,
    listen=st.lists(
        st.builds(
            Listen,
            address=st.sampled_from(("127.0.0.1:80", "[::1]:80", "/run/x y.sock", "@abstract")),
            type=st.sampled_from(("stream", "datagram", "sequential")),
        ),
        min_size=1,
        max_size=3,
    ).map(tuple),
    backlog=_maybe(st.integers(1, 4096)),
    mode=_maybe(st.sampled_from((0o600, 0o666))),
    user=_maybe(st.just("root")),
)

schedules = st.builds(
    Schedule,
    calendar=st.lists(st.sampled_from(("daily", "Mon..Fri 06:00")), max_size=2).map(tuple),
    every_sec=_maybe(st.floats(1, 10**6)),
    on_boot_sec=_maybe(st.floats(1, 10**6)),
    catch_up=st.booleans(),
    jitter_sec=st.floats(0, 1000),
    accuracy_sec=_maybe(st.floats(1, 60)),
)


@st.composite
def services(draw: st.DrawFn, name: str, others: tuple[str, ...] = ()) -> Service:
    """A service that depends only on `others`."""
    kind = draw(st.sampled_from((Kind.EXEC, Kind.SIMPLE, Kind.NOTIFY, Kind.ONESHOT)))
    schedule = draw(_maybe(schedules)) if kind is Kind.ONESHOT else None
    socket = draw(_maybe(sockets)) if schedule is None else None
    some = st.lists(st.sampled_from(others), max_size=2, unique=True).map(tuple) if others else st.just(())
    instances = draw(_maybe(st.just(("1", "2")))) if schedule is None else None
    return Service(
        name=name,
        origin=Origin("services.toml", draw(st.integers(1, 100))),
        command=(draw(commands()),),
        kind=kind,
        description=draw(_maybe(valid_text)),
        enabled=draw(st.booleans()),
        instances=instances,
        pre_start=tuple(draw(st.lists(commands(), max_size=1))),
        reload=tuple(draw(st.lists(commands(), max_size=1))),
        reload_signal=draw(_maybe(st.sampled_from(("HUP", "SIGUSR1")))),
        stop=draw(
            st.builds(
                Stop,
                signal=_maybe(st.just("SIGINT")),
                timeout_sec=_maybe(_seconds),
                kill_mode=_maybe(st.sampled_from(("control-group", "mixed", "process"))),
            )
        ),
        directory=draw(_maybe(directories)),
        user=draw(_maybe(st.just("root"))),
        umask=draw(_maybe(st.integers(0, 0o777))),
        nice=draw(_maybe(st.integers(-20, 19))),
        environment=draw(environments),
        environment_file=tuple(
            draw(st.lists(st.builds(EnvironmentFile, st.just("/etc/x"), st.booleans()), max_size=1))
        ),
        credentials=draw(
            st.dictionaries(
                names, st.builds(Credential, st.just("/etc/a secret"), st.booleans()), max_size=1
            )
        ),
        state_directory=tuple(draw(st.lists(names, max_size=2))),
        after=draw(some),
        requires=draw(some),
        wants=draw(some),
        binds_to=draw(some),
        restart=draw(restarts),
        settle_sec=draw(st.floats(0, 100)),
        ignore_start_failure=draw(st.booleans()),
        rollout=draw(rollouts),
        start_timeout_sec=draw(_maybe(_seconds)),
        ready=draw(_maybe(readies)),
        health=draw(_maybe(healths)),
        limits=draw(limits),
        socket=socket,
        on_demand=socket is not None and instances is None and draw(st.booleans()),
        schedule=schedule,
        watch=draw(_maybe(st.builds(Watch, st.lists(directories, min_size=1, max_size=2).map(tuple)))),
        hardening=draw(hardenings),
    )


@st.composite
def specs(draw: st.DrawFn, max_services: int = 4) -> Spec:
    """A whole spec without cycles."""
    chosen = draw(st.lists(names, min_size=1, max_size=max_services, unique=True))
    return Spec(
        project=draw(names),
        origin=Origin("services.toml", 0),
        services={name: draw(services(name, tuple(chosen[:at]))) for at, name in enumerate(chosen)},
        description=draw(_maybe(valid_text)),
        keep_generations=draw(st.integers(1, 1000)),
        controller=draw(controllers),
    )
