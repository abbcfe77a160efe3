"""The mirror process: follow the changes, apply them a batch at a time, wait out whatever is down.

One batch:

1. take       messages are read from the log and decoded.
2. refuse     what cannot be followed is in the dead letters. Crash after: it is refused again, a second letter names
              the same place on the log.
3. lock       a transaction begins that keeps every other mirror out, and the positions in the database must be the
              ones that this process read on from.
4. write      rows of all records are read, merged and written.
5. sweep      marks of snapshots are added; what a complete one did not hold is deleted.
6. move       positions are set behind the batch.
7. commit     rows and positions take effect together. Crash before: none of it happened. Crash after, or an answer
              that never came: the positions in the database say which, and reading goes on from there.

A message whose value the database does not take is found by halves, refused like those of step 2, and the batch is
applied without it.
"""

import logging
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Final

from contracts.crm_change import CrmChange
from contracts.dead import DeadLetter
from contracts.errors import RetrySafeError
from contracts.ports import Clock
from contracts.topics import CRM_CHANGES
from lakehouse.errors import FencedError, StoreUnavailableError, ValueRefusedError
from lakehouse.mirror.applying import refused_values, sweep, without, write
from lakehouse.mirror.batch import REFUSED_BY_DATABASE, Batch, Taken, batch_of, encoded, letter_of, work_of
from lakehouse.mirror.kinds import kind_of
from lakehouse.mirror.ports import ChangeLog, Fault, LogMessage, MirrorStore, Positions, Step, no_fault
from lakehouse.mirror.status import MirrorStatus

IDLE_WAIT_S: Final = 0.25  # seconds; how late a stop is noticed when nothing arrives
GATHER_S: Final = 0.01  # seconds that neighbours of a first message are waited for: a commit costs about as much
CHUNK_MESSAGES: Final = 100  # messages of one poll; 100 of the largest are 100 MB
BATCH_BYTES_MAX: Final = 33_554_432  # bytes at which a batch is closed; merging holds some four copies of its values
RETRY_WAIT_S: Final = (0.2, 0.5, 1.0, 2.0)  # seconds before the n-th recovery in a row; the last one repeats

_log = logging.getLogger(__name__)


