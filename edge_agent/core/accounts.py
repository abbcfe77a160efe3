"""Sums of what became of events, and of what they cost on the wire; both only ever grow."""

from collections import Counter
from collections.abc import Iterable
from typing import Final, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from contracts.ledger import Entry, Fate

LEDGER: Final = "ledger"
DISK_FULL: Final = "disk_full"
SPOOL_CORRUPT: Final = "spool_corrupt"
WINDOW_LOST: Final = "window_lost"  # the spool could not give back what an open window had, or the window is no more

Account: TypeAlias = tuple[str, str, str, str]  # stream, fate, rule, reason


class Count(Struct, frozen=True, array_like=True):
    """`count` events of a stream met one fate."""

    stream: str
    fate: str
    rule: str
    reason: str
    count: int

    @property
    def account(self) -> Account:
        """What it counts."""
        return self.stream, self.fate, self.rule, self.reason


class Explained(Struct, frozen=True, array_like=True):
    """What became of the events [first_seq, end_seq) of one stream: ledger entries over one range; empty by default."""

    first_seq: int = 0
    end_seq: int = 0
    counts: tuple[Count, ...] = ()

    def joined(self, following: "Explained") -> "Explained":
        """Return one account of this range and the one right after it."""
        if not self.counts or not following.counts:
            return self if self.counts else following
        return Explained(self.first_seq, following.end_seq, merge((*self.counts, *following.counts)))

    def counted(self) -> "Explained":
        """Leave out accounts of zero."""
        return replace(self, counts=tuple(count for count in self.counts if count.count))

    def entries(self, epoch: int) -> list[Entry]:
        """Return the entries of the ledger, which all name the whole range."""
        span = self.end_seq - self.first_seq
        return [
            Entry(c.stream, epoch, self.first_seq, span, Fate(c.fate), c.count, c.rule, c.reason) for c in self.counts
        ]


class Wire(Struct, frozen=True, array_like=True):
    """Batches as first published; resends are not in it.

    `payload_bytes` are whole micro-batches, `packet_bytes` the MQTT packets around them, `json_bytes` the same rows as
    compact JSON lines. The first five are the source's stream, `all_*` every stream of the device,
    `observed_json_bytes` the lines of every event that was observed, as they were read.
    """

    batches: int = 0
    rows: int = 0
    payload_bytes: int = 0
    packet_bytes: int = 0
    json_bytes: int = 0
    all_batches: int = 0
    all_payload_bytes: int = 0
    all_packet_bytes: int = 0
    observed_json_bytes: int = 0


class StreamSums(Struct, frozen=True):
    """The ledger of one stream. `dropped` is by `rule|reason`."""

    observed: int
    kept: int
    aggregated: int
    dropped: dict[str, int]
    lost: int
    committed_upto: int

    @property
    def unexplained(self) -> int:
        """Events with no fate (positive) or with more than one (negative)."""
        return self.observed - self.kept - self.aggregated - sum(self.dropped.values()) - self.lost


def add_wire(one: Wire, other: Wire) -> Wire:
    """Return both together."""
    return Wire(*(getattr(one, name) + getattr(other, name) for name in Wire.__struct_fields__))


def merge(counts: Iterable[Count]) -> tuple[Count, ...]:
    """Return one count per stream, fate, rule and reason."""
    sums: Counter[Account] = Counter()
    for entry in counts:
        sums[entry.account] += entry.count
    return tuple(Count(*account, count) for account, count in sorted(sums.items()))


def stream_sums(stream: str, observed: int, counts: Iterable[Count], committed_upto: int) -> StreamSums:
    """Return the ledger of one stream."""
    sums: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    for entry in counts:
        if entry.stream == stream:
            sums[entry.fate] += entry.count
            if entry.fate == Fate.DROPPED.value:
                dropped[f"{entry.rule}|{entry.reason}"] += entry.count
    return StreamSums(
        observed=observed,
        kept=sums[Fate.KEPT.value],
        aggregated=sums[Fate.AGGREGATED.value],
        dropped=dict(sorted(dropped.items())),
        lost=sums[Fate.LOST.value],
        committed_upto=committed_upto,
    )


def packet_bytes(topic: str, payload_bytes: int) -> int:
    """Return the size of an MQTT 5 PUBLISH with QoS 1 and no properties: MQTT Version 5.0, section 3.3."""
    remaining = 2 + len(topic.encode()) + 2 + 1 + payload_bytes
    length_bytes = 1 + sum(remaining >= limit for limit in (128, 16_384, 2_097_152))
    return 1 + length_bytes + remaining
