"""Edge rules: which events of a stream a device keeps, as documents.

A rule has a condition over one event and one action. A device asks its rules in the order of the bundle; the first one
whose condition holds and whose action decides settles the event:

- `keep` and `drop` always decide;
- `sample` drops the events that its draw does not take (`contracts.sampling`);
- `deduplicate` drops an event when one with the same `fields` was kept less than `within_ms` before or after it;
- `on_change` drops an event unless some field left its dead-band since the last kept event of the same `by`, or that
  one lies `max_silence_ms` or more away.

What the last three do not drop goes on to the next rule, then to the filter model, then to the stream's `otherwise`.
Time is event time. What `deduplicate` and `on_change` remember are events that were *kept*: whether an event is dropped
follows from the kept events of the last hours alone, so that a restart that sees those again decides alike.

A null satisfies no comparison, `in`, `between` or `contains_any`; `not` is true where its condition is not. A `float`
field is compared in 32 bits, constants included: the precision in which it travels. Text is compared as it is, but
`contains_any` compares `normalised` text. A time is written as ISO 8601 with its zone.
"""

import sys
import unicodedata
from array import array
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from math import isfinite
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct

from contracts.contract import INTEGERS, Field, FieldType

RULES_MAX: Final = 64  # rules per stream; bounds the work per event
KEYED_RULES_MAX: Final = 8  # deduplicate and on_change per stream; each may remember thousands of keys
NODES_MAX: Final = 64  # conditions in one rule, the inner ones counted; bounds the work per event
DEPTH_MAX: Final = 8  # conditions within conditions; deeper ones nobody can read
VALUES_MAX: Final = 256  # values of one `in`; longer lists are data and belong into a model
TEXTS_MAX: Final = 64  # texts of one `contains_any`; each is searched for in each distinct value
TEXT_CHARS_MAX: Final = 256  # characters of a text in a rule
FIELDS_MAX: Final = 16  # fields of one action; bounds what is remembered per key
HORIZON_MS_MAX: Final = 86_400_000  # ms, a day; how far back a restart must be able to see kept events

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LONGS: Final = (-(2**63), 2**63 - 1)

Text: TypeAlias = Annotated[str, Meta(min_length=1, max_length=TEXT_CHARS_MAX)]
Scalar: TypeAlias = Annotated[str, Meta(max_length=TEXT_CHARS_MAX)] | int | float | bool
Operator: TypeAlias = Literal["eq", "ne", "lt", "le", "gt", "ge"]
HorizonMs: TypeAlias = Annotated[int, Meta(ge=1, le=HORIZON_MS_MAX)]
Names: TypeAlias = Annotated[tuple[Text, ...], Meta(min_length=1, max_length=FIELDS_MAX)]


class _Test(Struct, frozen=True, tag_field="test", forbid_unknown_fields=True):
    """Base of all conditions."""


class Compare(_Test, frozen=True, tag="compare"):
    """`field op value`."""

    field: Text
    op: Operator
    value: Scalar


class OneOf(_Test, frozen=True, tag="in"):
    """The field has one of the values."""

    field: Text
    values: Annotated[tuple[Scalar, ...], Meta(min_length=1, max_length=VALUES_MAX)]


class Between(_Test, frozen=True, tag="between"):
    """`low <= field <= high`."""

    field: Text
    low: Scalar
    high: Scalar


class ContainsAny(_Test, frozen=True, tag="contains_any"):
    """The field's text contains one of the texts, all normalised."""

    field: Text
    texts: Annotated[tuple[Text, ...], Meta(min_length=1, max_length=TEXTS_MAX)]


class IsNull(_Test, frozen=True, tag="is_null"):
    """The field has no value."""

    field: Text


class AllOf(_Test, frozen=True, tag="and"):
    """Every condition holds."""

    of: "Annotated[tuple[Condition, ...], Meta(min_length=1, max_length=NODES_MAX)]"


class AnyOf(_Test, frozen=True, tag="or"):
    """At least one condition holds."""

    of: "Annotated[tuple[Condition, ...], Meta(min_length=1, max_length=NODES_MAX)]"


class Not(_Test, frozen=True, tag="not"):
    """The condition does not hold."""

    of: "Condition"


Leaf: TypeAlias = Compare | OneOf | Between | ContainsAny | IsNull
Condition: TypeAlias = Compare | OneOf | Between | ContainsAny | IsNull | AllOf | AnyOf | Not


