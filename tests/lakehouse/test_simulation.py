"""The whole protocol under one seed: redelivery, reordering, overlap, crashes, zombies, lost answers, a wiped log.

Production code runs; log, clock and tables are in memory. However a run goes, the tables end as the oracle says. A
failing run names its seed: `SEED=n pytest tests/lakehouse/test_simulation.py`.
"""

import os
from random import Random
from typing import Any

import pytest

from contracts import ranges
from contracts.contract import Contract
from contracts.decisions import encode as encode_decision
from contracts.ranges import RangeSet
from contracts.topics import BATCHES, DECISIONS, HANDOVERS, SETTLEMENTS
from lakehouse.ports import Step
from tests.lakehouse.frames import CONTRACTS, clicks, decision, frame, telemetry
from tests.lakehouse.memory import Broker, ManualClock
from tests.lakehouse.memory_lake import Disk, MemoryLake
from tests.lakehouse.pair import Pair
from tests.lakehouse.test_crashes import Crash, DieAt

SEEDS = [int(os.environ["SEED"])] if "SEED" in os.environ else list(range(30))
ACTIONS = 200
CONTRACT_IDS = ("telemetry", "clicks")


class Stream:
    """One origin's events of one contract in one epoch; the oracle knows which are dropped and which are bad."""

    def __init__(self, contract: Contract, origin: str, epoch: int, rng: Random) -> None:
        self.contract, self.origin, self.epoch = contract, origin, epoch
        self.observed = rng.randint(20, 120)
        fates = rng.choices(("kept", "dropped", "bad"), (70, 25, 5), k=self.observed)
        self.kept = {seq for seq, fate in enumerate(fates) if fate == "kept"}
        self.bad = {seq for seq, fate in enumerate(fates) if fate == "bad"}

    def batch(self, first: int, end: int) -> bytes:
        seqs = [seq for seq in range(first, end) if seq in self.kept or seq in self.bad]
        make = telemetry if self.contract.id == "telemetry" else clicks
        spoil: dict[str, Any] = {"f1": 10**6} if self.contract.id == "telemetry" else {"event": None}
        rows = [row | (spoil if row["seq"] in self.bad else {}) for row in make(seqs)]
        return frame(self.contract, rows, first_seq=first, span=end - first, epoch=self.epoch)


