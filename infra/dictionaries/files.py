"""Rows from files of events, and dictionaries to and from files."""

from pathlib import Path
from typing import Final

import zstandard

from contracts.contract import Contract
from contracts.errors import ContractError
from contracts.packing import Plan, embedded_plan
from edge_agent.core.arrays import ARRAYS
from edge_agent.core.events import Reader
from infra.datasets.replay import write_atomically
from infra.dictionaries.errors import DictionaryError
from infra.dictionaries.training import Rows, Trained

FILE_BYTES_MAX: Final = 268_435_456  # bytes; what teaches are some thousand rows, and a file is read at once
DICTIONARY_BYTES_MAX: Final = 1_048_576  # bytes; the most that the lake takes


def read_rows(path: Path, contract: Contract) -> Rows:
    """Return the events of a file of JSON lines, as a device would send them. Raises DictionaryError."""
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise DictionaryError(f"{path}: expected at most {FILE_BYTES_MAX} bytes of events: give it a part of them")
        lines = [line for line in path.read_bytes().split(b"\n") if line]
    except OSError as error:
        raise DictionaryError(f"{path}: expected a file of JSON lines: {error.strerror}") from error
    checked = Reader(contract, ARRAYS).read(0, lines)
    if checked.refused:
        first = checked.refused[0]
        raise DictionaryError(
            f"{path}: {len(checked.refused)} of {len(lines)} events are not of contract {contract.id}, the first in "
            f"line {first.seq + 1} ({first.code}): give it events that a device would take"
        )
    return Rows(checked.events.seqs, dict(checked.events.columns))


def write_dictionary(path: Path, trained: Trained) -> None:
    """Write a dictionary's bytes; the file is whole or absent."""
    write_atomically(path, trained.data)


def read_dictionary(path: Path) -> tuple[int, Plan, bytes]:
    """Return a dictionary's id, plan and bytes. Raises DictionaryError unless it is one that was trained here."""
    try:
        data = path.read_bytes() if path.stat().st_size <= DICTIONARY_BYTES_MAX else b""
        number = zstandard.ZstdCompressionDict(data).dict_id() if data else 0
        plan = embedded_plan(data)
    except (OSError, zstandard.ZstdError, ContractError) as error:
        raise DictionaryError(f"{path}: expected a trained dictionary: {error}") from error
    if number == 0 or plan is None:
        raise DictionaryError(f"{path}: expected a trained dictionary, found none: run `fieldlake dictionary train`")
    return number, plan, data
