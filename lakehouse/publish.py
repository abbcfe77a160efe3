"""Publish contracts and dictionaries to the compacted topic from which the lake follows them."""

from collections.abc import Iterable, Mapping

from confluent_kafka import KafkaError, Message

from contracts.contract import Contract, check, encode
from contracts.topics import CONTRACTS
from lakehouse.checks import require_checkable
from lakehouse.errors import LogUnavailableError
from lakehouse.kafka import FLUSH_TIMEOUT_S, producer
from lakehouse.registry import contract_key, dictionary_key


def publish_contracts(bootstrap: str, contracts: Iterable[Contract], dictionaries: Mapping[int, bytes]) -> None:
    """Publish contracts and raw zstd dictionaries (by id); returns when the log holds them.

    Dictionaries go first: a device may use one as soon as it has the contract. Raises ContractError when a contract
    breaks a rule, LogUnavailableError when the log does not take a message.
    """
    refused: list[KafkaError] = []

    def delivered(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            refused.append(error)

    log = producer(bootstrap)
    for number, raw in dictionaries.items():
        log.produce(CONTRACTS, raw, dictionary_key(number), on_delivery=delivered)
    for contract in contracts:
        check(contract)
        require_checkable(contract)
        log.produce(CONTRACTS, encode(contract), contract_key(contract), on_delivery=delivered)
    if (waiting := log.flush(FLUSH_TIMEOUT_S)) or refused:
        raise LogUnavailableError(
            f"topic {CONTRACTS}: expected to take the contracts, {waiting} are open, refused {refused[:3]}: "
            "check that the broker runs and the topic exists"
        )
