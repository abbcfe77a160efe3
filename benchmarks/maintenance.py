"""Ten thousand small files merged while others write.

1. fill     a table gets very many small files, by plain appends.
2. writers  devices send; ingest commits as usual.
3. merge    maintenance starts. The clock runs from its first merge's being possible, its start, until the table has few
            files again. Megabytes are those of the small files as they lie in the store, cores what maintenance used,
            one at least. A commit that lost a race leaves a metadata file that never became the table's: these are
            counted against all versions of the table since, whoever made them.
"""

import statistics
import time
from collections import Counter
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from benchmarks.lake import judge, workload
from benchmarks.lake.ground import Ground, Tell, ground
from benchmarks.lake.marks import Marks
from benchmarks.lake.plots import panels
from benchmarks.lake.send import Job, Sending
from benchmarks.lake.small_files import EPOCH, ORIGIN, bare_mb_per_s_core, fill, metadata_versions
from benchmarks.lake.tables import PASSING, TableWatch
from benchmarks.lake.workers import MAINTENANCE, Sampler, Worker
from benchmarks.result import RESULTS_DIR, Figures, Result, result
from contracts import contract as contracts
from contracts.errors import OperatorMustActError
from infra.launcher.parts import services
from infra.launcher.supervision import Supervisor

NAME: Final = "maintenance"
SHAPE_EVERY_S: Final = 1.0
FIRST_MARK_WITHIN_S: Final = 120.0
ACKNOWLEDGED_WITHIN_S: Final = 300.0
POLL_S: Final = 0.1
BARE_TIMES: Final = 5  # of what Arrow alone makes of such files on one core: no merge does better
SECONDS_AHEAD: Final = 1_800.0  # of batches that are kept ready; the run ends before


class Sizes(Struct, frozen=True):
    """The files, the writers beside them, and when it counts as done."""

    files: int = 10_000
    file_rows: int = 5_000
    files_left: int = 300
    batches_per_s: float = 50.0
    batch_rows: int = 200
    origins: int = 10
    within_s: float = 1_800.0
    parts: tuple[str, ...] | None = None


FULL: Final = Sizes()
QUICK: Final = Sizes(
    files=60, file_rows=500, files_left=30, batches_per_s=5.0, origins=2, within_s=90.0, parts=(services.INGEST,)
)


class Merged(Struct, frozen=True):
    """What was seen of it."""

    seconds: float
    cpu_s: float
    size_bytes: int
    commits: int
    lost_tries: int
    files_left: float


def run(tell: Tell, sizes: Sizes = FULL, folder: Path = RESULTS_DIR) -> Result:
    """Measure it."""
    contract = workload.readings("bench_small")
    with ground(tell, sizes.parts) as place:
        Supervisor(place.settings).stop(services.MAINTENANCE)
        place.publish(contract)
        watch = TableWatch(place, contract)
        job = Job(
            place.endpoints.kafka.bootstrap,
            contracts.encode(contract),
            "writer",
            sizes.origins,
            max(1, round(SECONDS_AHEAD * sizes.batches_per_s / sizes.origins)),
            sizes.batch_rows,
            rate_batches_per_s=sizes.batches_per_s,
        )
        try:
            table = watch.await_table()
            bare = statistics.median(bare_mb_per_s_core(table, contract, sizes.file_rows) for _ in range(BARE_TIMES))
            size_bytes = fill(table, contract, sizes.files, sizes.file_rows, tell)
            sending = Sending(place, job)
            try:
                with Marks(place.endpoints.kafka.bootstrap) as marks:
                    marks.await_events({contract.id: 1}, FIRST_MARK_WITHIN_S)
                    with Sampler(watch.shape, SHAPE_EVERY_S, PASSING) as shapes:
                        began_s = time.time()
                        merged = _merge(place, watch, size_bytes, sizes)
                    acknowledged = marks.events(contract.id)
            finally:
                sending.kill()
            _require(place, contract, sizes, acknowledged)
        finally:
            watch.close()
    cores = max(1.0, merged.cpu_s / merged.seconds)
    figures: Figures = {
        "compaction_mb_per_s_core": round(merged.size_bytes / 1e6 / merged.seconds / cores, 2),
        "retries_per_commit": round(merged.lost_tries / max(1, merged.commits), 3),
        "bare_mb_per_s_core": round(bare, 2),
        "compaction_s": round(merged.seconds, 1),
        "live_events_acknowledged": acknowledged,
    }
    lines = {key: shapes.series(key, began_s) for key in ("files", "snapshots")}
    panels(folder / f"{NAME}.png", [("files and snapshots while writers go on", "s", "", lines)])
    how = {
        "sizes": msgspec.to_builtins(sizes),
        "merged": msgspec.to_builtins(merged),
        "cores_used": round(merged.cpu_s / merged.seconds, 2),
        "bare": "as many rows by Arrow alone in one thread, in memory: read, sorted, written once",
        "retries": "metadata files that never became the table's, by versions of the table",
        "running": "the whole stack" if sizes.parts is None else sizes.parts,
    }
    return result(NAME, how, figures)


def _merge(place: Ground, watch: TableWatch, size_bytes: int, sizes: Sizes) -> Merged:
    before = set(metadata_versions(watch.table()))
    with_lost = len(metadata_versions(watch.table()))
    maintenance = Worker(place, MAINTENANCE).start()
    try:
        began_s = time.time()
        while (files := watch.shape().get("files", 0.0)) > sizes.files_left:
            if time.time() - began_s > sizes.within_s:
                raise OperatorMustActError(
                    f"maintenance: expected at most {sizes.files_left} files, found {files:.0f} after "
                    f"{sizes.within_s:.0f} s: {maintenance.status()}"
                )
            time.sleep(POLL_S)
        seconds, cpu_s = time.time() - began_s, maintenance.cpu_s
    finally:
        maintenance.stop()
    versions = Counter(metadata_versions(watch.table()))
    commits = len(versions.keys() - before)
    lost = sum(versions.values()) - with_lost - commits
    return Merged(seconds, cpu_s, size_bytes, commits, max(0, lost), files)


def _require(place: Ground, contract: contracts.Contract, sizes: Sizes, acknowledged: int) -> None:
    """Raise OperatorMustActError unless every row is there once: a merge that loses rows is none."""
    found = judge.sums(place.endpoints, contract)
    count = sizes.files * sizes.file_rows
    small = found.pop((ORIGIN, EPOCH), None)
    live = sum(rows for rows, *_ in found.values())
    doubled = [origin for origin, (rows, low, high, _) in found.items() if rows != high - low + 1]
    if small != (count, 0, count - 1, (count - 1) * count // 2) or live < acknowledged or doubled:
        raise OperatorMustActError(
            f"table {contract.table}: expected {count} merged rows and {acknowledged} live ones, found {small} and "
            f"{live}; not each number once: {doubled}"
        )
