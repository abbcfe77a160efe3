"""Which events travel as rows of their own."""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from edge_agent.core.events import Column, Events
from edge_agent.core.filter.conditions import Mask
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
from edge_agent.core.filter.rules import UNDECIDED, Codes, Rules
from edge_agent.ports import Scorer

Scores: TypeAlias = NDArray[np.float32]


class Verdict(Struct, frozen=True):
    """What becomes of each event of a chunk.

    `keep` is one truth value per event, `codes` one place in `outcomes` per event. `scores` are there when a model ran;
    an event that rules decided about was not `scored`, and its score is not a number.
    """

    keep: Mask
    codes: Codes
    outcomes: tuple[Outcome, ...]
    scores: Scores | None = None
    scored: Mask | None = None

    @property
    def windowed(self) -> Mask:
        """Which events windows count."""
        mask: Mask = np.array([outcome.windowed for outcome in self.outcomes], dtype=np.bool_)[self.codes]
        return mask

    def refusals(self) -> list[tuple[Outcome, int]]:
        """Return how many events were not kept, for each outcome that occurred."""
        counts = np.bincount(self.codes, minlength=len(self.outcomes)).tolist()
        return [(o, count) for o, count in zip(self.outcomes, counts, strict=True) if count and not o.kept]


class Filter(DecidingFilter[Rules, Scorer, Verdict, tuple[Mask, ...]]):
    """Decides with numpy, and scores in chunks of one shape."""

    def spare(self) -> "Filter":
        """Return a filter that keeps everything, for a chunk that this one fails at: no event may disappear by it."""
        return Filter()

    def refill(self, events: Events, kept: Mask) -> None:
        """Remember what an earlier process kept of these events; they come in their order, before any other."""
        if self._rules is not None:
            self._rules.refill(events, kept)

    def explain(self, events: Events) -> list[Explanation]:
        """Decide as `decide` does, and say for each event why."""
        verdict, seen = self._decide(events)
        scores = verdict.scores.tolist() if verdict.scores is not None else [None] * len(events)
        rules = self._rules.rules if self._rules is not None else ()
        came = np.array(seen, dtype=np.bool_).reshape(len(rules), len(events)).T.tolist()
        labels = [rule.label for rule in rules]
        return [
            explanation(seq, code, self._outcomes, labels, concerned, score)
            for seq, code, concerned, score in zip(
                events.seqs.tolist(), verdict.codes.tolist(), came, scores, strict=True
            )
        ]

    def fill(self, columns: dict[str, Column], verdict: Verdict) -> dict[str, Column]:
        """Return the kept events' columns with `score` and `model`, where the contract has these fields."""
        if verdict.scores is None or verdict.scored is None:
            return columns
        scores, scored = verdict.scores[verdict.keep], verdict.scored[verdict.keep]
        filled = dict(columns)
        known = np.isfinite(scores)
        if "score" in columns:
            filled["score"] = (
                scores
                if known.all()
                else [s if k else None for s, k in zip(scores.tolist(), known.tolist(), strict=True)]
            )
        if "model" in columns:
            label = self._outcomes[SCORED_HIGH].rule
            filled["model"] = [label if asked else None for asked in scored.tolist()]
        return filled

    def _decide(self, events: Events) -> tuple[Verdict, tuple[Mask, ...]]:
        judged = self._rules.judge(events) if self._rules is not None else None
        codes = judged.codes if judged is not None else np.full(len(events), UNDECIDED, dtype=np.int16)
        undecided = codes == UNDECIDED
        scores = self._scores(events, undecided, codes)
        codes[codes == UNDECIDED] = OTHERWISE
        if self._rules is not None and judged is not None:
            self._rules.settle(judged, self._outcomes)
        keep: Mask = np.array([outcome.kept for outcome in self._outcomes], dtype=np.bool_)[codes]
        verdict = Verdict(keep, codes, self._outcomes, scores, undecided if scores is not None else None)
        return verdict, judged.seen if judged is not None else ()

    def _scores(self, events: Events, undecided: Mask, codes: Codes) -> Scores | None:
        """Score the undecided events and write into `codes` what follows; None without a model."""
        if self._model is None or self._scorer is None:
            return None
        rows = matrix(events, self._model.inputs, np.float32)
        scores = np.full(len(events), np.nan, dtype=np.float32)
        scores[undecided] = in_chunks(rows[undecided], self._model.chunk_rows, self._scorer.scores)
        codes[undecided] = SCORED_HIGH
        codes[undecided & (scores < self._model.threshold)] = SCORED_LOW
        codes[undecided & np.isnan(scores)] = NOT_SCORED
        return scores


def matrix(events: Events, names: tuple[str, ...], kind: type[np.float32] | type[np.float64]) -> NDArray[Any]:
    """Return columns side by side, shape (events, names); null is not a number.

    All values pass through 64 bits: a whole number is then rounded alike in every kind of column.
    """
    rows = np.empty((len(events), len(names)), dtype=kind)
    with np.errstate(over="ignore"):
        for place, name in enumerate(names):
            rows[:, place] = np.asarray(events.columns[name], dtype=np.float64)
    return rows


def in_chunks(rows: NDArray[np.float32], chunk_rows: int, run: Callable[[Scores], Scores]) -> Scores:
    """Score rows in chunks of one shape, the last one padded with zeros.

    One shape, because a session keeps memory for every shape that it has met.
    """
    scores = np.empty(len(rows), dtype=np.float32)
    for first in range(0, len(rows), chunk_rows):
        part = rows[first : first + chunk_rows]
        chunk = np.zeros((chunk_rows, rows.shape[1]), dtype=np.float32)
        chunk[: len(part)] = part
        scores[first : first + len(part)] = run(chunk)[: len(part)]
    return scores
