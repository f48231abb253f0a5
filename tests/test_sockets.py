"""Sockets that open anew, what is stopped for that, and sockets that stay open."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysresp.ports import Host
from sysresp.reconcile.apply import apply
from sysresp.reconcile.steps import Plan, Verb
from sysresp.units.desired import Desired, Unit, UnitFile
from tests.fakes import FakeManager
from tests.plan_scenes import Entry, desired_of, jobs, plan_for, verbs
from tests.rollout_scenes import applied, web

SOCKET = "shop-web.socket"


def behind(instances: tuple[str, ...], first: str = "", address: int = 1) -> Desired:
    """Return a service with these instances behind one socket that starts `first`."""
    made = desired_of({"web": Entry(instances=len(instances), socket=address)})
    numbered = [name for name in made.units if "@" in name]
    named = {old: f"shop-web@{one}.service" for old, one in zip(numbered, instances, strict=True)}
    text = made.files[SOCKET].text.replace("[Socket]\n", f"[Socket]\nService=shop-web@{first}.service\n")
    units = {}
    for name, unit in made.units.items():
        new = named.get(name, name)
        units[new] = replace(unit, name=new, instance=new.partition("@")[2].removesuffix(".service"))
    links = {}
    for link, file in made.links.items():
        where, _, name = link.rpartition("/")
        links[f"{where}/{named.get(name, name)}"] = file
    files = {**made.files, SOCKET: replace(made.files[SOCKET], text=text)} if first else made.files
    return replace(made, files=files, units=units, links=links)


def after(host: Host, wanted: Desired) -> Plan:
    made = plan_for(host, wanted)
    assert made.problems == ()
    return made


def started(wanted: Desired) -> tuple[Host, FakeManager]:
    host, manager = applied({})
    assert apply(plan_for(host, wanted), host).ok
    return host, manager


class TestTheUnitThatItStarts:
    def test_another_instance_that_stays_takes_over(self) -> None:
        host, manager = started(behind(("eu", "us"), "eu"))
        runs = manager.loaded[SOCKET].invocation, manager.loaded["shop-web@us.service"].invocation
        made = after(host, behind(("us",), "us"))
        assert jobs(made) == [("stop", "shop-web@eu.service")]
        assert verbs(made)[SOCKET] == ("change",)
        assert apply(made, host).ok
        assert (manager.loaded[SOCKET].invocation, manager.loaded["shop-web@us.service"].invocation) == runs

    def test_none_stays(self) -> None:
        host, _ = started(behind(("eu",), "eu"))
        made = after(host, behind(("us",), "us"))
        assert jobs(made) == [
            ("stop", "shop-web@eu.service"),
            ("stop", SOCKET),
            ("start", SOCKET),
            ("start", "shop-web@us.service"),
        ]
        (change,) = (one for one in made.changes if one.unit == SOCKET)
        assert change.reason == "the unit that it starts changed"

    def test_one_stays_and_does_not_run(self) -> None:
        host, manager = started(behind(("eu", "us"), "eu"))
        manager.wait([manager.stop("shop-web@us.service")], 1, lambda _: None)
        assert ("stop", SOCKET) in jobs(after(host, behind(("us",), "us")))

    @pytest.mark.parametrize(("first", "second"), [("", "1"), ("1", ""), ("1", "elsewhere")])
    def test_one_that_is_no_instance(self, first: str, second: str) -> None:
        host, _ = started(behind(("1", "2"), first))
        made = after(host, behind(("1", "2"), second))
        assert (("stop", SOCKET) in jobs(made)) == (second != "1")

    def test_the_file_was_lost_meanwhile(self) -> None:
        host, _ = started(behind(("1", "2"), "1"))
        host.files.remove(f"{host.paths.unit_dir}/{SOCKET}")
        assert jobs(after(host, behind(("1", "2"), "1"))) == []


class TestOpening:
    def test_a_socket_that_is_added_to_what_runs(self) -> None:
        host, _ = applied({"web": Entry(instances=2)})
        assert jobs(after(host, desired_of({"web": Entry(instances=2, socket=1)}))) == [
            ("stop", web(2)),
            ("stop", web(1)),
            ("start", SOCKET),
            ("start", web(1)),
            ("start", web(2)),
        ]

    def test_a_socket_that_failed_while_others_run(self) -> None:
        entries = {"web": Entry(instances=3, socket=1)}
        host, manager = applied(entries)
        manager.set_state(SOCKET, "failed")
        manager.set_state(web(2), "failed")
        made = after(host, desired_of(entries))
        assert jobs(made) == [
            ("stop", web(3)),
            ("stop", web(1)),
            ("start", SOCKET),
            ("start", web(1)),
            ("start", web(2)),
            ("start", web(3)),
        ]
        assert apply(made, host).ok
        assert plan_for(host, desired_of(entries)).is_noop

    def test_what_is_masked_is_left(self) -> None:
        host, _ = applied({"web": Entry(instances=2, socket=1)})
        host.files.link(f"{host.paths.unit_dir}/{web(2)}", "/dev/null")
        made = after(host, desired_of({"web": Entry(instances=2, socket=2)}))
        assert ("stop", web(1)) in jobs(made)
        assert ("stop", web(2)) not in jobs(made)

    @given(st.integers(1, 5), st.integers(1, 5), st.sampled_from((1, 2)))
    def test_a_socket_for_each_instance_concerns_only_that(
        self, first: int, second: int, address: int
    ) -> None:
        host, _ = started(own_sockets(first))
        made = after(host, own_sockets(second, address))
        if address == 2:
            assert {unit for verb, unit in jobs(made) if verb == "stop"} >= {
                web(n) for n in range(1, first + 1)
            }
        else:
            new, old = range(first + 1, second + 1), range(second + 1, first + 1)
            acted = {(c.unit, c.verbs[-1]) for c in made.changes if c.verbs[-1] in (Verb.START, Verb.STOP)}
            expected = {(unit, Verb.START) for n in new for unit in (web(n), own(n))}
            assert acted == expected | {(unit, Verb.STOP) for n in old for unit in (web(n), own(n))}
            assert not {web(n) for n in range(1, min(first, second) + 1)} & {unit for _, unit in jobs(made)}


def own(number: int) -> str:
    return f"shop-web@{number}.socket"


def own_sockets(count: int, address: int = 1) -> Desired:
    """Return a service of which each instance has a socket of its own."""
    made = desired_of({"web": Entry(instances=count)})
    mark = "\n[X-Sysresp]\nProject=shop\nService=web\n"
    text = f"[Unit]\nPartOf=shop.target\n[Socket]\nListenStream=/run/{address}/%i\n{mark}"
    file = UnitFile("shop-web@.socket", text, service="web")
    sockets = {own(n): Unit(own(n), file.name, "web", str(n), main=False) for n in range(1, count + 1)}
    links = {f"shop.target.wants/{name}": file.name for name in sockets}
    units = {"shop.slice": made.units["shop.slice"], **sockets, **made.units}
    return replace(made, files={**made.files, file.name: file}, units=units, links={**made.links, **links})
