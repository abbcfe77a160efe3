"""The messages in flight: examples, and worlds in which broker, log and connection fail as a seed says."""

from random import Random

import pytest

from gateway.core.receipts import RETRY_FIRST_S, RETRY_MAX_S, Acknowledge, Receipts
from gateway.core.routing import Record

RECORD = Record("topic", b"key", b"12345")


def test_a_message_is_acknowledged_once_it_is_delivered() -> None:
    receipts = Receipts()
    receipts.connected()
    entry = receipts.accept(7, 1, RECORD, 0.0)
    assert (receipts.in_flight, receipts.in_flight_bytes, receipts.oldest_s()) == (1, 5, 0.0)
    assert receipts.delivered(entry.token) == Acknowledge(7, 1)
    assert (receipts.in_flight, receipts.in_flight_bytes, receipts.oldest_s()) == (0, 0, None)


def test_a_message_of_an_older_connection_is_not_acknowledged_on_this_one() -> None:
    receipts = Receipts()
    receipts.connected()
    entry = receipts.accept(7, 1, RECORD, 0.0)
    receipts.connected()
    assert receipts.delivered(entry.token) is None


def test_a_message_that_nobody_waits_for_is_not_acknowledged() -> None:
    receipts = Receipts()
    assert receipts.delivered(receipts.accept(None, 0, RECORD, 0.0).token) is None


def test_a_failed_message_is_handed_over_again_after_a_growing_pause() -> None:
    receipts = Receipts()
    token = receipts.accept(1, 1, RECORD, 0.0).token
    pauses = [receipts.failed(token, 0.0) for _ in range(40)]
    assert pauses[0] == RETRY_FIRST_S
    assert pauses == sorted(pauses)
    assert pauses[-1] == RETRY_MAX_S
    assert receipts.take_retries(RETRY_MAX_S - 0.1) == ()
    assert [entry.token for entry in receipts.take_retries(RETRY_MAX_S)] == [token]
    assert receipts.take_retries(RETRY_MAX_S) == ()
    assert receipts.in_flight == 1


@pytest.mark.parametrize(("messages_max", "bytes_max"), [(2, 1_000), (1_000, 10)])
def test_a_full_window_pauses_reading_until_something_is_delivered(messages_max: int, bytes_max: int) -> None:
    receipts = Receipts(messages_max, bytes_max)
    first = receipts.accept(1, 1, RECORD, 0.0)
    seen = [receipts.full]
    receipts.accept(2, 1, RECORD, 0.0)
    seen.append(receipts.full)
    receipts.delivered(first.token)
    seen.append(receipts.full)
    assert seen == [False, True, False]


class World:
    """A broker with sessions, a log that refuses and delays, and a gateway process that dies; one seed decides all.

    The broker holds messages by packet identifier until they are acknowledged, sends them again on every connection,
    and starts its identifiers again at 1 when it is wiped (then the devices, whose spools no watermark has freed, send
    again what the log does not hold).
    """

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.now_s = 0.0
        self.spool = {f"batch-{n}".encode() for n in range(60)}
        self.unsent = sorted(self.spool)
        self.session: dict[int, bytes] = {}
        self.sent: list[int] = []
        self.next_mid = 1
        self.log: set[bytes] = set()
        self.producing: list[int] = []
        self.receipts = Receipts(in_flight_max=8)
        self.values: dict[int, bytes] = {}

    def run(self, steps: int) -> None:
        self.connect()
        for _ in range(steps):
            self.now_s += 0.1
            faults = (self.reconnect, self.wipe_broker, self.crash)
            calm = (self.publish, self.receive, self.settle, self.retry)
            (self.rng.choice(faults) if self.rng.random() < 0.03 else self.rng.choice(calm))()

    def finish(self) -> None:
        """No more faults: everything must settle."""
        for _ in range(2_000):
            self.now_s += 1.0
            self.publish()
            self.receive()
            self.retry()
            while self.producing:
                self.deliver(self.producing.pop(0))

    def connect(self) -> None:
        self.receipts.connected()
        self.sent = sorted(self.session)

    def reconnect(self) -> None:
        self.connect()

    def wipe_broker(self) -> None:
        self.session, self.next_mid = {}, 1
        self.unsent = sorted(self.spool - self.log)
        self.connect()

    def crash(self) -> None:
        self.receipts, self.producing = Receipts(in_flight_max=8), []
        self.connect()

    def publish(self) -> None:
        if self.unsent:
            self.session[self.next_mid] = self.unsent.pop(0)
            self.sent.append(self.next_mid)
            self.next_mid += 1

    def receive(self) -> None:
        if self.sent and not self.receipts.full:
            mid = self.sent.pop(0)
            entry = self.receipts.accept(mid, 1, Record("batches", None, self.session[mid]), self.now_s)
            self.producing.append(entry.token)

    def settle(self) -> None:
        if not self.producing:
            return
        token = self.producing.pop(0)
        if self.rng.random() < 0.3:
            self.receipts.failed(token, self.now_s)
        else:
            self.deliver(token)

    def deliver(self, token: int) -> None:
        value = self.receipts.record(token).value
        self.log.add(value)
        receipt = self.receipts.delivered(token)
        if receipt is not None:
            acknowledged = self.session.pop(receipt.mid)
            assert acknowledged == value, "a packet identifier of another connection was acknowledged"
            assert acknowledged in self.log

    def retry(self) -> None:
        self.producing += [entry.token for entry in self.receipts.take_retries(self.now_s)]


@pytest.mark.parametrize("seed", range(200))
def test_whatever_fails_the_log_gets_every_batch_and_the_broker_forgets_none_too_early(seed: int) -> None:
    world = World(seed)
    world.run(600)
    world.finish()
    assert world.log == world.spool, f"seed={seed}"
    assert world.session == {}, f"seed={seed}"
    assert (world.receipts.in_flight, world.receipts.in_flight_bytes) == (0, 0), f"seed={seed}"
