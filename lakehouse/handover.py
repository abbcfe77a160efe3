"""What a writer hands to a table's committer: files that are written, and what of the streams they account for.

Travels on `fieldlake.handovers`, keyed by table; the answer on `fieldlake.settlements`, keyed by worker. Both are one
zstd frame over MessagePack.
"""

import zlib
from typing import Final, TypeVar

import msgspec
import zstandard
from msgspec import Struct

from contracts.malformed import MALFORMED
from contracts.ranges import RangeSet
from lakehouse.errors import HandoverError
from lakehouse.positions import Positions
from lakehouse.streams import StreamKey

HANDOVER_BYTES_MAX: Final = 67_108_864  # bytes once decompressed; the claims of a million origins

_LEVEL: Final = 1  # zstd


class DataFileForm(Struct, frozen=True, array_like=True):
    """An unpartitioned data file of the table as Iceberg's manifests describe it; keys of the maps are field ids."""

    path: str
    rows: int
    size_bytes: int
    column_sizes: dict[int, int] = {}
    value_counts: dict[int, int] = {}
    null_counts: dict[int, int] = {}
    nan_counts: dict[int, int] = {}
    lower_bounds: dict[int, bytes] = {}
    upper_bounds: dict[int, bytes] = {}
    split_offsets: tuple[int, ...] = ()
    sort_order_id: int | None = None


class Claim(Struct, frozen=True, array_like=True):
    """Ranges of a stream that a handover accounts for, none of which its writer has found in the table."""

    key: StreamKey
    ranges: RangeSet


class Handover(Struct, frozen=True, array_like=True):
    """One round of one writer for one table.

    `worker` and `number` name it. `owed` are origins that are told again what the table has of them, for they have
    sent it twice. The round was made of the messages from `begins` on; below `floors` every message is settled in every
    table. `logs` says of which logs these positions are. `written_at_ms` bounds how long its files may wait. `behind`
    says that the writer has more in hand, so a commit may wait for it.

    For the quarantine, `held` are ranges of other contracts' streams whose refused rows its files have, and `released`
    those whose own tables account for them by now. `ids` are those of decisions.
    """

    worker: str
    number: int
    contract: str
    files: tuple[DataFileForm, ...]
    claims: tuple[Claim, ...]
    owed: tuple[str, ...]
    begins: Positions
    floors: Positions
    logs: dict[str, str]
    written_at_ms: int
    behind: bool = False
    held: tuple[Claim, ...] = ()
    released: tuple[Claim, ...] = ()
    ids: tuple[bytes, ...] = ()

    @property
    def changes(self) -> bool:
        """Say whether there is anything to commit."""
        return bool(self.files or self.claims or self.held or self.ids)


class Settlement(Struct, frozen=True, array_like=True):
    """What became of a handover: it is in `snapshot_id`, or it was stale and its files are nobody's.

    Of no worker: the table has another committer, which hears handovers from offset `heard` of their partition on; what
    lies before it is settled, and may never be answered.
    """

    worker: str
    number: int
    contract: str
    snapshot_id: int | None
    heard: int = 0


def partition_of(contract: str, partitions: int) -> int:
    """Return the partition of `fieldlake.handovers` that a contract's table has."""
    return zlib.crc32(contract.encode()) % partitions


def encode(value: Handover | Settlement) -> bytes:
    """Return the stored form."""
    # One call, no object: writer and committer are threads of one process, and a compressor serves one at a time.
    return zstandard.compress(msgspec.msgpack.encode(value), _LEVEL)


def decode_handover(data: bytes) -> Handover:
    """Parse a handover. Raises HandoverError."""
    return _decode(data, Handover)


def decode_settlement(data: bytes) -> Settlement:
    """Parse an answer. Raises HandoverError."""
    return _decode(data, Settlement)


_Value = TypeVar("_Value", Handover, Settlement)


def _decode(data: bytes, kind: type[_Value]) -> _Value:
    try:
        raw = zstandard.ZstdDecompressor().decompress(data, max_output_size=HANDOVER_BYTES_MAX)
        return msgspec.msgpack.decode(raw, type=kind)
    except (zstandard.ZstdError, *MALFORMED) as error:
        raise HandoverError(
            f"{kind.__name__}: expected zstd over MessagePack, found {len(data)} bytes: {error}"
        ) from error
