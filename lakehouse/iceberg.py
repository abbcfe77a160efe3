"""Iceberg tables behind the `Lake` port: a SQL catalog per object store, one compare-and-set per commit."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, cast
from uuid import uuid4

import pyarrow as pa
from pyiceberg.exceptions import (
    CommitFailedException,
    CommitStateUnknownException,
    NamespaceAlreadyExistsError,
    NoSuchTableError,
    TableAlreadyExistsError,
)
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Snapshot
from sqlalchemy.exc import SQLAlchemyError

from contracts.contract import Contract
from lakehouse.catalog import LakeCatalog, open_catalog
from lakehouse.config import CatalogConfig
from lakehouse.data_files import write_rows
from lakehouse.errors import (
    CommitConflictError,
    CommitOutcomeUnknownError,
    FencedError,
    StoreUnavailableError,
    TableConflictError,
)
from lakehouse.evolution import first_columns, follow, layout_of
from lakehouse.expiry import expire_within
from lakehouse.landing import aligned
from lakehouse.layout import COLUMNS_PROPERTY, Layout, encode_columns
from lakehouse.ports import Recovered, Written
from lakehouse.register import is_left_behind
from lakehouse.schema import arrow_schema, iceberg_schema
from lakehouse.state import STATE_PROPERTY, TableState, decode, encode
from lakehouse.tables import table_properties
from lakehouse.tail import Merge, Tail
from lakehouse.transactions import LeanTransaction, ReplaceOwnFiles

# Tries of one commit. Maintenance commits every few seconds and takes about as long as an ingest commit, so two
# conflicts in a row are rare; eight mean that somebody else writes here all the time.
COMMIT_TRIES_MAX: Final = 8
# Seconds after which files that were written are not committed any more: the sweep removes unreferenced files after
# five times as long, and must never meet a commit that still wants them.
COMMIT_WITHIN_S: Final = 120.0
UNKNOWN: Final = (CommitStateUnknownException, SQLAlchemyError, OSError)

_log = logging.getLogger(__name__)


class IcebergTable:
    """One table, written by one ingest process. Not for use from two threads at once."""

    def __init__(self, table: Table, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._table, self._monotonic_s = table, monotonic_s
        self._state_location: str | None = None
        self._tail = Tail()
        self._layout: tuple[TableMetadata, Layout] | None = None

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
        self._tail.clear()
        with _answers(f"table {self._name}"):
            self._table.refresh()
            snapshot = state_snapshot(self._table)
            self._state_location = state_location(snapshot)
            if snapshot is None or self._state_location is None:
                return Recovered(TableState(), None)
            with self._table.io.new_input(self._state_location).open() as stream:
                return Recovered(decode(stream.read(), self._state_location), snapshot.snapshot_id)

    def reload(self) -> None:
        """Take over a changed schema."""
        self._tail.clear()
        with _answers(f"table {self._name}"):
            self._table.refresh()

    def write(self, rows: pa.Table | None, state: TableState) -> Written:
        """Store the state file and, when there are rows, one data file, which may stand for older ones too."""
        # Not named .zst: Arrow would take that for an order to compress what is compressed already.
        location = f"{self._table.location()}/metadata/fieldlake-{uuid4()}.state"
        written_s = self._monotonic_s()
        with _answers(f"store of table {self._name}"):
            with self._table.io.new_output(location).create(overwrite=True) as stream:
                stream.write(encode(state))
            merge = None if rows is None else self._tail.plan(rows)
            files = () if merge is None else self._store(merge)
        return Written(location, files, written_s, merge)

    def commit(self, written: Written) -> int:
        """Make the files current in one snapshot; see `lakehouse.ports.LakeTable.commit`.

        1. look       the newest state must be the one this process knows, or its own that landed unseen.
        2. append     against exactly that snapshot. Conflict: nothing happened, look again. The files of the tail may
                      be gone by then, so the rows are written once more, alone.
        3. unknown    the answer was lost: look again; the state's unique location says whether it landed. Should it
                      land later still, the compare-and-set of step 2 fails and the next look finds it.
        """
        unknown: BaseException | None = None
        for attempt in range(COMMIT_TRIES_MAX):
            try:
                if attempt:
                    self._table.refresh()
                    self._tail.clear()
                if (landed := self._landed(written)) is not None:  # Step 1.
                    return landed
                self._check_age(written)
                written = self._alone(written) if attempt else written
                return self._append(written)  # Step 2.
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

    def _landed(self, written: Written) -> int | None:
        snapshot = state_snapshot(self._table)
        found = state_location(snapshot)
        if snapshot is not None and found == written.state_location:
            self._state_location = found
            return snapshot.snapshot_id
        if found != self._state_location:
            raise FencedError(
                f"table {self._name}: expected {self._state_location} as the newest state, found {found}: another "
                "ingest process writes here; stop one of the two, the other goes on from the table by itself"
            )
        return None

    def _check_age(self, written: Written) -> None:
        age_s = self._monotonic_s() - written.written_s
        if age_s > COMMIT_WITHIN_S:
            raise CommitConflictError(
                f"commit to {self._name}: its files are {age_s:.0f} s old, at most {COMMIT_WITHIN_S:.0f} s are "
                "allowed: they are written anew from the log"
            )

    def _store(self, merge: Merge) -> tuple[DataFile, ...]:
        columns = arrow_schema(self._table.schema())
        rows = pa.concat_tables([aligned(rows, columns) for rows in merge.rows])
        return write_rows(self._table, rows, merge.level > 0)

    def _alone(self, written: Written) -> Written:
        """Return the same commit without what it would have replaced."""
        merge = cast(Merge | None, written.merge)
        if merge is None or not merge.replaces:
            return written
        alone = Merge(merge.rows[-1:], (), 0)
        return Written(written.state_location, self._store(alone), written.written_s, alone)

    def _append(self, written: Written) -> int:
        merge = cast(Merge | None, written.merge)
        own = {} if merge is None else {kept.snapshot_id: kept.file for kept in merge.replaces}
        properties = {STATE_PROPERTY: written.state_location}
        transaction = LeanTransaction(self._table)
        with (
            ReplaceOwnFiles(transaction, self._table.io, properties, own)
            if own
            else transaction.update_snapshot(snapshot_properties=properties).merge_append()
        ) as producer:
            for added in written.files:
                producer.append_data_file(cast(DataFile, added))
        expire_within(transaction, self._table)
        transaction.commit_transaction()
        self._state_location = written.state_location
        if merge is not None:
            self._tail.committed(merge, cast(DataFile, written.files[0]), producer.snapshot_id)
        return producer.snapshot_id


class IcebergLake:
    """Catalogs by the names that contracts use."""

    def __init__(self, catalogs: tuple[CatalogConfig, ...]) -> None:
        self._catalogs = {config.name: open_catalog(config) for config in catalogs}

    def open(self, contract: Contract) -> IcebergTable:
        """Open the table of a contract; create it, or let it follow. Raises TableConflictError, CommitConflictError."""
        if contract.catalog not in self._catalogs:
            raise TableConflictError(
                f"contract {contract.id}: its catalog is {contract.catalog!r}, configured are "
                f"{', '.join(sorted(self._catalogs))}: add it to the configuration or publish a corrected contract"
            )
        catalog = self._catalogs[contract.catalog]
        with _answers(f"catalog {contract.catalog}"):
            try:
                table = catalog.load_table(contract.table)
            except NoSuchTableError:
                table = _create(catalog, contract)
            follow(table, contract)
        return IcebergTable(table)

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
    if is_left_behind(catalog, contract.table):
        raise TableConflictError(
            f"table {contract.table}: catalog {contract.catalog} does not know it and its files are there: run "
            f"`fieldlake table register {contract.catalog}.{contract.table}` and restart ingest"
        )
    with suppress(NamespaceAlreadyExistsError):
        catalog.create_namespace(contract.namespace)
    try:
        return catalog.create_table(
            contract.table,
            schema=iceberg_schema(contract),
            properties={**table_properties(contract), COLUMNS_PROPERTY: encode_columns(first_columns(contract))},
        )
    except TableAlreadyExistsError:
        return catalog.load_table(contract.table)


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
