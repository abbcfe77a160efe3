"""Rows that a device writes itself: ledger entries, people's decisions, events that failed their contract."""

from collections.abc import Iterable, Sequence

from msgspec import Struct

from contracts.contract import Contract
from contracts.ledger import Entry
from edge_agent.core.accounts import Explained
from edge_agent.core.events import Column, Refused


def entry_rows(ledger: Contract, explained: Iterable[Explained], epoch: int) -> dict[str, Column]:
    """Return ledger entries as columns of their contract."""
    entries: list[Entry] = [entry for one in explained for entry in one.entries(epoch)]
    reason_max = ledger.field("reason").checks.max_length
    return {
        "stream": [entry.stream for entry in entries],
        "stream_epoch": [entry.stream_epoch for entry in entries],
        "first_seq": [entry.first_seq for entry in entries],
        "span": [entry.span for entry in entries],
        "fate": [entry.fate.value for entry in entries],
        "count": [entry.count for entry in entries],
        "rule": [entry.rule for entry in entries],
        "reason": [entry.reason[:reason_max] for entry in entries],
    }


def refused_rows(quarantine: Contract, source: Contract, refused: Sequence[Refused], epoch: int) -> dict[str, Column]:
    """Return events that failed their contract as columns of the quarantine's.

    Of a contract that needs consent they come without their text: whose it is, is not sure.
    """
    each = len(refused)
    original_max = quarantine.field("original").checks.max_length
    return {
        "contract": [source.id] * each,
        "refused_version": [source.version] * each,
        "refused_epoch": [epoch] * each,
        "refused_seq": [entry.seq for entry in refused],
        "refused_by": ["device"] * each,
        "rule": [entry.code for entry in refused],
        "original": [_text(entry.line, original_max) if source.consent_field is None else "" for entry in refused],
    }


class Told(Struct, frozen=True):
    """What a decision meant for the events of one stream; see the contract `consents`."""

    person: str
    decision: int
    standing: str
    decided_at_ms: int
    stream: str
    from_memory: int
    from_spool: int
    from_ring: int


def told_rows(told: Sequence[Told]) -> dict[str, Column]:
    """Return what became of events by people's decisions as columns of the contract `consents`."""
    return {
        "person": [one.person for one in told],
        "decision": [one.decision for one in told],
        "standing": [one.standing for one in told],
        "decided_at": [one.decided_at_ms * 1_000 for one in told],
        "stream": [one.stream for one in told],
        "from_memory": [one.from_memory for one in told],
        "from_spool": [one.from_spool for one in told],
        "from_ring": [one.from_ring for one in told],
    }


def _text(line: bytes, chars_max: int | None) -> str:
    """Return the line as text within a limit; what is no UTF-8 becomes replacement characters."""
    # Cut in bytes first: a character is at least one byte, and a batch's limit is in bytes.
    return line[:chars_max].decode("utf-8", errors="replace")[:chars_max]
