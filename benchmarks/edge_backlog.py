"""A week without a network: what a 2 GB backlog costs at a restart and while it drains. A part of the edge's figures.

    1. fill     a real agent without a broker takes technicians' notes until its spool holds that much
    2. compare  an agent with an empty spool gives live readings to the lake for a while: memory and latency without it
    3. drain    the first one is started again, now with a broker and with live readings of its own, and followed until
                the lake has everything

A live reading's latency counts from the moment that it was scheduled for, not from the one in which it was written. The
agent has one core to itself; broker, lake and this program share the other.
"""

import os
import statistics
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from benchmarks.device.broker import Broker, pin
from benchmarks.device.lake import Arrival, CountingLake
from benchmarks.device.process import DeviceProcess
from benchmarks.device.workload import readings, write_bundle
from contracts.bundle import Bundle
from contracts.errors import OperatorMustActError
from edge_agent.config import FileSource, SpoolConfig
from infra.datasets.service_history import Entry
from infra.setup.paths import shuttle_csv_gz
from onnx_models import read_sensor_record

BACKLOG_BYTES: Final = 2_000_000_000
NOTE_CHARS: Final = 3_800
SEED: Final = 20_260
NOTES: Final = "service_history"
LIVE: Final = "telemetry"
LIVE_EVERY_S: Final = 0.05
LIVE_EVENTS: Final = 12_000  # ten minutes; the run ends before
LIVE_FLUSH_MS: Final = 200
COMPARED_S: Final = 30.0
LIVE_ROWS_MIN: Final = 20  # before a run ends, however fast it was
DEVICE: Final = "week-01"
FILLS_WITHIN_S: Final = 1_200.0
DRAINS_WITHIN_S: Final = 600.0
POLL_S: Final = 0.1
WRITTEN_AT_ONCE: Final = 200  # notes
NOTES_AHEAD: Final = 20_000
SAID_EVERY_S: Final = 10.0


Measured = tuple[dict[str, float | None], Any]


class Followed(Struct, frozen=True):
    """One run before a broker: when it began (Unix s), when live readings were due, what came, memory over time."""

    started_s: float
    due_s: NDArray[np.float64]
    arrivals: list[Arrival]
    pss_mb: list[tuple[float, float]]


def measure(
    progress: Callable[[str], None], backlog_bytes: int = BACKLOG_BYTES, compared_s: float = COMPARED_S
) -> Measured:
    """Return the figures, and the run for a plot."""
    cores = sorted(os.sched_getaffinity(0))
    pin(0, cores[0])
    try:
        with TemporaryDirectory(prefix="fieldlake-backlog-") as name:
            return _measured(Path(name), cores[-1], backlog_bytes, compared_s, progress)
    finally:
        os.sched_setaffinity(0, cores)


def _measured(
    folder: Path, core: int, backlog_bytes: int, compared_s: float, progress: Callable[[str], None]
) -> Measured:
    bundle = write_bundle(folder / "bundle", filtered=False)
    home, other = folder / "full", folder / "empty"
    home.mkdir()
    other.mkdir()
    _fill(home, folder / "bundle", backlog_bytes, core, progress)
    notes = (home / "notes.jsonl").read_bytes().count(b"\n")
    progress("backlog: the same without one ...")
    without = _follow(other, folder / "bundle", bundle, core, partial(_was_compared, compared_s))
    progress("backlog: draining ...")
    within = _follow(home, folder / "bundle", bundle, core, partial(_is_drained, notes))
    return _figures(without, within)


def _was_compared(compared_s: float, lake: CountingLake, passed_s: float) -> bool:
    return passed_s > compared_s and lake.rows(LIVE) >= LIVE_ROWS_MIN


def _is_drained(notes: int, lake: CountingLake, _passed_s: float) -> bool:
    return lake.rows(NOTES) == notes and lake.rows(LIVE) >= LIVE_ROWS_MIN


