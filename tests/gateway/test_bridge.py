"""The gateway as a process, between a real broker and a real log."""

from collections.abc import Callable

import pytest
from confluent_kafka import Message

from contracts import dead, microbatch, topics, watermark
from contracts.microbatch import HEADER_BYTES, Header
from contracts.watermark import AckDocument, Watermark
from gateway.adapters.broker import RECONNECT_FIRST_S
from gateway.core.receipts import IN_FLIGHT_BYTES_MAX
from tests.gateway.plant import Device, GatewayProcess, Plant
from tests.waiting import eventually

pytestmark = pytest.mark.stack

Connect = Callable[[str], Device]

LARGE_BYTES = 1_000_000  # bytes; just below the broker's largest packet
TRIES_WITHIN_MS = round(RECONNECT_FIRST_S * 10_000)  # ten times the pause before the first
SUCCESS, NO_MATCHING_SUBSCRIBERS, NOT_AUTHORIZED = 0x00, 0x10, 0x87  # MQTT 5, section 2.4


def batch(first_seq: int, payload: bytes = b"payload") -> bytes:
    return microbatch.seal(
        Header(fingerprint=7, epoch=1, first_seq=first_seq, span=1, rows=1, raw_bytes=8, sealed_at_ms=1), payload
    )


def first_seqs(messages: list[Message]) -> set[int]:
    return {microbatch.parse(message.value() or b"")[0].first_seq for message in messages}


def numbers(letters: list[Message]) -> set[int]:
    """Of dead letters whose originals consist of one number each."""
    return {dead.decode(letter.value() or b"").original[0] for letter in letters}


def has(*seqs: int) -> Callable[[list[Message]], bool]:
    return lambda messages: first_seqs(messages) >= set(seqs)


def mark(origin: str, end: int, contract: str = "telemetry") -> Watermark:
    return Watermark(origin, contract, 1, ((0, end),), 1, 1)


def test_a_batch_reaches_the_log_unchanged_under_its_origin(
    plant: Plant, gateway: GatewayProcess, connect: Connect, shard: int
) -> None:
    gateway.start()
    device = connect("unchanged")
    mid = device.publish(topics.up(shard, "unchanged"), batch(5))
    assert device.reason(mid) == SUCCESS
    (message,) = plant.await_records(topics.BATCHES, "unchanged", has(5), "the batch on the log")
    assert message.value() == batch(5)
    assert message.headers() == [(topics.ORIGIN_HEADER, b"unchanged")]
    found = gateway.await_status(lambda s: s.forwarded == 1 and s.in_flight == 0, "one forwarded, none in flight")
    assert found.ready
    assert found.dead == {}
    assert gateway.stop() == 0
    assert not gateway.ready_file.exists()


def test_nothing_is_acknowledged_while_the_log_is_down(
    plant: Plant, gateway: GatewayProcess, connect: Connect, shard: int
) -> None:
    gateway.start()
    device = connect("log-down")
    plant.log.kill()
    try:
        for seq in range(50):
            assert device.reason(device.publish(topics.up(shard, "log-down"), batch(seq))) == SUCCESS
        stuck = gateway.await_status(lambda s: s.in_flight == 50 and s.last_error != "", "50 in flight, and said so")
        assert stuck.forwarded == 0
        assert not stuck.kafka_available
        # Had any been acknowledged, the broker would not send it to the next process.
        gateway.kill()
        gateway.start(until_ready=False)
        gateway.await_status(lambda s: s.in_flight == 50, "the broker sent all of them again")
        assert "start Kafka" in gateway.log_file.read_text()
        assert not gateway.ready_file.exists()
    finally:
        plant.log.start()
    plant.await_records(topics.BATCHES, "log-down", has(*range(50)), "all batches after the log came back")
    gateway.await_status(lambda s: s.in_flight == 0 and s.ready, "nothing in flight any more")


