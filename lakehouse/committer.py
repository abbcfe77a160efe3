"""A worker's committing half: what writers hand over becomes snapshots, for the tables that this worker serves.

1. settle       The handovers of a table that wait are compared with its newest state (`lakehouse.settling`). Crash
                after: nothing has happened, they are read again.
2. state        The files of the next state are stored. Crash after: nothing refers to them, the sweep removes them.
3. commit       One snapshot: data files, ranges, floors, and from where handovers are read on. When another committer
                was faster, the state is read again, and everything that waits is settled by that.
4. receipts     Watermarks, and only now. Crash before: they are published again by whoever serves the table next, and
                when the origin resends.
5. answers      The writers hear what was taken and what was stale. Crash before: the next committer tells all writers
                that it has begun, and whoever has no answer reads the state.

Tables are served side by side: one whose store does not answer keeps nobody else waiting. The next commit of a table
begins after its receipts are sent, so a start has to repeat only those of the newest snapshot.
"""

import logging
import threading
from concurrent.futures import Executor, Future
from typing import Final

from msgspec import Struct

from contracts import watermark
from contracts.contract import Contract
from contracts.errors import OutcomeUnknownError, RetrySafeError
from contracts.ports import Clock
from contracts.topics import HANDOVERS, SETTLEMENTS, WATERMARKS
from lakehouse.commit import Done, Heard, Place, commit
from lakehouse.contract_feed import ContractFeed
from lakehouse.errors import HandoverError, StateMovedError, TableConflictError
from lakehouse.handover import Handover, Settlement, decode_handover, encode, partition_of
from lakehouse.ports import Fault, Lake, LakeTable, Log, Message, Recovered, Step, no_fault
from lakehouse.positions import Positions, named, number_of, of_logs
from lakehouse.state import Kept
from lakehouse.status import IngestStatus
from lakehouse.watermarks import watermarks
from lakehouse.writer import PARTITIONS, RETRY_WAIT_S

GROUP: Final = "fieldlake-committers"
POLL_MESSAGES: Final = 256  # handovers of one poll
IDLE_WAIT_S: Final = 0.02  # seconds; how late the end of a commit is noticed when no handover comes
# Share of the commit interval that lies between two commits of a table at least. A writer hands over once an interval:
# with all of it each handover would wait for half of one on average; with none, each of many writers makes a commit.
APART_SHARE: Final = 0.5
BEHIND_APART_S: Final = 1.0  # seconds between two commits of a table whose writers have a backlog
HANDOVERS_AT_ONCE: Final = 64  # of one commit; each is a file or two

_log = logging.getLogger(__name__)


class _Read(Struct, frozen=True):
    """A table's state, read anew."""

    table: LakeTable
    recovered: Recovered


class _Served(Struct):
    """A table of this worker. `kept` is None before its state is read, and when it must be read again."""

    contract: str
    partition: int
    table: LakeTable | None = None
    kept: Kept | None = None
    snapshot_id: int = 0
    waiting: list[Heard] = []
    work: Future[Done | _Read] | None = None
    began_s: float = float("-inf")
    failures: int = 0
    not_before_s: float = float("-inf")
    told: str = ""


