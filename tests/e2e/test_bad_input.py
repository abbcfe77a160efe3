"""Whatever is wrong with what a device sends, one can see where it went, and its good neighbour gets through."""

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pyarrow.compute as pc
import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from contracts import dead, topics
from contracts.contract import Contract, Field, FieldType
from contracts.dead import DeadLetter
from edge_agent.core.codec.sealing import Sealer
from infra.demo.material import Material
from infra.demo.tables import LakeReader
from infra.fleet.agent import AgentProcess, Replay, prepare
from infra.launcher.endpoints import Endpoints
from tests.e2e.raw_device import RawDevice
from tests.waiting import eventually

pytestmark = pytest.mark.stack

NOT_AUTHORISED = 0x87
OCCURRED_US = 1_700_000_000_000_000
PURCHASE = {"customer_id": "C-00001", "occurred_at": "2026-01-05T00:00:00.000000Z", "number_of_cds": 1}


def _batch(contract: Contract, first_seq: int, amounts: list[float], customers: list[str] | None = None) -> bytes:
    rows = len(amounts)
    columns = {
        "customer_id": customers or ["C-00001"] * rows,
        "occurred_at": np.full(rows, OCCURRED_US, dtype=np.int64),
        "number_of_cds": np.ones(rows, dtype=np.int32),
        "dollar_value": np.array(amounts, dtype=np.float64),
    }
    seqs = np.arange(first_seq, first_seq + rows, dtype=np.int64)
    sealer = Sealer(contract, epoch=1)
    return sealer.seal(first_seq, first_seq + rows, seqs, columns, time.time_ns() // 1_000_000)[0].data


@pytest.fixture
def purchases(material: Material) -> Contract:
    return material.bundle.contract("purchases")


@pytest.fixture
def device(endpoints: Endpoints, device_name: str) -> Iterator[RawDevice]:
    with RawDevice(endpoints, device_name) as connected:
        yield connected


def _rows_of(lake: LakeReader, origin: str, table: str = "behaviour.purchases", catalog: str = "lake_b") -> list[int]:
    rows = lake.read(catalog, table)
    return sorted(rows.filter(pc.equal(rows["origin"], origin))["seq"].to_pylist())


def _dead_letters(endpoints: Endpoints, origin: str) -> list[DeadLetter]:
    consumer = Consumer(
        {"bootstrap.servers": endpoints.kafka.bootstrap, "group.id": "e2e", "enable.auto.commit": False}
    )
    try:
        partition = TopicPartition(topics.DEAD, 0, OFFSET_BEGINNING)
        _, end = consumer.get_watermark_offsets(partition, timeout=10)
        consumer.assign([partition])
        letters = []
        for _ in range(end):
            message = consumer.poll(10)
            assert message is not None
            assert message.error() is None
            letters.append(dead.decode(message.value() or b""))
        return [letter for letter in letters if letter.origin == origin]
    finally:
        consumer.close()


def _arrived(lake: LakeReader, origin: str, seqs: list[int]) -> None:
    eventually(lambda: _rows_of(lake, origin) == seqs, f"rows {seqs} of {origin} in the table")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda batch: batch[:40], "truncated_batch"),
        (lambda batch: batch[:-5], "wrong_checksum"),
        (lambda batch: batch[:80] + bytes([batch[80] ^ 1]) + batch[81:], "wrong_checksum"),
        (lambda _: '{"not": "a batch", "预算": "紧张", "and": "long enough to hold a header"}'.encode(), "bad_format"),
    ],
    ids=["cut-header", "cut-payload", "flipped-bit", "json"],
)
def test_a_damaged_batch_is_a_dead_letter_and_its_neighbour_a_row(
    endpoints: Endpoints, lake: LakeReader, purchases: Contract, request: pytest.FixtureRequest, damage, reason: str
) -> None:
    name = f"e2e-damaged-{request.node.callspec.id}"
    damaged = damage(_batch(purchases, 0, [1.0, 2.0]))
    with RawDevice(endpoints, name) as device:
        assert device.publish(damaged) == 0
        assert device.publish(_batch(purchases, 0, [3.0])) == 0
    _arrived(lake, name, [0])
    letters = eventually(lambda: _dead_letters(endpoints, name) or None, f"a dead letter of {name}")
    assert [(letter.reason, letter.original) for letter in letters] == [(reason, damaged)]


