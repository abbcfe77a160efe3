"""Lines in, a group for the spool out: the whole of what a device does with its events, once per flush."""

from collections.abc import Iterable, Sequence

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from contracts import topics
from contracts.bundle import Windows as WindowsPlan
from contracts.contract import Contract
from contracts.ledger import Entry, Fate
from edge_agent.core.accounts import FILTERED, SPOOL_CORRUPT, Count, Explained, Wire, merge, packet_bytes
from edge_agent.core.damage import Damage
from edge_agent.core.events import Column, Events, Reader, Refused, json_bytes, select
from edge_agent.core.filtering import Filter, matrix
from edge_agent.core.owed import Owed
from edge_agent.core.record import BatchRef, Meta, Settled
from edge_agent.core.sealing import SealedBatch, Sealer
from edge_agent.core.spool import Group
from edge_agent.core.windows import ClosedWindow, Readings, Windows, rows_of

QUARANTINE = "quarantine"


class Plan(Struct, frozen=True):
    """What the bundle says about the source's stream. `dictionaries` are zstd dictionaries by contract id."""

    device: str
    shard: int
    epoch: int
    source: Contract
    ledger: Contract
    quarantine: Contract
    filter: Filter
    windows: WindowsPlan | None = None
    windows_contract: Contract | None = None
    dictionaries: dict[str, bytes] = {}
    lax: bool = False


