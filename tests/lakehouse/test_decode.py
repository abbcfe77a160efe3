"""Decoding many batches at once gives what decoding each alone would, whatever the values."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import microbatch, ranges
from lakehouse.claims import Claims
from lakehouse.decode import Arrived, decode
from lakehouse.errors import StateError
from lakehouse.positions import highest, of_logs
from lakehouse.state import TableState
from lakehouse.state import decode as decode_state
from lakehouse.state import encode as encode_state
from lakehouse.streams import StreamKey, Streams
from lakehouse.watermarks import watermarks
from tests.lakehouse.frames import CONTRACTS, frame, telemetry

TELEMETRY = CONTRACTS["telemetry"]


def arrived(batch: bytes, at: int) -> Arrived:
    header, payload = microbatch.parse(batch)
    return Arrived("device-1", f"t/0/{at}", header, payload, batch)


times = st.integers(-(2**63), 2**63 - 1)
batches = st.lists(st.lists(times, max_size=6), max_size=6)


@given(batches, st.sets(st.integers(0, 5)))
def test_joint_decoding_restores_every_value_and_refuses_only_the_broken(
    drawn: list[list[int]], broken: set[int]
) -> None:
    sent: list[Arrived] = []
    wanted: list[dict[str, Any]] = []
    for at, found in enumerate(drawn):
        rows = [row | {"occurred_at": t} for row, t in zip(telemetry(range(at, at + len(found))), found, strict=True)]
        spoiled = at in broken and bool(rows)
        wanted += [] if spoiled else rows
        raw = b"\x00" * 64 if spoiled else None
        sent.append(arrived(frame(TELEMETRY, rows, first_seq=at, span=max(1, len(rows)), raw=raw), at))
    decoded, refused = decode(sent, TELEMETRY, {})
    assert decoded.rows.to_pylist() == [{**dict.fromkeys(decoded.rows.column_names), **row} for row in wanted]
    assert {r.batch.source for r in refused} == {f"t/0/{at}" for at in broken if at < len(drawn) and drawn[at]}
    assert [decoded.batches[at].header.first_seq for at in decoded.batch_of_row] == [
        at for at, found in enumerate(drawn) for _ in found if at not in broken
    ]


spans = st.lists(st.tuples(st.integers(0, 50), st.integers(1, 20)), max_size=20)


@given(spans)
def test_claims_take_every_number_exactly_once(found: list[tuple[int, int]]) -> None:
    key, claims, taken = StreamKey("telemetry", "d", 1), Claims({}), list[int]()
    for first, span in found:
        taken += [seq for low, high in claims.claim(key, first, first + span) for seq in range(low, high)]
    assert sorted(taken) == sorted({seq for first, span in found for seq in range(first, first + span)})
    assert ranges.size(claims.of(key)) == len(taken)
    assert [claim.ranges for claim in claims.all()] == ([claims.of(key)] if found else [])


def test_a_state_survives_its_file_and_a_damaged_one_says_what_to_do() -> None:
    key = StreamKey("telemetry", "device-1", 3)
    changed, held = ((key, ((0, 9),)),), ((StreamKey("clicks", "c", 1), ((3, 4),)),)
    state = TableState(changed, {"b/0": 1}, {"h/3": 2}, {"b": "x"}, held, (b"\x01" * 16,), ("part",), ("root",))
    assert decode_state(encode_state(state), "s3://x") == state
    for damaged in (encode_state(state)[:-3], encode_state(state)[:-1] + b"x", b""):
        with pytest.raises(StateError, match="roll the table back"):
            decode_state(damaged, "s3://x")


def test_reading_goes_on_at_the_highest_floor_of_the_same_log() -> None:
    present = {"b": "x", "d": "y"}
    old = of_logs({"b/0": 90, "d/0": 4}, {"b": "gone", "d": "y"}, present)
    one, two = of_logs({"b/0": 5, "b/1": 7}, {"b": "x"}, present), of_logs({"b/0": 6, "b/1": 2}, {"b": "x"}, present)
    assert highest([old, one, two]) == {"b/0": 6, "b/1": 7, "d/0": 4}


def test_a_watermark_is_of_the_newest_epoch_and_of_the_tables_own_contract() -> None:
    held = {
        StreamKey("telemetry", "d", 1): ((0, 9),),
        StreamKey("telemetry", "d", 2): ((0, 3), (5, 6)),
        StreamKey("clicks", "d", 7): ((0, 1),),
        StreamKey("telemetry", "e", 1): ((0, 2),),
    }
    found = watermarks("telemetry", Streams(None, held), 42, 1_000, ["e", "d", "unknown", "d"])
    assert [(m.origin, m.epoch, m.committed, m.snapshot_id) for m in found] == [
        ("d", 2, ((0, 3), (5, 6)), 42),
        ("e", 1, ((0, 2),), 42),
    ]
