"""A factory of tables as other writers leave them: with delete files, and with any change to their metadata."""

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.manifest import (
    DataFile,
    DataFileContent,
    FileFormat,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestWriterV2,
    write_manifest_list,
)
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.typedef import Record, TableVersion
from pyiceberg.types import IntegerType, ListType, LongType, NestedField, StringType, StructType

EQUALITY_IDS = 135  # the field of a manifest that names the columns to compare
POSITION_IDS = {"file_path": 2147483546, "pos": 2147483545}  # as the format reserves them

SCHEMA = Schema(NestedField(1, "id", LongType(), required=False), NestedField(2, "name", StringType(), required=False))
ROWS = pa.table({"id": pa.array([1, 2, None, 4], pa.int64()), "name": ["a", "名字", "c", None]})


class _DeleteManifest(ManifestWriterV2):
    """The library writes none: it deletes by writing files anew. Its ids of compared columns are of a wrong type."""

    def _with_partition(self, format_version: TableVersion) -> Schema:
        written = super()._with_partition(format_version)
        return Schema(*(_with_int_ids(field) for field in written.fields))

    def content(self) -> ManifestContent:
        return ManifestContent.DELETES

    @property
    def _meta(self) -> dict[str, str]:
        return {**super()._meta, "content": "deletes"}


def _with_int_ids(field: NestedField) -> NestedField:
    if isinstance(field.field_type, StructType):
        inner = StructType(*(_with_int_ids(one) for one in field.field_type.fields))
        return field.model_copy(update={"field_type": inner})
    if field.field_id == EQUALITY_IDS:
        ids = ListType(EQUALITY_IDS + 1, IntegerType(), element_required=True)
        return field.model_copy(update={"field_type": ids})
    return field


def catalog_in(folder: Path) -> SqlCatalog:
    """A catalog with a namespace `ns` and files below the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    catalog = SqlCatalog("foreign", uri=f"sqlite:///{folder}/catalog.db", warehouse=f"file://{folder}")
    catalog.create_namespace("ns")
    return catalog


def made_table(catalog: SqlCatalog, spec: PartitionSpec = UNPARTITIONED_PARTITION_SPEC) -> Table:
    """The table `ns.t` with ROWS in one commit."""
    table = catalog.create_table("ns.t", SCHEMA, partition_spec=spec)
    table.append(ROWS)
    return table


def document(table: Table) -> dict[str, Any]:
    """A table's metadata as JSON."""
    with table.io.new_input(table.metadata_location).open() as stream:
        found: dict[str, Any] = json.loads(stream.read())
    return found


def metadata_file(table: Table, changed: dict[str, Any]) -> str:
    """Write another metadata file beside the table's own and return its location."""
    location = f"{table.metadata_location.rpartition('/')[0]}/90000-{uuid4()}.metadata.json"
    _write(table, location, json.dumps(changed).encode())
    return location


def with_deletes(
    table: Table, rows: pa.Table, ids: dict[str, int], equality: bool = True, partition: Record | None = None
) -> str:
    """Add one file of deletes in a snapshot of its own; return the new metadata file's location.

    `rows`: values to compare or, not `equality`, file_path and pos. `ids`: the field ids of their columns.
    """
    path = f"{table.location()}/data/delete-{uuid4()}.parquet"
    schema = pa.schema([f.with_metadata({b"PARQUET:field_id": str(ids[f.name]).encode()}) for f in rows.schema])
    sink = pa.BufferOutputStream()
    pq.write_table(rows.cast(schema), sink)
    content = sink.getvalue().to_pybytes()
    _write(table, path, content)
    file = DataFile.from_args(
        content=DataFileContent.EQUALITY_DELETES if equality else DataFileContent.POSITION_DELETES,
        file_path=path,
        file_format=FileFormat.PARQUET,
        partition=partition or Record(),
        record_count=len(rows),
        file_size_in_bytes=len(content),
        equality_ids=list(ids.values()) if equality else None,
    )
    file.spec_id = table.spec().spec_id
    return _commit(table, file)


def _commit(table: Table, file: DataFile) -> str:
    known = document(table)
    current, sequence, snapshot_id = (
        table.current_snapshot(),
        known["last-sequence-number"] + 1,
        known["last-sequence-number"] + 7,
    )
    assert current is not None
    folder = f"{table.location()}/metadata"
    manifest_path, list_path = f"{folder}/{uuid4()}-m0.avro", f"{folder}/snap-{snapshot_id}-{uuid4()}.avro"
    with _DeleteManifest(
        table.spec(), table.schema(), table.io.new_output(manifest_path), snapshot_id, "null"
    ) as writer:
        writer.add_entry(
            ManifestEntry.from_args(status=ManifestEntryStatus.ADDED, snapshot_id=snapshot_id, data_file=file)
        )
    with write_manifest_list(
        2, table.io.new_output(list_path), snapshot_id, current.snapshot_id, sequence, "null"
    ) as manifests:
        manifests.add_manifests([*current.manifests(table.io), writer.to_manifest_file()])
    snapshot = {
        "snapshot-id": snapshot_id, "parent-snapshot-id": current.snapshot_id, "sequence-number": sequence,
        "timestamp-ms": current.timestamp_ms + 1, "manifest-list": list_path, "summary": {"operation": "delete"},
        "schema-id": known["current-schema-id"],
    }  # fmt: skip
    changed = known | {
        "snapshots": [*known["snapshots"], snapshot], "current-snapshot-id": snapshot_id,
        "last-sequence-number": sequence, "refs": {"main": {"snapshot-id": snapshot_id, "type": "branch"}},
    }  # fmt: skip
    return metadata_file(table, changed)


def _write(table: Table, location: str, content: bytes) -> None:
    with table.io.new_output(location).create() as stream:
        stream.write(content)
