"""The history part of a table: rows of a subject side by side, in files of a second partition spec.

A table has two parts under one name. The *tail* are files of spec 0, which has no partitions: a commit is one file.
The *history* are files of a spec that parts the rows by a hash of their subject into BUCKETS. Both specs are the
table's own, and spec 0 stays its default one, so who appends knows nothing of the other; readers prune each file by
its own spec.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.partitioning import PARTITION_FIELD_ID_START, PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.update import AddPartitionSpecUpdate, AssertLastAssignedPartitionId, AssertTableUUID
from pyiceberg.transforms import BucketTransform
from pyiceberg.typedef import Record
from pyiceberg.types import IcebergType

from lakehouse.tables import SUBJECT_PROPERTY

BUCKETS: Final = 16  # partitions; a look-up reads the files of one, and a flush of the tail writes a file for each
SPEC_TRIES_MAX: Final = 5  # tries to add the spec to a table that is being written


def history_spec(metadata: TableMetadata) -> PartitionSpec | None:
    """Return the spec of the table's history part; None when it has no subject, or the spec was not added yet."""
    subject = subject_id(metadata)
    return next((spec for spec in metadata.partition_specs if subject is not None and _parts(spec, subject)), None)


def subject_id(metadata: TableMetadata) -> int | None:
    """Return the field id of the table's subject, None when it has none."""
    name = metadata.properties.get(SUBJECT_PROPERTY)
    return field_id(metadata.schema(), name) if name else None


def field_id(schema: Schema, name: str) -> int | None:
    """Return the id of a top-level field, None when there is none of that name."""
    return next((field.field_id for field in schema.fields if field.name == name), None)


def ensure_history(table: Table) -> PartitionSpec | None:
    """Return the table's history spec; add it first where a subject is known and the spec is missing.

    Raises CommitFailedException when other writers won SPEC_TRIES_MAX times in a row.
    """
    for attempt in range(SPEC_TRIES_MAX):
        metadata = table.metadata
        found, subject = history_spec(metadata), subject_id(metadata)
        if found is not None or subject is None:
            return found
        try:
            table._do_commit(  # the library's own way to add a spec also makes it the default one
                updates=(AddPartitionSpecUpdate(spec=_next_spec(metadata, subject)),),
                requirements=(
                    AssertTableUUID(uuid=metadata.table_uuid),
                    AssertLastAssignedPartitionId.model_validate(
                        {"last-assigned-partition-id": metadata.last_partition_id}
                    ),
                ),
            )
        except CommitFailedException:
            if attempt == SPEC_TRIES_MAX - 1:
                raise
            table.refresh()
    return history_spec(table.metadata)


def buckets(subjects: pa.ChunkedArray, kind: IcebergType) -> pa.Array:
    """Return the bucket of every subject of a type as int32, by Iceberg's own hash; null where there is no subject."""
    encoded = subjects.combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    numbers = BucketTransform(BUCKETS).pyarrow_transform(kind)(encoded.dictionary)
    return numbers.cast(pa.int32()).take(encoded.indices)


def by_bucket(bucket: pa.Array, places: NDArray[np.int64]) -> Iterator[tuple[Record, NDArray[np.int64]]]:
    """Yield each partition with the positions of its rows, in their order; `places` go through the buckets in turn."""
    numbers = np.asarray(bucket.fill_null(BUCKETS))[places]
    edges = np.flatnonzero(np.diff(numbers)) + 1
    for own in np.split(places, edges):
        if len(own):
            yield Record(bucket[int(own[0])].as_py()), own


def _parts(spec: PartitionSpec, subject: int) -> bool:
    return (
        len(spec.fields) == 1
        and spec.fields[0].source_id == subject
        and isinstance(spec.fields[0].transform, BucketTransform)
    )


def _next_spec(metadata: TableMetadata, subject: int) -> PartitionSpec:
    field = PartitionField(
        source_id=subject,
        field_id=(metadata.last_partition_id or PARTITION_FIELD_ID_START - 1) + 1,
        transform=BucketTransform(BUCKETS),
        name=f"{metadata.schema().find_column_name(subject)}_bucket",
    )
    return PartitionSpec(field, spec_id=max(spec.spec_id for spec in metadata.partition_specs) + 1)
