"""Does a commit cost more the more there have been? Ten thousand commits of small batches into one table.

The whole stack runs. Batches of a few rows come by a schedule, faster than they can be committed one by one, so that
the next commit follows the last. How long each commit took is in the status file, which names the newest ones by
number; the slowest of a hundred around commit 10,000 are held against those around commit 100.
"""

import math
import threading
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from msgspec import Struct

from benchmarks.lake import judge, workload
from benchmarks.lake.ground import Ground, Tell, ground
from benchmarks.lake.marks import Marks
from benchmarks.lake.plots import panels
from benchmarks.lake.send import Job, Sending
from benchmarks.lake.tables import PASSING, TableWatch
from benchmarks.lake.workers import Sampler, part_status
from benchmarks.result import RESULTS_DIR, Figures, Result, result
from contracts import contract as contracts
from contracts.errors import OperatorMustActError
from infra.launcher.parts import services

NAME: Final = "commit-growth"
STATUS_EVERY_S: Final = 0.5  # half of the time between two states of the status file, so that none is missed
SHAPE_EVERY_S: Final = 2.0
TOLD_EVERY_S: Final = 30.0
STILL_S: Final = 120.0  # s without a commit after which no more is expected


class Sizes(Struct, frozen=True):
    """Commits, and the places of the two windows that are compared; `window` commits lie around each."""

    commits: int = 10_000
    early: int = 100
    window: int = 100
    batch_rows: int = 10
    origins: int = 10
    batches_per_s: float = 50.0
    seconds_max: float = 7_200.0
    parts: tuple[str, ...] | None = None


FULL: Final = Sizes()
QUICK: Final = Sizes(commits=30, early=10, window=10, seconds_max=60.0, parts=(services.INGEST, services.MAINTENANCE))


class Commits:
    """Durations of the commits by their number, gathered from one state of the status file after the other."""

    def __init__(self, contract: str) -> None:
        self.took_ms: dict[int, float] = {}
        self._contract = contract

    def take(self, status: dict[str, Any]) -> int:
        """Take over what a state says; return the number of the newest commit."""
        newest = int(status.get("commits", {}).get(self._contract, 0))
        recent = status.get("recent_commits_ms", {}).get(self._contract, [])
        for place, took_ms in enumerate(recent):
            self.took_ms[newest - len(recent) + 1 + place] = float(took_ms)
        return newest

    def around(self, number: int, window: int) -> list[float]:
        """Return the durations of the commits around one; those that nobody has seen are left out."""
        return [self.took_ms[at] for at in range(number - window // 2, number + window // 2) if at in self.took_ms]


def run(tell: Tell, sizes: Sizes = FULL, folder: Path = RESULTS_DIR) -> Result:
    """Measure it."""
    contract = workload.readings("bench_growth")
    with ground(tell, sizes.parts) as place:
        place.publish(contract)
        job = Job(
            place.endpoints.kafka.bootstrap,
            contracts.encode(contract),
            "growth",
            sizes.origins,
            math.ceil(sizes.seconds_max * sizes.batches_per_s / sizes.origins),
            sizes.batch_rows,
            rate_batches_per_s=sizes.batches_per_s,
        )
        watch, commits = TableWatch(place, contract), Commits(contract.id)
        watch.await_table()
        sending = Sending(place, job)
        try:
            with (
                Sampler(watch.shape, SHAPE_EVERY_S, PASSING) as shapes,
                Marks(place.endpoints.kafka.bootstrap) as marks,
            ):
                _follow(place, sending, commits, sizes)
                acknowledged = marks.events(contract.id)
        finally:
            sending.kill()
            watch.close()
        rows = sum(count for count, *_ in judge.sums(place.endpoints, contract).values())
    if rows < acknowledged:
        raise OperatorMustActError(f"table {contract.table}: {acknowledged} events acknowledged, {rows} rows found")
    return _result(commits, shapes, sizes, folder)


def _follow(place: Ground, sending: Sending, commits: Commits, sizes: Sizes) -> None:
    pause = threading.Event()
    waited_s, still_s, newest = 0.0, 0.0, 0
    while newest < sizes.commits + sizes.window // 2:
        pause.wait(STATUS_EVERY_S)
        waited_s += STATUS_EVERY_S
        before, newest = newest, commits.take(part_status(place, services.INGEST))
        still_s = 0.0 if newest > before else still_s + STATUS_EVERY_S
        if sending.is_over or still_s > STILL_S:
            raise OperatorMustActError(
                f"ingest: expected {sizes.commits} commits, found {newest}: {_last_error(place)}"
            )
        if waited_s % TOLD_EVERY_S == 0:
            place.tell(f"commit {newest:,} ...")


def _last_error(place: Ground) -> str:
    return str(part_status(place, services.INGEST).get("last_error", "")) or "it names no error"


def _result(commits: Commits, shapes: Sampler, sizes: Sizes, folder: Path) -> Result:
    early, late = (commits.around(number, sizes.window) for number in (sizes.early, sizes.commits))
    if min(len(early), len(late)) < sizes.window // 2:
        raise OperatorMustActError(
            f"status file of ingest: expected the duration of every commit, found {len(early)} and {len(late)} of "
            f"{sizes.window} around the two places"
        )
    early_p99, late_p99 = (float(np.percentile(window, 99)) for window in (early, late))
    figures: Figures = {
        "commit_growth_ratio": round(late_p99 / early_p99, 3),
        "early_p50_ms": round(float(np.median(early)), 1),
        "early_p99_ms": round(early_p99, 1),
        "late_p50_ms": round(float(np.median(late)), 1),
        "late_p99_ms": round(late_p99, 1),
        "commits_seen": len(commits.took_ms),
    }
    began_s = shapes.samples[0][0] if shapes.samples else 0.0
    panels(
        folder / f"{NAME}.png",
        [
            ("how long a commit took", "commit number", "ms", {"commit": sorted(commits.took_ms.items())}),
            ("the table meanwhile", "s", "", {key: shapes.series(key, began_s) for key in ("files", "snapshots")}),
        ],
        dots=True,
    )
    how = {
        "sizes": msgspec.to_builtins(sizes),
        "running": "the whole stack" if sizes.parts is None else sizes.parts,
        "took": "by the status file of ingest, for each commit; windows of equal size around the two places",
    }
    return result(NAME, how, figures)
