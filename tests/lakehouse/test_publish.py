"""Contracts and dictionaries are on their topic when the call returns: all of them in order, or none."""

import pytest
from msgspec.structs import replace

from contracts.errors import ContractError
from contracts.topics import CONTRACTS as TOPIC
from lakehouse import publish
from lakehouse.publish import publish_contracts, published_versions
from lakehouse.registry import contract_key, dictionary_key
from tests.lakehouse.frames import CONTRACTS
from tests.lakehouse.memory import Broker, ManualClock, MemoryLog

TELEMETRY, CLICKS = CONTRACTS["telemetry"], CONTRACTS["clicks"]
DICTIONARY_ID, DICTIONARY = 7, "词典".encode()


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    made = Broker()
    monkeypatch.setattr(publish, "KafkaLog", lambda bootstrap: MemoryLog(made, ManualClock()))
    return made


def test_dictionaries_come_before_the_contracts_and_all_are_read_back(broker: Broker) -> None:
    publish_contracts("", iter([TELEMETRY, CLICKS]), {DICTIONARY_ID: DICTIONARY})
    keys = [(message.key or b"").decode() for message in broker.topics[TOPIC][0]]
    assert keys == [dictionary_key(DICTIONARY_ID), contract_key(TELEMETRY), contract_key(CLICKS)]
    assert broker.topics[TOPIC][0][0].value == DICTIONARY
    assert published_versions("") == {TELEMETRY.id: (TELEMETRY,), CLICKS.id: (CLICKS,)}


def test_one_that_breaks_a_rule_keeps_those_that_came_with_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(bootstrap: str) -> MemoryLog:
        pytest.fail(f"{bootstrap}: what a client has been given may be on the log at any time")

    monkeypatch.setattr(publish, "KafkaLog", connect)
    with pytest.raises(ContractError, match="expected 1 to"):
        publish_contracts("nowhere", [TELEMETRY, replace(CLICKS, fields=())], {DICTIONARY_ID: DICTIONARY})
