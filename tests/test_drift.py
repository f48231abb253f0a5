"""Drift: each kind is told, and what an apply that was cut left is none."""

from __future__ import annotations

import pytest

from sysresp.reconcile.disk import applies
from sysresp.reconcile.drift import (
    CONFIG,
    DISABLED,
    DROP_IN,
    EDITED,
    ENABLED,
    MASKED,
    NOT_LOADED,
    OUTDATED,
    REMOVED,
    REPLACED,
    Process,
    marks,
    of_processes,
)
from sysresp.reconcile.manifest import Manifest, ManifestUnit, dumps
from sysresp.reconcile.resolve import DriftChoice
from sysresp.reconcile.steps import Link, RemoveFile, WriteFile, WriteManifest
from tests.drift_scenes import FILE, HAND, ONE, PATH, applied, converge, edit, kinds, manifest_of, planned
from tests.fakes import FakeFiles
from tests.plan_scenes import MANIFEST, UNIT_DIR, Entry, desired_of, verbs


class TestKinds:
    def test_none(self) -> None:
        _, _, host = applied()
        made = planned(host, desired_of(ONE))
        assert (made.drift, made.refused, made.is_noop) == ((), (), True)

    def test_edited(self) -> None:
        files, _, host = applied()
        edit(files, PATH)
        (drift,) = planned(host, desired_of(ONE)).drift
        assert (drift.kind, drift.unit, drift.service, drift.path) == (EDITED, FILE, "web", PATH)
        assert (drift.origin_path, drift.origin_line) == ("services.toml", 3)
        assert drift.after == (drift.before or "") + HAND

    def test_edited_into_what_the_file_now_says(self) -> None:
        files, _, host = applied()
        wanted = desired_of({"web": Entry(version=2)})
        files.write(PATH, wanted.files[FILE].text.encode())
        assert planned(host, wanted).drift == ()

    def test_removed(self) -> None:
        files, _, host = applied()
        files.remove(PATH)
        assert kinds(planned(host, desired_of(ONE)).drift) == [(REMOVED, FILE)]

    def test_removed_and_no_longer_wanted_is_no_matter(self) -> None:
        files, _, host = applied()
        files.remove(PATH)
        assert planned(host, desired_of({})).drift == ()

    def test_masked(self) -> None:
        files, _, host = applied({"web": Entry(instances=1)})
        files.link(f"{UNIT_DIR}/shop.slice", "/dev/null")
        files.link(f"{UNIT_DIR}/shop-web@1.service", "/dev/null")
        made = planned(host, desired_of({"web": Entry(instances=1)}))
        assert kinds(made.drift) == [(MASKED, "shop.slice"), (MASKED, "shop-web@1.service")]
        assert made.refused == ()

    @pytest.mark.parametrize(
        "base", ["shop-web@1.service", "shop-web@.service", "shop-.service", "shop-web@2.service"]
    )
    def test_drop_in(self, base: str) -> None:
        files, _, host = applied({"web": Entry(instances=1)})
        path = f"/run/systemd/system/{base}.d/x.conf"
        files.write(path, b"[Service]\nNice=1\n")
        found = planned(host, desired_of({"web": Entry(instances=1)})).drift
        concerned = base != "shop-web@2.service"
        assert [(d.kind, d.unit, d.path) for d in found] == [(DROP_IN, base, path)] * concerned
        assert marks(manifest_of(files), found) == ({"shop-web@1.service": (DROP_IN,)} if concerned else {})

    def test_drop_ins_that_change_nothing_of_ours(self) -> None:
        files, _, host = applied()
        for path in ("service.d/x.conf", "shopping.service.d/x.conf", f"{FILE}.d/README"):
            files.write(f"{UNIT_DIR}/{path}", b"[Service]\n")
        files.write(f"{UNIT_DIR}/{FILE}.d/empty.conf", b"")
        files.link(f"{UNIT_DIR}/{FILE}.d/masked.conf", "/dev/null")
        assert planned(host, desired_of(ONE)).drift == ()

    def test_of_two_drop_ins_of_one_name_the_first_counts(self) -> None:
        files, _, host = applied()
        for directory in ("/usr/lib/systemd/system", UNIT_DIR):
            files.write(f"{directory}/{FILE}.d/x.conf", b"[Service]\n")
        assert [d.path for d in planned(host, desired_of(ONE)).drift] == [f"{PATH}.d/x.conf"]

    def test_disabled(self) -> None:
        files, _, host = applied()
        files.remove(f"{UNIT_DIR}/shop.target.wants/{FILE}")
        made = planned(host, desired_of(ONE))
        assert kinds(made.drift) == [(DISABLED, FILE)]
        assert made.steps == ()
        assert planned(host, desired_of({"web": Entry(enabled=False)})).drift == ()

    def test_enabled_elsewhere(self) -> None:
        files, _, host = applied({"web": Entry(enabled=False)})
        one, other = f"{UNIT_DIR}/shop.target.wants/{FILE}", f"/run/systemd/system/x.target.requires/{FILE}"
        files.link(one, PATH)
        files.link(other, PATH)
        made = planned(host, desired_of({"web": Entry(enabled=False)}))
        assert [(d.kind, d.path) for d in made.drift] == [(ENABLED, one), (ENABLED, other)]
        assert made.steps == ()
        (left,) = planned(host, desired_of(ONE)).drift  # the file asks for the first one now
        assert left.path == other

    def test_a_file_with_our_mark_that_no_apply_wrote(self) -> None:
        files, _, host = applied()
        copied = f"{UNIT_DIR}/shop-copy.service"
        files.write(copied, files.read(PATH) or b"")
        assert kinds(planned(host, desired_of(ONE)).refused) == [(EDITED, "shop-copy.service")]
        converge(host, desired_of(ONE), DriftChoice.ACCEPT)
        made = planned(host, desired_of(ONE))
        assert (made.drift, made.steps) == ((), ())
        edit(files, copied)
        assert kinds(planned(host, desired_of(ONE)).refused) == [(EDITED, "shop-copy.service")]
        converge(host, desired_of(ONE), DriftChoice.OVERWRITE)
        assert files.read(copied) is None

    def test_without_a_manifest_there_is_none(self) -> None:
        files, _, host = applied()
        edit(files, PATH)
        files.remove(MANIFEST)
        made = planned(host, desired_of(ONE))
        assert (made.drift, made.refused) == ((), ())
        assert verbs(made)[FILE] == ("change",)


