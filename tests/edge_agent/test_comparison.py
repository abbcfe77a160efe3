"""Two bundles over the same chunks: what is counted, what is remembered, and what it may cost, in both profiles."""

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from contracts.contract import Checks, Contract
from contracts.edge_rules import Compare, DeadBand, Deduplicate, Drop, EdgeRule, OnChange
from edge_agent.core.arrays import ARRAYS
from edge_agent.core.filter.filtering import Filter
from edge_agent.core.filter.rules import Rules
from edge_agent.core.stream import Stream, StreamPlan
from edge_agent.core.updates.comparison import REFUSED_MAX, Budget, Comparison, Judged
from edge_agent.lite.filtering import LiteFilter
from edge_agent.lite.lists import LISTS
from edge_agent.lite.rules import LiteRules
from tests.edge_agent.plant import CONTRACTS, lines_of, reading

TELEMETRY = CONTRACTS["telemetry"]
ONCE = EdgeRule("once", 1, Deduplicate(("f1",), 86_400_000))
COLD = EdgeRule("cold", 1, Drop(), Compare("f1", "lt", 30))
MakeStream = Callable[..., Stream]


@pytest.fixture(params=["full", "lite"])
def make_stream(request: pytest.FixtureRequest) -> MakeStream:
    def make(*rules: EdgeRule, contract: Contract = TELEMETRY) -> Stream:
        plan: Any
        if request.param == "full":
            plan = StreamPlan(contract, Filter(rules=Rules(rules, contract, "d", 1) if rules else None))
            return Stream(plan, ARRAYS, "d", 1, 0, ())
        plan = StreamPlan(contract, LiteFilter(rules=LiteRules(rules, contract, "d", 1) if rules else None))
        return Stream(plan, LISTS, "d", 1, 0, ())

    return make


class Watch:
    """A clock that only a test moves, and what a comparison told."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.told: list[Judged] = []
        self.failed: list[tuple[str, bool]] = []

    def compare(self, one: Stream, other: Stream, *, spares: bool = False, share: float = 0.25) -> Comparison:
        budget = Budget(lambda: self.now_s, share)
        comparison = Comparison(
            one, other, budget, self.told.append, lambda error, mine: self.failed.append((str(error), mine)),
            spares=spares,
        )  # fmt: skip
        one.decide = comparison.decide
        return comparison


def taken(stream: Stream, events: list[dict[str, Any]]) -> list[int]:
    """Let a stream take events; return the numbers of those that it keeps."""
    return [int(seq) for seq in stream.take(lines_of(events), final=False, now_ms=0).kept.seqs]


def test_what_both_keep_and_each_alone_is_counted(make_stream: MakeStream) -> None:
    watch, one, other = Watch(), make_stream(COLD), make_stream(EdgeRule("hot", 1, Drop(), Compare("f1", "ge", 60)))
    watch.compare(one, other)
    events = [reading(seq) for seq in range(100)]  # f1 takes each of 0 to 99 once
    assert len(taken(one, events)) == 70
    assert watch.told == [Judged(100, 0.0, 0.0, deciding_kept=70, beside_kept=60, both_kept=30)]
    assert taken(one, []) == []
    assert len(watch.told) == 1  # nothing to compare


def test_the_one_beside_remembers_what_travelled_and_not_what_it_would_have_sent(make_stream: MakeStream) -> None:
    watch, one, other = Watch(), make_stream(COLD), make_stream(ONCE)
    watch.compare(one, other)
    events = [reading(seq) for seq in range(100)]
    taken(one, events)
    taken(one, events)
    # What was cold did not travel, so the one beside would send it still; the rest it has seen travel.
    assert [(told.deciding_kept, told.beside_kept, told.both_kept) for told in watch.told] == [
        (70, 100, 70), (70, 30, 0),
    ]  # fmt: skip
    other.succeed(one)
    assert len(taken(other, events)) == 30


def test_a_rule_that_both_have_goes_on_under_another_name(make_stream: MakeStream) -> None:
    still = EdgeRule("still", 1, OnChange((DeadBand("f2", absolute=200.0),), 86_400_000))
    one = make_stream(still)
    assert len(taken(one, [reading(seq) for seq in range(30)])) == 3  # one of each machine
    same = make_stream(EdgeRule("cold", 1, Drop(), Compare("f1", "eq", -1)), replace(still, id="quiet", version=9))
    same.plan.filter.inherit(one.plan.filter)
    assert taken(same, [reading(seq) for seq in range(30)]) == []
    other = make_stream(replace(still, action=OnChange((DeadBand("f2", absolute=100.0),), 86_400_000)))
    other.plan.filter.inherit(one.plan.filter)
    assert len(taken(other, [reading(seq) for seq in range(30)])) == 3
    # What the new one learns from now on, the old one does not know.
    assert taken(one, [reading(seq) for seq in range(30)]) == []


def test_lines_are_read_anew_for_another_contract(make_stream: MakeStream) -> None:
    strict = replace(
        TELEMETRY,
        fields=tuple(replace(f, checks=Checks(minimum=5)) if f.name == "f1" else f for f in TELEMETRY.fields),
    )
    watch, one, other = Watch(), make_stream(), make_stream(contract=strict)
    watch.compare(one, other)
    assert len(taken(one, [reading(seq) for seq in range(100)])) == 100
    assert watch.told[-1].beside_kept == watch.told[-1].both_kept == 95
    hopeless = [reading(0) for _ in range(REFUSED_MAX + 1)]
    taken(one, [*hopeless, reading(1)])
    assert watch.told[-1].beside_kept == 0  # so many fail that the chunk counts as missed


def test_the_time_that_goes_into_comparing_is_bounded(make_stream: MakeStream) -> None:
    watch, one, other = Watch(), make_stream(), make_stream(ONCE)
    consider = other.plan.filter.consider

    def slow(events: Any) -> Any:
        watch.now_s += 2.0
        return consider(events)

    other.plan.filter.consider = slow  # type: ignore[method-assign]
    watch.compare(one, other)
    for chunk in range(20):
        watch.now_s += 1.0
        taken(one, [reading(chunk)])
    assert [told.beside_s for told in watch.told] == [2.0] * len(watch.told)
    assert 3 <= len(watch.told) <= 5
    # It was taught of the chunks that it did not judge.
    other.succeed(one)
    assert taken(other, [reading(seq) for seq in range(20)]) == []


@pytest.mark.parametrize("spares", [True, False])
def test_an_error_of_the_one_in_force_costs_no_event_on_probation(make_stream: MakeStream, spares: bool) -> None:
    watch, one, other = Watch(), make_stream(COLD), make_stream()

    def raising(_: Any) -> Any:
        raise ValueError("坏")

    one.plan.filter.decide = raising  # type: ignore[method-assign]
    watch.compare(one, other, spares=spares)
    if not spares:
        with pytest.raises(ValueError, match="坏"):
            taken(one, [reading(0)])
        return
    assert taken(one, [reading(0), reading(1)]) == [0, 1]
    assert watch.failed == [("坏", True)]
    assert watch.told == []


def test_an_error_of_the_one_beside_is_told_and_changes_nothing(make_stream: MakeStream) -> None:
    watch, one, other = Watch(), make_stream(COLD), make_stream()

    def raising(_: Any) -> Any:
        raise ValueError("坏")

    other.plan.filter.consider = raising  # type: ignore[method-assign]
    watch.compare(one, other, spares=True)
    assert len(taken(one, [reading(seq) for seq in range(100)])) == 70
    assert watch.failed == [("坏", False)]
