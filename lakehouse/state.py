"""What a snapshot remembers beside its rows: which sequence numbers are in the table, and how far the log was read.

One *root* file per commit, which the snapshot's summary names. It has what the commit changed and names the files with
the rest: `parts` are streams in columns, of which a later one tells what an earlier one tells too; `roots` are the
root files behind them, oldest first, whose changes come above. A commit writes its own changes only:

- after ROOTS_MAX roots it writes everything that has changed since the first part as the second one;
- when those are more than a share of the first part, it writes a new first part with everything.

So a commit costs the same with ten origins and with a million, and a start reads ROOTS_MAX + 2 files at most. Pure.
"""

import zlib
from collections.abc import Collection, Sequence
from typing import Final

import msgspec
import zstandard
from msgspec import Struct
from msgspec.structs import replace

from contracts.ranges import RangeSet
from lakehouse.errors import StateError
from lakehouse.positions import Positions
from lakehouse.streams import COLUMNS_BYTES_MAX, Columns, StreamKey, Streams

STATE_PROPERTY: Final = "fieldlake.state"  # snapshot summary key; the value is the root file's location
ROOTS_MAX: Final = 32  # files of a few KB each, which a start reads side by side
# Streams that may have changed since the columns were written, at least; fewer are not worth columns of their own.
CHANGED_MIN: Final = 4_096
CHANGED_SHARE: Final = 8  # one in so many streams of the columns

_CHECKSUM_BYTES: Final = 4
_LEVEL: Final = 1  # zstd


class TableState(Struct, frozen=True):
    """A root file.

    `changed` are the streams that this commit has changed, with all their ranges. `floors`, `held` and `ids` are those
    of `lakehouse.settling`; `heard` says from where handovers are to be read; `logs` of which logs both positions are.
    """

    changed: tuple[tuple[StreamKey, RangeSet], ...] = ()
    floors: Positions = {}
    heard: Positions = {}
    logs: dict[str, str] = {}
    held: tuple[tuple[StreamKey, RangeSet], ...] = ()
    ids: tuple[bytes, ...] = ()
    parts: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()


class Kept(Struct, frozen=True):
    """A state as it was committed: its root, where that lies (None: there is none yet), and all its streams."""

    root: TableState
    location: str | None
    streams: Streams


class Next(Struct, frozen=True):
    """The state of a coming commit. `part`: columns that are to be stored first, as the last of `root.parts`."""

    root: TableState
    part: Columns | None
    is_base: bool


def following(before: Kept, root: TableState) -> Next:
    """Return what a commit writes that makes `root`, which has its own changes only, the next state."""
    streams, changed = before.streams, dict(root.changed)
    has_many = len(before.root.roots) >= ROOTS_MAX
    if must_fold(streams, changed) or (has_many and not len(streams.columns)):
        return Next(root, Streams(streams.columns, {**streams.changed, **changed}).folded(), is_base=True)
    parts = before.root.parts
    if has_many:
        part = Streams(None, {**streams.changed, **changed}).folded()
        return Next(replace(root, parts=parts[:1]), part, is_base=False)
    roots = before.root.roots + (() if before.location is None else (before.location,))
    return Next(replace(root, parts=parts, roots=roots), None, is_base=False)


def must_fold(streams: Streams, changed: Collection[StreamKey] = ()) -> bool:
    """Say whether so many have changed, these included, that all belong in columns.

    A dictionary of a million takes half a gigabyte.
    """
    grown = len(streams.changed) + sum(key not in streams.changed for key in changed)
    return grown > _changed_max(streams)


def _changed_max(streams: Streams) -> int:
    return max(CHANGED_MIN, len(streams.columns) // CHANGED_SHARE)


def committed(before: Kept, made: Next, location: str) -> Kept:
    """Return the state that a commit has left. Takes over the streams of the one before, which is not used again."""
    if made.part is not None and made.is_base:
        return Kept(made.root, location, Streams(made.part))
    before.streams.take(dict(made.root.changed))
    return Kept(made.root, location, before.streams)


def committed_after(before: Kept, root: TableState, location: str) -> Kept | None:
    """Return the state of the next commit, None when the root is not that one's. Takes over the streams before."""
    if before.location is None or not root.roots or root.roots[-1] != before.location:
        return None
    before.streams.take(dict(root.changed))
    return Kept(root, location, before.streams)


def assembled(root: TableState, location: str, parts: Sequence[Columns], roots: Sequence[TableState]) -> Kept:
    """Return a state from its files; `parts` and `roots` are what the root names, in that order."""
    streams = Streams(parts[0] if parts else None)
    for part in parts[1:]:
        streams.take({part.key(at): part.held(at) for at in range(len(part))})
    for one in (*roots, root):
        streams.take(dict(one.changed))
    return Kept(root, location, streams)


def encode(state: TableState) -> bytes:
    """Return the stored form: a CRC-32 and the zstd frame that it is of, over MessagePack."""
    # One call, no object: tables are committed side by side, and a compressor that threads share writes broken frames.
    packed = zstandard.compress(msgspec.msgpack.encode(state), _LEVEL)
    return zlib.crc32(packed).to_bytes(_CHECKSUM_BYTES, "little") + packed


def unpacked(data: bytes, source: str) -> bytes:
    """Return what any of a state's files holds, decompressed. Raises StateError."""
    try:
        packed = data[_CHECKSUM_BYTES:]
        if zlib.crc32(packed) != int.from_bytes(data[:_CHECKSUM_BYTES], "little"):
            raise ValueError("its checksum is of other bytes")
        return zstandard.ZstdDecompressor().decompress(packed, max_output_size=COLUMNS_BYTES_MAX)
    except (zstandard.ZstdError, ValueError) as error:
        raise _unreadable(data, source, error) from error


def decode(data: bytes, source: str) -> TableState:
    """Parse what `encode` made; `source` names the file in errors. Raises StateError."""
    try:
        return msgspec.msgpack.decode(unpacked(data, source), type=TableState)
    except msgspec.DecodeError as error:
        raise _unreadable(data, source, error) from error


def _unreadable(data: bytes, source: str, error: Exception) -> StateError:
    return StateError(
        f"state file {source}: expected zstd over MessagePack, found {len(data)} bytes: {error}; "
        "restore the file from the store's versions or roll the table back to the snapshot before"
    )
