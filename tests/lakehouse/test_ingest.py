"""What reaches the tables, the quarantine, the dead letters and the origins."""

from tests.lakehouse.frames import CONTRACTS, SEALED_AT_MS, clicks, frame, telemetry
from tests.lakehouse.world import World

TELEMETRY = CONTRACTS["telemetry"]
CLICKS = CONTRACTS["clicks"]


def test_rows_land_with_their_identity_and_are_acknowledged(world: World) -> None:
    world.broker.batch("device-1", frame(TELEMETRY, telemetry(range(40)), span=50))
    world.broker.batch("device-1", frame(TELEMETRY, telemetry(range(50, 60))))
    world.broker.batch("device-2", frame(TELEMETRY, telemetry([3, 7, 9]), first_seq=0, span=20, epoch=4))
    world.broker.batch("collector-1", frame(CLICKS, clicks(range(5))))
    ingest = world.start()
    assert world.drain(ingest) == 1
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
