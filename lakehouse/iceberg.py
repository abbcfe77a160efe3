"""Iceberg tables behind the `Lake` port: a SQL catalog per object store, one compare-and-set per commit."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final
from uuid import uuid4

import pyarrow as pa
from msgspec.structs import replace
from pyiceberg.exceptions import (
    CommitFailedException,
    CommitStateUnknownException,
    NamespaceAlreadyExistsError,
    NoSuchTableError,
)
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Snapshot
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from contracts.contract import Contract
from lakehouse import streams
from lakehouse.catalog import LakeCatalog, open_catalog
from lakehouse.column_plan import first_columns
from lakehouse.config import CatalogConfig
from lakehouse.data_files import file_of, form_of, write_rows
from lakehouse.errors import (
    CommitConflictError,
    CommitOutcomeUnknownError,
    StateMovedError,
    StoreUnavailableError,
    TableConflictError,
)
from lakehouse.evolution import follow, layout_of
from lakehouse.expiry import expire_within
from lakehouse.handover import DataFileForm
from lakehouse.layout import COLUMNS_PROPERTY, Layout, encode_columns
from lakehouse.ports import Recovered
from lakehouse.register import is_left_behind
from lakehouse.schema import iceberg_schema
from lakehouse.state import STATE_PROPERTY, Kept, Next, TableState, encode
from lakehouse.state_files import SharedStates
from lakehouse.streams import Streams
from lakehouse.tables import table_properties
from lakehouse.tail import Tail, TailAppend
from lakehouse.transactions import LeanTransaction

# Tries of one commit. Maintenance commits every few seconds and takes about as long as an ingest commit, so two
# conflicts in a row are rare; eight mean that somebody else writes here all the time.
COMMIT_TRIES_MAX: Final = 8
# Seconds for which a commit is tried, and which its files may have waited before: the sweep removes unreferenced files
# after more than twice as long as both together, and must never meet a commit that still wants them.
COMMIT_WITHIN_S: Final = 120.0
UNKNOWN: Final = (CommitStateUnknownException, SQLAlchemyError, OSError)

_log = logging.getLogger(__name__)


class IcebergTable:
    """One table. Not for use from two threads at once."""

    def __init__(
        self,
        table: Table,
        monotonic_s: Callable[[], float] = time.monotonic,
        states: SharedStates | None = None,
    ) -> None:
        self._table, self._monotonic_s = table, monotonic_s
        self._states = states if states is not None else SharedStates()
        self._state_location: str | None = None
        self._layout: tuple[TableMetadata, Layout] | None = None
        self._tail: Tail | None = None

    @property
    def table(self) -> Table:
        """The library's own table, for readers and maintenance."""
        return self._table

    @property
    def layout(self) -> Layout:
        """What the table's columns mean, as this object has last seen them."""
        metadata = self._table.metadata
        if self._layout is None or self._layout[0] is not metadata:
            known = self._layout
            unchanged = known is not None and _columns_as(known[0], metadata)
            self._layout = (metadata, known[1] if known is not None and unchanged else layout_of(metadata))
        return self._layout[1]

    def recover(self) -> Recovered:
        """Read the newest state in the ancestry of the current snapshot, an empty one when there is none."""
        with _answers(f"table {self._name}"):
            self._table.refresh()
            snapshot = state_snapshot(self._table)
            location = self._state_location = state_location(snapshot)
            if snapshot is None or location is None:
                return Recovered(Kept(TableState(), None, Streams()), None)
            kept = self._states.read(self._table.io, self._table.location(), location)
            return Recovered(kept, snapshot.snapshot_id)

    def reload(self) -> None:
        """Take over a changed schema."""
        with _answers(f"table {self._name}"):
            self._table.refresh()

    def write(self, rows: pa.Table) -> tuple[DataFileForm, ...]:
        """Store rows in the order in which they come as a data file; nothing refers to it yet."""
        with _answers(f"store of table {self._name}"):
            return tuple(map(form_of, write_rows(self._table, rows, sort=False)))

    def store(self, state: Next) -> tuple[Next, str]:
        """Store the files of a state; see `lakehouse.ports.LakeTable.store`."""
        with _answers(f"store of table {self._name}"):
            if state.part is not None:
                part = self._put("part", streams.encode(state.part))
                state = replace(state, root=replace(state.root, parts=(*state.root.parts, part)))
            return state, self._put("state", encode(state.root))

    def commit(self, files: Sequence[DataFileForm], location: str) -> int:
        """Make data files and a state current in one snapshot; see `lakehouse.ports.LakeTable.commit`.

        1. look       the newest state must be the one this object knows, or its own that landed unseen.
        2. append     against exactly that snapshot. Conflict: nothing happened, look again.
        3. unknown    the answer was lost: look again; the state's unique location says whether it landed. Should it
                      land later still, the compare-and-set of step 2 fails and the next look finds it.
        """
        unknown: BaseException | None = None
        begun_s = self._monotonic_s()
        for attempt in range(COMMIT_TRIES_MAX):
            try:
                if attempt:
                    self._table.refresh()
                if (landed := self._landed(location)) is not None:  # Step 1.
                    return landed
                self._check_age(self._monotonic_s() - begun_s)
                return self._append(files, location)  # Step 2.
            except CommitFailedException as conflict:
                _log.info("commit to %s: moved by another writer, try %d: %s", self._name, attempt + 1, conflict)
            except UNKNOWN as error:  # Step 3.
                unknown = error
                _log.warning("commit to %s: no answer, looking whether it landed: %s", self._name, error)
        if unknown is not None:
            raise CommitOutcomeUnknownError(
                f"commit to {self._name}: expected an answer from catalog and store within {COMMIT_TRIES_MAX} tries, "
                f"last: {unknown}: check that both run; ingest looks again by itself"
            ) from unknown
        raise CommitConflictError(f"commit to {self._name}: other writers won {COMMIT_TRIES_MAX} times in a row")

    @property
    def _name(self) -> str:
        return ".".join(self._table.name())

    def _landed(self, location: str) -> int | None:
        snapshot = state_snapshot(self._table)
        found = state_location(snapshot)
        if snapshot is not None and found == location:
            self._state_location = found
            return snapshot.snapshot_id
        if found != self._state_location:
            raise StateMovedError(
                f"table {self._name}: expected {self._state_location} as the newest state, found {found}: another "
                "committer serves it; what is in hand is settled again by its state"
            )
        return None

    def _check_age(self, age_s: float) -> None:
        if age_s > COMMIT_WITHIN_S:
            raise CommitConflictError(
                f"commit to {self._name}: tried for {age_s:.0f} s, at most {COMMIT_WITHIN_S:.0f} s are allowed: what "
                "it would add is written anew from the log"
            )

    def _append(self, files: Sequence[DataFileForm], location: str) -> int:
        transaction = LeanTransaction(self._table)
        producer = TailAppend(transaction, self._table.io, {STATE_PROPERTY: location}, self._tail)
        with producer:
            for added in files:
                producer.append_data_file(file_of(added))
        expire_within(transaction, self._table)
        transaction.commit_transaction()
        self._state_location, self._tail = location, producer.tail()
        return producer.snapshot_id

    def _put(self, kind: str, data: bytes) -> str:
        # Not named .zst: Arrow would take that for an order to compress what is compressed already.
        location = f"{self._table.location()}/metadata/fieldlake-{uuid4()}.{kind}"
        with self._table.io.new_output(location).create(overwrite=True) as stream:
            stream.write(data)
        return location


