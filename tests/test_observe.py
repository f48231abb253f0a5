"""Where things are looked for, and what a look costs."""

from __future__ import annotations

import pytest

from sysresp.errors import SysrespError
from sysresp.model import Mode, Scope
from sysresp.reconcile.layout import paths, state_dirs
from sysresp.reconcile.observe import observe
from tests.fakes import FakeFiles, FakeManager, fake_host
from tests.plan_scenes import UNIT_DIR, Entry, converge, desired_of

USER = {"HOME": "/home/ann/", "XDG_RUNTIME_DIR": "/run/user/7"}
WEB = {"web": Entry()}


class TestLayout:
    @pytest.mark.parametrize(
        ("mode", "unit_dir", "state_dir"),
        [
            (Mode.PERSISTENT, "/etc/systemd/system", "/var/lib/sysresp"),
            (Mode.RUNTIME, "/run/systemd/system", "/run/sysresp"),
            (Mode.TRANSIENT, "/run/systemd/transient", "/run/sysresp"),
        ],
    )
    def test_system(self, mode: Mode, unit_dir: str, state_dir: str) -> None:
        found = paths(Scope.SYSTEM, mode, {})
        assert (found.unit_dir, found.state_dir, found.prober) == (
            unit_dir,
            state_dir,
            f"{state_dir}/ready.py",
        )
        assert unit_dir in found.search

    @pytest.mark.parametrize(
        ("mode", "unit_dir", "state_dir"),
        [
            (Mode.PERSISTENT, "/home/ann/.config/systemd/user", "/home/ann/.local/state/sysresp"),
            (Mode.RUNTIME, "/run/user/7/systemd/user", "/run/user/7/sysresp"),
            (Mode.TRANSIENT, "/run/user/7/systemd/transient", "/run/user/7/sysresp"),
        ],
    )
    def test_user(self, mode: Mode, unit_dir: str, state_dir: str) -> None:
        found = paths(Scope.USER, mode, USER)
        assert (found.unit_dir, found.state_dir, found.prober) == (
            unit_dir,
            state_dir,
            f"{state_dir}/ready.py",
        )
        assert unit_dir in found.search

    def test_xdg(self) -> None:
        env = {
            **USER,
            "XDG_CONFIG_HOME": "/c",
            "XDG_STATE_HOME": "/s",
            "XDG_DATA_HOME": "/d",
            "XDG_CONFIG_DIRS": "/cd:",
            "XDG_DATA_DIRS": "/dd",
        }
        found = paths(Scope.USER, Mode.PERSISTENT, env)
        assert found.unit_dir == "/c/systemd/user"
        assert found.state_dir == "/s/sysresp"
        assert found.prober == "/home/ann/.local/state/sysresp/ready.py"
        assert {"/cd/systemd/user", "/d/systemd/user", "/dd/systemd/user"} <= set(found.search)
        assert state_dirs(Scope.USER, env) == ("/s/sysresp", "/run/user/7/sysresp")
        assert state_dirs(Scope.SYSTEM, env) == ("/var/lib/sysresp", "/run/sysresp")

    @pytest.mark.parametrize("missing", ["HOME", "XDG_RUNTIME_DIR"])
    def test_no_session(self, missing: str) -> None:
        env = {key: value for key, value in USER.items() if key != missing}
        with pytest.raises(SysrespError, match=missing):
            paths(Scope.USER, Mode.PERSISTENT, env)


