"""The JSON Schema and the rows of the manual: both say what the parser does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped,unused-ignore]
import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

import sysresp.spec
from sysresp.spec.keys import SERVICE_TABLE, TOP
from sysresp.spec.parse import Layer, parse
from sysresp.spec.schema import documented, json_schema, text

SCHEMA = json_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def test_the_shipped_file_is_what_is_made() -> None:
    shipped = Path(sysresp.spec.__file__).with_name("services.schema.json").read_text(encoding="utf-8")
    assert shipped == text(), "write sysresp.spec.schema.text() to services.schema.json"
    assert json.loads(shipped) == SCHEMA


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_it_describes_every_key() -> None:
    service = SCHEMA["$defs"]["service"]["properties"]
    assert set(service) == {key.name for key in SERVICE_TABLE.keys.values()}
    assert set(SCHEMA["properties"]) == {key.name for key in TOP.values()}
    assert all(row["description"] for row in service.values())


@pytest.mark.parametrize(
    "document",
    [
        {"servces": {}},
        {"services": {"a b": {}}},
        {"services": {"web": {"commnd": "x"}}},
        {"services": {"web": {"command": 5}}},
        {"services": {"web": {"restart": {"dely": "1s"}}}},
        {"services": {"web": {"restart": "allways"}}},
        {"services": {"web": {"restart": {"delay": "soon"}}}},
        {"services": {"web": {"nice": 20}}},
        {"services": {"web": {"limits": {"memory": "512MB"}}}},
        {"services": {"web": {"environment": {"1A": "x"}}}},
        {"services": {"web": {"environment": {"A": True}}}},
        {"services": {"web": {"health": {"http": 5}}}},
        {"defaults": {"usr": "x"}},
    ],
)
def test_it_refuses_what_is_plainly_wrong(document: dict[str, Any]) -> None:
    assert not VALIDATOR.is_valid(document)


def test_every_key_is_documented() -> None:
    rows = documented()
    keys = [row[0] for row in rows]
    assert len(set(keys)) == len(keys)
    for name in ("project", "services.NAME.command", "services.NAME.restart.max_delay"):
        assert name in keys
    for name in ("reload.signal", "credentials.NAME.path", "listen.addresses", "conditions.path_exists"):
        assert f"services.NAME.{name}" in keys
    assert {"controller", "controller.keep", "services.NAME.health.grace"} < set(keys)
    assert {"alerts", "alerts.NAME.escalate_after", "services.NAME.alerts"} < set(keys)
    assert all(kind and doc for _, kind, _, doc in rows)


# Documents that are right by construction, a strategy for each key.

NAME = st.sampled_from(["db", "web", "a.b", "x_1"])
WORD = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
LINE = WORD.map(lambda word: "".join(c for c in word if c.isprintable()))
PATH = st.sampled_from(["/srv/shop", "/a b/ü", "/x/{instance}", "/"])
SPAN = st.one_of(
    st.integers(1, 1000),
    st.floats(1, 1000),
    st.lists(
        st.tuples(st.integers(1, 99), st.sampled_from(["s", "min", "h", " sec", "d"])),
        min_size=1,
        max_size=3,
    ).map(lambda parts: " ".join(f"{number}{unit}" for number, unit in parts)),
)
COMMAND = st.one_of(
    st.just("/bin/x 'y z'"),
    st.lists(st.one_of(WORD, st.just({"bytes": "caf\\xe9"})), max_size=3).map(
        lambda rest: ["/bin/x", *rest]
    ),
)
HOOK = st.one_of(
    COMMAND,
    st.fixed_dictionaries(
        {"command": COMMAND}, optional={"ignore_failure": st.booleans(), "privileged": st.booleans()}
    ),
    st.lists(st.fixed_dictionaries({"command": COMMAND}), max_size=2),
    st.just([["/bin/a"], ["/bin/b", "c"]]),
)
STATUSES = st.lists(
    st.one_of(st.integers(0, 255), st.sampled_from(["HUP", "SIGUSR1"])), max_size=3, unique_by=str
)
SIZE = st.one_of(st.integers(1, 1 << 40), st.sampled_from(["512M", "1.5G", "infinity", "10%"]))
RLIMIT = st.one_of(st.integers(0, 1 << 20), st.sampled_from(["5:9", "infinity", "7"]))
RAW = st.one_of(LINE, st.integers(-5, 5), st.booleans(), st.floats(-9, 9))
DIRECTORY = st.one_of(st.booleans(), st.just("a/b"), st.just(["a", "b"]))


def table(**optional: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=optional)


PROBES: list[dict[str, Any]] = [
    *({"tcp": "127.0.0.1:80"}, {"tcp": 80}, {"unix": "/run/x"}, {"http": "http://x:80/y"}, {"file": "/x"}),
    *({"exec": ["/bin/x"]}, {"exec": "x y"}, {"log": "up"}),
]
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "description": LINE,
    "documentation": st.sampled_from(["man:x(1)", ["https://e.org/x"]]),
    "enabled": st.booleans(),
    "template": st.just("web.j2"),
    "instances": st.one_of(st.integers(1, 5), st.just(["eu", "us"])),
    "pre_start": HOOK,
    "post_start": HOOK,
    "reload": st.one_of(HOOK.filter(lambda hook: hook != []), st.just({"signal": "HUP"})),
    "stop": st.one_of(
        st.sampled_from(["INT", "SIGTERM", "rtmin+1"]),
        table(signal=st.just("QUIT"), timeout=SPAN, kill_mode=st.just("mixed"), command=HOOK),
    ),
    "post_stop": HOOK,
    "pid_file": PATH,
    "directory": st.one_of(PATH, st.just("~")),
    "user": st.one_of(st.sampled_from(["shop", "www-data"]), st.integers(0, 99)),
    "group": st.just("shop"),
    "groups": st.lists(st.sampled_from(["a", "b", 5]), max_size=2, unique=True),
    "umask": st.sampled_from(["0027", "77"]),
    "nice": st.integers(-20, 19),
    "environment": st.dictionaries(
        st.sampled_from(["A", "_b", "C9"]), st.one_of(WORD, st.integers(-9, 9)), max_size=3
    ),
    "environment_file": st.one_of(PATH, st.just(["/a", "-/b"])),
    "credentials": st.just({"key": "/x", "b": {"path": "/y", "encrypted": True}}),
    "config_files": st.lists(PATH, max_size=2, unique=True),
    "state_directory": DIRECTORY,
    "cache_directory": DIRECTORY,
    "logs_directory": DIRECTORY,
    "runtime_directory": DIRECTORY,
    "configuration_directory": DIRECTORY,
    "after": st.sampled_from(["network-online.target", ["a@1.service", "b.timer"]]),
    "conflicts": st.just(["x.service"]),
    "conditions": table(
        host=LINE,
        path_exists=st.one_of(PATH, st.lists(PATH)),
        first_boot=st.booleans(),
        cpus=st.integers(1, 9),
    ),
    "restart": st.one_of(
        st.sampled_from(["no", "always", "never"]),
        table(
            when=st.just("on-abnormal"),
            delay=SPAN,
            attempts=st.integers(1, 9),
            within=SPAN,
            jitter=SPAN,
            success_exit=STATUSES,
            prevent_exit=st.integers(0, 255),
            force_exit=STATUSES,
        ),
        st.fixed_dictionaries(
            {"failures": st.integers(1, 9), "then": st.sampled_from(["give-up", "cooldown 1h 5min"])},
            optional={"per": SPAN, "reset_after": SPAN},
        ),
        st.fixed_dictionaries(
            {"attempts": st.integers(1, 9), "then": st.just("cooldown 15m")},
            optional={"cooldowns": st.integers(0, 9), "reset_after": SPAN},
        ),
    ),
    "settle": SPAN | st.sampled_from([0, "0", "500ms"]),
    "ignore_start_failure": st.booleans(),
    "rollout": table(parallel=st.integers(1, 1000), pause=SPAN, stop_on_failure=st.booleans()),
    "start_timeout": st.one_of(SPAN, st.just("infinity")),
    "ready": st.sampled_from(PROBES).map(lambda probe: {**probe, "timeout": 1, "interval": "200ms"}),
    "health": st.tuples(
        st.sampled_from(
            [{"tcp": 80}, {"http": "http://x:80/y"}, {"unix": "/run/x"}, {"exec": ["/bin/x", "$A"]}]
        ),
        table(
            interval=st.sampled_from(["10s", 30, "1min"]),
            timeout=st.sampled_from([1, "500ms", "10s"]),
            failures=st.integers(1, 9),
            successes=st.integers(1, 9),
            grace=SPAN,
        ),
        st.just({"action": "none"}) | st.just({"action": "stop"}) | table(restarts=st.just(1), within=SPAN),
    ).map(lambda parts: parts[0] | parts[1] | parts[2]),
    "limits": table(
        memory=SIZE,
        memory_high=SIZE,
        swap=SIZE | st.sampled_from([0, "0"]),
        cpu=st.sampled_from(["150%", "0.5%"]),
        cpu_weight=st.integers(1, 10000),
        io_weight=st.integers(1, 10000),
        tasks=st.one_of(st.integers(1, 99), st.sampled_from(["5%", "infinity"])),
        files=RLIMIT,
        processes=RLIMIT,
        core=st.sampled_from(["infinity", "1K:2K", 0]),
        runtime=SPAN,
    ),
    "watch": st.one_of(PATH, st.just({"paths": ["/a"], "action": "reload"})),
    "hardening": st.one_of(
        st.sampled_from(["off", "web", "standard", "strict"]),
        table(profile=st.just("strict-jit"), read_write=PATH, read_only=PATH, inaccessible=PATH)
        | st.just({"except": ["ProtectHome", "RemoveIPC"]}),
    ),
    "systemd": table(
        Service=st.dictionaries(st.sampled_from(["LimitCORE", "X-Y"]), st.one_of(RAW, st.lists(RAW))),
        Unit=st.just({"OnFailure": ["a.service", "b.service"]}),
    ),
    "listen": st.one_of(
        st.integers(1, 65535),
        st.sampled_from(["127.0.0.1:80", "/run/x"]),
        st.just(["80", 81, {"datagram": "80"}, {"fifo": "/x"}]),
        st.just({"addresses": ["80"], "backlog": 5, "mode": "0660", "user": "x", "group": 5}),
    ),
    "schedule": st.one_of(
        st.sampled_from(["daily", ["Mon", "Tue"]]),
        st.fixed_dictionaries(
            {"every": SPAN}, optional={"catch_up": st.booleans(), "jitter": SPAN, "accuracy": SPAN}
        ),
    ),
}
OTHERS = {"command", "kind", "unit", "bus_name", "remain_after_exit", "watchdog", "on_demand"}
OTHERS |= {"before", "requires", "wants", "binds_to", "part_of", "alerts"}


def test_every_key_has_a_strategy() -> None:
    assert set(VALUES) | OTHERS == {key.name for key in SERVICE_TABLE.keys.values()}


def fitting(service: dict[str, Any]) -> dict[str, Any]:
    """Leave out keys that do not fit the others: what a single key's strategy cannot know."""
    without = {"instances", "ready", "restart", "limits"} if "schedule" in service else set()
    without |= {"start_timeout"} if "ready" in service else set()
    without |= {"listen"} if "instances" in service else set()
    without |= {"health"} if "schedule" in service or "restart" in service else set()
    return {key: value for key, value in service.items() if key not in without}


SERVICE = st.fixed_dictionaries({"command": COMMAND}, optional=VALUES).map(fitting)


@settings(deadline=None)
@given(
    SERVICE,
    st.fixed_dictionaries({}, optional={key: VALUES[key] for key in ("user", "nice", "environment")}),
)
def test_it_accepts_what_the_parser_accepts(service: dict[str, Any], defaults: dict[str, Any]) -> None:
    document = {"project": "shop", "defaults": defaults, "services": {"web": service}}
    spec, problems = parse([Layer("shop.toml", tomli_w.dumps(document).encode())])
    assert spec is not None, problems
    VALIDATOR.validate(document)


@pytest.mark.parametrize("key", sorted(VALUES))
def test_each_key_alone(key: str) -> None:
    @settings(deadline=None, max_examples=25)
    @given(VALUES[key])
    def holds(value: Any) -> None:
        document = {"services": {"web": {"command": "x", key: value}}}
        spec, problems = parse([Layer("shop.toml", tomli_w.dumps(document).encode())])
        assert spec is not None, problems
        VALIDATOR.validate(document)

    holds()
