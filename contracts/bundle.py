"""What a device is given: contracts, dictionaries, filter model and windows, in one folder with `bundle.json`."""

from typing import Final, Literal

import msgspec
from msgspec import Struct

from contracts.contract import Contract, check
from contracts.errors import ContractError
from contracts.malformed import MALFORMED

BUNDLE_FILE: Final = "bundle.json"


class Dictionary(Struct, frozen=True):
    """A zstd dictionary for one contract; `id` is the one inside the dictionary and in batch headers."""

    id: int
    contract: str
    file: str
    sha256: str


class Model(Struct, frozen=True):
    """A filter model: ONNX, one input `rows` of shape (chunk_rows, len(inputs)) float32, one output `score` float32.

    A row is kept when its score is at least `threshold`.
    """

    id: str
    version: str
    file: str
    sha256: str
    inputs: tuple[str, ...]
    threshold: float
    chunk_rows: int


class Windows(Struct, frozen=True):
    """Tumbling windows by event time over some sensors of each subject, written as rows of another contract."""

    contract: str
    window_ms: int
    sensors: tuple[str, ...]


class Stream(Struct, frozen=True):
    """How events of one contract are treated. Without a model every valid event is kept.

    `when_full` is what becomes of them on a full disk, after everything else was tried: they wait with their producer,
    or they are dropped, and the ledger says so.
    """

    contract: str
    model: str | None = None
    windows: Windows | None = None
    when_full: Literal["wait", "drop"] = "wait"


class Bundle(Struct, frozen=True):
    """The document in `bundle.json`; file names are relative to its folder."""

    version: str
    contracts: tuple[Contract, ...]
    streams: tuple[Stream, ...]
    dictionaries: tuple[Dictionary, ...] = ()
    models: tuple[Model, ...] = ()

    def contract(self, contract_id: str) -> Contract:
        """Return a contract by id. Raises ContractError."""
        for contract in self.contracts:
            if contract.id == contract_id:
                return contract
        known = ", ".join(sorted(c.id for c in self.contracts))
        raise ContractError(f"contract {contract_id!r}: bundle {self.version} has only {known}")

    def stream(self, contract_id: str) -> Stream:
        """Return how a contract's events are treated; one that is not mentioned has neither model nor windows."""
        self.contract(contract_id)
        for stream in self.streams:
            if stream.contract == contract_id:
                return stream
        return Stream(contract_id)


def encode(bundle: Bundle) -> bytes:
    """Return the JSON form."""
    return msgspec.json.encode(bundle)


def decode(data: bytes) -> Bundle:
    """Parse the JSON form and check its contracts. Raises ContractError."""
    try:
        bundle = msgspec.json.decode(data, type=Bundle)
    except MALFORMED as error:
        raise ContractError(f"bundle: expected its JSON form, found {data[:80]!r}: {error}") from error
    for contract in bundle.contracts:
        check(contract)
    return bundle
