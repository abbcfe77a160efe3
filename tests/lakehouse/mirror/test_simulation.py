"""A mirror under one seed: repeats, disorder, kills between any two steps, lost answers, outages, a second process.

Production code runs; log, clock and tables are in memory. However a run goes, the tables end as the plain application
of all changes in the order of time. A failing run names its seed: put SEED=n into the environment to run it alone.
"""

import os
from random import Random

import pytest

from contracts.crm_change import CrmChange, CrmMessage, Kind, Snapshot, SnapshotEnd
from contracts.errors import RetrySafeError
from lakehouse.errors import FencedError
from lakehouse.mirror.follower import Mirror
from lakehouse.mirror.ports import Step
from tests.lakehouse.mirror.memory import MemoryMirror, Topic
from tests.lakehouse.mirror.messages import (
    NAMES,
    OBJECT,
    RECORDS,
    SYSTEM,
    TENANT,
    VALUES,
    change,
    expected,
    seen,
)
from tests.lakehouse.mirror.world import CrashError, drain, mirror_over

SEEDS = [int(os.environ["SEED"])] if "SEED" in os.environ else list(range(60))
ACTIONS = 80


def history(rng: Random) -> list[CrmMessage]:
    """Changes at different times, and snapshots, some of which never end."""
    found: list[CrmMessage] = []
    for at_us in rng.sample(range(100, 10_000), rng.randint(10, 40)):
        kind = rng.choice((*Kind, Kind.UPDATED, Kind.UPDATED))
        told = kind not in (Kind.DELETED, Kind.GAP)
        fields = {name: rng.choice(VALUES) for name in rng.sample(NAMES, rng.randint(0, 3))} if told else {}
        found.append(change(rng.choice(RECORDS), kind, at_us * 2, fields=fields, full=told and rng.random() < 0.3))
    for number in range(rng.randint(0, 3)):
        snapshot = Snapshot(f"s{number}", rng.randrange(100, 10_000) * 2 + 1)
        held = rng.sample(RECORDS, rng.randint(0, len(RECORDS)))
        found += [
            change(record, Kind.UPDATED, 0, number * 10 + n + 1, fields={"Name": record}, full=True, snapshot=snapshot)
            for n, record in enumerate(held)
        ]
        if rng.random() < 0.8:
            found.append(SnapshotEnd(SYSTEM, TENANT, OBJECT, snapshot, len(held)))
    return found


class Simulation:
    """The world of one seed."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.topic, self.store = Topic(), MemoryMirror()
        self.history = history(self.rng)
        self.unsent = self.history + [one for one in self.history if self.rng.random() < 0.3]
        self.rng.shuffle(self.unsent)
        self.mirrors: list[Mirror] = []
        self.bad = 0

    def fault(self, step: Step) -> None:
        if self.rng.random() < 0.04:
            raise CrashError(step)

    def act(self) -> None:
        chance = self.rng.random()
        if chance < 0.4:
            for _ in range(min(len(self.unsent), self.rng.randint(1, 6))):
                self.topic.put(self.unsent.pop(), self.rng.randrange(3))
        elif chance < 0.45:
            self.topic.put(b"{" * self.rng.randint(1, 9), self.rng.randrange(3))
            self.bad += 1
        elif chance < 0.5:
            self.store.down = self.rng.random() < 0.5
        elif chance < 0.55:
            self.topic.down = self.rng.random() < 0.5
        elif chance < 0.6:
            self.store.lose_answer = True
        elif chance < 0.7 and len(self.mirrors) < 2:
            mirror = self.started()
            self.mirrors.append(mirror)
            self.recover(mirror)
        elif self.mirrors:
            self.work(self.rng.choice(self.mirrors))

    def started(self) -> Mirror:
        return mirror_over(self.topic, self.store, self.fault, self.rng.randint(1, 8))

    def work(self, mirror: Mirror) -> None:
        """One step; whatever ends the process takes it out."""
        try:
            if self.rng.random() < 0.2:
                mirror.recover()
            mirror.step()
        except RetrySafeError:
            self.recover(mirror)
        except (CrashError, FencedError):
            self.mirrors.remove(mirror)

    def recover(self, mirror: Mirror) -> None:
        try:
            mirror.recover()
        except RetrySafeError:
            self.mirrors.remove(mirror)

    def settle(self) -> None:
        self.store.down = self.store.lose_answer = self.topic.down = False
        for one in self.unsent:
            self.topic.put(one, self.rng.randrange(3))
        drain(mirror_over(self.topic, self.store))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_tables_end_as_the_history_says(seed: int) -> None:
    world = Simulation(seed)
    for _ in range(ACTIONS):
        world.act()
    world.settle()
    found = {key: seen(record) for key, record in world.store.records().items()}
    assert found == expected(world.history), f"seed={seed}"
    assert len({letter.source for letter in world.topic.letters}) == world.bad, f"seed={seed}"


@pytest.mark.skipif(len(SEEDS) == 1, reason="one seed alone need not meet everything")
def test_the_seeds_meet_every_kind_of_change() -> None:
    histories = [history(Random(seed)) for seed in SEEDS]
    kinds = {one.kind for some in histories for one in some if isinstance(one, CrmChange)}
    assert kinds == set(Kind)
    assert any(isinstance(one, SnapshotEnd) for some in histories for one in some)
