"""Which MQTT message may be acknowledged: the messages between the broker and the log.

Protocol of one message:

1. `accept`     it is in flight under a token; its record is handed to the log.
2. `delivered`  the log holds it on all replicas; only now may the broker forget it.
   `failed`     the log does not hold it; it stays in flight and is handed over again after a pause.
3. The `Acknowledge` that `delivered` returns becomes the PUBACK. Crash before: the broker sends it again, and the lake
   takes each sequence number once.

A packet identifier means something only within the connection that brought it: a broker that lost its session starts
again at 1, and a late PUBACK of the old connection would tell it to forget a message that never reached the log. So
every entry carries the connection it came by, and only those of the present one are acknowledged.
"""

from typing import Final

from msgspec import Struct

from gateway.core.routing import Record

IN_FLIGHT_MAX: Final = 2_000  # messages; the receive maximum, so the broker stops by itself before we must
IN_FLIGHT_BYTES_MAX: Final = 67_108_864  # bytes; 2,000 of the broker's largest packets would be 2 GB
RETRY_FIRST_S: Final = 0.5
RETRY_MAX_S: Final = 30.0  # a repaired topic is in use again within half a minute


class Acknowledge(Struct, frozen=True):
    """Acknowledge this packet of the present connection."""

    mid: int
    qos: int


class InFlight(Struct, frozen=True):
    """A message that the log does not hold yet. `mid` is None when the broker waits for no acknowledgement."""

    token: int
    connection: int
    mid: int | None
    qos: int
    record: Record
    accepted_s: float
    failures: int = 0


class Receipts:
    """The messages in flight. Not thread-safe: one thread owns it. Times are monotonic seconds."""

    def __init__(self, in_flight_max: int = IN_FLIGHT_MAX, in_flight_bytes_max: int = IN_FLIGHT_BYTES_MAX) -> None:
        self._in_flight_max = in_flight_max
        self._in_flight_bytes_max = in_flight_bytes_max
        self._entries: dict[int, InFlight] = {}
        self._retry_at_s: dict[int, float] = {}
        self._bytes = 0
        self._connection = 0
        self._next_token = 0

    @property
    def in_flight(self) -> int:
        """Messages that the log does not hold yet."""
        return len(self._entries)

    @property
    def in_flight_bytes(self) -> int:
        """Their size."""
        return self._bytes

    @property
    def full(self) -> bool:
        """Whether reading must pause. The message that fills it is still accepted: nothing is ever dropped."""
        return len(self._entries) >= self._in_flight_max or self._bytes >= self._in_flight_bytes_max

    def connected(self) -> None:
        """Start a new connection: packet identifiers of the one before mean nothing any more."""
        self._connection += 1

    def accept(self, mid: int | None, qos: int, record: Record, now_s: float) -> InFlight:
        """Take responsibility for a message."""
        entry = InFlight(self._next_token, self._connection, mid, qos, record, now_s)
        self._next_token += 1
        self._entries[entry.token] = entry
        self._bytes += len(record.value)
        return entry

    def record(self, token: int) -> Record:
        """Return the record of a message in flight."""
        return self._entries[token].record

    def delivered(self, token: int) -> Acknowledge | None:
        """Close a message that the log holds; return its acknowledgement if the broker still waits for it."""
        entry = self._entries.pop(token)
        self._retry_at_s.pop(token, None)
        self._bytes -= len(entry.record.value)
        if entry.mid is None or entry.connection != self._connection:
            return None
        return Acknowledge(entry.mid, entry.qos)

    def failed(self, token: int, now_s: float) -> float:
        """Keep a message that the log refused; return the pause in seconds before it is handed over again."""
        entry = self._entries[token]
        pause_s = min(RETRY_FIRST_S * 2.0 ** min(entry.failures, 30), RETRY_MAX_S)
        self._entries[token] = InFlight(
            token, entry.connection, entry.mid, entry.qos, entry.record, entry.accepted_s, entry.failures + 1
        )
        self._retry_at_s[token] = now_s + pause_s
        return pause_s

    def take_retries(self, now_s: float) -> tuple[InFlight, ...]:
        """Return the messages whose pause is over, in the order they arrived, and forget the pause."""
        due = sorted(token for token, at_s in self._retry_at_s.items() if at_s <= now_s)
        for token in due:
            del self._retry_at_s[token]
        return tuple(self._entries[token] for token in due)

    def next_retry_s(self) -> float | None:
        """Return when the next pause is over, None when there is none."""
        return min(self._retry_at_s.values(), default=None)

    def oldest_s(self) -> float | None:
        """Return when the oldest message in flight was accepted, None when there is none."""
        return next(iter(self._entries.values())).accepted_s if self._entries else None
