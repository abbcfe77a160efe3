"""The ingest process: follow the log, gather, plan, commit, tell the origins. One process writes all tables."""

import logging
import threading
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from msgspec import Struct

from contracts import microbatch
from contracts.contract import Contract
from contracts.errors import BatchError, ContractError, OutcomeUnknownError, RetrySafeError
from contracts.ports import Clock
from contracts.topics import BATCHES, CONTRACTS, DECISIONS
from contracts.watermark import Watermark
from lakehouse.commit import commit_tables, send_receipts
from lakehouse.errors import TableConflictError
from lakehouse.layout import lacking
from lakehouse.plan import Round, View, plan
from lakehouse.ports import Fault, Lake, LakeTable, Log, Message, no_fault
from lakehouse.registry import Registry
from lakehouse.state import Known, Positions, TableState, furthest, known
from lakehouse.status import IngestStatus
from lakehouse.watermarks import watermarks

IDLE_WAIT_S: Final = 0.25  # seconds; how late a stop is noticed when nothing arrives
# Seconds from the first message of a quiet log to its round: batches of one event come from several origins within it.
LINGER_S: Final = 0.02
# Share of the time that rounds may take: on a busy machine they come less often instead of taking everybody's
# processor, and a larger round costs hardly more than a small one.
BUSY_SHARE_MAX: Final = 0.5
APART_MAX_S: Final = 1.0  # seconds; however busy, a row waits no longer than this for its round to begin
CHUNK_MESSAGES: Final = 256  # messages of one poll; 256 of the largest are 32 MB
ROUND_MESSAGES_MAX: Final = 20_000  # messages; bounds the planning time of a backlog's round to about a second
# Bytes once decompressed; decode, checks and the writer hold about four copies: 0.5 GB at most.
ROUND_RAW_BYTES_MAX: Final = 134_217_728
TABLES_AT_ONCE: Final = 8  # threads; a commit mostly waits for store and catalog
RETRY_WAIT_S: Final = (0.2, 0.5, 1.0, 2.0, 5.0)  # seconds before the n-th recovery in a row; the last one repeats

_log = logging.getLogger(__name__)


class _Open(Struct):
    """A contract's table and what this process knows of it."""

    table: LakeTable
    state: TableState
    known: Known
    snapshot_id: int | None


