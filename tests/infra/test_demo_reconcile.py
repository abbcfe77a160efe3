"""The comparison that says "nothing lost, nothing doubled" notices each kind of difference."""

import pyarrow as pa
import pytest

from infra.demo.reconcile import compare

COLUMNS = ["value", "note"]


def _rows(*rows: tuple[str, int, float | None, str | None]) -> pa.Table:
    names = ("origin", "seq", "value", "note")
    types = (pa.string(), pa.int64(), pa.float64(), pa.string())
    return pa.table(
        {
            name: pa.array([row[i] for row in rows], kind)
            for i, (name, kind) in enumerate(zip(names, types, strict=True))
        }
    )


EXPECTED = _rows(("a", 0, 1.0, "x"), ("a", 1, None, "预算紧张"), ("b", 0, 2.0, None))


def test_equal_tables_in_another_order_are_equal() -> None:
    found = EXPECTED.take(pa.array([2, 0, 1]))
    comparison = compare(EXPECTED, found, COLUMNS)
    assert comparison.equal
    assert (comparison.expected, comparison.found) == (3, 3)


@pytest.mark.parametrize(
    ("found", "what"),
    [
        (EXPECTED.slice(1), "lost"),
        (pa.concat_tables([EXPECTED, _rows(("c", 0, 1.0, "x"))]), "foreign"),
        (pa.concat_tables([EXPECTED, EXPECTED.slice(0, 1)]), "doubled"),
        (_rows(("a", 0, 1.0, "y"), ("a", 1, None, "预算紧张"), ("b", 0, 2.0, None)), "differing"),
        (_rows(("a", 0, 1.0, "x"), ("a", 1, 0.0, "预算紧张"), ("b", 0, 2.0, None)), "differing"),
        (_rows(("a", 0, 1.0, "x"), ("a", 1, None, "预算紧张"), ("b", 0, None, None)), "differing"),
    ],
)
def test_each_kind_of_difference_is_counted(found: pa.Table, what: str) -> None:
    comparison = compare(EXPECTED, found, COLUMNS)
    assert not comparison.equal
    counts = {name: getattr(comparison, name) for name in ("lost", "foreign", "doubled", "differing")}
    assert counts == {name: int(name == what) for name in counts}


def test_examples_name_identities() -> None:
    assert compare(EXPECTED, EXPECTED.slice(1), COLUMNS).examples == ("lost: a seq 0",)
