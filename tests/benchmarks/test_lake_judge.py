"""The judge counts what is lost, doubled and strange; a table is filled with small files that hold what they should."""

from pathlib import Path

import duckdb
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.lake import small_files, workload
from benchmarks.lake.judge import Account, compare
from lakehouse.catalog import open_catalog
from lakehouse.iceberg import IcebergLake
from tests.lakehouse.world import catalogs

NUMBERS = st.lists(st.tuples(st.sampled_from(("a", "设备-b")), st.integers(1, 2), st.integers(0, 12)), max_size=40)


@given(NUMBERS, st.dictionaries(st.tuples(st.sampled_from(("a", "设备-b")), st.integers(1, 2)), st.integers(1, 12)))
def test_identities_are_compared_one_by_one(rows: list[tuple[str, int, int]], ends: dict[tuple[str, int], int]) -> None:
    with duckdb.connect() as duck:
        duck.execute("CREATE TABLE t (origin VARCHAR, epoch BIGINT, seq BIGINT)")
        if rows:
            duck.executemany("INSERT INTO t VALUES (?, ?, ?)", rows)
        found = compare(duck, "t", {key: ((0, end),) for key, end in ends.items()})
    wanted = {(origin, epoch, seq) for (origin, epoch), end in ends.items() for seq in range(end)}
    present = set(rows)
    assert found == Account(
        len(wanted), len(rows), len(wanted - present), len(rows) - len(present), len(present - wanted)
    )


def test_small_files_hold_the_rows_they_should(tmp_path: Path) -> None:
    contract = workload.readings("bench_small")
    IcebergLake(catalogs(tmp_path)).open(contract)
    catalog = open_catalog(next(one for one in catalogs(tmp_path) if one.name == contract.catalog))
    try:
        table = catalog.load_table(contract.table)
        told: list[str] = []
        size_bytes = small_files.fill(table, contract, 7, 30, told.append)
        rows = table.scan().to_arrow().sort_by("seq")
        assert rows.column("seq").to_pylist() == list(range(210))
        assert set(rows.column("origin").to_pylist()) == {small_files.ORIGIN}
        expected = workload.rows(contract, rows.column("seq").to_numpy())
        assert rows.column("pressure").to_pylist() == expected.column("pressure").to_pylist()
        assert rows.column("state").to_pylist() == expected.column("state").to_pylist()
        files = list(table.scan().plan_files())
        assert (len(files), sum(one.file.file_size_in_bytes for one in files)) == (7, size_bytes)
        assert len(told) == 1
        assert small_files.metadata_versions(table) == [0, 1]
    finally:
        catalog.engine.dispose()
