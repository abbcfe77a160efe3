"""Releases: what a group of devices shall run, how its files are named on the server, and how a device hears of it.

A *release* is a bundle published to a group under a number that only grows. The repository follows The Update Framework
(specification 1.0, https://theupdateframework.github.io/specification): the role `group-{group}` signs the targets
`groups/{group}/bundle.json`, which is the bundle's document with its `release` filled in, and beside it every file that
the document names. With consistent snapshots the server keeps a target as `groups/{group}/{sha256}.{name}`.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec
from msgspec import Struct

from contracts.bundle import BUNDLE_FILE, Bundle
from contracts.errors import ReleaseError
from contracts.malformed import MALFORMED

GROUP_CHARS_MAX: Final = 40  # characters; a path on the server holds it twice
DEFAULT_GROUP: Final = "default"
FILE_BYTES_MAX: Final = 64_000_000  # bytes of one file of a bundle; the largest we train is below 1 MB
FILES_MAX: Final = 200  # files of one bundle: a model or dictionary per contract and rule set, with room
METADATA_PATH: Final = "metadata"
TARGETS_PATH: Final = "targets"
SIGNED_AT: Final = "x-fieldlake-signed-at"  # field of timestamp.json: Unix time in seconds at which it was signed

_GROUP: Final = re.compile(r"[a-z0-9][a-z0-9-]*")
_FILE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_VERSION: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9}){0,3}")


class ReleaseFile(Struct, frozen=True):
    """One file that a bundle names, by its name in the bundle's folder and its SHA-256 in hexadecimal digits."""

    name: str
    sha256: str


class Announcement(Struct, frozen=True):
    """The retained message on `fl/v1/down/{device}/bundle`: the repository has signed this version of its timestamp.

    It is a hint to look now and proves nothing; only what the repository has signed does.
    """

    timestamp_version: int


def encode(announcement: Announcement) -> bytes:
    """Return the JSON form."""
    return msgspec.json.encode(announcement)


def decode(data: bytes) -> Announcement:
    """Parse the JSON form. Raises ReleaseError."""
    try:
        found = msgspec.json.decode(data, type=Announcement)
    except MALFORMED as error:
        raise ReleaseError(f"bundle announcement: expected its JSON form, found {data[:80]!r}: {error}") from error
    if found.timestamp_version < 1:
        raise ReleaseError(f"bundle announcement: expected timestamp_version >= 1, found {found.timestamp_version}")
    return found


def check_group(name: str) -> str:
    """Return the name of a group. Raises ReleaseError unless it is lower-case ASCII letters, digits and `-`."""
    if len(name) > GROUP_CHARS_MAX or not _GROUP.fullmatch(name):
        raise ReleaseError(
            f"group {name!r}: expected 1 to {GROUP_CHARS_MAX} of a-z, 0-9 and '-', a letter or digit first"
        )
    return name


def role(group: str) -> str:
    """Name of the role that signs a group's targets."""
    return f"group-{check_group(group)}"


def target(group: str, name: str) -> str:
    """Path of a file of a group's bundle in the repository. Raises ReleaseError."""
    return f"groups/{check_group(group)}/{check_file(name)}"


def manifest(group: str) -> str:
    """Path of a group's bundle document in the repository. Raises ReleaseError."""
    return target(group, BUNDLE_FILE)


def check_file(name: str) -> str:
    """Return the name of a file of a bundle. Raises ReleaseError unless it is a plain name that leaves no folder."""
    if not _FILE.fullmatch(name):
        raise ReleaseError(
            f"file {name!r} of a bundle: expected a plain name of up to 100 ASCII letters, digits, '.', '_' and '-', "
            "a letter or digit first: rename it and build the bundle again"
        )
    return name


def files_of(bundle: Bundle) -> tuple[ReleaseFile, ...]:
    """Return every file that the bundle's document names, each once, by name.

    These are all pairs of fields `…file` and `…sha256` of dictionaries and models. Raises ReleaseError for a name that
    is not a plain one, or that stands for two contents.
    """
    found: dict[str, ReleaseFile] = {}
    for entry in (*bundle.dictionaries, *bundle.models):
        for file in _named_by(entry):
            check_file(file.name)
            if file.name == BUNDLE_FILE or found.setdefault(file.name, file) != file:
                raise ReleaseError(
                    f"bundle {bundle.version}: file {file.name!r} stands for two contents: give them names of their own"
                )
    if len(found) > FILES_MAX:
        raise ReleaseError(f"bundle {bundle.version}: expected at most {FILES_MAX} files, found {len(found)}")
    return tuple(found[name] for name in sorted(found))


def _named_by(entry: Struct) -> Iterator[ReleaseFile]:
    values: dict[str, Any] = msgspec.structs.asdict(entry)
    for field, name in values.items():
        if field.endswith("file") and name:
            yield ReleaseFile(name, str(values[field.removesuffix("file") + "sha256"]))


def version_order(version: str) -> tuple[int, ...]:
    """Return what versions such as `0.1.0` are compared by; `1.0` and `1` are the same. Raises ReleaseError."""
    if not _VERSION.fullmatch(version):
        raise ReleaseError(f"version {version!r}: expected up to four numbers with dots between, such as 0.1.0")
    parts = [int(part) for part in version.split(".")]
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts)
