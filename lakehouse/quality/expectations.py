"""What is expected of a table's rows, and which of it follows from its contract. Pure.

A kind is named as in Great Expectations, so that an analyst who knows that library knows our files. Every kind can be
asked both of a frame (`lakehouse.quality.judging`) and in SQL (`lakehouse.quality.whole`).
"""

from collections.abc import Iterator
from enum import Enum
from typing import Final, TypeAlias

from msgspec import Struct

from contracts.contract import INTEGERS, Contract, Field, FieldType

IDENTITY: Final = ("origin", "epoch", "seq")  # columns that name a row
EXAMPLES_MAX: Final = 5  # values shown of what failed
SEALED_AT: Final = "sealed_at"


class Kind(Enum):
    """What is expected; the value is Great Expectations' name for it."""

    NOT_NULL = "expect_column_values_to_not_be_null"
    BETWEEN = "expect_column_values_to_be_between"
    LENGTHS = "expect_column_value_lengths_to_be_between"
    IN_SET = "expect_column_values_to_be_in_set"
    PATTERN = "expect_column_values_to_match_regex"
    UNIQUE = "expect_column_values_to_be_unique"
    IDENTITY = "expect_compound_columns_to_be_unique"
    MEAN = "expect_column_mean_to_be_between"
    ROW_COUNT = "expect_table_row_count_to_be_between"
    AGE = "age_to_be_between"  # ours: seconds from a moment to the sealing of its batch
    REFERENCED = "values_to_be_referenced"  # ours: values are among another table's


# They say nothing about a few rows: of these only the whole table is asked.
WHOLE_ONLY: Final = frozenset({Kind.ROW_COUNT, Kind.REFERENCED})

Scalar: TypeAlias = str | int | float | bool


class Severity(Enum):
    """Whether a row that fails is wrong, or only worth a look."""

    ERROR = "error"
    HINT = "hint"


class Source(Enum):
    """Who expects it."""

    CONTRACT = "contract"
    ANALYST = "analyst"


class Expectation(Struct, frozen=True):
    """`rule` names it within its table. Bounds are inclusive; a moment's are ISO 8601 text.

    `mostly` is the share of values that must hold for it to be met, nulls left aside. `target` is the table
    (`catalog.namespace.name`) and column that a reference points to.
    """

    rule: str
    kind: Kind
    columns: tuple[str, ...] = ()
    low: Scalar | None = None
    high: Scalar | None = None
    values: tuple[Scalar, ...] = ()
    pattern: str = ""
    target: tuple[str, str] | None = None
    mostly: float = 1.0
    severity: Severity = Severity.ERROR
    source: Source = Source.CONTRACT
    notes: str = ""

    @property
    def text(self) -> str:
        """The rule in words."""
        return self.notes if self.notes else _words(self)


class Outcome(Struct, frozen=True):
    """What came of asking: `rows` were looked at, `failed` of them do not hold. `error`: it could not be asked."""

    expectation: Expectation
    rows: int
    failed: int
    met: bool
    examples: tuple[str, ...] = ()
    error: str = ""


def of_contract(contract: Contract, others: dict[str, Contract] | None = None) -> tuple[Expectation, ...]:
    """Return what a contract says of every row of its table; `others` are the contracts that it may refer to, by id."""
    found = [Expectation("identity.unique", Kind.IDENTITY, IDENTITY)]
    for field in contract.fields:
        found += _of_field(field)
        found += _reference(field, others or {})
    return tuple(found)


def _of_field(field: Field) -> Iterator[Expectation]:
    checks, own = field.checks, (field.name,)

    if field.required:
        yield Expectation(f"{field.name}.required", Kind.NOT_NULL, own)
    if (checks.minimum, checks.maximum) != (None, None) and field.type is not FieldType.TIMESTAMPTZ:
        yield Expectation(f"{field.name}.range", Kind.BETWEEN, own, checks.minimum, checks.maximum)
    if checks.max_length is not None:
        yield Expectation(f"{field.name}.max_length", Kind.LENGTHS, own, None, checks.max_length)
    if checks.valid_values is not None:
        yield Expectation(f"{field.name}.valid_values", Kind.IN_SET, own, values=checks.valid_values)
    if checks.pattern is not None:
        yield Expectation(f"{field.name}.pattern", Kind.PATTERN, own, pattern=checks.pattern)
    if (checks.age_max_s, checks.ahead_max_s) != (None, None):
        ahead = None if checks.ahead_max_s is None else -checks.ahead_max_s
        yield Expectation(f"{field.name}.age", Kind.AGE, own, ahead, checks.age_max_s)
    if checks.unique:
        # The contract promises it of a micro-batch; that it holds for several of them is worth a look.
        yield Expectation(f"{field.name}.unique", Kind.UNIQUE, own, severity=Severity.HINT)
    if checks.known_values is not None:
        yield Expectation(
            f"{field.name}.known_values", Kind.IN_SET, own, values=checks.known_values, severity=Severity.HINT
        )


def _reference(field: Field, others: dict[str, Contract]) -> Iterator[Expectation]:
    name, _, column = (field.checks.reference or "").partition(".")
    other = others.get(name)
    if other is not None and column in {one.name for one in other.fields}:
        target = (f"{other.catalog}.{other.table}", column)
        yield Expectation(
            f"{field.name}.reference", Kind.REFERENCED, (field.name,), target=target, severity=Severity.HINT
        )


def closed(pattern: str, end: str) -> str:
    """Return a pattern for an engine to which `$` also stands before a last newline, as it does not in RE2."""
    found: list[str] = []
    escaped = in_class = False
    for character in pattern:
        if character == "$" and not escaped and not in_class:
            found.append(end)
        else:
            found.append(character)
        in_class = (not escaped and (character == "[" or (in_class and character != "]"))) or (escaped and in_class)
        escaped = character == "\\" and not escaped
    return "".join(found)


def numeric(field: Field) -> bool:
    """Whether a field holds numbers."""
    return field.type in {FieldType.FLOAT, FieldType.DOUBLE, *INTEGERS} - {FieldType.TIMESTAMPTZ}


def _words(one: Expectation) -> str:
    column = ", ".join(one.columns)
    share = "" if one.mostly == 1 else f" for {one.mostly:.2%} of the values"
    match one.kind:
        case Kind.NOT_NULL:
            return f"{column} is there{share}"
        case Kind.BETWEEN:
            return f"{column} is {_range(one)}{share}"
        case Kind.LENGTHS:
            return f"{column} has {_range(one)} characters{share}"
        case Kind.IN_SET:
            return f"{column} is one of {', '.join(map(str, one.values))}{share}"
        case Kind.PATTERN:
            return f"{column} matches {one.pattern}{share}"
        case Kind.UNIQUE:
            return f"no value of {column} comes twice{share}"
        case Kind.IDENTITY:
            return f"no two rows have the same {column}"
        case Kind.MEAN:
            return f"the mean of {column} is {_range(one)}"
        case Kind.ROW_COUNT:
            return f"the table has {_range(one)} rows"
        case Kind.AGE:
            return f"{column} lies {_range(one)} seconds before the sealing of its batch{share}"
        case Kind.REFERENCED:
            table, other = one.target or ("", "")
            return f"{column} is a value of {other} in {table}{share}"


def _range(one: Expectation) -> str:
    if one.low is None:
        return f"at most {one.high}"
    return f"at least {one.low}" if one.high is None else f"{one.low} to {one.high}"