class Mirror:
    """`recover` once, then `step` for ever; `run` does both and starts over after an outage."""

    def __init__(
        self, log: ChangeLog, store: MirrorStore, clock: Clock, batch_max: int, status: MirrorStatus,
        fault: Fault = no_fault,
    ) -> None:  # fmt: skip
        self._log, self._store, self._clock, self._batch_max = log, store, clock, batch_max
        self._status, self._fault = status, fault
        self._topic_id = ""
        self._known: Positions = {}  # as the database has them

    def run(self, stop: threading.Event, ready: threading.Event) -> None:
        """Work until stopped. An outage of log or database is waited out; `ready` says whether there is none.

        Raises FencedError, which a person must resolve.
        """
        failures = 0
        while not stop.is_set():
            try:
                self.recover()
                self._status.ready, self._status.waiting_for = True, ""
                ready.set()
                while not stop.is_set():
                    if self.step():
                        failures = 0
            except RetrySafeError as error:
                self._note(error, failures == 0)
                stop.wait(RETRY_WAIT_S[min(failures, len(RETRY_WAIT_S) - 1)])
                failures += 1
            finally:
                self._status.ready = False
                ready.clear()

    def recover(self) -> None:
        """Read from the database where the log is to be read on. Raises RetrySafeError."""
        self._topic_id = self._log.identity()
        with self._store.transaction() as transaction:
            self._known = transaction.positions(self._topic_id)
        begins = self._log.seek(self._known)
        if missed := {p: (at, begins[p]) for p, at in self._known.items() if p in begins and begins[p] > at}:
            self._tell_missed(missed)
        self._status.recoveries += 1
        self._status.lag = self._log.lag(begins)
        _log.info("reading on from %s", begins)

    def step(self) -> bool:
        """Apply one batch; say whether there was one. RetrySafeError asks for `recover`, FencedError for a person."""
        messages = self._gather()
        if not messages:
            return False
        began_s = self._clock.monotonic_s()
        batch = batch_of(messages, self._clock.now_ms())  # Step 1.
        self._fault(Step.TAKEN)
        self._apply(batch)
        self._count(batch, began_s)
        return True

    def close(self) -> None:
        """Release connections."""
        self._log.close()
        self._store.close()

    def _gather(self) -> list[LogMessage]:
        """Take what is there, up to the bounds of a batch; a poll that is not full says that nothing is left."""
        messages = self._log.poll(1, IDLE_WAIT_S)
        size, full = sum(len(message.value) for message in messages), bool(messages)
        while full and len(messages) < self._batch_max and size < BATCH_BYTES_MAX:
            wanted = min(CHUNK_MESSAGES, self._batch_max - len(messages))
            some = self._log.poll(wanted, GATHER_S)
            messages += some
            size += sum(len(message.value) for message in some)
            full = len(some) == wanted
        return messages

    def _apply(self, batch: Batch) -> None:
        self._refuse(batch.refused)  # Step 2.
        self._fault(Step.REFUSED)
        try:
            self._commit(batch.taken, batch.ends)
        except ValueRefusedError:
            bad = refused_values(self._store, batch.taken)
            now_ms = self._clock.now_ms()
            self._refuse(
                [
                    letter_of(taken.source, REFUSED_BY_DATABASE, bad[taken.place], now_ms)
                    for taken in batch.taken
                    if taken.place in bad
                ]
            )
            self._commit(without(batch.taken, bad), batch.ends)
        self._known = {**self._known, **batch.ends}

    def _commit(self, taken: Sequence[Taken], ends: Positions) -> None:
        work = work_of(taken)
        with self._store.transaction() as transaction:
            standing = transaction.positions(self._topic_id)  # Step 3.
            if standing != self._known:
                raise FencedError(
                    f"mirror positions: expected {self._known}, found {standing}: another mirror process writes the "
                    "same tables: stop one of them, and start the other again"
                )
            self._fault(Step.LOCKED)
            records = write(transaction, work)  # Step 4.
            self._fault(Step.WRITTEN)
            snapshots = sweep(transaction, work)  # Step 5.
            self._fault(Step.SWEPT)
            transaction.move(self._topic_id, ends)  # Step 6.
            self._fault(Step.MOVED)
        self._fault(Step.COMMITTED)  # Step 7 is the end of the transaction.
        self._status.records_written += records
        self._status.snapshots_swept += snapshots

    def _refuse(self, letters: Sequence[DeadLetter]) -> None:
        if not letters:
            return
        self._log.refuse(encoded(letters))
        self._status.dead = dict(Counter(self._status.dead) + Counter(letter.reason for letter in letters))
        _log.warning("%d messages refused, the first: %s", len(letters), letters[0].detail)

    def _count(self, batch: Batch, began_s: float) -> None:
        status, now_ms = self._status, self._clock.now_ms()
        status.batches += 1
        changes = [taken.message for taken in batch.taken if isinstance(taken.message, CrmChange)]
        tables = Counter(kind_of(change.object).table for change in changes)
        status.changes = dict(Counter(status.changes) + tables)
        if changes:
            status.age_ms = now_ms - max(change.captured_at_ms for change in changes)
        status.last_batch_ms = (self._clock.monotonic_s() - began_s) * 1_000
        status.last_batch_at_ms = now_ms
        status.lag = self._log.lag(self._known)

    def _tell_missed(self, missed: dict[int, tuple[int, int]]) -> None:
        error = (
            f"topic {CRM_CHANGES}: expected to read on by partition from the first of {missed}, found that the log "
            "begins at the second: changes are missing; have the connectors read every object whole"
        )
        self._status.last_error, self._status.last_error_at_ms = error, self._clock.now_ms()
        _log.error("%s", error)

    def _note(self, error: RetrySafeError, first: bool) -> None:
        """Say what is down: in the log once an outage, in the status all along."""
        self._status.waiting_for = "database" if isinstance(error, StoreUnavailableError) else "log"
        self._status.last_error, self._status.last_error_at_ms = str(error), self._clock.now_ms()
        if first:
            _log.error("%s", error)