def test_an_unknown_contract_waits_in_the_dead_letters_without_a_watermark(
    endpoints: Endpoints, lake: LakeReader, purchases: Contract, device: RawDevice
) -> None:
    stranger = msgspec.structs.replace(purchases, fields=(*purchases.fields, Field(99, "colour", FieldType.STRING)))
    unknown = _batch(stranger, 0, [1.0])
    device.publish(unknown)
    device.publish(_batch(purchases, 5, [2.0]))
    _arrived(lake, device.name, [5])
    letters = eventually(lambda: _dead_letters(endpoints, device.name) or None, "a dead letter")
    assert {(letter.reason, letter.original) for letter in letters} == {("unknown_contract", unknown)}


def test_nobody_publishes_under_another_name(
    endpoints: Endpoints, lake: LakeReader, purchases: Contract, device: RawDevice
) -> None:
    victim = f"{device.name}-victim"
    assert device.publish(_batch(purchases, 0, [1.0]), topics.up(0, victim)) == NOT_AUTHORISED
    assert device.publish(_batch(purchases, 0, [2.0])) == 0
    _arrived(lake, device.name, [0])
    assert _rows_of(lake, victim) == []


@pytest.mark.parametrize("topic", ["fl/v1/nonsense", "fl/v1/down/another/ack", "$SYS/broker/uptime"])
def test_a_topic_that_is_not_its_own_is_refused(device: RawDevice, topic: str) -> None:
    assert device.publish(b"anything", topic) == NOT_AUTHORISED


def test_rows_that_break_the_contract_are_quarantined_by_the_lake(
    endpoints: Endpoints, lake: LakeReader, purchases: Contract, device: RawDevice
) -> None:
    amounts = [1.0, float("nan"), 3.0, 4.0]
    device.publish(_batch(purchases, 0, amounts, ["C-1", "C-2", "客" * 65, "C-4"]))
    _arrived(lake, device.name, [0, 3])

    def refused() -> dict[int, str] | None:
        rows = lake.read("lake_a", "ops.quarantine")
        mine = rows.filter(pc.equal(rows["origin"], device.name)).to_pylist()
        return {row["refused_seq"]: row["rule"] for row in mine if row["refused_by"] == "lake"} or None

    assert eventually(refused, "quarantined rows") == {1: "dollar_value.finite", 2: "customer_id.max_length"}


def test_rows_that_break_the_contract_are_refused_by_the_device_with_their_text(
    endpoints: Endpoints, lake: LakeReader, material: Material, device_name: str, tmp_path: Path
) -> None:
    good = msgspec.json.encode({**PURCHASE, "dollar_value": 11.77}).decode()
    lines = [
        good,
        good.replace("11.77", "NaN"),
        good.replace("C-00001", "客" * 65),
        "not json at all",
        good,
    ]
    file = tmp_path / "events.jsonl"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    agent = AgentProcess(prepare(endpoints, material.bundle_dir, Replay(device_name, "purchases", file)))
    agent.start()
    try:
        ledger = agent.wait(90)
    finally:
        agent.terminate(5)
    assert ledger["unexplained"] == 0
    stream = ledger["streams"]["purchases"]
    assert (stream["observed"], stream["kept"]) == (5, 2)
    assert sum(stream["dropped"].values()) == 3
    assert _rows_of(lake, device_name) == [0, 4]
    rows = lake.read("lake_a", "ops.quarantine")
    mine = rows.filter(pc.equal(rows["origin"], device_name)).sort_by("refused_seq").to_pylist()
    assert [(row["refused_seq"], row["rule"], row["refused_by"]) for row in mine] == [
        (1, "dollar_value.finite", "device"),
        (2, "customer_id.max_length", "device"),
        (3, "event.json", "device"),
    ]
    assert mine[2]["original"] == "not json at all"
