"""From raw records of `fieldlake.batches` to candidate messages; what cannot be read is counted and passed over.

The lake decides the fate of a batch that cannot be read (it waits there, or goes to the dead letters); here it must
only not stop its neighbours.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct

from contracts import microbatch
from contracts.candidates import Candidates
from contracts.errors import BatchError
from flink_jobs.triggers.preselect.decoding import Batch, Decoded, Decoder
from flink_jobs.triggers.preselect.documents import Documents
from flink_jobs.triggers.preselect.grouping import candidates

log = logging.getLogger(__name__)


class Counts(Struct):
    """What has gone through since the process started. The only values here that change."""

    batches: int = 0
    events: int = 0
    unwanted_batches: int = 0
    unreadable_batches: int = 0
    unknown_contract_batches: int = 0
    candidate_rows: int = 0
    candidate_messages: int = 0


def select(records: Iterable[tuple[str, bytes]], documents: Documents, counts: Counts) -> Iterator[Candidates]:
    """Yield the candidate messages of (origin, micro-batch) records; a batch that no rule listens to is not decoded."""
    for name, batches in _by_fingerprint(records, counts).items():
        decoder = documents.decoder(name)
        if decoder is None:
            counts.unknown_contract_batches += len(batches)
            log.warning("%d batches of unknown contract %016x from %s", len(batches), name, batches[0].origin)
            continue
        wanted = documents.filter_of(name)
        if wanted is None:
            counts.unwanted_batches += len(batches)
            continue
        for decoded in _decoded(decoder, batches, counts):
            for message in candidates(decoded, wanted, documents.rules.offset):
                counts.candidate_rows += len(message.columns[0])
                counts.candidate_messages += 1
                yield message


def _by_fingerprint(records: Iterable[tuple[str, bytes]], counts: Counts) -> dict[int, list[Batch]]:
    """Sort batches by contract. Those without rows, which only account for what a device dropped, are left out."""
    found: dict[int, list[Batch]] = defaultdict(list)
    for origin, record in records:
        counts.batches += 1
        try:
            header, payload = microbatch.parse(record)
        except BatchError as error:
            counts.unreadable_batches += 1
            log.warning("batch of %s: %s: %s", origin, error.reason, error)
            continue
        counts.events += header.rows
        if header.rows:
            found[header.fingerprint].append(Batch(origin, header, bytes(payload)))
    return found


def _decoded(decoder: Decoder, batches: Sequence[Batch], counts: Counts) -> Iterator[Decoded]:
    """Decode all at once; when that fails one by one, so that a bad one is passed over alone."""
    try:
        yield decoder.decode(batches)
        return
    except BatchError as error:
        if len(batches) == 1:
            counts.unreadable_batches += 1
            log.warning("batch of %s at seq %d: %s", batches[0].origin, batches[0].header.first_seq, error)
            return
    for batch in batches:
        yield from _decoded(decoder, [batch], counts)
