"""Which file of the repository a request means, and whether the device may have it. Values only."""

import re
from typing import Final

from msgspec import Struct

from contracts import releases

# Only names that the repository makes: no folder to leave, no file to list.
_VERSIONED: Final = r"[1-9][0-9]{0,9}\.(?:root|snapshot|targets|group-([a-z0-9-]+))"
_METADATA: Final = re.compile(rf"/{releases.METADATA_PATH}/(?:timestamp|{_VERSIONED})\.json")
_TARGET: Final = re.compile(
    rf"/{releases.TARGETS_PATH}/groups/([a-z0-9-]+)/[0-9a-f]{{64}}\.[A-Za-z0-9][A-Za-z0-9._-]{{0,99}}"
)
_CHANGING: Final = f"/{releases.METADATA_PATH}/timestamp.json"
PATH_CHARS_MAX: Final = 300  # characters; the longest that the repository makes has 250


class Served(Struct, frozen=True):
    """A file below the served folder. One that is immutable may be kept by any cache for ever."""

    path: str
    is_immutable: bool


def served(path: str, group: str) -> Served | None:
    """Return the file that a device of a group means by a request's path; None when it is none, or another group's."""
    if len(path) > PATH_CHARS_MAX:
        return None
    found = _METADATA.fullmatch(path) or _TARGET.fullmatch(path)
    if found is None or found[1] not in (None, group):
        return None
    return Served(path[1:], path != _CHANGING)