class Intake:
    """Holds the open windows, the next number of every stream and the ledger entries that are owed.

    A restart gives it the newest durable metadata.
    """

    def __init__(self, plan: Plan, newest: Meta | None) -> None:
        self._plan = plan
        self._reader = Reader(plan.source, lax=plan.lax)
        contracts = [plan.source, plan.ledger, plan.quarantine]
        if plan.windows_contract is not None:
            contracts.append(plan.windows_contract)
        self._sealers = {c.id: Sealer(c, plan.epoch, plan.dictionaries.get(c.id, b"")) for c in contracts}
        self._next_seq = {c.id: 0 for c in contracts} | (newest.next_seq if newest is not None else {})
        self._number = newest.number + 1 if newest is not None else 0
        self._topic = topics.up(plan.shard, plan.device)
        self._limits = {f.name: f.checks.max_length for c in (plan.ledger, plan.quarantine) for f in c.fields}
        self._owed = Owed(newest.owed if newest is not None else Explained())
        self._windows: Windows | None = None
        if plan.windows is not None:
            self._windows = Windows(plan.windows.window_ms * 1_000, newest.open_windows if newest is not None else ())

    @property
    def next_seq(self) -> int:
        """Number of the next source event that no group accounts for."""
        return self._next_seq[self._plan.source.id]

    @property
    def resume_seq(self) -> int:
        """Number of the first source event to be read again; up to `next_seq` it only refills windows."""
        return self._windows.resume_seq(self.next_seq) if self._windows is not None else self.next_seq

    def observed(self) -> dict[str, int]:
        """Return how many events each stream has had."""
        return dict(self._next_seq)

    def refill(self, first_seq: int, lines: Sequence[bytes]) -> None:
        """Put events that an earlier process accounted for back into the open windows."""
        if self._windows is not None:
            events = self._reader.read(first_seq, lines).events
            self._windows.refill(self._readings(events, np.zeros(len(events), dtype=np.bool_)))

    def is_refilled(self) -> bool:
        """Say whether the open windows hold again what they held when the last group became durable."""
        return self._windows is None or self._windows.is_whole()

    def take(self, lines: Sequence[bytes], sealed_at_ms: int, *, final: bool = False) -> Group | None:
        """Account for the next lines of the source, of which there may be none; return None when nothing is due.

        Each group counts its own events; their ledger entries are owed, in its metadata, until a ledger batch is due.
        `final` closes all windows and seals what is owed.
        """
        first_seq = self.next_seq
        checked = self._reader.read(first_seq, lines)
        verdict = self._plan.filter.decide(checked.events)
        closed: list[ClosedWindow] = []
        if self._windows is not None:
            closed = self._windows.add(self._readings(checked.events, verdict.keep))
            closed.extend(self._windows.close_all() if final else ())
        kept = select(checked.events, verdict.keep)
        scores = verdict.scores[verdict.keep] if verdict.scores is not None else None
        observed = self._explained(first_seq, len(lines), len(checked.events), len(kept), checked.refused)
        self._owed.add(observed)
        batches: list[SealedBatch] = []
        if lines:
            columns = self._plan.filter.fill(kept.columns, scores)
            sealer = self._sealers[self._plan.source.id]
            batches += sealer.seal(first_seq, first_seq + len(lines), kept.seqs, columns, sealed_at_ms)
            self._next_seq[self._plan.source.id] += len(lines)
        if closed:
            batches += self._derived(self._window_contract(), self._window_rows(closed), sealed_at_ms)
        if checked.refused:
            batches += self._derived(self._plan.quarantine, self._refused_rows(checked.refused), sealed_at_ms)
        due = self._owed.take_due(sealed_at_ms, final=final)
        if due:
            batches += self._derived(self._plan.ledger, self._entry_rows(due), sealed_at_ms)
        if not batches:
            return None
        return self._group(
            batches, observed.counts, due, json_bytes(kept), sum(map(len, lines)) + len(lines),
            sealed_at_ms,
        )  # fmt: skip

    def settle(self, damages: tuple[Damage, ...], sealed_at_ms: int) -> Group:
        """Account for batches that rotted before the lake had them: their rows are lost.

        A batch without rows takes the place of each. Ledger entries take back that its rows were kept and call them
        lost; where it is not known how many they were, all events of the range are called lost, and the ledger's sums
        exceed what was observed, which is what its readers look for. Entries in a lost ledger batch go again.
        """
        batches: list[SealedBatch] = []
        said: list[Explained] = []
        counts: list[Count] = []
        for damage in damages:
            first, end = damage.first_seq, damage.end_seq
            batches += self._sealers[damage.contract].tombstones(first, end, sealed_at_ms)
            lost = damage.span if damage.rows is None else damage.rows
            losses = [Count(damage.contract, Fate.LOST.value, "", SPOOL_CORRUPT, lost)]
            kept = [Count(damage.contract, Fate.KEPT.value, "", "", -lost)] if damage.rows is not None else []
            counts += [*losses, *kept]
            # The ledger speaks of rows kept only for the source; other streams it knows by their losses alone.
            said.append(Explained(first, end, tuple(losses + kept * (damage.contract == self._plan.source.id))))
            said += damage.again
        due = tuple(rest for one in said if (rest := one.counted()).counts)
        if due:
            batches += self._derived(self._plan.ledger, self._entry_rows(due), sealed_at_ms)
        group = self._group(batches, tuple(counts), due, 0, 0, sealed_at_ms)
        settled = tuple(Settled(damage.contract, damage.first_seq, damage.end_seq) for damage in damages)
        return Group(msgspec.structs.replace(group.meta, settled=settled, wire=Wire()), group.batches)

    def _group(
        self,
        batches: list[SealedBatch],
        counts: tuple[Count, ...],
        explained: tuple[Explained, ...],
        kept_json_bytes: int,
        observed_json_bytes: int,
        sealed_at_ms: int,
    ) -> Group:
        derived = tuple(
            Count(b.contract, Fate.KEPT.value, "", "", b.rows)
            for b in batches
            if b.contract != self._plan.source.id and b.rows
        )
        meta = Meta(
            number=self._number,
            next_seq=dict(self._next_seq),
            open_windows=self._windows.marks if self._windows is not None else (),
            batches=tuple(map(_ref, batches)),
            counts=merge((*counts, *derived)),
            wire=self._wire(batches, kept_json_bytes, observed_json_bytes),
            owed=self._owed.explained,
            explained=explained,
            sealed_at_ms=sealed_at_ms,
        )
        self._number += 1
        return Group(meta, tuple(batches))

    def _explained(
        self, first_seq: int, observed: int, valid: int, kept: int, refused: tuple[Refused, ...]
    ) -> Explained:
        """Return one count per fate, rule and reason of the range [first_seq, first_seq + observed)."""
        source = self._plan.source
        passed_over = Fate.AGGREGATED if self._windows is not None else Fate.DROPPED
        found: list[tuple[Fate, int, str, str]] = [
            (Fate.KEPT, kept, "", ""),
            (passed_over, valid - kept, self._plan.filter.rule, FILTERED),
        ]
        codes: dict[str, int] = {}
        for entry in refused:
            codes[entry.code] = codes.get(entry.code, 0) + 1
        rule = f"{source.id}@{source.version}"
        found.extend((Fate.DROPPED, count, rule, code) for code, count in sorted(codes.items()))
        counts = (Count(source.id, fate.value, rule, reason, count) for fate, count, rule, reason in found)
        return Explained(first_seq, first_seq + observed, tuple(counts)).counted()

    def _derived(self, contract: Contract, columns: dict[str, Column], sealed_at_ms: int) -> list[SealedBatch]:
        """Seal rows of a stream that the device itself writes, numbered on from its last."""
        first = self._next_seq[contract.id]
        rows = len(next(iter(columns.values())))
        self._next_seq[contract.id] = first + rows
        seqs = np.arange(first, first + rows, dtype=np.int64)
        return self._sealers[contract.id].seal(first, first + rows, seqs, columns, sealed_at_ms)

    def _readings(self, events: Events, kept: NDArray[np.bool_]) -> Readings:
        plan, source = self._plan.windows, self._plan.source
        assert plan is not None
        assert source.event_time_field is not None
        subjects = (
            list(events.columns[source.subject_field])
            if source.subject_field is not None
            else [self._plan.device] * len(events)
        )
        times = np.asarray(events.columns[source.event_time_field], dtype=np.int64)
        return Readings(events.seqs, subjects, times, matrix(events, plan.sensors, np.float64), kept)

    def _window_contract(self) -> Contract:
        assert self._plan.windows_contract is not None
        return self._plan.windows_contract

    def _window_rows(self, closed: list[ClosedWindow]) -> dict[str, Column]:
        plan, contract = self._plan.windows, self._window_contract()
        assert plan is not None
        assert contract.subject_field is not None
        assert contract.event_time_field is not None
        return rows_of(closed, plan.sensors, plan.window_ms, contract.subject_field, contract.event_time_field)

    def _refused_rows(self, refused: tuple[Refused, ...]) -> dict[str, Column]:
        each, source = len(refused), self._plan.source
        return {
            "contract": [source.id] * each,
            "refused_version": [source.version] * each,
            "refused_epoch": np.full(each, self._plan.epoch, dtype=np.int64),
            "refused_seq": np.array([entry.seq for entry in refused], dtype=np.int64),
            "refused_by": ["device"] * each,
            "rule": [entry.code for entry in refused],
            "original": [self._original(entry.line) for entry in refused],
        }

    def _original(self, line: bytes) -> str:
        """Return the line as text within the contract's limit; what is no UTF-8 becomes replacement characters."""
        limit = self._limits["original"]
        # Cut in bytes first: a character is at least one byte, and a batch's limit is in bytes.
        return line[:limit].decode("utf-8", errors="replace")[:limit]

    def _entry_rows(self, explained: Iterable[Explained]) -> dict[str, Column]:
        entries: list[Entry] = [entry for one in explained for entry in one.entries(self._plan.epoch)]
        reason_max = self._limits["reason"]
        return {
            "stream": [entry.stream for entry in entries],
            "stream_epoch": np.array([entry.stream_epoch for entry in entries], dtype=np.int64),
            "first_seq": np.array([entry.first_seq for entry in entries], dtype=np.int64),
            "span": np.array([entry.span for entry in entries], dtype=np.int64),
            "fate": [entry.fate.value for entry in entries],
            "count": np.array([entry.count for entry in entries], dtype=np.int64),
            "rule": [entry.rule for entry in entries],
            "reason": [entry.reason[:reason_max] for entry in entries],
        }

    def _wire(self, batches: list[SealedBatch], kept_json_bytes: int, observed_json_bytes: int) -> Wire:
        own = [b for b in batches if b.contract == self._plan.source.id]
        return Wire(
            batches=len(own),
            rows=sum(b.rows for b in own),
            payload_bytes=sum(len(b.data) for b in own),
            packet_bytes=sum(packet_bytes(self._topic, len(b.data)) for b in own),
            json_bytes=kept_json_bytes,
            all_batches=len(batches),
            all_payload_bytes=sum(len(b.data) for b in batches),
            all_packet_bytes=sum(packet_bytes(self._topic, len(b.data)) for b in batches),
            observed_json_bytes=observed_json_bytes,
        )


def _ref(batch: SealedBatch) -> BatchRef:
    return BatchRef(batch.contract, batch.first_seq, batch.span, batch.rows, len(batch.data))
