"""The tables as a writer knows them: what they account for, with everything that it has handed over itself."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from msgspec import Struct

from contracts import ranges
from contracts.contract import Contract
from contracts.ports import Clock
from contracts.ranges import RangeSet
from lakehouse.contract_feed import ContractFeed
from lakehouse.errors import StoreUnavailableError, TableConflictError
from lakehouse.handover import Claim
from lakehouse.heap import tidied
from lakehouse.layout import lacking
from lakehouse.plan import TablePart, View
from lakehouse.ports import Lake, LakeTable
from lakehouse.positions import Positions, of_logs
from lakehouse.rows import DECISIONS_TABLE, QUARANTINE
from lakehouse.state import must_fold
from lakehouse.streams import StreamKey, Streams

FOLLOW_S: Final = 1.0  # seconds between two looks for new contracts while no batch comes; a round takes what has come
PARKED_S: Final = 2.0  # seconds between two looks at a store that does not answer

_NO_QUARANTINE: Final = (
    "contract quarantine: expected it among the published ones, found none: batches wait, since a refused row would "
    "have no place to go: run `fieldlake contract publish` with it"
)
_log = logging.getLogger(__name__)


class _Open(Struct):
    """A contract's table and what is known of it."""

    table: LakeTable
    known: Streams


class KnownTables:
    """Read anew as a whole, then followed. Not for use from two threads at once.

    A table whose store or catalog does not answer is *parked*: its batches are left alone, all others go on.
    """

    def __init__(self, lake: Lake, feed: ContractFeed, clock: Clock, note: Callable[[Exception], None]) -> None:
        self._lake, self._feed, self._clock, self._note = lake, feed, clock, note
        self._tables: dict[str, _Open] = {}
        self._parked: dict[str, str] = {}
        self._held: dict[StreamKey, RangeSet] = {}
        self._ids: set[bytes] = set()
        self._looked_s = self._followed_s = float("-inf")
        self._lacks_quarantine = False

    def __len__(self) -> int:
        return len(self._tables)

    @property
    def parked(self) -> Mapping[str, str]:
        """Return why a table is left alone, by contract."""
        return self._parked

    def read(self, logs: dict[str, str]) -> list[Positions]:
        """Read the states of all tables; return their floors in logs of these identities.

        Raises StoreUnavailableError when no store answers, and what `Lake.open` raises beyond what parks a table.
        """
        self._tables.clear()
        self._parked = {}
        self._held, self._ids = {}, set()
        self._feed.catch_up()
        floors: list[Positions] = []
        for contract in list(self._feed.registry.newest.values()):
            found = self._open(contract, logs)
            floors += [] if found is None else [found]
            self._open_older(contract.id, logs)
        self._lacks_quarantine = QUARANTINE not in self._tables
        if self._parked and not self._tables:
            raise StoreUnavailableError(f"tables {', '.join(sorted(self._parked))}: no store or catalog answers")
        return floors

    def follow(self, logs: dict[str, str]) -> bool:
        """Follow the contracts to the present end of their topic, open the tables of new ones; say if anything came."""
        self._followed_s = self._clock.monotonic_s()
        before = self._feed.taken
        self._open_new(self._feed.catch_up(), logs)
        return self._feed.taken > before

    def hear(self, logs: dict[str, str]) -> None:
        """Open the tables of new contracts that have come by themselves."""
        self._open_new(self._feed.hear(), logs)

    def is_due(self) -> bool:
        """Say whether contracts should be followed although no batch has come."""
        return self._clock.monotonic_s() >= self._followed_s + FOLLOW_S

    def table(self, contract_id: str) -> LakeTable:
        """Return an open table."""
        return self._tables[contract_id].table

    def view(self, begins: Positions) -> View:
        """Return what a round is planned by."""
        newest = self._feed.registry.newest
        if newest and QUARANTINE not in newest:
            self._note(TableConflictError(_NO_QUARANTINE))
        return View(
            registry=self._feed.registry,
            known={name: opened.known for name, opened in self._tables.items()},
            held=self._held,
            ids=self._ids,
            begins=begins,
            layouts={name: opened.table.layout for name, opened in self._tables.items()},
            # A bad row would have no place to go, so without the quarantine nothing is taken.
            parked=frozenset(self._parked if QUARANTINE in self._tables else newest),
        )

    def know(self, part: TablePart) -> None:
        """Take over what a round accounts for, before its table does."""
        opened = self._tables[part.contract]
        opened.known.take(part.changed)
        if must_fold(opened.known):
            with tidied(len(opened.known.columns)):
                opened.known = Streams(opened.known.folded())
        self._ids.update(part.ids)
        for claim in part.held:
            self._held[claim.key] = ranges.union((*self._held.get(claim.key, ranges.EMPTY), *claim.ranges))

    def release(self, claims: Sequence[Claim]) -> None:
        """Forget what the quarantine need not hold any more."""
        for claim in claims:
            self._held[claim.key] = ranges.without(self._held.get(claim.key, ranges.EMPTY), claim.ranges)

    def park(self, contract_id: str, error: Exception) -> None:
        """Leave a table alone."""
        self._parked = self._parked | {contract_id: str(error)}  # another thread may be writing the old one down
        self._looked_s = self._clock.monotonic_s()
        self._note(error)

    def must_be_read(self) -> bool:
        """Say whether what was left alone can go on, so that states and log must be read anew."""
        if self._lacks_quarantine and QUARANTINE in self._tables:
            return True
        if not self._parked or self._clock.monotonic_s() - self._looked_s < PARKED_S:
            return False
        self._looked_s = self._clock.monotonic_s()
        for name in sorted(self._parked):
            contract = self._feed.registry.newest.get(name)
            try:
                if contract is not None:
                    self._lake.open(contract).recover()
            except StoreUnavailableError as error:
                self._note(error)
                return False
        return True

    def _open_new(self, contracts: Sequence[Contract], logs: dict[str, str]) -> None:
        for contract in contracts:
            _log.info("contract %s %s", contract.id, contract.version)
            self._open(contract, logs)

    def _open(self, contract: Contract, logs: dict[str, str]) -> Positions | None:
        """Open a contract's table and return its floors; a version that does not fit gives way to the one before it."""
        try:
            table = self._lake.open(contract)
            if contract.id in self._tables:
                self._tables[contract.id].table = table
                return None
            kept = table.recover().kept
        except TableConflictError as error:
            self._feed.registry.withdraw(contract)
            self._note(error)
            before = self._feed.registry.newest.get(contract.id)
            return None if before is None or contract.id in self._tables else self._open(before, logs)
        except StoreUnavailableError as error:
            self.park(contract.id, error)
            return None
        self._tables[contract.id] = _Open(table, kept.streams)
        if contract.id == QUARANTINE:
            self._held = dict(kept.root.held)
        if contract.id == DECISIONS_TABLE:
            self._ids = set(kept.root.ids)
        return of_logs(kept.root.floors, kept.root.logs, logs)

    def _open_older(self, contract_id: str, logs: dict[str, str]) -> None:
        """Let a table have what only older versions say; each look costs a read of the catalog, so only those."""
        for older in self._feed.registry.older(contract_id):
            layout = self._tables[contract_id].table.layout if contract_id in self._tables else None
            if layout is not None and lacking(older, layout.columns):
                self._open(older, logs)
