"""The lite form gives the runtime's scores, bit for bit: on real rows, and on graphs that nobody would train."""

import os
import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import ExtraTreesRegressor, GradientBoostingRegressor, RandomForestClassifier
from sklearn.linear_model import LinearRegression
from sklearn.tree import DecisionTreeClassifier

from contracts import lite_model
from contracts.errors import ContractError
from contracts.lite_model import Linear, Trees
from edge_agent.lite.model import _fused, scorer_of
from infra.setup.paths import repo_root
from onnx_models import UnsupportedGraphError
from onnx_models.dataset import read_sensor_record, training_row_count
from onnx_models.export import export_forest
from onnx_models.lite import lite_model_of
from onnx_models.training import ForestOptions, fit_forest

DATA_VARIABLE = "FIELDLAKE_DATA_DIR"
DATA = Path(os.environ.get(DATA_VARIABLE, repo_root().parent / "shared" / "data"))
MACHINES = DATA / "ai4i2020" / "ai4i2020_train.csv"
CHUNK_ROWS = 64
Rows = NDArray[np.float32]


def bits(scores: Sequence[float] | NDArray[np.float32]) -> list[int]:
    """Return scores as their 32 bits, all that are not numbers as one."""
    array = np.asarray(scores, dtype=np.float32)
    assert [float(score) for score in array] == pytest.approx(list(scores), abs=0.0, nan_ok=True)
    return np.where(np.isnan(array), 0x7FC00000, array.view(np.int32)).tolist()


