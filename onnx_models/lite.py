"""Reads the lite form of a filter model from its ONNX bytes.

Not from the trained model: so the two forms that a bundle carries say the same whoever trained and exported it. One
operator must give the score, alone or with operators behind it that only pick its column or pass it on. What the
runtime computes with functions of its own (logistic, softmax, probit) is not taken: nobody can match its last bit. A
threshold on the score before such a function does the same.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import numpy as np
import onnx
from msgspec import Struct

from contracts.lite_model import LEAF, Linear, LiteModel, Trees, check
from onnx_models.errors import UnsupportedGraphError

INPUT_NAME: Final = "rows"
OUTPUT_NAME: Final = "score"
SUPPORTED: Final = (
    "TreeEnsembleRegressor (SUM or AVERAGE, one target), TreeEnsembleClassifier (no base values), LinearRegressor (one "
    "target), LinearClassifier (one row of coefficients per class), post_transform NONE, node modes BRANCH_LEQ, "
    "BRANCH_LT, BRANCH_GTE, BRANCH_GT, over 'rows' with two rows or more; behind it Identity, ArrayFeatureExtractor or "
    "Gather of one column"
)
_BEHIND: Final = ("Identity", "ArrayFeatureExtractor", "Gather")


class _Scored(Struct, frozen=True):
    """The operator that scores, its attributes, and which column of its output is the score (None: it has one)."""

    kind: str
    attributes: Mapping[str, Any]
    column: int | None
    inputs: int


def lite_model_of(model: bytes) -> LiteModel:
    """Return the lite form. Raises UnsupportedGraphError, which says what is supported."""
    scored = _scored(onnx.load_from_string(model))
    if _text(scored.attributes.get("post_transform", b"NONE")) != "NONE":
        raise _unsupported(f"post_transform {_text(scored.attributes['post_transform'])}")
    readers: dict[str, Callable[[_Scored], LiteModel]] = {
        "TreeEnsembleRegressor": _regressor,
        "TreeEnsembleClassifier": _classifier,
        "LinearRegressor": _linear_regressor,
        "LinearClassifier": _linear_classifier,
    }
    if scored.kind not in readers:
        raise _unsupported(f"operator {scored.kind}")
    found = readers[scored.kind](scored)
    check(found)
    return found


def _scored(model: Any) -> _Scored:
    """Follow the graph from its score back to the operator that works on the rows."""
    graph = model.graph
    shapes = {entry.name: [d.dim_value for d in entry.type.tensor_type.shape.dim] for entry in graph.input}
    if list(shapes) != [INPUT_NAME] or len(shapes[INPUT_NAME]) != 2 or shapes[INPUT_NAME][0] == 1:
        raise _unsupported(f"inputs {shapes}")
    makers = {name: node for node in graph.node for name in node.output}
    constants = {entry.name: onnx.numpy_helper.to_array(entry) for entry in graph.initializer}
    column, wanted = None, OUTPUT_NAME
    while True:
        node = makers.get(wanted)
        if node is None:
            raise _unsupported(f"no operator gives {wanted!r}")
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type not in _BEHIND:
            break
        if node.op_type != "Identity":
            column = _column(node, attributes, constants, column)
        wanted = node.input[0]
    if list(node.input) != [INPUT_NAME]:
        raise _unsupported(f"operator {node.op_type} over {list(node.input)}")
    place = list(node.output).index(wanted)
    if place != (1 if node.op_type.endswith("Classifier") else 0):
        raise _unsupported(f"output {place} of {node.op_type} as the score")
    return _Scored(node.op_type, attributes, column, shapes[INPUT_NAME][1])


def _column(node: Any, attributes: Mapping[str, Any], constants: Mapping[str, Any], column: int | None) -> int:
    """Return the one column that an operator picks; picking twice is not supported."""
    picked = constants.get(node.input[1])
    along = attributes.get("axis", 0) if node.op_type == "Gather" else 1
    if column is not None or along not in (1, -1) or picked is None or picked.size != 1:
        raise _unsupported(f"operator {node.op_type} that picks {picked} along {along}")
    return int(picked.reshape(-1)[0])


def _regressor(scored: _Scored) -> Trees:
    attributes = scored.attributes
    base = attributes.get("base_values", [])
    if attributes.get("n_targets", 1) != 1 or len(base) > 1 or scored.column not in (None, 0):
        raise _unsupported(f"TreeEnsembleRegressor with {attributes.get('n_targets')} targets, base values {base}")
    function = _text(attributes.get("aggregate_function", b"SUM"))
    if function not in ("SUM", "AVERAGE"):
        raise _unsupported(f"aggregate_function {function}")
    leaves = _leaves(attributes, "target", 0)
    return _trees(attributes, scored.inputs, leaves, average=function == "AVERAGE", base=base[0] if base else 0.0)


def _classifier(scored: _Scored) -> Trees:
    """Read trees that vote for classes; votes for only one of two classes stand in the second column."""
    attributes = scored.attributes
    labels = attributes.get("classlabels_int64s") or attributes.get("classlabels_strings") or []
    voted = sorted(set(attributes.get("class_ids", [])))
    of = scored.column
    if len(labels) == 2 and len(voted) == 1:
        of = voted[0] if scored.column == 1 else None
    if of not in voted or attributes.get("base_values"):
        raise _unsupported(
            f"TreeEnsembleClassifier with {len(labels)} classes, votes for {voted}, column {scored.column} as the "
            f"score, base values {attributes.get('base_values', [])}"
        )
    return _trees(attributes, scored.inputs, _leaves(attributes, "class", of), average=False, base=0.0)


def _linear_regressor(scored: _Scored) -> Linear:
    targets = scored.attributes.get("targets", 1)
    if targets != 1 or scored.column not in (None, 0):
        raise _unsupported(f"LinearRegressor with {targets} targets")
    return _linear(scored, 0, 1)


def _linear_classifier(scored: _Scored) -> Linear:
    classes = len(scored.attributes.get("classlabels_ints") or scored.attributes.get("classlabels_strings") or [])
    if scored.column is None or not 0 <= scored.column < classes:
        raise _unsupported(f"LinearClassifier with {classes} classes, column {scored.column} as the score")
    return _linear(scored, scored.column, classes)


def _linear(scored: _Scored, row: int, rows: int) -> Linear:
    coefficients = scored.attributes.get("coefficients", [])
    intercepts = scored.attributes.get("intercepts", [])
    if len(coefficients) != rows * scored.inputs or len(intercepts) not in (0, rows):
        raise _unsupported(
            f"{scored.kind} with {len(coefficients)} coefficients and {len(intercepts)} intercepts for {rows} rows of "
            f"{scored.inputs} inputs"
        )
    own = coefficients[row * scored.inputs : (row + 1) * scored.inputs]
    return Linear(list(own), intercepts[row] if intercepts else 0.0)


def _leaves(attributes: Mapping[str, Any], kind: str, of: int | None) -> dict[tuple[int, int], float]:
    """Return what each leaf (tree, node) adds to one target or class."""
    names = (f"{kind}_treeids", f"{kind}_nodeids", f"{kind}_ids", f"{kind}_weights")
    leaves: dict[tuple[int, int], float] = {}
    for tree, node, to, weight in zip(*(attributes.get(name, []) for name in names), strict=True):
        if to == of:
            if (tree, node) in leaves:
                raise _unsupported(f"two weights of one leaf: tree {tree}, node {node}")
            leaves[tree, node] = weight
    return leaves


class _Nodes:
    """Flat lists that grow by one node at a time."""

    def __init__(self) -> None:
        self.features: list[int] = []
        self.values: list[float] = []
        self.low: list[int] = []
        self.high: list[int] = []
        self.absent: list[int] = []

    def add(self, feature: int, value: float) -> int:
        """Add a node without children and return its place."""
        self.features.append(feature)
        self.values.append(value)
        for children in (self.low, self.high, self.absent):
            children.append(0)
        return len(self.features) - 1


class _Branch(Struct, frozen=True):
    """A node of the graph as the lite form has it: up to `value` to `low`, both as (tree, node)."""

    feature: int
    value: float
    low: tuple[int, int]
    high: tuple[int, int]
    absent: tuple[int, int]


def _trees(
    attributes: Mapping[str, Any], inputs: int, leaves: Mapping[tuple[int, int], float], *, average: bool, base: float
) -> Trees:
    branches, order = _branches(attributes)
    nodes, roots = _Nodes(), []
    for root in order:
        roots.append(len(nodes.features))
        # (node of the graph, lists that name it as a child, place of the parent)
        waiting: list[tuple[tuple[int, int], list[list[int]], int]] = [(root, [], 0)]
        while waiting:
            name, named_by, parent = waiting.pop()
            branch = branches.get(name)
            if branch is None and name not in leaves:
                raise _unsupported(f"a leaf without a weight: tree {name[0]}, node {name[1]}")
            at = nodes.add(LEAF, leaves[name]) if branch is None else nodes.add(branch.feature, branch.value)
            for children in named_by:
                children[parent] = at
            if branch is not None:
                absent_low = branch.absent == branch.low
                waiting.append((branch.high, [nodes.high] if absent_low else [nodes.high, nodes.absent], at))
                waiting.append((branch.low, [nodes.low, nodes.absent] if absent_low else [nodes.low], at))
    if len(nodes.features) != len(attributes["nodes_nodeids"]):
        raise _unsupported("nodes that no root leads to")
    absent = None if nodes.absent == nodes.high else nodes.absent
    return Trees(inputs, roots, nodes.features, nodes.values, nodes.low, nodes.high, absent, average=average, base=base)


def _branches(attributes: Mapping[str, Any]) -> tuple[dict[tuple[int, int], _Branch], Iterable[tuple[int, int]]]:
    """Return the inner nodes by (tree, node), and the root of each tree in the order of the graph."""
    count = len(attributes.get("nodes_treeids", []))
    names = ("treeids", "nodeids", "featureids", "modes", "values", "truenodeids", "falsenodeids")
    rows = list(zip(*(attributes.get(f"nodes_{name}", []) for name in names), strict=True))
    tracks = attributes.get("nodes_missing_value_tracks_true") or [0] * count
    if not count or len(tracks) != count:
        raise _unsupported(f"{count} nodes with {len(tracks)} tracks of missing values")
    branches: dict[tuple[int, int], _Branch] = {}
    orphans = {(row[0], row[1]): None for row in rows}
    if len(orphans) != count:
        raise _unsupported("two nodes of one number in a tree")
    for (tree, node, feature, mode, value, yes, no), track in zip(rows, tracks, strict=True):
        if _text(mode) == "LEAF":
            continue
        branch = _branch(_text(mode), feature, value, (tree, yes), (tree, no), tracked=bool(track))
        branches[tree, node] = branch
        for child in (branch.low, branch.high):
            if child not in orphans:
                raise _unsupported(f"tree {tree}, node {node}: child {child[1]} is missing or has another parent")
            del orphans[child]
    if len({tree for tree, _ in orphans}) != len(orphans):
        raise _unsupported("a tree with two roots")
    return branches, orphans


def _branch(
    mode: str, feature: int, value: float, yes: tuple[int, int], no: tuple[int, int], *, tracked: bool
) -> _Branch:
    """Return a node as a comparison 'at most': below a number is at most the 32-bit number before it."""
    # No comparison with what is not a number holds; a tracked node takes it as one that does.
    absent = yes if tracked else no
    if mode in ("BRANCH_LT", "BRANCH_GTE"):
        value = float(np.nextafter(np.float32(value), np.float32(-np.inf)))
    if mode in ("BRANCH_LEQ", "BRANCH_LT"):
        return _Branch(feature, value, yes, no, absent)
    if mode in ("BRANCH_GT", "BRANCH_GTE"):
        return _Branch(feature, value, no, yes, absent)
    raise _unsupported(f"node mode {mode}")


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _unsupported(found: str) -> UnsupportedGraphError:
    return UnsupportedGraphError(f"lite form: found {found}: supported is {SUPPORTED}")
