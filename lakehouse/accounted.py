"""What a rebuild accounts for: which sequence numbers, which rows, and which decisions. Pure."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from contracts import decisions, microbatch, ranges
from contracts.contract import SEQ_COLUMN
from contracts.errors import OperatorMustActError
from contracts.ranges import RangeSet
from lakehouse.ports import Message
from lakehouse.replays import numbers_of, replay_origin
from lakehouse.salvage import outside, runs
from lakehouse.streams import StreamKey


class Accounted:
    """Of one table. `known`: sequence numbers by stream, whether they have a row or not."""

    def __init__(self, contract_id: str) -> None:
        self.known: dict[StreamKey, RangeSet] = {}
        self._contract_id = contract_id
        self._rows: dict[tuple[str, int], RangeSet] = {}  # of an origin and epoch, which have a row
        self._ids: set[str] = set()  # of decisions that have a row; ingest remembers only the newest

    def claim(self, rows: pa.Table) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Return which rows are new, and account for them."""
        origin = rows["origin"].combine_chunks().dictionary_encode()
        epoch, seq = np.asarray(rows["epoch"]), np.asarray(rows[SEQ_COLUMN])
        codes = origin.indices.to_numpy(zero_copy_only=False)
        fresh = np.zeros(len(seq), dtype=np.bool_)
        for code, at_epoch in {
            (int(c), int(e)) for c, e in zip(*np.unique(np.stack([codes, epoch]), axis=1), strict=True)
        }:
            own = np.flatnonzero((codes == code) & (epoch == at_epoch))
            numbers, first = np.unique(seq[own], return_index=True)
            key = StreamKey(self._contract_id, origin.dictionary[code].as_py(), at_epoch)
            held = self.known.get(key, ranges.EMPTY)
            fresh[own[first[outside(numbers, held)]]] = True
            self.known[key] = ranges.union((*held, *runs(numbers)))
        return fresh

    def note_rows(self, rows: pa.Table) -> None:
        """Hear that the table has these rows."""
        for (origin, epoch), numbers in numbers_of(rows).items():
            self._rows[origin, epoch] = ranges.union((*self._rows.get((origin, epoch), ()), *runs(numbers)))

    def note_decisions(self, rows: pa.Table) -> None:
        """Hear that the table has these decisions, which are told apart by their ids and not by their offsets."""
        self._ids.update(rows["decision_id"].to_pylist())

    def has(self, message: Message) -> bool:
        """Whether a row that was put back is there already; it is accounted for then, as ingest would have."""
        header, origin = microbatch.parse(message.value or b"")[0], message.origin or ""
        own = self._rows.get((origin, header.epoch), ranges.EMPTY)
        if not ranges.covers(own, header.first_seq, header.end_seq):
            return False
        key = StreamKey(self._contract_id, replay_origin(origin), header.epoch)
        self.known[key] = ranges.add(self.known.get(key, ranges.EMPTY), header.first_seq, header.end_seq)
        return True

    def is_new_decision(self, message: Message) -> bool:
        """Whether a message is a decision that has no row; it counts as one that has from then on."""
        try:
            found = decisions.decode(message.value or b"").id
        except OperatorMustActError:
            return False
        new = found not in self._ids
        self._ids.add(found)
        return new

    def together(self, others: Mapping[StreamKey, RangeSet]) -> dict[StreamKey, RangeSet]:
        """Return what this and others account for."""
        return {key: ranges.union((*self.known.get(key, ()), *others.get(key, ()))) for key in {*self.known, *others}}

    def unexplained(self, before: Mapping[StreamKey, RangeSet]) -> dict[str, int]:
        """Return how many events by origin were accounted for before and are not now."""
        found: dict[str, int] = {}
        for key, has in before.items():
            own = self.known.get(key, ranges.EMPTY)
            gone = sum(ranges.size(ranges.missing(own, *part)) for part in has)
            if gone and key.contract == self._contract_id:
                found[key.origin] = found.get(key.origin, 0) + gone
        return found
