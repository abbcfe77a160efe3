"""What the launcher reads about the preselector: a ready file once, a status file every second."""

from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from flink_jobs.triggers.preselect.process import Preselector

STATUS_INTERVAL_S: Final = 1.0


class Status(Struct, frozen=True):
    """The document in `<config>.status.json`."""

    at_ms: int
    rules: int
    ruleset: int
    documents_refused: int
    batches: int
    events: int
    unwanted_batches: int
    unreadable_batches: int
    unknown_contract_batches: int
    candidate_rows: int
    candidate_messages: int


def status_of(preselector: Preselector, at_ms: int) -> Status:
    """Return what the preselector has done since it started."""
    documents, counts = preselector.documents, msgspec.structs.asdict(preselector.counts)
    return Status(
        at_ms=at_ms,
        rules=len(documents.rules.live),
        ruleset=documents.rules.offset,
        documents_refused=documents.refused,
        **counts,
    )


def write(path: Path, content: bytes) -> None:
    """Put a file into its place whole, as it is read while it is written."""
    partial = path.with_name(path.name + ".part")
    partial.write_bytes(content)
    partial.replace(path)
