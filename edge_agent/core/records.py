"""The next record of the spool: its number, those of the rows that the device itself writes, and its metadata."""

from collections.abc import Mapping
from typing import Any

from contracts import topics
from contracts.contract import Contract
from contracts.ledger import Fate
from edge_agent.core.accounts import Count, Explained, Wire, add_wire, merge, packet_bytes
from edge_agent.core.codec.payload import Purpose
from edge_agent.core.codec.sealing import SealedBatch
from edge_agent.core.consent.personal import Personal
from edge_agent.core.derived import entry_rows
from edge_agent.core.plan import Parts
from edge_agent.core.pulls.progress import PullState
from edge_agent.core.sources.producers import Producers
from edge_agent.core.spool.record import BatchRef, Meta
from edge_agent.core.stream import Stream, Taken
from edge_agent.core.uplink.owed import Owed


class Records:
    """Numbers and seals; what was durable before, `newest` says. `producers`, `pulls`, `audited` go into every record.

    `owed` are ledger entries that no batch holds yet. `sealers` are by contract; those of contracts that only an
    earlier plan had stay, for their batches may still rot.
    """

    def __init__(self, parts: Parts, newest: Meta | None, personal: Personal) -> None:
        self.number = newest.number + 1 if newest is not None else 0
        self.producers = newest.producers if newest is not None else Producers()
        self.pulls = newest.pulls if newest is not None else PullState()
        self.audited = newest.audited if newest is not None else 0
        self.owed = Owed(newest.owed if newest is not None else ())
        self._personal = personal
        self._topic = topics.up(parts.plan.shard, parts.plan.device)
        self._parts = parts
        self.sealers = dict(parts.sealers)
        self._number_from(newest.next_seq if newest is not None else {})

    def adopt(self, parts: Parts) -> None:
        """Let another plan be in force; numbers go on."""
        self._parts = parts
        self.sealers |= parts.sealers
        self._number_from(self._other_seq | self._derived_seq)

    def _number_from(self, next_seq: Mapping[str, int]) -> None:
        streams = self._parts.streams
        self._derived_seq = {name: next_seq.get(name, 0) for name in self.sealers if name not in streams}
        self._other_seq = {name: seq for name, seq in next_seq.items() if name not in self.sealers}

    def observed(self) -> dict[str, int]:
        """Return how many events each stream has had."""
        return {
            **self._other_seq,
            **self._derived_seq,
            **{name: stream.next_seq for name, stream in self._parts.streams.items()},
        }

    def derived(
        self,
        contract: Contract,
        columns: Mapping[str, Any],
        sealed_at_ms: int,
        flags: int = 0,
        purpose: Purpose = Purpose.WIRE,
    ) -> list[SealedBatch]:
        """Seal rows of a stream that the device itself writes, numbered on from its last."""
        first = self._derived_seq[contract.id]
        rows = len(next(iter(columns.values())))
        self._derived_seq[contract.id] = first + rows
        seqs = range(first, first + rows)
        return self.sealers[contract.id].seal(first, first + rows, seqs, columns, sealed_at_ms, flags, purpose)

    def entries(self, explained: tuple[Explained, ...], sealed_at_ms: int) -> list[SealedBatch]:
        """Seal ledger entries."""
        ledger = self._parts.plan.ledger
        return self.derived(ledger, entry_rows(ledger, explained, self._parts.plan.epoch), sealed_at_ms)

    def meta(
        self,
        batches: list[SealedBatch],
        counts: tuple[Count, ...],
        explained: tuple[Explained, ...],
        now_ms: int,
    ) -> Meta:
        """Return what the next record says of itself; its number is taken then."""
        derived = tuple(
            Count(b.contract, Fate.KEPT.value, "", "", b.rows)
            for b in batches
            if b.contract not in self._parts.streams and b.rows
        )
        meta = Meta(
            number=self.number,
            next_seq=self.observed(),
            open_windows={name: stream.marks for name, stream in self._parts.streams.items() if stream.marks},
            batches=tuple(map(_ref, batches)),
            counts=merge((*counts, *derived)),
            owed=self.owed.explained,
            explained=explained,
            sealed_at_ms=now_ms,
            producers=self.producers,
            release=self._parts.plan.release or 0,
            pulls=self.pulls,
            audited=self.audited,
        )
        self.number += 1
        return meta

    def wire(self, batches: list[SealedBatch], parts: list[tuple[Stream, Taken]]) -> Wire:
        """Return what batches cost on the wire."""
        size = self._personal.wire_bytes
        own = [b for b in batches if b.contract in self._parts.streams]
        wire = Wire(
            batches=len(own),
            rows=sum(b.rows for b in own),
            payload_bytes=sum(map(size, own)),
            packet_bytes=sum(packet_bytes(self._topic, size(b)) for b in own),
            all_batches=len(batches),
            all_payload_bytes=sum(map(size, batches)),
            all_packet_bytes=sum(packet_bytes(self._topic, size(b)) for b in batches),
        )
        for _, taken in parts:
            wire = add_wire(wire, Wire(json_bytes=taken.kept_json_bytes, observed_json_bytes=taken.observed_json_bytes))
        return wire


def _ref(batch: SealedBatch) -> BatchRef:
    return BatchRef(batch.contract, batch.first_seq, batch.span, batch.rows, len(batch.data), batch.key)
