"""The gateway process: one thread owns the broker and all state, one serves the producer, one reads watermarks."""

import logging
import os
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Final

from contracts import watermark
from contracts.errors import OperatorMustActError
from contracts.ports import Clock
from contracts.topics import is_origin
from contracts.watermark import Watermark
from gateway import status
from gateway.adapters.broker import Broker
from gateway.adapters.log import Log
from gateway.adapters.wake import Bell
from gateway.adapters.watermarks import BadWatermark, WatermarkReader
from gateway.config import GatewayConfig
from gateway.core.acks import AckPlan
from gateway.core.receipts import InFlight, Receipts
from gateway.core.routing import REASON_BAD_WATERMARK, Record, refuse, route
from gateway.status import GatewayStatus

TURN_S: Final = 0.5  # seconds; longest wait when nothing happens
STATUS_EVERY_S: Final = 1.0
STALL_S: Final = 5.0  # seconds without an acknowledgement by Kafka before it is said aloud
STALL_REPEAT_S: Final = 30.0
STOP_FLUSH_S: Final = 5.0  # below the supervisor's patience after SIGTERM
REFUSALS_LOGGED_PER_S: Final = 10  # a broken device must not fill the disk; the status file counts them all

_LOG: Final = logging.getLogger(__name__)


class Gateway:
    """Wires the broker, the log and the watermarks. `run` returns after `stop`."""

    def __init__(self, config: GatewayConfig, clock: Clock, ready_file: Path, status_file: Path) -> None:
        self._config, self._clock = config, clock
        self._ready_file, self._status_file = ready_file, status_file
        self._stop = Event()
        self._bell = Bell()
        self._receipts, self._acks = Receipts(), AckPlan()
        self._log = Log(config.kafka_bootstrap, self._bell)
        self._reader = WatermarkReader(config.kafka_bootstrap, self._bell)
        self._broker = Broker(config.mqtt, config.shard, self, self._bell, clock)
        self._dead: Counter[str] = Counter()
        self._forwarded = self._failures = self._connections = self._watermarks = self._published = 0
        self._last_error, self._last_error_at_ms = "", 0
        self._ready = False
        self._status_at_s = self._stall_at_s = self._refusals_from_s = 0.0
        self._refusals_logged = 0

    def stop(self) -> None:
        """End `run`; may be called from a signal handler."""
        self._stop.set()
        self._bell.ring()

    def run(self) -> None:
        """Serve until stopped. Raises LogFatalError, or what ended one of the threads."""
        self._ready_file.unlink(missing_ok=True)
        with ThreadPoolExecutor(2, thread_name_prefix="gateway") as threads:
            try:
                workers = [threads.submit(self._log.run, self._stop), threads.submit(self._reader.run, self._stop)]
                while not self._stop.is_set():
                    self._turn(workers)
                self._drain()
            finally:
                self._stop.set()
                self._ready_file.unlink(missing_ok=True)
        self._broker.close()
        self._write_status()
        self._bell.close()
        _LOG.info(
            "stopped forwarded=%d dead=%d unacknowledged=%d",
            self._forwarded,
            self._dead.total(),
            self._receipts.in_flight,
        )

    # What the broker tells, as its listener.

    def connected(self) -> None:
        """Void old packet identifiers, and give the broker every document again: it may have been wiped."""
        self._connections += 1
        self._receipts.connected()
        self._acks.republish(self._clock.monotonic_s())

    def disconnected(self, why: str) -> None:
        """Remember why."""
        self._note_error(f"broker: {why}")

    def message(self, mid: int | None, qos: int, topic: str, payload: bytes) -> None:
        """Take a message and hand it to the log."""
        record = route(topic, payload, self._clock.now_ms())
        if record.refused is not None:
            self._log_refusal(topic, record)
        self._accept(mid, qos, record)

    def full(self) -> bool:
        """Whether reading must pause."""
        return self._receipts.full

    # One turn of the loop.

    def _turn(self, workers: list[Future[None]]) -> None:
        for worker in workers:
            if worker.done():
                worker.result()
        now_s = self._clock.monotonic_s()
        self._take_deliveries(now_s)
        for entry in self._receipts.take_retries(now_s):
            self._produce(entry)
        self._take_watermarks(now_s)
        for document in self._acks.take(now_s, self._broker.acks_free):
            self._broker.publish_ack(document.origin, watermark.encode(document))
            self._published += 1
        self._note_readiness()
        self._note_stall(now_s)
        if now_s - self._status_at_s >= STATUS_EVERY_S:
            self._status_at_s = now_s
            self._write_status()
        self._broker.turn(self._timeout_s(now_s))

    def _timeout_s(self, now_s: float) -> float:
        due = [self._receipts.next_retry_s()]
        if self._broker.acks_free > 0:  # otherwise the broker's confirmation ends the wait
            due.append(self._acks.next_due_s())
        return max(0.0, min([TURN_S, *(at_s - now_s for at_s in due if at_s is not None)]))

    def _accept(self, mid: int | None, qos: int, record: Record) -> None:
        self._produce(self._receipts.accept(mid, qos, record, self._clock.monotonic_s()))

    def _produce(self, entry: InFlight) -> None:
        if not self._log.produce(entry):
            self._receipts.failed(entry.token, self._clock.monotonic_s())
            self._note_error("kafka: the producer's queue is full")

    def _take_deliveries(self, now_s: float) -> None:
        for delivery in self._log.deliveries():
            if delivery.error is not None:
                self._failures += 1
                pause_s = self._receipts.failed(delivery.token, now_s)
                self._note_error(f"kafka: {delivery.error}")
                _LOG.error(
                    "delivery_failed why=%r retry_in_s=%.1f do=%r", delivery.error, pause_s,
                    "check Kafka and its topics; the message is kept and not acknowledged",
                )  # fmt: skip
                continue
            record = self._receipts.record(delivery.token)
            if record.refused is None:
                self._forwarded += 1
            else:
                self._dead[record.refused] += 1
            receipt = self._receipts.delivered(delivery.token)
            if receipt is not None:
                self._broker.acknowledge(receipt.mid, receipt.qos)

    def _take_watermarks(self, now_s: float) -> None:
        for item in self._reader.take():
            match item:
                case Watermark() if is_origin(item.origin):
                    self._watermarks += 1
                    self._acks.note(item, now_s)
                case Watermark():
                    detail = f"watermark of {item.origin!r}: not a name that a device may have"
                    self._refuse_watermark(BadWatermark("watermark", detail, watermark.encode(item)))
                case BadWatermark():
                    self._refuse_watermark(item)

    def _refuse_watermark(self, bad: BadWatermark) -> None:
        record = refuse(bad.source, None, REASON_BAD_WATERMARK, bad.detail, bad.original, self._clock.now_ms())
        self._log_refusal(bad.source, record)
        self._accept(None, 0, record)

    def _drain(self) -> None:
        """Give what is in flight a last chance to be acknowledged; the rest is sent again to the next process."""
        self._log.flush(STOP_FLUSH_S)
        try:
            self._take_deliveries(self._clock.monotonic_s())
        except OperatorMustActError as error:
            _LOG.error("stopped_undelivered why=%r", str(error))
        self._broker.turn(0.0)

    # What the gateway says.

    def _note_readiness(self) -> None:
        if self._ready or not (self._broker.subscribed and self._log.available and self._reader.caught_up):
            return
        self._ready = True
        self._ready_file.write_text(f"{os.getpid()}\n")
        _LOG.info("ready shard=%d origins=%d", self._config.shard, self._acks.origins)

    def _note_stall(self, now_s: float) -> None:
        oldest_s = self._receipts.oldest_s()
        if oldest_s is None or now_s - oldest_s < STALL_S or now_s - self._stall_at_s < STALL_REPEAT_S:
            return
        self._stall_at_s = now_s
        self._note_error(f"kafka: no acknowledgement for {now_s - oldest_s:.0f} s")
        _LOG.warning(
            "stalled in_flight=%d oldest_s=%.0f bootstrap=%s do=%r",
            self._receipts.in_flight, now_s - oldest_s, self._config.kafka_bootstrap,
            "check that Kafka runs and has disk space; devices keep what is not acknowledged",
        )  # fmt: skip

    def _log_refusal(self, source: str, record: Record) -> None:
        now_s = self._clock.monotonic_s()
        if now_s - self._refusals_from_s >= 1.0:
            self._refusals_from_s, self._refusals_logged = now_s, 0
        self._refusals_logged += 1
        if self._refusals_logged <= REFUSALS_LOGGED_PER_S:
            _LOG.warning("refused source=%r reason=%s detail=%r", source, record.refused, record.detail)

    def _note_error(self, text: str) -> None:
        self._last_error, self._last_error_at_ms = text, self._clock.now_ms()

    def _write_status(self) -> None:
        now = GatewayStatus(
            pid=os.getpid(),
            shard=self._config.shard,
            ready=self._ready,
            broker_connected=self._broker.subscribed,
            kafka_available=self._log.available,
            forwarded=self._forwarded,
            dead=dict(self._dead),
            in_flight=self._receipts.in_flight,
            in_flight_bytes=self._receipts.in_flight_bytes,
            paused=self._receipts.full,
            delivery_failures=self._failures,
            connections=self._connections,
            watermarks=self._watermarks,
            acks_published=self._published,
            origins=self._acks.origins,
            last_error=self._last_error,
            last_error_at_ms=self._last_error_at_ms,
            updated_at_ms=self._clock.now_ms(),
        )
        try:
            status.write(self._status_file, now)
        except OSError as error:  # a full disk must not stop the bridge
            _LOG.warning("status_not_written file=%s why=%r do=%r", self._status_file, str(error), "free disk space")