def test_a_full_window_pauses_reading_and_everything_goes_on_when_the_log_is_back(
    plant: Plant, gateway: GatewayProcess, connect: Connect, shard: int
) -> None:
    gateway.start()
    device = connect("full-window")
    sent = IN_FLIGHT_BYTES_MAX // LARGE_BYTES + 20
    plant.log.kill()
    try:
        mids = [device.publish(topics.up(shard, "full-window"), bytes([n]) * LARGE_BYTES) for n in range(sent)]
        assert [device.reason(mid) for mid in mids] == [SUCCESS] * sent
        paused = gateway.await_status(lambda s: s.paused, "reading is paused")
        assert paused.in_flight < sent
    finally:
        plant.log.start()
    plant.await_records(
        topics.DEAD, "full-window", lambda found: numbers(found) == set(range(sent)), "every one refused"
    )
    plant.write_watermark(mark("full-window", 1))
    eventually(lambda: bool(device.acks), "watermarks flow again too")
    gateway.await_status(lambda s: s.in_flight == 0 and not s.paused, "nothing in flight any more")


def test_a_connection_lost_with_a_full_window_is_not_made_again_before_there_is_room(
    plant: Plant, gateway: GatewayProcess, connect: Connect, shard: int
) -> None:
    gateway.start()
    device = connect("lost-full")
    sent = IN_FLIGHT_BYTES_MAX // LARGE_BYTES + 20
    plant.log.kill()
    try:
        mids = [device.publish(topics.up(shard, "lost-full"), bytes([n]) * LARGE_BYTES) for n in range(sent)]
        assert [device.reason(mid) for mid in mids] == [SUCCESS] * sent
        full = gateway.await_status(lambda s: s.paused, "reading is paused")
        plant.take_session(shard)
        lost = gateway.await_status(lambda s: not s.broker_connected, "the connection is lost")
        later_ms = lost.updated_at_ms + TRIES_WITHIN_MS
        later = gateway.await_status(lambda s: s.updated_at_ms > later_ms, "there was time for some tries")
        assert (later.in_flight, later.connections) == (full.in_flight, 1), "the window would be held twice"
    finally:
        plant.log.start()
    plant.await_records(topics.DEAD, "lost-full", lambda found: numbers(found) == set(range(sent)), "every one, again")
    settled = gateway.await_status(lambda s: s.in_flight == 0 and not s.paused, "nothing in flight any more")
    assert (settled.connections, settled.broker_connected) == (2, True)


def test_a_restart_of_the_log_is_noticed_even_when_nothing_flows(plant: Plant, gateway: GatewayProcess) -> None:
    gateway.start()
    plant.log.kill()
    try:
        away = gateway.await_status(lambda s: not s.kafka_available, "the log is away")
    finally:
        plant.log.start()
    back = gateway.await_status(lambda s: s.kafka_available, "the log is back")
    assert (away.forwarded, back.forwarded) == (0, 0), "nothing flowed: the gateway looked by itself"
    assert (back.pid, back.in_flight) == (away.pid, 0), "it is the same process that goes on"


def test_kill_of_the_gateway_in_mid_stream_loses_nothing(
    plant: Plant, gateway: GatewayProcess, connect: Connect, shard: int
) -> None:
    gateway.start()
    device = connect("killed")
    total = 2_000
    for seq in range(total):
        device.publish(topics.up(shard, "killed"), batch(seq, bytes(2_000)))
        if seq == total // 2:
            plant.await_records(topics.BATCHES, "killed", lambda found: len(found) > 0, "the stream has begun")
            gateway.kill()
    gateway.start()
    records = plant.await_records(topics.BATCHES, "killed", has(*range(total)), "every batch on the log")
    assert first_seqs(records) == set(range(total)), "some may have come twice, none is missing and none is strange"
    settled = gateway.await_status(lambda s: s.in_flight == 0, "nothing in flight any more")
    assert settled.forwarded > 0, "the second process had a part in it: the kill was in mid-stream"
    assert settled.dead == {}


def test_bad_batches_are_dead_letters_and_the_good_neighbour_arrives(
    plant: Plant, gateway: GatewayProcess, connect: Connect, shard: int
) -> None:
    gateway.start()
    device = connect("bad-batches")
    damaged = bytearray(batch(1))
    damaged[-1] ^= 1
    bad = {
        batch(1)[: HEADER_BYTES - 1]: "truncated_batch",
        bytes(damaged): "wrong_checksum",
        b"garbage" * 100: "bad_format",
    }
    for payload in bad:
        assert device.reason(device.publish(topics.up(shard, "bad-batches"), payload)) == SUCCESS
    device.publish(topics.up(shard, "bad-batches"), batch(2))
    plant.await_records(topics.BATCHES, "bad-batches", has(2), "the good batch behind them")
    letters = plant.await_records(topics.DEAD, "bad-batches", lambda found: len(found) == len(bad), "the dead letters")
    found = [dead.decode(message.value() or b"") for message in letters]
    assert {letter.original: letter.reason for letter in found} == bad
    assert {letter.origin for letter in found} == {"bad-batches"}
    final = gateway.await_status(lambda s: s.in_flight == 0 and s.forwarded == 1, "all settled")
    assert final.dead == dict.fromkeys(bad.values(), 1)


