"""Records of the spool read again: what a restart fills its windows from, and what is asked for later."""

from msgspec import Struct


class Replayed(Struct, frozen=True):
    """What a record holds of one stream's events [first_seq, first_seq + span), refused ones aside.

    `batches` are sealed micro-batches with the events that travel; `stored` holds those that do not, with its size
    once unpacked and its rows; empty when there are none.
    """

    contract: str
    first_seq: int
    span: int
    batches: tuple[bytes, ...]
    stored: bytes = b""
    stored_rows: int = 0
    stored_raw_bytes: int = 0

    @property
    def end_seq(self) -> int:
        """First sequence number after the range."""
        return self.first_seq + self.span
