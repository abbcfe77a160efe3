"""Publish contracts and dictionaries to the compacted topic from which the lake follows them, and read them back."""

from collections.abc import Iterable, Mapping
from contextlib import suppress

from contracts.contract import Contract, check, decode, encode
from contracts.errors import ContractError
from contracts.topics import CONTRACTS
from lakehouse.checks import require_checkable
from lakehouse.kafka.log import KafkaLog
from lakehouse.registry import CONTRACT_PREFIX, contract_key, dictionary_key


def publish_contracts(bootstrap: str, contracts: Iterable[Contract], dictionaries: Mapping[int, bytes]) -> None:
    """Publish contracts and raw zstd dictionaries (by id); returns when the log holds them.

    Dictionaries go first: a device may use one as soon as it has the contract. Raises ContractError when a contract
    breaks a rule, and has published nothing then; LogUnavailableError when the log does not take a message.
    """
    wanted = list(contracts)
    for contract in wanted:
        check(contract)
        require_checkable(contract)
    publisher = KafkaLog(bootstrap).publisher()
    for number, raw in dictionaries.items():
        publisher.publish(CONTRACTS, dictionary_key(number).encode(), raw)
    for contract in wanted:
        publisher.publish(CONTRACTS, contract_key(contract).encode(), encode(contract))
    publisher.flush()


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
