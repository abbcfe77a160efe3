"""What holds up one table only: a store that is down, and a version that does not fit."""

import pytest
from msgspec.structs import replace

from contracts.contract import Contract
from lakehouse.errors import TableConflictError
from lakehouse.ports import LakeTable
from tests.lakehouse.frames import CONTRACTS, clicks, evolved, frame, telemetry
from tests.lakehouse.memory import Broker, ManualClock
from tests.lakehouse.memory_lake import Disk, MemoryLake
from tests.lakehouse.pair import Pair

TELEMETRY, CLICKS = CONTRACTS["telemetry"], CONTRACTS["clicks"]
UNFIT = replace(evolved(TELEMETRY), version="9.0.0")


class Site:
    """A worker over two stores in memory."""

    def __init__(self, published: tuple[str, ...] = ("telemetry", "clicks", "quarantine", "decisions")) -> None:
        self.broker, self.clock, self.disk = Broker(), ManualClock(), Disk()
        for name in published:
            self.broker.publish(CONTRACTS[name])
        self.worker = self.start()

    def start(self, lake: type[MemoryLake] = MemoryLake) -> Pair:
        for group in self.broker.groups.values():
            group.clear()
        return Pair(self.broker, self.clock, lake(self.disk))

    def send(self, first: int, end: int) -> None:
        rows = telemetry(range(first, end))
        self.broker.batch("device-1", frame(TELEMETRY, [rows[0] | {"f1": 10**6}, *rows[1:]]))
        self.broker.batch("collector-1", frame(CLICKS, clicks(range(first, end))))

    def play(self, seconds: float) -> None:
        until_s = self.clock.monotonic_s() + seconds
        while self.clock.monotonic_s() < until_s:
            self.worker.step()

    def seqs(self, contract: str) -> list[int]:
        return sorted(row["seq"] for row in self.disk.rows(contract))

    def upto(self, contract: str) -> int:
        origin = "device-1" if contract == "telemetry" else "collector-1"
        mark = self.broker.watermarks().get((origin, contract))
        return mark.upto if mark is not None else 0


@pytest.mark.parametrize("restarts", [False, True])
def test_a_store_that_is_down_holds_up_its_own_tables_only(restarts: bool) -> None:
    site = Site()
    site.send(0, 5)
    site.play(2)
    site.disk.down.add("lake_b")
    for at in range(5, 25, 5):
        site.send(at, at + 5)
        site.play(1)
    if restarts:
        site.worker = site.start()
        site.play(3)
    assert (site.upto("telemetry"), site.upto("clicks")) == (25, 5)
    assert "lake_b" in site.worker.status.last_error
    assert "lake_b" in site.worker.status.parked["clicks"]
    site.disk.down.clear()
    site.play(10)
    assert not site.worker.status.parked
    assert (site.upto("telemetry"), site.upto("clicks")) == (25, 25)
    assert site.seqs("clicks") == list(range(25))
    assert site.seqs("telemetry") == [seq for seq in range(25) if seq % 5]
    assert site.seqs("quarantine") == [0, 5, 10, 15, 20]


def test_without_the_quarantine_rows_that_are_refused_wait_and_sound_ones_of_the_other_store_go_on() -> None:
    site = Site()
    site.send(0, 5)
    site.play(2)
    site.disk.down.add("lake_a")
    site.broker.batch("collector-1", frame(CLICKS, clicks(range(5, 9))))
    site.play(2)
    assert site.upto("clicks") == 9
    site.send(9, 12)
    site.play(1)
    site.disk.down.clear()
    site.play(10)
    assert (site.upto("clicks"), site.seqs("clicks")) == (12, list(range(12)))
    assert site.seqs("quarantine") == [0, 9]


def test_everything_down_is_waited_out() -> None:
    site = Site()
    site.play(1)
    site.disk.down.update(("lake_a", "lake_b"))
    site.send(0, 5)
    site.play(20)
    assert site.upto("telemetry") == 0
    site.disk.down.clear()
    site.play(10)
    assert (site.upto("telemetry"), site.upto("clicks")) == (5, 5)


def test_without_a_quarantine_everything_waits_and_the_status_says_why() -> None:
    site = Site(("telemetry", "clicks", "decisions"))
    site.send(0, 5)
    site.play(3)
    assert site.upto("clicks") == 0
    assert "contract quarantine: expected it among the published ones" in site.worker.status.last_error
    site.broker.publish(CONTRACTS["quarantine"])
    site.play(5)
    assert (site.upto("telemetry"), site.upto("clicks")) == (5, 5)
    assert site.seqs("quarantine") == [0]
    assert site.broker.dead() == []


class Picky(MemoryLake):
    """Refuses a version of a contract."""

    def open(self, contract: Contract) -> LakeTable:
        if contract.version == UNFIT.version:
            raise TableConflictError(f"{contract.id} {contract.version}: does not fit")
        return super().open(contract)


@pytest.mark.parametrize("restarts", [False, True])
def test_a_version_that_does_not_fit_leaves_those_before_it_in_force(restarts: bool) -> None:
    site = Site()
    site.worker = site.start(Picky)
    site.send(0, 5)
    site.play(2)
    site.broker.publish(UNFIT)
    site.play(1)
    if restarts:
        for group in site.broker.groups.values():
            group.clear()
        site.worker = site.start(Picky)
    site.send(5, 10)
    site.play(5)
    assert (site.upto("telemetry"), site.upto("clicks")) == (10, 10)
    assert "does not fit" in site.worker.status.last_error
