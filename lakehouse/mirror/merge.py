"""What a record is after its changes. The order in which they come, and how often, makes no difference.

Every part of a record is a register that only a newer version replaces: each field by itself, the newest full reading,
the newest statement of life. At one version the larger value in byte order stays, so that every replay ends alike. An
update never brings a deleted record back: only a creation, an undeletion or a snapshot that holds it does.
"""

from collections.abc import Iterable
from typing import Final

import msgspec
from msgspec import UNSET, Raw

from contracts.crm_change import CrmChange, Kind
from lakehouse.mirror.model import Clock, Life, Newest, Record, Register

_REVIVING: Final = (Kind.CREATED, Kind.UNDELETED)
_ENCODER: Final = msgspec.json.Encoder()


def merge(record: Record, changes: Iterable[CrmChange]) -> Record:
    """Return the record with some changes added; `UNKNOWN` is the record of which nothing is known."""
    fields = dict(record.fields)
    full, gap, life, seen_us = record.full, record.gap, record.life, record.seen_us
    last: list[CrmChange] = []
    last_clock = (record.newest.at_us, record.newest.number)
    for change in changes:
        at_us, number = clock = (change.version.at_us, change.version.number)
        if change.kind is Kind.GAP:
            gap = max(gap, clock)
        elif change.full:
            full = max(full, clock)
        if change.kind is not Kind.DELETED:
            seen_us = max(seen_us, at_us)
        life = _life(life, change)
        if change.snapshot is not UNSET:
            seen_us = max(seen_us, change.snapshot.at_us)
        for name, value in change.fields.items():
            known = fields.get(name)
            if known is None or _wins(clock, value, known):
                fields[name] = Register(at_us, number, value)
        if clock > last_clock:
            last, last_clock = [change], clock
        elif clock == last_clock:
            last.append(change)
    # Those that were known before as well: a full reading that does not name a field says that it is null.
    fields = {name: known for name, known in fields.items() if (known.at_us, known.number) >= full}
    newest = max((record.newest, *map(_stated, last)), key=_by_time)
    return Record(fields, full, gap, life, newest, seen_us, record.swept_us)


def swept(record: Record, at_us: int) -> Record:
    """Return the record after a complete snapshot without it, which began at `at_us`."""
    return record if at_us <= record.swept_us else msgspec.structs.replace(record, swept_us=at_us)


def _wins(clock: Clock, value: Raw, known: Register) -> bool:
    standing = (known.at_us, known.number)
    return clock > standing or (clock == standing and bytes(value) > bytes(known.value))


def _life(life: Life, change: CrmChange) -> Life:
    if change.kind is Kind.DELETED:
        stated = Life(change.version.at_us, change.version.number, True)
    elif change.snapshot is not UNSET:
        # It was there when it was read, however long ago it had last changed.
        stated = max(_clock(change), Life(change.snapshot.at_us), key=_order)
    elif change.kind in _REVIVING:
        stated = _clock(change)
    else:
        return life
    return max(life, stated, key=_order)


def _clock(change: CrmChange) -> Life:
    return Life(change.version.at_us, change.version.number)


def _order(life: Life) -> tuple[int, int, bool]:
    return life.at_us, life.number, life.deleted


def _stated(change: CrmChange) -> Newest:
    return Newest(change.version.at_us, change.version.number, _ENCODER.encode(change.cause).decode())


def _by_time(newest: Newest) -> tuple[int, int, str]:
    return newest.at_us, newest.number, newest.cause
