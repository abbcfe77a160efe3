"""Warm the SQL engine in the background: `python -m federation.warmup --config FILE`.

Runs the canned queries with changing literals from the first moment that the engine and the tables are there until
`warm_queries_max`, then one now and then. FILE.status.json tells how fast they are; FILE.ready appears after every
canned query has succeeded once, holds the process id, and is removed at start and end.
"""

import argparse
import logging
import os
import signal
import sys
import threading
import time
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from contracts.errors import FieldlakeError, OutcomeUnknownError, RetrySafeError
from federation.config import FederationConfig, read_config
from federation.crm import FORGET_MISSING_SQL
from federation.errors import EngineStartingError, LoginRefusedError, QueryRefusedError
from federation.queries.canned import CannedQuery, Value, everyday_values, load
from federation.trino import TrinoClient
from federation.warmth import Durations, QueryWarmth, pause_s

ASSETS_MAX: Final = 1_000  # literals to rotate through
WAIT_S: Final = 1.0  # between tries while the engine or a table is missing
STATUS_INTERVAL_S: Final = 1.0
NICE: Final = 10  # the client's share is small, but it should not be the one that delays a commit
QUERIES: Final = ("account_situation", "asset_history")

_MISSING: Final = frozenset({"TABLE_NOT_FOUND", "SCHEMA_NOT_FOUND", "CATALOG_NOT_FOUND", "NOT_FOUND"})
_ASSETS_SQL: Final = f"SELECT asset_id, account_id FROM crm.crm.assets ORDER BY asset_id LIMIT {ASSETS_MAX}"
_LOG = logging.getLogger("federation.warmup")


class WarmupStatus(Struct, frozen=True):
    """The status file: totals, figures per canned query over its newest 200 runs, what it waits for."""

    pid: int
    queries: int
    queries_max: int
    ready: bool
    done: bool
    waiting_for: str | None
    warmth: dict[str, QueryWarmth]


class Warmer:
    """Runs the canned queries, one at a time, until it is told to stop."""

    def __init__(self, config: FederationConfig, status_file: Path, ready_file: Path) -> None:
        self._config = config
        self._status_file, self._ready_file = status_file, ready_file
        self._queries = [load(name) for name in QUERIES]
        self._durations = {query.name: Durations() for query in self._queries}
        self._waiting_for: str | None = None
        self._ready = False
        self._written_at_s = 0.0

    def run(self, stop: threading.Event) -> None:
        """Warm until `stop` is set; whatever the engine says, wait and try again, and log once what is missing."""
        self._ready_file.unlink(missing_ok=True)
        self._write_status()
        try:
            with TrinoClient(self._config.trino) as client:
                while not stop.is_set():
                    self._attempt(client, stop)
        finally:
            self._ready_file.unlink(missing_ok=True)

    def _attempt(self, client: TrinoClient, stop: threading.Event) -> None:
        try:
            if self._waiting_for is not None:
                client.query(FORGET_MISSING_SQL)
            assets = [(str(a), str(b)) for a, b in client.query(_ASSETS_SQL).rows]
            if not assets:
                self._wait("crm.crm.assets has no rows yet", stop)
                return
            for asset_id, account_id in cycle(assets):
                for query in self._queries:
                    if stop.is_set():
                        return
                    stop.wait(self._ask(client, query, everyday_values(query, asset_id, account_id, datetime.now(UTC))))
        except FieldlakeError as error:
            if isinstance(error, EngineStartingError):
                self._forget()
            if not may_pass(error):
                _LOG.error("warm-up: a canned query does not run: %s", error)
            self._wait(str(error), stop)

    def _ask(self, client: TrinoClient, query: CannedQuery, values: dict[str, Value]) -> float:
        """Run one query and return how long to rest after it, in seconds."""
        begin = time.monotonic()
        client.query(query.sql, query.bind(values))
        duration_s = time.monotonic() - begin
        self._durations[query.name].add(duration_s * 1_000)
        self._proceed()
        queries = sum(kept.queries for kept in self._durations.values())
        return pause_s(duration_s, queries, self._config.warm_queries_max)

    def _proceed(self) -> None:
        if self._waiting_for is not None:
            _LOG.info("warm-up: runs again")
            self._waiting_for = None
        if not self._ready and all(kept.queries for kept in self._durations.values()):
            self._ready = True
            self._ready_file.write_text(str(os.getpid()))
            _LOG.info("ready")
        if time.monotonic() - self._written_at_s >= STATUS_INTERVAL_S:
            self._write_status()

    def _forget(self) -> None:
        """Begin to count anew: the engine was down, and a new one knows nothing of what the old one had compiled."""
        self._durations = {query.name: Durations() for query in self._queries}

    def _wait(self, reason: str, stop: threading.Event) -> None:
        if self._waiting_for is None:
            _LOG.info("warm-up: waiting: %s", reason)
        self._waiting_for = reason
        self._write_status()
        stop.wait(WAIT_S)

    def _write_status(self) -> None:
        self._written_at_s = time.monotonic()
        replacement = self._status_file.with_name(self._status_file.name + ".new")
        replacement.write_bytes(msgspec.json.encode(self.status()))
        replacement.replace(self._status_file)

    def status(self) -> WarmupStatus:
        """Return what the status file says."""
        queries = sum(kept.queries for kept in self._durations.values())
        figures = {name: kept.warmth() for name, kept in self._durations.items()}
        return WarmupStatus(
            pid=os.getpid(),
            queries=queries,
            queries_max=self._config.warm_queries_max,
            ready=self._ready,
            done=queries >= self._config.warm_queries_max,
            waiting_for=self._waiting_for,
            warmth={name: warmth for name, warmth in figures.items() if warmth is not None},
        )


def may_pass(error: FieldlakeError) -> bool:
    """Say whether waiting can help: the engine starts, tables and accounts appear. A wrong statement stays wrong."""
    if isinstance(error, QueryRefusedError):
        return error.name in _MISSING
    return isinstance(error, RetrySafeError | OutcomeUnknownError | LoginRefusedError)


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, warm, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m federation.warmup",
        description="Warm the SQL engine with the canned queries.",
        epilog="example: python -m federation.warmup --config .fieldlake/conf/warmup.json",
    )
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="federation configuration, JSON")
    path: Path = parser.parse_args(arguments).config
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        config = read_config(path)
    except FieldlakeError as error:
        _LOG.error("%s", error)
        return 2
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    os.nice(NICE)
    Warmer(config, path.with_name(f"{path.name}.status.json"), path.with_name(f"{path.name}.ready")).run(stop)
    return 0


if __name__ == "__main__":
    sys.exit(main())
