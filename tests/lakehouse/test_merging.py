"""Which files are merged: limits, parts, and what the policy comes to over thousands of commits."""

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

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


class Commits:
    """A table of one file a commit whose merges need no time."""

    def __init__(self, has_history: bool) -> None:
        self.has_history = has_history
        self.files: dict[str, File] = {}
        self.at = self.named = self.commits_of_ours = 0
        self.written_bytes = self.added_bytes = 0

    def add(self, size_bytes: int, part: Part = Part.TAIL, bucket: int | None = None) -> None:
        self.named += 1
        self.files[str(self.named)] = File(str(self.named), size_bytes, part, bucket)

    def commit(self, size_bytes: int) -> None:
        self.at += 1
        self.added_bytes += size_bytes
        self.add(size_bytes)

    def keep(self) -> None:
        while groups := plan(list(self.files.values()), self.has_history, False):
            self.commits_of_ours += 1
            for group in groups:
                self._apply(group)

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
        tail_most = max(tail_most, sum(file.part is Part.TAIL for file in table.files.values()))
    by_bucket: dict[int | None, int] = defaultdict(int)
    for file in table.files.values():
        by_bucket[file.bucket] += 1
    bucket_most = max(count for bucket, count in by_bucket.items() if bucket is not None)
    assert tail_most <= EVERY + 3 * MERGE_FILES_MIN
    assert bucket_most <= 4 * MERGE_FILES_MIN
    assert table.written_bytes <= 6 * table.added_bytes
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
