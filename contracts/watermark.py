"""Watermarks: what the lake has committed of a stream. The only receipt that frees a spool.

A *stream* is one contract's events from one origin; it has its own sequence numbers per epoch. The lake writes one
`Watermark` per stream to `fieldlake.watermarks`; the gateway merges those of one origin into an `AckDocument`, which is
the retained message on `fl/v1/down/{origin}/ack`.
"""

from typing import TypeVar

import msgspec
from msgspec import Struct

from contracts import ranges
from contracts.errors import WatermarkError
from contracts.malformed import MALFORMED
from contracts.ranges import RangeSet


class Watermark(Struct, frozen=True):
    """Committed sequence ranges of one stream in its newest epoch, half-open and disjoint."""

    origin: str
    contract: str
    epoch: int
    committed: RangeSet
    snapshot_id: int
    committed_at_ms: int

    @property
    def upto(self) -> int:
        """First sequence number that is not known to be committed."""
        return ranges.upto(self.committed)


class AckDocument(Struct, frozen=True):
    """All watermarks of one origin, newest epoch of each contract."""

    origin: str
    watermarks: tuple[Watermark, ...] = ()


_Document = TypeVar("_Document", Watermark, AckDocument)


def key(watermark: Watermark) -> bytes:
    """Key of a watermark on its compacted topic."""
    return f"{watermark.origin}/{watermark.contract}".encode()


def advance(document: AckDocument, watermark: Watermark) -> AckDocument:
    """Return the document with a watermark merged into it; one that says nothing new changes nothing.

    A newer epoch replaces an older one. Within an epoch committed ranges only grow, so their union is right, and the
    snapshot named is the newest: any order of the same watermarks gives the same document.
    """
    if watermark.origin != document.origin:
        raise WatermarkError(f"ack of {document.origin!r}: got a watermark of {watermark.origin!r}")
    kept = {w.contract: w for w in document.watermarks}
    before = kept.get(watermark.contract)
    if before is not None and before.epoch > watermark.epoch:
        return document
    same_epoch = [watermark] if before is None or before.epoch < watermark.epoch else [before, watermark]
    kept[watermark.contract] = msgspec.structs.replace(
        max(same_epoch, key=lambda w: (w.committed_at_ms, w.snapshot_id)),
        committed=ranges.union(r for w in same_epoch for r in w.committed),
    )
    return AckDocument(document.origin, tuple(kept[name] for name in sorted(kept)))


def encode(document: Watermark | AckDocument) -> bytes:
    """Return the JSON form."""
    return msgspec.json.encode(document)


def decode_watermark(data: bytes) -> Watermark:
    """Parse one stream's watermark. Raises WatermarkError."""
    return _decode(data, Watermark)


def decode_ack(data: bytes) -> AckDocument:
    """Parse an origin's acknowledgement document. Raises WatermarkError."""
    return _decode(data, AckDocument)


def _decode(data: bytes, kind: type[_Document]) -> _Document:
    try:
        return msgspec.json.decode(data, type=kind)
    except MALFORMED as error:
        raise WatermarkError(f"{kind.__name__}: expected its JSON form, found {data[:80]!r}: {error}") from error
