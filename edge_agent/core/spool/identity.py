"""Whose spool a folder is, and how it is opened."""

from typing import Final

import msgspec
from msgspec import Struct

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
) -> Spool:
    """Open or create a device's spool; `wanted.epoch` is taken only when it is created. Raises SpoolError."""
    names = disk.names()
    filled = [name for name in names if name.startswith("segment-") or name == CURSOR_FILE]
    if IDENTITY_FILE not in names:
        if filled:
            raise SpoolError(
                f"spool: found {filled[0]} but no {IDENTITY_FILE}: put the file back, or move the folder away to start "
                "a new epoch"
            )
        disk.replace(IDENTITY_FILE, msgspec.json.encode(wanted))
        return Spool(disk, wanted.epoch, Recovered(), cipher, retention, quota_bytes)
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
    if not wanted.sources.keys() <= found.sources.keys():
        known = msgspec.structs.replace(found, sources={**found.sources, **wanted.sources})
        disk.replace(IDENTITY_FILE, msgspec.json.encode(known))
    return Spool(disk, found.epoch, recover(disk, names), cipher, retention, quota_bytes)
