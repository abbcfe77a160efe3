"""What the lake's tables are called and how they are laid out, for those who write and those who read. Pure.

A contract's table is an append log without partitions: a commit is one file, however many origins and days it holds.
Day partitions would make a backlog that comes in after a week offline seven files instead of one, and a reader prunes
by the columns' bounds either way.
"""

from typing import Final

from contracts.contract import Contract

CONTRACT_PROPERTY: Final = "fieldlake.contract"  # table property: the contract's id; says that a table is ours
SORT_PROPERTY: Final = "fieldlake.sort-fields"  # table property: what merged files are sorted by, comma-separated

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
    }
    if contract.subject_field is not None:
        properties[f"write.metadata.metrics.column.{contract.subject_field}"] = "full"
    return properties
