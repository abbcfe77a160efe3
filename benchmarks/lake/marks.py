"""Watermarks as they come: what the lake has acknowledged, and when a reader of the topic knew it."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Final, Self

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from contracts import ranges, watermark
from contracts.errors import OperatorMustActError
from contracts.ranges import RangeSet
from contracts.topics import WATERMARKS
from contracts.watermark import Watermark

POLL_S: Final = 0.05
MESSAGES_AT_ONCE: Final = 5_000
STALLED_S: Final = 180.0  # s without a new mark after which none is expected any more; every outage here is shorter
Stream = tuple[str, str]  # origin, contract


class Marks:
    """Follows the topic from its start, from a thread of its own, while entered.

    `on_mark(watermark, received_s)` is called from that thread for every message.
    """

    def __init__(self, bootstrap: str, on_mark: Callable[[Watermark, float], None] | None = None) -> None:
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "benchmark-marks",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 5,
                "reconnect.backoff.max.ms": 500,
                "log_level": 0,
            }
        )
        self._consumer.assign([TopicPartition(WATERMARKS, 0, OFFSET_BEGINNING)])
        self._on_mark = on_mark
        self._changed = threading.Condition()
        self._held: dict[tuple[str, str, int], RangeSet] = {}
        self._events: dict[str, int] = {}
        self._last_s = 0.0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="marks", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        self._consumer.close()

    def events(self, contract: str) -> int:
        """Return how many sequence numbers of a contract are acknowledged, over all origins and epochs."""
        with self._changed:
            return self._events.get(contract, 0)

    def held(self) -> Mapping[tuple[str, str, int], RangeSet]:
        """Return the ranges by (origin, contract, epoch)."""
        with self._changed:
            return dict(self._held)

    def await_events(
        self, wanted: Mapping[str, int], within_s: float, passed: Callable[[], object] = lambda: None
    ) -> float:
        """Wait until so many events of each contract are acknowledged; return when the last mark came (Unix s).

        `passed` is called about once a second. Raises OperatorMustActError when time runs out or no more comes.
        """
        began_s = time.time()
        deadline_s = began_s + within_s
        while True:
            with self._changed:
                self._changed.wait(1.0)
                if all(self._events.get(name, 0) >= count for name, count in wanted.items()):
                    return self._last_s
                found, still_s = dict(self._events), time.time() - max(began_s, self._last_s)
            passed()
            if time.time() > deadline_s or still_s > STALLED_S:
                raise OperatorMustActError(
                    f"watermarks: expected {dict(wanted)} events within {within_s:.0f} s, found {found}, "
                    f"nothing new for {still_s:.0f} s"
                )

    def _run(self) -> None:
        while not self._stopped.is_set():
            read = self._consumer.consume(MESSAGES_AT_ONCE, POLL_S)
            now_s = time.time()
            for message in read:
                if message.error() is None and (value := message.value()):
                    self._take(watermark.decode_watermark(value), now_s)
            if read:
                with self._changed:
                    self._changed.notify_all()

    def _take(self, mark: Watermark, now_s: float) -> None:
        key = (mark.origin, mark.contract, mark.epoch)
        with self._changed:
            before = self._held.get(key, ranges.EMPTY)
            after = mark.committed if not before else ranges.union((*before, *mark.committed))
            if after != before:
                self._held[key] = after
                grown = ranges.size(after) - ranges.size(before)
                self._events[mark.contract] = self._events.get(mark.contract, 0) + grown
                self._last_s = now_s
        if self._on_mark is not None:
            self._on_mark(mark, now_s)
