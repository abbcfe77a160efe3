"""Whose spool a folder is, and how it is opened."""

from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from edge_agent.core.consent.person_keys import PersonKeys
from edge_agent.core.spool.record import Cursor, decode_cursor, encode_cursor
from edge_agent.core.spool.recovery import CURSOR_FILE, Recovered, recover
from edge_agent.core.spool.retention import Retention
from edge_agent.core.spool.spool import Spool
from edge_agent.errors import SpoolError
from edge_agent.ports import Cipher, Disk

IDENTITY_FILE: Final = "spool.json"
FORMAT: Final = 2  # of the spool's files


class Identity(Struct, frozen=True):
    """Whose spool it is. `sources` are checksums by contract: in another file the same numbers mean other events."""

    device: str
    epoch: int
    sources: dict[str, int] = {}
    format: int = 1  # what a file without the field has


def open_spool(
    disk: Disk,
    wanted: Identity,
    cipher: Cipher | None = None,
    retention: Retention = Retention(),  # noqa: B008 - frozen
    quota_bytes: int = 2**63,
    persons: PersonKeys | None = None,
) -> Spool:
    """Open or create a device's spool; `wanted.epoch` is taken only when it is created. Raises SpoolError.

    A spool that is created has first a cursor that speaks of no record, then its identity. So a cursor that is missing,
    or that speaks of records of which none is left, says that files were taken away. Under the old numbers other events
    would pass for repeats: a new epoch begins, and `recovered.emptied_epoch` says so.
    `persons` are the keys of the persons whose rows it holds.
    """
    names = disk.names()
    if IDENTITY_FILE not in names:
        _refuse_filled(disk, names)
        disk.replace(CURSOR_FILE, encode_cursor(Cursor()))
        disk.replace(IDENTITY_FILE, msgspec.json.encode(wanted))
        return Spool(disk, wanted.epoch, Recovered(), cipher, retention, quota_bytes, persons)
    found = _identity(disk, wanted)
    recovered = recover(disk, names)
    if recovered.is_emptied or not (recovered.segments or CURSOR_FILE in names):
        emptied, found = found.epoch, replace(found, epoch=max(found.epoch + 1, wanted.epoch))
        recovered = Recovered(emptied_epoch=emptied)
        disk.replace(IDENTITY_FILE, msgspec.json.encode(found))  # First: the old epoch must not go on without a record.
        disk.replace(CURSOR_FILE, encode_cursor(Cursor()))
    if not wanted.sources.keys() <= found.sources.keys():
        found = replace(found, sources={**found.sources, **wanted.sources})
        disk.replace(IDENTITY_FILE, msgspec.json.encode(found))
    return Spool(disk, found.epoch, recovered, cipher, retention, quota_bytes, persons)


def _refuse_filled(disk: Disk, names: list[str]) -> None:
    filled = [name for name in names if name.startswith("segment-")]
    if CURSOR_FILE in names and decode_cursor(disk.read(CURSOR_FILE)) != Cursor():
        filled.append(CURSOR_FILE)
    if filled:
        raise SpoolError(
            f"spool: found {filled[0]} but no {IDENTITY_FILE}: put the file back, or move the folder away to start "
            "a new epoch"
        )


def _identity(disk: Disk, wanted: Identity) -> Identity:
    """Return whose spool it is, if it is the wanted one. Raises SpoolError."""
    try:
        found = msgspec.json.decode(disk.read(IDENTITY_FILE), type=Identity)
    except msgspec.DecodeError as error:
        raise SpoolError(f"spool: {IDENTITY_FILE} cannot be read ({error}): put it back from a copy") from error
    if found.format != FORMAT:
        raise SpoolError(
            f"spool: {IDENTITY_FILE} has format {found.format}, this agent writes {FORMAT}: drain it with the agent "
            "that wrote it, then move the folder away"
        )
    others = {name: crc32 for name, crc32 in wanted.sources.items() if found.sources.get(name, crc32) != crc32}
    if found.device != wanted.device or others:
        raise SpoolError(
            f"spool of {found.device}, sources {found.sources}: asked for {wanted.device}, {wanted.sources}: give each "
            "device, and a file that takes the place of another, a spool_dir of its own"
        )
    return found
