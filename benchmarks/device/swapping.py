"""The agent's own core, spool and bundle swaps in the device's environment, without sources and broker.

`python -m benchmarks.device.swapping` reads a `Work` from standard input and writes a `Swapped` to standard output.
Chunk after chunk is filtered, windowed, sealed and made durable; between two, `BundleSwaps` does what it does in the
agent's loop. Two bundles take turns: each time the other one is staged under the next number, loaded, tried on live
chunks, swapped in and kept.
"""

import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from contracts import bundle as bundles
from contracts import releases
from contracts.bundle import BUNDLE_FILE, Bundle, Release
from contracts.releases import Announcement
from edge_agent.adapters import bundle_files
from edge_agent.adapters.bundle_loading import BundleLoading
from edge_agent.adapters.bundle_shelf import BundleShelf
from edge_agent.adapters.bundle_worker import ThreadWorker
from edge_agent.adapters.disk import FolderDisk
from edge_agent.adapters.process import WallClock, pss_mb
from edge_agent.bundle_swaps import BundleSwaps
from edge_agent.bundle_updates import BundleUpdates
from edge_agent.core.intake import Intake
from edge_agent.core.plan import Plan
from edge_agent.core.spool.identity import FORMAT, Identity, open_spool
from edge_agent.core.spool.replay import Replayed
from edge_agent.core.spool.spool import Group
from edge_agent.core.updates.rollout import Limits, Rollout
from edge_agent.core.updates.updates import Verdict

DEVICE: Final = "swap-01"
STREAM: Final = "telemetry"
KEPT_RELEASES: Final = 3  # as many as the updating process leaves beside the newest
SWAP_WITHIN_S: Final = 30.0
MEMORY_SWAPS: Final = 20  # swaps over which the memory before and after is averaged


class Work(Struct, frozen=True):
    """Folders of two bundles, a file of events, and how many swaps to make of them after some to warm up."""

    folder: str
    bundle_dirs: tuple[str, str]
    events_file: str
    swaps: int
    warm_up: int
    chunk_events: int


class Swapped(Struct, frozen=True):
    """What was seen. Times are in ms; memory in MB after each swap; `unscored` events are those that no model saw."""

    pauses_ms: list[float]
    chunks_ms: list[float]
    chunks_while_loading_ms: list[float]
    first_chunks_ms: list[float]
    memory_mb: list[float]
    observed: int
    accounted: int
    unscored: int
    versions: int


class Published:
    """Stands in for the updating process, which is one of its own: it says at once what lies there."""

    def __init__(self, shelf: BundleShelf) -> None:
        self._shelf = shelf
        self._verdict: Verdict | None = None
        self.newest = 1

    @property
    def runs(self) -> bool:
        """Whether a verdict waits."""
        return self._verdict is not None

    def start(self, now_s: float, announced: int = 0, known_time_ms: int = 0) -> None:
        """Find what was staged."""
        active = self._shelf.active()
        outcome = "current" if active == self.newest else "staged"
        found = {"outcome": outcome, "release": self.newest, "active": active, "timestamp_version": announced}
        self._verdict = msgspec.convert(found, Verdict)

    def take(self, now_s: float) -> Verdict | None:
        """Return it."""
        verdict, self._verdict = self._verdict, None
        return verdict

    def close(self) -> None:
        """Forget it."""
        self._verdict = None