class Ingest:
    """`recover` once, then `step` for ever; `run` does both and starts over after an outage."""

    def __init__(
        self, log: Log, lake: Lake, clock: Clock, commit_interval_ms: int, status: IngestStatus, fault: Fault = no_fault
    ) -> None:
        self._log, self._lake, self._clock, self._fault = log, lake, clock, fault
        self._interval_s = commit_interval_ms / 1_000
        self._status = status
        self._pool = ThreadPoolExecutor(TABLES_AT_ONCE, thread_name_prefix="table")
        self._registry = Registry()
        self._tables: dict[str, _Open] = {}
        self._positions: Positions = {}
        self._logs: dict[str, str] = {}
        self._carried: deque[Message] = deque()
        self._round_began_s = float("-inf")
        self._round_s = 0.0

    def run(self, stop: threading.Event, ready: threading.Event) -> None:
        """Work until stopped. An outage of log, store or catalog is waited out; `ready` says whether there is none.

        Raises FencedError and StateError, which a person must resolve.
        """
        failures = 0
        while not stop.is_set():
            try:
                self.recover()
                self._status.ready = True
                ready.set()
                while not stop.is_set():
                    if self.step():
                        failures = 0
            except (RetrySafeError, OutcomeUnknownError) as error:
                self._note(error)
                stop.wait(RETRY_WAIT_S[min(failures, len(RETRY_WAIT_S) - 1)])
                failures += 1
            finally:
                self._status.ready = False
                ready.clear()

    def recover(self) -> None:
        """Open the tables of all published contracts and go to where the log must be read on; repeat all watermarks."""
        self._registry = Registry()
        self._tables, self._positions = {}, {}
        self._carried.clear()
        self._logs = self._log.identities((BATCHES, DECISIONS))
        published, ends = self._log.read_all(CONTRACTS)
        for message in published:
            self._follow(message)
        for contract in list(self._registry.newest.values()):
            self._open(contract)
            self._open_older(contract.id)
        positions = furthest((opened.state for opened in self._tables.values()), self._logs)
        assigned = self._log.assign((BATCHES, DECISIONS, CONTRACTS), {**positions, **ends})
        self._positions = {name: at for name, at in assigned.items() if name.rpartition("/")[0] != CONTRACTS}
        send_receipts(self._all_watermarks(), None, self._log, self._fault)
        self._status.recoveries += 1
        _log.info("reading on from %s, %d tables", self._positions, len(self._tables))

    def step(self) -> bool:
        """Gather and commit one round; say whether there was one.

        Errors: RetrySafeError and OutcomeUnknownError ask for `recover`, the others for a person.
        """
        messages = self._gather()
        if not messages:
            return False
        planned_s = self._clock.monotonic_s()
        view = View(
            registry=self._registry,
            states={name: opened.state for name, opened in self._tables.items()},
            known={name: opened.known for name, opened in self._tables.items()},
            logs=self._logs,
            begins=self._positions,
            layouts={name: opened.table.layout for name, opened in self._tables.items()},
        )
        round_ = plan(messages, view, self._clock.now_ms())
        commit_s = self._clock.monotonic_s()
        snapshots = commit_tables(round_, {n: o.table for n, o in self._tables.items()}, self._pool, self._fault)
        for change in round_.changes:
            opened = self._tables[change.contract]
            opened.state, opened.known = change.state, change.known
            opened.snapshot_id = snapshots[change.contract]
        send_receipts(self._owed(round_), round_, self._log, self._fault)
        self._positions = round_.ends
        self._round_s = self._clock.monotonic_s() - planned_s
        self._count(round_, len(messages), planned_s, commit_s)
        return True

    def close(self) -> None:
        """Release threads and connections."""
        self._pool.shutdown()
        self._log.close()
        self._lake.close()

    def _gather(self) -> list[Message]:
        """Collect what is committed together.

        Rounds start at least a commit interval apart, which bounds the number of snapshots, and so far apart that they
        take at most BUSY_SHARE_MAX of the time; after a quiet time the first message waits only for its immediate
        neighbours.
        """
        if not self._carried:
            self._carried.extend(self._poll(1, IDLE_WAIT_S))
            if not self._carried:
                return []
        apart_s = max(self._interval_s, min(APART_MAX_S, self._round_s / BUSY_SHARE_MAX))
        due_s = max(self._clock.monotonic_s() + LINGER_S, self._round_began_s + apart_s)
        gathered: list[Message] = []
        raw_bytes = 0
        drained = False
        while len(gathered) < ROUND_MESSAGES_MAX and raw_bytes < ROUND_RAW_BYTES_MAX:
            if not self._carried:
                if drained:
                    break
                left_s = max(0.0, due_s - self._clock.monotonic_s())
                self._carried.extend(self._poll(CHUNK_MESSAGES, left_s))
                # A full chunk says that there is more: a backlog is taken in large rounds, however late it gets.
                drained = len(self._carried) < CHUNK_MESSAGES and self._clock.monotonic_s() >= due_s
                continue
            message = self._carried.popleft()
            gathered.append(message)
            raw_bytes += _raw_bytes(message)
        self._round_began_s = self._clock.monotonic_s()
        return gathered

    def _poll(self, messages_max: int, timeout_s: float) -> list[Message]:
        """Poll, and follow the contracts topic on the way."""
        found: list[Message] = []
        for message in self._log.poll(messages_max, timeout_s):
            if message.topic != CONTRACTS:
                found.append(message)
            elif (contract := self._follow(message)) is not None:
                _log.info("contract %s %s", contract.id, contract.version)
                self._open(contract)
        return found

    def _follow(self, message: Message) -> Contract | None:
        try:
            return self._registry.take((message.key or b"").decode("utf-8", "replace"), message.value)
        except ContractError as error:
            self._note(error)
            return None

    def _open(self, contract: Contract) -> None:
        """Open a contract's table; a contract that does not fit is left out, so its batches wait."""
        try:
            table = self._lake.open(contract)
        except TableConflictError as error:
            self._registry.withdraw(contract)
            self._note(error)
            return
        if contract.id in self._tables:
            self._tables[contract.id].table.reload()
            return
        recovered = table.recover()
        self._tables[contract.id] = _Open(table, recovered.state, known(recovered.state), recovered.snapshot_id)

    def _open_older(self, contract_id: str) -> None:
        """Let a table have what only older versions say; each look costs a read of the catalog, so only those."""
        for older in self._registry.older(contract_id):
            layout = self._tables[contract_id].table.layout if contract_id in self._tables else None
            if layout is not None and lacking(older, layout.columns):
                self._open(older)

    def _owed(self, round_: Round) -> list[Watermark]:
        origins: dict[str, set[str]] = {}
        for contract, origin in round_.touched:
            origins.setdefault(contract, set()).add(origin)
        now_ms = self._clock.now_ms()
        return [
            mark
            for contract, some in sorted(origins.items())
            for mark in watermarks(
                contract, self._tables[contract].known, self._tables[contract].snapshot_id or 0, now_ms, some
            )
        ]

    def _all_watermarks(self) -> list[Watermark]:
        now_ms = self._clock.now_ms()
        return [
            mark
            for contract, opened in sorted(self._tables.items())
            for mark in watermarks(contract, opened.known, opened.snapshot_id or 0, now_ms)
        ]

    def _count(self, round_: Round, messages: int, planned_s: float, commit_s: float) -> None:
        status = self._status
        status.rounds += 1
        status.batches += messages
        status.refused_rows += round_.refused_rows
        for change in round_.changes:
            if change.rows is not None:
                status.rows[change.contract] = status.rows.get(change.contract, 0) + change.rows.num_rows
        for rule, count in round_.hints.items():
            status.hints[rule] = status.hints.get(rule, 0) + count
        for reason, count in Counter(letter.reason for letter in round_.dead).items():
            status.dead[reason] = status.dead.get(reason, 0) + count
        status.last_plan_ms = (commit_s - planned_s) * 1_000
        status.note_commit((self._clock.monotonic_s() - commit_s) * 1_000)
        status.last_round_at_ms = self._clock.now_ms()
        status.lag = self._log.lag(self._positions)

    def _note(self, error: Exception) -> None:
        _log.error("%s", error)
        self._status.last_error = str(error)
        self._status.last_error_at_ms = self._clock.now_ms()


def _raw_bytes(message: Message) -> int:
    """What a message inflates to, by its own verified header; one that does not parse is never inflated."""
    try:
        return microbatch.parse(message.value or b"")[0].raw_bytes
    except BatchError:
        return 0