def runtime_scores(model: bytes, rows: Rows) -> NDArray[np.float32]:
    """Score as a device does: chunks of one shape on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    padded = np.zeros((-(-len(rows) // CHUNK_ROWS) * CHUNK_ROWS, rows.shape[1]), dtype=np.float32)
    padded[: len(rows)] = rows
    parts = [
        np.ravel(session.run(["score"], {"rows": padded[first : first + CHUNK_ROWS]})[0])
        for first in range(0, len(padded), CHUNK_ROWS)
    ]
    return np.concatenate(parts)[: len(rows)]


def lite_scores(model: bytes, rows: Rows) -> list[float]:
    """Score by the lite form, once through its document."""
    return scorer_of(lite_model.decode(lite_model.encode(lite_model_of(model))))(rows.tolist())


def graph(nodes: list[Any], width: int, constants: Sequence[Any] = (), rows: int = CHUNK_ROWS) -> bytes:
    """Return a model over `rows`, whose last node gives `score`."""
    given_rows = helper.make_tensor_value_info("rows", TensorProto.FLOAT, [rows, width])
    score = helper.make_tensor_value_info("score", TensorProto.FLOAT, None)
    made = helper.make_graph(nodes, "probe", [given_rows], [score], list(constants))
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    return bytes(helper.make_model(made, opset_imports=opsets, ir_version=9).SerializeToString())


def ml(kind: str, outputs: list[str], **attributes: Any) -> Any:
    return helper.make_node(kind, ["rows"], outputs, domain="ai.onnx.ml", **attributes)


def picked(column: int, kind: str = "ArrayFeatureExtractor") -> tuple[Any, Any]:
    """Return a node that picks one column of `all`, and the constant that it needs."""
    constant = helper.make_tensor("which", TensorProto.INT64, [1], [column])
    if kind == "Gather":
        return helper.make_node("Gather", ["all", "which"], ["score"], axis=1), constant
    return helper.make_node(kind, ["all", "which"], ["score"], domain="ai.onnx.ml"), constant


def exported(estimator: Any, width: int, column: int | None = None) -> bytes:
    """Return a fitted estimator as a graph that gives `score`, which is one column of what it gives."""
    options = {id(estimator): {"zipmap": False}} if column is not None else None
    model = convert_sklearn(
        estimator, initial_types=[("rows", FloatTensorType([CHUNK_ROWS, width]))], options=options,
        target_opset={"": 18, "ai.onnx.ml": 1},
    )  # fmt: skip
    (made,) = [node for node in model.graph.node if node.domain == "ai.onnx.ml"]
    attributes = {a.name: helper.get_attribute_value(a) for a in made.attribute}
    if column is None:
        return graph([ml(made.op_type, ["score"], **attributes)], width)
    pick, which = picked(column)
    return graph([ml(made.op_type, ["label", "all"], **attributes), pick], width, [which])


def test_the_shuttle_filters_whole_holdout() -> None:
    from infra.setup import paths

    record = read_sensor_record(paths.shuttle_csv_gz())
    first = training_row_count(len(record.labels))
    model = export_forest(fit_forest(record.rows[:8_000], record.labels[:8_000], ForestOptions(), 20_260))
    rows = record.rows[first:]
    assert bits(lite_scores(model, rows)) == bits(runtime_scores(model, rows))


@pytest.fixture(scope="module")
def machines() -> tuple[Rows, NDArray[np.bool_]]:
    """Five sensors and the failures of milling machines, fractions among the values."""
    if not MACHINES.exists():
        pytest.skip(f"no {MACHINES}: set {DATA_VARIABLE}")
    table = np.loadtxt(MACHINES, delimiter=",", skiprows=1, usecols=(3, 4, 5, 6, 7, 8), dtype=np.float64)
    return table[:, :5].astype(np.float32), table[:, 5] == 1


@pytest.mark.parametrize(
    ("estimator", "column"),
    [
        (ExtraTreesRegressor(20, max_depth=12, random_state=1, n_jobs=1), None),
        (GradientBoostingRegressor(n_estimators=40, random_state=1), None),
        (RandomForestClassifier(10, max_depth=8, random_state=1, n_jobs=1), 1),
        (DecisionTreeClassifier(max_depth=10, random_state=1), 1),
        (LinearRegression(), None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_models_of_real_machines(machines: tuple[Rows, NDArray[np.bool_]], estimator: Any, column: int | None) -> None:
    rows, failed = machines
    half = len(rows) // 2
    target = failed[:half] if column is not None else failed[:half].astype(np.float64)
    model = exported(estimator.fit(rows[:half], target), rows.shape[1], column)
    expected = runtime_scores(model, rows[half:])
    assert len(set(bits(expected))) > 1
    assert bits(lite_scores(model, rows[half:])) == bits(expected)


def test_votes_of_a_forest_for_one_of_three_classes(machines: tuple[Rows, NDArray[np.bool_]]) -> None:
    rows, _ = machines
    forest = RandomForestClassifier(6, max_depth=6, random_state=1, n_jobs=1).fit(
        rows, np.digitize(rows[:, 3], (35, 45))
    )
    for column in range(3):
        model = exported(forest, rows.shape[1], column)
        assert bits(lite_scores(model, rows[:2_000])) == bits(runtime_scores(model, rows[:2_000]))


WIDTH = 3
FLOATS = st.sampled_from([-2.0, -0.5, -0.0, 0.0, 0.1, 1.0, 1 / 3, 1e-40, 3e38]).map(lambda v: float(np.float32(v)))
MODES = st.sampled_from(["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT"])
WEIGHTS = st.floats(-1e6, 1e6, width=32) | st.sampled_from([1e-45, 1e38, -1e38, 0.1]).map(
    lambda v: float(np.float32(v))
)
SHAPES: st.SearchStrategy[Any] = st.recursive(
    WEIGHTS,
    lambda inner: st.tuples(st.integers(0, WIDTH - 1), MODES, FLOATS, st.booleans(), inner, inner),
    max_leaves=12,
)
WILD_ROWS = st.lists(
    st.lists(FLOATS | st.floats(width=32, allow_infinity=True) | st.just(float("nan")), min_size=WIDTH, max_size=WIDTH),
    min_size=1,
    max_size=20,
)


def ensemble(trees: list[Any], kind: str = "target") -> dict[str, Any]:
    """Return the attributes of trees that are nested tuples."""
    names = ("treeids", "nodeids", "featureids", "modes", "values", "truenodeids", "falsenodeids",
             "missing_value_tracks_true")  # fmt: skip
    columns: dict[str, list[Any]] = {f"nodes_{name}": [] for name in names}
    weights: dict[str, list[Any]] = {f"{kind}_{name}": [] for name in ("treeids", "nodeids", "ids", "weights")}
    for tree, shape in enumerate(trees):
        waiting, next_id = [(shape, 0)], 1
        while waiting:
            node, at = waiting.pop(0)
            if isinstance(node, tuple):
                feature, mode, value, tracked, yes, no = node
                row = (tree, at, feature, mode, value, next_id, next_id + 1, int(tracked))
                waiting += [(yes, next_id), (no, next_id + 1)]
                next_id += 2
            else:
                row = (tree, at, 0, "LEAF", 0.0, 0, 0, 0)
                for name, entry in zip(weights, (tree, at, 0, node), strict=True):
                    weights[name].append(entry)
            for name, entry in zip(columns, row, strict=True):
                columns[name].append(entry)
    return columns | weights


@settings(max_examples=120)
@given(st.lists(SHAPES, min_size=1, max_size=5), WILD_ROWS, st.sampled_from(["SUM", "AVERAGE"]), st.none() | WEIGHTS)
def test_any_trees_over_any_values(
    trees: list[Any], rows: list[list[float]], function: str, base: float | None
) -> None:
    extra = {} if base is None else {"base_values": [base]}
    node = ml("TreeEnsembleRegressor", ["score"], n_targets=1, aggregate_function=function, **ensemble(trees), **extra)
    model, values = graph([node], WIDTH), np.array(rows, dtype=np.float32)
    assert bits(lite_scores(model, values)) == bits(runtime_scores(model, values))


COEFFICIENTS = st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=20)


@settings(max_examples=80)
@given(COEFFICIENTS, st.floats(-100, 100, width=32), st.integers(0, 2**32 - 1), st.booleans())
def test_any_linear_model(coefficients: list[float], intercept: float, seed: int, coarse: bool) -> None:
    """Coarse values have few digits, so that sums end half-way between two numbers again and again."""
    width = len(coefficients)
    rows = np.random.default_rng(seed).normal(size=(70, width)).astype(np.float32)
    if coarse:
        rows = (np.round(rows * 8) * np.float32(2**20 + 1)).astype(np.float32)
    node = ml("LinearRegressor", ["score"], coefficients=coefficients, intercepts=[intercept], targets=1)
    model = graph([node], width)
    assert bits(lite_scores(model, rows)) == bits(runtime_scores(model, rows))


@pytest.mark.parametrize("kind", ["ArrayFeatureExtractor", "Gather"])
def test_each_class_of_a_linear_classifier(kind: str) -> None:
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(200, 5)).astype(np.float32)
    coefficients, intercepts = rng.normal(size=15).tolist(), rng.normal(size=3).tolist()
    for column in range(3):
        pick, which = picked(column, kind)
        node = ml(
            "LinearClassifier", ["label", "all"], coefficients=coefficients, intercepts=intercepts,
            classlabels_ints=[0, 1, 2],
        )  # fmt: skip
        model = graph([node, pick], 5, [which])
        assert bits(lite_scores(model, rows)) == bits(runtime_scores(model, rows))


FEW_DIGITS = st.builds(lambda n, e: float(np.float32(n * 2.0**e)), st.integers(-(2**24), 2**24), st.integers(-30, 30))


# 8384513 * 8392705 is 2**46 + 1, and (2**23 + 1) * (2**23 - 1) one less: 64 bits see a tie where there is none.
@example(8_384_513 * 2.0**-35, 8_392_705 * 2.0**-35, 1.0)
@example(8_384_513 * 2.0**-35, -8_392_705 * 2.0**-35, -1.0)
@example((1 + 2.0**-23) * 2.0**-24, 1 - 2.0**-23, 1 + 2.0**-23)
@example((1 + 2.0**-23) * 2.0**-24, 2.0**-23 - 1, -1 - 2.0**-23)
@settings(max_examples=500)
@given(FEW_DIGITS, FEW_DIGITS, FEW_DIGITS | st.floats(-(2.0**99), 2.0**99, width=32))
def test_a_fused_step_is_rounded_once(value: float, coefficient: float, total: float) -> None:
    from array import array

    found = _fused(value * coefficient, total, array("f", (0.0,)))
    exact = Fraction(value) * Fraction(coefficient) + Fraction(total)
    assert Fraction(found) == nearest(exact)


def nearest(exact: Fraction) -> Fraction:
    """Return the closest 32-bit number, of two as close the even one, by trying those around."""
    middle = np.float32(float(exact))
    around = [
        float(v) for v in (np.nextafter(middle, np.float32(-np.inf)), middle, np.nextafter(middle, np.float32(np.inf)))
    ]

    def distance(number: float) -> tuple[Fraction, int]:
        return abs(Fraction(number) - exact), int(np.float32(number).view(np.int32)) & 1

    return Fraction(min(around, key=distance))


STUMP = (0, "BRANCH_LEQ", 0.0, False, 1.0, 2.0)
TREES = ensemble([STUMP])
VOTES = ensemble([STUMP], "class") | {"classlabels_int64s": [0, 1]}


def changed(**changes: Any) -> dict[str, Any]:
    return TREES | changes


def regressor(**changes: Any) -> bytes:
    return graph([ml("TreeEnsembleRegressor", ["score"], **changed(**changes))], WIDTH)


def classifier(column: int, **changes: Any) -> bytes:
    pick, which = picked(column)
    return graph([ml("TreeEnsembleClassifier", ["label", "all"], **(VOTES | changes)), pick], WIDTH, [which])


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (regressor(post_transform="LOGISTIC"), "post_transform LOGISTIC"),
        (regressor(aggregate_function="MAX"), "aggregate_function MAX"),
        (regressor(n_targets=2), "2 targets"),
        (regressor(nodes_modes=["BRANCH_EQ", "LEAF", "LEAF"]), "node mode BRANCH_EQ"),
        (regressor(target_nodeids=[1, 1]), "two weights of one leaf"),
        (regressor(target_ids=[0, 1]), "a leaf without a weight"),
        (regressor(nodes_truenodeids=[0, 0, 0]), "nodes that no root leads to"),
        (regressor(nodes_falsenodeids=[9, 0, 0]), "is missing"),
        (classifier(0), "column 0"),
        (classifier(1, base_values=[0.5]), "base values"),
        (graph([ml("Scaler", ["score"], offset=[0.0], scale=[1.0])], WIDTH), "operator Scaler"),
        (graph([ml("LinearRegressor", ["score"], coefficients=[1.0] * 6, targets=2)], WIDTH), "2 targets"),
        (graph([ml("LinearRegressor", ["score"], coefficients=[1.0])], WIDTH), "1 coefficients"),
        (graph([ml("LinearRegressor", ["score"], coefficients=[1.0] * 3)], WIDTH, rows=1), "inputs"),
        (graph([ml("LinearRegressor", ["other"], coefficients=[1.0] * 3)], WIDTH), "no operator gives 'score'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_other_graphs_are_refused_with_what_is_supported(model: bytes, found: str) -> None:
    with pytest.raises(UnsupportedGraphError, match=found) as caught:
        lite_model_of(model)
    assert "supported is TreeEnsembleRegressor" in str(caught.value)


def test_a_network_is_refused() -> None:
    weights = helper.make_tensor("weights", TensorProto.FLOAT, [WIDTH, 1], [1.0] * WIDTH)
    nodes = [helper.make_node("MatMul", ["rows", "weights"], ["sum"]), helper.make_node("Relu", ["sum"], ["score"])]
    with pytest.raises(UnsupportedGraphError, match="operator Relu"):
        lite_model_of(graph(nodes, WIDTH, [weights]))


SOUND = Trees(
    2, [0, 3], [0, -1, -1, 1, -1, -1], [0.5, 1.0, 2.0, 0.25, -1.0, 0.0], [1, 0, 0, 4, 0, 0], [2, 0, 0, 5, 0, 0]
)


@pytest.mark.parametrize(
    "changes",
    [
        {"roots": [6]},
        {"roots": [-1]},
        {"roots": []},
        {"features": [2, -1, -1, 1, -1, -1]},
        {"features": [-2, -1, -1, 1, -1, -1]},
        {"values": [0.5]},
        {"values": [0.1, 1.0, 2.0, 0.25, -1.0, 0.0]},
        {"low": [0, 0, 0, 4, 0, 0]},
        {"low": [1, 0, 0, 3, 0, 0]},
        {"high": [6, 0, 0, 5, 0, 0]},
        {"absent": [0, 0, 0, 5, 0, 0]},
        {"absent": [1]},
        {"inputs": 0},
        {"inputs": 501},
        {"base": 1e39},
    ],
    ids=str,
)
def test_a_document_that_could_not_be_followed_is_refused(changes: dict[str, Any]) -> None:
    import msgspec

    assert lite_model.decode(lite_model.encode(SOUND)) == SOUND
    with pytest.raises(ContractError, match="lite model"):
        lite_model.decode(lite_model.encode(msgspec.structs.replace(SOUND, **changes)))


def test_a_document_beyond_its_limits_is_refused() -> None:
    for data in (
        b"",
        b"\xff",
        b'{"kind":"network"}',
        b'{"kind":"linear","coefficients":[]}',
        b'{"kind":"linear","coefficients":[1],"hidden":[2]}',
        b'{"kind":"linear","coefficients":[1e39]}',
        b" " * (lite_model.DOCUMENT_BYTES_MAX + 1),
    ):
        with pytest.raises(ContractError, match="lite model"):
            lite_model.decode(data)


@settings(max_examples=200)
@given(st.data())
def test_a_damaged_document_ends_in_scores_or_a_typed_error(data: st.DataObject) -> None:
    document = bytearray(lite_model.encode(SOUND))
    for _ in range(data.draw(st.integers(1, 4))):
        document[data.draw(st.integers(0, len(document) - 1))] = data.draw(st.sampled_from(b'0123456789-.,[]{}"e:'))
    try:
        model = lite_model.decode(bytes(document))
    except ContractError:
        return
    assert len(scorer_of(model)([[0.0] * model.inputs])) == 1


def test_one_linear_document_reads_as_it_was_written() -> None:
    model = Linear([float(np.float32(0.1)), -2.0], float(np.float32(1 / 3)))
    assert lite_model.decode(lite_model.encode(model)) == model
    assert struct.pack("<f", scorer_of(model)([[1.0, 0.0]])[0]) == struct.pack(
        "<f", np.float32(0.1) + np.float32(1 / 3)
    )
