"""Which files of a table are merged. Pure.

Files are sorted into tiers by size, each tier eight times the one below; a tier with enough files is merged into one
file, which then usually belongs to the next tier. So a row is rewritten once per tier and not once per pass.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from lakehouse import tail

TIER_BYTES: Final = (524_288, 4_194_304, 33_554_432, 134_217_728)  # bytes; upper ends of the tiers
MERGE_FILES_MIN: Final = 8  # files of a tier that make a merge worth a commit
QUIET_FILES_MIN: Final = 2  # the same once nothing has been added for a while: readers then pay for files, not writers
# Commits for which a file is its writer's; a quarter more than it says, for the commits of maintenance in between.
WRITERS_COMMITS: Final = tail.COMMITS * 5 // 4
MERGE_FILES_MAX: Final = 256  # files; bounds the memory for open files and the commit's size
MERGE_BYTES_MAX: Final = 134_217_728  # bytes compressed; a merge holds them decompressed, about 1 GB at most


class File(Struct, frozen=True):
    """A data file that may be merged."""

    path: str
    size_bytes: int
    age_commits: int  # commits since it was added


def merge(files: Sequence[File], quiet: bool) -> tuple[File, ...]:
    """Return the files to merge next, of the smallest tier that is due; none when nothing is due."""
    tiers: dict[int, list[File]] = defaultdict(list)
    for file in files:
        if file.age_commits < WRITERS_COMMITS and not quiet:
            continue
        tier = sum(file.size_bytes >= end for end in TIER_BYTES)
        if tier < len(TIER_BYTES):
            tiers[tier].append(file)
    for tier in sorted(tiers):
        if len(tiers[tier]) >= (QUIET_FILES_MIN if quiet and tier == 0 else MERGE_FILES_MIN):
            return _fitting(sorted(tiers[tier], key=lambda file: (file.size_bytes, file.path)))
    return ()


def _fitting(files: list[File]) -> tuple[File, ...]:
    chosen: list[File] = []
    total = 0
    for file in files[:MERGE_FILES_MAX]:
        total += file.size_bytes
        if total > MERGE_BYTES_MAX:
            break
        chosen.append(file)
    return tuple(chosen) if len(chosen) >= QUIET_FILES_MIN else ()
