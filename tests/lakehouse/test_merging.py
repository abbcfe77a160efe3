"""Which files are merged: limits, parts, and what the policy comes to over thousands of commits."""

from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse.expiry import EXPIRED_AT_ONCE, SNAPSHOTS_KEPT
from lakehouse.maintenance.merging import (
    HISTORY_BYTES_MIN,
    MERGE_BYTES_MAX,
    MERGE_FILES_MAX,
    MERGE_FILES_MIN,
    TIER_BYTES,
    File,
    Group,
    Part,
    plan,
)

BUCKETS = 16
EVERY = 25  # commits between two passes: at four a second and a pass every six seconds

files = st.builds(
    File,
    path=st.text(max_size=4),
    size_bytes=st.integers(1, 2 * TIER_BYTES[-1]),
    part=st.just(Part.TAIL),
) | st.builds(
    File,
    path=st.text(max_size=4),
    size_bytes=st.integers(1, 2 * TIER_BYTES[-1]),
    part=st.just(Part.HISTORY),
    bucket=st.integers(0, 3) | st.none(),
)


@given(st.lists(files, max_size=120, unique_by=lambda f: f.path), st.booleans(), st.booleans())
def test_a_commit_has_limits_and_mixes_nothing(found: list[File], has_history: bool, quiet: bool) -> None:
    groups = plan(found, has_history, quiet)
    chosen = [file for group in groups for file in group.files]
    assert len(set(chosen)) == len(chosen) <= max(MERGE_FILES_MAX, *(len(group.files) for group in groups), 0)
    assert set(chosen) <= set(found)
    for group in groups:
        assert len({(file.part, file.bucket) for file in group.files}) == 1
        assert group.size_bytes <= MERGE_BYTES_MAX or len(group.files) == 1
        assert len(group.files) > 1 or group.files[0].part is not group.to
        if group.files[0].part is Part.TAIL:
            assert len(groups) == 1
        else:
            assert group.to is Part.HISTORY
        if group.to is Part.HISTORY and group.files[0].part is Part.TAIL:
            assert has_history
            assert group.size_bytes >= HISTORY_BYTES_MIN


@given(st.lists(st.integers(1, TIER_BYTES[0] - 1), max_size=MERGE_FILES_MIN - 1))
def test_a_few_small_files_are_left_alone_until_the_table_is_quiet(sizes: list[int]) -> None:
    found = [File(str(n), size) for n, size in enumerate(sizes)]
    assert plan(found, True, False) == ()
    assert len(plan(found, True, True)) == (len(sizes) > 1)


@given(st.permutations(range(3 * MERGE_FILES_MIN)), st.booleans())
def test_of_a_tier_the_oldest_files_are_merged_first(sequences: list[int], has_history: bool) -> None:
    """Of more files than one commit takes, whatever they are called and in whatever order they are listed."""
    size_bytes = MERGE_BYTES_MAX // (2 * MERGE_FILES_MIN)
    found = [File(f"{at:02}", size_bytes, sequence=sequence) for at, sequence in enumerate(sequences)]
    (group,) = plan(found, has_history, False)
    assert group.to is (Part.HISTORY if has_history else Part.TAIL)
    assert [file.sequence for file in group.files] == list(range(2 * MERGE_FILES_MIN))


@pytest.mark.parametrize("size_bytes", [HISTORY_BYTES_MIN // MERGE_FILES_MIN, HISTORY_BYTES_MIN])
def test_fresh_files_stay_in_the_tail_until_the_table_is_quiet(size_bytes: int) -> None:
    old = [File(f"old-{n}", size_bytes, sequence=n) for n in range(MERGE_FILES_MIN)]
    new = [File(f"new-{n}", size_bytes, sequence=n, fresh=True) for n in range(MERGE_FILES_MIN)]
    assert _moved(plan([*new, *old], True, False)) <= set(old)
    assert _moved(plan([*new, *old], True, False)) != set()
    assert _moved(plan(new, True, False)) == set()
    assert _moved(plan(new, True, True)) != set()


def _moved(groups: tuple[Group, ...]) -> set[File]:
    return {file for group in groups for file in group.files if group.to is Part.HISTORY}


class Commits:
    """A table of one file a commit whose merges need no time."""

    def __init__(self, has_history: bool) -> None:
        self.has_history = has_history
        self.files: dict[str, File] = {}
        self.at = self.named = self.commits_of_ours = self.snapshots = 0
        self.written_bytes = self.added_bytes = 0

    def add(self, size_bytes: int, part: Part = Part.TAIL, bucket: int | None = None) -> None:
        self.named += 1
        self.files[str(self.named)] = File(str(self.named), size_bytes, part, bucket, sequence=self.snapshots)

    def commit(self, size_bytes: int) -> None:
        self.at += 1
        self.snapshots += 1
        self.added_bytes += size_bytes
        self.add(size_bytes)

    def keep(self) -> None:
        while groups := plan(self._seen(), self.has_history, False):
            self.commits_of_ours += 1
            self.snapshots += 1
            for group in groups:
                self._apply(group)

    def _seen(self) -> list[File]:
        """What maintenance finds: what the kept snapshots have added is fresh, merged files among it."""
        fresh_from = self.snapshots - SNAPSHOTS_KEPT - EXPIRED_AT_ONCE + 2
        return [msgspec.structs.replace(file, fresh=file.sequence >= fresh_from) for file in self.files.values()]

    def _apply(self, group: Group) -> None:
        for file in group.files:
            del self.files[file.path]
        self.written_bytes += group.size_bytes
        if group.to is Part.TAIL:
            self.add(group.size_bytes)
        elif group.files[0].part is Part.HISTORY:
            self.add(group.size_bytes, Part.HISTORY, group.files[0].bucket)
        else:
            for bucket in range(BUCKETS):
                self.add(group.size_bytes // BUCKETS, Part.HISTORY, bucket)


def test_four_commits_a_second_for_two_hours_leave_few_files_and_write_a_row_a_few_times() -> None:
    """100 kB a commit, no writer that merges: a reader opens a few dozen files at any time."""
    table = Commits(has_history=True)
    tail_most = bucket_most = 0
    for n in range(30_000):
        table.commit(100_000)
        if n % EVERY == 0:
            table.keep()
            by_bucket = Counter(file.bucket for file in table.files.values() if file.part is Part.HISTORY)
            bucket_most = max([bucket_most, *by_bucket.values()])
        tail_most = max(tail_most, sum(file.part is Part.TAIL for file in table.files.values()))
    # It comes to 38, 9 and 3.9 times, which docs/upkeep.md tells.
    assert tail_most <= EVERY + 2 * MERGE_FILES_MIN
    assert bucket_most <= 2 * MERGE_FILES_MIN
    assert table.written_bytes <= 4 * table.added_bytes
    assert table.commits_of_ours <= table.at * 2 / EVERY


def test_without_a_subject_the_same_holds_of_the_tail_alone() -> None:
    table = Commits(has_history=False)
    for n in range(30_000):
        table.commit(100_000)
        if n % EVERY == 0:
            table.keep()
    assert {file.part for file in table.files.values()} == {Part.TAIL}
    full = sum(file.size_bytes >= TIER_BYTES[-1] for file in table.files.values())
    assert len(table.files) - full <= EVERY + 4 * MERGE_FILES_MIN
    assert table.written_bytes <= 6 * table.added_bytes
