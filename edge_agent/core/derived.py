"""Rows that a device writes itself: ledger entries, and events that failed their contract."""

from collections.abc import Iterable, Sequence

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
    """Return events that failed their contract as columns of the quarantine's."""
    each = len(refused)
    original_max = quarantine.field("original").checks.max_length
    return {
        "contract": [source.id] * each,
        "refused_version": [source.version] * each,
        "refused_epoch": [epoch] * each,
        "refused_seq": [entry.seq for entry in refused],
        "refused_by": ["device"] * each,
        "rule": [entry.code for entry in refused],
        "original": [_text(entry.line, original_max) for entry in refused],
    }


def _text(line: bytes, chars_max: int | None) -> str:
    """Return the line as text within a limit; what is no UTF-8 becomes replacement characters."""
    # Cut in bytes first: a character is at least one byte, and a batch's limit is in bytes.
    return line[:chars_max].decode("utf-8", errors="replace")[:chars_max]
