"""Which events of the log a pull asks for: whole blocks at once, in either profile."""

import zlib
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from msgspec import Struct

from contracts.contract import Contract
from contracts.errors import BatchChecksumError
from contracts.ledger import Fate
from contracts.offshoots import FATE, PULL_ID, SOURCE_SEQ
from contracts.pulls import PullRequest
from edge_agent.core.codec.payload import Rows
from edge_agent.core.codec.unsealing import Unsealer
from edge_agent.core.events import Column, Events, Mask
from edge_agent.core.profile import Profile, SpoolPart
from edge_agent.core.spool.places import Block
from edge_agent.core.spool.record import BatchRef, StoredRef

# How many events are of the time asked for, and which of all are meant.
Meant: TypeAlias = Callable[[Events], tuple[int, Mask]]

# By whether the event was sent, and whether windows counted it.
_FATES: Final = {
    (True, False): Fate.KEPT.value,
    (False, True): Fate.AGGREGATED.value,
    (False, False): Fate.DROPPED.value,
}


class Picked(Struct, frozen=True):
    """Of a block, `examined` events are of the time asked for, and those of the part are meant."""

    examined: int
    part: SpoolPart

    def __len__(self) -> int:
        return len(self.part.rows.seqs)


class Selection:
    """Picks what one request asks for."""

    def __init__(self, unsealer: Unsealer, profile: Profile, request: PullRequest) -> None:
        self._unsealer = unsealer
        self._profile = profile
        self._request: Final = request
        self._meant = meant_by(profile, unsealer.contract, request)

    def pick(self, block: Block, data: bytes) -> Picked:
        """Return what is meant of a block. Raises BatchError when it cannot be read."""
        read = self._rows(block.ref, data)
        columns: dict[str, Any] = read.columns
        events = Events(read.seqs, columns, [], [])
        examined, mask = self._meant(events)
        found = self._profile.select(events, mask)
        rows = Rows(found.seqs, {**found.columns})
        return Picked(examined, SpoolPart(rows, block.fate is Fate.KEPT, block.fate is Fate.AGGREGATED))

    def _rows(self, ref: BatchRef | StoredRef, data: bytes) -> Rows:
        if isinstance(ref, BatchRef):
            return self._unsealer.batch(data)
        if zlib.crc32(data) != ref.checksum:
            raise BatchChecksumError(f"stored {ref.contract} {ref.first_seq}: its bytes are not those written")
        return self._unsealer.stored(ref, data)

    def columns(self, picked: Sequence[Picked], rows_max: int) -> dict[str, Column]:
        """Return up to so many rows of the pulled contract, in the order of their numbers."""
        merged, kept, counted = self._profile.merged(self._unsealer.contract, [one.part for one in picked])
        columns = {name: column[:rows_max] for name, column in merged.columns.items()}
        seqs = merged.seqs[:rows_max]
        fates = [_FATES[of] for of in zip(_truths(kept[:rows_max]), _truths(counted[:rows_max]), strict=True)]
        return {**columns, SOURCE_SEQ: seqs, FATE: fates, PULL_ID: [self._request.id] * len(fates)}


def meant_by(profile: Profile, contract: Contract, request: PullRequest) -> Meant:
    """Return what says which events are meant; of the other profile nothing is loaded."""
    if profile.arrays:
        from edge_agent.core.pulls import meaning

        return meaning.meant_by(contract, request)
    from edge_agent.lite import meaning as lite_meaning

    return lite_meaning.meant_by(contract, request)


def _truths(mask: Mask) -> list[bool]:
    found: list[bool] = mask.tolist() if hasattr(mask, "tolist") else mask
    return found
