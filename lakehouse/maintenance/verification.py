"""Say whether a subject is anywhere in a table's files, and remove the files nothing needs that have it.

The search believes no bound and no listing of what was done: it reads every data file of every snapshot, every entry of
every manifest, the recovery states, the metadata, and whatever else lies in the table's folder.
"""

from collections.abc import Iterable, Iterator
from typing import Final

import pyarrow.compute as pc
from msgspec import Struct
from pyiceberg.manifest import (
    DataFile,
    DataFileContent,
    FileFormat,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestFile,
)
from pyiceberg.table import Table
from pyiceberg.typedef import Record

from lakehouse.history import field_id
from lakehouse.maintenance.bounds import names_text
from lakehouse.maintenance.listing import Manifests
from lakehouse.maintenance.reading import read_file
from lakehouse.maintenance.subjects import ORIGIN, About, quoted
from lakehouse.maintenance.sweep import FILE_GRACE_S, listed, references, remove, state_files
from lakehouse.state import unpacked

DATA_SUFFIX: Final = ".parquet"
MANIFEST_SUFFIX: Final = ".avro"
LIST_PREFIX: Final = "snap-"  # manifest lists: they know of numbers and buckets only


class Found(Struct, frozen=True):
    """Where the subject is, one phrase a place. `pending`: files that nothing refers to and a writer may still commit.

    `kept`: what names the subject and has to stay, with the reason.
    """

    remaining: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()


def names_subject(entry: ManifestEntry, rule: About, ids: Iterable[int] | None = None) -> bool:
    """Say whether a bound of an entry is the subject itself. `ids`: the columns, by default the subject's own.

    A bound does not say of which kind its value is: where rows do, those of a live file decide.
    """
    if rule.kind_column is not None and entry.status != ManifestEntryStatus.DELETED:
        return False
    columns = ids if ids is not None else ([] if rule.own_id is None else [rule.own_id])
    return any(names_text(entry.data_file, column, rule.subject.id) for column in columns)


def remove_unneeded(table: Table, rule: About, now_s: float, dropped: frozenset[str] = frozenset()) -> int:
    """Remove the table's files that nothing refers to and that have the subject; return how many.

    `dropped` are locations that snapshots named which are dropped now; others only once no writer can commit them.
    """
    gone = [
        path
        for path, location, age_s in _unneeded(table, now_s)
        if (location in dropped or age_s > FILE_GRACE_S) and (location in dropped or _has(table, rule, location))
    ]
    return remove(table, gone)


def verify(table: Table, rule: About, now_s: float) -> Found:
    """Search everything; `table` is loaded anew for it. Errors of the store pass through."""
    remaining: list[str] = []
    for snapshot in table.metadata.snapshots:
        remaining += _in_snapshot_metadata(table, rule, snapshot.snapshot_id)
    remaining += [f"row in {path}" for path in _with_rows(table, rule)]
    remaining += [f"metadata in {location}" for location in _metadata(table) if _in_text(table, location, rule)]
    pending = [
        f"{location}, {age_s:.0f} s old"
        for _, location, age_s in _unneeded(table, now_s)
        if _has(table, rule, location)
    ]
    kept = []
    for location in sorted(place for s in table.metadata.snapshots for place in state_files(table.io, s)):
        if _in_state(table, location, rule):
            if rule.own == ORIGIN:
                kept.append(
                    f"{location} names the origin: without it a batch that is sent again would be taken for new"
                )
            else:
                remaining.append(f"state in {location}")
    return Found(tuple(remaining), tuple(pending), tuple(dict.fromkeys(kept)))


def _in_snapshot_metadata(table: Table, rule: About, snapshot_id: int) -> Iterator[str]:
    snapshot = table.metadata.snapshot_by_id(snapshot_id)
    manifests, ids = Manifests(table.io), _ids(table, rule)
    for manifest in manifests.of(snapshot) if snapshot is not None else ():
        for entry in manifests.entries(manifest):
            if names_subject(entry, rule, ids):
                yield f"bound in {manifest.manifest_path}"


def _with_rows(table: Table, rule: About) -> Iterator[str]:
    """Yield the data files of all snapshots that have rows of the subject; each file is read once."""
    manifests, files = Manifests(table.io), dict[str, DataFile]()
    for snapshot in table.metadata.snapshots:
        for manifest in manifests.of(snapshot):
            files.update({entry.data_file.file_path: entry.data_file for entry in manifests.live(manifest)})
    return (path for path, file in sorted(files.items()) if _has_rows(table, rule, file))


def _has_rows(table: Table, rule: About, file: DataFile) -> bool:
    schema = table.schema().as_arrow()
    rows = read_file(table, file, schema.empty_table().select(list(rule.columns)).schema)
    return bool(pc.any(rule.matches(rows)).as_py())


def _has(table: Table, rule: About, location: str) -> bool:
    """Say whether a file that no snapshot lists has the subject; False for one that is gone meanwhile."""
    name = location.rpartition("/")[2]
    try:
        if name.endswith(DATA_SUFFIX):
            return _has_rows(table, rule, _bare_file(location))
        if name.endswith(MANIFEST_SUFFIX) and not name.startswith(LIST_PREFIX):
            entries = Manifests(table.io).entries(_bare_manifest(location))
            return any(names_subject(entry, rule, _ids(table, rule)) for entry in entries)
    except FileNotFoundError:
        return False
    return False


def _unneeded(table: Table, now_s: float) -> Iterator[tuple[str, str, float]]:
    """Yield (path in the store, location, age in seconds) of the files that nothing refers to."""
    found = listed(table)
    table.refresh()
    needed = references(table)
    for path, location, modified_s in found:
        if location not in needed:
            yield path, location, now_s - modified_s


def _metadata(table: Table) -> list[str]:
    return [table.metadata_location, *(entry.metadata_file for entry in table.metadata.metadata_log)]


def _in_text(table: Table, location: str, rule: About) -> bool:
    try:
        with table.io.new_input(location).open() as stream:
            text = stream.read()
    except FileNotFoundError:
        return False  # the log of metadata files names older ones than are kept
    return any(word.encode() in text for word in quoted(rule.subject.id))


def _in_state(table: Table, location: str, rule: About) -> bool:
    with table.io.new_input(location).open() as stream:
        return rule.subject.id.encode() in unpacked(stream.read(), location)


def _ids(table: Table, rule: About) -> list[int]:
    found = (field_id(table.schema(), name) for name in rule.columns)
    return [number for number in found if number is not None]


def _bare_file(location: str) -> DataFile:
    return DataFile.from_args(
        content=DataFileContent.DATA, file_path=location, file_format=FileFormat.PARQUET, partition=Record()
    )


def _bare_manifest(location: str) -> ManifestFile:
    return ManifestFile.from_args(
        manifest_path=location,
        manifest_length=0,
        partition_spec_id=0,
        content=ManifestContent.DATA,
        sequence_number=0,
        min_sequence_number=0,
        added_snapshot_id=0,
    )
