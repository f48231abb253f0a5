"""Rendering any spec: what the spec asks for is what the unit files say, nothing more and nothing less."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from sysresp.model import (
    Origin,
    Scope,
    Spec,
)
from sysresp.units import quote
from sysresp.units.desired import Policy
from sysresp.units.directives import TABLE
from sysresp.units.render import render
from sysresp.units.text import owner, parse
from tests.strategies import specs


class TestProperties:
    @settings(max_examples=30, deadline=None)
    @given(specs(), st.sampled_from((247, 252, 257)), st.sampled_from(list(Scope)))
    def test_render_gives_unit_files_of_known_directives_only(
        self, what: Spec, version: int, scope: Scope
    ) -> None:
        rendered = render(what, version=version, scope=scope)
        for file in rendered.desired.files.values():
            assert owner(file.text) == what.project
            assert file.text.endswith("\n")
            assert not file.text.endswith("\n\n")
            quote.loadable(file.text)
            for section, name, _ in parse(file.text):
                if not section.startswith("X-"):
                    assert section in TABLE[name].sections
                    assert TABLE[name].since <= version
            # Nothing in a value can end its line, so that every line is one entry, a section or a remark.
            written = [line for line in file.text.split("\n") if line and line[0] not in "[#"]
            assert len(written) == len(parse(file.text))

    @settings(max_examples=20, deadline=None)
    @given(specs(), specs())
    def test_how_a_change_goes_is_no_part_of_any_unit(self, what: Spec, other: Spec) -> None:
        some = next(iter(other.services.values()))
        changed = replace(
            what,
            keep_generations=other.keep_generations,
            services={
                name: replace(
                    one,
                    settle_sec=some.settle_sec,
                    ignore_start_failure=some.ignore_start_failure,
                    rollout=some.rollout,
                )
                for name, one in what.services.items()
            },
        )
        before, after = (render(each, version=252).desired for each in (what, changed))
        assert (before.files, before.units, before.links) == (after.files, after.units, after.links)
        usual = Policy()
        for name in what.services:
            policy = after.policies.get(name, usual)
            assert policy == Policy(some.settle_sec, some.ignore_start_failure, some.rollout)

    @settings(max_examples=30, deadline=None)
    @given(specs())
    def test_values_arrive_whole(self, what: Spec) -> None:
        made = render(what, version=257).desired
        for one in what.services.values():
            entries = parse(
                made.files[
                    next(u.file for u in made.units.values() if u.service == one.name and u.main)
                ].text
            )
            environment = [value for _, name, value in entries if name == "Environment"]
            read = [quote.literal(quote.split(line), command=False)[0] for line in environment]
            assert read == [f"{name}={value}" for name, value in one.environment.items()]
            commands = [value for _, name, value in entries if name == "ExecStart"]
            assert commands == [
                quote.command_line(c, instanced=one.instances is not None) for c in one.command
            ]

    @settings(max_examples=20, deadline=None)
    @given(specs(), st.randoms())
    def test_order_of_services_changes_no_file(self, what: Spec, random: object) -> None:
        items = list(what.services.items())
        random.shuffle(items)  # type: ignore[attr-defined]
        first = render(what, version=257).desired
        second = render(replace(what, services=dict(items)), version=257).desired
        assert first.files == second.files
        assert first.links == second.links
        assert first.units == second.units

    @settings(max_examples=20, deadline=None)
    @given(specs())
    def test_what_comes_first_is_listed_first(self, what: Spec) -> None:
        made = render(what, version=257).desired
        order = list(made.units)
        for unit in made.units.values():
            text = made.files[unit.file].text
            after = [word for _, name, value in parse(text) if name == "After" for word in value.split()]
            for other in after:
                assert order.index(other.replace("%i", unit.instance)) < order.index(unit.name)

    @settings(max_examples=20, deadline=None)
    @given(specs(), st.integers(1, 999))
    def test_moving_lines_changes_nothing(self, what: Spec, line: int) -> None:
        moved = {
            name: replace(one, origin=Origin("other.toml", line)) for name, one in what.services.items()
        }
        first = render(what, version=257).desired.files
        second = render(replace(what, services=moved), version=257).desired.files
        assert {n: f.text for n, f in first.items()} == {n: f.text for n, f in second.items()}

    @settings(max_examples=20, deadline=None)
    @given(specs())
    def test_every_unit_has_its_file_and_every_link_its_unit(self, what: Spec) -> None:
        made = render(what, version=257).desired
        assert {unit.file for unit in made.units.values()} == set(made.files)
        for link, file in made.links.items():
            assert link.partition("/")[2] in made.units
            assert file in made.files
