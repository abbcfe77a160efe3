"""What the preselector knows from the compacted topics: contracts, dictionaries and live rules.

Pure: records go in, the knowledge that follows from them comes out; the reading is done in `process`.
"""

import logging
from typing import Final

from contracts import contract as contracts
from contracts import topics
from contracts.contract import Contract, fingerprint
from contracts.errors import ContractError, RuleError
from flink_jobs.triggers.core import rule_table
from flink_jobs.triggers.core.rule_table import RuleTable
from flink_jobs.triggers.preselect.decoding import Decoder
from flink_jobs.triggers.preselect.row_filter import RowFilter, row_filter

log = logging.getLogger(__name__)

_CONTRACT_PREFIX: Final = "contract/"
_DICTIONARY_PREFIX: Final = "dictionary/"


class Documents:
    """Contracts by fingerprint, dictionaries by id and the rule table, with decoders and filters made from them."""

    def __init__(self) -> None:
        self.rules = RuleTable()
        self.refused = 0
        self._contracts: dict[int, Contract] = {}
        self._dictionaries: dict[int, bytes] = {}
        self._decoders: dict[int, Decoder] = {}
        self._filters: dict[int, RowFilter | None] = {}

    def take(self, topic: str, key: str, value: bytes | None, offset: int) -> None:
        """Take one record of `fieldlake.rules` or `fieldlake.contracts`; one that cannot be followed is logged."""
        if topic == topics.RULES:
            self._take_rule(key, value, offset)
        elif key.startswith(_CONTRACT_PREFIX) and value:
            self._take_contract(key, value)
        elif key.startswith(_DICTIONARY_PREFIX) and value:
            self._take_dictionary(key, value)

    def decoder(self, fingerprint: int) -> Decoder | None:
        """Return the decoder of the contract with this fingerprint, None when no such contract is known."""
        contract = self._contracts.get(fingerprint)
        if contract is not None and fingerprint not in self._decoders:
            self._decoders[fingerprint] = Decoder(contract, self._dictionaries)
        return self._decoders.get(fingerprint)

    def filter_of(self, fingerprint: int) -> RowFilter | None:
        """Return what the live rules want of the contract with this fingerprint, None for nothing."""
        if fingerprint not in self._filters:
            self._filters[fingerprint] = row_filter(self._contracts[fingerprint], self.rules.live.values())
        return self._filters[fingerprint]

    def _take_rule(self, key: str, value: bytes | None, offset: int) -> None:
        try:
            self.rules = rule_table.apply(self.rules, key, value, offset)
        except RuleError as error:
            self.refused += 1
            self.rules = rule_table.skip(self.rules, offset)
            log.error("rule record at offset %d is ignored: %s", offset, error)
        self._filters.clear()

    def _take_contract(self, key: str, value: bytes) -> None:
        try:
            contract = contracts.decode(value)
        except ContractError as error:
            self.refused += 1
            log.error("record %s is ignored: %s", key, error)
            return
        name = fingerprint(contract)
        self._contracts[name] = contract
        self._decoders.pop(name, None)
        self._filters.pop(name, None)

    def _take_dictionary(self, key: str, value: bytes) -> None:
        number = key.removeprefix(_DICTIONARY_PREFIX)
        if not number.isdecimal():
            self.refused += 1
            log.error("record %s is ignored: expected a key dictionary/{number}", key)
            return
        self._dictionaries[int(number)] = value
        self._decoders.clear()