class TestCut:
    """What an apply that was cut left is no drift."""

    def cut(self, files: FakeFiles, **changes: object) -> None:
        manifest = manifest_of(files)._replace(unfinished=True, **changes)  # type: ignore[arg-type]
        files.write(MANIFEST, dumps(manifest))

    def test_an_old_text_is_none(self) -> None:
        files, _, host = applied()
        wanted = desired_of({"web": Entry(version=2)})
        first = next(s.manifest for s in planned(host, wanted).steps if isinstance(s, WriteManifest))
        assert first.unfinished
        assert len(first.was) == 1
        files.write(MANIFEST, dumps(first))
        made = planned(host, wanted)
        assert (made.drift, made.refused) == ((), ())
        assert verbs(made)[FILE] == ("change", "restart")
        edit(files, PATH)
        assert kinds(planned(host, wanted).refused) == [(EDITED, FILE)]

    def test_a_missing_file_and_link_are_none(self) -> None:
        files, _, host = applied()
        self.cut(files)
        files.remove(PATH)
        files.remove(f"{UNIT_DIR}/shop.target.wants/{FILE}")
        made = planned(host, desired_of(ONE))
        assert made.drift == ()
        assert {type(step) for step in made.steps} >= {WriteFile, Link}

    def test_an_empty_file_is_torn_and_not_masked(self) -> None:
        files, _, host = applied()
        files.write(PATH, b"")
        assert kinds(planned(host, desired_of(ONE)).drift) == [(MASKED, FILE)]
        self.cut(files)
        made = planned(host, desired_of(ONE))
        assert made.drift == ()
        assert verbs(made)[FILE] == ("create",)
        gone = planned(host, desired_of({}))
        assert RemoveFile(PATH) in gone.steps
        files.link(PATH, "/dev/null")
        assert kinds(planned(host, desired_of(ONE)).drift) == [(MASKED, FILE)]


