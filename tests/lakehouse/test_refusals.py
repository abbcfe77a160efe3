"""Bad input: where it goes, with which reason, and that its neighbours get through."""

import math
from typing import Any

import pytest
import zstandard
from msgspec.structs import replace

from contracts.contract import Checks, Contract
from contracts.decisions import encode as encode_decision
from contracts.microbatch import RAW_BYTES_MAX, parse, seal
from contracts.topics import BATCHES, DECISIONS
from tests.lakehouse.frames import CONTRACTS, SEALED_AT_MS, START_US, clicks, decision, frame, payload, telemetry
from tests.lakehouse.world import World

TELEMETRY, CLICKS = CONTRACTS["telemetry"], CONTRACTS["clicks"]

BAD_ROWS = [
    (TELEMETRY, {"score": math.nan}, "score.finite"),
    (TELEMETRY, {"score": math.inf}, "score.finite"),
    (TELEMETRY, {"score": 1.5}, "score.maximum"),
    (TELEMETRY, {"f3": -100_001}, "f3.minimum"),
    (TELEMETRY, {"asset_id": None}, "asset_id.required"),
    (TELEMETRY, {"asset_id": "x" * 65}, "asset_id.max_length"),
    (TELEMETRY, {"occurred_at": 2**62}, "occurred_at.maximum"),
    (CLICKS, {"dwell_s": math.nan}, "dwell_s.finite"),
    (CLICKS, {"event": "é" * 65}, "event.max_length"),
]


@pytest.mark.parametrize(("contract", "change", "rule"), BAD_ROWS, ids=[rule for _, _, rule in BAD_ROWS])
def test_a_bad_row_goes_to_the_quarantine_and_its_neighbours_to_the_table(
    world: World, contract: Contract, change: dict[str, Any], rule: str
) -> None:
    rows = (telemetry if contract is TELEMETRY else clicks)(range(6))
    rows[2] = rows[2] | change
    world.broker.batch("device-1", frame(contract, rows))
    world.drain(world.start())
    assert [r["seq"] for r in world.records(contract.id)] == [0, 1, 3, 4, 5]
    (found,) = world.records("quarantine")
    assert (found["origin"], found["epoch"], found["seq"]) == ("device-1", 1, 2)
    assert (found["contract"], found["refused_version"]) == (contract.id, contract.version)
    assert (found["refused_epoch"], found["refused_seq"], found["refused_by"]) == (1, 2, "lake")
    assert found["rule"] == rule
    (name,) = change
    value = change[name]
    shown = str(value) if isinstance(value, float) and not math.isfinite(value) else value
    assert f'"{name}":' in found["original"]
    assert value is None or str(shown) in found["original"]
    assert world.broker.watermarks()["device-1", contract.id].upto == 6


def test_a_value_outside_a_closed_set_is_refused(world: World) -> None:
    world.broker.publish(CONTRACTS["ledger"])
    entry = {
        "seq": 0, "stream": "telemetry", "stream_epoch": 1, "first_seq": 0, "span": 5, "fate": "vanished", "count": 5,
        "rule": "", "reason": "",
    }  # fmt: skip
    world.broker.batch("device-1", frame(CONTRACTS["ledger"], [entry, entry | {"seq": 1, "fate": "kept"}]))
    world.drain(world.start())
    assert [r["rule"] for r in world.records("quarantine")] == ["fate.valid_values"]
    assert [r["fate"] for r in world.records("ledger")] == ["kept"]


def test_a_batch_is_checked_as_a_whole_and_by_the_time_it_was_sealed(world: World) -> None:
    checks = {"session_id": Checks(unique=True), "occurred_at": Checks(age_max_s=50_000, ahead_max_s=5)}
    checks["platform"] = Checks(known_values=("web",))
    fields = tuple(replace(f, checks=checks.get(f.name, f.checks)) for f in CLICKS.fields)
    world.broker.publish(replace(CLICKS, version="1.0.1", fields=fields))
    rows = [
        row | {"session_id": f"visit-{row['seq'] % 3}", "occurred_at": START_US, "platform": "tv"}
        for row in clicks(range(5))
    ]
    rows[2]["occurred_at"] = START_US - 100_000_000_000
    rows[1]["occurred_at"] = SEALED_AT_MS * 1_000 + 5_000_001
    ingest = world.start()
    world.broker.batch("device-1", frame(CLICKS, rows))
    world.broker.batch("device-2", frame(CLICKS, rows[:1]))
    world.drain(ingest)
    world.drain(world.start())  # nothing comes of it a second time
    refused = {(row["origin"], row["seq"], row["rule"]) for row in world.records("quarantine")}
    assert refused == {
        ("device-1", 1, "occurred_at.ahead_max_s"),
        ("device-1", 2, "occurred_at.age_max_s"),
        ("device-1", 3, "session_id.unique"),
        ("device-1", 4, "session_id.unique"),
    }
    assert [(row["origin"], row["seq"]) for row in world.records("clicks")] == [("device-1", 0), ("device-2", 0)]
    assert ingest.status.hints == {"clicks.platform.known_values": 6}


