"""What an apply does about drift: nothing by hand is lost unasked; accept and overwrite do what they say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysresp.reconcile.apply import apply
from sysresp.reconcile.drift import DISABLED, DROP_IN, EDITED, MASKED, REMOVED, TEXT
from sysresp.reconcile.manifest import dumps
from sysresp.reconcile.observe import observe
from sysresp.reconcile.resolve import ABSENT, DriftChoice, RefusedError
from sysresp.reconcile.steps import DaemonReload, RemoveFile, Verb, WriteFile, WriteManifest
from sysresp.units.desired import Desired
from tests.drift_scenes import FILE, HAND, ONE, PATH, applied, converge, edit, kinds, manifest_of, planned
from tests.fakes import FakeFiles
from tests.plan_scenes import MANIFEST, UNIT_DIR, Entry, desired_of, jobs, projects, verbs


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


class TestBroughtIntoTheFile:
    """An edit by hand that the file says by now."""

    def test_what_runs_the_text_before_is_restarted(self) -> None:
        files, manager, host = applied()
        started = round(host.clock.now() * 1e6)
        host.clock.sleep(1)
        wanted = desired_of({"web": Entry(version=2)})
        files.write(PATH, wanted.files[FILE].text.encode())
        manager.loaded[FILE].extra = {"ExecMainStartTimestamp": started}
        made = planned(host, wanted)
        assert (made.drift, verbs(made)) == ((), {FILE: ("restart",)})
        assert DaemonReload() in made.steps  # else RestartUnit would run the old text again
        assert apply(made, host).ok
        assert "bin/web 2" in manager.loaded[FILE].text
        assert planned(host, wanted).steps == ()

    def test_what_was_restarted_by_hand_is_not(self) -> None:
        files, manager, host = applied()
        wanted = desired_of({"web": Entry(version=2)})
        files.write(PATH, wanted.files[FILE].text.encode())
        manager.reload()
        host.clock.sleep(1)
        manager.loaded[FILE].extra = {"ExecMainStartTimestamp": round(host.clock.now() * 1e6)}
        assert planned(host, wanted).is_noop
        assert apply(planned(host, wanted), host).ok
        assert planned(host, wanted).steps == ()

    def test_an_edit_that_is_kept_restarts_nothing(self) -> None:
        files, _, host = applied()
        edit(files, PATH)
        assert jobs(planned(host, desired_of(ONE), DriftChoice.ACCEPT)) == []


class TestKeep:
    """The choice of an automatic rollback."""

    def test_drift_stays_and_is_told_again(self) -> None:
        files, _, host = applied()
        content = edit(files, PATH)
        made = planned(host, desired_of({"web": Entry(version=2)}), DriftChoice.KEEP)
        assert made.refused == ()
        assert apply(made, host).ok
        assert files.read(PATH) == content
        assert kinds(planned(host, desired_of({"web": Entry(version=2)})).refused) == [(EDITED, FILE)]

    def test_what_was_accepted_stays_so_against_another_text(self) -> None:
        files, _, host = applied()
        edit(files, PATH)
        converge(host, desired_of({"web": Entry(version=2)}), DriftChoice.ACCEPT)
        converge(host, desired_of(ONE), DriftChoice.KEEP)
        made = planned(host, desired_of(ONE))
        assert (made.drift, made.steps) == ((), ())


def test_a_link_that_was_away_before_a_cut_stays_away() -> None:
    files, _, host = applied({"db": Entry(), "web": Entry()})
    link = f"{UNIT_DIR}/shop.target.wants/{FILE}"
    files.remove(link)
    wanted = desired_of({"db": Entry(version=2), "web": Entry()})
    first = next(s.manifest for s in planned(host, wanted).steps if isinstance(s, WriteManifest))
    files.write(MANIFEST, dumps(first))
    made = planned(host, wanted)
    assert kinds(made.drift) == [(DISABLED, FILE)]
    assert [keep.reason for keep in made.keeps] == ["disabled"]
    assert apply(made, host).ok
    assert files.readlink(link) is None


def test_an_accepted_absence_outlives_a_cut() -> None:
    files, _, host = applied({"db": Entry(), "web": Entry()})
    files.remove(PATH)
    wanted = desired_of({"db": Entry(version=2), "web": Entry()})
    made = planned(host, wanted, DriftChoice.ACCEPT)
    first = next(s.manifest for s in made.steps if isinstance(s, WriteManifest))
    files.write(MANIFEST, dumps(first))
    assert converge(host, wanted).ok
    assert files.read(PATH) is None
    assert planned(host, wanted).steps == ()


def test_the_refusal_says_how_many_and_the_way_out() -> None:
    files, _, host = applied({"db": Entry(), "web": Entry(), "mail": Entry()})
    edit(files, PATH)
    one = RefusedError(planned(host, desired_of({"db": Entry(), "web": Entry(), "mail": Entry()})).refused)
    assert one.message == "this would overwrite 1 unit file edited by hand; nothing was changed"
    assert "leaves it as it is" in one.hint
    files.remove(f"{UNIT_DIR}/shop-db.service")
    files.remove(f"{UNIT_DIR}/shop-mail.service")
    three = RefusedError(planned(host, desired_of({"db": Entry(), "web": Entry(), "mail": Entry()})).refused)
    assert "1 unit file edited by hand and 2 unit files removed by hand" in three.message
    assert RefusedError(three.drift[:1]).message.count("unit file") == 1


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
        assert (made.drift, made.refused) == ((), ())
        # A unit that requires one whose file stays away cannot start, and is tried again.
        assert {verb for change in made.changes for verb in change.verbs} <= {Verb.START}

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
