"""A table anew from its files, from the log, or from both; readers see the old table or the new one, nothing between.

1. files      Unless only the log is wanted, every readable live file of the old table is copied, row by row the first
              of each identity. When manifests or metadata are lost, so is which files were live: then all data files
              of the folder are taken, and a row that several hold is still one.
2. log        Everything that the log still holds is planned as ingest plans it, on top of what step 1 has.
3. again      What came into the log meanwhile, until nothing does: the new table is complete up to where ingest was
              when it made the last commit to the old one.
4. state      The old state and what step 1 and 2 found together say which sequence numbers are accounted for. Nothing
              that a device was told to forget is asked for again; what is accounted for and in no row and no batch any
              more is counted and returned.
5. swap       One transaction of the catalog's database moves the name from the old metadata file to the new one,
              provided that it still names the old one. Otherwise ingest has committed: go on at 3.

Until step 5 the new table has a name of its own, which neither ingest nor maintenance follows; a crash leaves it there,
and the next rebuild drops it. A running committer finds another state than its own, reads the new one and goes on from
it. The old files stay where they are.
"""

import logging
from contextlib import suppress
from enum import Enum
from typing import Final
from uuid import uuid4

import pyarrow as pa
from msgspec import Struct
from pyiceberg.exceptions import NamespaceAlreadyExistsError, NoSuchTableError
from pyiceberg.io.pyarrow import PyArrowFileIO

from contracts import microbatch
from contracts.contract import Contract
from contracts.errors import BatchError
from contracts.ports import Clock
from contracts.topics import BATCHES, CONTRACTS, DECISIONS
from lakehouse.accounted import Accounted
from lakehouse.catalog import LakeCatalog
from lakehouse.column_plan import first_columns, renumbered
from lakehouse.errors import BrokenTableError, CommitConflictError, TableConflictError
from lakehouse.evolution import follow, layout_of
from lakehouse.iceberg import IcebergTable
from lakehouse.layout import COLUMNS_PROPERTY, encode_columns
from lakehouse.maintenance.erasures import Erasures
from lakehouse.old_table import OldTable, find_old, rows_of
from lakehouse.plan import View, plan
from lakehouse.ports import Log, Message
from lakehouse.positions import Positions
from lakehouse.register import default_location, file_io
from lakehouse.registry import Registry
from lakehouse.replays import is_put_back
from lakehouse.rows import DECISIONS_TABLE, QUARANTINE
from lakehouse.schema import iceberg_schema
from lakehouse.settling import DECISION_IDS_MAX
from lakehouse.state import Next, TableState
from lakehouse.swap import create_beside, swap
from lakehouse.tables import CONTRACT_PROPERTY, table_properties

SUFFIX: Final = "__rebuild"  # of the name that the new table has until it takes the old one's
SWAP_TRIES_MAX: Final = 20  # each is a read of what came since the last; ingest commits four times a second at most
CHUNK_MESSAGES: Final = 2_000  # of one commit: a 200-event batch each, 400,000 rows and some 50 MB
POLL_TIMEOUT_S: Final = 1.0

_log = logging.getLogger(__name__)


class Source(Enum):
    """Where rows come from: the old table's files and then the log, or the log alone."""

    FILES = "files"
    LOG = "log"


class Rebuilt(Struct, frozen=True):
    """What was done. `broken`: why some files gave no rows; `rows_erased`: rows left out since they were erased once.

    `unexplained`: events by origin that were accounted for before, and for which there is neither a row in the files
    nor a batch in the log. From files alone that includes all that a device dropped or aggregated.
    """

    metadata_location: str
    rows_from_files: int
    rows_from_log: int
    broken: tuple[str, ...]
    unexplained: dict[str, int]
    rows_erased: int = 0