class Committer:
    """`step` for ever; `run` does, and starts over after an outage of the log."""

    def __init__(
        self,
        log: Log,
        lake: Lake,
        feed: ContractFeed,
        clock: Clock,
        commit_interval_ms: int,
        pool: Executor,
        status: IngestStatus,
        fault: Fault = no_fault,
    ) -> None:
        self._log, self._lake, self._feed, self._clock, self._pool = log, lake, feed, clock, pool
        self._status, self._fault = status, fault
        self._apart_s = commit_interval_ms / 1_000 * APART_SHARE
        self._share = log.share(GROUP, (HANDOVERS,))
        self._publisher = log.publisher()
        self._tables: dict[str, _Served] = {}
        self._partitions: frozenset[int] = frozenset()
        self._logs: dict[str, str] = {}
        self._begun = self._has_share = False

    def run(self, stop: threading.Event) -> None:
        """Work until stopped. An outage is waited out. Raises StateError, which a person must resolve."""
        failures = 0
        while not stop.is_set():
            try:
                self.step()
                failures = 0
            except (RetrySafeError, OutcomeUnknownError) as error:
                self._begun = False
                self._note(error)
                stop.wait(RETRY_WAIT_S[min(failures, len(RETRY_WAIT_S) - 1)])
                failures += 1

    def step(self) -> bool:
        """Take handovers, begin the commits that are due, and finish those that are done; say whether any was.

        Errors: LogUnavailableError asks for another step, which begins anew; StateError for a person.
        """
        dealt = self._share.dealt()
        self._has_share = self._has_share or dealt is not None
        if not self._has_share:
            return False
        if dealt is not None:
            self._partitions = frozenset(map(number_of, dealt))
        if dealt is not None or not self._begun:
            self.recover()
        busy = any(served.work is not None for served in self._tables.values())
        waiting = busy or any(served.waiting for served in self._tables.values())
        for message in self._share.poll(POLL_MESSAGES, IDLE_WAIT_S / 4 if waiting else IDLE_WAIT_S):
            self._take(message)
        done = self._finish()
        self._begin()
        return done

    def recover(self) -> None:
        """Read the states of all tables of the share, tell their writers, and go to where handovers are read on."""
        self._begun = False
        for served in self._tables.values():
            if served.work is not None:
                served.work.exception()  # a commit under way ends before its table is read again
        self._finish()  # its writers hear of it, whoever serves the table from now on
        self._tables.clear()
        self._logs = self._log.identities((HANDOVERS,))
        self._feed.catch_up()
        for name in list(self._feed.registry.newest):
            self._served(name)
        for served in self._tables.values():
            self._begin_reading(served)
        for served in self._tables.values():
            assert served.work is not None
            served.work.exception()
        self._finish()
        positions: Positions = {}
        for served in self._tables.values():
            at, heard = named(HANDOVERS, served.partition), self._heard(served)
            positions[at] = min(positions.get(at, heard), heard)
        self._share.begin(positions)
        self._begun = True
        _log.info("committing %s", ", ".join(sorted(self._tables)) or "no table")

    def close(self) -> None:
        """Release connections; a commit under way ends before."""
        for served in self._tables.values():
            if served.work is not None:
                served.work.exception()
        self._share.close()
        self._publisher.close()

    def _served(self, name: str) -> _Served | None:
        """Return a table of this worker's share, None when it is another's or unknown."""
        found = self._tables.get(name)
        if found is None:
            partition = partition_of(name, PARTITIONS)
            if partition in self._partitions and self._feed.contract(name) is not None:
                found = self._tables[name] = _Served(name, partition)
        return found

    def _begin_reading(self, served: _Served) -> None:
        contract = self._feed.contract(served.contract)
        assert contract is not None  # else it would not be served
        served.work = self._pool.submit(self._read, contract)

    def _read(self, contract: Contract) -> _Read:
        """Open a table and read its state. Errors: those of `Lake` and `LakeTable`."""
        table = self._lake.open(contract)
        return _Read(table, table.recover())

    def _heard(self, served: _Served) -> int:
        if served.kept is None:
            return 0
        root = served.kept.root
        return of_logs(root.heard, root.logs, self._logs).get(named(HANDOVERS, served.partition), 0)

    def _take(self, message: Message) -> None:
        try:
            handover = decode_handover(message.value or b"")
        except HandoverError as error:
            self._note(error)
            return
        served = self._served(handover.contract)
        if served is None:
            # Of a contract that nobody has published: its writer knows one that is gone.
            self._publish(_answer(handover, None))
        elif message.offset >= self._heard(served):
            served.waiting.append(Heard(message.offset, handover))

    def _begin(self) -> None:
        """Begin every commit that is due."""
        now_s = self._clock.monotonic_s()
        for served in self._tables.values():
            if served.work is not None or not served.waiting or now_s < served.not_before_s:
                continue
            # Nobody waits for a backlog's commit: larger ones catch up sooner.
            apart_s = BEHIND_APART_S if all(one.handover.behind for one in served.waiting) else self._apart_s
            many = len(served.waiting) >= HANDOVERS_AT_ONCE
            if now_s < served.began_s + apart_s and not many and served.kept is not None:
                continue
            if served.kept is None:
                self._begin_reading(served)
            else:
                served.began_s = now_s
                chosen = tuple(served.waiting[:HANDOVERS_AT_ONCE])
                place = _place(served, served.kept)
                served.work = self._pool.submit(commit, place, chosen, self._logs, self._clock, self._fault)

    def _finish(self) -> bool:
        """Take over what was read, and do steps 4 and 5 of the commits that are done."""
        done: list[tuple[_Served, Done]] = []
        for served in self._tables.values():
            if served.work is None or not served.work.done():
                continue
            work, served.work = served.work, None
            error = work.exception()
            if error is not None:
                self._fail(served, error)
            elif isinstance(found := work.result(), _Read):
                self._take_over(served, found)
            else:
                served.kept, served.snapshot_id, served.failures = found.kept, found.snapshot_id, 0
                served.told = found.kept.location or "none"
                served.waiting = [one for one in served.waiting if one.offset >= found.offset]
                done.append((served, found))
        for name in self._tables.keys() - self._feed.registry.newest.keys():
            del self._tables[name]
        if done:
            self._tell(done)
        return bool(done)

    def _take_over(self, served: _Served, found: _Read) -> None:
        """Serve a table from its newest state: repeat that one's receipts, and tell its writers."""
        recovered = found.recovered
        served.table, served.kept, served.snapshot_id = found.table, recovered.kept, recovered.snapshot_id or 0
        served.failures = 0
        heard = self._heard(served)
        served.waiting = [one for one in served.waiting if one.offset >= heard]
        self._send_watermarks(served, {key.origin for key, _ in recovered.kept.root.changed})
        location = recovered.kept.location or "none"
        if location != served.told:
            self._publish(Settlement("", 0, served.contract, None, heard))
            served.told = location
        self._publisher.flush()

    def _tell(self, done: list[tuple[_Served, Done]]) -> None:
        for served, found in done:  # Step 4.
            origins = {key.origin for key in found.settled.changed}
            owed = {origin for one in found.settled.taken for origin in one.owed}
            self._send_watermarks(served, origins | owed)
        self._publisher.flush()
        self._fault(Step.RECEIPTS_SENT)
        for _, found in done:  # Step 5.
            for one in found.settled.taken:
                self._publish(_answer(one, found.snapshot_id))
            for one in found.settled.stale:
                self._publish(_answer(one, None))
        self._publisher.flush()
        self._fault(Step.ANSWERED)
        self._count(done)

    def _fail(self, served: _Served, error: BaseException) -> None:
        """Have a table's state read again after a pause; raise what a person must resolve."""
        if not isinstance(error, (RetrySafeError, OutcomeUnknownError, TableConflictError)):
            raise error
        if not isinstance(error, StateMovedError):
            self._note(error)
        newest = self._feed.registry.newest.get(served.contract)
        if isinstance(error, TableConflictError) and newest is not None:
            self._feed.registry.withdraw(newest)  # as its writers do: the versions before it stay in force
        wait_s = RETRY_WAIT_S[min(served.failures, len(RETRY_WAIT_S) - 1)]
        served.kept, served.failures = None, served.failures + 1
        served.not_before_s = self._clock.monotonic_s() + wait_s

    def _send_watermarks(self, served: _Served, origins: set[str]) -> None:
        if not origins or served.kept is None:
            return
        now_ms = self._clock.now_ms()
        for mark in watermarks(served.contract, served.kept.streams, served.snapshot_id, now_ms, origins):
            self._publisher.publish(WATERMARKS, watermark.key(mark), watermark.encode(mark))

    def _publish(self, answer: Settlement) -> None:
        self._publisher.publish(SETTLEMENTS, answer.worker.encode(), encode(answer))

    def _count(self, done: list[tuple[_Served, Done]]) -> None:
        status = self._status
        for served, found in done:
            rows = sum(file.rows for one in found.settled.taken for file in one.files)
            if rows:
                status.rows = status.rows | {served.contract: status.rows.get(served.contract, 0) + rows}
            status.note_commit(served.contract, (self._clock.monotonic_s() - served.began_s) * 1_000)

    def _note(self, error: BaseException) -> None:
        _log.error("%s", error)
        self._status.last_error = str(error)
        self._status.last_error_at_ms = self._clock.now_ms()


def _place(served: _Served, kept: Kept) -> Place:
    assert served.table is not None  # it comes with the state
    return Place(served.contract, named(HANDOVERS, served.partition), served.table, kept, served.snapshot_id)


def _answer(handover: Handover, snapshot_id: int | None) -> Settlement:
    return Settlement(handover.worker, handover.number, handover.contract, snapshot_id)
