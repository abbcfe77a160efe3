"""Changes of a small CRM in any order, and what they come to, applied one after the other in the order of time."""

from collections.abc import Iterable
from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import UNSET

from contracts.crm_change import Cause, CrmChange, CrmMessage, Kind, Snapshot, SnapshotEnd, Version, values
from lakehouse.mirror.merge import merge, swept
from lakehouse.mirror.model import UNKNOWN, Key, Record

SYSTEM, TENANT, OBJECT = "salesforce", "租户", "Account"
NAMES = ("Name", "Industry", "Neu__c", "客户等级")
VALUES = (None, True, 0, -1.5, "", "华东\t精工\\N\n", "x" * 40, ["a", {"b": 1}], {"id": "7", "name": "é"})
RECORDS = ("001", "002", "003")
CAPTURED_MS = 10_000_000


def change(record: str, kind: Kind, at_us: int, number: int = 0, **more: Any) -> CrmChange:
    """A change of the small CRM; `fields` as plain values."""
    fields = values(more.pop("fields", {}))
    return CrmChange(
        more.pop("system", SYSTEM), TENANT, more.pop("object", OBJECT), record, kind, Version(at_us, number),
        CAPTURED_MS, fields, **more,
    )  # fmt: skip


def key(record: str, system: str = SYSTEM, object_name: str = OBJECT) -> Key:
    return (system, TENANT, object_name, record)


@st.composite
def changes(draw: st.DrawFn, at_us: int, snapshot: Snapshot | None = None) -> CrmChange:
    """One change at a version."""
    kind = Kind.UPDATED if snapshot else draw(st.sampled_from(Kind))
    told = kind not in (Kind.DELETED, Kind.GAP)
    fields = draw(st.dictionaries(st.sampled_from(NAMES), st.sampled_from(VALUES))) if told else {}
    full = snapshot is not None or (told and draw(st.booleans()))
    return change(
        draw(st.sampled_from(RECORDS)), kind, at_us, fields=fields, full=full, snapshot=snapshot or UNSET,
        cause=Cause(source=draw(st.sampled_from(("", "ui", "api")))),
    )  # fmt: skip


@st.composite
def histories(draw: st.DrawFn) -> list[CrmMessage]:
    """Changes at different times, among them up to two snapshots that end, or never do."""
    times = draw(st.lists(st.integers(1, 10_000), min_size=1, max_size=14, unique=True))
    found: list[CrmMessage] = [draw(changes(at_us)) for at_us in times]
    for number, at_us in enumerate(draw(st.lists(st.integers(1, 10_000), max_size=2, unique=True))):
        if at_us in times:
            continue
        snapshot = Snapshot(f"s{number}", at_us)
        held = draw(st.sets(st.sampled_from(RECORDS)))
        # A record in a snapshot last changed before it began, at a time that no other change has.
        found += [
            msgspec.structs.replace(draw(changes(20_000 + n, snapshot)), record=record, version=Version(0, n + 1))
            for n, record in enumerate(sorted(held), start=number * 10)
        ]
        if draw(st.booleans()):
            found.append(SnapshotEnd(SYSTEM, TENANT, OBJECT, snapshot, len(held)))
    return found


class Seen(msgspec.Struct, frozen=True):
    """What a reader sees of a record."""

    fields: dict[str, Any]
    deleted_us: int | None
    stale_us: int | None


def seen(record: Record) -> Seen:
    fields = {name: msgspec.json.decode(bytes(known.value)) for name, known in record.fields.items()}
    shown = {name: value for name, value in fields.items() if value is not None}
    return Seen(shown, record.deleted_us, record.stale_us)


def expected(messages: Iterable[CrmMessage]) -> dict[Key, Seen]:
    """Apply everything in the order of time, the plain way: one state, overwritten."""
    all_messages = list(messages)
    told = [message for message in all_messages if isinstance(message, CrmChange)]
    complete = {message.snapshot for message in all_messages if isinstance(message, SnapshotEnd)}
    return {
        key(record): _story([one for one in told if one.record == record], complete)
        for record in {one.record for one in told}
    }


def _story(changes: list[CrmChange], complete: set[Snapshot]) -> Seen:
    fields: dict[str, Any] = {}
    stale_us: int | None = None
    for one in sorted(changes, key=lambda c: c.version):
        if one.full:
            fields, stale_us = {}, None
        if one.kind is Kind.GAP:
            stale_us = one.version.at_us
        fields.update({name: msgspec.json.decode(bytes(value)) for name, value in one.fields.items()})
    # What was said of its being there, as of when: by a change, by a snapshot with it, by a snapshot without it.
    said: list[tuple[int, int, str]] = []
    held = {one.snapshot for one in changes if isinstance(one.snapshot, Snapshot)}
    for one in changes:
        at = (one.version.at_us, one.version.number)
        said.append((*at, one.kind.value))
    said += [(snapshot.at_us, 0, "held") for snapshot in held]
    said += [(snapshot.at_us, 0, "missing") for snapshot in complete - held]
    deleted_us: int | None = None
    told = False
    for at_us, _, what in sorted(said):
        if what == "deleted":
            told, deleted_us = True, at_us
        elif what in ("created", "undeleted", "held"):
            told, deleted_us = False, None
        elif what == "missing" and not told:
            deleted_us = at_us
        elif what in ("updated", "gap") and not told:
            deleted_us = None
    shown = {name: value for name, value in fields.items() if value is not None}
    return Seen(shown, deleted_us, stale_us)


def merged(changes: Iterable[CrmChange], swept_us: int = UNKNOWN.swept_us) -> Record:
    """The record after some changes."""
    return merge(swept(UNKNOWN, swept_us), changes)