class _Action(Struct, frozen=True, tag_field="do", forbid_unknown_fields=True):
    """Base of all actions."""


class Keep(_Action, frozen=True, tag="keep"):
    """The event travels as a row of its own."""


class Drop(_Action, frozen=True, tag="drop"):
    """The event does not travel, not even in a window."""


class Sample(_Action, frozen=True, tag="sample"):
    """Of the events, this share goes on; the others only count in windows."""

    fraction: Annotated[float, Meta(ge=0, le=1)]


class Deduplicate(_Action, frozen=True, tag="deduplicate"):
    """An event that repeats a kept one, by these fields, within the time, is dropped and counts in no window."""

    fields: Names
    within_ms: HorizonMs


class DeadBand(Struct, frozen=True, forbid_unknown_fields=True):
    """A field that is watched. It changed when it differs from the last kept value by more than the band.

    `absolute` is in the field's unit, `relative` a share of the last kept value's size; with neither, any other value
    is a change. Null against a value is always one.
    """

    field: Text
    absolute: Annotated[float, Meta(ge=0)] | None = None
    relative: Annotated[float, Meta(ge=0)] | None = None


class OnChange(_Action, frozen=True, tag="on_change"):
    """An event goes on when a watched field changed, or after `max_silence_ms`; the others only count in windows.

    `by` are the fields that say whose value it is; without any it is the contract's subject.
    """

    fields: Annotated[tuple[DeadBand, ...], Meta(min_length=1, max_length=FIELDS_MAX)]
    max_silence_ms: HorizonMs
    by: Annotated[tuple[Text, ...], Meta(max_length=FIELDS_MAX)] = ()


Action: TypeAlias = Keep | Drop | Sample | Deduplicate | OnChange


class EdgeRule(Struct, frozen=True, forbid_unknown_fields=True):
    """One rule of a stream; without a condition it concerns every event."""

    id: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$(?!\n)")]
    version: Annotated[int, Meta(ge=1, le=2**31 - 1)]
    action: Action
    when: Condition | None = None
    title: Annotated[str, Meta(max_length=TEXT_CHARS_MAX)] = ""

    @property
    def label(self) -> str:
        """The rule as it stands in the ledger: `id@version`."""
        return f"{self.id}@{self.version}"


def encode(rule: EdgeRule) -> bytes:
    """Return the JSON form."""
    return msgspec.json.encode(rule)


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a rule document (draft 2020-12)."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | msgspec.json.schema(EdgeRule)


def leaves(condition: Condition) -> Iterator[Leaf]:
    """Yield the conditions that look at a field, from left to right."""
    match condition:
        case AllOf(of=inner) | AnyOf(of=inner):
            for each in inner:
                yield from leaves(each)
        case Not(of=inner_one):
            yield from leaves(inner_one)
        case _:
            yield condition


def normalised(text: str) -> str:
    """Return text for `contains_any`: without case and width, composed.

    It is toNFKC_Casefold of The Unicode Standard, section 3.13, less the removal of ignorable characters.
    """
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def contains_any(text: str, words: tuple[str, ...]) -> bool:
    """Say whether a text contains one of some normalised words."""
    plain = normalised(text)
    return any(word in plain for word in words)


def as_float32(value: float) -> float:
    """Return a number as it is in 32 bits; one that is too large becomes infinite."""
    return array("f", (value,))[0]


def constant(field: Field, value: Scalar) -> str | int | float | bool | None:
    """Return a rule's value as the field's column holds it, None when it is of another type.

    A time becomes microseconds since 1970-01-01 UTC; a number for a `float` field is rounded to 32 bits.
    """
    if field.type in (FieldType.STRING, FieldType.BOOLEAN):
        return value if isinstance(value, str if field.type is FieldType.STRING else bool) else None
    if field.type is FieldType.TIMESTAMPTZ:
        return _micros(value) if isinstance(value, str) else None
    if isinstance(value, str | bool):
        return None
    if field.type in INTEGERS:
        return value if isinstance(value, int) and _LONGS[0] <= value <= _LONGS[1] else None
    if not abs(value) <= sys.float_info.max:
        return None
    number = as_float32(value) if field.type is FieldType.FLOAT else float(value)
    return number if isfinite(number) else None


def _micros(text: str) -> int | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return None if moment.tzinfo is None else (moment - _EPOCH) // timedelta(microseconds=1)