class Device:
    """One device with its spool; counts and times what its loop does."""

    def __init__(self, work: Work) -> None:
        self._work, self._clock = work, WallClock()
        self._bundles = Path(work.folder) / "bundles"
        self._bundles.mkdir(parents=True)
        self._lines = Path(work.events_file).read_bytes().splitlines()
        self._at = 0
        self.spool = open_spool(
            FolderDisk(Path(work.folder) / "spool"), Identity(DEVICE, self._clock.now_ms() // 1_000, {}, FORMAT)
        )
        self.shelf = BundleShelf(self._bundles)
        self.published = Published(self.shelf)
        self._stage(1)
        self.shelf.activate(1)
        self._loading = BundleLoading(self._bundles, (STREAM,), self._plan_of)
        self.intake = Intake(self._loading.plan(1), None)
        self.swaps = BundleSwaps(
            Rollout(),
            BundleUpdates(self.published, lambda: 0.0, self._clock.monotonic_s()),
            self.shelf,
            self._loading.parts,
            ThreadWorker(lambda: None),
            self.intake,
            self._clock,
            lambda: None,  # memory is what is measured here: one that grows must not stop it
            Limits(events_min=3 * work.chunk_events, probation_s=0.0, look_events=10**9, look_chunks=10**9),
        )
        self.seen = Swapped([], [], [], [], [], 0, 0, 0, 0)
        self._observed = self._unscored = 0
        self._pause_ms = 0.0

    def swap(self, number: int) -> tuple[list[float], list[float], list[float], float, float]:
        """Bring a release into force; return times of chunks, of those while it loads, of pauses, of its first one."""
        self._stage(number)
        self.published.newest = number
        self.swaps.heard(releases.encode(Announcement(number)))
        others: list[float] = []
        loading: list[float] = []
        pauses: list[float] = []
        first_ms = 0.0
        deadline_s = self._clock.monotonic_s() + SWAP_WITHIN_S
        while self._release() != number or self.swaps.rollout.release is not None or self.swaps.is_busy:
            if self._clock.monotonic_s() > deadline_s:
                raise RuntimeError(f"swap {number}: not within {SWAP_WITHIN_S:.0f} s: {self.swaps.report()}")
            was, busy = self._release(), self.swaps.is_busy
            pauses.append(self._timed(lambda: self.swaps.turn(self._clock.monotonic_s())))
            chunk_ms = self._timed(self._take)
            (loading if busy else others).append(chunk_ms)
            if was != number and self._release() == number:
                first_ms = chunk_ms
        return others, loading, pauses, first_ms, pss_mb() or 0.0

    def run(self) -> Swapped:
        """Make all swaps."""
        seen = self.seen
        for number in range(2, self._work.warm_up + self._work.swaps + 2):
            chunks, loading, pauses, first_ms, memory_mb = self.swap(number)
            self._free()
            if number - 2 >= self._work.warm_up:
                seen.pauses_ms.append(max(pauses))
                seen.first_chunks_ms.append(first_ms)
                seen.chunks_ms.extend(chunks[-1:])
                seen.chunks_while_loading_ms.append(max(loading, default=0.0))
                seen.memory_mb.append(memory_mb)
        end = self.intake.take({}, self._clock.now_ms(), final=(STREAM,), ends=True)
        if end is not None:
            self.spool.append(end)
        counts = [count for count in self.spool.counts if count.stream == STREAM]
        return replace(
            seen,
            observed=self.intake.next_seq(STREAM),
            accounted=sum(count.count for count in counts),
            unscored=self._unscored,
            versions=len({count.rule for count in counts if count.rule}),
        )

    def _take(self) -> None:
        size = self._work.chunk_events
        lines = self._lines[self._at : self._at + size]
        self._at = (self._at + size) % (len(self._lines) - size)
        group = self.intake.take({STREAM: lines}, self._clock.now_ms())
        if group is not None:
            self.spool.append(group)
            self._look_at(group)

    def _look_at(self, group: Group) -> None:
        """Count rows that no model has scored: every event of these bundles has to be."""
        for batch in group.batches:
            if batch.contract == STREAM:
                rows, _, _ = self.intake.parts.unsealers[STREAM].events(
                    Replayed(STREAM, batch.first_seq, batch.span, (batch.data,))
                )
                self._unscored += batch.rows - len(rows) + sum(score is None for score in rows.columns["score"])

    def _free(self) -> None:
        """Let the lake have all of it."""
        held = {name: ((0, end),) for name, end in self.spool.observed.items() if end}
        self.spool.finish()
        self.spool.free(held, self._clock.now_ms())

    def _release(self) -> int | None:
        return self.intake.parts.plan.release

    def _stage(self, number: int) -> None:
        source, target = Path(self._work.bundle_dirs[number % 2]), self._bundles / str(number)
        document = bundles.decode((source / BUNDLE_FILE).read_bytes())
        target.mkdir()
        for file in source.iterdir():
            if file.name != BUNDLE_FILE:
                os.link(file, target / file.name)
        named = replace(document, version=str(number), release=Release("default", number))
        (target / BUNDLE_FILE).write_bytes(bundles.encode(named))
        if number > KEPT_RELEASES:
            shutil.rmtree(self._bundles / str(number - KEPT_RELEASES))

    def _plan_of(self, bundle: Bundle, folder: Path) -> Plan:
        return bundle_files.plan_of(
            bundle, folder, device=DEVICE, shard=0, epoch=self.spool.epoch, streams={STREAM: False}, stores=True
        )

    @staticmethod
    def _timed(step: Callable[[], None]) -> float:
        begun_s = time.perf_counter()
        step()
        return 1_000.0 * (time.perf_counter() - begun_s)


def main() -> int:
    """Run what standard input says."""
    work = msgspec.json.decode(sys.stdin.buffer.read(), type=Work)
    sys.stdout.write(msgspec.json.encode(Device(work).run()).decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
