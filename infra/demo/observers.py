"""What watches a run from outside, each in its own thread: freshness through Trino, latencies of queries, decisions."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from msgspec import Struct

ERRORS_KEPT_MAX: Final = 20  # messages; the first ones tell what went wrong
ERROR_PAUSE_S: Final = 0.5  # s; a part that is being restarted is asked again, not hammered


class Sample(Struct, frozen=True):
    """One latency, and when it was taken (Unix ms)."""

    at_ms: float
    latency_ms: float


class Observer:
    """Calls `look` again and again until stopped; `look` returns the samples it took.

    An error named in `passing` is kept and the next call follows after a pause: the demo kills parts while it is
    watched. Any other error ends the observer and is raised again by `stop`.
    """

    def __init__(
        self,
        name: str,
        look: Callable[[], Sequence[Sample]],
        passing: tuple[type[Exception], ...],
        limit: int | None = None,
    ) -> None:
        self.name = name
        self.samples: list[Sample] = []
        self.errors: list[str] = []
        self.calls = 0
        self.failure: Exception | None = None
        self._look = look
        self._passing = passing
        self._limit = limit
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"observe-{name}", daemon=True)

    def start(self) -> "Observer":
        """Begin; returns itself."""
        self._thread.start()
        return self

    def wait(self, timeout_s: float) -> bool:
        """Wait until the limit of calls is reached; False when the time was not enough."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def stop(self) -> list[Sample]:
        """End after the call under way and return all samples."""
        self._stopped.set()
        self._thread.join()
        if self.failure is not None:
            raise self.failure
        return self.samples

    def latencies_ms(self) -> list[float]:
        """All latencies so far."""
        return [sample.latency_ms for sample in self.samples]

    def _run(self) -> None:
        while not self._stopped.is_set() and (self._limit is None or self.calls < self._limit):
            try:
                self.samples.extend(self._look())
                self.calls += 1
            except self._passing as error:
                if len(self.errors) < ERRORS_KEPT_MAX:
                    self.errors.append(f"{type(error).__name__}: {error}"[:300])
                self._stopped.wait(ERROR_PAUSE_S)
            except Exception as error:  # noqa: BLE001 - raised again by `stop`; a thread has no other way to say it
                self.failure = error
                return


class Rows(Protocol):
    """A query that returns its rows."""

    def __call__(self, sql: str) -> Sequence[Sequence[object]]: ...


def timed(call: Callable[[], object]) -> Callable[[], list[Sample]]:
    """Return a look that takes one sample: how long the call took."""

    def look() -> list[Sample]:
        started = time.perf_counter()
        call()
        return [Sample(time.time() * 1_000, (time.perf_counter() - started) * 1_000)]

    return look


def trino_time(unix_us: int) -> str:
    """Return a moment with the precision of a table's columns; compared with a finer one, they are all read."""
    return f"CAST(from_unixtime_nanos({unix_us} * 1000) AS timestamp(6) with time zone)"


def freshness(rows: Rows, table: str, origin: str) -> Callable[[], list[Sample]]:
    """Return a look that sees which sealed batches of an origin became visible since the last one.

    A batch's latency runs from its `sealed_at` (for a probe: its scheduled send time) to the end of the first query
    that showed it, so waiting for the next poll is part of the figure.
    """
    newest_us = int(time.time() * 1_000_000)

    def look() -> list[Sample]:
        nonlocal newest_us
        found = rows(
            f"SELECT CAST(to_unixtime(sealed_at) * 1000000 AS BIGINT) FROM {table} "
            f"WHERE origin = '{origin}' AND sealed_at > {trino_time(newest_us)}"
        )
        seen_ms = time.time() * 1_000
        # Repeated values are dropped here: DISTINCT would cost the engine two more fragments a poll.
        sealed = sorted({int(str(row[0])) for row in found})
        newest_us = max([newest_us, *sealed])
        return [Sample(seen_ms, seen_ms - at / 1_000) for at in sealed]

    return look