class IcebergLake:
    """Catalogs by the names that contracts use."""

    def __init__(self, catalogs: tuple[CatalogConfig, ...]) -> None:
        self._configs = {config.name: config for config in catalogs}
        self._catalogs: dict[str, LakeCatalog] = {}
        self._states = SharedStates()
        self._lock = threading.Lock()

    def open(self, contract: Contract) -> IcebergTable:
        """Open the table of a contract; create it, or let it follow. Raises TableConflictError, CommitConflictError."""
        if contract.catalog not in self._configs:
            raise TableConflictError(
                f"contract {contract.id}: its catalog is {contract.catalog!r}, configured are "
                f"{', '.join(sorted(self._configs))}: add it to the configuration or publish a corrected contract"
            )
        with _answers(f"catalog {contract.catalog}"):
            catalog = self._catalog(contract.catalog)
            try:
                table = catalog.load_table(contract.table)
            except NoSuchTableError:
                table = _create(catalog, contract)
            follow(table, contract)
        return IcebergTable(table, states=self._states)

    def _catalog(self, name: str) -> LakeCatalog:
        """Return a catalog, opened at its first use: a database that is down at the start is waited for."""
        with self._lock:
            if name not in self._catalogs:
                self._catalogs[name] = open_catalog(self._configs[name])
            return self._catalogs[name]

    def close(self) -> None:
        """Release connections."""
        for catalog in self._catalogs.values():
            catalog.engine.dispose()


def state_snapshot(table: Table) -> Snapshot | None:
    """Return the newest snapshot that names a state, among the ancestors of the current one."""
    return next((snapshot for snapshot in _ancestry(table) if state_location(snapshot) is not None), None)


def state_location(snapshot: Snapshot | None) -> str | None:
    """Return the location of the state that a snapshot names."""
    return None if snapshot is None or snapshot.summary is None else snapshot.summary.get(STATE_PROPERTY)


def _ancestry(table: Table) -> list[Snapshot]:
    by_id = {snapshot.snapshot_id: snapshot for snapshot in table.metadata.snapshots}
    found: list[Snapshot] = []
    at = table.metadata.current_snapshot_id
    while at is not None and at in by_id:
        found.append(by_id[at])
        at = by_id[at].parent_snapshot_id
    return found


def _create(catalog: LakeCatalog, contract: Contract) -> Table:
    with catalog.making(contract.table):
        try:
            return catalog.load_table(contract.table)  # by somebody who has just made it
        except NoSuchTableError:
            return _create_alone(catalog, contract)


def _create_alone(catalog: LakeCatalog, contract: Contract) -> Table:
    if is_left_behind(catalog, contract.table):
        raise TableConflictError(
            f"table {contract.table}: catalog {contract.catalog} does not know it and its files are there: run "
            f"`fieldlake table register {contract.catalog}.{contract.table}` and restart ingest"
        )
    with suppress(NamespaceAlreadyExistsError, IntegrityError):  # the latter when another worker does the same
        catalog.create_namespace(contract.namespace)
    return catalog.create_table(
        contract.table,
        schema=iceberg_schema(contract),
        properties={**table_properties(contract), COLUMNS_PROPERTY: encode_columns(first_columns(contract))},
    )


def _columns_as(one: TableMetadata, other: TableMetadata) -> bool:
    return one.current_schema_id == other.current_schema_id and one.properties.get(COLUMNS_PROPERTY) == (
        other.properties.get(COLUMNS_PROPERTY)
    )


@contextmanager
def _answers(what: str) -> Iterator[None]:
    """Turn a store or catalog that does not answer into our own error; only around what changes no table."""
    try:
        yield
    except UNKNOWN as error:
        raise StoreUnavailableError(f"{what}: expected an answer: {error}: check that store and catalog run") from error
