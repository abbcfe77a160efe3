"""The contracts and dictionaries that are published, by the names that batches use for them. Pure."""

from typing import Final

import zstandard
from msgspec import Struct

from contracts.contract import Contract, decode, fingerprint
from contracts.errors import ContractError

CONTRACT_PREFIX: Final = "contract/"
DICTIONARY_PREFIX: Final = "dictionary/"
DICTIONARY_BYTES_MAX: Final = 1_048_576  # bytes; zstd's own advice is 100 KB


class Registry(Struct):
    """`newest`: contract id -> the version published last. `fingerprints`: every version still readable."""

    newest: dict[str, Contract] = {}
    fingerprints: dict[int, Contract] = {}
    dictionaries: dict[int, zstandard.ZstdCompressionDict] = {}

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
        known = self.newest.get(contract.id) == contract
        self.newest[contract.id] = contract
        self.fingerprints[fingerprint(contract)] = contract
        return None if known else contract

    def withdraw(self, contract: Contract) -> None:
        """Forget a version that cannot be written; the version before it is in force again."""
        self.fingerprints.pop(fingerprint(contract), None)
        before = [c for c in self.fingerprints.values() if c.id == contract.id]
        if before:
            self.newest[contract.id] = before[-1]
        else:
            self.newest.pop(contract.id, None)

    def _take_dictionary(self, key: str, value: bytes) -> None:
        number = key.removeprefix(DICTIONARY_PREFIX)
        if len(value) > DICTIONARY_BYTES_MAX:
            raise ContractError(f"{key}: {len(value)} bytes, at most {DICTIONARY_BYTES_MAX} allowed")
        dictionary = zstandard.ZstdCompressionDict(value)
        if not number.isdecimal() or dictionary.dict_id() != int(number):
            raise ContractError(f"{key}: the dictionary names itself {dictionary.dict_id()}: publish it under that id")
        self.dictionaries[int(number)] = dictionary


def contract_key(contract: Contract) -> str:
    """Key of a contract on its topic."""
    return f"{CONTRACT_PREFIX}{contract.id}/{contract.version}"


def dictionary_key(dictionary_id: int) -> str:
    """Key of a dictionary on the same topic."""
    return f"{DICTIONARY_PREFIX}{dictionary_id}"
