"""Changes of CRM records, as the connectors write them to the log and everything else follows them.

A change says what is known to have happened to one record: which fields got which values, at which version. It says
nothing of the fields that it does not name, unless it is `full`. Values are the JSON that the vendor sent, byte for
byte, so that a decimal keeps its digits and a field that nobody has heard of yet travels like any other.

How vendors map to it: a Salesforce change event is one change per record id, with `changedFields` and `nulledFields`
(as null) for its fields and (commitTimestamp, commitNumber) for its version; its GAP events are of kind `gap`, but for
GAP_DELETE and GAP_UNDELETE, which say all there is to say. An entry of HubSpot's journal is one change per
`occurredAt`. A Zoho notification has `Modified_Time`, or, in modules without one, the notification's own time. An
overflow is answered by reading the whole object: full changes that name their snapshot, and then its end.
"""

from enum import Enum
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from contracts.errors import CrmChangeError
from contracts.malformed import MALFORMED

CHANGE_BYTES_MAX: Final = 1_048_576  # bytes of a message: the largest event that Salesforce sends
FIELDS_MAX: Final = 2_000  # fields of a record; Salesforce allows 800 of a customer's own beside some hundred others
NAME_CHARS_MAX: Final = 255  # characters of record ids and field names; HubSpot's names are up to 100, ids shorter
SCOPE_CHARS_MAX: Final = 64  # characters; with three of them and a record id a key still fits an index of any database
TIME_US_MAX: Final = 253_402_300_799_999_999  # 9999-12-31, the last day that every reader of ours can show
# How far a version may lie ahead of the clock of the connector that saw it. One from the far future would win against
# every later change for ever; a day covers any clock that is set to the wrong zone.
AHEAD_US_MAX: Final = 86_400_000_000
NUMBER_MAX: Final = 2**63 - 1
POSITION_CHARS_MAX: Final = 1_024

Name = Annotated[str, Meta(min_length=1, max_length=NAME_CHARS_MAX)]
ScopeName = Annotated[str, Meta(min_length=1, max_length=SCOPE_CHARS_MAX)]
TimeUs = Annotated[int, Meta(ge=0, le=TIME_US_MAX)]


class Kind(Enum):
    """What happened. `GAP`: the record has changed, in which fields is not known until it is read again."""

    CREATED = "created"
    UPDATED = "updated"
    DELETED = "deleted"
    UNDELETED = "undeleted"
    GAP = "gap"


class Version(Struct, frozen=True, array_like=True, order=True, gc=False):
    """The vendor's own order of a record's changes: commit time in us since 1970, then a number within it."""

    at_us: TimeUs
    number: Annotated[int, Meta(ge=0, le=NUMBER_MAX)] = 0


class Cause(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """Who made the change, as the vendor says: by what way, with which client tag, which user."""

    source: Annotated[str, Meta(max_length=NAME_CHARS_MAX)] = ""
    client: Annotated[str, Meta(max_length=NAME_CHARS_MAX)] = ""
    user: Annotated[str, Meta(max_length=NAME_CHARS_MAX)] = ""


class Snapshot(Struct, frozen=True, forbid_unknown_fields=True):
    """One reading of a whole object. `at_us` is when it began: what was deleted before cannot be in it."""

    id: ScopeName
    at_us: TimeUs


class CrmChange(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, tag="change", tag_field="type"):
    """A change of one record of one object of a tenant in a system.

    `fields` maps the vendor's names to JSON values, null for a field that was cleared; `full`: a field that is not
    named is null. `position` is where the vendor's stream can be read on after this change, opaque. A record of a
    `snapshot` is full.
    """

    system: ScopeName
    tenant: ScopeName
    object: ScopeName
    record: Name
    kind: Kind
    version: Version
    captured_at_ms: Annotated[int, Meta(ge=0, le=TIME_US_MAX // 1_000)]
    fields: Annotated[dict[Name, Raw], Meta(max_length=FIELDS_MAX)] = {}
    full: bool = False
    cause: Cause = Cause()
    position: Annotated[str, Meta(max_length=POSITION_CHARS_MAX)] = ""
    snapshot: Snapshot | UnsetType = UNSET


class SnapshotEnd(Struct, frozen=True, forbid_unknown_fields=True, tag="snapshot_end", tag_field="type"):
    """All records of a snapshot have been sent; `records` is how many different ones. The others are gone."""

    system: ScopeName
    tenant: ScopeName
    object: ScopeName
    snapshot: Snapshot
    records: Annotated[int, Meta(ge=0)]


CrmMessage = CrmChange | SnapshotEnd


def link(message: CrmMessage) -> bytes:
    """Return the key on the log: changes of one record stay in one partition."""
    scope = f"{message.system}/{message.tenant}/{message.object}"
    return (f"{scope}/{message.record}" if isinstance(message, CrmChange) else scope).encode()


def values(fields: dict[str, Any]) -> dict[str, Raw]:
    """Return plain values as the JSON that `CrmChange.fields` holds."""
    return {name: Raw(msgspec.json.encode(value)) for name, value in fields.items()}


def encode(message: CrmMessage) -> bytes:
    """Return the JSON form."""
    return msgspec.json.encode(message)


_DECODER: Final = msgspec.json.Decoder(CrmChange | SnapshotEnd)


def decode(data: bytes) -> CrmMessage:
    """Parse the JSON form. Raises CrmChangeError, whose `reason` is a short stable code."""
    if len(data) > CHANGE_BYTES_MAX:
        raise CrmChangeError("too_large", f"expected at most {CHANGE_BYTES_MAX} bytes, found {len(data)}")
    try:
        # Values are passed over without a look, so their encoding is checked here, and escapes where there are some.
        data.decode("utf-8")
        message: CrmMessage = _DECODER.decode(data)
        unsound = _unsound(msgspec.json.decode(data)) if b"\\u" in data else None
    except MALFORMED as error:
        raise CrmChangeError("malformed", f"expected its JSON form, found {data[:80]!r}: {error}") from error
    if unsound is not None:
        raise CrmChangeError("nul_character", f"expected text without the character U+0000, found {unsound!r:.80}")
    if isinstance(message, CrmChange):
        _check(message)
    return message


def _check(change: CrmChange) -> None:
    if change.version.at_us > change.captured_at_ms * 1_000 + AHEAD_US_MAX:
        raise CrmChangeError(
            "from_the_future",
            f"{link(change)!r}: version {change.version.at_us} us is more than a day ahead of when it was captured, "
            f"{change.captured_at_ms} ms: correct the clock or the unit",
        )
    told = bool(change.fields) or change.full or change.snapshot is not UNSET
    if told and change.kind in (Kind.DELETED, Kind.GAP):
        raise CrmChangeError(
            "contradiction", f"{link(change)!r}: a change of kind {change.kind.value} has no fields and no snapshot"
        )
    if change.snapshot is not UNSET and not change.full:
        raise CrmChangeError("contradiction", f"{link(change)!r}: a record of a snapshot must be full")


def _unsound(value: object) -> str | None:
    """Return the first text with a NUL, which no database takes."""
    if isinstance(value, str):
        return value if "\0" in value else None
    parts = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((found for part in parts if (found := _unsound(part)) is not None), None)
