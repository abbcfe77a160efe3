"""The two parts of a table: rows move from one to the other, and every reader finds each of them once."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyiceberg.transforms import BucketTransform
from pyiceberg.types import LongType, StringType

from lakehouse.history import BUCKETS, buckets, by_bucket, ensure_history, history_spec
from lakehouse.maintenance import merging
from lakehouse.maintenance.compaction import compact, figures
from lakehouse.maintenance.sorting import sorted_order
from lakehouse.tables import ROW_GROUP_ROWS
from tests.lakehouse.frames import CONTRACTS, clicks
from tests.lakehouse.shelf import CLICKS, Shelf, table_rows

SAME = "SELECT count(*), count(DISTINCT seq), sum(hash(seq, user_id, dwell_s, occurred_at)) FROM rows"


@pytest.fixture
def small_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tail is worth moving as soon as a merge of it is due."""
    monkeypatch.setattr(merging, "HISTORY_BYTES_MIN", 1)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def test_the_history_spec_is_added_once_and_appends_stay_in_the_tail(shelf: Shelf) -> None:
    shelf.fill(1)
    found = ensure_history(shelf.keeper)
    assert found is not None
    assert ensure_history(shelf.load()) == found == history_spec(shelf.load().metadata)
    assert shelf.load().metadata.default_spec_id == 0
    shelf.fill(1, first=1)
    assert [spec for spec, _ in shelf.files()] == [0, 0]


def test_the_spec_is_added_beside_a_writer(shelf: Shelf) -> None:
    shelf.keeper.refresh()
    shelf.fill(2)
    assert ensure_history(shelf.keeper) is not None
    shelf.fill(1, first=2)
    assert shelf.seqs() == list(range(36))


def test_a_table_without_a_subject_has_no_history(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, CONTRACTS["ledger"])
    assert ensure_history(shelf.keeper) is None
    assert len(shelf.load().metadata.partition_specs) == 1


@pytest.mark.usefixtures("small_flush")
def test_moving_the_tail_changes_no_row_and_readers_prune_by_bucket(shelf: Shelf) -> None:
    shelf.fill(9, rows=60)
    before = shelf.ask(SAME)
    ensure_history(shelf.keeper)
    assert compact(shelf.keeper, quiet=True).files == 9
    shelf.fill(2, rows=60, first=9)
    assert shelf.ask(SAME)[0][:2] == (660, 660)
    assert shelf.ask(SAME + " WHERE seq < 540") == before
    specs = [spec for spec, _ in shelf.files()]
    assert specs.count(0) == 2
    assert specs.count(1) == 3  # customers fall into three buckets
    scan = shelf.load().scan(row_filter="user_id = 'customer-1'")
    assert len(list(scan.plan_files())) == 3
    mine = [seq for seq in range(660) if seq % 3 == 1]
    assert sorted(scan.to_arrow().column("seq").to_pylist()) == mine
    assert [r[0] for r in shelf.ask("SELECT seq FROM rows WHERE user_id = 'customer-1' ORDER BY 1")] == mine


@pytest.mark.usefixtures("small_flush")
def test_history_files_are_sorted_with_small_row_groups_and_a_page_index(shelf: Shelf) -> None:
    shelf.fill(8, rows=100)
    ensure_history(shelf.keeper)
    compact(shelf.keeper, quiet=True)
    for spec, path in shelf.files():
        assert spec == 1
        stored = pq.ParquetFile(path.removeprefix("file://"))
        column = stored.metadata.row_group(0).column(0)
        assert column.has_column_index
        assert column.has_offset_index
        assert column.compression == "ZSTD"
        assert stored.metadata.row_group(0).num_rows <= ROW_GROUP_ROWS
        keys = [(r["user_id"], r["occurred_at"]) for r in stored.read().to_pylist()]
        assert keys == sorted(keys)


@pytest.mark.usefixtures("small_flush")
def test_renamed_new_and_dropped_columns_are_the_tables_own_in_the_history(shelf: Shelf) -> None:
    shelf.fill(8)
    with shelf.load().update_schema() as update:
        update.rename_column("object", "document")
        update.delete_column("platform")
        update.add_column("城市", StringType())
    shelf.keeper.refresh()
    ensure_history(shelf.keeper)
    assert compact(shelf.keeper, quiet=True).files == 8
    found = shelf.ask('SELECT count(*), count(document), count("城市"), count(DISTINCT document) FROM rows')
    assert found == [(96, 96, 0, 1)]
    assert "platform" not in shelf.load().scan().to_arrow().column_names


