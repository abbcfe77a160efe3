"""What reaches the tables, the quarantine, the dead letters and the origins."""

import itertools

import pyarrow as pa
import pytest

from contracts import topics
from contracts.contract import Contract
from contracts.ranges import RangeSet
from lakehouse.contract_feed import ContractFeed
from lakehouse.gathering import APART_MAX_S, BUSY_SHARE_MAX, LINGER_S
from lakehouse.handover import DataFileForm
from lakehouse.known_tables import KnownTables
from lakehouse.plan import TablePart
from lakehouse.ports import LakeTable, Step
from lakehouse.state import CHANGED_MIN
from lakehouse.status import IngestStatus
from lakehouse.streams import StreamKey, Streams
from lakehouse.worker import Worker
from tests.lakehouse.frames import CONTRACTS, SEALED_AT_MS, clicks, evolved, frame, telemetry
from tests.lakehouse.memory import ManualClock, MemoryLog
from tests.lakehouse.memory_lake import Disk, MemoryLake
from tests.lakehouse.pair import INTERVAL_MS
from tests.lakehouse.world import World

TELEMETRY = CONTRACTS["telemetry"]
CLICKS = CONTRACTS["clicks"]
WAIT_S = 0.4  # s; longer than the interval between rounds, so that it shows in when the next one begins


def test_rows_land_with_their_identity_and_are_acknowledged(world: World) -> None:
    world.broker.batch("device-1", frame(TELEMETRY, telemetry(range(40)), span=50))
    world.broker.batch("device-1", frame(TELEMETRY, telemetry(range(50, 60))))
    world.broker.batch("device-2", frame(TELEMETRY, telemetry([3, 7, 9]), first_seq=0, span=20, epoch=4))
    world.broker.batch("collector-1", frame(CLICKS, clicks(range(5))))
    worker = world.start()
    worker.drain()
    assert worker.status.rounds == 1
    found = world.records("telemetry")
    assert [(r["origin"], r["epoch"], r["seq"]) for r in found] == [
        *(("device-1", 1, seq) for seq in [*range(40), *range(50, 60)]),
        *(("device-2", 4, seq) for seq in (3, 7, 9)),
    ]
    expected = {r["seq"]: r for r in telemetry(range(60))}
    for row in found:
        own = expected[row["seq"]]
        assert row["occurred_at"].timestamp() * 1_000_000 == own["occurred_at"]
        assert {k: row[k] for k in own if k != "occurred_at"} == {k: own[k] for k in own if k != "occurred_at"}
        assert row["sealed_at"].timestamp() * 1_000 == SEALED_AT_MS
        assert row["contract_version"] == TELEMETRY.version
    assert len(world.records("clicks")) == 5
    marks = world.broker.watermarks()
    assert marks["device-1", "telemetry"].committed == ((0, 60),)
    assert (marks["device-2", "telemetry"].epoch, marks["device-2", "telemetry"].committed) == (4, ((0, 20),))
    assert marks["collector-1", "clicks"].upto == 5


def test_rounds_take_half_of_the_time_at_most_and_no_row_waits_for_ever(world: World) -> None:
    took_s, began_s = [0.05, 0.4, 5.0, 0.05], list[float]()

    def slow(step: Step, table: str = "") -> None:
        if step is Step.PLANNED:
            began_s.append(world.clock.monotonic_s())
        if step is Step.FILES_WRITTEN:
            world.clock.advance(took_s[len(began_s) - 1])

    worker = world.start(slow)
    for n in range(len(took_s)):
        world.broker.batch("device-1", frame(TELEMETRY, telemetry(range(n, n + 1))))
        assert worker.writer.step()
    apart_s = [after - before for before, after in itertools.pairwise(began_s)]
    assert apart_s == pytest.approx([0.25, 0.4 / BUSY_SHARE_MAX, 5.0 + LINGER_S], abs=0.01)
    assert APART_MAX_S < 5.0


class Waiting(MemoryLake):
    """Tables whose files take a while to be stored, which nobody works at meanwhile."""

    def __init__(self, clock: ManualClock, wait_s: float) -> None:
        super().__init__(Disk())
        self._clock, self._wait_s = clock, wait_s

    def open(self, contract: Contract) -> LakeTable:
        table = super().open(contract)
        write = table.write

        def waiting(rows: pa.Table) -> tuple[DataFileForm, ...]:
            self._clock.advance(self._wait_s)
            return write(rows)

        table.write = waiting  # type: ignore[method-assign]
        return table


def test_what_a_round_waits_for_does_not_make_rounds_rarer(world: World) -> None:
    """A worker as the process has it: what its rounds wait for is of the clock, what they work of its own thread."""
    lake, log = Waiting(world.clock, WAIT_S), MemoryLog(world.broker, world.clock)
    worker = Worker("ingest-1", log, lake, world.clock, INTERVAL_MS, IngestStatus(pid=0))
    ended_s = []
    for n in range(4):
        world.broker.batch("device-1", frame(TELEMETRY, telemetry(range(n, n + 1))))
        assert worker._writer.step()
        ended_s.append(world.clock.monotonic_s())
    worker.close()
    apart_s = [after - before for before, after in itertools.pairwise(ended_s)]
    # Of the first round the next one may hear that it was busy: it loads code.
    assert apart_s[1:] == pytest.approx([WAIT_S + LINGER_S] * 2, abs=0.1)
    assert WAIT_S / BUSY_SHARE_MAX > WAIT_S + LINGER_S + 0.1


def test_what_a_writer_knows_of_many_streams_lies_in_columns(world: World) -> None:
    errors: list[Exception] = []
    feed = ContractFeed(MemoryLog(world.broker, world.clock).follow(topics.CONTRACTS), errors.append)
    tables = KnownTables(MemoryLake(Disk()), feed, world.clock, errors.append)
    tables.read({})
    expected: dict[StreamKey, RangeSet] = {}
    for first in range(0, 4 * CHANGED_MIN, CHANGED_MIN // 2):
        seqs = range(first, first + CHANGED_MIN // 2)
        changed: dict[StreamKey, RangeSet] = {StreamKey("telemetry", f"device-{n}", 1): ((0, n + 1),) for n in seqs}
        tables.know(TablePart("telemetry", None, (), changed, ()))
        expected |= changed
        known = tables.view({}).known["telemetry"]
        assert isinstance(known, Streams)
        assert len(known.changed) <= CHANGED_MIN
        assert len(known) == len(expected)
    assert dict(known) == expected
    assert errors == []


def test_a_published_contract_has_a_table_before_its_first_batch(world: World) -> None:
    worker = world.start()
    worker.drain()
    world.broker.publish(evolved(TELEMETRY))
    world.clock.advance(2)
    worker.step()
    assert "humidity" in world.rows(TELEMETRY).column_names
