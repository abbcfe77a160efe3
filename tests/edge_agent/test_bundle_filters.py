"""A stream's filter from a bundle's folder: both profiles load it, and decide alike over real rows."""

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from contracts import bundle as bundles
from contracts import lite_model
from contracts.bundle import BUNDLE_FILE, Bundle, Model, Stream
from contracts.edge_rules import Compare, DeadBand, Drop, EdgeRule, Keep, OnChange
from contracts.errors import ContractError
from contracts.ledger import Fate
from edge_agent.adapters import bundle_files
from edge_agent.core.arrays import ARRAYS
from edge_agent.core.events import Reader
from edge_agent.core.intake import Intake
from edge_agent.core.plan import Plan
from edge_agent.errors import BundleError
from edge_agent.lite.bundle_filter import lite_filter_of
from edge_agent.lite.lists import LISTS
from infra.bundles.scoring import require_same_scores, score_rows
from infra.setup import paths
from onnx_models.dataset import SENSOR_COLUMNS, read_sensor_record
from onnx_models.export import CHUNK_ROWS, export_forest
from onnx_models.lite import lite_model_of
from onnx_models.training import ForestOptions, fit_forest
from tests.edge_agent.plant import CONTRACTS, lines_of, reading

RULES = (
    EdgeRule("overheated", 1, Keep(), Compare("f1", "ge", 90)),
    EdgeRule("test-bench", 1, Drop(), Compare("asset_id", "eq", "asset-2")),
    EdgeRule("still", 2, OnChange((DeadBand("f2", absolute=4.0),), 60_000)),
)


@pytest.fixture(scope="module")
def model_files() -> dict[str, bytes]:
    """A small forest in both forms."""
    record = read_sensor_record(paths.shuttle_csv_gz())
    forest = fit_forest(record.rows[:3_000], record.labels[:3_000], ForestOptions(tree_count=4, depth_max=6), 1)
    data = export_forest(forest)
    return {"m.onnx": data, "m.lite.json": lite_model.encode(lite_model_of(data))}


def write(folder: Path, files: dict[str, bytes], **changes: Any) -> Bundle:
    """Write a bundle with rules and a model into a folder."""
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    model = Model(
        "forest",
        "1",
        "m.onnx",
        hashes["m.onnx"],
        SENSOR_COLUMNS,
        0.01,
        CHUNK_ROWS,
        "m.lite.json",
        hashes["m.lite.json"],
    )
    stream = Stream("telemetry", "forest", rules=RULES)
    bundle = Bundle("1", tuple(CONTRACTS.values()), (stream,), models=(msgspec.structs.replace(model, **changes),))
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (folder / BUNDLE_FILE).write_bytes(bundles.encode(bundle))
    return bundle


def plan_of(bundle: Bundle, folder: Path) -> Plan:
    streams = {"telemetry": False}
    return bundle_files.plan_of(bundle, folder, device="device", shard=0, epoch=3, streams=streams, stores=False)


def test_both_profiles_decide_alike_over_real_rows(model_files: dict[str, bytes], tmp_path: Path) -> None:
    write(tmp_path, model_files)
    bundle = bundle_files.load(tmp_path)
    plan = bundle_files.plan_of(
        bundle, tmp_path, device="device", shard=0, epoch=3, streams={"telemetry": False}, stores=False
    )
    light = lite_filter_of(bundle, tmp_path, "telemetry", "device", 3)
    rows = read_sensor_record(paths.shuttle_csv_gz()).rows[40_000:42_000].astype(np.int64).tolist()
    values = [dict(zip(SENSOR_COLUMNS, row, strict=True)) for row in rows]
    events = (
        Reader(CONTRACTS["telemetry"], ARRAYS).read(0, lines_of([reading(n, **v) for n, v in enumerate(values)])).events
    )
    lists = Reader(CONTRACTS["telemetry"], LISTS).read(0, events.lines).events
    one, other = plan.streams[0].filter.explain(events), light.explain(lists)
    assert one == other
    decided = {explanation.reason for explanation in one}
    assert decided == {"kept_by_rule", "dropped_by_rule", "unchanged", "scored_high", "filtered"}


def test_the_ledger_counts_each_rule_and_reason_apart(model_files: dict[str, bytes], tmp_path: Path) -> None:
    bundle = write(tmp_path, model_files)
    plan = bundle_files.plan_of(
        bundle, tmp_path, device="device", shard=0, epoch=3, streams={"telemetry": False}, stores=False
    )
    lines = lines_of([reading(n, f1=95 if n < 3 else 0, f2=50) for n in range(30)])
    group = Intake(plan, None).take({"telemetry": lines}, 1_000)
    assert group is not None
    said = {(count.fate, count.rule, count.reason): count.count for count in group.meta.counts if count.rule}
    dropped = Fate.DROPPED.value
    assert said == {(dropped, "test-bench@1", "dropped_by_rule"): 9, (dropped, "still@2", "unchanged"): 16}
    assert sum(count.count for count in group.meta.counts if count.stream == "telemetry") == 30


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lite_file": None}, "expected a lite_file"),
        ({"lite_sha256": "0" * 64}, "fetch it again"),
        ({"lite_file": "gone.json"}, "No such file"),
        ({"inputs": SENSOR_COLUMNS[:8]}, "expected 8 inputs in m.lite.json, found 9"),
        ({"inputs": ("gone",)}, "'gone'"),
        ({"id": "other"}, "names model 'forest', it has other"),
    ],
    ids=str,
)
def test_a_bundle_that_a_small_device_cannot_follow_is_refused(
    model_files: dict[str, bytes], tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(BundleError, match=said):
        lite_filter_of(write(tmp_path, model_files, **changes), tmp_path, "telemetry", "device", 1)


def test_a_bundle_whose_two_forms_disagree_is_not_made(model_files: dict[str, bytes], tmp_path: Path) -> None:
    record = read_sensor_record(paths.shuttle_csv_gz()).rows[:500]
    rows = pa.table({name: record[:, place] for place, name in enumerate(SENSOR_COLUMNS)})
    (model,) = write(tmp_path, model_files).models
    scores = score_rows(rows, model, tmp_path)
    require_same_scores(rows, model, tmp_path, scores)
    trees = lite_model.decode(model_files["m.lite.json"])
    assert isinstance(trees, lite_model.Trees)
    other = msgspec.structs.replace(trees, base=2.0**-20)
    (tmp_path / "m.lite.json").write_bytes(lite_model.encode(other))
    with pytest.raises(ContractError, match="differ in"):
        require_same_scores(rows, model, tmp_path, scores)
