"""Candidates: the rows of one batch that some live rule may want, one message per batch and key shard."""

import zlib
from typing import Any, Final

import msgspec
from msgspec import Struct

from contracts.errors import OperatorMustActError

KEY_SHARDS: Final = 64  # shards; enough to spread over workers, few enough that one batch makes few messages


class Candidates(Struct, frozen=True, array_like=True):
    """Rows in column order. `columns[0]` is `seq`, `columns[1]` the event time in us, `columns[2]` the subject."""

    shard: int
    ruleset: int  # offset on `fieldlake.rules` up to which the preselector had read
    contract: str
    contract_version: str
    subject_kind: str
    origin: str
    epoch: int
    sealed_at_ms: int
    names: tuple[str, ...]
    columns: tuple[list[Any], ...]


def shard_of(subject: str) -> int:
    """Return the key shard of a subject, stable across processes and versions."""
    return zlib.crc32(subject.encode()) % KEY_SHARDS


def encode(candidates: Candidates) -> bytes:
    """Return the MessagePack form."""
    return msgspec.msgpack.encode(candidates)


def decode(data: bytes) -> Candidates:
    """Parse the MessagePack form. Raises OperatorMustActError."""
    try:
        return msgspec.msgpack.decode(data, type=Candidates)
    except msgspec.DecodeError as error:
        raise OperatorMustActError(
            f"candidates: expected their MessagePack form, {len(data)} bytes: {error}"
        ) from error
