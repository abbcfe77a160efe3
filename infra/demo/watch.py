"""What is watched while data flows: freshness, decisions, the three-source query, the history endpoint, memory."""

import csv
import itertools
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

import httpx
import msgspec

from contracts.decisions import Decision
from contracts.errors import FieldlakeError
from federation.config import TrinoConfig
from federation.queries import canned
from federation.trino import TrinoClient
from infra.cli.decision_log import read_timed
from infra.demo.fleet import Fleet
from infra.demo.observers import Observer, Sample, freshness, timed
from infra.launcher.endpoints import Endpoints
from infra.launcher.parts.services import WARMER
from infra.launcher.supervision import Supervisor

PASSING: Final = (FieldlakeError, OSError, httpx.HTTPError)
HISTORY_PAUSE_S: Final = 0.05  # s between requests: an engineer looks, she does not load-test
FRESHNESS_PAUSE_S: Final = 0.1  # s between polls; part of what is measured, and less of a load than none
MEMORY_PAUSE_S: Final = 2.0  # s; reading the proportional size of 26 processes costs some ms each
HTTP_TIMEOUT_S: Final = 5.0


def trino_client(endpoints: Endpoints, session_properties: dict[str, str] | None = None) -> TrinoClient:
    """Return a client of its own, as the platform's user."""
    trino = endpoints.trino
    config = TrinoConfig(trino.host, trino.port, trino.ca_file, trino.user, trino.password)
    return TrinoClient(config, session_properties)


def watch_freshness(endpoints: Endpoints, table: str, origin: str) -> Observer:
    """Observe when batches of an origin become visible to a SELECT."""
    client = trino_client(endpoints)
    look = freshness(lambda sql: client.query(sql).rows, table, origin)
    pause = threading.Event()

    def unhurried() -> list[Sample]:
        pause.wait(FRESHNESS_PAUSE_S)
        return look()

    return Observer("freshness", unhurried, PASSING)


def watch_queries(
    run: Callable[[tuple[str, str]], object], assets: Sequence[tuple[str, str]], limit: int | None = None
) -> Observer:
    """Observe the three-source query with rotating (asset, account) pairs."""
    rotating = itertools.cycle(assets)
    return Observer("federated", timed(lambda: run(next(rotating))), PASSING, limit)


def watch_history(endpoints: Endpoints, assets: Sequence[str]) -> Observer:
    """Observe the history endpoint at the client, over one kept-alive connection."""
    target = endpoints.history
    client = httpx.Client(
        base_url=target.url,
        headers={"Authorization": f"Bearer {target.token}"},
        verify=ssl.create_default_context(cafile=target.ca_file),
        timeout=HTTP_TIMEOUT_S,
        trust_env=False,
    )
    rotating = itertools.cycle(assets)
    pause = threading.Event()

    def look() -> list[Sample]:
        pause.wait(HISTORY_PAUSE_S)
        started = time.perf_counter()
        client.get(f"/v1/assets/{next(rotating)}/history").raise_for_status()
        return [Sample(time.time() * 1_000, (time.perf_counter() - started) * 1_000)]

    return Observer("history", look, PASSING)


def watch_memory(fleet: Fleet) -> Observer:
    """Keep the largest memory seen of every agent."""
    pause = threading.Event()

    def look() -> list[Sample]:
        fleet.measure_memory()
        pause.wait(MEMORY_PAUSE_S)
        return []

    return Observer("memory", look, PASSING)


