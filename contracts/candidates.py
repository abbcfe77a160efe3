"""Candidates: the rows of one batch that some live rule may want, one message per batch and key shard."""

import zlib
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct

from contracts.errors import OperatorMustActError
from contracts.malformed import MALFORMED

KEY_SHARDS: Final = 64  # shards; enough to spread over workers, few enough that one batch makes few messages


class Candidates(Struct, frozen=True, array_like=True):
    """Rows in column order. `columns[0]` is `seq`, `columns[1]` the event time in us, `columns[2]` the subject."""

    shard: int
    ruleset: int  # offset of the last record of `fieldlake.rules` that the preselector had read, -1: none
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


class _Head(Struct, frozen=True, array_like=True):
    shard: int


_Message = TypeVar("_Message", Candidates, _Head)


def encode(candidates: Candidates) -> bytes:
    """Return the MessagePack form."""
    return msgspec.msgpack.encode(candidates)


def shard_in(data: bytes) -> int:
    """Return the key shard that an encoded message names, without building the rest. Raises OperatorMustActError."""
    return _decode(data, _Head).shard


def decode(data: bytes) -> Candidates:
    """Parse the MessagePack form. Raises OperatorMustActError."""
    return _decode(data, Candidates)


def _decode(data: bytes, kind: type[_Message]) -> _Message:
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except MALFORMED as error:
        raise OperatorMustActError(
            f"candidates: expected their MessagePack form, {len(data)} bytes: {error}"
        ) from error
