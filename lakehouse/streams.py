"""Which sequence numbers of which stream a table accounts for, for a million streams. Pure.

Most streams say nothing for minutes, so they lie in columns, sorted by a hash of contract and origin: 60 bytes a stream
where a dictionary of objects takes 400. What has changed since the columns were made lies in a dictionary above them.
Both are found by name, not by hash alone, so two names with one hash are two streams all the same.

The columns as bytes are a CRC-32 and the zstd frame that it is of: MessagePack of `_Form`, all little-endian.
"""

import hashlib
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import zstandard
from msgspec import Struct
from numpy.typing import NDArray

from contracts.ranges import RangeSet
from lakehouse.errors import StateError

COLUMNS_BYTES_MAX: Final = 1_073_741_824  # bytes once decompressed: ten million streams
# Streams whose names are put in order at once. The places of a name's letters take eight times the room of the letters,
# so those of a million names in one go were most of what a worker held.
GATHERED_AT_ONCE: Final = 16_384
_LEVEL: Final = 1  # zstd; hashes and names hardly pack, and a commit waits for it

_CHECKSUM_BYTES: Final = 4
# Of MessagePack's specification: an array of up to 15 entries, and bytes whose count follows in four of them.
_FIXARRAY: Final = 0x90
_BIN32: Final = b"\xc6"

Index = NDArray[np.int64]


class StreamKey(NamedTuple):
    """One contract's events from one origin in one epoch."""

    contract: str
    origin: str
    epoch: int


class Columns(Struct, frozen=True, eq=False):
    """Streams sorted by hash, then epoch: stream i is of contract `names[contracts[i]]`.

    Its origin is `origins[origin_at[i]:origin_at[i + 1]]` in UTF-8, its ranges are rows `range_at[i]` to
    `range_at[i + 1]` of `spans`, shape (ranges, 2).
    """

    hashes: NDArray[np.uint64]
    names: tuple[str, ...]
    contracts: NDArray[np.uint16]
    epochs: Index
    origin_at: Index
    origins: bytes
    range_at: Index
    spans: Index

    def __len__(self) -> int:
        return len(self.hashes)

    def key(self, at: int) -> StreamKey:
        """Return what stream `at` is called."""
        origin = self.origins[int(self.origin_at[at]) : int(self.origin_at[at + 1])].decode()
        return StreamKey(self.names[self.contracts[at]], origin, int(self.epochs[at]))

    def held(self, at: int) -> RangeSet:
        """Return the ranges of stream `at`."""
        found = self.spans[int(self.range_at[at]) : int(self.range_at[at + 1])]
        return tuple((first, end) for first, end in found.tolist())

    def places(self, contract: str, origin: str) -> list[int]:
        """Return where the epochs of an origin lie, in their order."""
        wanted = np.uint64(name_hash(contract, origin))
        first, end = np.searchsorted(self.hashes, wanted, "left"), np.searchsorted(self.hashes, wanted, "right")
        return [at for at in range(int(first), int(end)) if self.key(at)[:2] == (contract, origin)]


class Streams(Mapping[StreamKey, RangeSet]):
    """Ranges by stream: `changed` above `columns`. Neither is changed in place."""

    def __init__(self, columns: Columns | None = None, changed: Mapping[StreamKey, RangeSet] | None = None) -> None:
        self.columns = columns if columns is not None else columns_of({})
        self.changed: dict[StreamKey, RangeSet] = dict(changed or {})
        self._newest: dict[tuple[str, str], int] = {}  # epoch in `changed`
        self._note_epochs(self.changed)

    def __getitem__(self, key: StreamKey) -> RangeSet:
        found = self.changed.get(key)
        if found is None:
            found = next(
                (self.columns.held(at) for at in self._places(key) if self.columns.epochs[at] == key.epoch), None
            )
        if found is None:
            raise KeyError(key)
        return found

    def __len__(self) -> int:
        return len(self.columns) + sum(not self._is_below(key) for key in self.changed)

    def __iter__(self) -> Iterator[StreamKey]:
        for at in range(len(self.columns)):
            key = self.columns.key(at)
            if key not in self.changed:
                yield key
        yield from self.changed

    def take(self, changed: Mapping[StreamKey, RangeSet]) -> None:
        """Take over what a commit has changed."""
        self.changed |= changed
        self._note_epochs(changed)

    def copy(self) -> "Streams":
        """Return the same streams; what one of both takes over later is no news to the other."""
        made = Streams(self.columns)
        made.changed, made._newest = dict(self.changed), dict(self._newest)
        return made

    def newest(self, contract: str, origin: str) -> tuple[int, RangeSet] | None:
        """Return the newest epoch of an origin and what is held of it; None for one that is unknown."""
        epochs = [int(self.columns.epochs[at]) for at in self.columns.places(contract, origin)]
        changed = self._newest.get((contract, origin))
        if changed is not None:
            epochs.append(changed)
        if not epochs:
            return None
        newest = max(epochs)
        return newest, self[StreamKey(contract, origin, newest)]

    def folded(self) -> Columns:
        """Return columns with everything."""
        if not self.changed:
            return self.columns
        return _merged(self.columns, columns_of(self.changed))

    def _note_epochs(self, changed: Iterable[StreamKey]) -> None:
        for key in changed:
            name = key[:2]
            if key.epoch >= self._newest.get(name, key.epoch):
                self._newest[name] = key.epoch

    def _places(self, key: StreamKey) -> list[int]:
        return self.columns.places(key.contract, key.origin) if len(self.columns) else []

    def _is_below(self, key: StreamKey) -> bool:
        return any(self.columns.epochs[at] == key.epoch for at in self._places(key))


