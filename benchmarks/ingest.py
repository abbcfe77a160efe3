"""A filled log into committed snapshots: how fast it is drained, and what a million known origins cost.

1. drain    only log, catalog and stores run. The log is filled with micro-batches of 200 events; then the ingest
            processes are started, one, and on a stack of its own two. The clock runs from the first one's being ready
            until the last watermark is on its topic. DuckDB counts the rows of every origin afterwards. Several
            times in turns: the figure is that of the median drain.
2. origins  one batch of each of a million origins is drained; the process is killed and started again. The clock runs
            from the start of the process until it is ready, several times; memory is its largest proportional set
            size, from the first batch to the end of a flow of batches of known origins after the restarts.
"""

import statistics
import time
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from benchmarks.lake import judge, workload
from benchmarks.lake.ground import UNDER_INGEST, Ground, Tell, ground
from benchmarks.lake.marks import Marks
from benchmarks.lake.plots import bars_and_lines
from benchmarks.lake.send import Job, Sending, Sent
from benchmarks.lake.workers import INGEST, Sampler, Worker, Workers
from benchmarks.result import RESULTS_DIR, Figures, Result, result
from contracts import contract as contracts
from contracts.contract import Contract
from contracts.errors import OperatorMustActError

NAME: Final = "ingest"
SAMPLE_EVERY_S: Final = 0.5


class Sizes(Struct, frozen=True):
    """How much is sent."""

    events: int = 50_000_000
    batch_rows: int = 200
    origins: int = 1_000
    workers: tuple[int, ...] = (1, 2)
    drains: int = 3
    drain_within_s: float = 3_600.0
    known_origins: int = 1_000_000
    known_within_s: float = 3_600.0
    restarts: int = 5
    flow_batches: int = 20_000


FULL: Final = Sizes()
QUICK: Final = Sizes(
    events=400_000, origins=20, workers=(1,), drains=1, known_origins=2_000, restarts=1, flow_batches=200
)


class Drained(Struct, frozen=True):
    """One drain."""

    workers: int
    events: int
    seconds: float
    filled: Sent
    cpu_s: float
    curve: list[tuple[float, float]]  # seconds, events acknowledged

    @property
    def events_per_s(self) -> float:
        """Over the whole drain."""
        return self.events / self.seconds


def run(tell: Tell, sizes: Sizes = FULL, folder: Path = RESULTS_DIR) -> Result:
    """Measure both."""
    every = [_drain(count, sizes, tell) for _ in range(sizes.drains) for count in sizes.workers]
    drains = [_median(count, every) for count in sizes.workers]
    figures: Figures = {}
    for drained in drains:
        suffix = {1: "_one", 2: ""}.get(drained.workers, f"_{drained.workers}")
        figures[f"drain_events_per_s{suffix}"] = round(drained.events_per_s)
        figures[f"drain_cpu_us_per_event{suffix}"] = round(drained.cpu_s / drained.events * 1e6, 3)
    origins, origins_how = _origins(sizes, tell)
    figures |= origins
    bars_and_lines(
        folder / f"{NAME}.png",
        "events/s by ingest processes",
        {str(drained.workers): drained.events_per_s for drained in drains},
        "events acknowledged while the log is drained",
        {f"{drained.workers} processes": drained.curve for drained in drains},
    )
    how = {
        "running": f"{', '.join(UNDER_INGEST)} and ingest, which works with all checks, quarantine and watermarks",
        "batch": f"codec 1, {sizes.batch_rows} events of 8 columns",
        "bytes_per_event": round(drains[0].filled.size_bytes / drains[0].events, 1),
        "drains": [msgspec.to_builtins(drained) for drained in drains],
        "every_drain_events_per_s": {
            str(count): [round(drained.events_per_s) for drained in every if drained.workers == count]
            for count in sizes.workers
        },
        "judged": "DuckDB: rows, smallest, largest and sum of seq of every origin",
        "origins": origins_how,
    }
    return result(NAME, how, figures)


