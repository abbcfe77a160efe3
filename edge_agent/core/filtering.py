"""Which events travel as rows of their own."""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from contracts.bundle import Model
from edge_agent.core.events import Column, Events
from edge_agent.ports import Scorer

Scores: TypeAlias = NDArray[np.float32]


class Verdict(Struct, frozen=True):
    """`keep` is one truth value per event; `scores` are there when a model ran."""

    keep: NDArray[np.bool_]
    scores: Scores | None


class Filter:
    """Keeps what a model scores at its threshold or above; without a model, everything.

    An event whose score is not a number is kept: a model that fails must not make events disappear.
    """

    def __init__(self, model: Model | None = None, scorer: Scorer | None = None) -> None:
        self._model = model
        self._scorer = scorer

    @property
    def rule(self) -> str:
        """The model as `id@version`, empty without one."""
        return f"{self._model.id}@{self._model.version}" if self._model is not None else ""

    def decide(self, events: Events) -> Verdict:
        """Return which events to keep."""
        if self._model is None or self._scorer is None:
            return Verdict(np.ones(len(events), dtype=np.bool_), None)
        rows = matrix(events, self._model.inputs, np.float32)
        scores = in_chunks(rows, self._model.chunk_rows, self._scorer.scores)
        return Verdict(~(scores < self._model.threshold), scores)

    def fill(self, columns: dict[str, Column], scores: Scores | None) -> dict[str, Column]:
        """Return the kept events' columns with `score` and `model`, where the contract has these fields."""
        if scores is None:
            return columns
        filled = dict(columns)
        known = np.isfinite(scores)
        if "score" in columns:
            filled["score"] = (
                scores
                if known.all()
                else [s if k else None for s, k in zip(scores.tolist(), known.tolist(), strict=True)]
            )
        if "model" in columns:
            filled["model"] = [self.rule] * len(scores)
        return filled


def matrix(events: Events, names: tuple[str, ...], kind: type[np.float32] | type[np.float64]) -> NDArray[Any]:
    """Return columns side by side, shape (events, names); null is not a number."""
    rows = np.empty((len(events), len(names)), dtype=kind)
    for place, name in enumerate(names):
        rows[:, place] = np.asarray(events.columns[name], dtype=kind)
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
