"""What the lake's tables are called and how they are laid out, for those who write and those who read. Pure.

A contract's table begins as an append log without partitions: a commit is one file, however many origins and days it
holds. Day partitions would make a backlog that comes in after a week offline seven files instead of one, and a reader
prunes by the columns' bounds either way. What has grown large enough is moved to the table's history part, where it is
parted and sorted by subject (`lakehouse.history`).
"""

from typing import Final

from contracts.contract import Contract

CONTRACT_PROPERTY: Final = "fieldlake.contract"  # table property: the contract's id; says that a table is ours
SORT_PROPERTY: Final = "fieldlake.sort-fields"  # table property: what merged files are sorted by, comma-separated
SUBJECT_KIND_PROPERTY: Final = "fieldlake.subject-kind"  # table property: what the subject is; empty without one
SUBJECT_PROPERTY: Final = "fieldlake.subject-field"  # table property: the column that names it; empty without one
EVENT_TIME_PROPERTY: Final = "fieldlake.event-time-field"  # table property: when it happened; empty: when it was sealed
RETENTION_PROPERTY: Final = "fieldlake.retention-days"  # table property: days after which a row is removed
PERSONAL_PROPERTY: Final = (
    "fieldlake.personal-fields"  # table property: columns that may name a person, comma-separated
)

PERSONAL: Final = "personal"  # classification of what may name a person
METRICS_PREFIX: Final = "write.metadata.metrics.column."  # table property: how much is noted of a column, by its name

# Rows of a row group: the unit a reader skips. Lookups of one subject read one or two of them.
ROW_GROUP_ROWS: Final = 16_384
# Older metadata files that are kept: a reader that has just asked the catalog may still open the one before.
METADATA_VERSIONS_KEPT: Final = 8


def table_properties(contract: Contract) -> dict[str, str]:
    """Return the Iceberg properties of a contract's table."""
    properties = {
        "format-version": "2",
        "write.parquet.compression-codec": "zstd",
        "write.parquet.row-group-limit": str(ROW_GROUP_ROWS),
        # A deletion is four requests of the store: the sweep does it, and no commit waits for it.
        "write.metadata.delete-after-commit.enabled": "false",
        "write.metadata.previous-versions-max": str(METADATA_VERSIONS_KEPT),
        "commit.manifest-merge.enabled": "true",
        "commit.manifest.min-count-to-merge": "20",
        # A retry must first look for a second writer, so it is ours to make and not the library's.
        "commit.retry.num-retries": "0",
        CONTRACT_PROPERTY: contract.id,
        SORT_PROPERTY: ",".join(contract.sort_fields),
        SUBJECT_KIND_PROPERTY: contract.subject_kind or "",
        SUBJECT_PROPERTY: contract.subject_field or "",
        EVENT_TIME_PROPERTY: contract.event_time_field or "",
        RETENTION_PROPERTY: str(contract.retention_days),
        PERSONAL_PROPERTY: ",".join(f.name for f in contract.fields if f.classification == PERSONAL),
    }
    for field in contract.fields:
        # Bounds would copy names into the metadata, and prune nothing: only the subject is asked for.
        if field.classification == PERSONAL:
            properties[f"{METRICS_PREFIX}{field.name}"] = "counts"
    if contract.subject_field is not None:
        properties[f"{METRICS_PREFIX}{contract.subject_field}"] = "full"
    return properties