def _median(workers: int, drains: list[Drained]) -> Drained:
    """Return the drain with so many workers that took the median time, the slower of two."""
    found = sorted((one for one in drains if one.workers == workers), key=lambda one: one.events_per_s)
    return found[(len(found) - 1) // 2]


def _drain(workers: int, sizes: Sizes, tell: Tell) -> Drained:
    contract = workload.readings("bench_drain")
    with ground(tell, UNDER_INGEST) as place:
        per_origin = sizes.events // sizes.batch_rows // sizes.origins
        job = _job(place, contract, "drain", sizes.origins, per_origin, sizes.batch_rows)
        place.publish(contract)
        tell(f"filling the log with {job.events:,} events ...")
        filled = _sent(place, job)
        tell(f"{filled.size_bytes / 1e6:,.0f} MB in {filled.seconds:.0f} s; draining with {workers} ...")
        with Marks(place.endpoints.kafka.bootstrap) as marks, Workers(place, INGEST, workers) as processes:
            with Sampler(lambda: {"events": marks.events(contract.id)}, SAMPLE_EVERY_S) as sampler:
                began_s = processes.await_ready()
                before_s = processes.cpu_s
                ended_s = marks.await_events({contract.id: job.events}, sizes.drain_within_s, _alive(processes))
            cpu_s = processes.cpu_s - before_s
        drained = Drained(workers, job.events, ended_s - began_s, filled, cpu_s, sampler.series("events", began_s))
        tell(f"{drained.events_per_s:,.0f} events/s with {workers}; counting ...")
        _require_all(place, contract, job)
    return drained


def _alive(processes: Workers) -> Any:
    """Return a call that raises when one of them has ended."""
    return lambda: [worker.pid for worker in processes.all]


def _require_all(place: Ground, contract: Contract, job: Job) -> None:
    """Raise OperatorMustActError unless the table has every event once: a figure of a lossy drain is none."""
    count = job.batches * job.batch_rows
    last = job.first_seq + count - 1
    expected = (count, job.first_seq, last, (job.first_seq + last) * count // 2)
    found = judge.sums(place.endpoints, contract)
    wrong = {
        (job.origin(number), job.epoch): found.get((job.origin(number), job.epoch))
        for number in range(job.origins)
        if found.get((job.origin(number), job.epoch)) != expected
    }
    if wrong or len(found) != job.origins:
        raise OperatorMustActError(
            f"table {contract.table}: expected {expected} of each of {job.origins} origins, found {len(found)} origins "
            f"and {dict(list(wrong.items())[:3])}"
        )


def _origins(sizes: Sizes, tell: Tell) -> tuple[Figures, dict[str, Any]]:
    contract = workload.readings("bench_origins")
    with ground(tell, UNDER_INGEST) as place:
        place.publish(contract)
        first = _job(place, contract, "known", sizes.known_origins, 1, 1)
        tell(f"one batch of each of {first.origins:,} origins ...")
        _sent(place, first)
        worker = Worker(place, INGEST).start()
        memory: list[float] = []
        try:
            with Marks(place.endpoints.kafka.bootstrap) as marks:

                def remember() -> None:
                    memory.append(worker.memory_mb)

                learned_s = marks.await_events({contract.id: first.events}, sizes.known_within_s, remember)
                learned_s -= worker.started_s
                tell(f"known after {learned_s:.0f} s; restarts ...")
                restarts = [_restart(worker) for _ in range(sizes.restarts)]
                remember()
                again = min(sizes.flow_batches, sizes.known_origins)
                flow = msgspec.structs.replace(first, origins=again, first_seq=1)
                began_s = time.time()
                _sent(place, flow)
                known = first.events + flow.events
                flowed_s = marks.await_events({contract.id: known}, sizes.known_within_s, remember) - began_s
                remember()
        finally:
            worker.stop()
    tell(f"restarts {restarts}, {max(memory):.0f} MB")
    figures: Figures = {"restart_s": round(statistics.median(restarts), 2), "memory_mb": round(max(memory), 1)}
    how = {
        "known": first.origins,
        "restarts_s": [round(seconds, 2) for seconds in restarts],
        "learned_s": round(learned_s, 1),
        "flow": f"{again} batches of known origins, one row each, in {flowed_s:.1f} s",
        "memory_mb": "largest of the samples, one a second",
    }
    return figures, how


def _restart(worker: Worker) -> float:
    worker.kill()
    return worker.start().await_ready()


def _job(place: Ground, contract: Contract, name: str, origins: int, batches: int, batch_rows: int) -> Job:
    bootstrap = place.endpoints.kafka.bootstrap
    return Job(bootstrap, contracts.encode(contract), name, origins, batches, batch_rows)


def _sent(place: Ground, job: Job) -> Sent:
    sending = Sending(place, job)
    try:
        return sending.result()
    finally:
        sending.kill()
