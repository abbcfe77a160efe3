"""Learn a plan (`contracts.packing`): which differences of which columns are small, and which columns lie side by side.

What a column costs is its entropy once the differences are taken. Differences are chosen one at a time, the one that
saves most first, as long as no column would need itself. Then columns that tell much about each other are put side by
side, because zstd finds a row's neighbours in earlier rows only as a run of bytes.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, groupby, islice
from math import e, log2
from typing import Any, Final

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from contracts import wire
from contracts.contract import INTEGERS, Contract, FieldType, fingerprint
from contracts.packing import BASE_MAX, FACTOR_MAX, INTEGER_EXPONENTS, TEXT_CHARS_MAX, TEXTS_MAX, Plan, Planned, Term
from contracts.wire import WireColumn

PAIRS_MAX: Final = 24  # columns; with more, two-term sums (the cube of it) would take minutes
SAVED_BITS_MIN: Final = 0.15  # bits per row and term; less is chance
ENTROPY_BITS_MIN: Final = 0.5  # bits per row; a column with less is the same nearly everywhere, whatever its neighbour
APART_DISTINCT: Final = 256  # values; a column with more hardly ever repeats, and takes bytes of different number
RUNS_MIN: Final = 3  # times that a text came anew; what stood in one run of rows was an id, and will not come again
TEXT_SHARE_MIN: Final = 0.05  # of the rows; so often even in one run it is what this origin always says
SIZE_WEIGHT: Final = 0.1  # of a number's length against its entropy: decides between columns that never repeat
COUNTED_RANGE: Final = 65_536  # values; up to here counting them by place is 20 times faster than sorting
PERSONAL: Final = "personal"

Values = NDArray[np.int64]


class Step(Struct, frozen=True):
    """A way to take differences of `column`, and the bits per row that it saves."""

    column: int
    difference: bool
    terms: tuple[Term, ...]
    saved_bits: float


def learn(contract: Contract, columns: Mapping[str, Sequence[Any] | NDArray[Any]], tenant: str, look_rows: int) -> Plan:
    """Return a plan for rows like these, in the order in which their origin observed them.

    The first `look_rows` of them decide on numbers and order, all of them on the texts worth knowing beforehand.
    """
    wired = wire.columns(contract)
    shown = {name: values[:look_rows] for name, values in columns.items()}
    numbers = {at: _whole(column, shown[column.name]) for at, column in enumerate(wired) if _is_whole(column)}
    steps = {step.column: step for step in _chosen(list(_candidates(numbers)))}
    personal = {field.name for field in contract.fields if field.classification == PERSONAL}
    planned = {
        at: Planned(
            at,
            steps[at].difference if at in steps else False,
            steps[at].terms if at in steps else (),
            texts=() if column.name in personal else _texts(column, columns.get(column.name, ())),
        )
        for at, column in enumerate(wired)
    }
    left = {at: _codes(wired[at], planned[at], numbers, shown) for at in planned}
    placed = {at: _placed(wired[at], planned[at], left[at], at in numbers) for at in planned}
    return Plan(fingerprint(contract), tuple(placed[at] for at in _order(planned, left)), tenant)


def _placed(column: WireColumn, planned: Planned, left: Values, whole: bool) -> Planned:
    """Return a number's column with its base, and set apart when it hardly ever repeats.

    One with nulls stays in the rows: there its zeros are part of what repeats.
    """
    if column.type is FieldType.STRING or not column.required:
        return planned
    base = int(np.median(left)) if whole and not planned.difference else 0
    return replace(planned, base=base if abs(base) <= BASE_MAX else 0, apart=len(np.unique(left)) > APART_DISTINCT)


def _is_whole(column: WireColumn) -> bool:
    return column.required and column.type in INTEGERS


def _whole(column: WireColumn, values: Any) -> Values:
    found = np.asarray(values, dtype=np.int64)
    if column.type is FieldType.LONG and found.any():
        for exponent in INTEGER_EXPONENTS:
            if not (found % 10**exponent).any():
                return found // 10**exponent
    return found


def _candidates(numbers: dict[int, Values]) -> Iterator[Step]:
    """Yield every way that saves something, of differences to other columns and to the row before."""
    seq = min(numbers)
    for at, values in numbers.items():
        plain = cost_bits(values)
        others = [other for other in numbers if other != at]
        single = [(Term(other, factor),) for other in others for factor in (1, -1)]
        double = [
            (Term(a, f), Term(b, g)) for a, b in combinations(others, 2) for f in (1, -1) for g in (1, -1)
        ] if len(numbers) <= PAIRS_MAX else []  # fmt: skip
        paced = _pace(values, numbers[seq]) if at != seq else None
        pace = [(Term(seq, paced),)] if paced and abs(paced) <= FACTOR_MAX else []
        for terms in [(), *single, *double, *pace]:
            rest = values - sum(term.factor * numbers[term.column] for term in terms)
            for difference in (False, True):
                saved = plain - cost_bits(np.diff(rest, prepend=rest[:1]) if difference else rest)
                # A term more has to pay for itself: a sum of noise is now and then a little better by chance.
                if saved > SAVED_BITS_MIN * (1 + len(terms)):
                    yield Step(at, difference, terms, saved)


def _pace(values: Values, seqs: Values) -> int:
    """Return by how much the column usually grows when the sequence number grows by one."""
    steps = np.diff(seqs)
    if not len(steps) or (steps <= 0).any():
        return 0
    return int(np.median(np.diff(values) // steps))


def _chosen(candidates: list[Step]) -> list[Step]:
    """Return at most one step per column, without a column that needs itself, those that save most first."""
    needs: dict[int, set[int]] = {}
    chosen: list[Step] = []
    for step in sorted(candidates, key=lambda s: (-s.saved_bits, s.column, len(s.terms))):
        if step.column in needs:
            continue
        wanted = {term.column for term in step.terms}
        if step.column in _closure(wanted, needs):
            continue
        needs[step.column] = wanted
        chosen.append(step)
    return chosen


def _closure(wanted: set[int], needs: Mapping[int, set[int]]) -> set[int]:
    reached: set[int] = set()
    open_ = set(wanted)
    while open_:
        at = open_.pop()
        reached.add(at)
        open_ |= needs.get(at, set()) - reached
    return reached


def _texts(column: WireColumn, values: Sequence[Any] | NDArray[Any]) -> tuple[str, ...]:
    """Return the texts worth knowing beforehand, the most frequent first."""
    if column.type is not FieldType.STRING:
        return ()
    rows = Counter(value for value in values if value is not None and len(value) <= TEXT_CHARS_MAX)
    runs = Counter(value for value, _ in groupby(values))
    ranked = sorted(rows, key=lambda text: (-runs[text], -rows[text], text))
    known = (text for text in ranked if runs[text] >= RUNS_MIN or rows[text] >= TEXT_SHARE_MIN * len(values))
    return tuple(islice(known, TEXTS_MAX))


def _codes(column: WireColumn, planned: Planned, numbers: dict[int, Values], columns: Mapping[str, Any]) -> Values:
    """Return what will lie in the column, as far as its repetitions go."""
    if planned.column in numbers:
        rest = numbers[planned.column] - sum(term.factor * numbers[term.column] for term in planned.terms)
        return np.diff(rest, prepend=rest[:1]) if planned.difference else rest
    values = columns.get(column.name)
    if values is None:
        return np.zeros(len(numbers[0]), dtype=np.int64)
    return np.unique([repr(value) for value in values], return_inverse=True)[1].astype(np.int64)


def _order(planned: Mapping[int, Planned], left: Mapping[int, Values]) -> list[int]:
    """Return the columns in a chain: each next to the one before that tells most about it, terms first."""
    own = {at: entropy_bits(values) for at, values in left.items()}
    order: list[int] = []
    while len(order) < len(planned):
        free = [
            at for at in planned if at not in order and all(term.column in order for term in planned[at].terms)
        ]  # fmt: skip
        order.append(_next(order, free, own, left))
    return order


def _next(order: list[int], free: list[int], own: Mapping[int, float], left: Mapping[int, Values]) -> int:
    if not order:
        return min(free)
    last = order[-1]
    told = {
        at: (own[at] + own[last] - entropy_bits(_joined(left[at], left[last]))) / max(own[at], ENTROPY_BITS_MIN)
        for at in free
    }
    return max(free, key=lambda at: (round(told[at], 1), own[at], -at))


def _joined(one: Values, other: Values) -> Values:
    first, second = (np.unique(values, return_inverse=True)[1].astype(np.int64) for values in (one, other))
    return first * (1 + int(second.max())) + second


def entropy_bits(values: Values) -> float:
    """Return the entropy per value, corrected for what few rows hide (Miller and Madow, 1955)."""
    counts = _counts(values)
    shares = counts / counts.sum()
    return float(-(shares * np.log2(shares)).sum()) + (len(counts) - 1) / (2 * len(values)) * log2(e)


def _counts(values: Values) -> NDArray[np.intp]:
    low, high = int(values.min()), int(values.max())
    if high - low > COUNTED_RANGE:
        return np.unique(values, return_counts=True)[1]
    counts = np.bincount(values - low)
    return counts[counts > 0]


def cost_bits(values: Values) -> float:
    """Return what a column's numbers cost per row: their entropy, and a little for their length."""
    length = np.log2(1.0 + np.abs(values.astype(np.float64))).mean()
    return entropy_bits(values) + SIZE_WEIGHT * float(length)
