"""A filter model for devices without ONNX Runtime: tree ensembles and linear models as plain numbers.

The document says the same as the ONNX file beside it, in an order of steps that gives the same score bit for bit. All
numbers are 32-bit floats, written out so that they read back exactly.

Nodes of all trees stand in flat lists, each child behind its parent. A row goes from node i to `low[i]` when its value
of feature `features[i]` is at most `values[i]`, else to `high[i]`; a value that is not a number goes to `absent[i]`. A
leaf has feature -1, and its value is what the tree adds.
"""

from itertools import chain
from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec import Meta, Struct

from contracts.edge_rules import as_float32
from contracts.errors import ContractError
from contracts.malformed import MALFORMED

LEAF: Final = -1
NODES_MAX: Final = 65_536  # nodes of all trees; at 150 bytes each they make 10 MB, a third of a small device's memory
TREES_MAX: Final = 1_024  # trees; more than some hundred take longer per row than a device has
INPUTS_MAX: Final = 500  # fields that a model reads; more take longer per row than a device has
DOCUMENT_BYTES_MAX: Final = 4 * 2**20  # bytes; 65,536 nodes take about 3 MB

Inputs: TypeAlias = Annotated[int, Meta(ge=1, le=INPUTS_MAX)]
Places: TypeAlias = Annotated[list[int], Meta(min_length=1, max_length=NODES_MAX)]
Numbers: TypeAlias = Annotated[list[float], Meta(min_length=1, max_length=NODES_MAX)]


class Trees(Struct, frozen=True, tag="trees", tag_field="kind", forbid_unknown_fields=True):
    """Trees whose values are added in the order of `roots`, then divided by their number if `average`, then `base`.

    Without `absent` a value that is not a number goes to `high`, as it does where it is compared.
    """

    inputs: Inputs
    roots: Annotated[list[int], Meta(min_length=1, max_length=TREES_MAX)]
    features: Places
    values: Numbers
    low: Places
    high: Places
    absent: Places | None = None
    average: bool = False
    base: float = 0.0


class Linear(Struct, frozen=True, tag="linear", tag_field="kind", forbid_unknown_fields=True):
    """Coefficients times inputs, added from the first to the last, then `intercept`."""

    coefficients: Annotated[list[float], Meta(min_length=1, max_length=INPUTS_MAX)]
    intercept: float = 0.0

    @property
    def inputs(self) -> int:
        """Number of inputs."""
        return len(self.coefficients)


LiteModel: TypeAlias = Trees | Linear


def encode(model: LiteModel) -> bytes:
    """Return the JSON form."""
    return msgspec.json.encode(model)


def decode(data: bytes) -> LiteModel:
    """Parse the JSON form and check it. Raises ContractError."""
    if len(data) > DOCUMENT_BYTES_MAX:
        raise ContractError(f"lite model: expected at most {DOCUMENT_BYTES_MAX} bytes, found {len(data)}")
    try:
        model: LiteModel = msgspec.json.decode(data, type=LiteModel)
    except MALFORMED as error:
        raise ContractError(f"lite model: expected its JSON form, found {data[:80]!r}: {error}") from error
    check(model)
    return model


def check(model: LiteModel) -> None:
    """Raise ContractError when a model could not be followed to its end."""
    if isinstance(model, Trees):
        _check_shape(model)
        _check_places(model)
        numbers = chain(model.values, (model.base,))
    else:
        numbers = chain(model.coefficients, (model.intercept,))
    for number in numbers:
        if as_float32(number) != number or number - number != 0:
            raise ContractError(f"lite model: expected finite numbers of 32 bits, found {number!r}")


def _check_shape(model: Trees) -> None:
    nodes = len(model.features)
    lengths = {"values": len(model.values), "low": len(model.low), "high": len(model.high)}
    if model.absent is not None:
        lengths["absent"] = len(model.absent)
    for name, length in lengths.items():
        if length != nodes:
            raise ContractError(f"lite model: {name}: expected {nodes} entries as in features, found {length}")
    for root in model.roots:
        if not 0 <= root < nodes:
            raise ContractError(f"lite model: root {root}: expected a node from 0 to {nodes - 1}")


def _check_places(model: Trees) -> None:
    """Check that every way ends: a child stands behind its parent."""
    nodes = len(model.features)
    children = zip(model.low, model.high, model.absent or model.high, strict=True)
    for node, (feature, places) in enumerate(zip(model.features, children, strict=True)):
        if feature == LEAF:
            continue
        if not 0 <= feature < model.inputs:
            raise ContractError(
                f"lite model: node {node}: feature {feature}: expected -1 for a leaf, or 0 to {model.inputs - 1}"
            )
        if not all(node < place < nodes for place in places):
            raise ContractError(
                f"lite model: node {node}: children {places}: expected nodes from {node + 1} to {nodes - 1}"
            )