def test_a_device_cannot_publish_under_anothers_name(
    plant: Plant, gateway: GatewayProcess, connect: Connect, shard: int
) -> None:
    gateway.start()
    thief = connect("thief")
    assert thief.reason(thief.publish(topics.up(shard, "victim"), batch(1))) == NOT_AUTHORIZED
    assert thief.reason(thief.publish(topics.up(shard, "thief"), batch(2))) == SUCCESS
    plant.await_records(topics.BATCHES, "thief", has(2), "the batch under its own name")
    final = gateway.await_status(lambda s: s.forwarded > 0, "the batch is counted")
    assert final.forwarded == 1, "what was sent under another's name went no further than the broker"


def test_topics_that_no_one_knows_are_refused_at_the_broker(
    gateway: GatewayProcess, connect: Connect, shard: int
) -> None:
    gateway.start()
    device = connect("lost-way")
    for topic in ("fl/v9/up/0/lost-way", f"{topics.up(shard, 'lost-way')}/deeper", topics.ack("lost-way")):
        assert device.reason(device.publish(topic, batch(1))) == NOT_AUTHORIZED, topic
    # No gateway owns this shard: the code tells the device, and the missing watermark keeps its spool.
    assert device.reason(device.publish(topics.up(999_999, "lost-way"), batch(2))) == NO_MATCHING_SUBSCRIBERS
    assert device.reason(device.publish(topics.up(shard, "lost-way"), batch(3))) == SUCCESS


def test_a_device_that_connects_later_learns_its_watermark_at_once(
    plant: Plant, gateway: GatewayProcess, connect: Connect
) -> None:
    plant.write_watermark(mark("latecomer", 10))
    gateway.start()
    plant.write_watermark(mark("latecomer", 20))
    plant.write_watermark(mark("latecomer", 5, contract="ledger"))
    expected = AckDocument("latecomer", (mark("latecomer", 5, contract="ledger"), mark("latecomer", 20)))
    early = connect("latecomer")
    eventually(
        lambda: bool(early.acks) and watermark.decode_ack(early.acks[-1]) == expected, "the watermark is published"
    )
    early.close()
    late = connect("latecomer")
    eventually(lambda: bool(late.acks), "the retained watermark")
    assert watermark.decode_ack(late.acks[0]) == expected


def test_a_wiped_broker_gets_the_watermarks_again(
    plant: Plant, gateway: GatewayProcess, connect: Connect, shard: int
) -> None:
    plant.write_watermark(mark("wiped", 10))
    gateway.start()
    gateway.await_status(lambda s: s.acks_published > 0, "the watermark is published")
    plant.wipe_broker()
    gateway.await_status(lambda s: s.connections == 2 and s.broker_connected, "the gateway is back")
    device = connect("wiped")
    eventually(lambda: bool(device.acks), "the retained watermark")
    assert watermark.decode_ack(device.acks[0]) == AckDocument("wiped", (mark("wiped", 10),))
    eventually(
        lambda: device.reason(device.publish(topics.up(shard, "wiped"), batch(1))) == SUCCESS, "a subscriber is there"
    )
    plant.await_records(topics.BATCHES, "wiped", has(1), "batches flow again")


def test_a_message_that_is_no_watermark_is_a_dead_letter(
    plant: Plant, gateway: GatewayProcess, connect: Connect
) -> None:
    gateway.start()
    plant.write(topics.WATERMARKS, b"odd/telemetry", b"not a watermark")
    plant.write_watermark(mark("odd", 3))
    device = connect("odd")
    eventually(lambda: bool(device.acks), "the good watermark behind it")
    final = gateway.await_status(lambda s: s.dead.get("bad_watermark", 0) > 0, "the dead letter is counted")
    assert final.in_flight == 0