class Rebuild:
    """One rebuild of one table. Not for use from two threads at once."""

    def __init__(self, catalog: LakeCatalog, log: Log, clock: Clock, contract_id: str) -> None:
        """Raises TableConflictError when the table cannot be rebuilt, LogUnavailableError."""
        self._catalog, self._log, self._clock = catalog, log, clock
        self._io: PyArrowFileIO = file_io(catalog)
        self._registry = Registry()
        for message in _whole(log, CONTRACTS):
            self._registry.take((message.key or b"").decode("utf-8", "replace"), message.value)
        if contract_id not in self._registry.newest:
            raise TableConflictError(f"table {contract_id}: expected a published contract of that id, found none")
        self._contract: Contract = self._registry.newest[contract_id]
        self._topic = DECISIONS if contract_id == DECISIONS_TABLE else BATCHES
        self._erasures = Erasures(catalog, self._contract)
        self._logs = log.identities((BATCHES, DECISIONS))
        self._batches = log.follow(self._topic)
        self._decisions: tuple[bytes, ...] = ()  # ids of those that came from the log
        self._accounted = Accounted(contract_id)
        self._broken: list[BrokenTableError] = []

    def run(self, source: Source, accept_loss: bool = False) -> Rebuilt:
        """Rebuild the table. Raises TableConflictError, CommitConflictError, and those of log and store.

        `accept_loss`: go on although the log alone does not reach back to all that the table accounts for.
        """
        if source is Source.LOG and self._contract.id == QUARANTINE:
            raise TableConflictError("table quarantine: it has refused rows of every stream: rebuild it from files")
        old = find_old(self._catalog, self._contract.table)
        table = self._create(old)
        from_files = self._copy(table, old) if source is Source.FILES else 0  # Step 1.
        self._follow(table)
        at = self._batches.rewind({})
        from_log = 0
        for _ in range(SWAP_TRIES_MAX):
            added, at = self._replay(table, at)  # Steps 2 and 3.
            from_log += added
            old = find_old(self._catalog, self._contract.table)
            unexplained = self._commit_state(table, old)  # Step 4.
            if unexplained and source is Source.LOG and not accept_loss:
                raise TableConflictError(
                    f"table {self._contract.table}: the log does not reach back to {sum(unexplained.values())} events "
                    f"of {len(unexplained)} origins: rebuild it from files, or accept their loss"
                )
            properties = {**table_properties(self._contract), **table.table.properties}
            location = swap(
                self._catalog, self._contract.table, table.table, old.metadata, old.pointer, properties
            )  # Step 5.
            if location is not None:
                broken = tuple(str(error) for error in self._broken)
                return Rebuilt(location, from_files, from_log, broken, unexplained, self._erasures.rows)
        raise CommitConflictError(f"table {self._contract.table}: ingest won {SWAP_TRIES_MAX} times: stop it first")

    def close(self) -> None:
        """Release the connection to the log."""
        self._batches.close()

    def _create(self, old: OldTable) -> IcebergTable:
        name, location = f"{self._contract.table}{SUFFIX}", default_location(self._catalog, self._contract.table)
        with suppress(NamespaceAlreadyExistsError):
            self._catalog.create_namespace(self._contract.namespace)
        with suppress(NoSuchTableError):
            self._catalog.drop_table(name)
        # Without the contract's property maintenance takes it for a table that is not ours.
        properties = {k: v for k, v in table_properties(self._contract).items() if k != CONTRACT_PROPERTY}
        schema = iceberg_schema(self._contract) if old.metadata is None else old.metadata.schema()
        uuid = None if old.metadata is None else old.metadata.table_uuid
        folder = f"{location}-{uuid4().hex[:8]}"
        made = create_beside(self._catalog, name, folder, schema, properties, uuid)
        columns = first_columns(self._contract)
        if old.metadata is not None:
            columns = renumbered(layout_of(old.metadata).columns, schema, made.schema())
        with made.transaction() as change:
            change.set_properties({COLUMNS_PROPERTY: encode_columns(columns)})
        table = IcebergTable(made)
        table.recover()
        return table

    def _follow(self, table: IcebergTable) -> None:
        """Let the table have what the newest version says, and what only older ones do, whose rows the log may hold."""
        for version in (self._contract, *self._registry.older(self._contract.id)):
            follow(table.table, version, leave=frozenset({CONTRACT_PROPERTY}))
        table.reload()

    def _copy(self, table: IcebergTable, old: OldTable) -> int:
        count = 0
        for rows in rows_of(self._io, old, self._contract, self._broken):
            fresh = rows.filter(pa.array(self._accounted.claim(rows)))
            if self._contract.id == DECISIONS_TABLE:
                self._accounted.note_decisions(fresh)
            if fresh.num_rows:
                self._accounted.note_rows(fresh)
                # By their names: the ids that they carry are those of the table before.
                named = pa.table(fresh.columns, names=fresh.column_names)
                count += self._add(table, named, TableState())
        if self._contract.id == DECISIONS_TABLE:
            self._accounted.known = {}  # they are told apart by their ids; their offsets are no stream of a device
        elif old.metadata is not None and not self._broken:
            # Nothing is missing, so what has no row was dropped, refused or erased: the log must not bring it back.
            self._accounted.known = self._accounted.together(dict(old.state.streams))
        return count

    def _replay(self, table: IcebergTable, at: Positions) -> tuple[int, Positions]:
        """Read the log up to its present end; return the rows added and the position reached."""
        ends, count = self._batches.ends(), 0
        at = dict(at)
        while any(at.get(name, 0) < end for name, end in ends.items()):
            messages = self._batches.poll(CHUNK_MESSAGES, POLL_TIMEOUT_S)
            for message in messages:
                at[f"{message.topic}/{message.partition}"] = message.offset + 1
            ours = [m for m in messages if self._is_ours(m)]
            put_back = {m.source: m for m in ours if m.topic == BATCHES and is_put_back(m.value or b"")}
            count += self._take([m for m in ours if m.source not in put_back], table, at)
            # Only now: what was refused once may have come with its own batch, by the contract of today.
            count += self._take([m for m in put_back.values() if not self._accounted.has(m)], table, at)
        return count, at

    def _is_ours(self, message: Message) -> bool:
        if message.topic == DECISIONS:
            return self._accounted.is_new_decision(message)
        try:
            fingerprint = microbatch.parse(message.value or b"")[0].fingerprint
        except BatchError:
            return False
        contract = self._registry.fingerprints.get(fingerprint)
        return contract is not None and contract.id == self._contract.id

    def _take(self, messages: list[Message], table: IcebergTable, at: Positions) -> int:
        """Add rows of messages as ingest would. What it refuses is in the quarantine or among the dead already."""
        name = self._contract.id
        view = View(
            registry=self._registry,
            known={QUARANTINE: {}, name: self._accounted.known},
            held={},
            ids=frozenset(),
            begins=at,
            layouts={name: table.layout},
        )
        count = 0
        for part in plan(messages, view, self._clock.now_ms()).parts:
            if part.contract == name:
                self._accounted.known |= part.changed
                self._decisions += part.ids
                if part.rows is not None:
                    count = self._add(table, part.rows, TableState())
                    self._accounted.note_rows(part.rows)
        return count

    def _add(self, table: IcebergTable, rows: pa.Table | None, root: TableState) -> int:
        """Commit rows, without those of erased subjects; return how many there were."""
        kept = None if rows is None else self._erasures.without(rows)
        files = () if kept is None or not kept.num_rows else table.write(kept)
        _, location = table.store(Next(root, None, is_base=False))
        table.commit(files, location)
        return 0 if kept is None else kept.num_rows

    def _commit_state(self, table: IcebergTable, old: OldTable) -> dict[str, int]:
        before, root = dict(old.state.streams), old.state.root
        found = self._accounted.together(before)
        ids = tuple(dict.fromkeys((*root.ids, *self._decisions)))[-DECISION_IDS_MAX:]
        # No floors: this table is complete, and says nothing about what the others have.
        self._add(table, None, TableState(tuple(found.items()), {}, root.heard, root.logs | self._logs, root.held, ids))
        return self._accounted.unexplained(before)


def _whole(log: Log, topic: str) -> list[Message]:
    follower = log.follow(topic)
    try:
        follower.rewind({})
        return follower.catch_up()
    finally:
        follower.close()
