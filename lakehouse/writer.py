"""A worker's writing half: rounds of messages become data files, which are handed over to the tables' committers.

1. plan         What was polled is read, deduplicated against what is known, checked and sorted by table. Crash after:
                nothing has happened, the log is read again from the floors.
2. files        A data file per table is stored, side by side. Crash after: nothing refers to them, the sweep removes
                them.
3. quarantine   The part of the quarantine is handed over, if rows were refused, and dead letters are sent. Crash
                after: the round is read again; the quarantine's state says which rows it holds.
4. hand over    Every other part is, those with refused rows only once the quarantine's is settled. Crash after: the
                committers settle them; what is read again is known by then, or makes a handover that is stale.

A row's quarantine entry comes first because the table's ranges are what ends the replay: a table ahead of the
quarantine would skip the batch for ever and lose the row.

The next round is planned while those before are under way, by what the tables account for *and* what was handed over.
When that turns out to be wrong (an answer says stale, or no answer comes), everything is read anew: the tables' states,
and then the log from the floors.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from itertools import count
from typing import Final
from uuid import uuid4

import pyarrow as pa

from contracts import dead
from contracts.errors import OutcomeUnknownError, RetrySafeError
from contracts.ports import Clock
from contracts.topics import BATCHES, DEAD, DECISIONS, HANDOVERS, KAFKA_TOPICS, SETTLEMENTS
from lakehouse.contract_feed import ContractFeed
from lakehouse.errors import HandoverError, StaleError, StoreUnavailableError
from lakehouse.flights import Files, Flight, Flights
from lakehouse.gathering import Gathering
from lakehouse.handover import Handover, decode_settlement, encode, partition_of
from lakehouse.known_tables import KnownTables
from lakehouse.plan import Round, TablePart, plan
from lakehouse.ports import Fault, Lake, LakeTable, Log, Message, Step, no_fault
from lakehouse.positions import Positions, highest
from lakehouse.rows import QUARANTINE
from lakehouse.status import IngestStatus

GROUP: Final = "fieldlake-ingest"
TOPICS: Final = (BATCHES, DECISIONS)
ANSWERS_AT_ONCE: Final = 1_000  # messages of one look at the answers
IDLE_S: Final = 0.05  # seconds; how late a stop is noticed while only answers are waited for
WRITING_MAX: Final = 1  # rounds that are written while the next one is planned; their rows are in memory
FLIGHTS_MAX: Final = 4  # rounds under way; each holds its claims, and its files wait for a commit
# Seconds without an answer after which everything is read anew: longer than a commit is tried for.
ANSWER_WITHIN_S: Final = 150.0
RETRY_WAIT_S: Final = (0.2, 0.5, 1.0, 2.0, 5.0)  # seconds before the n-th recovery in a row; the last one repeats
PARTITIONS: Final = next(topic.partitions for topic in KAFKA_TOPICS if topic.name == HANDOVERS)

_log = logging.getLogger(__name__)


class Writer:
    """`step` for ever; `run` does, and starts over after an outage.

    `busy_s`: the processor time that the calling thread has used; by default the clock's, as if it never waited.
    """

    def __init__(
        self,
        name: str,
        log: Log,
        lake: Lake,
        feed: ContractFeed,
        clock: Clock,
        commit_interval_ms: int,
        pool: Executor,
        status: IngestStatus,
        fault: Fault = no_fault,
        token: Callable[[], str] = lambda: uuid4().hex,
        busy_s: Callable[[], float] | None = None,
    ) -> None:
        self._name, self._clock, self._fault = name, clock, fault
        self._pool, self._status = pool, status
        self._log = log
        self._share = log.share(GROUP, TOPICS, in_rounds=True)
        self._answers = log.follow(SETTLEMENTS)
        self._publisher = log.publisher()
        self._gathering = Gathering(clock, commit_interval_ms / 1_000)
        self._token = token
        self._busy_s = busy_s or clock.monotonic_s
        self._worker = ""
        self._numbers = count(1)
        self._tables = KnownTables(lake, feed, clock, self._note)
        self._answered_s = float("-inf")
        self._logs: dict[str, str] = {}
        self._positions: Positions = {}
        self._flights = Flights({})
        self._writing: deque[tuple[Flight, dict[str, Future[Files]]]] = deque()
        self._begun = self._has_share = False

    @property
    def worker(self) -> str:
        """The name under which answers come: another one each time that everything is read anew."""
        return self._worker

    def run(self, stop: threading.Event, ready: threading.Event) -> None:
        """Work until stopped. An outage of log, store or catalog is waited out; `ready` says whether there is none.

        Raises StateError, which a person must resolve.
        """
        failures = 0
        while not stop.is_set():
            try:
                if self.step():
                    failures = 0
                if self._begun:
                    self._status.ready = True
                    ready.set()
            except (RetrySafeError, OutcomeUnknownError) as error:
                self._begun = False
                if not isinstance(error, StaleError):
                    self._status.ready = False
                    ready.clear()
                    self._note(error)
                stop.wait(RETRY_WAIT_S[min(failures, len(RETRY_WAIT_S) - 1)])
                failures += 1

    def step(self) -> bool:
        """Do what is due: take a new share, hear answers, hand over, and plan a round; say whether there was one.

        Errors: RetrySafeError and OutcomeUnknownError ask for another step, which begins anew; the others for a person.
        """
        dealt = self._share.dealt()
        self._has_share = self._has_share or dealt is not None
        if not self._has_share:
            return False
        if dealt is not None or not self._begun or self._tables.must_be_read():
            self.recover()
        self._hear(0.0)
        self._take_stored(WRITING_MAX)
        self._hand_over()
        if len(self._flights) >= FLIGHTS_MAX:
            self._take_stored(0)
            self._hand_over()
            self._hear(IDLE_S)
            return False
        messages = self._gathering.gather(self._share.poll, self._share.fill)
        began_s = self._busy_s()
        if messages:
            self._round(messages)
        elif self._tables.is_due():
            self._tables.follow(self._logs)
        # With a backlog the next round is planned while this one is written.
        self._take_stored(WRITING_MAX if self._gathering.is_behind else 0)
        self._gathering.took(self._busy_s() - began_s)
        self._hand_over()
        return bool(messages)

    def recover(self) -> None:
        """Read the tables' states, and go to where the log must be read on."""
        self._begun = False
        self._worker = f"{self._name}/{self._token()}"
        self._gathering.clear()
        self._writing.clear()
        self._answers.rewind()  # before the states are read: what is answered from here on is not in them
        self._logs = self._log.identities(TOPICS)
        floors = self._tables.read(self._logs)
        self._positions = self._share.begin(highest(floors))
        self._flights = Flights(self._positions)
        self._status.parked = self._tables.parked
        if self._tables.parked:
            self._flights.hold()
        self._answered_s = self._clock.monotonic_s()
        self._status.recoveries += 1
        self._begun = True
        _log.info("%s: reading on from %s, %d tables", self.worker, self._positions, len(self._tables))

    def close(self) -> None:
        """Release connections."""
        self._share.close()
        self._answers.close()
        self._publisher.close()

    def _round(self, messages: list[Message]) -> None:
        began_s = self._clock.monotonic_s()
        planned = self._planned(messages)  # Step 1.
        self._fault(Step.PLANNED)
        if not len(self._flights):
            self._answered_s = self._clock.monotonic_s()
        self._writing.append((self._flights.begin(planned), self._write(planned.parts)))  # Step 2.
        for part in planned.parts:
            self._tables.know(part)
        self._positions = planned.ends
        self._bury(planned)
        self._count(planned, len(messages), began_s)

    def _planned(self, messages: list[Message]) -> Round:
        self._tables.hear(self._logs)
        planned = plan(messages, self._tables.view(self._positions), self._clock.now_ms())
        # Whoever sends by a new contract has seen it published; the end of its topic is asked for only then.
        if planned.is_unexplained and self._tables.follow(self._logs):
            planned = plan(messages, self._tables.view(self._positions), self._clock.now_ms())
        return planned

    def _write(self, parts: tuple[TablePart, ...]) -> dict[str, Future[Files]]:
        """Begin to store the files of a round."""
        return {
            part.contract: self._pool.submit(_stored, self._tables.table(part.contract), part.rows) for part in parts
        }

    def _take_stored(self, writing_max: int) -> None:
        """Take over the rounds whose files are there, and wait for those beyond so many.

        A table whose store does not answer is parked, and its part left out.
        """
        while self._writing:
            flight, begun = self._writing[0]
            if len(self._writing) <= writing_max and not all(future.done() for future in begun.values()):
                break
            self._writing.popleft()
            files: dict[str, Files] = {}
            for contract, future in begun.items():
                try:
                    files[contract] = future.result()
                except StoreUnavailableError as error:
                    self._tables.park(contract, error)
                    self._status.parked = self._tables.parked
            self._flights.stored(flight, files)
            self._fault(Step.FILES_WRITTEN)

    def _bury(self, planned: Round) -> None:
        for letter in planned.dead:
            self._publisher.publish(DEAD, (letter.origin or "").encode(), dead.encode(letter))
        if planned.dead:
            self._publisher.flush()

    def _hand_over(self) -> None:
        """Steps 3 and 4, as far as they may be done."""
        sent = False
        for flight, part, files in list(self._flights.ready()):
            handover = self._handover(part, files, flight.round.begins)
            self._flights.handed_over(flight, part.contract, handover.number)
            partition = partition_of(part.contract, PARTITIONS)
            on_offset = partial(flight.offsets.__setitem__, handover.number)
            self._publisher.publish(HANDOVERS, part.contract.encode(), encode(handover), partition, on_offset)
            sent = True
            if part.contract == QUARANTINE:
                self._publisher.flush()
                self._fault(Step.QUARANTINE_HANDED_OVER, QUARANTINE)
        if sent:
            self._publisher.flush()
            self._fault(Step.HANDED_OVER)

    def _handover(self, part: TablePart, files: Files, begins: Positions) -> Handover:
        released = self._flights.take_released() if part.contract == QUARANTINE else ()
        self._tables.release(released)
        return Handover(
            worker=self.worker,
            number=next(self._numbers),
            contract=part.contract,
            files=files,
            claims=part.claims,
            owed=part.owed,
            begins=begins,
            floors=self._flights.floors,
            logs=self._logs,
            written_at_ms=self._clock.now_ms(),
            behind=self._gathering.is_behind,
            held=part.held,
            released=released,
            ids=part.ids,
        )

    def _hear(self, wait_s: float) -> None:
        """Take answers. Raises StaleError when a table knows more than we do, or when an answer is overdue."""
        for message in self._answers.poll(ANSWERS_AT_ONCE, wait_s):
            try:
                answer = decode_settlement(message.value or b"")
            except HandoverError as error:
                self._note(error)
                continue
            if answer.worker == self.worker:
                self._answered_s = self._clock.monotonic_s()
                if answer.snapshot_id is None:
                    raise StaleError(f"handover {answer.number} to {answer.contract}: its table has moved on")
                self._flights.settled(answer.number)
            elif not answer.worker and self._flights.is_unheard(answer.contract, answer.heard):
                raise StaleError(f"table {answer.contract} has another committer: what is open may never be answered")
        silent_s = self._clock.monotonic_s() - self._answered_s
        if len(self._flights) and silent_s > ANSWER_WITHIN_S:
            raise StaleError(f"no answer from a committer for {silent_s:.0f} s: check that workers run")

    def _count(self, planned: Round, messages: int, began_s: float) -> None:
        status = self._status
        status.rounds += 1
        status.batches += messages
        status.refused_rows += planned.refused_rows
        for rule, rows in planned.hints.items():
            status.hints[rule] = status.hints.get(rule, 0) + rows
        for letter in planned.dead:
            status.dead[letter.reason] = status.dead.get(letter.reason, 0) + 1
        status.last_plan_ms = (self._clock.monotonic_s() - began_s) * 1_000
        status.last_round_at_ms = self._clock.now_ms()
        status.lag = self._share.lag(self._positions)

    def _note(self, error: Exception) -> None:
        if self._status.last_error != str(error):  # what lasts is not said anew with every round
            _log.error("%s", error)
        self._status.last_error = str(error)
        self._status.last_error_at_ms = self._clock.now_ms()


def _stored(table: LakeTable, rows: pa.Table | None) -> Files:
    return () if rows is None else table.write(rows)
