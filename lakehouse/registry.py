"""The contracts and dictionaries that are published, by the names that batches use for them. Pure."""

from collections.abc import Mapping
from typing import Final

import zstandard
from msgspec import Struct

from contracts.contract import Contract, decode, fingerprint
from contracts.errors import ContractError
from contracts.evolution import means_otherwise
from lakehouse.checks import require_checkable

CONTRACT_PREFIX: Final = "contract/"
DICTIONARY_PREFIX: Final = "dictionary/"
DICTIONARY_BYTES_MAX: Final = 1_048_576  # bytes; zstd's own advice is 100 KB


class Registry(Struct):
    """`newest`: contract id -> its highest version, in whatever order they were published.

    `fingerprints`: every version still readable; of two that differ in nothing that travels, the higher one.
    """

    newest: dict[str, Contract] = {}
    fingerprints: dict[int, Contract] = {}
    dictionaries: dict[int, zstandard.ZstdCompressionDict] = {}
    versions: dict[str, dict[str, Contract]] = {}

    def take(self, key: str, value: bytes | None) -> Contract | None:
        """Apply one message of the contracts topic; return the contract when it brought a new one.

        An empty value (a deletion) changes nothing: rows of a withdrawn version may still be on their way.
        Raises ContractError when key or value cannot be followed.
        """
        if not value:
            return None
        if key.startswith(CONTRACT_PREFIX):
            return self._take_contract(key, decode(value))
        if key.startswith(DICTIONARY_PREFIX):
            self._take_dictionary(key, value)
            return None
        raise ContractError(f"contracts topic: expected a key contract/ID/VERSION or dictionary/ID, found {key!r}")

    def _take_contract(self, key: str, contract: Contract) -> Contract | None:
        if key != contract_key(contract):
            raise ContractError(f"contracts topic: key {key!r} carries {contract_key(contract)!r}: publish it again")
        require_checkable(contract)
        known = self.versions.setdefault(contract.id, {})
        if known.get(contract.version) == contract:
            return None
        _check_beside(contract, known)
        known[contract.version] = contract
        self._order(contract.id)
        return contract

    def older(self, contract_id: str) -> tuple[Contract, ...]:
        """Return the versions of a contract below its newest one, lowest first."""
        known = sorted(self.versions.get(contract_id, {}).values(), key=lambda contract: contract.number)
        return tuple(known[:-1])

    def withdraw(self, contract: Contract) -> None:
        """Forget a version that cannot be written; those before it stay in force."""
        self.versions.get(contract.id, {}).pop(contract.version, None)
        self._order(contract.id)

    def _order(self, contract_id: str) -> None:
        for mark in [mark for mark, contract in self.fingerprints.items() if contract.id == contract_id]:
            del self.fingerprints[mark]
        self.newest.pop(contract_id, None)
        for contract in sorted(self.versions[contract_id].values(), key=lambda contract: contract.number):
            self.newest[contract_id] = contract
            self.fingerprints[fingerprint(contract)] = contract

    def _take_dictionary(self, key: str, value: bytes) -> None:
        number = key.removeprefix(DICTIONARY_PREFIX)
        if len(value) > DICTIONARY_BYTES_MAX:
            raise ContractError(f"{key}: {len(value)} bytes, at most {DICTIONARY_BYTES_MAX} allowed")
        dictionary = zstandard.ZstdCompressionDict(value)
        if not number.isdecimal() or dictionary.dict_id() != int(number):
            raise ContractError(f"{key}: the dictionary names itself {dictionary.dict_id()}: publish it under that id")
        self.dictionaries[int(number)] = dictionary


def _check_beside(contract: Contract, known: Mapping[str, Contract]) -> None:
    """Raise ContractError when a version cannot be in force beside those that are."""
    for other in known.values():
        if (other.catalog, other.namespace) != (contract.catalog, contract.namespace):
            raise ContractError(
                f"contract {contract.id} {contract.version}: its table is {contract.catalog}.{contract.table}, in "
                f"{other.version} {other.catalog}.{other.table}: a table does not move, publish it under another id"
            )
        if fingerprint(other) == fingerprint(contract) and means_otherwise(other, contract):
            raise ContractError(
                f"contract {contract.id} {contract.version}: its batches could not be told from those of "
                f"{other.version}, whose units are others: publish it with `conversions`"
            )


def contract_key(contract: Contract) -> str:
    """Key of a contract on its topic."""
    return f"{CONTRACT_PREFIX}{contract.id}/{contract.version}"


def dictionary_key(dictionary_id: int) -> str:
    """Key of a dictionary on the same topic."""
    return f"{DICTIONARY_PREFIX}{dictionary_id}"
