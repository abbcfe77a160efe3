"""What is not read of other writers' tables, told from their metadata before a file is opened. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from pyiceberg.manifest import DataFile, DataFileContent, FileFormat

from lakehouse.errors import BrokenTableError, UnsupportedTableError

FORMAT_VERSIONS: Final = (1, 2, 3)
# Types whose values the library cannot return, or returns with less precision than they have.
UNREADABLE_TYPES: Final = ("variant", "geometry", "geography", "unknown", "timestamp_ns", "timestamptz_ns")


def check_metadata(location: str, document: Mapping[str, Any]) -> None:
    """Raise UnsupportedTableError for what the library would read wrongly or without a word. Pure.

    Raises BrokenTableError when the document is no table metadata at all.
    """
    try:
        reason = next(_unsupported(document), None)
    except (TypeError, AttributeError, RecursionError) as error:
        raise BrokenTableError(f"metadata file {location}: expected Iceberg table metadata: {error}") from error
    if reason is not None:
        raise UnsupportedTableError(f"{location}: {reason}")


def _unsupported(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is not supported, and what to do about it."""
    version = document.get("format-version")
    if version not in FORMAT_VERSIONS:
        yield f"expected format version {', '.join(map(str, FORMAT_VERSIONS))}, found {version}: rewrite the table"
    if document.get("encryption-keys") or any("key-id" in one for one in document.get("snapshots", ())):
        yield "the table is encrypted: read it with the engine that has its keys"
    if any("manifest-list" not in one for one in document.get("snapshots", ())):
        yield "a snapshot names manifests without a list: rewrite the table as version 2"
    for spec in document.get("partition-specs", ()):
        for field in spec.get("fields", ()):
            if "source-id" not in field:
                yield f"partition {field.get('name')} is of several columns: rewrite the table with another partition"
    for schema in document.get("schemas") or [document.get("schema", {})]:
        for name, kind in _types("", schema):
            if kind.partition("(")[0] in UNREADABLE_TYPES:
                yield f"column {name} is {kind}, which is not read: write the table anew without it"


def check_file(file: DataFile) -> None:
    """Raise UnsupportedTableError for a file whose rows, or whose deletes, cannot be read."""
    if file.file_format != FileFormat.PARQUET:
        kind = "deletion vectors" if file.file_format == FileFormat.PUFFIN else f"{file.file_format.value} files"
        raise UnsupportedTableError(f"file {file.file_path}: expected Parquet, found {kind}: compact the table")
    if file.content == DataFileContent.EQUALITY_DELETES and not file.equality_ids:
        raise UnsupportedTableError(f"file {file.file_path}: an equality delete names no column to compare")


def _types(prefix: str, kind: Any) -> Iterator[tuple[str, str]]:
    """Yield the path and the type of every primitive of a schema's JSON."""
    if not isinstance(kind, Mapping):
        yield prefix.lstrip("."), str(kind)
        return
    for field in kind.get("fields", ()):
        yield from _types(f"{prefix}.{field.get('name')}", field.get("type"))
    for part in ("element", "key", "value"):
        if part in kind:
            yield from _types(f"{prefix}.{part}", kind[part])
