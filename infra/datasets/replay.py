"""Replay files: one JSON object a line, in the order in which a device or a collector would observe the events.

The line number, counted from 0, is the event's sequence number in the first epoch of the device that replays the file.
Times are ISO 8601 in UTC with six digits of microseconds and a final Z. A field without a value is left out.
"""

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

GOLDEN_RATIO: Final = (1 + 5**0.5) / 2
US_PER_S: Final = 1_000_000
US_PER_DAY: Final = 86_400 * US_PER_S

Microseconds = NDArray[np.int64]


class Provenance(Enum):
    """Where rows come from; shown wherever their figures are shown."""

    REAL = "real"
    SYNTHETIC = "synthetic"  # published as a data set, but made up by its authors
    SCRIPTED = "scripted"  # written by us, so that a rule has something to find
    GENERATED = "generated"  # made by us from a seed


class Replay(Struct, frozen=True):
    """The events of one device under one contract, in replay order, with how many are of each provenance."""

    contract: str
    device: str
    events: Sequence[Struct]
    provenance: dict[Provenance, int]

    @property
    def path(self) -> str:
        """Where the file lies below the output folder."""
        return f"{self.contract}/{self.device}.jsonl"


def iso_times(times_us: Microseconds) -> list[str]:
    """Return microseconds since 1970 UTC as `2026-01-05T00:00:00.000000Z`."""
    texts: list[str] = np.datetime_as_string(times_us.astype("datetime64[us]"), unit="us").tolist()
    return [f"{text}Z" for text in texts]


def json_lines(records: Sequence[Struct]) -> bytes:
    """Return one JSON object a line, every line ended."""
    return msgspec.json.Encoder().encode_lines(records)


def thinned(count: int, fraction: float) -> NDArray[np.int64]:
    """Return about `fraction` of the numbers 0 to count - 1, evenly spread, in order; all of them for 1.0.

    Multiples of the golden ratio are spread without a period: every twentieth user would be one collector's only.
    """
    return np.flatnonzero(np.arange(count) * GOLDEN_RATIO % 1.0 < fraction)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that is either whole or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)
