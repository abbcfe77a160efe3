"""The filter is trained for real once, and everything that its card claims is looked up again in its bytes."""

import gzip
import hashlib
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest

from contracts import lite_model
from contracts.bundle import Model
from edge_agent.lite.model import scorer_of
from infra.setup import paths
from onnx_models import DatasetError, ExportMismatchError, ModelTooWeakError
from onnx_models.__main__ import main
from onnx_models.card import ModelCard
from onnx_models.dataset import ROWS_MIN, SENSOR_COLUMNS, read_sensor_record, split_rows, training_row_count
from onnx_models.export import (
    CHUNK_ROWS,
    SCORE_TOLERANCE,
    export_forest,
    require_agreement,
    score_with_reference,
    score_with_runtime,
)
from onnx_models.factory import TrainedFilter, build_filter, write_filter
from onnx_models.training import DROP_RATIO_MIN, RECALL_MIN, ForestOptions, choose_threshold, fit_forest

MODEL_BYTES_MAX = 200_000
EXPECTED_ROWS = 49_097


@pytest.fixture(scope="module")
def trained() -> TrainedFilter:
    return build_filter(paths.shuttle_csv_gz())


def test_rows_not_trained_on_reach_the_targets(trained: TrainedFilter) -> None:
    card = trained.card
    assert card.split.row_count == EXPECTED_ROWS
    assert card.split.training_end == training_row_count(EXPECTED_ROWS)
    assert card.holdout.recall.value >= RECALL_MIN
    assert card.holdout.drop_ratio.value >= DROP_RATIO_MIN
    assert card.holdout.drop_ratio.total == EXPECTED_ROWS - card.split.training_end
    assert len(trained.model) <= MODEL_BYTES_MAX


def test_figures_of_the_card_follow_from_model_and_data(trained: TrainedFilter) -> None:
    card = trained.card
    record = read_sensor_record(paths.shuttle_csv_gz())
    rows, labels = record.rows[card.split.training_end :], record.labels[card.split.training_end :]
    kept = score_with_runtime(trained.model, rows) >= card.manifest.threshold
    assert card.holdout.recall.count == int(np.count_nonzero(kept & labels))
    assert card.holdout.recall.total == int(np.count_nonzero(labels))
    assert card.holdout.drop_ratio.count == int(np.count_nonzero(~kept))
    assert card.manifest.sha256 == hashlib.sha256(trained.model).hexdigest()


def test_the_form_without_a_runtime_gives_the_same_scores_bit_for_bit(trained: TrainedFilter) -> None:
    record = read_sensor_record(paths.shuttle_csv_gz())
    rows = record.rows[trained.card.split.training_end :]
    scores = scorer_of(lite_model.decode(trained.lite))(rows.tolist())
    assert np.array_equal(
        np.array(scores, np.float32).view(np.int32), score_with_runtime(trained.model, rows).view(np.int32)
    )
    assert trained.card.manifest.lite_sha256 == hashlib.sha256(trained.lite).hexdigest()


def test_graph_has_the_shape_that_devices_expect(trained: TrainedFilter) -> None:
    graph = onnx.load_from_string(trained.model).graph
    (given,), (result,) = graph.input, graph.output
    shapes = [[d.dim_value for d in value.type.tensor_type.shape.dim] for value in (given, result)]
    assert (given.name, result.name) == ("rows", "score")
    assert shapes == [[CHUNK_ROWS, len(SENSOR_COLUMNS)], [CHUNK_ROWS, 1]]


def test_scores_stay_within_zero_and_one_far_outside_the_record(trained: TrainedFilter) -> None:
    wild = np.random.default_rng(1).uniform(-1e5, 1e5, size=(1_000, 9)).astype(np.float32)
    scores = score_with_runtime(trained.model, wild)
    assert scores.shape == (1_000,)
    assert scores.min() >= 0.0
    assert scores.max() <= 1.0
    assert np.abs(scores - score_with_reference(trained.model, wild)).max() <= SCORE_TOLERANCE