class Simulation:
    """The world of one seed."""

    def __init__(self, seed: int) -> None:
        self.rng, self.clock = Random(seed), ManualClock()
        self.broker, self.disk = Broker(), Disk()
        self.workers: list[Pair] = []
        self.in_log: set[int] = set()  # decisions that no wipe has destroyed; nobody sends those again
        for name in (*CONTRACT_IDS, "quarantine", "decisions"):
            self.broker.publish(CONTRACTS[name])
        self.streams = [
            Stream(CONTRACTS[contract], f"device-{number}", epoch, self.rng)
            for contract in CONTRACT_IDS
            for number in range(self.rng.randint(1, 3))
            for epoch in range(1, self.rng.randint(2, 3))
        ]

    def committed(self, stream: Stream) -> RangeSet:
        mark = self.broker.watermarks().get((stream.origin, stream.contract.id))
        return mark.committed if mark is not None and mark.epoch == stream.epoch else ranges.EMPTY

    def send(self) -> None:
        """Some origin sends some range: new, sent before or overlapping both."""
        stream = self.rng.choice(self.streams)
        first = self.rng.randrange(stream.observed)
        end = min(stream.observed, first + self.rng.randint(1, 40))
        self.broker.batch(stream.origin, stream.batch(first, end))

    def decide(self) -> None:
        """The trigger job emits a decision, at times one that it has emitted before."""
        number = self.rng.randrange(200)
        self.in_log.add(number)
        self.broker.append(DECISIONS, encode_decision(decision(number)))

    def start(self) -> None:
        """Start a worker beside the others, which may die at some step of either half."""
        fault = DieAt(self.rng.choice(list(Step)), self.rng.randint(1, 8))
        name = f"ingest-{self.rng.randint(1, 3)}"
        self.workers.append(Pair(self.broker, self.clock, MemoryLake(self.disk, self.rng), fault, name))

    def step(self) -> None:
        """Either half of some worker does what is due."""
        if not self.workers:
            return
        worker = self.rng.choice(self.workers)
        half = self.rng.choice((worker.writer.step, worker.writer.step, worker.committer.step, worker.committer.step))
        try:
            worker._patient(half)
        except Crash:
            self.workers.remove(worker)
            if self.rng.random() < 0.7:
                worker.expire()

    def expire(self) -> None:
        """A worker is thought dead and goes on, or is dead and its share is dealt out only now."""
        if self.workers:
            self.rng.choice(self.workers).expire()

    def wait(self) -> None:
        """Time passes, at times so much that files which wait are too old."""
        self.clock.advance(self.rng.choice((0.3, 1.0, 5.0, 200.0)))

    def outage(self) -> None:
        """A store goes down, or comes back."""
        self.disk.down ^= {self.rng.choice(("lake_a", "lake_b"))}

    def wipe(self) -> None:
        """The log's disk is lost and replaced by an empty one."""
        for topic in (BATCHES, DECISIONS, HANDOVERS, SETTLEMENTS):
            self.broker.wipe(topic)
        self.in_log.clear()
        # Clients of a log that is gone fail, and begin anew.
        for worker in self.workers:
            worker.writer._begun = worker.committer._begun = False

    def finish(self) -> None:
        """Faults end; origins send what is not acknowledged until all is."""
        self.disk.down.clear()
        for group in self.broker.groups.values():
            group.clear()
        worker = Pair(self.broker, self.clock, MemoryLake(self.disk))
        # Older epochs have no watermark any more; their origin is gone, so their ranges are sent once more and whole.
        for stream in self.streams:
            for first, end in ranges.missing(self.committed(stream), 0, stream.observed):
                self.broker.batch(stream.origin, stream.batch(first, end))
        worker.drain()
        worker.close()

    def check_receipts(self) -> None:
        """Whatever a watermark names is in its table or in the quarantine."""
        held: dict[tuple[str, str, int], set[int]] = {}
        for contract in CONTRACT_IDS:
            for row in self.disk.rows(contract):
                held.setdefault((contract, row["origin"], row["epoch"]), set()).add(row["seq"])
        for row in self.disk.rows("quarantine"):
            held.setdefault((row["contract"], row["origin"], row["epoch"]), set()).add(row["seq"])
        for stream in self.streams:
            present = held.get((stream.contract.id, stream.origin, stream.epoch), set())
            for first, end in self.committed(stream):
                assert {s for s in stream.kept | stream.bad if first <= s < end} <= present

    def check_tables(self) -> None:
        """The tables hold exactly what the origins observed and did not drop."""
        for contract in CONTRACT_IDS:
            streams = [s for s in self.streams if s.contract.id == contract]
            wanted = [(s.origin, s.epoch, seq) for s in streams for seq in s.kept]
            assert sorted(self._identities(contract)) == sorted(wanted)
        bad = [(s.origin, s.epoch, seq, s.contract.id) for s in self.streams for seq in s.bad]
        rows = self.disk.rows("quarantine")
        assert sorted((r["origin"], r["epoch"], r["seq"], r["contract"]) for r in rows) == sorted(bad)
        decided = [int(row["decision_id"], 16) for row in self.disk.rows("decisions")]
        assert len(set(decided)) == len(decided)
        assert self.in_log <= set(decided)
        for stream in self.streams:
            if stream.epoch == max(s.epoch for s in self.streams if self._same(s, stream)):
                assert ranges.covers(self.committed(stream), 0, stream.observed)

    def _identities(self, contract: str) -> list[tuple[str, int, int]]:
        return [(r["origin"], r["epoch"], r["seq"]) for r in self.disk.rows(contract)]

    @staticmethod
    def _same(one: Stream, other: Stream) -> bool:
        return (one.origin, one.contract.id) == (other.origin, other.contract.id)


@pytest.mark.parametrize("seed", SEEDS)
def test_any_history_ends_in_the_oracles_rows(seed: int) -> None:
    world = Simulation(seed)
    actions = (world.send, world.decide, world.step, world.start, world.expire, world.wait, world.outage, world.wipe)
    for _ in range(ACTIONS):
        world.rng.choices(actions, (30, 10, 120, 8, 3, 10, 2, 1))[0]()
        world.check_receipts()
    world.finish()
    world.check_receipts()
    world.check_tables()
