"""A generated service history: work orders with their parts and notes over a fleet, on two tablets.

A work order opens, moves through its states and closes; parts and notes are entered between. Now and then an entry is
wrong: a later entry of the same kind supersedes it, sometimes entered on the other tablet, sometimes itself corrected.
Entry ids count in the order of time over both tablets.
"""

from collections.abc import Iterator
from itertools import count
from random import Random
from typing import Final

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from infra.datasets.replay import US_PER_DAY, US_PER_S, Provenance, Replay, iso_times
from infra.datasets.telemetry import asset_id

CONTRACT: Final = "service_history"
TABLETS: Final = ("tablet-01", "tablet-02")
ASSET_COUNT: Final = 1_000
ENTRY_TARGET: Final = 20_000
HISTORY_DAYS: Final = 730
TECHNICIANS_PER_TABLET: Final = 6
_CORRECTION_CHANCE: Final = 0.04
_SECOND_CORRECTION_CHANCE: Final = 0.15
_OTHER_TABLET_CHANCE: Final = 0.2
_MINUTE_US: Final = 60 * US_PER_S
# A work order closes within about ten days, and a correction comes within three more.
_LAST_OPENING_DAY: Final = HISTORY_DAYS - 20

_FAULTS: Final = (
    "Hydraulic pressure drops after warm-up",
    "主轴异响，温度偏高",
    "Emergency stop circuit opens at random",
    "CANopen 通信中断，节点 12 无响应",
    "Oil leak at main cylinder",
    "液压系统压力不足",
    "Yearly inspection",
    "年度保养",
    "Sensor f4 reads far outside its range",
    "安全光幕误触发",
)
_NOTES: Final = (
    "Replaced seal, pressure holds at 210 bar for 30 min",
    "已更换密封圈，试运行正常",
    "Customer asks for an IP67 housing next time",
    "客户要求提供电磁兼容测试报告",
    "Waiting for part, machine runs at half speed",
    "等待备件，预计三天后到货",
    "Cable shield was open on one end; grounded, fault gone",
    "接地线松动，已重新紧固",
    "Firmware updated, parameters restored from backup",
    "参数已备份，控制器固件已升级",
)
_PARTS: Final = (
    "SEAL-210",
    "PUMP-A4V",
    "VALVE-4WE6",
    "CAN-NODE-12",
    "SENS-P250",
    "FILTER-10U",
    "BELT-HTD8M",
    "LIGHT-C4000",
)
_MIDDLES: Final = ("in_progress", "waiting")
_ENDS: Final = ("done", "done", "done", "done", "cancelled")


class Entry(Struct, frozen=True, omit_defaults=True):
    """One entry, as the contract names its fields."""

    entry_id: str
    asset_id: str
    kind: str
    work_order_id: str
    technician: str
    occurred_at: str
    status: str | None = None
    part_no: str | None = None
    note: str | None = None
    supersedes: str | None = None


class _Draft(Struct, frozen=True):
    """An entry before its id is known; `corrects` is the draft number of the entry that it supersedes."""

    number: int
    tablet: int
    occurred_at_us: int
    entry: Entry
    corrects: int | None = None


def generate_history(end_us: int, seed: int, fraction: float) -> list[Replay]:
    """Return the entries of both tablets, all before `end_us`; `fraction` scales their number."""
    rng = Random(seed)
    start_us = end_us - HISTORY_DAYS * US_PER_DAY
    numbers = count()
    drafts: list[_Draft] = []
    target = max(1, round(ENTRY_TARGET * fraction))
    for order_number in count(1):
        # Every machine is served once before any is served twice.
        machine = order_number - 1 if order_number <= ASSET_COUNT else rng.randrange(ASSET_COUNT)
        drafts.extend(_work_order(rng, numbers, f"W-{order_number:05d}", asset_id(machine), start_us))
        if len(drafts) >= target:
            break
    drafts.sort(key=lambda draft: (draft.occurred_at_us, draft.number))
    return _replays(drafts)


def _work_order(rng: Random, numbers: Iterator[int], order_id: str, asset: str, start_us: int) -> Iterator[_Draft]:
    tablet = rng.randrange(len(TABLETS))
    now_us = start_us + rng.randrange(_LAST_OPENING_DAY * US_PER_DAY)
    for entry in _steps(rng, order_id, asset, _technician(rng, tablet)):
        original = _Draft(next(numbers), tablet, now_us, entry)
        yield original
        yield from _corrections(rng, numbers, original)
        now_us += rng.randint(5, 24 * 60) * _MINUTE_US


def _steps(rng: Random, order_id: str, asset: str, technician: str) -> Iterator[Entry]:
    blank = Entry("", asset, "work_order", order_id, technician, "")
    yield replace(blank, status="open", note=rng.choice(_FAULTS))
    for status in _MIDDLES[: rng.randint(0, len(_MIDDLES))]:
        yield replace(blank, status=status)
    for _ in range(rng.randint(0, 3)):
        yield replace(blank, kind="part", part_no=rng.choice(_PARTS))
    for _ in range(rng.randint(1, 2)):
        yield replace(blank, kind="note", note=rng.choice(_NOTES))
    yield replace(blank, status=rng.choice(_ENDS))


def _corrections(rng: Random, numbers: Iterator[int], original: _Draft) -> Iterator[_Draft]:
    wrong, chance = original, _CORRECTION_CHANCE
    while rng.random() < chance:
        tablet = 1 - wrong.tablet if rng.random() < _OTHER_TABLET_CHANCE else wrong.tablet
        wrong = _Draft(
            number=next(numbers),
            tablet=tablet,
            occurred_at_us=wrong.occurred_at_us + rng.randint(1, 24 * 60) * _MINUTE_US,
            entry=replace(_corrected(rng, wrong.entry), technician=_technician(rng, tablet)),
            corrects=wrong.number,
        )
        yield wrong
        chance = _SECOND_CORRECTION_CHANCE


def _corrected(rng: Random, entry: Entry) -> Entry:
    if entry.kind == "part":
        return replace(entry, part_no=rng.choice([part for part in _PARTS if part != entry.part_no]))
    texts = _NOTES if entry.kind == "note" else _FAULTS
    return replace(entry, note=rng.choice([text for text in texts if text != entry.note]))


def _technician(rng: Random, tablet: int) -> str:
    return f"T-{tablet * TECHNICIANS_PER_TABLET + rng.randint(1, TECHNICIANS_PER_TABLET):02d}"


def _replays(drafts: list[_Draft]) -> list[Replay]:
    ids = {draft.number: f"E-{position:06d}" for position, draft in enumerate(drafts, start=1)}
    times = iso_times(np.array([draft.occurred_at_us for draft in drafts], dtype=np.int64))
    entries: tuple[list[Entry], ...] = tuple([] for _ in TABLETS)
    for draft, time in zip(drafts, times, strict=True):
        supersedes = None if draft.corrects is None else ids[draft.corrects]
        entry = replace(draft.entry, entry_id=ids[draft.number], occurred_at=time, supersedes=supersedes)
        entries[draft.tablet].append(entry)
    return [
        Replay(CONTRACT, tablet, mine, {Provenance.GENERATED: len(mine)})
        for tablet, mine in zip(TABLETS, entries, strict=True)
    ]
