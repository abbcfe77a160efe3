"""Which metadata file of a table is its newest, told from the files alone: for when no catalog says it.

A writer first writes the next metadata file and then moves the catalog's pointer, so beside the chain of files that
were once current there may be files that never were: of a writer that lost the race or died in between. Each file
numbers its version and lists those before it. From that follows:

- a writer that lost the race has written the same version as the winner. As soon as anybody has committed on top of the
  winner, the loser's version is not the highest any more;
- so the only file of the highest version was the pointer, or was about to be: its writer had seen the pointer there
  and nobody else moved it since. All that it refers to was written before it. It is the newest either way;
- several files of the highest version cannot be told apart by age: a snapshot that was acknowledged decides, or a
  person.
"""

import gzip
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct
from pyarrow.fs import FileSelector, FileType
from pyiceberg.io import FileIO
from pyiceberg.io.pyarrow import PyArrowFileIO

from contracts.malformed import MALFORMED
from lakehouse.errors import BrokenTableError

FOLDER: Final = "metadata"
METADATA_BYTES_MAX: Final = 268_435_456  # bytes; ours stay below one MB, a table with 100,000 snapshots has some 100
# `00012-uuid.metadata.json`, `v12.metadata.json`, and both with `.gz` before or after the ending.
_NAME: Final = re.compile(r"v?(\d+)(-[^/]*)?(\.gz)?\.metadata\.json(\.gz)?")
_NO_SNAPSHOT: Final = (None, -1)


class Candidate(Struct, frozen=True):
    """A metadata file. `before`: names of the files that it lists as older. `snapshots`: ids that it refers to."""

    location: str
    version: int
    table_uuid: str
    before: frozenset[str]
    snapshots: frozenset[int]
    current_snapshot: int | None
    sequence_number: int

    @property
    def name(self) -> str:
        """The last part of its location."""
        return self.location.rpartition("/")[2]


def version_of(location: str) -> int | None:
    """Return the version in a metadata file's name, None when it is not one."""
    found = _NAME.fullmatch(location.rpartition("/")[2])
    return int(found[1]) if found else None


def newest(candidates: Sequence[Candidate], acknowledged: Collection[int] = ()) -> Candidate:
    """Return the newest of a table's metadata files.

    `acknowledged`: ids of snapshots that are known to have been current, for example from watermarks. Raises
    BrokenTableError when there is none, when they are of several tables, and when nothing decides between several.
    """
    if not candidates:
        raise BrokenTableError("expected at least one metadata file, found none: name the folder that holds `metadata`")
    if len(tables := {one.table_uuid for one in candidates}) > 1:
        raise BrokenTableError(
            f"expected metadata files of one table, found those of {len(tables)} ({', '.join(sorted(tables))}): "
            "name the metadata file that is meant"
        )
    listed = frozenset[str]().union(*(one.before for one in candidates))
    highest = max(one.version for one in candidates)
    tips = [one for one in candidates if one.version == highest and one.name not in listed]
    if len(tips) > 1:
        tips = _acknowledged(tips, frozenset(acknowledged)) or tips
    if len(tips) != 1:
        names = ", ".join(sorted(one.location for one in tips))
        raise BrokenTableError(
            f"expected one newest metadata file, found {len(tips)} of version {highest}: two writers were at work when "
            f"the catalog was lost; name the one that is meant: {names}"
        )
    return tips[0]


def candidates_in(io: FileIO, location: str) -> tuple[list[Candidate], list[str]]:
    """Read all metadata files of a table's folder. Returns them, and the locations of those that cannot be read."""
    found: list[Candidate] = []
    broken: list[str] = []
    for path in metadata_files(io, location):
        try:
            found.append(candidate(path, read_metadata(io, path)))
        except BrokenTableError:
            broken.append(path)
    return found, broken


def metadata_files(io: FileIO, location: str) -> list[str]:
    """Return the locations of a table's metadata files, in the order of their names."""
    folder = f"{location.rstrip('/')}/{FOLDER}"
    return sorted(f"{folder}/{name}" for name in files_in(io, folder) if version_of(name) is not None)


def files_in(io: FileIO, folder: str, recursive: bool = False) -> list[str]:
    """Return the files of a folder, relative to it. Raises BrokenTableError when it is not there."""
    if not isinstance(io, PyArrowFileIO):
        raise TypeError(f"expected a PyArrowFileIO, found {type(io).__name__}")
    scheme, netloc, path = io.parse_location(folder, io.properties)
    try:
        listed = io.fs_by_scheme(scheme, netloc).get_file_info(FileSelector(path, recursive=recursive))
    except FileNotFoundError as error:
        raise BrokenTableError(f"{folder}: expected a folder of a table, found none: correct the location") from error
    return [info.path.removeprefix(path).lstrip("/") for info in listed if info.type == FileType.File]


def read_metadata(io: FileIO, location: str) -> dict[str, Any]:
    """Return a metadata file's JSON object. Raises BrokenTableError."""
    try:
        with io.new_input(location).open() as stream:
            data: bytes = stream.read()
        text = gzip.decompress(data) if data[:2] == b"\\x1f\\x8b" else data
        return msgspec.json.decode(text, type=dict[str, Any])
    except (*MALFORMED, OSError, EOFError) as error:
        raise BrokenTableError(f"metadata file {location}: expected a JSON object: {error}") from error


def candidate(location: str, document: dict[str, Any]) -> Candidate:
    """Return what a metadata file says of its own place. Raises BrokenTableError."""
    try:
        current = document.get("current-snapshot-id")
        return Candidate(
            location=location,
            version=version_of(location) or 0,
            table_uuid=str(document.get("table-uuid", "")),
            before=frozenset(_names(entry["metadata-file"] for entry in document.get("metadata-log", ()))),
            snapshots=frozenset(snapshot["snapshot-id"] for snapshot in document.get("snapshots", ())),
            current_snapshot=None if current in _NO_SNAPSHOT else current,
            sequence_number=document.get("last-sequence-number", 0),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise BrokenTableError(f"metadata file {location}: expected Iceberg table metadata: {error!r}") from error


def _names(locations: Iterable[str]) -> Iterable[str]:
    return (location.rpartition("/")[2] for location in locations)


def _acknowledged(tips: Sequence[Candidate], known: frozenset[int]) -> list[Candidate]:
    """Return the tip that has an acknowledged snapshot which no other has; a snapshot that all have says nothing."""
    return [
        one
        for one in tips
        if (one.snapshots & known) - frozenset[int]().union(*(other.snapshots for other in tips if other is not one))
    ]