WEB = ManifestUnit("shop-web.service", "shop-web.service", "web", "", True, True, True, "s.toml", 3, "0")
SHOP = Manifest("shop", units=(WEB,), files=("shop-web.service",))


class TestProcesses:
    @pytest.mark.parametrize(
        ("process", "kind", "path"),
        [
            (Process(WEB.name, needs_reload=True), NOT_LOADED, ""),
            (Process(WEB.name, pid=7, started=5.0, edited=((PATH, 6.0),)), OUTDATED, PATH),
            (Process(WEB.name, pid=7, started=5.0, replaced=("/usr/lib/x.so",)), REPLACED, "/usr/lib/x.so"),
            (Process(WEB.name, pid=7, started=5.0, scripts=(("/bin/web", 6.0),)), REPLACED, "/bin/web"),
            (Process(WEB.name, pid=7, started=5.0, configs=(("/etc/web", 6.0),)), CONFIG, "/etc/web"),
        ],
    )
    def test_each_kind(self, process: Process, kind: str, path: str) -> None:
        (drift,) = of_processes(SHOP, [process])
        assert (drift.kind, drift.unit, drift.path, drift.service) == (kind, WEB.name, path, "web")
        assert drift.fix

    @pytest.mark.parametrize(
        "process",
        [
            Process(WEB.name),
            Process(WEB.name, edited=((PATH, 6.0),), configs=(("/etc/web", 6.0),)),  # it does not run
            Process(WEB.name, pid=7, started=6.0, edited=((PATH, 5.0),), scripts=(("/bin/web", 6.0),)),
            # An apply that saw the new content has written the unit file since, and asked for a reload.
            Process(WEB.name, pid=7, started=5.0, configs=(("/etc/web", 6.0),), written=7.0),
        ],
    )
    def test_none(self, process: Process) -> None:
        assert of_processes(SHOP, [process, Process("other.service", needs_reload=True)]) == ()

    def test_what_the_last_apply_owes(self) -> None:
        for owed in (SHOP._replace(restarts=(WEB.name,)), SHOP._replace(reloads=(WEB.name,))):
            (drift,) = of_processes(owed, ())
            assert (drift.kind, drift.fix) == (OUTDATED, "sysresp apply")

    def test_many_paths_are_not_all_named(self) -> None:
        (drift,) = of_processes(
            SHOP, [Process(WEB.name, pid=7, started=5.0, replaced=("/a", "/b", "/c", "/d"))]
        )
        assert drift.what.endswith("/a, /b, /c and 1 more")

    def test_in_the_words_of_the_scope(self) -> None:
        target = WEB._replace(name="shop.target", file="shop.target", service="")
        manifest = SHOP._replace(scope="user", units=(target,))
        seen = [Process("shop.target", needs_reload=True, started=5.0, edited=((PATH, 6.0),))]
        fixes = [drift.fix for drift in of_processes(manifest, seen)]
        assert fixes == ["systemctl --user daemon-reload", "systemctl --user restart shop.target"]


@pytest.mark.parametrize(
    ("base", "name", "meant"),
    [
        ("a-b.service", "a-b.service", True),
        ("a-.service", "a-b.service", True),
        ("a-.service", "a-b@1.service", True),
        ("a-b-.service", "a-b@1.service", False),
        ("a-b@.service", "a-b@1.service", True),
        ("a-b@1.service", "a-b@.service", False),
        ("a-.socket", "a-b.service", False),
        ("service", "a-b.service", False),
    ],
)
def test_which_units_a_drop_in_changes(base: str, name: str, meant: bool) -> None:
    assert applies(base, name) is meant
