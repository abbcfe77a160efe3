"""The protocol that replaces files: a crash, a race or a lost answer at any of its steps."""

from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from lakehouse import tail
from lakehouse.errors import CommitConflictError, CommitOutcomeUnknownError, DeleteFilesError
from lakehouse.expiry import SNAPSHOTS_KEPT
from lakehouse.history import ensure_history
from lakehouse.iceberg import state_location, state_snapshot
from lakehouse.maintenance import change, merging
from lakehouse.maintenance.change import Change
from lakehouse.maintenance.compaction import compact
from lakehouse.maintenance.listing import Manifests, live_files
from lakehouse.maintenance.replacing import REPLACE_TRIES_MAX, REPLACE_WITHIN_S, Point, replace_files
from lakehouse.maintenance.sweep import references, sweep
from tests.lakehouse.frames import clicks
from tests.lakehouse.shelf import Shelf
from tests.lakehouse.world import lose_first_answer

COMMITS, ROWS = 9, 12
LATER_S = 10_000.0


class Crash(Exception):  # noqa: N818 - it stands for the end of a process and not for an error
    """Ends a process where it stands."""


class At:
    """Does something the first `times` times a point is reached, and counts how often each was."""

    def __init__(self, point: Point, do: object, times: int = 1) -> None:
        self.point, self.do, self.left = point, do, times
        self.seen: list[Point] = []

    def __call__(self, point: Point) -> None:
        self.seen.append(point)
        if point is self.point and self.left:
            self.left -= 1
            assert callable(self.do)
            self.do()


def crash() -> None:
    raise Crash


