"""Lines in, a group for the spool out: the whole of what a device does with its events, once per flush."""

import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from contracts.contract import Contract
from contracts.ledger import Fate
from contracts.microbatch import Flag
from edge_agent.core.accounts import SPOOL_CORRUPT, WINDOW_LOST, Count, Explained
from edge_agent.core.codec.payload import Purpose
from edge_agent.core.codec.sealing import SealedBatch
from edge_agent.core.consent.person_keys import PersonKeys
from edge_agent.core.consent.personal import Personal, whole_days
from edge_agent.core.consent.portions import REFUSED, RULE, Portion
from edge_agent.core.derived import Told, refused_rows, told_rows
from edge_agent.core.events import Events
from edge_agent.core.metrics import Metrics, columns_of
from edge_agent.core.plan import Parts, Plan
from edge_agent.core.pulls.progress import PullState
from edge_agent.core.records import Records
from edge_agent.core.sources.producers import Producers
from edge_agent.core.spool.damage import Damage
from edge_agent.core.spool.pressure import Step
from edge_agent.core.spool.record import Meta, Settled, StoredRef
from edge_agent.core.spool.replay import Replayed
from edge_agent.core.spool.spool import Group
from edge_agent.core.stream import Stream, Taken

QUARANTINE: Final = "quarantine"
CONSENTS: Final = "consents"
PACKED_ROWS_MAX: Final = 1_024  # rows of an answer; packing takes 10 us each, which is too long for many of them


class StoredRows(Struct, frozen=True):
    """Events that stay on the device, packed, and what a record's metadata says of them."""

    ref: StoredRef
    data: bytes


