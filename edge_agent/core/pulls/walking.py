"""The way through the log: from segment to segment by their summaries, and what is not there on it."""

from collections.abc import Iterable

from msgspec.structs import replace

from contracts import ranges
from contracts.pulls import MISSING_RANGES_MAX, PullRequest
from contracts.ranges import RangeSet
from edge_agent.core.accounts import DISK_FULL
from edge_agent.core.pulls.progress import Progress
from edge_agent.core.spool.places import Place
from edge_agent.core.spool.segment import Segment


def overlaps(times_us: tuple[int, int] | None, request: PullRequest) -> bool:
    """Say whether events between two times, both included, may be meant."""
    return times_us is not None and times_us[0] < request.to_us and times_us[1] >= request.from_us


def lacking(progress: Progress, missing: RangeSet, events: int) -> Progress:
    """Return the progress after some events turned out to be gone."""
    known = ranges.union((*progress.missing, *missing))
    if len(known) > MISSING_RANGES_MAX:
        last = MISSING_RANGES_MAX - 1
        known = (*known[:last], (known[last][0], known[-1][1]))
    return replace(progress, missing=known, missing_events=progress.missing_events + events)


def entered(progress: Progress, request: PullRequest, segment: Segment) -> Progress:
    """Return the progress on coming to a segment with events of the contract; one that was come to before is passed.

    Events between two segments are gone. When they happened is told by the times of their neighbours.
    """
    if segment.number <= progress.segment:
        return progress
    times_us, seq_at = segment.times_us.get(request.contract), progress.seq_at
    for first, end in segment.ranges[request.contract]:
        if seq_at is None and first > 0:
            # What came before was deleted for its age, or for want of room.
            if times_us is None or request.from_us < times_us[0]:
                progress = replace(progress, held_since_us=times_us[0] if times_us is not None else request.to_us)
        elif seq_at is not None and first > seq_at and _between(progress.last_us, times_us, request):
            progress = lacking(progress, ((seq_at, first),), first - seq_at)
        seq_at = max(seq_at or 0, end)
    return replace(progress, segment=segment.number, seq_at=max(progress.seq_at or 0, _first(segment, request)))


def passed(progress: Progress, request: PullRequest, place: Place) -> Progress:
    """Return the progress after a record was looked at, or passed over because it is of another time."""
    seq_at = max(progress.seq_at or 0, *(block.place.end_seq for block in place.blocks))
    progress = replace(_timed(progress, place.times_us), next_record=place.number + 1, seq_at=seq_at)
    shed = sum(count for reason, count in place.dropped if reason == DISK_FULL)
    last_us = progress.last_us
    if not shed or place.times_us is not None or not overlaps((last_us, last_us) if last_us else None, request):
        return progress
    return lacking(progress, tuple((b.place.first_seq, b.place.end_seq) for b in place.blocks), shed)


def unnamed(held: RangeSet, found: Iterable[tuple[int, int]]) -> RangeSet:
    """Return what of a segment's ranges none of the records found in it accounts for."""
    there = ranges.union(found)
    return tuple(gap for first, end in held for gap in ranges.missing(there, first, end))


def left(progress: Progress, request: PullRequest, segment: Segment) -> Progress:
    """Return the progress when nothing of a segment is open any more."""
    end = segment.ranges[request.contract][-1][1]
    progress = _timed(progress, segment.times_us.get(request.contract))
    return replace(progress, seq_at=max(progress.seq_at or 0, end))


def ended(progress: Progress, request: PullRequest) -> Progress:
    """Return the progress when there is no further segment: the newest events may be those that are gone."""
    if progress.seq_at is None:
        return replace(progress, held_since_us=request.to_us) if progress.end_seq else progress
    if progress.seq_at < progress.end_seq and _between(progress.last_us, None, request):
        return lacking(progress, ((progress.seq_at, progress.end_seq),), progress.end_seq - progress.seq_at)
    return progress


def _first(segment: Segment, request: PullRequest) -> int:
    return segment.ranges[request.contract][0][0]


def _timed(progress: Progress, times_us: tuple[int, int] | None) -> Progress:
    if times_us is None:
        return progress
    last_us = times_us[1] if progress.last_us is None else max(times_us[1], progress.last_us)
    return replace(progress, last_us=last_us)


def _between(before_us: int | None, after_us: tuple[int, int] | None, request: PullRequest) -> bool:
    """Say whether events between two neighbours may be meant."""
    begins_before = before_us is None or before_us < request.to_us
    return begins_before and (after_us is None or after_us[0] >= request.from_us)
