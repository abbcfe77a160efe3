"""How many rows the lake has over time, and the picture of it with every kill."""

import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import duckdb
import matplotlib
import psycopg
from msgspec import Struct

matplotlib.use("Agg")  # no display: it writes files only
from matplotlib import pyplot as plt

from benchmarks.chaos.kills import KINDS, Killed
from contracts.contract import Contract
from infra.demo.observers import Observer, Sample
from infra.demo.tables import LakeReader
from infra.launcher.endpoints import Endpoints

LOOK_EVERY_S: Final = 3.0  # s; counting rows reads the heads of all data files
PASSING: Final = (duckdb.Error, psycopg.Error, LookupError)  # the table may not be there yet, a file just gone
SIZE_INCHES: Final = (15.0, 7.0)
DOTS_PER_INCH: Final = 90
COLOURS: Final = dict(zip(KINDS, ("tab:orange", "tab:red", "tab:purple", "tab:green"), strict=True))


class Moment(Struct, frozen=True):
    """Rows at a Unix second."""

    at_s: float
    rows: int


class RowWatch:
    """Counts the rows of a table from a thread of its own."""

    def __init__(self, endpoints: Endpoints, contract: Contract) -> None:
        self.moments: list[Moment] = []
        self._reader = LakeReader(endpoints)
        self._contract = contract
        self._pause = threading.Event()
        self._observer = Observer("rows", self._look, PASSING)

    def start(self) -> "RowWatch":
        """Begin; returns itself."""
        self._observer.start()
        return self

    def stop(self) -> None:
        """End after the look under way."""
        self._pause.set()
        self._observer.stop()

    @property
    def rows(self) -> int:
        """Rows at the last look."""
        return self.moments[-1].rows if self.moments else 0

    def _look(self) -> Sequence[Sample]:
        self._pause.wait(LOOK_EVERY_S)
        found = self._reader.read(self._contract.catalog, self._contract.table, "count(*) AS n")
        self.moments.append(Moment(time.time(), int(found["n"][0].as_py())))
        return ()


def draw(path: Path, began_s: float, moments: Sequence[Moment], killed: Sequence[Killed]) -> None:
    """Write the picture: rows over time, below them every kill by its kind."""
    figure, (rows, kills) = plt.subplots(2, 1, figsize=SIZE_INCHES, sharex=True, height_ratios=(3, 1))
    rows.plot(
        [moment.at_s - began_s for moment in moments], [moment.rows for moment in moments], drawstyle="steps-post"
    )
    rows.set(title=f"kept readings in the lake while parts of the stack are killed, {len(killed)} times", ylabel="rows")
    counts = Counter(one.kind for one in killed)
    for place, kind in enumerate(KINDS):
        times_s = [one.at_s - began_s for one in killed if one.kind == kind]
        kills.eventplot(times_s, lineoffsets=place, linelengths=0.8, colors=COLOURS[kind])
    kills.set(xlabel="s", yticks=range(len(KINDS)), yticklabels=[f"{kind}: {counts[kind]}" for kind in KINDS])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path, dpi=DOTS_PER_INCH)
    plt.close(figure)
