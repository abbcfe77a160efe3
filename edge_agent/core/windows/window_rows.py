"""Closed windows as columns of a window contract: one row per window and sensor."""

import math
from collections.abc import Sequence
from typing import Any

from contracts.bundle import SHAPE, WindowKind
from contracts.contract import Contract
from edge_agent.core.windows.held import ClosedWindow


def rows_of(closed: Sequence[ClosedWindow], contract: Contract) -> dict[str, list[Any]]:
    """Return the rows, windows in their order. A column that no row needs is left out: it is null.

    A measure that no double can hold is null too. Rows of tumbling windows have no `kind`.
    """
    assert contract.subject_field is not None
    assert contract.event_time_field is not None
    subject: list[str] = []
    sensor: list[str] = []
    start: list[int] = []
    counts: dict[str, list[int]] = {name: [] for name in ("window_ms", "first_seq", "last_seq", "count", "kept")}
    measures = dict.fromkeys((*SHAPE, *(measure for window in closed for measure in window.summary.measures)))
    values: dict[str, list[float | None]] = {measure.value: [] for measure in measures}
    kinds: list[str | None] = []
    sketches: list[str | None] = []
    for window in closed:
        mark, each = window.mark, len(window.plan.sensors)
        subject += [mark.subject] * each
        sensor += window.plan.sensors
        start += [mark.start_us] * each
        numbers = (window.length_ms, mark.first_seq, mark.last_seq, mark.count, mark.kept)
        for column, number in zip(counts.values(), numbers, strict=True):
            column += [number] * each
        for measure in measures:
            values[measure.value] += _finite(window.summary.measures.get(measure, ()), each)
        kinds += [None if window.plan.kind is WindowKind.TUMBLING else window.plan.kind.value] * each
        sketches += window.summary.sketches or (None,) * each
    texts = {"kind": kinds, "sketch": sketches}
    return {
        contract.subject_field: subject,
        "sensor": sensor,
        contract.event_time_field: start,
        **counts,
        **values,
        **{name: column for name, column in texts.items() if any(column)},
    }


def _finite(values: Sequence[float], each: int) -> list[float | None]:
    if not values:
        return [None] * each
    return [value if math.isfinite(value) else None for value in values]
