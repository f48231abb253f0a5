"""The marks of drift in `sysresp status`: which rows have which, and what is said of units without a row."""

from __future__ import annotations

from sysresp.cli import rows, status, status_table
from sysresp.reconcile.manifest import load
from tests.fakes import FakeFiles, fake_host
from tests.plan_scenes import MANIFEST, Entry, converge, desired_of


def test_what_has_drifted_is_marked() -> None:
    files = FakeFiles()
    host = fake_host(files)
    converge(host, desired_of({"db": Entry(socket=1), "web": Entry(instances=2), "mail": Entry()}))
    unit_dir = host.paths.unit_dir
    manifest = load(files, MANIFEST)
    assert manifest is not None
    owned = manifest._replace(generation=7, restarts=("shop-web@2.service",))

    def marked() -> tuple[dict[str, tuple[str, ...]], list[str]]:
        shown = status.look(owned, owned.units, host.manager, 0.0)
        others = status.mark(shown, owned, files, {})
        assert {row.generation for row in shown} == {7}
        return {row.name: row.drift for row in shown}, others

    assert marked() == ({"db": (), "web@1": (), "web@2": ("outdated",), "mail": ()}, [])
    files.write(f"{unit_dir}/shop-db.socket", b"[Socket]\n")
    files.write(f"{unit_dir}/shop-web@.service", b"[Service]\n")
    files.write(f"{unit_dir}/shop-web@1.service.d/x.conf", b"[Service]\n")
    files.remove(f"{unit_dir}/shop-mail.service")
    files.remove(f"{unit_dir}/multi-user.target.wants/shop.target")
    assert marked() == (
        {
            "db": ("edited",),
            "web@1": ("edited", "drop-in"),
            "web@2": ("edited", "outdated"),
            "mail": ("removed",),
        },
        ["shop.target: disabled (see: sysresp drift)"],
    )
    shown = status.look(owned, owned.units, host.manager, 0.0)
    status.mark(shown, owned, files, {})
    folded = rows.fold(shown)
    assert [row.drift for row in folded if row.name == "web"] == [("edited", "drop-in", "outdated")]
    lines = status_table.render(folded, 0.0, None, colour=False).splitlines()
    assert "DRIFT" in lines[0]
    assert "edited, drop-in, outdated" in lines[2]
    first = status_table.as_objects(shown)[0]
    assert (first["drift"], first["generation"]) == (["edited"], 7)


def test_what_was_accepted_is_not_marked() -> None:
    files = FakeFiles()
    host = fake_host(files)
    converge(host, desired_of({"web": Entry()}))
    files.write(f"{host.paths.unit_dir}/shop-web.service.d/x.conf", b"[Service]\n")
    manifest = load(files, MANIFEST)
    assert manifest is not None
    shown = status.look(manifest, manifest.units, host.manager, 0.0)
    status.mark(shown, manifest, files, {})
    assert shown[0].drift == ("drop-in",)
    (drop_in,) = status.drift_of(manifest, files, {})
    status.mark(shown, manifest._replace(accepted=(drop_in.key,)), files, {})
    assert shown[0].drift == ()