class DecisionWatch:
    """Collects decisions from the log with the time at which they were received."""

    def __init__(self, endpoints: Endpoints) -> None:
        self.received: list[tuple[Decision, float]] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(endpoints.kafka.bootstrap,), daemon=True)

    def start(self) -> "DecisionWatch":
        """Begin; returns itself."""
        self._thread.start()
        return self

    def wait_for(self, satisfied: Callable[[list[Decision]], bool], timeout_s: float) -> bool:
        """Wait until the decisions so far satisfy a condition."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if satisfied([decision for decision, _ in self.received]):
                return True
            self._stopped.wait(0.1)
        return False

    def stop(self) -> None:
        """End."""
        self._stopped.set()
        self._thread.join()

    def latencies_ms(self) -> list[float]:
        """From the sealing of the completing event's batch to the decision's receipt by a reader of its topic."""
        return [received_ms - decision.sealed_at_ms for decision, received_ms in self.received]

    def _run(self, bootstrap: str) -> None:
        for pair in read_timed(bootstrap, follow=True, stopped=self._stopped.is_set):
            self.received.append(pair)


def three_source_query(endpoints: Endpoints, now: Callable[[], datetime]) -> Callable[[tuple[str, str]], object]:
    """Return a call that runs the three-source query for one (asset, its account), as if asked at `now`.

    The replayed behaviour is older than the wall clock; asked at the wall clock, "the last days" would be empty and
    the query would read no file of store B.
    """
    query = canned.load("account_situation")
    client = trino_client(endpoints)

    def ask(pair: tuple[str, str]) -> object:
        asset_id, account_id = pair
        values = canned.everyday_values(query, asset_id, account_id, now())
        return client.query(query.sql, query.bind(values))

    return ask


def replayed_time(clicks: Sequence[Path], began_s: float, flow_s: float) -> Callable[[], datetime]:
    """Return a clock that goes through the event times of click files as fast as a fleet replays them."""
    ends = [_first_and_last(path) for path in clicks]
    first, last = min(begin for begin, _ in ends), max(end for _, end in ends)
    return lambda: first + (last - first) * min(1.0, (time.time() - began_s) / flow_s)


def _first_and_last(path: Path) -> tuple[datetime, datetime]:
    lines = path.read_bytes().splitlines()
    first, last = (datetime.fromisoformat(msgspec.json.decode(line)["occurred_at"]) for line in (lines[0], lines[-1]))
    return first, last


def first_assets(files: Sequence[Path], limit: int) -> list[str]:
    """Return the first distinct assets of replay files."""
    found: dict[str, None] = {}
    for path in files:
        with path.open("rb") as lines:
            found |= {msgspec.json.decode(line)["asset_id"]: None for line in itertools.islice(lines, limit)}
    return list(found)[:limit]


def assets_of(crm_dir: Path, limit: int) -> list[tuple[str, str]]:
    """Return the first (asset, account) pairs of the CRM's seed."""
    with (crm_dir / "assets.csv").open(encoding="utf-8", newline="") as lines:
        return [(row["asset_id"], row["account_id"]) for row in csv.DictReader(lines)][:limit]


def warm(
    endpoints: Endpoints,
    run: Callable[[tuple[str, str]], object],
    assets: Sequence[tuple[str, str]],
    probed: tuple[str, str],
    until_s: float,
) -> int:
    """Ask what will be measured, `probed` being (table, origin), and do not measure it, until a Unix time.

    Returns how many queries that were.
    """
    asked = [watch_queries(run, assets).start(), watch_freshness(endpoints, *probed).start()]
    wait_until(until_s)
    for observer in asked:
        observer.stop()
    return sum(observer.calls for observer in asked)


def rest_warmer(endpoints: Endpoints) -> int:
    """Stop the launcher's warmer, which would only compete with what is measured; return its number of queries.

    It rests by itself once the engine is warm, which on a small machine takes longer than anybody waits here.
    """
    answered = queries_answered(endpoints)
    Supervisor(endpoints.settings()).stop(WARMER)
    return answered


def wait_until(moment_s: float) -> None:
    """Wait until a Unix time."""
    threading.Event().wait(max(0.0, moment_s - time.time()))


def queries_answered(endpoints: Endpoints) -> int:
    """Return how many queries the warmer has run so far, 0 before its first."""
    path = endpoints.settings().conf_dir / "trino-warmer" / "config.json.status.json"
    return int(msgspec.json.decode(path.read_bytes()).get("queries", 0)) if path.exists() else 0
