"""What a snapshot remembers beside its rows: how far the log was read and which sequence numbers are in the table.

One `TableState` per table and commit, in a small file that the snapshot's summary names. It is all that recovery needs:

- every message before `begins` is complete in every table, because a round starts only after the one before it was
  committed everywhere. So a restart reads from the furthest `begins` of any table;
- `streams` says for every sequence number whether the table has it, so whatever is read twice adds nothing.
"""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple, TypeAlias

import msgspec
import zstandard
from msgspec import Struct

from contracts.ranges import RangeSet
from lakehouse.errors import StateError

STATE_PROPERTY: Final = "fieldlake.state"  # snapshot summary key; the value is the file's location
STATE_BYTES_MAX: Final = 268_435_456  # bytes once decompressed: a million streams with a few ranges each

Positions: TypeAlias = dict[str, int]  # "topic/partition" -> next offset to read


class StreamKey(NamedTuple):
    """One contract's events from one origin in one epoch."""

    contract: str
    origin: str
    epoch: int


Known: TypeAlias = Mapping[StreamKey, RangeSet]  # which sequence numbers a table accounts for


class TableState(Struct, frozen=True):
    """`begins` and `ends`: the log positions of the round that made the commit. `logs`: topic -> its identity.

    `decision_ids` are the newest ones in the table, oldest first (only in the decisions table).
    """

    begins: Positions = {}
    ends: Positions = {}
    logs: dict[str, str] = {}
    streams: tuple[tuple[StreamKey, RangeSet], ...] = ()
    decision_ids: tuple[bytes, ...] = ()


def known(state: TableState) -> dict[StreamKey, RangeSet]:
    """Return the state's streams as a mapping."""
    return dict(state.streams)


def encode(state: TableState) -> bytes:
    """Return MessagePack in one zstd frame."""
    return zstandard.ZstdCompressor(level=1).compress(msgspec.msgpack.encode(state))


def decode(data: bytes, source: str) -> TableState:
    """Parse what `encode` made; `source` names the file in errors. Raises StateError."""
    try:
        raw = zstandard.ZstdDecompressor().decompress(data, max_output_size=STATE_BYTES_MAX)
        return msgspec.msgpack.decode(raw, type=TableState)
    except (zstandard.ZstdError, msgspec.DecodeError) as error:
        raise StateError(
            f"state file {source}: expected zstd over MessagePack, found {len(data)} bytes: {error}; "
            "restore the file from the store's versions or roll the table back to the snapshot before"
        ) from error


def furthest(states: Iterable[TableState], logs: Mapping[str, str]) -> Positions:
    """Return where to read on: per partition the furthest `begins` among states that read the same log.

    A topic whose identity changed was created anew: its old positions mean nothing, it is read from the start.
    """
    positions: Positions = {}
    for state in states:
        for partition, offset in state.begins.items():
            topic = partition.rpartition("/")[0]
            if state.logs.get(topic) == logs.get(topic):
                positions[partition] = max(offset, positions.get(partition, 0))
    return positions