def _figures(without: Followed, within: Followed) -> Measured:
    backlog = [one for one in within.arrivals if one.contract == NOTES]
    first_s, last_s = within.arrivals[0].at_s, backlog[-1].at_s
    sent_mb = sum(one.size_bytes for one in backlog) / 1e6
    alone, beside = _latencies_ms(without, np.inf), _latencies_ms(within, last_s)
    memory_mb = max(mb for _, mb in within.pss_mb) - statistics.median(mb for _, mb in without.pss_mb)
    figures: dict[str, float | None] = {
        "backlog_restart_s": round(first_s - within.started_s, 2),
        "backlog_memory_mb": round(memory_mb, 1),
        "drain_mb_per_s": round(sent_mb / (last_s - first_s), 1),
        "drain_live_p95_ms": round(float(np.percentile(beside, 95)) - float(np.median(alone)), 0)
        if len(beside)
        else None,
    }
    how = {
        "backlog": f"{sent_mb:,.0f} MB of sealed batches: notes of {NOTE_CHARS} characters that hardly pack",
        "live": f"a reading every {LIVE_EVERY_S * 1_000:.0f} ms, flushed every {LIVE_FLUSH_MS} ms",
        "drain_s": round(last_s - first_s, 1),
        "latency_ms": {"without": _described(alone), "while draining": _described(beside)},
        "pss_mb": {"without, median": round(statistics.median(mb for _, mb in without.pss_mb), 1)},
        "plot": {
            "pss": [(round(s, 1), round(mb, 1)) for s, mb in within.pss_mb],
            "drained": _by_second(backlog, within.started_s),
        },
    }
    return figures, how


def _fill(home: Path, bundle_dir: Path, backlog_bytes: int, core: int, progress: Callable[[str], None]) -> None:
    """Let an agent whose broker is not there spool notes until they are that many bytes."""
    (home / "live.jsonl").touch()
    source = home / "notes.jsonl"
    source.touch()
    agent = _agent(home, Broker(home), bundle_dir, core)
    agent.start()
    entries, encoder = _entries(), msgspec.json.Encoder()
    deadline_s, said_s = time.monotonic() + FILLS_WITHIN_S, 0.0
    written = 0
    try:
        with source.open("ab") as file:
            while (spooled := _spooled(agent)) < backlog_bytes or agent.observed(NOTES) < written:
                if (now_s := time.monotonic()) > deadline_s:
                    raise OperatorMustActError(f"backlog: expected {backlog_bytes} bytes spooled, found {spooled}")
                if now_s > said_s:
                    said_s = now_s + SAID_EVERY_S
                    progress(f"backlog: {spooled / 1e6:,.0f} MB spooled")
                # Not much further ahead than the agent's last report, or there would be far more notes than asked for.
                if spooled < backlog_bytes and written - agent.observed(NOTES) < NOTES_AHEAD:
                    file.write(encoder.encode_lines([next(entries) for _ in range(WRITTEN_AT_ONCE)]))
                    file.flush()
                    written += WRITTEN_AT_ONCE
                else:
                    time.sleep(POLL_S)
    finally:
        agent.kill()


def _follow(
    home: Path, bundle_dir: Path, bundle: Bundle, core: int, is_done: Callable[[CountingLake, float], bool]
) -> Followed:
    """Start an agent before a broker, give it live readings, and watch until `is_done` of the lake and the seconds."""
    live = home / "live.jsonl"
    live.touch()
    (home / "notes.jsonl").touch()
    due: list[float] = []
    pss: list[tuple[float, float]] = []
    with Broker(home) as broker:
        lake = CountingLake(broker, DEVICE, bundle.contracts).start()
        agent = _agent(home, broker, bundle_dir, core)
        try:
            started_s = agent.start()
            with _live(live, due):
                while not is_done(lake, seconds := time.time() - started_s):
                    agent.report()  # raises when it has ended
                    pss.append((seconds, agent.pss_mb()))
                    if seconds > DRAINS_WITHIN_S:
                        raise OperatorMustActError(f"backlog: not drained within {DRAINS_WITHIN_S:.0f} s")
                    time.sleep(POLL_S)
        finally:
            agent.kill()
            lake.close()
    return Followed(started_s, np.array(due), list(lake.arrivals), pss)