@pytest.fixture(params=["tail", "history"])
def shelf(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    """Nine small files that are due, to be merged in the tail or moved to the history."""
    made = Shelf(tmp_path)
    made.fill(COMMITS, ROWS)
    if request.param == "history":
        monkeypatch.setattr(merging, "HISTORY_BYTES_MIN", 1)
        ensure_history(made.keeper)
    made.keeper.refresh()
    return made


@pytest.mark.parametrize("point", Point, ids=lambda point: point.value)
def test_a_crash_after_any_step_leaves_the_rows_and_leaks_nothing(shelf: Shelf, point: Point) -> None:
    with pytest.raises(Crash):
        compact(shelf.keeper, quiet=True, fault=At(point, crash))
    assert shelf.seqs() == list(range(COMMITS * ROWS))
    state = shelf.commit(clicks([500]))
    successor = shelf.load()
    done = compact(successor, quiet=True)
    assert done.files == (2 if point is Point.COMMITTED and len(shelf.files()) < 3 else done.files)
    assert shelf.seqs() == [*range(COMMITS * ROWS), 500]
    assert state_location(state_snapshot(shelf.load())) == state
    sweep(successor, shelf.folder.stat().st_mtime + LATER_S)
    assert {str(path) for path in shelf.on_disk()} == {at.removeprefix("file://") for at in references(shelf.load())}


@pytest.mark.parametrize("point", [Point.LOOKED, Point.MANIFESTS_WRITTEN, Point.LIST_WRITTEN], ids=lambda p: p.value)
def test_a_writer_that_wins_costs_a_commit_and_no_work(shelf: Shelf, point: Point) -> None:
    race = At(point, lambda: shelf.fill(1, ROWS, first=COMMITS))
    merged = compact(shelf.keeper, quiet=True, fault=race)
    assert (merged.files, merged.conflicts) == (COMMITS, 1)
    assert shelf.seqs() == list(range((COMMITS + 1) * ROWS))
    listed = {path for _, path in shelf.files()}
    data = [path for path in shelf.on_disk() if path.suffix == ".parquet"]
    assert len(data) == COMMITS + 1 + len(listed) - 1  # the files that were written first are those that landed


def test_a_writer_that_always_wins_is_given_way_to(shelf: Shelf) -> None:
    lost = iter(range(COMMITS, 100))
    race = At(Point.LIST_WRITTEN, lambda: shelf.fill(1, ROWS, first=next(lost)), times=100)
    with pytest.raises(CommitConflictError, match="times in a row"):
        compact(shelf.keeper, quiet=True, fault=race)
    assert shelf.seqs() == list(range((COMMITS + REPLACE_TRIES_MAX) * ROWS))


def test_two_at_once_do_the_work_once(shelf: Shelf) -> None:
    other = shelf.load()
    merged = compact(shelf.keeper, quiet=True, fault=At(Point.LIST_WRITTEN, lambda: compact(other, quiet=True)))
    assert (merged.files, merged.conflicts) == (0, 1)
    assert shelf.seqs() == list(range(COMMITS * ROWS))


@pytest.mark.parametrize("lands", [True, False], ids=["landed", "did not land"])
def test_a_lost_answer_is_looked_up(shelf: Shelf, monkeypatch: pytest.MonkeyPatch, lands: bool) -> None:
    lost = OperationalError("UPDATE", {}, Exception("connection lost"))
    calls = lose_first_answer(monkeypatch, shelf.keeper, lost, lands)
    merged = compact(shelf.keeper, quiet=True)
    assert merged.files == COMMITS
    assert len(calls) == (1 if lands else 2)
    assert shelf.seqs() == list(range(COMMITS * ROWS))


def test_a_catalog_that_stays_silent_ends_in_an_unknown_outcome(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(*_arguments: object) -> object:
        raise OperationalError("UPDATE", {}, Exception("connection lost"))

    monkeypatch.setattr(shelf.keeper.catalog, "commit_table", silent)
    with pytest.raises(CommitOutcomeUnknownError, match="looks again by itself"):
        compact(shelf.keeper, quiet=True)
    monkeypatch.undo()
    assert shelf.seqs() == list(range(COMMITS * ROWS))


def test_files_that_are_too_old_are_not_committed(shelf: Shelf) -> None:
    times = iter([0.0])
    with pytest.raises(CommitConflictError, match="begins again"):
        compact(shelf.keeper, quiet=True, monotonic_s=lambda: next(times, REPLACE_WITHIN_S + 1))
    assert len(shelf.files()) == COMMITS


def test_the_newest_state_is_named_again_however_many_commits_there_are(shelf: Shelf) -> None:
    newest = state_location(state_snapshot(shelf.writer))
    assert newest is not None
    for _ in range(4 * SNAPSHOTS_KEPT):
        table = shelf.load()
        replace_files(table, Change({}, ()), Manifests(table.io), 0.0, monotonic_s=lambda: 0.0)
        assert state_location(state_snapshot(table)) == newest
    assert len(shelf.load().metadata.snapshots) < 3 * SNAPSHOTS_KEPT
    assert Path(newest.removeprefix("file://")).exists()


def test_commits_of_others_do_not_cut_the_way_to_the_state(shelf: Shelf) -> None:
    newest = shelf.commit(clicks([500]))
    for n in range(4 * SNAPSHOTS_KEPT):
        shelf.commit(clicks([501 + n]), state=False)
    assert state_location(state_snapshot(shelf.load())) == newest


def test_a_snapshot_says_what_it_did_and_counts_right(shelf: Shelf) -> None:
    compact(shelf.keeper, quiet=True)
    snapshot = shelf.load().current_snapshot()
    assert snapshot is not None
    assert snapshot.summary is not None
    assert snapshot.summary.operation.value == "replace"
    assert snapshot.summary["total-records"] == str(COMMITS * ROWS)
    assert snapshot.summary["total-data-files"] == str(len(shelf.files()))
    assert snapshot.summary["deleted-data-files"] == str(COMMITS)


def test_many_manifests_become_few(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(change, "MANIFESTS_MAX", 4)
    monkeypatch.setattr(tail, "TAIL_FILES_MAX", 1)
    with shelf.load().transaction() as transaction:
        transaction.set_properties({"commit.manifest-merge.enabled": "false"})
    shelf.fill(8, first=COMMITS)
    table = shelf.load()
    manifests = Manifests(table.io)
    before = len(manifests.of(table.current_snapshot()))  # type: ignore[arg-type]
    replace_files(table, Change({}, ()), manifests, 0.0, monotonic_s=lambda: 0.0)
    assert len(manifests.of(table.current_snapshot())) == 1 < before  # type: ignore[arg-type]
    assert [entry.sequence_number for entry, _ in live_files(table, manifests)] == sorted(
        entry.sequence_number or 0 for entry, _ in live_files(table, manifests)
    )
    assert shelf.seqs() == list(range((COMMITS + 8) * ROWS))


def test_a_table_with_delete_files_is_left_alone(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyiceberg.manifest import ManifestContent, ManifestFile

    monkeypatch.setattr(ManifestFile, "content", property(lambda _self: ManifestContent.DELETES))
    with pytest.raises(DeleteFilesError, match="EXECUTE optimize"):
        compact(shelf.keeper, quiet=True)
