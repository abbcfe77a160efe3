"""Records of the spool read again: what a restart fills its windows from, and what is asked for later."""

from msgspec import Struct

from edge_agent.core.spool.record import StoredRef


class Replayed(Struct, frozen=True):
    """What a record holds of one stream's events [first_seq, first_seq + span), refused ones aside.

    `batches` are sealed micro-batches with the events that travel, `stored` blocks of those that do not.
    """

    contract: str
    first_seq: int
    span: int
    batches: tuple[bytes, ...]
    stored: tuple[tuple[StoredRef, bytes], ...] = ()

    @property
    def end_seq(self) -> int:
        """First sequence number after the range."""
        return self.first_seq + self.span
