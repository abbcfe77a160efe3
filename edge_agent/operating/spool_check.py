"""Whether a spool can be opened and what of it has rotted, without changing a byte of it."""

from pathlib import Path

from msgspec import Struct

from edge_agent.adapters.cipher import KEY_BYTES, cipher_of, open_key
from edge_agent.adapters.overlaid_disk import OverlaidDisk
from edge_agent.adapters.process import WallClock
from edge_agent.consent_terms import open_consent
from edge_agent.core.spool.identity import FORMAT, IDENTITY_FILE, Identity, open_spool
from edge_agent.core.spool.record import scan
from edge_agent.core.spool.segment import Segment, segment_name
from edge_agent.errors import SpoolError


class SpoolFound(Struct, frozen=True):
    """`rotted` counts batches that cannot be read, `gaps` ranges that no file accounts for.

    Both are of what the lake was not known to hold; `rotted_records` are of all, the ring's too. `torn_bytes` at an end
    were never durable: a start cuts them off.
    """

    epoch: int
    records: int
    size_bytes: int
    owed_bytes: int
    batches: int
    rotted: int
    rotted_records: int
    gaps: int
    torn_bytes: int
    cursor_rotted: bool
    newest_ms: int

    @property
    def is_whole(self) -> bool:
        """Say whether nothing is damaged."""
        return not (self.rotted or self.rotted_records or self.gaps or self.cursor_rotted)


def look(folder: Path, key_file: Path, device: str) -> SpoolFound | None:
    """Read everything that the lake is not known to hold; None when there is no spool yet.

    Raises SpoolError, ConfigError, ConsentError, OSError.
    """
    if not (folder / IDENTITY_FILE).exists() and not any(folder.glob("segment-*")):
        return None
    if not key_file.exists():
        raise SpoolError(f"key {key_file}: not there, and the spool was written with one: put it back from a copy")
    if key_file.stat().st_size != KEY_BYTES:
        raise SpoolError(f"key {key_file}: expected {KEY_BYTES} bytes: put back the one the spool was written with")
    disk = OverlaidDisk(folder)
    key = open_key(key_file)
    _, persons = open_consent(disk, key, WallClock())
    spool = open_spool(disk, Identity(device, 0, {}, FORMAT), cipher_of(key), persons=persons)
    recovered = spool.recovered
    batches = rotted = rotted_records = 0
    gaps = len(spool.gaps(recovered.held))
    for segment in spool.segments:
        rotted_records += segment.records - _whole_records(disk, segment)
        if segment.number in spool.done:
            continue
        loaded = spool.load(segment.number, recovered.held)
        gaps += len(loaded.damages)
        batches += len(loaded.pending)
        rotted += sum(spool.read(batch) is None and not spool.is_withdrawn(batch) for batch in loaded.pending)
    return SpoolFound(
        epoch=spool.epoch,
        records=recovered.newest.number + 1 if recovered.newest is not None else 0,
        size_bytes=spool.size_bytes,
        owed_bytes=spool.owed_bytes,
        batches=batches,
        rotted=rotted,
        rotted_records=rotted_records,
        gaps=gaps,
        torn_bytes=disk.cut_bytes,
        cursor_rotted=recovered.cursor_rotted,
        newest_ms=max((segment.last_ms for segment in spool.segments), default=0),
    )


def _whole_records(disk: OverlaidDisk, segment: Segment) -> int:
    """Return how many of a segment's records have the checksum that they were written with."""
    data = disk.read(segment_name(segment.number)) if segment_name(segment.number) in disk.names() else b""
    first = segment.first_number or 0
    return len({frame.meta.number for frame in scan(data).frames if frame.meta.number >= first})