def name_hash(contract: str, origin: str) -> int:
    """Return 64 bits of BLAKE2b over both names, which no contract's name can blur: it has no line break."""
    digest = hashlib.blake2b(f"{contract}\n{origin}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def columns_of(streams: Mapping[StreamKey, RangeSet]) -> Columns:
    """Return streams as columns."""
    keyed = sorted((name_hash(key.contract, key.origin), key.epoch, key) for key in streams)
    keys = [key for _, _, key in keyed]
    names = tuple(sorted({key.contract for key in keys}))
    number = {name: at for at, name in enumerate(names)}
    origins = [key.origin.encode() for key in keys]
    return Columns(
        hashes=np.array([hashed for hashed, _, _ in keyed], dtype=np.uint64),
        names=names,
        contracts=np.array([number[key.contract] for key in keys], dtype=np.uint16),
        epochs=np.array([key.epoch for key in keys], dtype=np.int64),
        origin_at=_offsets(map(len, origins), len(origins)),
        origins=b"".join(origins),
        range_at=_offsets((len(streams[key]) for key in keys), len(keys)),
        spans=np.array([span for key in keys for span in streams[key]], dtype=np.int64).reshape(-1, 2),
    )


def _offsets(sizes: Iterable[int], count: int) -> Index:
    found = np.zeros(count + 1, dtype=np.int64)
    np.cumsum(np.fromiter(sizes, dtype=np.int64, count=count), out=found[1:])
    return found


def _merged(below: Columns, above: Columns) -> Columns:
    """Return both together; of a stream that both have, the ranges above."""
    names = tuple(sorted({*below.names, *above.names}))
    kept = _outside(below, above)
    parts = ((below, kept), (above, np.arange(len(above), dtype=np.int64)))
    hashes = np.concatenate([part.hashes[rows] for part, rows in parts])
    epochs = np.concatenate([part.epochs[rows] for part, rows in parts])
    order = np.lexsort((epochs, hashes))
    contracts = np.concatenate([_renamed(part, names)[rows] for part, rows in parts])
    letters, origin_at = _gathered(
        [(np.frombuffer(part.origins, np.uint8), part.origin_at, rows) for part, rows in parts], order
    )
    spans, range_at = _gathered([(part.spans, part.range_at, rows) for part, rows in parts], order)
    return Columns(hashes[order], names, contracts[order], epochs[order], origin_at, letters.tobytes(), range_at, spans)


def _outside(below: Columns, above: Columns) -> Index:
    """Return which streams of `below` are not in `above`."""
    keep = np.ones(len(below), dtype=np.bool_)
    near = np.isin(below.hashes, above.hashes)
    for at in np.flatnonzero(near).tolist():
        key = below.key(at)
        keep[at] = all(above.epochs[place] != key.epoch for place in above.places(key.contract, key.origin))
    found: Index = np.flatnonzero(keep)
    return found


def _renamed(part: Columns, names: tuple[str, ...]) -> NDArray[np.uint16]:
    numbers = np.array([names.index(name) for name in part.names], dtype=np.uint16)
    return numbers[part.contracts] if len(part) else part.contracts


def _gathered(parts: Sequence[tuple[NDArray[Any], Index, Index]], order: Index) -> tuple[NDArray[Any], Index]:
    """Return the entries of all parts in an order, and where each begins; part i is (data, offsets, wanted rows)."""
    data = np.concatenate([values for values, _, _ in parts])
    shifts = np.cumsum([0, *(len(values) for values, _, _ in parts)])
    firsts = np.concatenate([at[rows] + shift for (_, at, rows), shift in zip(parts, shifts, strict=False)])[order]
    sizes = np.concatenate([at[rows + 1] - at[rows] for _, at, rows in parts])[order]
    offsets: Index = np.zeros(len(order) + 1, dtype=np.int64)
    np.cumsum(sizes, out=offsets[1:])
    firsts -= offsets[:-1]
    found = np.empty((int(offsets[-1]), *data.shape[1:]), dtype=data.dtype)
    for at in range(0, len(order), GATHERED_AT_ONCE):
        end = min(len(order), at + GATHERED_AT_ONCE)
        index = np.repeat(firsts[at:end], sizes[at:end])
        index += np.arange(offsets[at], offsets[end], dtype=np.int64)
        found[offsets[at] : offsets[end]] = data[index]
    return found, offsets


class _Form(Struct, frozen=True, array_like=True):
    names: tuple[str, ...]
    hashes: bytes
    contracts: bytes
    epochs: bytes
    origin_at: bytes
    origins: bytes
    range_at: bytes
    spans: bytes


def encode(columns: Columns) -> bytes:
    """Return the form that is stored."""
    # Column by column, since a million streams take 60 MB, and their MessagePack would be those once more. A compressor
    # of its own: threads encode columns side by side, and one serves one at a time.
    pieces = list(_pieces(columns))
    compressor = zstandard.ZstdCompressor(_LEVEL).compressobj(size=sum(piece.nbytes for piece in pieces))
    packed = [compressor.compress(piece) for piece in pieces]
    packed.append(compressor.flush())
    checksum = 0
    for part in packed:
        checksum = zlib.crc32(part, checksum)
    return b"".join((checksum.to_bytes(_CHECKSUM_BYTES, "little"), *packed))


def _pieces(columns: Columns) -> Iterator[memoryview]:
    """Yield the MessagePack of `_Form`, which is an array of as many entries, without copying what is large."""
    head = bytes([_FIXARRAY | len(_Form.__struct_fields__)]) + msgspec.msgpack.encode(columns.names)
    yield memoryview(head)
    values = (
        columns.hashes.astype("<u8", copy=False),
        columns.contracts.astype("<u2", copy=False),
        columns.epochs.astype("<i8", copy=False),
        columns.origin_at.astype("<i8", copy=False),
        np.frombuffer(columns.origins, np.uint8),
        columns.range_at.astype("<i8", copy=False),
        columns.spans.astype("<i8", copy=False),
    )
    for value in values:
        yield memoryview(_BIN32 + value.nbytes.to_bytes(4, "big"))
        yield np.ascontiguousarray(value).reshape(-1).view(np.uint8).data


def decode(data: bytes, source: str) -> Columns:
    """Parse what `encode` made; `source` names the file in errors. Raises StateError."""
    try:
        packed = data[_CHECKSUM_BYTES:]
        if zlib.crc32(packed) != int.from_bytes(data[:_CHECKSUM_BYTES], "little"):
            raise ValueError("its checksum is of other bytes")
        raw = zstandard.ZstdDecompressor().decompress(packed, max_output_size=COLUMNS_BYTES_MAX)
        form = msgspec.msgpack.decode(raw, type=_Form)
        columns = Columns(
            np.frombuffer(form.hashes, "<u8"),
            form.names,
            np.frombuffer(form.contracts, "<u2"),
            np.frombuffer(form.epochs, "<i8"),
            np.frombuffer(form.origin_at, "<i8"),
            form.origins,
            np.frombuffer(form.range_at, "<i8"),
            np.frombuffer(form.spans, "<i8").reshape(-1, 2),
        )
        _check(columns)
    except (zstandard.ZstdError, msgspec.DecodeError, ValueError) as error:
        raise StateError(
            f"state file {source}: expected streams in columns, found {len(data)} bytes: {error}; restore the file "
            "from the store's versions or roll the table back to the snapshot before"
        ) from error
    return columns


def _check(columns: Columns) -> None:
    count = len(columns)
    sizes = {len(columns.contracts), len(columns.epochs), len(columns.origin_at) - 1, len(columns.range_at) - 1}
    if sizes != {count}:
        raise ValueError(f"expected columns of {count} streams, found {sorted(sizes)}")
    for offsets, end in ((columns.origin_at, len(columns.origins)), (columns.range_at, len(columns.spans))):
        if offsets[0] != 0 or offsets[-1] != end or (np.diff(offsets) < 0).any():
            raise ValueError(f"expected offsets from 0 to {end}")
    if count and int(columns.contracts.max()) >= len(columns.names):
        raise ValueError("a stream is of no contract")
    if (columns.hashes[1:] < columns.hashes[:-1]).any():
        raise ValueError("expected ascending hashes")