def broken_batches() -> list[tuple[str, bytes, str]]:
    rows = telemetry(range(10))
    sound = payload(TELEMETRY, rows)
    longer = telemetry(range(11))
    return [
        ("truncated", frame(TELEMETRY, rows)[:40], "truncated_batch"),
        ("flipped bit", frame(TELEMETRY, rows)[:-1] + b"\x00", "wrong_checksum"),
        ("not Arrow", frame(TELEMETRY, rows, raw=b"\x07" * 800), "bad_payload"),
        ("Arrow cut short", frame(TELEMETRY, rows, raw=sound[: len(sound) // 2]), "bad_payload"),
        ("fewer rows than said", frame(TELEMETRY, rows, raw=sound, count=9), "bad_payload"),
        ("more rows than said", frame(TELEMETRY, rows, raw=payload(TELEMETRY, longer)), "bad_payload"),
        ("two messages", frame(TELEMETRY, rows, raw=sound + sound), "bad_payload"),
        ("another contract's columns", frame(TELEMETRY, rows, raw=payload(CLICKS, clicks(range(10)))), "bad_payload"),
        ("seq outside its range", frame(TELEMETRY, rows, first_seq=5, span=50), "bad_seq"),
        ("seq falls", frame(TELEMETRY, [*rows[5:], *rows[:5]], first_seq=0, span=10), "bad_seq"),
    ]


@pytest.mark.parametrize(("batch", "reason"), [b[1:] for b in broken_batches()], ids=[b[0] for b in broken_batches()])
def test_a_broken_batch_is_buried_whole_and_holds_nobody_up(world: World, batch: bytes, reason: str) -> None:
    world.broker.batch("device-0", frame(TELEMETRY, telemetry(range(10))))
    sent = world.broker.batch("device-1", batch)
    world.broker.batch("device-2", frame(TELEMETRY, telemetry(range(10))))
    world.drain(world.start())
    assert {(r["origin"], r["seq"]) for r in world.records("telemetry")} == {
        (origin, seq) for origin in ("device-0", "device-2") for seq in range(10)
    }
    (letter,) = world.broker.dead()
    assert (letter.reason, letter.origin, letter.source) == (reason, "device-1", sent.source)
    assert letter.original == batch
    assert ("device-1", "telemetry") not in world.broker.watermarks()


def test_a_frame_that_would_inflate_beyond_its_header_is_not_inflated(world: World) -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(RAW_BYTES_MAX * 4))
    honest = frame(TELEMETRY, telemetry(range(10)))
    header, _ = parse(honest)
    world.broker.batch("device-1", seal(header, bomb))
    world.drain(world.start())
    assert [letter.reason for letter in world.broker.dead()] == ["bad_payload"]


def test_a_message_without_an_origin_is_buried(world: World) -> None:
    world.broker.append(BATCHES, frame(TELEMETRY, telemetry(range(3))))
    world.broker.append(BATCHES, frame(TELEMETRY, telemetry(range(3))), origin="a/b")
    world.drain(world.start())
    assert [letter.reason for letter in world.broker.dead()] == ["no_origin", "no_origin"]


def test_a_batch_of_an_unknown_contract_waits_at_its_origin(tmp_path: Any) -> None:
    world = World(tmp_path, ("telemetry", "quarantine"))
    batch = frame(CLICKS, clicks(range(4)))
    world.broker.batch("collector-1", batch)
    world.broker.batch("device-1", frame(TELEMETRY, telemetry(range(4))))
    ingest = world.start()
    world.drain(ingest)
    assert [letter.reason for letter in world.broker.dead()] == ["unknown_contract"]
    assert set(world.broker.watermarks()) == {("device-1", "telemetry")}
    world.broker.publish(CLICKS)
    world.drain(ingest)
    world.broker.batch("collector-1", batch)
    world.drain(ingest)
    assert len(world.records("clicks")) == 4
    assert world.broker.watermarks()["collector-1", "clicks"].upto == 4
    assert len(world.broker.dead()) == 1
    world.close()


def test_dictionaries_are_followed_and_an_unknown_one_is_a_reason(world: World) -> None:
    samples: list[bytes | bytearray | memoryview] = [payload(CLICKS, clicks(range(n, n + 20))) for n in range(200)]
    dictionary = zstandard.train_dictionary(4_096, samples, dict_id=77)
    batch = frame(CLICKS, clicks(range(20)), dictionary=dictionary)
    ingest = world.start()
    world.broker.batch("collector-1", batch)
    world.drain(ingest)
    assert [letter.reason for letter in world.broker.dead()] == ["unknown_dictionary"]
    world.broker.publish_dictionary(77, dictionary.as_bytes())
    world.drain(ingest)
    world.broker.batch("collector-1", batch)
    world.drain(ingest)
    assert len(world.records("clicks")) == 20


def test_decisions_become_rows_once_each(world: World) -> None:
    for number in (1, 2, 1):
        world.broker.append(DECISIONS, encode_decision(decision(number)))
    world.broker.append(DECISIONS, b"{}")
    ingest = world.start()
    world.drain(ingest)
    world.broker.append(DECISIONS, encode_decision(decision(2)))
    world.drain(ingest)
    successor = world.start()
    world.broker.append(DECISIONS, encode_decision(decision(1)))
    world.broker.append(DECISIONS, encode_decision(decision(3)))
    world.drain(successor)
    found = world.records("decisions")
    assert [(r["seq"], r["subject"]) for r in found] == [(0, "customer-1"), (1, "customer-2"), (6, "customer-3")]
    assert found[0]["events"] == '[["clicks","collector-1",1,1]]'
    assert {letter.reason for letter in world.broker.dead()} == {"bad_decision"}