class TestObserve:
    def test_an_empty_host(self) -> None:
        found = observe(fake_host(), "shop", desired_of(WEB))
        assert found.manifest is None
        assert (found.files, found.links, found.units, found.strays) == ({}, {}, {}, {})

    def test_it_changes_and_loads_nothing(self) -> None:
        files = FakeFiles()
        manager = FakeManager(files)
        host = fake_host(manager=manager)
        converge(host, desired_of(WEB))
        files.operations.clear()
        manager.calls.clear()
        loaded = set(manager.loaded)
        observe(host, "shop", desired_of({**WEB, "new": Entry()}))
        assert files.changes() == []
        assert manager.calls == [("units", "shop-*", "shop.*")]
        assert set(manager.loaded) == loaded

    def test_the_cost_of_a_thousand_services(self) -> None:
        files = FakeFiles()
        host = fake_host(files)
        wanted = desired_of({f"s{n}": Entry() for n in range(1000)})
        for name, file in wanted.files.items():
            files.write(f"{UNIT_DIR}/{name}", file.text.encode())
        files.operations.clear()
        found = observe(host, "shop", wanted)
        assert len(found.files) == 1002
        assert len(files.operations) < 1002 + 10  # each file once, each directory once

    def test_masked_in_every_way(self) -> None:
        files = FakeFiles()
        host = fake_host(files)
        names = ("a", "b", "c", "d", "e")
        files.link(f"{UNIT_DIR}/shop-a.service", "/dev/null")
        files.write(f"{UNIT_DIR}/shop-b.service", b"")
        files.link(f"{UNIT_DIR}/shop-c.service", "/gone")
        files.link("/run/systemd/system/shop-d.service", "/dev/null")  # loses against /etc
        runtime = host._replace(paths=host.paths._replace(unit_dir="/run/systemd/system"))
        wanted = desired_of({name: Entry() for name in names})
        assert observe(host, "shop", wanted).masked == {f"shop-{n}.service" for n in "abc"}
        assert observe(runtime, "shop", wanted).masked == {f"shop-{n}.service" for n in "abcd"}
        assert observe(host, "shop", wanted).strays == {}

    def test_strays_and_what_looks_like_ours(self) -> None:
        files = FakeFiles()
        files.write("/usr/lib/systemd/system/shop-web.service", b"[Service]\n")
        files.write(f"{UNIT_DIR}/shop-old.service", b"[Service]\n# \xff\n")
        files.write(f"{UNIT_DIR}/shopping.service", b"[Service]\n")
        found = observe(fake_host(files), "shop", desired_of(WEB))
        assert found.strays == {"shop-web.service": "/usr/lib/systemd/system/shop-web.service"}
        assert found.files == {"shop-old.service": "[Service]\n# \udcff\n"}

    def test_links_that_are_no_links_and_foreign_ones(self) -> None:
        files = FakeFiles()
        files.write(f"{UNIT_DIR}/shop.target.wants/x.service", b"")
        files.link(f"{UNIT_DIR}/shop.target.wants/y.service", "/y")
        files.link(f"{UNIT_DIR}/multi-user.target.wants/z.service", "/z")
        found = observe(fake_host(files), "shop", desired_of(WEB))
        assert found.links == {"shop.target.wants/y.service": "/y"}

    def test_without_a_file_of_the_user(self) -> None:
        files = FakeFiles()
        host = fake_host(files)
        converge(host, desired_of(WEB))
        found = observe(host, "shop")
        assert found.manifest is not None
        assert "shop-web.service" in found.files
        assert "multi-user.target.wants/shop.target" in found.links
        assert "shop-web.service" in found.units

    def test_other_names_are_asked_for_too(self) -> None:
        manager = FakeManager()
        host = fake_host(manager=manager)
        wanted = desired_of({"web": Entry(instances=2), "api": Entry()}, overrides=("web", "api"))
        converge(host, wanted)
        assert {"web@1.service", "web@2.service", "api.service"} <= observe(
            host, "shop", wanted
        ).units.keys()

    def test_a_file_that_goes_while_we_look(self) -> None:
        class Gone(FakeFiles):
            def listdir(self, path: str) -> list[str]:
                return [*super().listdir(path), "shop-web.service"] if path == UNIT_DIR else []

        found = observe(fake_host(Gone()), "shop", desired_of(WEB))
        assert (found.files, found.masked) == ({}, frozenset())