class Intake:
    """Holds the streams, the next number of each and the ledger entries that are owed.

    A restart gives it the newest durable metadata. `persons` are the keys of those whose rows it may seal.
    """

    def __init__(self, plan: Plan, newest: Meta | None, persons: PersonKeys | None = None) -> None:
        self._parts = Parts(plan, newest)
        self.beside: Parts | None = None  # of another bundle, which considers the same events
        self._use(self._parts)
        self._personal = Personal(persons)
        self._records = Records(self._parts, newest, self._personal)
        self._ended: list[SealedBatch] = []  # rows of windows that ended with the plan that they are of

    @property
    def next_record(self) -> int:
        """Number of the next group's record."""
        return self._records.number

    @property
    def audited(self) -> int:
        """Number of the newest decision of a person that a group has told of."""
        return self._records.audited

    @property
    def pulls(self) -> PullState:
        """How far pulls were answered; every record says so from the next one on."""
        return self._records.pulls

    @pulls.setter
    def pulls(self, state: PullState) -> None:
        self._records.pulls = state

    def _use(self, parts: Parts) -> None:
        self._plan, self._unsealers = parts.plan, parts.unsealers
        self._streams = parts.streams

    @property
    def parts(self) -> Parts:
        """What is in force."""
        return self._parts

    def adopt(self, parts: Parts, sealed_at_ms: int) -> None:
        """Let another plan of the same streams be in force from the next chunk on.

        Numbers go on, what was owed stays owed, and windows that both have stay open. Others end where they are: their
        rows go into the next group, which is the first to name the other plan's release; the windows of that plan begin
        with the next event. Until that group is durable, nothing of this has happened.
        """
        ended: list[SealedBatch] = []
        for name, stream in parts.streams.items():
            before = self._streams[name]
            for contract, rows in before.close_except(stream.plan.windows):
                ended += self._records.derived(contract, rows, sealed_at_ms)
            stream.succeed(before)
        self._parts = parts
        self._use(parts)
        self._records.adopt(parts)
        self._ended += ended

    def next_seq(self, contract: str) -> int:
        """Number of the stream's next event that no group accounts for."""
        return self._streams[contract].next_seq

    def resume_seqs(self) -> dict[str, int]:
        """Number of the first event of each stream that a restart must see again, to refill its windows."""
        return {name: stream.resume_seq for name, stream in self._streams.items()}

    def observed(self) -> dict[str, int]:
        """Return how many events each stream has had."""
        return self._records.observed()

    def horizons_ms(self) -> dict[str, int]:
        """How long events of a stream bear on later ones, by rules that remember; a stream without is left out."""
        found = {name: stream.plan.filter.horizon_ms for name, stream in self._streams.items()}
        return {name: horizon_ms for name, horizon_ms in found.items() if horizon_ms}

    def refill(self, replayed: Replayed) -> None:
        """Put events that an earlier process accounted for back into windows and rules; records come in their order."""
        stream = self._streams.get(replayed.contract)
        if stream is not None:
            stream.refill(*self._unsealers[replayed.contract].events(replayed))

    @property
    def can_audit(self) -> bool:
        """Say whether the bundle has a contract for rows that tell of decisions."""
        return self._plan.consents is not None

    @property
    def consenting(self) -> list[Contract]:
        """Contracts of streams whose events need consent."""
        sources = [stream.plan.source for stream in self._streams.values()]
        return [source for source in sources if source.consent_field is not None]

    def forget(self, contracts: Collection[str]) -> None:
        """Let the rules of streams begin anew that remember events."""
        for parts in (self._parts, self.beside):
            if parts is not None:
                for name in contracts:
                    parts.streams[name].forget()

    def coarsen(self, factor: int) -> None:
        """Let windows that open from now on be so many times as long as planned."""
        for stream in self._streams.values():
            stream.coarsen(factor)

    def forgo(self, sealed_at_ms: int) -> Group | None:
        """Account for events that open windows lost over a restart; None when they are whole. Comes after refilling."""
        said: list[Explained] = []
        for name, stream in self._streams.items():
            first, lost = stream.resume_seq, stream.forgo()
            if lost:
                counts = (
                    Count(name, Fate.AGGREGATED.value, "", WINDOW_LOST, -lost),
                    Count(name, Fate.LOST.value, "", WINDOW_LOST, lost),
                )
                said.append(Explained(first, stream.next_seq, counts))
        if not said:
            return None
        batches = self._records.entries(tuple(said), sealed_at_ms)
        counted = tuple(count for one in said for count in one.counts)
        return Group(
            self._records.meta(batches, counted, tuple(said), sealed_at_ms),
            tuple(batches),
            is_account=True,
        )

    def is_refilled(self) -> bool:
        """Say whether the open windows hold again what they held when the last group became durable."""
        return all(stream.is_refilled() for stream in self._streams.values())

    def take(
        self,
        lines: Mapping[str, Sequence[bytes]],
        sealed_at_ms: int,
        *,
        final: Collection[str] = (),
        ends: bool = False,
        step: Step = Step.NONE,
        producers: Producers | None = None,
        metrics: Metrics | None = None,
        portions: Sequence[Portion] = (),
    ) -> Group | None:
        """Account for the next lines of streams; return None when there are none and nothing else is due.

        Each group counts its own events; their ledger entries are owed, in its metadata, until a ledger batch is due.
        The windows of `final` streams close; `ends` seals what is owed. On a disk that is short, `step` says what has
        to be given up. `producers` is what holds once the lines are durable, `metrics` a row of the
        device's own figures that is due. `portions` are further lines, each of one person: their batches and blocks
        hold nobody else's rows.
        """
        if producers is not None:
            self._records.producers = producers
        parts: list[tuple[Stream, Taken]] = []
        keys: list[int] = []
        for name, stream in self._streams.items():
            closes = name in final or stream.is_idle(sealed_at_ms)
            if closes or lines.get(name):
                parts.append((stream, stream.take(lines.get(name, ()), final=closes, now_ms=sealed_at_ms, step=step)))
        keys += [0] * len(parts)
        for portion in portions:
            parts.append((self._streams[portion.contract], self._portion(portion, sealed_at_ms, step)))
            keys.append(portion.key)
        batches, self._ended = self._ended, []
        stored: list[StoredRows] = []
        for (stream, taken), key in zip(parts, keys, strict=True):
            self._records.owed.add(taken.explained)
            batches += self._sealed(stream, taken, sealed_at_ms, key)
            stored += self._stored(stream, taken, key)
        due = self._records.owed.take_due(sealed_at_ms, final=ends)
        if due:
            batches += self._records.entries(due, sealed_at_ms)
        if metrics is not None and self._plan.metrics is not None:
            batches += self._records.derived(self._plan.metrics, columns_of(self._plan.metrics, metrics), sealed_at_ms)
        if not batches:
            return None
        meta = self._records.meta(
            batches, tuple(c for _, taken in parts for c in taken.explained.counts), due, sealed_at_ms
        )
        meta = msgspec.structs.replace(
            meta,
            wire=self._records.wire(batches, parts),
            stored=tuple(one.ref for one in stored),
            times_us=_times_us(parts),
        )
        has_events = bool(stored) or any(len(taken.kept) or taken.refused for _, taken in parts)
        return Group(meta, tuple(batches), tuple(one.data for one in stored), is_account=not has_events)

    def pull(self, rows: Iterable[tuple[Contract, Mapping[str, Any]]], pulls: PullState, sealed_at_ms: int) -> Group:
        """Return rows that were asked for, with the state that holds once they are durable."""
        batches, self._ended = self._ended, []
        for contract, columns in rows:
            many = len(next(iter(columns.values()))) > PACKED_ROWS_MAX
            purpose = Purpose.BULK if many else Purpose.WIRE
            batches += self._records.derived(contract, columns, sealed_at_ms, Flag.REPLAY, purpose)
        self.pulls = pulls
        meta = msgspec.structs.replace(
            self._records.meta(batches, (), (), sealed_at_ms),
            wire=self._records.wire(batches, []),
        )
        return Group(meta, tuple(batches), is_backlog=True)

    def may_settle(self, damage: Damage) -> bool:
        """Say whether the batch that takes a damaged one's place can be made: its contract must be of the bundle."""
        return damage.contract in self._records.sealers

    def settle(self, damages: tuple[Damage, ...], sealed_at_ms: int) -> Group:
        """Account for batches that rotted before the lake had them: their rows are lost.

        Those that a person's refusal has made unreadable are dropped, by rule `consent`. A batch without rows takes the
        place of each. Ledger entries take back that its rows were kept and call them lost, or dropped; where it is not
        known how many they were, all events of the range are called lost, and the ledger's sums exceed what was
        observed, which is what its readers look for. Entries in a lost ledger batch go again. All must be such that
        `may_settle`.
        """
        batches, self._ended = self._ended, []
        said: list[Explained] = []
        counts: list[Count] = []
        for damage in damages:
            first, end = damage.first_seq, damage.end_seq
            batches += self._records.sealers[damage.contract].tombstones(first, end, sealed_at_ms)
            lost = damage.span if damage.rows is None else damage.rows
            gone = (Fate.DROPPED.value, RULE, REFUSED) if damage.withdrawn else (Fate.LOST.value, "", SPOOL_CORRUPT)
            losses = [Count(damage.contract, *gone, lost)]
            kept = [Count(damage.contract, Fate.KEPT.value, "", "", -lost)] if damage.rows is not None else []
            counts += [*losses, *kept]
            # The ledger speaks of rows kept only for sources; other streams it knows by their losses alone.
            said.append(Explained(first, end, tuple(losses + kept * (damage.contract in self._streams))))
            said += damage.again
        due = tuple(rest for one in said if (rest := one.counted()).counts)
        if due:
            batches += self._records.entries(due, sealed_at_ms)
        meta = self._records.meta(batches, tuple(counts), due, sealed_at_ms)
        settled = tuple(Settled(damage.contract, damage.first_seq, damage.end_seq) for damage in damages)
        return Group(msgspec.structs.replace(meta, settled=settled), tuple(batches), is_account=True)

    def audit(self, told: Sequence[Told], audited: int, sealed_at_ms: int) -> Group:
        """Return the record that tells of people's decisions up to number `audited`."""
        assert self._plan.consents is not None
        self._records.audited = audited
        batches, self._ended = self._ended, []
        batches += self._records.derived(self._plan.consents, told_rows(told), sealed_at_ms)
        return Group(self._records.meta(batches, (), (), sealed_at_ms), tuple(batches), is_account=True)

    def _portion(self, portion: Portion, now_ms: int, step: Step) -> Taken:
        stream = self._streams[portion.contract]
        if portion.reason:
            return stream.drop(portion.dropped, portion.dropped_bytes, RULE, portion.reason)
        return stream.take(portion.lines, final=False, now_ms=now_ms, step=step)

    def _sealed(self, stream: Stream, taken: Taken, sealed_at_ms: int, key: int) -> list[SealedBatch]:
        source = stream.plan.source
        batches: list[SealedBatch] = []
        if taken.observed:
            end = taken.first_seq + taken.observed
            batches += self._records.sealers[source.id].seal(
                taken.first_seq, end, taken.kept.seqs, taken.columns, sealed_at_ms
            )
        for contract, rows in taken.window_rows:
            batches += self._records.derived(contract, rows, sealed_at_ms)
        if taken.sample_rows is not None and stream.plan.sampled is not None:
            batches += self._records.derived(stream.plan.sampled, taken.sample_rows, sealed_at_ms, Flag.DROPPED_SAMPLE)
        batches = [self._personal.batch(key, batch) for batch in batches]
        if taken.refused:
            rows = refused_rows(self._plan.quarantine, source, taken.refused, self._plan.epoch)
            batches += self._records.derived(self._plan.quarantine, rows, sealed_at_ms)
        return batches

    def _stored(self, stream: Stream, taken: Taken, key: int) -> list[StoredRows]:
        return [self._block(stream.plan.source.id, taken, *rest, key) for rest in taken.rest if len(rest[0])]

    def _block(self, source: str, taken: Taken, events: Events, windowed: bool, key: int) -> StoredRows:
        payload = self._records.sealers[source].store(events.seqs, events.columns)
        ref = StoredRef(
            source,
            taken.first_seq,
            taken.observed,
            len(events),
            payload.raw_bytes,
            len(payload.data),
            zlib.crc32(payload.data),
            windowed,
            self._records.sealers[source].fingerprint,
        )
        return StoredRows(*self._personal.stored(key, ref, payload.data))


def _times_us(parts: list[tuple[Stream, Taken]]) -> dict[str, tuple[int, int]]:
    """Return the span of event times of each stream; of people's events only the days."""
    found: dict[str, tuple[int, int]] = {}
    for stream, taken in parts:
        if taken.times_us is not None:
            source = stream.plan.source
            first, last = whole_days(taken.times_us) if source.consent_field is not None else taken.times_us
            low, high = found.get(source.id, (first, last))
            found[source.id] = (min(low, first), max(high, last))
    return found