def _agent(home: Path, broker: Broker, bundle_dir: Path, core: int) -> DeviceProcess:
    sources = (
        FileSource("notes", str(home / "notes.jsonl"), NOTES, follow=True),
        FileSource("live", str(home / "live.jsonl"), LIVE, follow=True),
    )
    # A ring of the usual size; the quota has to hold what nobody can take.
    spool = SpoolConfig(quota_bytes=2 * BACKLOG_BYTES)
    return DeviceProcess(
        home, broker, DEVICE, bundle_dir, sources, spool=spool, flush_interval_ms=LIVE_FLUSH_MS, core=core
    )


@contextmanager
def _live(path: Path, due: list[float]) -> Iterator[None]:
    """Append one reading at a time to the file, each at its moment whatever happened before; note the moments."""
    record = read_sensor_record(shuttle_csv_gz())
    lines = b"".join(readings(record, LIVE_EVENTS, 1, 1)).splitlines(keepends=True)
    ends = threading.Event()

    def write() -> None:
        begin_s = time.time() + LIVE_EVERY_S
        with path.open("ab", buffering=0) as file:
            for number, line in enumerate(lines):
                due_s = begin_s + number * LIVE_EVERY_S
                if ends.wait(max(0.0, due_s - time.time())):
                    return
                due.append(due_s)
                file.write(line)

    thread = threading.Thread(target=write, name="live", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()


def _latencies_ms(followed: Followed, until_s: float) -> NDArray[np.float64]:
    """Return how long each live reading took from its moment to the lake, of those due before a time."""
    arrived = np.full(len(followed.due_s), np.nan)
    for one in followed.arrivals:
        if one.contract == LIVE:
            arrived[one.header.first_seq : one.header.end_seq] = one.at_s
    # The agent's start is the restart's figure: the first readings wait for it.
    first_s = followed.arrivals[0].at_s
    chosen = (followed.due_s > first_s) & (followed.due_s < until_s) & np.isfinite(arrived)
    found: NDArray[np.float64] = (arrived - followed.due_s)[chosen] * 1_000
    return found


def _added_p95_ms(alone: NDArray[np.float64], beside: NDArray[np.float64]) -> float | None:
    """Return by how much the slowest twentieth of readings exceeds the usual one; None without readings."""
    if not len(alone) or not len(beside):
        return None
    return round(float(np.percentile(beside, 95)) - float(np.median(alone)))


def _by_second(arrivals: list[Arrival], started_s: float) -> list[tuple[int, int]]:
    """Return seconds since the start and the bytes that came in each."""
    found: dict[int, int] = {}
    for one in arrivals:
        second = int(one.at_s - started_s)
        found[second] = found.get(second, 0) + one.size_bytes
    return sorted(found.items())


def _described(latencies_ms: NDArray[np.float64]) -> dict[str, float]:
    if not len(latencies_ms):
        return {"count": 0}
    p50, p95 = np.percentile(latencies_ms, (50, 95)).tolist()
    return {"count": len(latencies_ms), "p50": round(p50), "p95": round(p95), "max": round(float(latencies_ms.max()))}


def _entries() -> Iterator[Entry]:
    """Yield notes that no compressor makes much smaller than 6 bits a character."""
    rng, number = Random(SEED), 0
    while True:
        note = b64encode(rng.randbytes(NOTE_CHARS * 6 // 8)).decode()
        asset, order = f"A-{number % 50:04d}", f"wo-{number // 4}"
        yield Entry(f"e-{number}", asset, "note", order, "t-07", "2026-01-05T08:00:00Z", note=note)
        number += 1


def _spooled(agent: DeviceProcess) -> int:
    report = agent.report()
    return report.spool_bytes if report is not None else 0
