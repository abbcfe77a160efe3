"""An ingest process: a writer and a committer side by side, over the same tables."""

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from contracts.ports import Clock
from contracts.topics import CONTRACTS
from lakehouse.committer import Committer
from lakehouse.contract_feed import ContractFeed
from lakehouse.ports import Lake, Log
from lakehouse.status import IngestStatus
from lakehouse.writer import Writer

TABLES_AT_ONCE: Final = 8  # threads of each half; a commit mostly waits for store and catalog
STOP_WAIT_S: Final = 60.0  # seconds; a commit under way ends before the process does

_log = logging.getLogger(__name__)


class Worker:
    """`run` until stopped, then `close`."""

    def __init__(
        self, name: str, log: Log, lake: Lake, clock: Clock, commit_interval_ms: int, status: IngestStatus
    ) -> None:
        self._lake, self._status, self._clock = lake, status, clock
        self._pools = [ThreadPoolExecutor(TABLES_AT_ONCE, thread_name_prefix=half) for half in ("write", "commit")]
        # Of their own: what one half has heard of a contract is no news to the other before it has heard it too.
        self._feeds = [ContractFeed(log.follow(CONTRACTS), self._note) for _ in self._pools]
        halves = list(zip(self._feeds, self._pools, strict=True))
        arguments = (clock, commit_interval_ms, halves[0][1], status)
        self._writer = Writer(name, log, lake, halves[0][0], *arguments, busy_s=time.thread_time)
        self._committer = Committer(log, lake, halves[1][0], clock, commit_interval_ms, halves[1][1], status)
        self._failed: list[BaseException] = []

    def run(self, stop: threading.Event, ready: threading.Event) -> None:
        """Work until stopped. Raises what a person must resolve, of either half; the other one is stopped too."""
        thread = threading.Thread(target=self._commit, args=(stop,), name="committer", daemon=True)
        thread.start()
        try:
            self._writer.run(stop, ready)
        finally:
            stop.set()
            ready.clear()
            thread.join(STOP_WAIT_S)
        if self._failed:
            raise self._failed[0]

    def close(self) -> None:
        """Release threads and connections."""
        self._writer.close()
        self._committer.close()
        for pool in self._pools:
            pool.shutdown()
        for feed in self._feeds:
            feed.close()
        self._lake.close()

    def _commit(self, stop: threading.Event) -> None:
        try:
            self._committer.run(stop)
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
            self._failed.append(error)
            stop.set()

    def _note(self, error: Exception) -> None:
        _log.error("%s", error)
        self._status.last_error = str(error)
        self._status.last_error_at_ms = self._clock.now_ms()
