"""Which events travel as rows of their own, decided without numpy: the twin of `edge_agent.core.filter.filtering`."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from math import isfinite, isnan, nan
from typing import TypeAlias

from msgspec import Struct

from contracts.edge_rules import as_float32
from edge_agent.core.events import Column, Events
from edge_agent.core.filter.outcomes import (
    NOT_SCORED,
    OTHERWISE,
    SCORED_HIGH,
    SCORED_LOW,
    Explanation,
    Outcome,
    explanation,
)
from edge_agent.core.filter.remembering import DecidingFilter
from edge_agent.lite.conditions import LiteColumn, Mask
from edge_agent.lite.rules import UNDECIDED, LiteRules

# One score per row of 32-bit values; see `edge_agent.lite.model`.
LiteScorer: TypeAlias = Callable[[Sequence[Sequence[float]]], list[float]]


class LiteVerdict(Struct, frozen=True):
    """What becomes of each event of a chunk: see `edge_agent.core.filter.filtering.Verdict`."""

    keep: Mask
    codes: list[int]
    outcomes: tuple[Outcome, ...]
    scores: list[float] | None = None
    scored: Mask | None = None

    @property
    def windowed(self) -> Mask:
        """Which events windows count."""
        return [self.outcomes[code].windowed for code in self.codes]

    def refusals(self) -> list[tuple[Outcome, int]]:
        """Return how many events were not kept, for each outcome that occurred."""
        counts = Counter(self.codes)
        return [(o, counts[code]) for code, o in enumerate(self.outcomes) if counts[code] and not o.kept]


class LiteFilter(DecidingFilter[LiteRules, LiteScorer, LiteVerdict, tuple[Mask, ...]]):
    """Decides as `edge_agent.core.filter.filtering.Filter` does, one event after the other."""

    def spare(self) -> "LiteFilter":
        """Return a filter that keeps everything, for a chunk that this one fails at: no event may disappear by it."""
        return LiteFilter()

    def refill(self, events: Events, kept: Mask) -> None:
        """Remember what an earlier process kept of these events; they come in their order, before any other."""
        if self._rules is not None:
            self._rules.refill(events.seqs, events.columns, kept)

    def explain(self, events: Events) -> list[Explanation]:
        """Decide as `decide` does, and say for each event why."""
        verdict, seen = self._decide(events)
        scores: Sequence[float | None] = verdict.scores if verdict.scores is not None else [None] * len(events)
        rules = self._rules.rules if self._rules is not None else ()
        labels = [rule.label for rule in rules]
        return [
            explanation(seq, code, self._outcomes, labels, [came[row] for came in seen], score)
            for row, (seq, code, score) in enumerate(zip(events.seqs, verdict.codes, scores, strict=True))
        ]

    def fill(self, columns: dict[str, Column], verdict: LiteVerdict) -> dict[str, Column]:
        """Return the kept events' columns with `score` and `model`, where the contract has these fields."""
        if verdict.scores is None or verdict.scored is None:
            return columns
        filled = dict(columns)
        kept = [row for row, keep in enumerate(verdict.keep) if keep]
        if "score" in columns:
            scores = verdict.scores
            filled["score"] = [scores[row] if isfinite(scores[row]) else None for row in kept]
        if "model" in columns:
            label, scored = self._outcomes[SCORED_HIGH].rule, verdict.scored
            filled["model"] = [label if scored[row] else None for row in kept]
        return filled

    def _decide(self, events: Events) -> tuple[LiteVerdict, tuple[Mask, ...]]:
        judged = self._rules.judge(events.seqs, events.columns) if self._rules is not None else None
        codes = judged.codes if judged is not None else [UNDECIDED] * len(events)
        undecided = [code == UNDECIDED for code in codes]
        scores = self._scores(events.columns, undecided, codes)
        for row, open_ in enumerate(undecided):
            if open_ and codes[row] == UNDECIDED:
                codes[row] = OTHERWISE
        if self._rules is not None and judged is not None:
            self._rules.settle(judged, self._outcomes)
        keep = [self._outcomes[code].kept for code in codes]
        verdict = LiteVerdict(keep, codes, self._outcomes, scores, undecided if scores is not None else None)
        return verdict, judged.seen if judged is not None else ()

    def _scores(self, columns: Mapping[str, LiteColumn], undecided: Mask, codes: list[int]) -> list[float] | None:
        """Score the undecided events and write into `codes` what follows; None without a model."""
        if self._model is None or self._scorer is None:
            return None
        threshold = as_float32(self._model.threshold)
        inputs = [columns[name] for name in self._model.inputs]
        rows = [row for row, open_ in enumerate(undecided) if open_]
        found = self._scorer([[as_input(column[row]) for column in inputs] for row in rows])
        scores = [nan] * len(undecided)
        for row, score in zip(rows, found, strict=True):
            scores[row] = score
            codes[row] = NOT_SCORED if isnan(score) else SCORED_LOW if score < threshold else SCORED_HIGH
        return scores


def as_input(value: float | None) -> float:
    """Return a field's value as a model takes it: in 32 bits; null is not a number."""
    return nan if value is None else as_float32(value)
