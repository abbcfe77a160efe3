"""A table follows its contract through random changes, while rows of all versions arrive."""

import datetime as dt
import math
import tempfile
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from contracts.contract import Contract, Field, FieldType
from lakehouse.evolution import follow
from lakehouse.handover import DataFileForm
from lakehouse.iceberg import IcebergLake, IcebergTable
from lakehouse.landing import land
from lakehouse.schema import table_schema
from tests.lakehouse import changing
from tests.lakehouse.judge import EXTENSIONS, EXTENSIONS_DIR
from tests.lakehouse.naive_fields import Meaning, Row, expected, meaning
from tests.lakehouse.world import catalogs, commit_files

FIRST = Contract(
    "press", "1.0.0", "Press", "Tests.", "tests", "lake_a", "field",
    (Field(1, "pressure", FieldType.INT, True), Field(2, "note", FieldType.STRING), Field(3, "f", FieldType.FLOAT)), 30,
)  # fmt: skip
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
EXAMPLES = 25


class Following:
    """A lake, its versions, and what has arrived: by sequence number the row, its version, the newest one by then."""

    def __init__(self, folder: Path) -> None:
        self.lake = IcebergLake(catalogs(folder))
        self.versions = [FIRST]
        self.followed = FIRST
        self.table: IcebergTable = self.lake.open(FIRST)
        self.table.recover()
        self.arrived: list[tuple[Row, Contract, Contract]] = []
        self.waiting: tuple[DataFileForm, ...] | None = None

    def publish(self, fields: tuple[Field, ...], seen: bool) -> None:
        """Publish a version, which a lake that is not `seen` to look opens only when rows of it arrive."""
        version = f"{len(self.versions) + 1}.0.0"
        self.versions.append(replace(FIRST, version=version, fields=fields))
        if seen:
            self.open(self.versions[-1])

    def open(self, contract: Contract) -> None:
        self.lake.open(contract)
        self.followed = max(self.followed, contract, key=lambda version: version.number)
        if self.waiting is None:  # else the writer still has the schema that its file was written under
            self.table.reload()

    def arrive(self, rows: list[Row], sent: Contract) -> None:
        self.settle()
        self.open(sent)
        landed = land(self.named(rows, sent), sent, self.table.layout)
        self.waiting = self.table.write(landed)
        self.arrived += [(row, sent, self.followed) for row in rows]

    def named(self, rows: list[Row], sent: Contract) -> pa.Table:
        names = {f.id: f.name for f in sent.fields}
        system = {"origin": "d", "epoch": 1, "contract_version": sent.version, "sealed_at": 0}
        first = len(self.arrived)
        dicts = [
            system | {"seq": at} | {names[field]: v for field, v in row.items()} for at, row in enumerate(rows, first)
        ]
        return pa.Table.from_pylist(dicts, table_schema(sent))

    def settle(self) -> None:
        if self.waiting is not None:
            commit_files(self.table, self.waiting)
            self.waiting = None
        self.table.reload()

    def columns(self) -> dict[str, tuple[int, Meaning]]:
        """Field and meaning of every column that the table has for the contract, by its name."""
        layout = self.table.layout
        names = {int(f.metadata[b"PARQUET:field_id"]): f.name for f in layout.schema}
        return {
            names[c.column_id]: (field_id, meaning(Field(field_id, "", c.type, unit=c.unit)))
            for field_id, columns in layout.columns.fields.items()
            for c in columns
        }

    def wanted(self) -> list[dict[str, Any]]:
        return [
            {name: expected(row, sent, landed, what, at) for name, (at, what) in self.columns().items()}
            for row, sent, landed in self.arrived
        ]


def same(found: Any, wanted: Any) -> bool:
    if isinstance(found, dt.datetime):
        found = (found - EPOCH) // dt.timedelta(microseconds=1)
    # A number as text is any decimal form of it; the shortest of a 32-bit one is not that of the same in 64 bits.
    if isinstance(found, str) and isinstance(wanted, int | float):
        return math.isclose(float(found), float(wanted), rel_tol=1e-6 if isinstance(wanted, float) else 0.0)
    if isinstance(found, float) and isinstance(wanted, float):
        return found == wanted or abs(found - wanted) <= 1e-6 * abs(wanted)
    return type(found) is type(wanted) and bool(found == wanted)


def differences(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> list[tuple[int, str, Any, Any]]:
    assert len(found) == len(wanted)
    return [
        (at, name, row[name], value)
        for at, (row, should) in enumerate(zip(found, wanted, strict=True))
        for name, value in should.items()
        if not same(row[name], value)
    ]


def by_duckdb(location: str) -> list[dict[str, Any]]:
    with duckdb.connect(config={"extension_directory": str(EXTENSIONS_DIR)}) as engine:
        for name in EXTENSIONS:
            engine.execute(f"LOAD {name}")
        engine.execute("SET TimeZone = 'UTC'")
        found: list[dict[str, Any]] = (
            engine.execute(f"SELECT * FROM iceberg_scan('{location}') ORDER BY seq").fetch_arrow_table().to_pylist()
        )
        return found


# An example is a second of files and commits: to shrink one would take minutes.
@settings(max_examples=EXAMPLES, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(st.data())
def test_any_changes_with_rows_of_all_versions_between_them_lose_and_mix_nothing(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = Following(Path(folder))
        next_id = 4
        for _ in range(data.draw(st.integers(2, 9), "steps")):
            kind = data.draw(st.sampled_from((*changing.CHANGES, "older", "rows", "rows", "rows")), "step")
            if kind == "rows":
                sent = data.draw(st.sampled_from(world.versions), "version")
                world.arrive(data.draw(changing.rows(sent)), sent)
            elif kind == "older":
                world.open(data.draw(st.sampled_from(world.versions), "opened"))
            else:
                drawn = data.draw(st.composite(changing.fields)(world.versions[-1], kind, next_id), "fields")
                world.publish(drawn, data.draw(st.booleans(), "seen"))
                next_id += 1
        world.settle()
        newest = world.followed
        table = world.table.table
        own = [f.name for f in newest.fields]
        assert table.schema().column_names[5 : 5 + len(own)] == own
        found = table.scan().to_arrow().sort_by("seq").to_pylist()
        assert differences(found, world.wanted()) == []
        assert [row["contract_version"] for row in found] == [sent.version for _, sent, _ in world.arrived]
        assert differences(by_duckdb(table.metadata_location), world.wanted()) == []
        for version in {sent.version: sent for _, sent, _ in world.arrived}.values():
            assert follow(table, version) == ()
        world.lake.close()