def test_padding_of_the_last_chunk_does_not_touch_its_neighbours(trained: TrainedFilter) -> None:
    rows = read_sensor_record(paths.shuttle_csv_gz()).rows[:200]
    whole = score_with_runtime(trained.model, rows)
    for count in (0, 1, CHUNK_ROWS - 1, CHUNK_ROWS, CHUNK_ROWS + 1):
        assert np.array_equal(score_with_runtime(trained.model, rows[:count]), whole[:count])


def test_same_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    record = read_sensor_record(paths.shuttle_csv_gz())
    rows, labels = record.rows[:5_000], record.labels[:5_000]
    first, again, other = (export_forest(fit_forest(rows, labels, ForestOptions(), seed)) for seed in (7, 7, 8))
    assert first == again
    assert first != other


def test_written_folder_is_complete_and_reads_back(trained: TrainedFilter, tmp_path: Path) -> None:
    write_filter(trained, tmp_path / "model")
    manifest = msgspec.json.decode((tmp_path / "model" / "model.json").read_bytes(), type=Model)
    card = msgspec.json.decode((tmp_path / "model" / "MODEL_CARD.json").read_bytes(), type=ModelCard)
    page = (tmp_path / "model" / "MODEL_CARD.md").read_text()
    assert manifest == trained.card.manifest
    assert card == trained.card
    assert (tmp_path / "model" / manifest.file).read_bytes() == trained.model
    assert manifest.lite_file is not None
    assert (tmp_path / "model" / manifest.lite_file).read_bytes() == trained.lite
    assert f"{card.holdout.recall.count:,} of {card.holdout.recall.total:,}" in page
    assert not list((tmp_path / "model").glob("*.partial"))


def test_disagreeing_scores_are_refused() -> None:
    scores = np.array([0.2, 0.8], dtype=np.float32)
    assert require_agreement("self", scores, scores, 0.5) == 0.0
    with pytest.raises(ExportMismatchError, match="do not ship"):
        require_agreement("shifted", scores + np.float32(0.01), scores, 0.5)
    with pytest.raises(ExportMismatchError, match="1 rows change side"):
        require_agreement("on the edge", scores, np.array([0.2, 0.7999999], dtype=np.float32), 0.8)


def test_threshold_spends_its_allowance_and_no_more() -> None:
    labels = np.zeros(1_000, dtype=np.bool_)
    labels[:50] = True
    scores = np.where(labels, 0.9, 0.0).astype(np.float32)
    scores[50:55] = 0.4
    scores[55:70] = 0.1
    threshold = choose_threshold(scores, labels, ForestOptions(false_keeps_per_mille=5))
    assert threshold == pytest.approx((0.4 + 0.1) / 2)


@pytest.mark.parametrize("calm_score", [0.0, 0.9])
def test_useless_scores_give_no_threshold(calm_score: float) -> None:
    labels = np.arange(1_000) < 70
    scores = np.full(1_000, calm_score, dtype=np.float32)
    with pytest.raises(ModelTooWeakError):
        choose_threshold(scores, labels, ForestOptions())


def test_split_parts_every_row_once() -> None:
    split = split_rows(EXPECTED_ROWS)
    assert 0 < split.fit_end < split.training_end < split.row_count == EXPECTED_ROWS
    with pytest.raises(DatasetError, match="at least"):
        split_rows(ROWS_MIN - 1)


HEADER = "f1,f2,f3,f4,f5,f6,f7,f8,f9,anomaly\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not gzip", "cannot be read"),
        (gzip.compress(b"a,b,c\n1,2,3\n", mtime=0), "header is"),
        (gzip.compress((HEADER + "1,2,3\n").encode(), mtime=0), "expected 10"),
        (gzip.compress((HEADER + "1,2,3,4,5,6,7,8,nine,0\n").encode(), mtime=0), "cannot be read"),
        (gzip.compress((HEADER + "1,2,3,4,5,6,7,8,nan,0\n").encode(), mtime=0), "finite"),
        (gzip.compress((HEADER + "1,2,3,4,5,6,7,8,9,2\n").encode(), mtime=0), "0 or 1"),
        (gzip.compress((HEADER + "1,2,3,4,5,6,7,8,9,0\n").encode(), mtime=0)[:-9], "cannot be read"),
    ],
)
def test_damaged_record_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "record.csv.gz"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        read_sensor_record(path)


def test_command_says_in_one_line_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(tmp_path / "absent.csv.gz"), "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1
