"""Dependency order of parts: pure functions over `name -> names it needs`."""

from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter

from infra.launcher.errors import DependencyCycleError, UnknownPartError

Needs = Mapping[str, tuple[str, ...]]


def levels(needs: Needs) -> list[list[str]]:
    """Return the parts in start levels: all that a part needs lies in earlier levels, and each level is sorted."""
    sorter = TopologicalSorter(_known(needs))
    try:
        sorter.prepare()
    except CycleError as error:
        raise DependencyCycleError(f"parts need each other: {' -> '.join(error.args[1])}; remove one of them") from None
    found: list[list[str]] = []
    while sorter.is_active():
        level = sorted(sorter.get_ready())
        sorter.done(*level)
        found.append(level)
    return found


def closure(needs: Needs, wanted: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the part of the graph that `wanted` stands on, itself included."""
    found: dict[str, tuple[str, ...]] = {}
    waiting = list(wanted)
    while waiting:
        name = waiting.pop()
        if name not in needs:
            raise UnknownPartError(f"part {name!r}: expected one of {', '.join(sorted(needs))}")
        if name not in found:
            found[name] = needs[name]
            waiting.extend(needs[name])
    return found


def startable(needs: Needs, ready: Iterable[str], begun: Iterable[str]) -> list[str]:
    """Return the parts not yet begun whose needs are all ready, those with the longest chain behind them first."""
    done, taken = set(ready), set(begun)
    weights = _chain_lengths(needs)
    names = [name for name in needs if name not in taken and done.issuperset(needs[name])]
    return sorted(names, key=lambda name: (-weights[name], name))


def _chain_lengths(needs: Needs) -> dict[str, int]:
    """Count for each part how many parts start one after another because of it."""
    lengths = dict.fromkeys(needs, 0)
    for level in reversed(levels(needs)):
        for name in level:
            for needed in needs[name]:
                lengths[needed] = max(lengths[needed], lengths[name] + 1)
    return lengths


def _known(needs: Needs) -> Needs:
    for name, dependencies in needs.items():
        for dependency in dependencies:
            if dependency not in needs:
                raise UnknownPartError(
                    f"part {name} needs {dependency!r}, which is not one of {', '.join(sorted(needs))}"
                )
    return needs