@pytest.mark.usefixtures("small_flush")
def test_files_of_a_bucket_are_merged_within_it(shelf: Shelf) -> None:
    ensure_history(shelf.keeper)
    for n in range(8):
        shelf.fill(8, first=n * 8)
        shelf.keeper.refresh()
        assert compact(shelf.keeper, quiet=True).files == 8
    assert [spec for spec, _ in shelf.files()] == [1] * 24
    assert compact(shelf.keeper, quiet=True).files == 24
    assert [spec for spec, _ in shelf.files()] == [1] * 3
    assert shelf.seqs() == list(range(8 * 8 * 12))
    found = figures(shelf.keeper)
    assert (found.tail_files, found.history_files) == (0, 3)


@pytest.mark.usefixtures("small_flush")
def test_little_memory_makes_more_files_and_the_same_rows(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    from lakehouse.maintenance import compaction

    shelf.fill(8, rows=100)
    before = shelf.ask(SAME)
    monkeypatch.setattr(compaction, "DECODED_BYTES_MAX", 20_000)
    ensure_history(shelf.keeper)
    assert compact(shelf.keeper, quiet=True).files == 8
    assert len(shelf.files()) > 3
    assert shelf.ask(SAME) == before


texts = st.text(max_size=12) | st.sampled_from(["客户-1", "客户-2", "😀"]) | st.none()


@given(st.lists(texts, min_size=1, max_size=60))
def test_every_row_is_in_the_bucket_of_icebergs_own_hash(names: list[str | None]) -> None:
    column = pa.chunked_array([pa.array(names, pa.large_string())])
    found = buckets(column, StringType())
    hashed = BucketTransform(BUCKETS).transform(StringType())
    assert found.to_pylist() == [hashed(name) for name in names]
    parts = list(by_bucket(found, sorted_order([found, column])))
    assert sorted(int(at) for _, own in parts for at in own) == list(range(len(names)))
    assert len({partition[0] for partition, _ in parts}) == len(parts)
    for partition, own in parts:
        assert {hashed(names[at]) for at in own} == {partition[0]}


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20))
def test_whole_numbers_may_be_subjects_too(ids: list[int]) -> None:
    found = buckets(pa.chunked_array([pa.array(ids, pa.int64())]), LongType())
    hashed = BucketTransform(BUCKETS).transform(LongType())
    assert found.to_pylist() == [hashed(number) for number in ids]


@given(st.lists(st.tuples(texts, st.integers().map(lambda n: n % 7) | st.none()), max_size=60))
def test_rows_are_sorted_by_all_columns_nulls_last(rows: list[tuple[str | None, int | None]]) -> None:
    columns = [pa.array([r[0] for r in rows], pa.string()), pa.array([r[1] for r in rows], pa.int64())]

    def key(at: int) -> tuple[object, ...]:
        text, number = rows[at]
        return (text is None, (text or "").encode(), number is None, number or 0)

    places = [int(at) for at in sorted_order(columns)]
    assert places == sorted(range(len(rows)), key=key)


def test_clicks_are_what_the_shelf_holds(shelf: Shelf) -> None:
    shelf.fill(1, rows=3)
    assert [r[0] for r in shelf.ask("SELECT user_id FROM rows ORDER BY seq")] == [
        c["user_id"] for c in clicks(range(3))
    ]


@given(st.lists(st.tuples(*[st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3)] * 4), min_size=1, max_size=40))
def test_keys_of_any_range_sort_like_their_tuples(rows: list[tuple[int, ...]]) -> None:
    columns = [pa.array([row[at] for row in rows], pa.int64()) for at in range(4)]
    assert [rows[int(at)] for at in sorted_order(columns)] == sorted(rows)


def test_files_that_name_columns_only_are_read_by_the_tables_name_mapping(shelf: Shelf, tmp_path: Path) -> None:
    shelf.fill(1)
    rows = table_rows(CLICKS, clicks(range(12, 24)))
    columns = shelf.load().schema().as_arrow()
    bare = pa.schema([field.remove_metadata() for field in columns])
    path = tmp_path / "别处.parquet"
    pq.write_table(rows.cast(bare), path)
    shelf.load().add_files([f"file://{path}"])
    shelf.keeper.refresh()
    assert compact(shelf.keeper, quiet=True).files == 2
    assert shelf.seqs() == list(range(24))
