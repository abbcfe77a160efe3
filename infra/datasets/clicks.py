"""The shop's click stream, made up by its authors, as two web collectors saw it, with our scripted visits among it.

The authors' columns `user_cohort` and `user_lifecycle` have no field in the contract and are left out; they recorded no
object and no dwell time. A collector sees whole users, in the order of time.
"""

import csv
import gzip
from pathlib import Path
from typing import Final

import numpy as np
from msgspec import Struct

from infra.datasets.errors import SourceFileError
from infra.datasets.replay import Microseconds, Provenance, Replay, iso_times, thinned
from infra.datasets.visits import VisitEvent, VisitTruth, play_visits

CONTRACT: Final = "clicks"
COLLECTORS: Final = ("web-01", "web-02")
_HEADER: Final = [
    "user_id",
    "session_id",
    "event",
    "timestamp",
    "platform",
    "acquisition_channel",
    "user_cohort",
    "user_lifecycle",
]


class Click(Struct, frozen=True, omit_defaults=True):
    """One act on the web site, as the contract names its fields."""

    user_id: str
    session_id: str
    event: str
    occurred_at: str
    object: str | None = None
    dwell_s: float | None = None
    platform: str | None = None
    acquisition_channel: str | None = None


class _Timed(Struct, frozen=True):
    occurred_at_us: int
    provenance: Provenance
    click: Click


def read_clicks(path: Path, seed: int, fraction: float) -> tuple[list[Replay], list[VisitTruth]]:
    """Return the clicks of an evenly spread `fraction` of the users, with all scripted visits and their truth.

    Raises SourceFileError.
    """
    rows = _read_rows(path)
    times_us = _times_us(path, [row[3] for row in rows])
    users = sorted({row[0] for row in rows})
    chosen = {users[index] for index in thinned(len(users), fraction).tolist()}
    texts = iso_times(times_us)
    timed = [
        _Timed(
            time_us,
            Provenance.SYNTHETIC,
            Click(row[0], row[1], row[2], text, platform=row[4], acquisition_channel=row[5]),
        )
        for row, time_us, text in zip(rows, times_us.tolist(), texts, strict=True)
        if row[0] in chosen
    ]
    visits, truth = play_visits(int(times_us.min()), int(times_us.max()), seed)
    timed.extend(_scripted(visits))
    timed.sort(key=lambda entry: entry.occurred_at_us)
    return [_replay(collector, timed, index) for index, collector in enumerate(COLLECTORS)], truth


def read_user_ids(path: Path) -> list[str]:
    """Return every user of the file, ascending. Raises SourceFileError."""
    return sorted({row[0] for row in _read_rows(path)})


def _scripted(visits: list[VisitEvent]) -> list[_Timed]:
    texts = iso_times(np.array([visit.occurred_at_us for visit in visits], dtype=np.int64))
    return [
        _Timed(
            visit.occurred_at_us,
            Provenance.SCRIPTED,
            Click(visit.user_id, visit.session_id, visit.event, text, object=visit.object, dwell_s=visit.dwell_s),
        )
        for visit, text in zip(visits, texts, strict=True)
    ]


def _replay(collector: str, timed: list[_Timed], index: int) -> Replay:
    # The last character of every user's name is a digit, so this keeps a user with one collector.
    mine = [entry for entry in timed if int(entry.click.user_id[-1]) % len(COLLECTORS) == index]
    counts = {kind: sum(entry.provenance is kind for entry in mine) for kind in Provenance}
    return Replay(CONTRACT, collector, [entry.click for entry in mine], {k: n for k, n in counts.items() if n})


def _read_rows(path: Path) -> list[list[str]]:
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
            header, *rows = csv.reader(lines)
    except (OSError, EOFError, ValueError) as error:
        raise SourceFileError(f"{path}: expected a gzipped CSV ({error}): install retentioneering again") from error
    if header != _HEADER or any(len(row) != len(_HEADER) or not row[0][-1:].isdigit() for row in rows):
        raise SourceFileError(f"{path}: expected the columns {_HEADER} in every row: install retentioneering again")
    return rows


def _times_us(path: Path, texts: list[str]) -> Microseconds:
    try:
        return np.array(texts, dtype="datetime64[us]").astype(np.int64)
    except ValueError as error:
        raise SourceFileError(f"{path}: expected times as YYYY-MM-DD hh:mm:ss ({error})") from error
