"""Both profiles pick out of the log's blocks what the request says, event by event, whatever the blocks."""

import random
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from contracts import pulls
from contracts.contract import Field, FieldType, fingerprint
from contracts.edge_rules import Compare, Condition, Drop, EdgeRule
from contracts.errors import BatchError
from contracts.ledger import Fate
from contracts.pulls import PullRequest
from edge_agent.core.codec.sealing import Sealer
from edge_agent.core.codec.unsealing import Form, Unsealer
from edge_agent.core.profile import Profile
from edge_agent.core.pulls.selection import Selection
from edge_agent.core.spool.places import Block
from edge_agent.core.spool.record import BatchRef, StoredRef
from edge_agent.core.spool.segment import PendingBatch
from tests.edge_agent.pulling import PROFILES
from tests.edge_agent.rule_worlds import CONDITIONS, CONTRACT, FIELDS, ROWS, Judge, Row, events_of

SPAN_US = 11_000_000
START_US = 1_772_323_200_000_000  # of rule_worlds.START


def block_of(rows: list[Row], first_seq: int, *, stored: bool) -> tuple[Block, bytes]:
    """Return rows as the log holds them."""
    sealer, events = Sealer(CONTRACT, 1), events_of(rows, first_seq)
    place = PendingBatch(0, CONTRACT.id, first_seq, max(1, len(rows)), 1, 0, 0)
    if stored:
        payload = sealer.store(events.seqs, events.columns)
        checksum = zlib.crc32(payload.data)
        ref = StoredRef(
            CONTRACT.id,
            first_seq,
            len(rows),
            len(rows),
            payload.raw_bytes,
            len(payload.data),
            checksum,
            False,
            fingerprint(CONTRACT),
        )
        return Block(place, ref, Fate.DROPPED), payload.data
    (batch,) = sealer.seal(first_seq, first_seq + max(1, len(rows)), events.seqs, events.columns, 0)
    return Block(
        place, BatchRef(CONTRACT.id, first_seq, batch.span, batch.rows, len(batch.data)), Fate.KEPT
    ), batch.data


def asked(when: Condition | None, first: int, last: int) -> PullRequest:
    return PullRequest("0" * 16, CONTRACT.id, START_US + first, START_US + last, 1, 2, when)


def holds(when: Condition | None, row: Row) -> bool:
    """Say whether a condition holds, by the judge that looks at one event after the other."""
    if when is None:
        return True
    return not Judge((EdgeRule("drop", 1, Drop(), when),), 0.0).decide(0, row, None, otherwise=True).kept


@settings(max_examples=150, deadline=None)
@given(
    ROWS, st.none() | CONDITIONS, st.integers(0, SPAN_US), st.integers(1, SPAN_US), st.integers(1, 12),
    st.integers(0, 2**16),
)  # fmt: skip
def test_both_profiles_pick_what_is_meant(
    rows: list[Row], when: Condition | None, first: int, length: int, size: int, seed: int
) -> None:
    rng, request = random.Random(seed), asked(when, first, first + length)
    pulls.check(request, CONTRACT)
    blocks = [block_of(rows[at : at + size], at, stored=rng.random() < 0.5) for at in range(0, len(rows), size)]
    fates = {at: block.fate.value for at, (block, _) in zip(range(0, len(rows), size), blocks, strict=True)}
    rng.shuffle(blocks)
    in_time = [seq for seq, row in enumerate(rows) if request.from_us <= row["occurred_at"] < request.to_us]
    meant = [seq for seq in in_time if holds(when, rows[seq])]
    found = {}
    for name, profile in PROFILES.items():
        selection = Selection(Unsealer(CONTRACT, profile), profile, request)
        picked = [selection.pick(block, data) for block, data in blocks]
        assert sum(one.examined for one in picked) == len(in_time)
        assert sum(map(len, picked)) == len(meant)
        some = [one for one in picked if len(one)]
        if some:
            columns = selection.columns(some, 10**6)
            found[name] = {key: list(column) for key, column in columns.items()}
            assert found[name]["source_seq"] == meant
            assert found[name]["fate"] == [fates[seq // size * size] for seq in meant]
            assert list(selection.columns(some, 2)["source_seq"]) == meant[:2]
            assert set(found[name]["pull_id"]) == {request.id}
    if found:
        assert repr(plain(found["full"])) == repr(plain(found["lite"]))
        for field in FIELDS:
            if field.type.value not in ("float", "double"):
                assert found["lite"][field.name] == [rows[seq][field.name] for seq in meant]


def plain(columns: dict[str, list[object]]) -> dict[str, list[object]]:
    return {
        name: [value.item() if hasattr(value, "item") else value for value in column]
        for name, column in columns.items()
    }


@pytest.mark.parametrize("profile", PROFILES.values())
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_rotten_blocks_end_in_one_kind_of_error(profile: Profile, data: st.DataObject) -> None:
    rows = data.draw(ROWS.filter(bool))
    block, held = block_of(rows, 0, stored=data.draw(st.booleans()))
    at = data.draw(st.integers(0, len(held) - 1))
    bad = held[:at] + bytes([held[at] ^ data.draw(st.integers(1, 255))]) + held[at + 1 :]
    with pytest.raises(BatchError):
        Selection(Unsealer(CONTRACT, profile), profile, asked(None, 0, SPAN_US)).pick(block, bad)


@pytest.mark.parametrize("profile", PROFILES.values())
@pytest.mark.parametrize("stored", [False, True])
def test_rows_of_an_earlier_form_have_the_columns_of_the_present_one(profile: Profile, stored: bool) -> None:
    wider = replace(CONTRACT, version="2", fields=(*CONTRACT.fields, Field(99, "added", FieldType.LONG)))
    row = {field.name: None for field in FIELDS} | {
        "asset_id": "机床-1", "occurred_at": START_US, "count": 1, "temperature": 0.5, "on": True, "energy": 7,
    }  # fmt: skip
    block, data = block_of([row], 3, stored=stored)
    request = asked(Compare("count", "eq", 1), 0, 1)
    with pytest.raises(BatchError, match="no bundle on this device"):
        Selection(Unsealer(wider, profile), profile, request).pick(block, data)
    known = Selection(Unsealer(wider, profile, b"", (Form(CONTRACT),)), profile, request)
    columns = known.columns([known.pick(block, data)], 9)
    assert (list(columns["added"]), list(columns["source_seq"]), list(columns["asset_id"])) == ([None], [3], ["机床-1"])
