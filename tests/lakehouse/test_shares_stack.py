"""Shares of a real log under one name: a worker whose place another one takes says so, and joins again."""

from functools import partial

import pytest

from contracts import topics
from lakehouse.errors import ShareTakenError
from lakehouse.kafka.log import KafkaLog
from lakehouse.kafka.share import KafkaShare
from tests.lakehouse.frames import CONTRACTS, frame, telemetry
from tests.lakehouse.plant import Plant
from tests.waiting import eventually

pytestmark = pytest.mark.stack

GROUP = "test-shares"
POLL_S = 0.05
ROWS = 5


def twin(plant: Plant) -> KafkaShare:
    return KafkaLog(plant.config.kafka_bootstrap, "twin").share(GROUP, (topics.BATCHES,))


def told(share: KafkaShare) -> str | None:
    """Return what a share that was taken says; it is joined again by then."""
    try:
        share.poll(1, POLL_S)
    except ShareTakenError as error:
        return str(error)
    return None


def test_of_two_workers_of_one_name_each_joins_again_when_the_other_has_taken_its_share(plant: Plant) -> None:
    origin = "twins-1"
    one = twin(plant)
    shares = [one]
    try:
        whole = eventually(one.dealt, "the first one has the whole log")
        two = twin(plant)
        shares.append(two)
        assert eventually(two.dealt, "the second one has it by the same name") == whole
        assert "give every worker a name of its own" in eventually(partial(told, one), "the first one hears of it")
        assert eventually(one.dealt, "the first one has joined again") == whole
        eventually(partial(told, two), "the second one hears of that")
        shares.remove(one)
        one.close()
        assert eventually(two.dealt, "the second one has joined again") == whole
        assert set(two.begin({})) == whole
        plant.send(origin, [frame(CONTRACTS["telemetry"], telemetry(range(ROWS)))])
        eventually(lambda: any(m.origin == origin for m in two.poll(1_000, POLL_S)), "the second one reads on")
    finally:
        for share in shares:
            share.close()
