"""Both profiles decide event by event what the documents say, whatever the chunks, and after a restart too."""

import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from contracts import edge_rule_check
from contracts.bundle import Model
from contracts.edge_rules import (
    Between,
    Compare,
    ContainsAny,
    DeadBand,
    Deduplicate,
    Drop,
    EdgeRule,
    Keep,
    OnChange,
    OneOf,
    Sample,
)
from contracts.sampling import DROPPED_SAMPLE, draw, seed_of
from edge_agent.core.filter import repeats
from edge_agent.core.filter.filtering import Filter
from edge_agent.core.filter.outcomes import FIRST_RULE
from edge_agent.core.filter.rules import Rules, sampled
from edge_agent.lite import rules as lite
from edge_agent.lite.filtering import LiteFilter
from edge_agent.lite.rules import LiteRules
from tests.edge_agent.rule_worlds import (
    CONTRACT,
    EPOCH,
    ORIGIN,
    ROWS,
    RULES,
    Decided,
    Judge,
    Row,
    events_of,
    lists_of,
)

THRESHOLD = 0.25
MODEL = Model("probe", "3", "m.onnx", "", ("temperature", "pressure"), THRESHOLD, 8)


class FirstColumn:
    """Scores by the first input; the second not being there makes a score that is not a number."""

    def scores(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.where(np.isnan(rows[:, 1]), np.float32(np.nan), rows[:, 0])


def first_column(rows: list[list[float]]) -> list[float]:
    return [row[1] if row[1] != row[1] else row[0] for row in rows]


def full(rules: tuple[EdgeRule, ...], *, model: bool, aggregates: bool = False) -> Filter:
    ready = Rules(rules, CONTRACT, ORIGIN, EPOCH)
    return Filter(MODEL if model else None, FirstColumn() if model else None, ready, aggregates=aggregates)


def light(rules: tuple[EdgeRule, ...], *, model: bool, aggregates: bool = False) -> LiteFilter:
    ready = LiteRules(rules, CONTRACT, ORIGIN, EPOCH)
    return LiteFilter(MODEL if model else None, first_column if model else None, ready, aggregates=aggregates)


def judged(rules: tuple[EdgeRule, ...], rows: list[Row], *, model: bool, aggregates: bool = False) -> list[Decided]:
    judge = Judge(rules, THRESHOLD)
    return [
        judge.decide(seq, row, score_of(row) if model else None, otherwise=not aggregates)
        for seq, row in enumerate(rows)
    ]


def score_of(row: Row) -> float:
    return float("nan") if row["pressure"] is None else float(np.float32(row["temperature"]))


def place_of(code: int) -> int | None:
    return code - FIRST_RULE if code >= FIRST_RULE else None


@settings(max_examples=150)
@given(RULES, ROWS, st.integers(1, 12), st.booleans(), st.booleans(), st.booleans())
def test_every_profile_decides_as_the_documents_say(
    rules: tuple[EdgeRule, ...], rows: list[Row], size: int, model: bool, aggregates: bool, arrays: bool
) -> None:
    edge_rule_check.check(rules, CONTRACT)
    expected = judged(rules, rows, model=model, aggregates=aggregates)
    one, other = full(rules, model=model, aggregates=aggregates), light(rules, model=model, aggregates=aggregates)
    for first in range(0, len(rows), size):
        part = rows[first : first + size]
        verdict, twin = one.decide(events_of(part, first)), other.decide(lists_of(part, first, arrays=arrays))
        assert verdict.keep.tolist() == twin.keep == [e.kept for e in expected[first : first + size]]
        assert verdict.codes.tolist() == twin.codes
        assert [place_of(code) for code in twin.codes] == [e.rule for e in expected[first : first + size]]
        assert verdict.outcomes == twin.outcomes
        assert verdict.windowed.tolist() == twin.windowed
        assert verdict.refusals() == twin.refusals()
        assert sum(count for _, count in verdict.refusals()) == len(part) - sum(twin.keep)


@settings(max_examples=50)
@given(RULES, ROWS, st.booleans())
def test_explanations_name_rule_score_and_what_let_the_event_go_on(
    rules: tuple[EdgeRule, ...], rows: list[Row], model: bool
) -> None:
    expected = judged(rules, rows, model=model)
    said = full(rules, model=model).explain(events_of(rows))
    assert said == light(rules, model=model).explain(lists_of(rows))
    for seq, (one, decided) in enumerate(zip(said, expected, strict=True)):
        assert (one.seq, one.kept) == (seq, decided.kept)
        if decided.rule is not None:
            assert one.rule == rules[decided.rule].label
        assert one.passed == tuple(rules[place].label for place in decided.passed)
        if decided.score is not None and decided.score == decided.score and decided.rule is None:
            assert one.score == decided.score


@settings(max_examples=75)
@given(RULES, ROWS, st.integers(0, 30), st.booleans())
def test_a_restart_that_sees_what_was_kept_decides_alike(
    rules: tuple[EdgeRule, ...], rows: list[Row], stop: int, model: bool
) -> None:
    """Kept events alone are enough; nothing of what was dropped is needed."""
    expected = judged(rules, rows, model=model)
    kept = [(seq, row) for seq, row in enumerate(rows[:stop]) if expected[seq].kept]
    one, other = full(rules, model=model), light(rules, model=model)
    for seq, row in kept:
        one.refill(events_of([row], seq), np.ones(1, dtype=np.bool_))
        other.refill(lists_of([row], seq), [True])
    rest = rows[stop:]
    assert one.decide(events_of(rest, stop)).keep.tolist() == [e.kept for e in expected[stop:]]
    assert other.decide(lists_of(rest, stop)).keep == [e.kept for e in expected[stop:]]


@settings(max_examples=50)
@given(RULES, ROWS, st.integers(0, 30))
def test_events_that_were_not_kept_may_be_seen_again_too(
    rules: tuple[EdgeRule, ...], rows: list[Row], stop: int
) -> None:
    expected = judged(rules, rows, model=True)
    one, other = full(rules, model=True), light(rules, model=True)
    kept = [e.kept for e in expected[:stop]]
    seen = rows[:stop]
    one.refill(events_of(seen), np.array(kept, dtype=np.bool_))
    other.refill(lists_of(seen), kept)
    rest = rows[stop:]
    assert one.decide(events_of(rest, stop)).keep.tolist() == [e.kept for e in expected[stop:]]
    assert other.decide(lists_of(rest, stop)).keep == [e.kept for e in expected[stop:]]


ROW: Row = {
    "asset_id": "a", "occurred_at": 0, "count": 0, "total": None, "temperature": 1.0, "pressure": 1.0, "volume": None,
    "on": True, "checked": None, "note": None, "served_at": None, "energy": 0,
}  # fmt: skip


def rule(action: object, when: object = None) -> tuple[EdgeRule, ...]:
    return (EdgeRule("only", 1, action, when),)  # type: ignore[arg-type]


def kept_of(rules: tuple[EdgeRule, ...], rows: list[Row]) -> list[bool]:
    verdict = full(rules, model=False).decide(events_of(rows))
    assert light(rules, model=False).decide(lists_of(rows)).keep == verdict.keep.tolist()
    return verdict.keep.tolist()


def at(second: float, **changes: object) -> Row:
    return ROW | {"occurred_at": round(second * 1_000_000)} | changes


def test_a_dead_band_measures_from_the_last_kept_value_so_that_drift_is_reported() -> None:
    rules = rule(OnChange((DeadBand("temperature", absolute=1.0),), 60_000))
    drift = [at(n, temperature=0.4 * n) for n in range(8)]
    assert kept_of(rules, drift) == [True, False, False, True, False, False, True, False]


@pytest.mark.parametrize(
    ("band", "values", "kept"),
    [
        (DeadBand("temperature", absolute=0.5), (1.0, 1.5, 1.75, 1.25, 0.5), [True, False, True, False, True]),
        (DeadBand("count", absolute=1.0), (0, 1, -1, 2), [True, False, False, True]),
        (DeadBand("count", relative=0.5), (2, 3, 1, 4, -4), [True, False, False, True, True]),
        (DeadBand("total", absolute=5.0), (None, None, 0, 5, None, 0), [True, False, True, False, True, True]),
        (DeadBand("energy", absolute=0.0), (2**53, 2**53 + 1), [True, True]),
        (DeadBand("note"), ("阀门", "阀门", None, "阀门"), [True, False, True, True]),
    ],
    ids=str,
)
def test_a_change_is_more_than_the_band(band: DeadBand, values: tuple[object, ...], kept: list[bool]) -> None:
    rows = [at(n, **{band.field: value}) for n, value in enumerate(values)]
    assert kept_of(rule(OnChange((band,), 60_000)), rows) == kept


def test_a_rule_remembers_nothing_of_what_a_later_one_refused() -> None:
    rules = (
        EdgeRule("once", 1, Deduplicate(("note",), 60_000)),
        EdgeRule("still", 1, OnChange((DeadBand("temperature"),), 60_000)),
    )
    rows = [at(0, note="a"), at(1, note="b"), at(2, note="b", temperature=2.0), at(3, note="b", temperature=3.0)]
    assert kept_of(rules, rows) == [True, False, True, False]


@pytest.mark.parametrize("field", ["temperature", "pressure"])
def test_a_float_is_compared_in_the_precision_in_which_it_travels(field: str) -> None:
    tenth = [at(0, **{field: 0.1}), at(1, **{field: float(np.float32(0.1))}), at(2, **{field: 0.1000001})]
    for when in (
        Compare(field, "eq", 0.1),
        OneOf(field, (0.1, 5)),
        Between(field, 0.1, 0.1),
        Compare(field, "le", 0.1),
    ):
        assert kept_of(rule(Drop(), when), tenth) == [False, False, True]
    assert kept_of(rule(OnChange((DeadBand(field),), 60_000)), tenth) == [True, False, True]


def test_whole_numbers_are_compared_to_the_last_digit() -> None:
    for field in ("total", "energy"):
        rows = [at(0, **{field: 2**53}), at(1, **{field: 2**53 + 1}), at(2, **{field: 2**63 - 1})]
        assert kept_of(rule(Drop(), Compare(field, "eq", 2**53 + 1)), rows) == [True, False, True]
        assert kept_of(rule(Drop(), OneOf(field, (*range(9), 2**63 - 1))), rows) == [True, True, False]
    assert kept_of(rule(Drop(), Compare("count", "lt", 2**40)), [at(0, count=2**31 - 1)]) == [False]


def test_a_value_that_does_not_move_is_reported_once_the_silence_is_too_long() -> None:
    rules = rule(OnChange((DeadBand("temperature"),), 10_000))
    assert kept_of(rules, [at(second) for second in (0, 5, 9.999, 10, 19, 20)]) == [
        True,
        False,
        False,
        True,
        False,
        True,
    ]


def test_a_clock_that_jumps_back_does_not_silence_a_value() -> None:
    rules = rule(OnChange((DeadBand("temperature"),), 10_000))
    assert kept_of(rules, [at(1e6), at(0), at(5)]) == [True, True, False]


def test_a_duplicate_is_refused_within_its_time_and_only_of_the_same_fields() -> None:
    rules = rule(Deduplicate(("asset_id", "note"), 2_000))
    rows = [at(0, note="安装"), at(1, note="安装"), at(1, note=None), at(1.5, note=None), at(2, note="安装")]
    assert kept_of(rules, rows) == [True, False, True, False, True]


def test_a_repetition_of_what_the_model_refused_is_not_a_duplicate() -> None:
    rules = rule(Deduplicate(("asset_id",), 60_000))
    rows = [at(0, temperature=0.0), at(1, temperature=1.0), at(2, temperature=1.0)]
    verdict = full(rules, model=True).decide(events_of(rows))
    assert [verdict.outcomes[code].reason for code in verdict.codes] == ["filtered", "scored_high", "duplicate"]


def test_the_first_rule_that_decides_wins() -> None:
    rules = (
        EdgeRule("alarm", 1, Keep(), Compare("count", "ge", 3)),
        EdgeRule("quote", 2, Keep(), ContainsAny("note", ("预算紧张", "需要比价"))),
        EdgeRule("still", 3, OnChange((DeadBand("temperature"),), 60_000)),
        EdgeRule("rest", 4, Drop()),
    )
    rows = [at(0, count=3), at(1, note="客户说：预算紧张"), at(2), at(3)]
    verdict = full(rules, model=False).decide(events_of(rows))
    assert [verdict.outcomes[code].rule for code in verdict.codes] == ["alarm@1", "quote@2", "rest@4", "rest@4"]


def test_keys_that_never_come_again_do_not_grow_the_memory() -> None:
    rules = Rules(rule(Deduplicate(("note",), 60_000)), CONTRACT, ORIGIN, EPOCH)
    filter_ = Filter(rules=rules)
    for first in range(0, 3 * repeats.KEYS_MAX, 1_000):
        filter_.decide(events_of([at(0, note=f"{first + n}" + "长" * 10_000) for n in range(1_000)], first))
    assert rules.keys == repeats.KEYS_MAX
    assert max(len(key) for key in rules._keyed[0]._times) <= repeats.TEXT_CHARS_MAX


def test_the_key_kept_longest_ago_is_forgotten_first() -> None:
    filter_ = Filter(rules=Rules(rule(Deduplicate(("energy",), 60_000)), CONTRACT, ORIGIN, EPOCH))
    filter_.decide(events_of([at(0, energy=n) for n in range(repeats.KEYS_MAX + 1)]))
    again = filter_.decide(events_of([at(1, energy=1), at(1, energy=repeats.KEYS_MAX), at(1, energy=0)]))
    assert again.keep.tolist() == [False, False, True]


@given(st.integers(0, 2**64 - 1), st.lists(st.integers(0, 2**48)), st.floats(0, 1))
def test_both_profiles_draw_the_same_sample(seed: int, seqs: list[int], fraction: float) -> None:
    taken = sampled(np.array(seqs, dtype=np.int64), seed, fraction).tolist()
    assert taken == lite.sampled(seqs, seed, fraction)
    assert taken == [draw(seed, seq) < fraction * 2**53 for seq in seqs]


def test_a_sample_is_uniform_and_independent_of_other_samples() -> None:
    seqs = np.arange(200_000, dtype=np.int64)
    one = sampled(seqs, seed_of("device", 1, "telemetry", DROPPED_SAMPLE), 0.005)
    other = sampled(seqs, seed_of("device", 1, "telemetry", "rule thin"), 0.5)
    assert 880 <= one.sum() <= 1_120  # 1,000 expected, standard deviation 32
    assert 390 <= (one & other).sum() <= 610
    assert np.abs(np.histogram(seqs[one], bins=10)[0] - 100).max() < 45
    assert sampled(seqs, 1, 0.0).sum() == 0
    assert sampled(seqs, 1, 1.0).all()
    assert not (sampled(seqs, 1, 0.1) & ~sampled(seqs, 1, 0.2)).any()


def test_a_sampled_rule_lets_the_same_events_pass_in_any_order_and_chunk() -> None:
    rows = [at(n) for n in range(400)]
    rules = rule(Sample(0.3))
    whole = full(rules, model=False).decide(events_of(rows)).keep
    order = list(range(400))
    random.Random(5).shuffle(order)
    filter_ = full(rules, model=False)
    assert all(filter_.decide(events_of([rows[seq]], seq)).keep[0] == whole[seq] for seq in order)
    assert 80 < whole.sum() < 160


def test_what_a_rule_drops_or_repeats_is_not_counted_by_windows() -> None:
    rules = (
        EdgeRule("test-run", 1, Drop(), Compare("on", "eq", False)),
        EdgeRule("twice", 1, Deduplicate(("energy",), 1_000)),
        EdgeRule("still", 1, OnChange((DeadBand("temperature"),), 60_000)),
    )
    rows = [at(0), at(0, on=False), at(0), at(1, energy=1)]
    verdict = full(rules, model=False).decide(events_of(rows))
    assert verdict.keep.tolist() == [True, False, False, False]
    assert verdict.windowed.tolist() == [True, False, False, True]


def test_fields_of_the_model_are_filled_only_where_it_was_asked() -> None:
    rules = rule(Keep(), Compare("count", "eq", 1))
    filter_ = full(rules, model=True)
    rows = [at(0, count=1), at(1), at(2, temperature=0.0), at(3, pressure=None)]
    verdict = filter_.decide(events_of(rows))
    filled = filter_.fill({"score": [None] * 3, "model": [None] * 3}, verdict)
    assert filled == {"score": [None, 1.0, None], "model": [None, "probe@3", "probe@3"]}
    twin = light(rules, model=True)
    assert twin.fill({"score": [None] * 3, "model": [None] * 3}, twin.decide(lists_of(rows))) == filled


@pytest.mark.parametrize("module", ["edge_agent.lite.bundle_filter", "contracts.bundle", "contracts.recall"])
def test_the_lite_profile_imports_no_numpy(module: str) -> None:
    code = f"import sys, {module}; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
