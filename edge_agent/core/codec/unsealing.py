"""What the spool holds of a stream, as events again."""

import logging
from typing import NamedTuple

import numpy as np

from contracts import microbatch
from contracts.contract import Contract
from contracts.errors import BatchError
from edge_agent.core.codec.payload import PayloadDecoder, Rows
from edge_agent.core.events import Column, Events
from edge_agent.core.filter.conditions import Mask
from edge_agent.core.spool.replay import Replayed

_log = logging.getLogger(__name__)


class Unsealer:
    """Reads batches and stored blocks of one contract."""

    def __init__(self, contract: Contract, dictionary: bytes = b"") -> None:
        self.contract = contract
        self._decoder = PayloadDecoder(contract, dictionary)

    def events(self, replayed: Replayed) -> tuple[Events, Mask, Mask]:
        """Return events of the spool in their order, without their lines; which of them travelled; which windows count.

        What has rotted is left out. Raises nothing for bad bytes.
        """
        parts: list[_Part] = []
        for batch in replayed.batches:
            try:
                header, payload = microbatch.parse(batch)
                rows = self._decoder.decode(bytes(payload), header.rows, header.raw_bytes, header.codec)
            except BatchError as error:
                _log.error("%s %d in the spool: %s", self.contract.id, replayed.first_seq, error)
                continue
            parts.append(_Part(rows, True, True))
        for ref, block in replayed.stored:
            try:
                parts.append(_Part(self._decoder.decode(block, ref.rows, ref.raw_bytes), False, ref.windowed))
            except BatchError as error:
                _log.error("%s %d in the spool: %s", self.contract.id, replayed.first_seq, error)
        return _merged(self.contract, [part for part in parts if len(part.rows.seqs)])


class _Part(NamedTuple):
    rows: Rows
    kept: bool
    windowed: bool


def _merged(contract: Contract, parts: list[_Part]) -> tuple[Events, Mask, Mask]:
    """Return rows in the order of their numbers, and which of them are of parts with each mark."""
    if not parts:
        none, nothing = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.bool_)
        return Events(none, {field.name: [] for field in contract.fields}, [], []), nothing, nothing
    seqs = np.concatenate([np.asarray(part.rows.seqs, dtype=np.int64) for part in parts])
    lengths = [len(part.rows.seqs) for part in parts]
    order = np.argsort(seqs, kind="stable")
    places = order.tolist()
    columns: dict[str, Column] = {}
    for field in contract.fields:
        found = [part.rows.columns[field.name] for part in parts]
        if all(isinstance(column, np.ndarray) for column in found):
            columns[field.name] = np.concatenate(found)[order]
        else:
            listed = [value for column in found for value in column]
            columns[field.name] = [listed[place] for place in places]
    kept = np.repeat(np.array([part.kept for part in parts]), lengths)[order]
    windowed = np.repeat(np.array([part.windowed for part in parts]), lengths)[order]
    return Events(seqs[order], columns, [], []), kept, windowed
