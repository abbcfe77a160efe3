"""Publish contracts and dictionaries to the compacted topic from which the lake follows them, and read them back."""

from collections.abc import Iterable, Mapping
from contextlib import suppress

from confluent_kafka import KafkaError, Message

from contracts.contract import Contract, check, decode, encode
from contracts.errors import ContractError
from contracts.topics import CONTRACTS
from lakehouse.checks import require_checkable
from lakehouse.errors import LogUnavailableError
from lakehouse.kafka.log import KafkaLog
from lakehouse.kafka.publisher import FLUSH_TIMEOUT_S, producer
from lakehouse.registry import CONTRACT_PREFIX, contract_key, dictionary_key


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


def published_versions(bootstrap: str) -> dict[str, tuple[Contract, ...]]:
    """Return every published version of every contract, the one published last at the end.

    What cannot be read as a contract is left out; the lake does not follow it either. Raises LogUnavailableError.
    """
    topic = KafkaLog(bootstrap).follow(CONTRACTS)
    try:
        topic.rewind({})
        messages = topic.catch_up()
    finally:
        topic.close()
    found: dict[str, tuple[Contract, ...]] = {}
    for message in messages:
        if not (message.key or b"").startswith(CONTRACT_PREFIX.encode()) or not message.value:
            continue
        with suppress(ContractError):
            contract = decode(message.value)
            others = tuple(one for one in found.get(contract.id, ()) if one.version != contract.version)
            found[contract.id] = (*others, contract)
    return found
