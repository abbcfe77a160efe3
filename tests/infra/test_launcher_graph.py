"""Dependency order: properties over random graphs, and the stack's own."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.launcher import graph
from infra.launcher.errors import DependencyCycleError, UnknownPartError
from infra.launcher.model import Context
from infra.launcher.parts.catalogue import all_parts
from infra.launcher.secrets import generate_secrets
from infra.launcher.settings import StackSettings


@st.composite
def acyclic(draw: st.DrawFn) -> dict[str, tuple[str, ...]]:
    """A graph in which a part needs only parts with a smaller number."""
    count = draw(st.integers(1, 9))
    names = [f"p{number}" for number in range(count)]
    needs = {name: tuple(draw(st.sets(st.sampled_from(names[:at])))) if at else () for at, name in enumerate(names)}
    return dict(draw(st.permutations(list(needs.items()))))


@given(acyclic())
def test_every_part_lies_in_a_later_level_than_all_it_needs(needs: dict[str, tuple[str, ...]]) -> None:
    depth = {name: number for number, level in enumerate(graph.levels(needs)) for name in level}
    assert sorted(depth) == sorted(needs)
    assert all(depth[needed] < depth[name] for name, dependencies in needs.items() for needed in dependencies)


@given(acyclic(), st.randoms(use_true_random=False))
def test_starting_what_is_startable_starts_everything_once(needs: dict[str, tuple[str, ...]], rng: object) -> None:
    ready: list[str] = []
    while len(ready) < len(needs):
        name = rng.choice(graph.startable(needs, ready, ready))  # type: ignore[attr-defined]
        assert set(needs[name]) <= set(ready)
        ready.append(name)
    assert sorted(ready) == sorted(needs)
    assert graph.startable(needs, ready, ready) == []


@given(acyclic(), st.data())
def test_a_closure_holds_what_is_needed_and_nothing_else(
    needs: dict[str, tuple[str, ...]], data: st.DataObject
) -> None:
    wanted = data.draw(st.sets(st.sampled_from(sorted(needs))))
    found = graph.closure(needs, wanted)
    assert wanted <= set(found)
    assert all(needed in found for name in found for needed in needs[name])
    assert all(name in wanted or any(name in needs[other] for other in found) for name in found)


def test_the_part_with_the_longest_chain_behind_it_comes_first() -> None:
    needs = {"alone": (), "root": (), "middle": ("root",), "leaf": ("middle",)}
    assert graph.startable(needs, [], []) == ["root", "alone"]


def test_a_cycle_names_its_members() -> None:
    with pytest.raises(DependencyCycleError, match=r"a -> b -> a|b -> a -> b"):
        graph.levels({"a": ("b",), "b": ("a",)})


def test_a_need_that_is_no_part_is_refused() -> None:
    with pytest.raises(UnknownPartError, match="a needs 'b'"):
        graph.levels({"a": ("b",)})
    with pytest.raises(UnknownPartError, match="part 'x': expected one of a"):
        graph.closure({"a": ()}, ["x"])


def test_the_long_starters_of_the_stack_wait_for_little(tmp_path: Path) -> None:
    parts = all_parts(Context(StackSettings(tmp_path), generate_secrets()))
    levels = graph.levels({name: part.needs for name, part in parts.items()})
    assert {"flink-jobs", "flink-tasks", "kafka", "postgres"} <= set(levels[0])
    assert "trino" in levels[1]
