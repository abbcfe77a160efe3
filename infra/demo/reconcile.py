"""Compare what the input files held with what the tables hold, row by row. Pure: Arrow tables in, counts out."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct

IDENTITY = ("origin", "seq")


class Comparison(Struct, frozen=True):
    """Rows of one table against its input.

    `lost` were expected and are not there, `foreign` are there and were not expected, `doubled` counts rows beyond the
    first of an identity, `differing` have the right identity and a wrong value.
    """

    expected: int
    found: int
    lost: int
    foreign: int
    doubled: int
    differing: int
    examples: tuple[str, ...] = ()

    @property
    def equal(self) -> bool:
        """Whether the table holds exactly the expected rows."""
        return self.lost == self.foreign == self.doubled == self.differing == 0


EXAMPLES_MAX = 5  # identities named in a report; enough to start looking


def compare(expected: pa.Table, found: pa.Table, columns: Sequence[str]) -> Comparison:
    """Compare two tables by identity (origin, seq) and then by the given columns, null equal to null."""
    keys = list(IDENTITY)
    distinct = found.group_by(keys).aggregate([([], "count_all")])
    doubled = found.num_rows - distinct.num_rows
    lost = expected.select(keys).join(distinct, keys=keys, join_type="left anti")
    foreign = distinct.join(expected.select(keys), keys=keys, join_type="left anti")
    wanted = expected.select([*keys, *columns])
    actual = found.select([*keys, *columns]).rename_columns([*keys, *(f"found_{name}" for name in columns)])
    both = wanted.join(actual, keys=keys, join_type="inner")
    wrong = pa.chunked_array([pa.nulls(both.num_rows, pa.bool_()).fill_null(False)])
    for name in columns:
        wrong = pc.or_(wrong, _differs(both[name], both[f"found_{name}"]))
    examples = [*_named("lost", lost), *_named("foreign", foreign), *_named("differs", both.filter(wrong))]
    return Comparison(
        expected=expected.num_rows,
        found=found.num_rows,
        lost=lost.num_rows,
        foreign=foreign.num_rows,
        doubled=doubled,
        differing=pc.sum(wrong).as_py() or 0,
        examples=tuple(examples[:EXAMPLES_MAX]),
    )


def _differs(left: pa.ChunkedArray, right: pa.ChunkedArray) -> pa.ChunkedArray:
    if left.type != right.type:
        right = right.cast(left.type)
    unequal = pc.fill_null(pc.not_equal(left, right), False)
    return pc.or_(unequal, pc.xor(pc.is_null(left), pc.is_null(right)))


def _named(what: str, rows: pa.Table) -> list[str]:
    first = rows.select(list(IDENTITY)).slice(0, EXAMPLES_MAX).to_pylist()
    return [f"{what}: {row['origin']} seq {row['seq']}" for row in first]
