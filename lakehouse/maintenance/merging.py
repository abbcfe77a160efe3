"""Which files of a table are merged, and where their rows go. Pure.

Files are sorted into tiers by size, each tier eight times the one below; a tier with enough files is merged into one
file, which then usually belongs to the next tier. So a row is rewritten once per tier and not once per pass. Files of
the history are sorted into tiers bucket by bucket.

Rows of the tail move to the history once they are worth a file in each bucket. Below that the tail's merged files are
sorted by subject as well, so few row groups of few files are all that a look-up reads there.

Fresh rows stay in the tail, where they lie by time: who asks for the newest ones would read all buckets otherwise. Of a
tier the oldest files are merged first: they are named by the same manifests, so few of those are written anew.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Final

from msgspec import Struct

# Bytes; upper ends of the tiers. What has reached the last is never merged again: two of them would exceed a commit.
TIER_BYTES: Final = (524_288, 4_194_304, 33_554_432, 67_108_864)
MERGE_FILES_MIN: Final = 8  # files of a tier that make a merge worth a commit
QUIET_FILES_MIN: Final = 2  # the same once nothing has been added for a while: readers then pay for files, not writers
# Bytes of the tail that are worth a file in each of 16 buckets: 2 MB each. With less, a busy table's newest rows, which
# most readers want, would lie in hundreds of small files.
HISTORY_BYTES_MIN: Final = TIER_BYTES[2]
MERGE_FILES_MAX: Final = 1_024  # files; bounds the commit's size: each is an entry to write
MERGE_BYTES_MAX: Final = 134_217_728  # bytes compressed of one commit; a few seconds' work, lost if its inputs go
SINGLE_BYTES_MIN: Final = HISTORY_BYTES_MIN  # bytes; below that a file of the tail waits for others
SINGLE: Final = 1  # files of the tail that are worth moving alone: a backlog's commit is large by itself


class Part(Enum):
    """The parts of a table; see `lakehouse.history`."""

    TAIL = "tail"
    HISTORY = "history"


class File(Struct, frozen=True):
    """A data file that may be merged; `bucket` is that of a file of the history, None for one without a subject.

    `sequence` is the number of the commit that added it; `fresh` says that its rows are among the newest.
    """

    path: str
    size_bytes: int
    part: Part = Part.TAIL
    bucket: int | None = None
    sequence: int = 0
    fresh: bool = False


class Group(Struct, frozen=True):
    """Files whose rows are sorted and written together; `to` is where they go."""

    files: tuple[File, ...]
    to: Part

    @property
    def size_bytes(self) -> int:
        """Bytes compressed."""
        return sum(file.size_bytes for file in self.files)


def plan(files: Sequence[File], has_history: bool, quiet: bool) -> tuple[Group, ...]:
    """Return the groups of the next commit: one of the tail, or several of the history, each of another bucket.

    `has_history`: whether the table has a history part. The tail comes first: it is what every reader reads.
    """
    own = [file for file in files if file.part is Part.TAIL]
    if has_history and (flushed := _flush([file for file in own if quiet or not file.fresh])):
        return (Group(flushed, Part.HISTORY),)
    if merged := merge([file for file in own if not has_history or not _waits(file)], quiet):
        return (Group(merged, Part.TAIL),)
    buckets: dict[int | None, list[File]] = defaultdict(list)
    for file in files:
        if file.part is Part.HISTORY:
            buckets[file.bucket].append(file)
    merges = (merge(found, False) for _, found in sorted(buckets.items(), key=lambda item: str(item[0])))
    return _within_limits(Group(found, Part.HISTORY) for found in merges if found)


def merge(files: Sequence[File], quiet: bool) -> tuple[File, ...]:
    """Return the files to merge next, of the smallest tier that is due; none when nothing is due."""
    tiers: dict[int, list[File]] = defaultdict(list)
    for file in files:
        if (tier := _tier(file)) < len(TIER_BYTES):
            tiers[tier].append(file)
    for tier in sorted(tiers):
        if len(tiers[tier]) >= (QUIET_FILES_MIN if quiet and tier == 0 else MERGE_FILES_MIN):
            return _fitting(tiers[tier])
    return ()


def _flush(files: Sequence[File]) -> tuple[File, ...]:
    """Return the files of the tail to move to the history, none while they are not worth it."""
    large = [file for file in files if file.size_bytes >= SINGLE_BYTES_MIN]
    if large:
        return _fitting(large, SINGLE)
    # A tier that is not due yet is left alone, however large all together are: else each pass would move a little.
    counts = Counter(map(_tier, files))
    chosen = _fitting([file for file in files if counts[_tier(file)] >= MERGE_FILES_MIN])
    return chosen if sum(file.size_bytes for file in chosen) >= HISTORY_BYTES_MIN else ()


def _waits(file: File) -> bool:
    """Say whether a file of the tail waits for its move: a tier of its size is worth one as soon as it is due.

    Merging those files while one of them is fresh wrote every row once more.
    """
    tier = _tier(file)
    return tier > 0 and TIER_BYTES[tier - 1] * MERGE_FILES_MIN >= HISTORY_BYTES_MIN


def _tier(file: File) -> int:
    return sum(file.size_bytes >= end for end in TIER_BYTES)


def _fitting(files: Sequence[File], least: int = QUIET_FILES_MIN) -> tuple[File, ...]:
    chosen: list[File] = []
    total = 0
    for file in sorted(files, key=lambda file: (file.sequence, file.path))[:MERGE_FILES_MAX]:
        total += file.size_bytes
        if total > MERGE_BYTES_MAX and chosen:
            break
        chosen.append(file)
    return tuple(chosen) if len(chosen) >= least else ()


def _within_limits(groups: Iterable[Group]) -> tuple[Group, ...]:
    chosen: list[Group] = []
    for group in groups:
        size_bytes = sum(other.size_bytes for other in chosen) + group.size_bytes
        if chosen and (size_bytes > MERGE_BYTES_MAX or sum(len(g.files) for g in chosen) > MERGE_FILES_MAX):
            break
        chosen.append(group)
    return tuple(chosen)
