"""Columns of a micro-batch's payload, derived from its contract without any Arrow library.

Physical Arrow types by wire type: STRING utf8, INT int32, LONG int64, FLOAT float32, DOUBLE float64, BOOLEAN bool.
A timestamp travels as LONG (microseconds since 1970-01-01 UTC).
"""

from msgspec import Struct

from contracts.contract import SEQ_COLUMN, Contract, FieldType


class WireColumn(Struct, frozen=True):
    """One payload column. `difference`: first value as it is, then each value less the one before."""

    name: str
    type: FieldType
    required: bool
    difference: bool


def columns(contract: Contract) -> tuple[WireColumn, ...]:
    """Return the payload's columns in order; the first is always `seq`."""
    own = (
        WireColumn(
            name=field.name,
            type=FieldType.LONG if field.type is FieldType.TIMESTAMPTZ else field.type,
            required=field.required,
            difference=field.difference,
        )
        for field in contract.fields
    )
    return (WireColumn(SEQ_COLUMN, FieldType.LONG, required=True, difference=True), *own)
