"""Drift: each kind is told, nothing by hand is lost unasked, and accept and overwrite do what they say."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysresp.model import Mode
from sysresp.ports import Host
from sysresp.reconcile.apply import apply
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
    TEXT,
    Drift,
    Process,
    marks,
    of_processes,
)
from sysresp.reconcile.manifest import Manifest, ManifestUnit, dumps, load
from sysresp.reconcile.observe import observe
from sysresp.reconcile.outcome import Outcome
from sysresp.reconcile.plan import plan
from sysresp.reconcile.resolve import ABSENT, DriftChoice
from sysresp.reconcile.steps import Link, Plan, RemoveFile, Verb, WriteFile, WriteManifest
from sysresp.units.desired import Desired
from tests.fakes import FakeFiles, FakeManager, fake_host
from tests.plan_scenes import MANIFEST, PROBER, UNIT_DIR, Entry, desired_of, jobs, projects, verbs

ONE = {"web": Entry()}
FILE = "shop-web.service"
PATH = f"{UNIT_DIR}/{FILE}"
HAND = "# by hand\n"


def planned(host: Host, desired: Desired, choice: DriftChoice = DriftChoice.REFUSE) -> Plan:
    seen = observe(host, desired.project, desired)
    return plan(desired, seen, paths=host.paths, mode=Mode.PERSISTENT, prober=PROBER, drift=choice)


def converge(host: Host, desired: Desired, choice: DriftChoice = DriftChoice.REFUSE) -> Outcome:
    made = planned(host, desired, choice)
    assert made.errors == ()
    return apply(made, host)


def applied(entries: Mapping[str, Entry] = ONE) -> tuple[FakeFiles, FakeManager, Host]:
    """Return a host on which this was applied."""
    files = FakeFiles()
    manager = FakeManager(files)
    host = fake_host(manager=manager)
    converge(host, desired_of(entries))
    return files, manager, host


def edit(files: FakeFiles, path: str, text: str = HAND) -> bytes:
    """Add a line to a unit file by hand, and return what it holds then."""
    content = (files.read(path) or b"") + text.encode()
    files.write(path, content)
    return content


def kinds(found: tuple[Drift, ...]) -> list[tuple[str, str]]:
    return [(drift.kind, drift.unit) for drift in found]


def manifest_of(files: FakeFiles) -> Manifest:
    found = load(files, MANIFEST)
    assert found is not None
    return found


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


class TestChoice:
    def test_an_edit_stops_everything(self) -> None:
        files, manager, host = applied({"db": Entry(), "web": Entry()})
        content = edit(files, PATH)
        wanted = desired_of({"db": Entry(version=2), "web": Entry()})
        before = len(files.changes()), len(manager.changes())
        made = planned(host, wanted)
        assert kinds(made.refused) == [(EDITED, FILE)]
        assert made.steps == ()
        assert verbs(made) == {
            "shop-db.service": ("change", "restart"),
            FILE: ("change",),
        }
        assert apply(made, host).ok
        assert (len(files.changes()), len(manager.changes())) == before
        assert files.read(PATH) == content

    def test_accepted_it_stays_and_is_quiet_until_something_changes(self) -> None:
        files, _, host = applied({"db": Entry(), "web": Entry()})
        content = edit(files, PATH)
        wanted = desired_of({"db": Entry(version=2), "web": Entry()})
        made = planned(host, wanted, DriftChoice.ACCEPT)
        assert kinds(made.drift) == [(EDITED, FILE)]
        assert verbs(made) == {"shop-db.service": ("change", "restart")}
        assert apply(made, host).ok
        assert files.read(PATH) == content
        again = planned(host, wanted)
        assert (again.drift, again.refused, again.steps) == ((), (), ())
        assert kinds(planned(host, desired_of({"web": Entry(version=2)})).refused) == [(EDITED, FILE)]
        edit(files, PATH)
        assert kinds(planned(host, wanted).refused) == [(EDITED, FILE)]

    def test_to_accept_alone_is_one_write_of_the_manifest(self) -> None:
        files, manager, host = applied()
        edit(files, PATH)
        before = len(manager.changes())
        assert converge(host, desired_of(ONE), DriftChoice.ACCEPT).ok
        assert len(manager.changes()) == before
        (line,) = manifest_of(files).accepted
        assert line.startswith(f"{FILE} ")

    def test_overwritten_it_is_what_the_file_says(self) -> None:
        files, _, host = applied()
        edit(files, PATH, "[Service]\nNice=5\n")
        made = planned(host, desired_of(ONE), DriftChoice.OVERWRITE)
        assert verbs(made) == {FILE: ("change", "restart")}
        assert apply(made, host).ok
        assert files.read(PATH) == desired_of(ONE).files[FILE].text.encode()
        assert planned(host, desired_of(ONE)).is_noop

    def test_what_was_accepted_can_be_overwritten_later(self) -> None:
        files, _, host = applied()
        edit(files, PATH)
        converge(host, desired_of(ONE), DriftChoice.ACCEPT)
        converge(host, desired_of(ONE), DriftChoice.OVERWRITE)
        assert files.read(PATH) == desired_of(ONE).files[FILE].text.encode()
        assert manifest_of(files).accepted == ()

    def test_a_removed_file_stays_away_or_comes_back(self) -> None:
        files, _, host = applied()
        files.remove(PATH)
        assert kinds(planned(host, desired_of(ONE)).refused) == [(REMOVED, FILE)]
        converge(host, desired_of(ONE), DriftChoice.ACCEPT)
        made = planned(host, desired_of(ONE))
        assert (made.drift, made.steps) == ((), ())
        assert [(keep.unit, keep.verbs, keep.reason) for keep in made.keeps] == [
            (FILE, (Verb.KEEP,), ABSENT)
        ]
        back = planned(host, desired_of(ONE), DriftChoice.OVERWRITE)
        assert verbs(back) == {FILE: ("create",)}
        assert jobs(back) == []

    def test_an_edited_file_is_not_removed_unasked(self) -> None:
        files, manager, host = applied()
        content = edit(files, PATH)
        assert kinds(planned(host, desired_of({})).refused) == [(EDITED, FILE)]
        assert converge(host, desired_of({}), DriftChoice.ACCEPT).ok
        assert files.read(PATH) == content
        assert manager.loaded[FILE].active == "active"
        again = planned(host, desired_of({}))
        assert (again.drift, again.steps) == ((), ())
        gone = planned(host, desired_of({}), DriftChoice.OVERWRITE)
        assert RemoveFile(PATH) in gone.steps

    def test_an_edit_that_took_our_mark_away_is_still_an_edit(self) -> None:
        files, _, host = applied()
        files.write(PATH, b"[Service]\nExecStart=/mine\n")
        made = planned(host, desired_of(ONE))
        assert made.errors == ()
        assert kinds(made.refused) == [(EDITED, FILE)]
        converge(host, desired_of(ONE), DriftChoice.OVERWRITE)
        assert files.read(PATH) == desired_of(ONE).files[FILE].text.encode()

    def test_an_edit_that_put_another_mark_there_is_a_conflict(self) -> None:
        files, _, host = applied()
        files.write(PATH, b"[Service]\nExecStart=/mine\n\n[X-Sysresp]\nProject=other\n")
        for choice in DriftChoice:
            made = planned(host, desired_of(ONE), choice)
            assert [p.what for p in made.errors] == [f"{PATH} belongs to the project 'other'"]

    def test_what_was_disabled_is_enabled_only_by_overwriting(self) -> None:
        files, _, host = applied()
        link = f"{UNIT_DIR}/shop.target.wants/{FILE}"
        files.remove(link)
        converge(host, desired_of(ONE), DriftChoice.ACCEPT)
        assert planned(host, desired_of(ONE)).drift == ()
        assert files.readlink(link) is None
        converge(host, desired_of(ONE), DriftChoice.OVERWRITE)
        assert files.readlink(link) == PATH

    @pytest.mark.parametrize("choice", DriftChoice)
    def test_drop_ins_and_masks_are_never_touched(self, choice: DriftChoice) -> None:
        files, _, host = applied({"db": Entry(), "web": Entry()})
        path = f"{UNIT_DIR}/shop-db.service.d/x.conf"
        files.write(path, b"[Service]\nNice=1\n")
        files.link(PATH, "/dev/null")
        converge(host, desired_of({"db": Entry(version=2), "web": Entry(version=2)}), choice)
        assert files.read(path) == b"[Service]\nNice=1\n"
        assert files.readlink(PATH) == "/dev/null"
        left = planned(host, desired_of({"db": Entry(version=2), "web": Entry(version=2)})).drift
        assert kinds(left) == (
            [] if choice is DriftChoice.ACCEPT else [(MASKED, FILE), (DROP_IN, "shop-db.service")]
        )


HANDS = st.lists(
    st.tuples(st.sampled_from(["edit", "remove", "unlink", "drop"]), st.integers(0, 30)), max_size=4
)


def by_hand(files: FakeFiles, desired: Desired, hands: list[tuple[str, int]]) -> dict[str, bytes | None]:
    """Do these to some files and links of ours; return what was left at each path."""
    left: dict[str, bytes | None] = {}
    for what, number in hands:
        names = sorted(desired.files)
        links = sorted(desired.links)
        if what == "unlink":
            path = f"{UNIT_DIR}/{links[number % len(links)]}"
            files.remove(path)
            left[path] = None
            continue
        path = f"{UNIT_DIR}/{names[number % len(names)]}"
        if what == "drop":
            files.write(f"{path}.d/x.conf", HAND.encode())
            left[f"{path}.d/x.conf"] = HAND.encode()
        elif what == "remove":
            files.remove(path)
            left[path] = None
        elif files.read(path) is not None:
            left[path] = edit(files, path)
    return left


def there(files: FakeFiles, path: str) -> bytes | None:
    return files.read(path) if files.readlink(path) is None else b"a link"


class TestDrawn:
    @given(projects(), projects(), HANDS)
    def test_nothing_by_hand_is_lost_unasked(
        self, first: dict[str, Entry], second: dict[str, Entry], hands: list[tuple[str, int]]
    ) -> None:
        files, _, host = applied(first)
        left = by_hand(files, desired_of(first), hands)
        wanted = desired_of(second)
        converge(host, wanted)
        assert {path: there(files, path) for path in left} == left
        converge(host, wanted, DriftChoice.ACCEPT)
        assert {path: there(files, path) for path in left} == left
        made = planned(host, wanted)
        assert (made.drift, made.refused, made.is_noop) == ((), (), True)

    @given(projects(), projects(), HANDS, st.booleans())
    def test_overwritten_all_is_as_the_file_says(
        self, first: dict[str, Entry], second: dict[str, Entry], hands: list[tuple[str, int]], accept: bool
    ) -> None:
        files, _, host = applied(first)
        left = by_hand(files, desired_of(first), hands)
        wanted = desired_of(second)
        if accept:
            converge(host, wanted, DriftChoice.ACCEPT)
        converge(host, wanted, DriftChoice.OVERWRITE)
        seen = observe(host, "shop", wanted)
        assert seen.files == {name: file.text for name, file in wanted.files.items()}
        assert seen.links == {link: f"{UNIT_DIR}/{file}" for link, file in wanted.links.items()}
        made = planned(host, wanted)
        assert made.steps == ()
        assert {drift.kind for drift in made.drift} <= {DROP_IN}
        drops = {path: content for path, content in left.items() if path.endswith(".conf")}
        assert {path: files.read(path) for path in drops} == drops

    @given(projects(), projects(), HANDS, st.integers(0, 40))
    def test_a_cut_apply_leaves_no_drift_of_its_own(
        self, first: dict[str, Entry], second: dict[str, Entry], hands: list[tuple[str, int]], cut: int
    ) -> None:
        files, _, host = applied(first)
        by_hand(files, desired_of(first), [hand for hand in hands if hand[0] != "drop"])
        made = planned(host, desired_of(second), DriftChoice.OVERWRITE)
        for step in made.steps[:cut]:
            if isinstance(step, WriteManifest) and not step.confirm:
                files.write(step.path, dumps(step.manifest))
            elif isinstance(step, WriteFile):
                files.write(step.path, step.content)
            elif isinstance(step, RemoveFile):
                files.remove(step.path)
        if cut > 0 and made.steps and isinstance(made.steps[0], WriteManifest) and not made.steps[0].confirm:
            again = planned(host, desired_of(second))
            assert [d for d in again.drift if d.kind in TEXT] == []
            assert again.refused == ()


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
